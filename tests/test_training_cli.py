"""The train level and its graph, on tiny made-up derivatives: from files to a model folder."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthesis_cohort import Person, write_cohort
from test_networks import needs_einops

from tau_pipeline.derivatives.dataset import write_dataset_files
from tau_pipeline.errors import BusyError, DamagedFileError, MissingInputError, SettingError
from tau_pipeline.files import read_tsv
from tau_pipeline.lock import exclusive_use
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.configuration import Configuration, configuration
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import Selection, Settings
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.data.pairs import find_pairs
from tau_pipeline.synthesis.data.prepare import prepare
from tau_pipeline.synthesis.data.splits import k_folds, pairs_of_split, save_splits, split_participants
from tau_pipeline.synthesis.model.channels import painted_prior
from tau_pipeline.synthesis.model.ensemble import load_ensemble, members_of, namesakes
from tau_pipeline.synthesis.model.folder import load_model
from tau_pipeline.synthesis.model.regression_fit import fit_regression
from tau_pipeline.synthesis.training import loop as training
from tau_pipeline.synthesis.training import run
from tau_pipeline.synthesis.training.checkpoints import find_checkpoints
from tau_pipeline.synthesis.training.data import training_data
from tau_pipeline.synthesis.training.log import read_rows
from tau_pipeline.synthesis.training.processes import processes
from tau_workflows.cli import main
from tau_workflows.levels.train import chosen_pairs, run_training

TINY: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 3,
    "first_cycle": 1,
    "grid_shape": (16, 24, 16),
    "perceptual_features": "random",
    "device": "cpu",
    "split_fractions": (0.6, 0.2, 0.2),
}
#: Ten participants of two scanners, whose SUVR rises from one to the next.
PEOPLE = tuple(
    Person(f"{n:02}", "LAS" if n % 3 else "RAS", "SIEMENS" if n % 2 else "GE MEDICAL SYSTEMS", 1.0 + 0.05 * n)
    for n in range(1, 11)
)


def diagnosis(number: int) -> str:
    return "AD" if number < 5 else "CN"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A BIDS folder with participants.tsv, and derivatives."""
    root = tmp_path_factory.mktemp("cohort")
    bids, out = root / "bids", root / "out"
    bids.mkdir()
    rows = [f"sub-{person.label}\t{diagnosis(n)}" for n, person in enumerate(PEOPLE)]
    (bids / "participants.tsv").write_text("participant_id\tdiagnosis\n" + "\n".join(rows) + "\n")
    write_dataset_files(out, bids)
    write_cohort(out, PEOPLE)
    return bids, out


@pytest.fixture(scope="module")
def begun(cohort: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished training of one epoch in ``model``."""
    folder = tmp_path_factory.mktemp("begun")
    assert run_training(*cohort, config(folder, epochs=1, loss="mse_ssim")) == 0
    return folder


def config(tmp_path: Path, **options: Any) -> Configuration:
    sections: dict[str, Any] = {key: options.pop(key) for key in ("selection", "settings", "group") if key in options}
    sections.setdefault("group", Group(min_participants=2))
    execution = Execution(work_dir=tmp_path / "work", dry_run=options.pop("dry_run", False))
    made = Training(**{**TINY, "model_dir": tmp_path / "model", **options})
    return Configuration(execution=execution, training=made, **sections)


@pytest.mark.slow
def test_the_level_writes_a_whole_model_folder_and_nothing_into_the_input(
    cohort: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for folder in cohort for path in folder.rglob("*"))
    assert run_training(*cohort, config(tmp_path)) == 0
    model = tmp_path / "model"
    for name in (
        *("model.json", "weights.safetensors", "standardization.tsv", "splits.tsv", "log.tsv", "log.json"),
        *("baselines.npz", "uncertainty.json"),
        *("figures/learning_curves.png", "figures/test_samples.png"),
    ):
        assert (model / name).stat().st_size > 0, name
    assert list((model / "tensorboard").iterdir())
    card = json.loads((model / "model.json").read_text())
    splits = read_tsv(model / "splits.tsv").set_index("participant_id")
    assert sorted(card["training_participants"]) == sorted(splits.index[splits["split"] == "train"])
    assert set(splits["diagnosis"]) == {"AD", "CN"}
    assert card["figures"]["test_scans"] == 2
    assert card["figures"]["epochs"] == 2
    assert card["random_features"]
    calibration = json.loads((model / "uncertainty.json").read_text())
    n_of = splits["split"].value_counts()
    assert (calibration["n_participants"], calibration["n_coverage"]) == (n_of["validation"], n_of["test"])
    assert calibration["coverage_on"] == "test split"
    assert calibration["models"] == load_ensemble([model]).hash
    assert "90 % intervals hold" in capfd.readouterr().err
    assert sorted(path for folder in cohort for path in folder.rglob("*")) == before


@pytest.mark.slow
def test_the_card_speaks_of_random_features_only_where_they_took_part(begun: Path) -> None:
    # With the loss "mse_ssim" the setting has no effect.
    assert not load_model(begun / "model").card.random_features


@pytest.mark.slow
def test_the_model_goes_under_models_by_default_and_the_cache_of_images_elsewhere(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    made = config(tmp_path, model_dir=None, model_name="mine", epochs=1, loss="mse_ssim")
    assert run_training(*cohort, made) == 0
    assert (cohort[1] / "models/mine/model.json").is_file()
    assert not list((cohort[1] / "models/mine").rglob("sub-*.npz"))
    assert len(list((tmp_path / "work/synthesis_cache").glob("*.npz"))) == len(PEOPLE)


@pytest.mark.slow
def test_a_finished_training_is_nothing_to_do_and_more_epochs_go_on(
    cohort: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = config(tmp_path, loss="mse_ssim")
    assert run_training(*cohort, made) == 0
    weights = (tmp_path / "model/weights.safetensors").read_bytes()
    assert run_training(*cohort, made) == 3
    assert "fully trained" in capfd.readouterr().err
    # The call ended between model and page.
    (tmp_path / "model/report.html").unlink()
    assert run_training(*cohort, made) == 3
    assert (tmp_path / "model/report.html").is_file()
    # What comes after the card was cut off: it is made again, and the weights stay.
    (tmp_path / "model/baselines.npz").unlink()
    assert run_training(*cohort, made) == 0
    assert (tmp_path / "model/baselines.npz").is_file()
    assert (tmp_path / "model/weights.safetensors").read_bytes() == weights
    assert run_training(*cohort, config(tmp_path, loss="mse_ssim", epochs=3)) == 0
    assert [row["epoch"] for row in read_rows(tmp_path / "model/log.tsv")] == [0, 1, 2]
    assert (tmp_path / "model/weights.safetensors").read_bytes() != weights


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 0.1}, "holds a training with learning_rate 0.0005, and now learning_rate is 0.1"),
        ({"settings": Settings(random_seed=5)}, "holds a training with seed 0, not 5"),
        ({"selection": Selection(participant_label=tuple(p.label for p in PEOPLE[1:]))}, "on other scans"),
    ],
)
def test_a_folder_of_another_training_is_refused(
    cohort: tuple[Path, Path], begun: Path, changed: dict[str, Any], message: str
) -> None:
    for epochs in (1, 2):
        with pytest.raises(SettingError) as caught:
            run_training(*cohort, config(begun, epochs=epochs, loss="mse_ssim", **changed))
        assert message in str(caught.value)
        assert "model_name" in str(caught.value)


@pytest.mark.slow
def test_a_training_that_ended_before_its_first_checkpoint_leaves_its_folder_free(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(Exception, match="min-participants"):
        run_training(*cohort, config(tmp_path, group=Group(min_participants=9)))
    model = tmp_path / "model"
    assert (model / "training.json").is_file()
    other = config(tmp_path, epochs=1, loss="mse_ssim", settings=Settings(random_seed=5))
    assert run_training(*cohort, other) == 0
    assert json.loads((model / "model.json").read_text())["seed"] == 5
    # Drawn with the seed of this training, not with that of the other.
    alone = config(tmp_path, epochs=1, loss="mse_ssim", settings=Settings(random_seed=5), model_dir=tmp_path / "alone")
    assert run_training(*cohort, alone) == 0
    assert (model / "splits.tsv").read_text() == (tmp_path / "alone/splits.tsv").read_text()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"selection": Selection(participant_label=("77",))}, MissingInputError, "no T1w-PET pair"),
        ({"selection": Selection(tracer_label=("AV1451", "PIB"))}, SettingError, "expected: one"),
        ({"settings": Settings(ref_region=("Pons",))}, Exception, "Pons"),
        ({"grid_shape": (16, 20, 16)}, SettingError, "divide by 8"),
        ({"tested_weights": "best", "split_fractions": (0.8, 0.0, 0.2)}, SettingError, "validation split is empty"),
        ({"group": Group(min_participants=9)}, Exception, "min-participants"),
        ({"model_dir": Path(__file__)}, SettingError, "test_training_cli.py', a file; expected: a folder"),
        ({"perceptual_weights_file": "/none", "perceptual_features": "pretrained"}, MissingInputError, "/none"),
    ],
)
def test_a_call_that_cannot_be_done_is_one_sentence(
    cohort: tuple[Path, Path], tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        run_training(*cohort, config(tmp_path, **options))
    assert message in str(caught.value)
    assert not (tmp_path / "model/model.json").exists()


def test_missing_weights_of_features_are_told_before_any_image_is_read_and_the_folder_stays_free(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    wrong = {"perceptual_features": "pretrained", "perceptual_weights_file": tmp_path / "none.pth"}
    with pytest.raises(MissingInputError, match=r"none\.pth"):
        run_training(*cohort, config(tmp_path, **wrong, cache_dir=tmp_path / "cache"))
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "cache").exists()


def test_a_second_training_in_the_same_folder_is_refused_while_the_first_is_at_work(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    with exclusive_use(tmp_path / "model", "train", "wait"), pytest.raises(BusyError, match="the level train"):
        run_training(*cohort, config(tmp_path, loss="mse_ssim"))


def test_folders_that_hold_nothing_are_refused(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="run the participant level first"):
        run_training(cohort[0], tmp_path, config(tmp_path))
    with pytest.raises(MissingInputError, match="is not a folder"):
        run_training(tmp_path / "none", cohort[1], config(tmp_path))


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(
    cohort: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_training(*cohort, config(tmp_path, dry_run=True)) == 0
    assert "10 scans of 10 participants" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_divergence_is_a_failure_with_a_sentence_that_names_the_participants(
    cohort: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = config(tmp_path, loss="mse_ssim", learning_rate=1e6, ssim_weight=0.0)
    assert run_training(*cohort, made) == 1
    said = capfd.readouterr().err
    assert "diverged at epoch 0, batch 1, of participants sub-" in said
    # There is none before the first epoch.
    assert "checkpoint" not in said
    assert not (tmp_path / "model/model.json").exists()


@pytest.mark.slow
def test_manufacturers_that_are_too_rare_can_be_left_out(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "derivatives"
    write_dataset_files(out, cohort[0])
    write_cohort(out, (*PEOPLE, Person("11", manufacturer="Philips")))
    made = config(tmp_path, loss="mse_ssim", epochs=1, group=Group(min_participants=2, unknown_manufacturer="exclude"))
    assert run_training(cohort[0], out, made) == 0
    assert json.loads((tmp_path / "model/model.json").read_text())["manufacturers"] == ["GE", "Siemens"]


@pytest.mark.slow
def test_splits_can_be_given_or_be_a_fold_and_nothing_of_the_test_split_is_fitted(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    pairs = find_pairs(cohort[1], diagnoses={person.label: diagnosis(n) for n, person in enumerate(PEOPLE)})
    table = split_participants(pairs, (0.5, 0.2, 0.3), random_seed=9)
    save_splits(table, tmp_path / "mine.tsv")
    fold = k_folds(pairs, 5, random_seed=0)[2]
    common = {"loss": "mse_ssim", "epochs": 1, "target_scaling": "min-max"}
    for expected, options in ((table, {"split_file": tmp_path / "mine.tsv"}), (fold, {"folds": 5, "fold": 2})):
        made = config(tmp_path, **common, **options, model_dir=tmp_path / "-".join(options))
        assert run_training(*cohort, made) == 0
        model = load_model(made.training.model_dir)  # type: ignore[arg-type]
        found = model.splits.set_index("participant_id")["split"].to_dict()
        assert found == expected.set_index("participant_id")["split"].to_dict()
        assert set(model.target_scaling.participants) == {who for who, split in found.items() if split == "train"}


@pytest.mark.slow
def test_recomputed_activations_and_workers_change_nothing(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    common = {"loss": "mse_ssim", "epochs": 1}
    for name, options in (
        ("plain", {}),
        ("other", {"activation_checkpointing": True, "loader_workers": 2, "micro_batch_size": 1}),
    ):
        assert run_training(*cohort, config(tmp_path, **common, **options, model_dir=tmp_path / name)) == 0
    # Not the weights: a bias before an instance normalization has no effect, and its gradient is rounding alone.
    t1w = torch.rand(1, 1, 16, 24, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, other = (load_model(tmp_path / name).system(t1w) for name in ("plain", "other"))
    torch.testing.assert_close(other, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_averaged_and_best_weights_go_into_the_folder_as_the_settings_say(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    common = {"loss": "mse_ssim", "ema_decay": 0.9, "mixed_precision": "bf16", "optimizer": "adamw"}
    for tested, averaged in (("last", True), ("best", False)):
        made = config(tmp_path, **common, tested_weights=tested, model_dir=tmp_path / tested)
        assert run_training(*cohort, made) == 0
        # The best weights are averaged ones already.
        assert (tmp_path / tested / "average.safetensors").exists() == averaged
        figures = load_model(tmp_path / tested).card.figures
        assert (figures["tested_weights"], figures["averaged"]) == (tested, True)


def test_the_recipes_differ_from_the_papers_method_only_where_they_say_so() -> None:
    folder = Path(__file__).parents[1] / "workflows/recipes"
    paper = configuration(folder / "paper.toml").training
    assert (paper.epochs, paper.batch_size, paper.learning_rate_period) == (1000, 12, 60)
    assert round(516 * paper.split_fractions[0]) == 360
    defaults = dataclasses.asdict(Training())
    named = {name for name, value in dataclasses.asdict(paper).items() if value != defaults[name]}
    assert named == {
        *("network_preset", "batch_size", "micro_batch_size", "grid_voxel", "grid_shape", "split_fractions"),
        "select_by",
        "network",
    }
    strict = dataclasses.asdict(configuration(folder / "paper-strict.toml").training)
    assert {name for name, value in dataclasses.asdict(paper).items() if strict[name] != value} == {
        *("micro_batch_size", "loss_mask", "augmentation", "perceptual_scaling", "empty_slices"),
    }
    assert configuration(folder / "laptop.toml").training.loss == "cyclic2.5d"


@pytest.mark.slow
def test_all_folds_end_in_one_ensemble_folder_that_stands_for_its_members(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    made = config(tmp_path, folds=3, epochs=1, loss="mse_ssim", group=Group(min_participants=1))
    assert run_training(*cohort, made) == 0
    assert members_of(tmp_path / "model") == [tmp_path / f"model/fold{n}" for n in range(3)]
    ensemble = load_ensemble([tmp_path / "model"])
    assert len(ensemble.models) == 3
    # Nothing tells whether sub-01 of another study is the same person.
    assert namesakes(ensemble, ["sub-00", "sub-01"], tmp_path) == []
    assert namesakes(ensemble, ["sub-77"], tmp_path / "elsewhere") == []
    (said,) = namesakes(ensemble, [f"sub-{person.label}" for person in PEOPLE], tmp_path / "elsewhere")
    assert said.startswith(f"{len(PEOPLE)} participants have names that are among the model's data (sub-")
    # A copy is the same model, whatever its name; and a fold that was exchanged is not of this ensemble.
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    with pytest.raises(SettingError, match="hold the same model, which would count twice"):
        load_ensemble([tmp_path / "model", tmp_path / "copy/fold1"])
    shutil.copytree(tmp_path / "model/fold0", tmp_path / "copy/fold1", dirs_exist_ok=True)
    with pytest.raises(DamagedFileError, match="fold1 does not hold the model that the ensemble was made of"):
        load_ensemble([tmp_path / "copy"])
    tested = [set(m.splits.loc[m.splits["split"] == "test", "participant_id"]) for m in ensemble.models]
    assert sorted(who for part in tested for who in part) == sorted(f"sub-{person.label}" for person in PEOPLE)
    assert ensemble.hash == load_ensemble(members_of(tmp_path / "model")).hash
    with pytest.raises(SettingError, match="ensemble of 3 models; expected: one of its folders, such as fold0"):
        run_training(*cohort, config(tmp_path / "tuned", init_from=tmp_path / "model", loss="mse_ssim"))
    assert run_training(*cohort, made) == 3


@pytest.mark.slow
def test_fine_tuning_starts_from_the_weights_of_a_model_and_the_card_names_it(
    cohort: tuple[Path, Path], begun: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = load_model(begun / "model")
    made = config(tmp_path, epochs=1, loss="mse_ssim", init_from=begun / "model", learning_rate=1e-12)
    assert run_training(*cohort, made) == 0
    tuned = load_model(tmp_path / "model")
    for name, value in source.system.state_dict().items():
        torch.testing.assert_close(tuned.system.state_dict()[name], value, rtol=0, atol=1e-9)
    found = tuned.card.figures["started_from"]
    assert found == {"folder": "model", "hash": load_ensemble([begun / "model"]).hash}
    for other, message in (
        ({"norm_layer": "group"}, "norm_layer instance"),
        # Its weights predict another scale.
        ({"target_scaling": "min-max"}, "target_scaling by-manufacturer, and this training has the target_scaling min"),
    ):
        with pytest.raises(SettingError, match=message):
            run_training(*cohort, config(tmp_path / "other", loss="mse_ssim", init_from=begun / "model", **other))
        # Before any image is read, and the folder stays free.
        assert not (tmp_path / "other").exists()
    # One whom the source was trained on is held out now.
    splits = source.splits.copy()
    places = [splits.index[splits["split"] == name][0] for name in ("train", "test")]
    splits.loc[places, "split"] = ["test", "train"]
    file, known = save_splits(splits, tmp_path / "splits.tsv"), splits.loc[places[0], "participant_id"]
    assert (
        run_training(
            *cohort, config(tmp_path / "known", epochs=1, loss="mse_ssim", init_from=begun / "model", split_file=file)
        )
        == 0
    )
    tuned = load_model(tmp_path / "known/model")
    assert tuned.card.figures["started_from"]["trained_on_held_out"] == [known]
    said = f"1 of those held out here ({known})"
    assert said in tuned.card.limits[0]
    assert f"warning: {tuned.card.limits[0]}" in capfd.readouterr().err
    page = (tmp_path / "known/model/report.html").read_text()
    assert said in page.split('class="warnings"')[1].split("</div>")[0]


@pytest.mark.slow
def test_covariates_and_labels_become_channels_that_the_model_folder_remembers(
    cohort: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = config(tmp_path, epochs=1, loss="mse_ssim", covariates=("diagnosis", "age"), label_channels=True)
    assert run_training(*cohort, made) == 0
    assert "age is missing for 6 of 6 training participants" in caplog.text
    model = load_model(tmp_path / "model")
    assert model.channels.names[-4:] == ("diagnosis", "diagnosis_known", "age", "age_known")
    train = model.splits.loc[model.splits["split"] == "train"]
    severity = train["diagnosis"].map({"AD": 2.0, "CN": 0.0})
    assert model.channels.covariates.means == (pytest.approx(severity.mean()), 0.0)
    assert model.channels.covariates.known == (len(train), 0)
    # The verdict first, then what the model does not use.
    assert "place for it: age;" in model.card.limits[1]
    page = (tmp_path / "model/report.html").read_text()
    assert "place for it: age;" in page.split('class="warnings"')[1].split("</div>")[0]


@pytest.mark.slow
def test_a_network_corrects_the_map_of_a_regression_that_did_not_know_the_participant(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    fractions = (0.8, 0.1, 0.1)
    options: dict[str, Any] = {"network": "unet", "start_from": "regression", "loss": "mse_ssim", "epochs": 1}
    options |= {"split_fractions": fractions, "augmentation": "off"}
    assert run_training(*cohort, config(tmp_path, **options, learning_rate=1e-12)) == 0
    model = load_model(tmp_path / "model")
    assert model.channels.prior is not None
    pairs = chosen_pairs(*cohort, config(tmp_path)).pairs
    train = pairs_of_split(pairs, model.splits, "train")
    (test,) = pairs_of_split(pairs, model.splits, "test")
    placed = prepare(test, model.grid).placed_t1w
    prior = painted_prior(model.channels.prior, placed)
    assert prior[placed.brain].std() > 0
    with torch.no_grad():
        predicted = model.system(torch.from_numpy(model.inputs(placed))[None])[0, 0].numpy()
    np.testing.assert_allclose(predicted, prior, atol=1e-5)
    settings = config(tmp_path, **options, cache_dir=tmp_path / "cache").training
    with processes("cpu") as group:
        data = training_data(settings, pairs, tmp_path / "again", 0, Group(min_participants=2), group)
    one = data.train.pairs[0]
    # Of eight training participants, two at a time are left out.
    out = sorted(pair.participant_id for pair in train)[::5]
    assert one.participant_id in out
    others = [pair for pair in train if pair.participant_id not in out]
    blind = fit_regression(others, data.target_scaling, model.grid).system
    expected = painted_prior(blind, prepare(one, model.grid).placed_t1w)
    np.testing.assert_allclose(data.train[0]["t1w"][1].numpy(), expected, atol=1e-5)


# --- the command itself ---------------------------------------------------------------------------------------------


def command(cohort: tuple[Path, Path], tmp_path: Path, name: str) -> list[str]:
    """The program's arguments for a training of a few seconds that keeps a checkpoint of every step."""
    options = {
        "--model-dir": str(tmp_path / name),
        "--work-dir": str(tmp_path / "work"),
        "--grid-shape": "16 24 16",
        "--epochs": "12",
        "--batch-size": "2",
        "--loss": "mse_ssim",
        "--checkpoint-minutes": "0",
        "--min-participants": "2",
        "--omp-nthreads": "1",
        "--device": "cpu",
    }
    return [*map(str, cohort), "train", *(word for pair in options.items() for word in " ".join(pair).split())]


def stopped_after_a_while(arguments: list[str], model: Path, number: signal.Signals) -> tuple[int, str]:
    """Start the program, send it a signal a few steps after it has begun to train; its exit code and messages."""
    environment = {**os.environ, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "tau_workflows.cli", *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )
    before, until = set(find_checkpoints(model / "checkpoints")), time.monotonic() + 60
    # Two are kept, so that both are new after a few steps.
    while time.monotonic() < until and len(set(find_checkpoints(model / "checkpoints")) - before) < 2:
        time.sleep(0.01)
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    return child.returncode, said


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are of POSIX")
def test_the_same_command_goes_on_after_kill_9_and_after_ctrl_c_to_the_same_weights(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    assert main(command(cohort, tmp_path, "whole")) == 0
    arguments = command(cohort, tmp_path, "cut")
    code, _ = stopped_after_a_while(arguments, tmp_path / "cut", signal.SIGKILL)
    assert code == -signal.SIGKILL
    # SIGTERM takes the way of SIGINT: test_interruption sends both to every level.
    code, said = stopped_after_a_while(arguments, tmp_path / "cut", signal.SIGINT)
    assert code == 128 + signal.SIGINT
    assert "rerun the same command" in said
    assert "Traceback" not in said
    assert not (tmp_path / "cut/model.json").exists()
    assert main(arguments) == 0
    whole, cut = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "cut"))
    assert cut == whole
    assert main(arguments) == 3


# --- every system with every loss -------------------------------------------------------------------------------------

LOSSES = ("mse_ssim", "2.5d", "3d", "cyclic2.5d")
#: The smallest grids that hold the made-up brains and that the networks take.
SHAPES = {"unetr": (16, 32, 16), "swinunetr": (32, 64, 32)}


#: A system receives its loss as a function of two images and knows nothing else of it; a loss knows no system. So every
#: loss is trained with one system, and every system with one loss; tests/test_systems.py crosses them on tensors.
PAIRS = (
    *(("unet", loss) for loss in LOSSES),
    *(("pix2pix", "cyclic2.5d"), ("cyclegan", "cyclic2.5d")),
    *(pytest.param(name, "cyclic2.5d", marks=needs_einops) for name in ("unetr", "swinunetr")),
)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "loss"), PAIRS)
def test_every_system_and_every_loss_trains_and_reloads_to_the_same_output(
    cohort: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, loss: str
) -> None:
    finished: list[run.Run] = []
    original = training.save_results

    def kept(run: run.Run, scores: Any) -> None:
        finished.append(run)
        original(run, scores)

    monkeypatch.setattr(training, "save_results", kept)
    shape = SHAPES.get(network, (16, 24, 16))
    options = {"network": network, "loss": loss, "grid_shape": shape, "augmentation": "off", "first_cycle": 3}
    slow = network == "swinunetr"
    pace = {"epochs": 2 if slow else 3, "batch_size": 1, "learning_rate": 1e-3, "target_scaling": "min-max"}
    chosen = Selection(participant_label=tuple(person.label for person in PEOPLE[: 5 if slow else 8]))
    assert run_training(*cohort, config(tmp_path, **options, **pace, selection=chosen)) == 0
    rows = read_rows(tmp_path / "model/log.tsv")
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert float(rows[-1]["train_mse"]) < float(rows[0]["train_mse"])
    torch.manual_seed(0)
    t1w = torch.rand(1, 1, *shape)
    trained, loaded = finished[0].state.system.eval(), load_model(tmp_path / "model").system
    with torch.no_grad():
        assert torch.equal(loaded(t1w), trained(t1w))
    assert find_checkpoints(tmp_path / "model/checkpoints")
