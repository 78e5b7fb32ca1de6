"""Regional regression and baselines: closed forms, a planted relation, and every figure beside its baseline."""

from __future__ import annotations

import html
import re
import shutil
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy import ndimage
from synthesis_cohort import Person
from toy_models import write_people

from tau_pipeline.cohort.demographics import Demographics, read_demographics
from tau_pipeline.derivatives.dataset import write_dataset_files
from tau_pipeline.derivatives.names import sidecar_path
from tau_pipeline.errors import DamagedFileError, SettingError
from tau_pipeline.figures.training import regional_figure
from tau_pipeline.files import read_json, read_tsv, write_json, write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import image_like, save_volume
from tau_pipeline.synthesis.data.anatomy import AGE, SEX, Anatomy, label_volumes
from tau_pipeline.synthesis.data.covariates import covariates_of, with_covariates
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.pairs import find_pairs
from tau_pipeline.synthesis.data.prepare import prepare
from tau_pipeline.synthesis.data.scaling import MinMax
from tau_pipeline.synthesis.model.baseline_scores import (
    BASELINES,
    MEASURES,
    MODEL,
    NOT_KNOWN,
    HeldOut,
    baseline_keys,
    unbeaten,
)
from tau_pipeline.synthesis.model.ensemble import load_ensemble
from tau_pipeline.synthesis.model.map_scores import HeldOutTables
from tau_pipeline.synthesis.model.regression import COVARIATES, RegionalRegression, features, painted
from tau_pipeline.synthesis.model.regression_fit import LEAST_PARTICIPANTS, _searched, fit_regression
from tau_pipeline.synthesis.training.priors import fit_priors
from tau_pipeline.synthesis.training.processes import Processes
from tau_workflows.cli import main
from tau_workflows.reports import model as model_page
from tau_workflows.reports.cohort_warnings import unbeaten_sentences
from tau_workflows.reports.model import _rows

SMALL = Grid((24, 24, 24), (2.0, 2.0, 2.0))
#: Labels of the made-up heads.
LABELS = (1006, 1015, 2006, 2015)


# --- painting ---


def test_the_painted_map_has_the_wanted_regional_means_and_stays_in_the_brain() -> None:
    x, y, z = np.indices((40, 44, 36)) - 20.0
    brain = x**2 + y**2 + z**2 < 18**2
    labels = np.where(x < 0, 1006, 2006) + np.where(y > 3, 9, 0)
    values = {1006: 1.0, 1015: 1.4, 2006: 2.0, 2015: 0.8, 0: 1.2}
    found = painted(values, labels, brain, 7.0, (2.0, 2.0, 2.0))
    blurred_once = ndimage.gaussian_filter(np.vectorize(values.get)(labels) * brain, 7 / 2.3548 / 2)
    for number in LABELS:
        inside = brain & (labels == number)
        assert found[inside].mean() == pytest.approx(values[number], abs=0.03)
        assert abs(found[inside].mean() - values[number]) < abs(blurred_once[inside].mean() - values[number])
    assert not found[~brain].any()


def test_one_value_everywhere_is_that_value_and_unknown_labels_take_that_of_brain_without_a_label() -> None:
    brain = np.zeros((12, 12, 12), bool)
    brain[2:-2, 2:-2, 2:-2] = True
    labels = np.where(np.indices(brain.shape)[0] < 6, 17, 4242)
    np.testing.assert_allclose(painted({0: 1.3, 17: 1.3}, labels, brain, 6.0, (2, 2, 2))[brain], 1.3, rtol=1e-5)
    assert painted({17: 1.0}, labels, np.zeros_like(brain), 6.0, (2, 2, 2)).max() == 0


# --- features and fit ---


def test_features_are_logs_of_parts_of_the_brain_and_what_is_not_known_is_nan() -> None:
    found = features(Anatomy(np.zeros(1, int), {0: 500.0, 10: 250.0, 49: 250.0}, {AGE: 70.0}), [10, 49, 53])
    np.testing.assert_allclose(found, [np.log(0.25), np.log(0.25), np.nan, np.log(1000.0), 70.0, np.nan])
    assert COVARIATES == (AGE, SEX)
    more = features(Anatomy(np.zeros(1, int), {0: 500.0}, {"p_tau217": -0.5}), [], (AGE, "p_tau217"))
    np.testing.assert_allclose(more, [np.log(500.0), np.nan, -0.5])


def test_a_covariate_that_explains_uptake_is_used_and_one_that_does_not_is_not(people: Path, tmp_path: Path) -> None:
    scaling, rng = MinMax(0.0, 3.0), np.random.default_rng(0)
    pairs = find_pairs(people / "out")
    levels = {pair.scan: prepare(pair, SMALL, tmp_path).uptake[1006] for pair in pairs}
    shuffled = dict(zip(levels, rng.permutation(list(levels.values())), strict=True))
    errors = {}
    for name, values in (("given", levels), ("shuffled", shuffled)):
        # The volumes say nothing: all participants have those of the first.
        known = [
            replace(pair, dseg_file=pairs[0].dseg_file, covariates={"p_tau217": values[pair.scan]}) for pair in pairs
        ]
        system = fit_regression(known[:10], scaling, SMALL, covariates=("p_tau217",)).system
        assert system.covariates.tolist() == [0, 1, 4]
        place = system.labels.tolist().index(1006)
        errors[name] = np.mean(
            [
                abs(
                    system.regional(Anatomy(np.zeros(1, int), prepare(p, SMALL).volumes, p.covariates))[:, place].mean()
                    - scaling.apply(np.array(levels[p.scan]), p.manufacturer)
                )
                for p in known[10:]
            ]
        )
    assert errors["given"] < 0.25 * errors["shuffled"]


def test_thickness_of_the_cortex_is_a_feature_where_the_t1w_has_surfaces(people: Path, tmp_path: Path) -> None:
    shutil.copytree(people / "out", tmp_path / "out")
    pairs, scaling = find_pairs(tmp_path / "out"), MinMax(0.0, 3.0)
    levels = {pair.scan: prepare(pair, SMALL).uptake[1006] for pair in pairs}
    for pair in pairs[1:]:
        # The second row is a composite, which has no number; 2006 has no vertices.
        table = pd.DataFrame({"index": ["1006", "n/a", "2006"], "thickness_mean": [4 - levels[pair.scan], 2.5, np.nan]})
        write_tsv(table, pair.anat.thickness_table)
    errors = {}
    for name, scans in (("without", pairs), ("with", with_covariates(pairs, Demographics({}, {})))):
        # The volumes say nothing: all participants have those of the first.
        known = [replace(pair, dseg_file=pairs[0].dseg_file) for pair in scans]
        system = fit_regression(known[:10], scaling, SMALL).system
        place, volumes = system.labels.tolist().index(1006), prepare(known[0], SMALL).volumes
        predicted = [
            system.regional(Anatomy(np.zeros(1, int), volumes, pair.covariates))[:, place].mean() for pair in known[10:]
        ]
        measured = [scaling.apply(np.array(levels[pair.scan]), pair.manufacturer) for pair in known[10:]]
        errors[name] = np.abs(np.subtract(predicted, measured)).mean()
    assert system.covariate_names == (AGE, SEX, "thickness_1006")
    assert errors["with"] < 0.25 * errors["without"]
    write_tsv(pd.DataFrame({"index": [1006]}), pairs[1].anat.thickness_table)
    with pytest.raises(DamagedFileError, match="has no column thickness_mean"):
        with_covariates(pairs, Demographics({}, {}))


def test_a_regression_of_an_earlier_version_has_age_and_sex() -> None:
    state = {name: torch.zeros(1, 2, 4) if name == "weight" else torch.zeros(1, 2) for name in ("weight", "bias")}
    state |= {"labels": torch.tensor([0, 17]), "feature_labels": torch.tensor([17]), "fwhm_mm": torch.ones(1)}
    state |= {"center": torch.zeros(4), "scale": torch.ones(4)}
    state["weight"][0, 1] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    found = RegionalRegression(state).regional(Anatomy(np.zeros(1, int), {17: 5.0}, {AGE: 70.0, "p_tau217": 9.0}))
    np.testing.assert_allclose(found, [[0.0, 70.0]])


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"age": 71.0, "sex": "F"}, {AGE: 71.0, SEX: 1.0}),
        ({"age": None, "sex": "male"}, {SEX: 0.0}),
        ({"sex": "x"}, {}),
        ({}, {}),
    ],
)
def test_age_and_sex_become_numbers_or_are_left_out(stated: dict, expected: dict) -> None:
    assert covariates_of(Demographics({"sub-1": stated}, {}), "sub-1", None) == expected


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen people whose left anterior region is the smaller the more SUVR there is everywhere in the brain."""
    root = tmp_path_factory.mktemp("people")
    (root / "bids").mkdir()
    levels = np.linspace(1.0, 2.0, 14)[np.random.default_rng(3).permutation(14)]
    made = tuple(
        Person(f"{n:02d}", "RAS", ("SIEMENS", "GE")[n % 2], float(level), (22, 24, 20))
        for n, level in enumerate(levels, start=1)
    )
    lines = [f"sub-{p.label}\t{60 + n}\t{'FM'[n % 2]}\t{'CN' if n % 2 else 'AD'}" for n, p in enumerate(made)]
    (root / "bids/participants.tsv").write_text("participant_id\tage\tsex\tgroup\n" + "\n".join(lines) + "\n")
    write_dataset_files(root / "out", root / "bids")
    write_people(root / "out", made)
    for person in made:
        path = sidecar_path(person.pet(root / "out").suvr())
        moments = {"BrainMean": person.level, "BrainStandardDeviation": 0.3, "BrainVoxels": 4000}
        write_json({**read_json(path), **moments}, path)
        path = person.anat(root / "out").dseg
        dseg = load_volume(path)
        labels = np.asarray(dseg.dataobj).copy()
        anterior = np.argwhere(labels == 1015)
        order = np.argsort(anterior @ dseg.affine[1, :3], kind="stable")
        given_away = anterior[order[: int(len(order) * (person.level - 1) * 0.6)]]
        labels[tuple(given_away.T)] = 1006
        save_volume(image_like(labels, dseg), path)
    return root


def test_the_regression_finds_a_planted_relation_and_nothing_of_others_is_needed(people: Path, tmp_path: Path) -> None:
    pairs = find_pairs(people / "out")
    scaling = MinMax(0.0, 3.0)
    found = fit_regression(pairs[:10], scaling, SMALL, tmp_path)
    model = found.system
    for pair in pairs[10:]:
        scan = prepare(pair, SMALL, tmp_path)
        of_label = dict(zip(model.labels.tolist(), model.regional(scan.anatomy({})).mean(axis=0), strict=True))
        for number in LABELS:
            assert scaling.invert(of_label[number], None) == pytest.approx(scan.uptake[number], abs=0.12)
    # A member is the whole model plus what leaving out a part changes; the mean is the whole model.
    assert len(model.weight) == 5
    assert float(model.weight.std(dim=0).max()) > 0


def test_candidates_that_cannot_be_fitted_are_passed_over_without_a_word() -> None:
    table, targets = np.random.default_rng(0).normal(size=(8, 5)), np.ones((8, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search = _searched(table, targets, [f"sub-{n}" for n in range(8)])
    np.testing.assert_allclose(search.best_estimator_.predict(table), 1.0)


def test_too_few_participants_are_refused_with_the_number_that_is_needed(people: Path, tmp_path: Path) -> None:
    pairs = find_pairs(people / "out")[: LEAST_PARTICIPANTS - 1]
    with pytest.raises(SettingError, match=f"has 5 participants.*needs {LEAST_PARTICIPANTS} or more"):
        fit_regression(pairs, MinMax(0.0, 3.0), SMALL, tmp_path)


def test_a_network_on_a_regression_needs_one_participant_more_and_the_whole_split_is_counted(people: Path) -> None:
    # Each training participant gets the map of a regression of the others.
    train: Any = SimpleNamespace(pairs=find_pairs(people / "out")[:LEAST_PARTICIPANTS])
    with pytest.raises(SettingError, match=f"has {LEAST_PARTICIPANTS} participants.*needs {LEAST_PARTICIPANTS + 1} or"):
        fit_priors(train, [], Processes(0, 1, torch.device("cpu")))


def test_weights_of_something_else_are_damaged() -> None:
    with pytest.raises(DamagedFileError, match="not those of a regional regression"):
        RegionalRegression({"weight": torch.zeros(1, 2, 3)})


# --- verdict ---


def held_out(model: tuple, regression: tuple) -> HeldOut:
    return HeldOut(
        "test",
        7,
        {MODEL: dict(zip(MEASURES, model, strict=True)), BASELINES[2]: dict(zip(MEASURES, regression, strict=True))},
    )


def test_a_model_beats_a_baseline_only_if_it_is_better_in_every_measure() -> None:
    better = held_out((0.9, 0.1, 0.1, 0.8), (0.8, 0.2, 0.2, 0.7))
    assert (better.not_beaten, better.sentence) == ({}, "")
    assert better.as_dict()["beats_baselines"] is True
    equal = held_out((0.8, 0.1, 0.3, None), (0.8, 0.2, 0.2, 0.7))
    assert equal.not_beaten == {"regional regression": ["ssim", "regional_mae"]}
    assert "does not beat the regional regression in SSIM and regional MAE (7 participants" in equal.sentence
    assert HeldOut.from_card({"held_out": equal.as_dict()}) == equal
    assert HeldOut.from_card({}) is None
    with pytest.raises(DamagedFileError, match="held_out is damaged"):
        HeldOut.from_card({"held_out": {"figures": {MODEL: 3}}})


def test_a_model_claims_no_more_than_was_measured() -> None:
    better = held_out((0.9, 0.1, 0.1, 0.8), (0.8, 0.2, 0.2, 0.7))
    assert better.description.startswith(
        "This model beats the regional regression in SSIM, MAE, regional MAE, and r over participants (7 participants "
        "of the test split"
    )
    # A correlation over two participants is not defined: whether the model is better in it is not known.
    few = replace(held_out((0.9, 0.1, 0.1, None), (0.8, 0.2, 0.2, None)), n_participants=2)
    assert (few.not_beaten, few.beats, few.as_dict()["beats_baselines"]) == ({}, "n/a", "n/a")
    assert "r over participants is not defined here (2 participants" in few.sentence
    assert few.description == few.sentence
    assert "beats" not in few.description.replace("beats simple predictors in this respect", "")
    # A measure in which the model is worse is reported, even if another one is not defined.
    worse = replace(few, figures={**few.figures, MODEL: {**few.figures[MODEL], "mae": 0.3}})
    assert worse.beats is False
    assert "does not beat the regional regression in MAE (2" in worse.sentence
    assert "r over participants is not defined here" in worse.sentence


def test_an_ensemble_beats_the_baselines_only_if_it_is_known_of_each_model() -> None:
    def verdict(*cards: HeldOut | None) -> tuple[object, list[str]]:
        models = [
            SimpleNamespace(card=SimpleNamespace(figures={} if each is None else {"held_out": each.as_dict()}))
            for each in cards
        ]
        ensemble: Any = SimpleNamespace(models=models, folders=[Path(f"m{n}") for n in range(len(cards))])
        return baseline_keys(ensemble)["BeatsBaselines"], unbeaten(ensemble)

    better = held_out((0.9, 0.1, 0.1, 0.8), (0.8, 0.2, 0.2, 0.7))
    worse = held_out((0.7, 0.1, 0.1, 0.8), (0.8, 0.2, 0.2, 0.7))
    few = held_out((0.9, 0.1, 0.1, None), (0.8, 0.2, 0.2, None))
    assert verdict(better) == (True, [])
    assert verdict(worse) == (False, [worse.sentence])
    # Of several models, each is named.
    assert verdict(better, worse, None) == (False, [f"m1: {worse.sentence}", f"m2: {NOT_KNOWN}"])
    assert verdict(better, few) == ("n/a", [f"m1: {few.sentence}"])
    assert verdict(better, None) == ("n/a", [f"m1: {NOT_KNOWN}"])


def test_the_page_of_a_model_marks_no_missing_figure_as_the_best() -> None:
    rows = _rows(held_out((0.9, 0.1, 0.1, None), (0.8, 0.2, 0.2, None)))
    assert [[cell["best"] for cell in row["cells"]] for row in rows] == [[True] * 3 + [False], [False] * 4]


def test_pages_say_of_a_map_whose_model_may_not_beat_the_baselines_that_this_is_not_known() -> None:
    def stated(*models: HeldOut, verdict: object) -> list[str]:
        return unbeaten_sentences({"BeatsBaselines": verdict, "Baselines": [one.as_dict() for one in models]})

    better = held_out((0.9, 0.1, 0.1, 0.8), (0.8, 0.2, 0.2, 0.7))
    few = held_out((0.9, 0.1, 0.1, None), (0.8, 0.2, 0.2, None))
    assert stated(better, verdict=True) == []
    assert stated(better, few, verdict="n/a") == [few.sentence]
    of_folds = {"BeatsBaselines": "n/a", "Baselines": [{"model": f"fold{n}", **few.as_dict()} for n in range(2)]}
    assert unbeaten_sentences(of_folds) == [f"fold{n}: {few.sentence}" for n in range(2)]
    assert "not known" in stated(verdict="n/a")[0]
    # A measured map says nothing of models.
    assert unbeaten_sentences({}) == []


# --- every figure that is shown has its baseline ---


@pytest.fixture(scope="module")
def shown(people: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network that has learned nothing, trained, applied, and put into pages from the command line."""
    root = tmp_path_factory.mktemp("shown")
    shutil.copytree(people, root, dirs_exist_ok=True)
    where = [str(root / "bids"), str(root / "out")]
    both = ["--work-dir", str(root / "work"), "--omp-nthreads", "1"]
    train = ["--network", "unet", "--loss", "mse_ssim", "--epochs", "1", "--grid-shape", "16", "24", "16"]
    train += ["--device", "cpu", "--split-fractions", "0.6", "0.2", "0.2", "--min-participants", "1"]
    said = {}
    for level, options in (
        ("train", [*train, "--model-dir", str(root / "network")]),
        ("synthesize", ["--model", str(root / "network"), "--synthesize", "all", "--participant-label", "01", "02"]),
        ("group", ["--min-participants", "1"]),
    ):
        with redirect_stderr(StringIO()) as lines:
            code = main([*where, level, *options, *both])
        assert code == 0, lines.getvalue()
        said[level] = root / f"{level}.txt"
        said[level].write_text(lines.getvalue())
    return {**said, "root": root}


def named(text: str) -> set[str]:
    return {name for name in BASELINES if name in text}


@pytest.mark.slow
def test_what_train_and_synthesize_say_has_every_baseline_beside_it(shown: dict[str, Path]) -> None:
    for level in ("train", "synthesize"):
        said = shown[level].read_text()
        figures = [line for line in said.splitlines() if re.search(r"SSIM|ssim|MAE|mae", line)]
        assert figures
        assert named("\n".join(figures)) == set(BASELINES), level
        assert "warning: This model does not beat the training mean" in said
    assert "SSIM" not in shown["group"].read_text()


@pytest.mark.slow
def test_the_card_and_the_log_have_every_baseline_and_say_on_which_grid(shown: dict[str, Path]) -> None:
    folder = shown["root"] / "network"
    card = read_json(folder / "model.json")
    stated = card["figures"]["held_out"]
    assert (stated["grid"], stated["beats_baselines"]) == ("T1w", False)
    assert set(stated["figures"]) == {MODEL, *BASELINES}
    assert stated["description"] == card["limits"][0]
    assert "on the model's grid" in card["figures"]["on_model_grid"]["mask"]
    on_grid = card["figures"]["on_model_grid"]["figures"]
    assert set(on_grid) == {MODEL, *BASELINES}
    for name in BASELINES:
        # A baseline has no loss, which depends on the plane; beside everything else of the model is the same of each.
        assert set(on_grid[name]) == set(on_grid[MODEL]) - {"loss"}, name
    log, described = read_tsv(folder / "log.tsv"), read_json(folder / "log.json")
    for measure in ("ssim", "psnr", "mae", "regional_error"):
        assert "grid" in described[f"validation_{measure}"]
        for name in ("training_mean", "diagnosis_mean", "regional_regression"):
            assert np.isfinite(log[f"validation_{measure}_of_{name}"]).all()
            assert f"validation_{measure}_of_{name}" in described


@pytest.mark.slow
def test_every_sidecar_and_table_of_the_maps_has_every_baseline(shown: dict[str, Path]) -> None:
    out = shown["root"] / "out"
    made = [path for path in out.rglob("*synth*") if path.suffix in (".json", ".tsv")]
    assert len(made) > 10
    # The standardized maps of the group level are of the same model.
    assert sum(path.name.endswith("desc-synthStd_pet.json") for path in made) == 2
    for name in ("suvr_rois", "suvr_rois_wide", "suvr_bilateral", "status"):
        (doubt,) = read_json(out / f"group/{name}.json")["source"]["UnbeatenModels"]
        assert doubt.startswith("2 synthetic scans: This model does not beat the training mean"), name
    for path in made:
        if path.suffix == ".json" and not path.name.endswith("uncertainty.json"):
            content = read_json(path)
            assert content["BeatsBaselines"] is False, path
            if "Synthetic" in content:
                assert list(content).index("BeatsBaselines") == list(content).index("Synthetic") + 1
            assert set(content["Baselines"][0]["figures"]) == {MODEL, *BASELINES}
        if path.suffix == ".tsv" and "predictor" in (table := read_tsv(path)):
            assert set(table["predictor"]) == {MODEL, *BASELINES}, path


@pytest.mark.slow
def test_pages_show_figures_with_baselines_and_a_warning(shown: dict[str, Path]) -> None:
    out = shown["root"] / "out"
    # Pictures within pages are text too, in which any letters may stand.
    pages = {path: re.sub(r"data:[^\"]*", "", path.read_text()) for path in out.rglob("*.html")}
    with_figures = [path for path, page in pages.items() if re.search(r"\b(SSIM|PSNR)\b", page)]
    assert {"sub-01.html", "sub-02.html", "report.html"} <= {path.name for path in with_figures}
    for path in with_figures:
        assert named(pages[path]) == set(BASELINES), path
        assert re.search(r'(problem|warnings)">.*This model does not beat the training mean', pages[path], re.DOTALL)


@pytest.mark.slow
def test_tables_of_held_out_scans_add_up_to_the_figures_of_the_card(shown: dict[str, Path]) -> None:
    folder = shown["root"] / "network"
    stated = read_json(folder / "model.json")["figures"]["held_out"]["figures"]
    tables = HeldOutTables.load(folder)
    assert tables is not None
    for name, own in tables.scans.groupby("predictor"):
        for measure in ("ssim", "mae"):
            assert own[measure].mean() == pytest.approx(stated[name][measure], abs=2e-6)
        regions = tables.regions[tables.regions["predictor"] == name]
        error = (regions["synthetic"] - regions["measured"]).abs()
        assert error.mean() == pytest.approx(stated[name]["regional_mae"], abs=2e-6)
        assert error.groupby(regions["scan"]).mean().to_numpy() == pytest.approx(own["regional_mae"], abs=1e-6)
    # One row per predictor, scan, and region; all predictors are compared with the same measured values.
    assert not tables.regions.duplicated(["predictor", "scan", "index"]).any()
    assert (tables.regions.groupby(["scan", "index"])["measured"].nunique() <= 1).all()
    assert HeldOutTables.load(folder / "figures") is None


@pytest.mark.slow
def test_the_page_of_a_model_has_its_figures_beside_the_baselines(shown: dict[str, Path]) -> None:
    folder = shown["root"] / "network"
    assert f"report: {folder / 'report.html'}" in shown["train"].read_text()
    page = (folder / "report.html").read_text()
    text = re.sub(r"data:[^\"]*", "", page)
    card = read_json(folder / "model.json")
    for name, own in card["figures"]["held_out"]["figures"].items():
        row = text.split(f'<th scope="row">{name}</th>')[1].split("</tr>")[0]
        shown_values = re.findall(r"-?\d+\.\d{3}|n/a", row)
        assert shown_values == ["n/a" if own[key] is None else f"{own[key]:.3f}" for key in MEASURES], name
    assert 'class="warnings"' in text
    assert "does not beat the training mean" in text
    assert page.count("data:image/png;base64,") == 3
    for sentence in card["limits"]:
        assert html.escape(sentence, quote=False).replace("'", "&#39;") in text


@pytest.mark.slow
def test_the_picture_of_regional_values_has_every_baseline(
    shown: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Sequence[str]] = []

    def spy(scans: pd.DataFrame, regions: pd.DataFrame, predictors: Sequence[str]) -> Figure:
        drawn.append(predictors)
        return regional_figure(scans, regions, predictors)

    monkeypatch.setattr(model_page, "regional_figure", spy)
    model_page.write_model_report(shown["root"] / "network")
    assert drawn == [(MODEL, *BASELINES)]


@pytest.mark.slow
def test_the_regression_is_a_model_folder_like_any_other(people: Path, tmp_path: Path) -> None:
    shutil.copytree(people, tmp_path, dirs_exist_ok=True)
    where = [str(tmp_path / "bids"), str(tmp_path / "out")]
    both = ["--work-dir", str(tmp_path / "work"), "--omp-nthreads", "1"]
    train = ["--system", "regression", "--split-fractions", "0.6", "0.2", "0.2", "--min-participants", "1"]
    assert main([*where, "train", *train, *both]) == 0
    folder = tmp_path / "out/models/regression"
    card = read_json(folder / "model.json")
    assert (card["network"], set(card["figures"]["held_out"]["figures"])) == (
        "regression",
        {MODEL, "training mean", "diagnosis mean"},
    )
    assert "not_beaten" in card["figures"]["held_out"]
    # No network starts from it, and the sentence names what differs most.
    network = ["--network", "unet", "--loss", "mse_ssim", "--norm-layer", "group", "--init-from", str(folder)]
    with redirect_stderr(StringIO()) as lines:
        code = main([*where, "train", *train[2:], *network, "--model-dir", str(tmp_path / "network"), *both])
    assert code == 2
    assert "a model with the network regression, and this training has the network unet" in lines.getvalue()
    page = (folder / "report.html").read_text()
    assert "Learning curves" not in page
    assert page.count("data:image/png;base64,") == 1
    # Without --model, the regression of these derivatives is applied. The sidecars must state that the age is unknown.
    table = tmp_path / "bids/participants.tsv"
    table.write_text(table.read_text().replace("sub-01\t60", "sub-01\tn/a"))
    options = ["--synthesize", "all", "--participant-label", "01"]
    assert main([*where, "synthesize", *options, *both]) == 0
    path = tmp_path / "out/sub-01/pet/sub-01_trc-AV1451_space-T1w_desc-synthSUVR_pet.nii.gz"
    sidecar, (pair,) = read_json(sidecar_path(path)), [p for p in find_pairs(tmp_path / "out") if p.participant == "01"]
    assert (sidecar["Models"][0]["Network"], sidecar["EnsembleMembers"]) == ("regression", 5)
    assert "Not known of the participant, so that the model takes the average: age." in sidecar["Assumptions"]
    # The map has the regional means that the model predicts for this participant.
    rois = read_tsv(path.with_name("sub-01_trc-AV1451_desc-synthSUVR_rois.tsv")).set_index("index")["suvr_mean"]
    model = load_ensemble([folder]).first
    anatomy = Anatomy(np.zeros(1, int), label_volumes(load_volume(pair.dseg_file), load_volume(pair.mask_file)), {})
    age_sex = covariates_of(read_demographics(tmp_path / "bids"), "sub-01", None)
    z = model.system.regional(replace(anatomy, covariates=age_sex)).mean(axis=0)
    for number, value in zip(model.system.labels.tolist(), z, strict=True):
        if number in LABELS:
            wanted = float(model.target_scaling.invert(np.array(value), pair.manufacturer))
            assert rois[number] == pytest.approx(wanted, abs=0.05)
    # The second call has nothing to do, and another penalty cannot come out of the same data.
    assert main([*where, "train", *train, *both]) == 3
