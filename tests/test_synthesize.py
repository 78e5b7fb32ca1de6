"""The synthesize level on tiny made-up derivatives: names, tables, sidecars, exit codes, and what it says."""

import dataclasses
import re
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from synthesis_cohort import Person
from toy_models import BY_MANUFACTURER, write_people

import tau_pipeline
from tau_pipeline.cohort.scans import kind_of, moments_of
from tau_pipeline.derivatives import columns
from tau_pipeline.derivatives.dataset import BIDSIGNORE, write_dataset_files
from tau_pipeline.derivatives.index import find_scans
from tau_pipeline.derivatives.names import sidecar_path
from tau_pipeline.derivatives.status import NOT_FINISHED, all_statuses
from tau_pipeline.errors import BusyError, DamagedFileError, MissingInputError, SettingError, UnknownNameError
from tau_pipeline.figures.synthesis import figures_of_merit, synthetic_figure
from tau_pipeline.files import read_json, read_tsv, write_json
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.lock import exclusive_use
from tau_pipeline.settings.configuration import configuration
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.pairs import find_pairs
from tau_pipeline.synthesis.data.placement import on_t1w_grid
from tau_pipeline.synthesis.data.splits import COLUMNS as SPLIT_COLUMNS
from tau_pipeline.synthesis.data.targets import ModelTarget, find_targets, measured_scans, still_there
from tau_pipeline.synthesis.evaluation import outputs
from tau_pipeline.synthesis.model.calibration import Calibration
from tau_pipeline.synthesis.model.card import ModelCard
from tau_pipeline.synthesis.model.ensemble import load_ensemble
from tau_pipeline.synthesis.model.folder import save_model
from tau_pipeline.synthesis.model.predict import predict
from tau_pipeline.synthesis.networks.systems import build_system
from tau_workflows.interfaces.synthesis import SynthesizeScan
from tau_workflows.levels import synthesize as level
from tau_workflows.levels.interruption import interruptible
from tau_workflows.levels.synthesize import run_synthesis
from tau_workflows.reports.participant import write_participant_report

GRID = Grid((16, 32, 16), (2, 2, 2))
CODES = ("RAS", "LPS", "LAS", "oblique")
SIDES = {"oblique": (26, 28, 26)}
PEOPLE = tuple(
    Person(f"{n:02d}", CODES[n % 4], ("SIEMENS", "GE")[n % 2], 1 + 0.05 * n, SIDES.get(CODES[n % 4], (22, 24, 20)))
    for n in range(1, 9)
)
SPLITS = {n: "validation" if n == 5 else "test" if n in (6, 7, 8) else "train" for n in range(1, 9)}
#: What the sidecar of the last one's T1w says.
ABOUT_T1W = "The T1w is simulated."
#: The last two people have no PET.
WITHOUT_PET = ("07", "08")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def _small_figures():
    """Figures and pages take most of the time; tests below make real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "synthetic_figure", lambda *_, **__: Figure(figsize=(2, 2)))
        patch.setattr(level, "write_participant_report", lambda *_: None)
        yield


def write_model(folder, seed=0, splits=SPLITS):
    rows = [(f"sub-{n:02d}", split, "GE", "CN") for n, split in splits.items()]
    torch.manual_seed(seed)
    system = build_system("unet", "laptop", image_size=GRID.shape)
    card = ModelCard("unet", "laptop", GRID, {}, seed)
    return save_model(folder, system, card, BY_MANUFACTURER, pd.DataFrame(rows, columns=list(SPLIT_COLUMNS)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A BIDS folder, derivatives of eight people of whom two have no PET, and a model."""
    root = tmp_path_factory.mktemp("study")
    (root / "bids").mkdir()
    rows = [f"sub-{person.label}\t{'CN' if n % 2 else 'AD'}" for n, person in enumerate(PEOPLE)]
    (root / "bids/participants.tsv").write_text("participant_id\tgroup\n" + "\n".join(rows) + "\n")
    write_dataset_files(root / "out", root / "bids")
    write_people(root / "out", PEOPLE)
    for label in WITHOUT_PET:
        shutil.rmtree(root / f"out/sub-{label}/pet")
    write_model(root / "model")
    return root


def options(root, **changes):
    values = {"model": (str(root / "model"),), "device": "cpu", "work_dir": root / "work", "omp_nthreads": 1}
    return configuration(None, {**values, **changes})


def run(root, **changes):
    return run_synthesis(root / "bids", root / "out", options(root, **changes))


@pytest.fixture(scope="module")
def everybody(study, tmp_path_factory):
    """A study in which everybody has got a synthetic scan, and the exit code."""
    root = tmp_path_factory.mktemp("everybody") / "study"
    shutil.copytree(study, root)
    (t1w_file,) = (root / "out/sub-08/anat").glob("*desc-preproc_T1w.nii.gz")
    write_json({"Assumptions": [ABOUT_T1W]}, sidecar_path(t1w_file))
    return root, run(root, synthesize="all", as_manufacturer="GE")


def synthetic(root, label):
    return root / f"out/sub-{label}/pet/sub-{label}_trc-AV1451_space-T1w_desc-synthSUVR_pet.nii.gz"


def table_of(root, label):
    return read_tsv(root / f"out/sub-{label}/pet/sub-{label}_trc-AV1451_desc-synthSUVR_rois.tsv")


# --- what is made ---


@pytest.mark.slow
def test_what_is_to_be_known_of_a_t1w_is_told_of_its_synthetic_scan_too(everybody):
    root, _ = everybody
    said = {person.label: read_json(sidecar_path(synthetic(root, person.label)))["Assumptions"] for person in PEOPLE}
    assert [label for label, sentences in said.items() if ABOUT_T1W in sentences] == ["08"]


def test_everybody_gets_a_map_a_table_an_uncertainty_and_a_figure(everybody):
    root, code = everybody
    assert code == 0
    for person in PEOPLE:
        stem = root / f"out/sub-{person.label}"
        made = {path.name.split("_desc-")[1] for path in stem.glob("pet/*synthSUVR*")}
        expected = {"synthSUVR_pet.nii.gz", "synthSUVR_pet.json", "synthSUVRsd_pet.nii.gz", "synthSUVRsd_pet.json"}
        expected |= {"synthSUVR_rois.tsv", "synthSUVR_rois.json"}
        if person.label not in WITHOUT_PET:
            expected |= {"synthSUVR_agreement.tsv", "synthSUVR_agreement.json"}
        assert made == expected
        assert (stem / f"figures/sub-{person.label}_trc-AV1451_desc-synthSUVR_pet.png").stat().st_size > 100


@pytest.mark.parametrize("label", ["01", "03", "08"])
def test_the_map_is_the_models_prediction_on_the_grid_of_the_t1w(everybody, label):
    root, _ = everybody
    anat = root / f"out/sub-{label}/anat"
    t1w, mask = (load_volume(anat / f"sub-{label}_{name}.nii.gz") for name in ("desc-preproc_T1w", "desc-brain_mask"))
    found = load_volume(synthetic(root, label))
    prediction = predict(load_ensemble([root / "model"]), t1w, mask, "GE", Synthesis(prediction_memory="whole"), "cpu")
    expected = on_t1w_grid(prediction.mean, prediction.brain, prediction.placement, mask)
    np.testing.assert_array_equal(found.affine, t1w.affine)
    np.testing.assert_allclose(found.dataobj, expected.dataobj, atol=1e-5)
    assert not np.asarray(found.dataobj)[np.asarray(mask.dataobj) == 0].any()


def test_the_region_table_has_the_columns_of_the_contract_and_those_of_the_uncertainty(everybody):
    root, _ = everybody
    table, measured = table_of(root, "02"), find_pairs(root / "out")[1]
    assert list(table.columns) == [*columns.COLUMNS, "suvr_p90", "suvr_mean_sd", "suvr_mean_low", "suvr_mean_high"]
    assert set(table["source"]) == {"synthetic"}
    assert set(table["manufacturer"]) == {"GE"}
    suvr, dseg = load_volume(synthetic(root, "02")), load_volume(measured.dseg_file)
    inside = np.asarray(dseg.dataobj) == 1006
    row = table.set_index("region").loc["ctx-lh-entorhinal"]
    assert row["suvr_mean"] == pytest.approx(np.asarray(suvr.dataobj)[inside].mean(), rel=1e-5)
    assert row["suvr_mean_low"] < row["suvr_mean"] < row["suvr_mean_high"]
    width = (row["suvr_mean_high"] - row["suvr_mean_low"]) / 2
    assert width == pytest.approx(1.6448536 * row["suvr_mean_sd"], rel=1e-4)
    empty = table.set_index("region").loc["ctx-lh-cuneus"]
    assert empty["n_voxels"] == 0
    assert pd.isna(empty["suvr_mean_sd"])


def test_synthetic_and_measured_rows_join_on_participant_session_and_region(everybody):
    root, _ = everybody
    both = table_of(root, "03").merge(
        read_tsv(root / "out/sub-03/pet/sub-03_trc-AV1451_desc-suvr_rois.tsv"),
        on=["participant_id", "session_id", "tracer", "region", "hemisphere", "reference_region"],
    )
    assert len(both) == len(table_of(root, "03"))


def test_the_group_level_finds_the_synthetic_scans(everybody):
    root, _ = everybody
    found = [scan for scan in find_scans(root / "out") if scan.source == "synthetic"]
    assert len(found) == len(PEOPLE)
    assert {kind_of(scan) for scan in found} == {("flortaucipir", "CerebellarGM")}
    assert all(np.isfinite(moments_of(scan).mean) for scan in found)


def test_the_sidecar_says_that_it_is_synthetic_by_which_model_and_whether_it_knew_the_participant(everybody):
    root, _ = everybody
    sidecar = read_json(synthetic(root, "01").with_name(synthetic(root, "01").name.replace(".nii.gz", ".json")))
    assert sidecar["Synthetic"] is True
    assert "not a measurement" in sidecar["Description"]
    assert sidecar["ModelHash"] == load_ensemble([root / "model"]).hash
    assert sidecar["Models"][0]["Card"] == str(root / "model/model.json")
    assert sidecar["SpatialReference"] == "bids::sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"
    known = {n: read_json(str(synthetic(root, f"{n:02d}")).replace(".nii.gz", ".json")) for n in SPLITS}
    assert {n: one["TrainingSplit"] for n, one in known.items()} == SPLITS
    assert all(one["ParticipantInTrainingSet"] is (SPLITS[n] == "train") for n, one in known.items())
    assert sidecar["Uncertainty"]["voxel_factor"] > 0


def test_agreement_is_reported_by_scan_split_and_region_with_baselines(everybody):
    root, _ = everybody
    scans, summary = (read_tsv(root / f"out/group/synthSUVR_{name}.tsv") for name in ("scans", "summary"))
    measured = len(PEOPLE) - len(WITHOUT_PET)
    assert set(scans["predictor"]) == {"model", "training mean", "diagnosis mean"}
    assert (scans["predictor"] == "model").sum() == measured
    assert set(summary["split"]) == {"train", "validation", "test"}
    own = read_tsv(root / "out/sub-01/pet/sub-01_trc-AV1451_desc-synthSUVR_agreement.tsv")
    assert own["ssim"].iloc[0] == pytest.approx(scans.query("scan == 'sub-01_trc-AV1451'")["ssim"].iloc[0])
    both = own.merge(scans, on=["scan", "predictor"], suffixes=("", "_group"))
    assert len(both) == 3
    np.testing.assert_allclose(both["regional_mae"], both["regional_mae_group"], rtol=1e-5)
    regions = read_tsv(root / "out/group/synthSUVR_regions.tsv")
    assert {"pearson_r", "icc21", "icc31", "bias", "limit_low", "auc"} <= set(regions.columns)


def test_every_column_of_the_tables_of_agreement_is_explained(everybody):
    root, _ = everybody
    tables = [*(root / "out/group").glob("synthSUVR_*.tsv"), *(root / "out").rglob("*_agreement.tsv")]
    assert len(tables) == 4 + len(PEOPLE) - len(WITHOUT_PET)
    for path in tables:
        said = read_json(path.with_suffix(".json"))
        # What is known of the models beside their baselines is in every sidecar.
        assert (said.pop("BeatsBaselines"), said.pop("Baselines")) == ("n/a", [])
        assert list(said) == list(read_tsv(path).columns)
        assert all(len(one["Description"]) > 4 for one in said.values())


def test_a_participant_is_predicted_by_the_models_that_were_not_trained_on_the_participant(study, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    # As folds: the first model was trained on sub-03, the second on sub-05, and both on sub-02.
    write_model(root / "other", seed=1, splits={n: "train" if n in (1, 2, 5) else "test" for n in range(1, 9)})
    models = (str(root / "model"), str(root / "other"))
    assert run(root, model=models, synthesize="all", as_manufacturer="GE") == 0
    for label, names, split in (
        ("03", ["other"], "test"),
        ("02", ["model", "other"], "train"),
        ("05", ["model"], "validation"),
        ("06", ["model", "other"], "test"),
    ):
        about = read_json(sidecar_path(synthetic(root, label)))
        assert [one["Folder"] for one in about["Models"]] == names, label
        assert (about["TrainingSplit"], about["EnsembleMembers"]) == (split, 2 * len(names)), label
        assert about["ParticipantInTrainingSet"] is (split == "train")
        own = root / f"out/sub-{label}/pet/sub-{label}_trc-AV1451_desc-synthSUVR_agreement.tsv"
        assert set(read_tsv(own)["split"]) == {split}
    scans = read_tsv(root / "out/group/synthSUVR_scans.tsv").set_index("participant_id")["split"]
    assert scans["sub-03"] == "test"
    # The map is that of the other model alone.
    (target,) = [p for p in find_pairs(root / "out") if p.participant == "03"]
    images = [load_volume(path) for path in (target.anat.t1w, target.mask_file)]
    alone = predict(load_ensemble([root / "other"]), *images, "GE", Synthesis(), "cpu")
    expected = on_t1w_grid(alone.mean, alone.brain, alone.placement, images[1])
    found = load_volume(synthetic(root, "03"))
    np.testing.assert_allclose(np.asarray(found.dataobj), np.asarray(expected.dataobj), atol=1e-3)


def test_the_calibration_and_its_coverage_are_written_down(everybody):
    root, _ = everybody
    content = read_json(root / "out/group/synthSUVR_uncertainty.json")
    assert content["coverage_on"] == "test split"
    assert 0 <= content["coverage_voxels"] <= 1


def test_every_name_that_bids_does_not_know_is_listed(everybody):
    root, _ = everybody
    made = list((root / "out").rglob("*_agreement.*"))
    assert made
    for path in made:
        assert any(path.match(pattern) for pattern in BIDSIGNORE)


# --- who gets one ---


def test_without_further_options_only_those_without_pet_get_one(study, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    assert run(root, as_manufacturer="Siemens") == 0
    made = {path.parts[-3] for path in (root / "out").glob("sub-*/pet/*synthSUVR_pet.nii.gz")}
    assert made == {f"sub-{label}" for label in WITHOUT_PET}
    assert set(table_of(root, "07")["manufacturer"]) == {"Siemens"}


@pytest.mark.slow
def test_those_with_pet_get_the_scale_of_their_own_scanner_and_the_others_fail_with_a_reason(study, tmp_path, capfd):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    assert run(root, synthesize="all") == 1
    assert set(table_of(root, "02")["manufacturer"]) == {"Siemens"}
    assert set(table_of(root, "03")["manufacturer"]) == {"GE"}
    record = read_json(root / "out/logs/errors/sub-08_trc-AV1451_desc-synthSUVR.json")
    assert "--as-manufacturer" in record["message"]
    assert not synthetic(root, "08").exists()
    assert "FAILED sub-08" in capfd.readouterr().err
    states = {status.scan: status for status in all_statuses(root / "out").values()}
    assert states["sub-08_trc-AV1451_desc-synthSUVR"].reason == record["message"]
    assert states["sub-02_trc-AV1451_desc-synthSUVR"].state == "done"
    assert {status.source for status in states.values()} == {"synthetic"}
    # With a manufacturer the same command mends it, and the record of the failure goes.
    assert run(root, as_manufacturer="GE") == 0
    assert not (root / "out/logs/errors/sub-08_trc-AV1451_desc-synthSUVR.json").exists()


def test_a_second_scan_of_a_t1w_shares_its_synthetic_scan_by_session(tmp_path):
    people = (
        Person("01", session="a", t1w_session="a", shape=(22, 24, 20)),
        Person("01", session="b", t1w_session="a", shape=(22, 24, 20)),
        Person("02", shape=(22, 24, 20)),
    )
    write_people(tmp_path, people)
    model_target = ModelTarget("flortaucipir", "CerebellarGM")
    pairs = measured_scans(tmp_path, model_target).pairs
    targets = find_targets(tmp_path, pairs, model_target, "all")
    assert [(target.names.entities["sub"], target.session) for target in targets] == [
        ("01", "a"),
        ("01", "b"),
        ("02", None),
    ]
    assert targets[0].anat.t1w == targets[1].anat.t1w
    assert find_targets(tmp_path, pairs, model_target, "missing") == []


def test_nothing_is_made_for_participants_who_are_no_longer_in_the_dataset(tmp_path):
    write_people(tmp_path, tuple(Person(label, shape=(22, 24, 20)) for label in ("01", "02")))
    model_target = ModelTarget("flortaucipir", "CerebellarGM")
    targets = find_targets(tmp_path, measured_scans(tmp_path, model_target).pairs, model_target, "all")
    assert still_there(targets, tmp_path / "elsewhere") == (targets, [])
    (tmp_path / "bids/sub-02").mkdir(parents=True)
    left, (sentence,) = still_there(targets, tmp_path / "bids")
    assert [target.names.entities["sub"] for target in left] == ["02"]
    assert sentence.endswith("no longer in the dataset: sub-01")


def test_a_pet_of_another_tracer_does_not_count_as_pet(tmp_path):
    write_people(tmp_path, (Person("01", tracer="PI2620", shape=(22, 24, 20)),))
    model_target = ModelTarget("flortaucipir", "CerebellarGM")
    pairs = measured_scans(tmp_path, model_target).pairs
    (target,) = find_targets(tmp_path, pairs, model_target, "missing")
    assert (target.names.key, target.manufacturer) == ("sub-01_trc-flortaucipir_desc-synthSUVR", None)


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"model": ()}, SettingError, "--model DIR"),
        ({"model": ("/nowhere",)}, MissingInputError, "/nowhere"),
        ({"as_manufacturer": "Mediso"}, UnknownNameError, "GE, Siemens"),
        ({}, UnknownNameError, "--as-manufacturer"),
    ],
)
def test_a_wrong_call_is_refused_in_one_sentence_before_anything_is_written(study, changes, error, sentence):
    before = sorted(path for path in (study / "out").rglob("*"))
    with pytest.raises(error, match=sentence) as caught:
        run(study, **changes)
    assert "\n" not in str(caught.value)
    assert sorted(path for path in (study / "out").rglob("*")) == before


def test_a_table_of_regions_without_its_columns_is_told_before_anything_is_made(study, tmp_path):
    root = shutil.copytree(study, tmp_path / "study")
    table = root / "out/sub-01/pet/sub-01_trc-AV1451_desc-suvr_rois.tsv"
    table.write_text("participant_id\nsub-01\n")
    with pytest.raises(DamagedFileError, match=f"the table {table} has no column session_id"):
        run(root, as_manufacturer="GE")
    assert not synthetic(root, "08").exists()


def test_measured_scans_that_were_made_in_different_ways_are_refused(study, tmp_path, capfd):
    root = shutil.copytree(study, tmp_path / "study")
    for label in ("01", "03"):
        (path,) = (root / f"out/sub-{label}/pet").glob("*desc-suvr_pet.json")
        write_json(read_json(path) | {"SettingsHash": "another"}, path)
    with pytest.raises(SettingError, match=r"SettingsHash.*sub-01_.*--allow-mixed-settings"):
        run(root, as_manufacturer="GE")
    assert not synthetic(root, "08").exists()
    assert run(root, dry_run=True, as_manufacturer="GE", allow_mixed_settings=True) == 0
    assert "SettingsHash" in capfd.readouterr().err


def test_a_selection_that_leaves_nobody_is_nothing_to_do(study):
    assert run(study, participant_label=("99",), as_manufacturer="GE") == 3


def test_a_dry_run_writes_nothing(study, capfd):
    assert run(study, dry_run=True, as_manufacturer="GE") == 0
    assert "would create" in capfd.readouterr().err
    assert not synthetic(study, "08").exists()


def test_after_a_first_failure_the_rest_is_left_where_that_was_asked_for(study, tmp_path, capfd):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    (root / "out/sub-07/anat/sub-07_desc-brain_mask.nii.gz").unlink()
    assert run(root, as_manufacturer="GE", stop_on_first_crash=True) == 1
    assert "0 of 2 synthetic scans made" in capfd.readouterr().err
    statuses = all_statuses(root / "out")
    assert "sub-07_desc-brain_mask" in statuses["sub-07_trc-AV1451_desc-synthSUVR"].reason
    assert statuses["sub-08_trc-AV1451_desc-synthSUVR"].reason == NOT_FINISHED


def test_an_interruption_leaves_what_is_done_and_calls_the_rest_interrupted(study, tmp_path, monkeypatch):
    root = shutil.copytree(study, tmp_path / "study")
    original, made = SynthesizeScan.call, []

    def interrupted(self, folder):
        if made:
            signal.raise_signal(signal.SIGINT)
        made.append(self.inputs.target.names.key)
        return original(self, folder)

    monkeypatch.setattr(SynthesizeScan, "call", interrupted)
    with pytest.raises(KeyboardInterrupt), interruptible():
        run(root, synthesize="all", as_manufacturer="GE")
    states = {key: one.state for key, one in all_statuses(root / "out").items() if one.source == "synthetic"}
    assert states.pop(made[0]) == "done"
    assert set(states.values()) == {"interrupted"}


def test_a_second_run_on_the_same_derivatives_is_refused_while_the_first_is_at_work(study):
    with exclusive_use(study / "out", "synthesize", "wait"), pytest.raises(BusyError, match="the level synthesize"):
        run(study, as_manufacturer="GE")


def test_runs_on_different_participants_share_the_output_and_the_work_folder(study, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    (root / "work").mkdir(exist_ok=True)
    with ExitStack() as others:
        for folder in ("out", "work"):
            others.enter_context(exclusive_use(root / folder, "synthesize", "wait", ["08"]))
        assert run(root, as_manufacturer="GE", participant_label=("07",)) == 0
        with pytest.raises(BusyError, match="sub-08 in"):
            run(root, as_manufacturer="GE", participant_label=("08",))
    assert synthetic(root, "07").is_file()
    assert not synthetic(root, "08").is_file()


@pytest.mark.slow
def test_calls_on_some_participants_each_lead_to_the_tables_of_agreement_of_one_call(everybody, study, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    for labels in (("03", "01", "05"), ("02", "04", "06", "07", "08")):
        assert run(root, synthesize="all", as_manufacturer="GE", participant_label=labels) == 0
    for name in ("scans", "slices", "regions", "summary"):
        of_calls, of_one = (read_tsv(folder / f"out/group/synthSUVR_{name}.tsv") for folder in (root, everybody[0]))
        pd.testing.assert_frame_equal(of_calls, of_one, check_dtype=False, rtol=1e-5)


def test_another_plugin_of_nipype_can_run_the_nodes(study, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    (root / "out/sub-07/anat/sub-07_desc-brain_mask.nii.gz").unlink()
    write_json({"plugin": "Linear"}, root / "plugin.json")
    assert run(root, as_manufacturer="GE", use_plugin=root / "plugin.json") == 1
    states = {key: status.state for key, status in all_statuses(root / "out").items()}
    assert states == {"sub-07_trc-AV1451_desc-synthSUVR": "failed", "sub-08_trc-AV1451_desc-synthSUVR": "done"}


@pytest.mark.slow
def test_the_page_of_a_participant_shows_the_synthetic_scan_beside_the_measured_one(study, tmp_path, monkeypatch):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    write_json({"SettingsHash": "abc"}, root / "out/sub-03/anat/sub-03_desc-preproc_T1w.json")
    monkeypatch.setattr(level, "write_participant_report", write_participant_report)
    assert run(root, synthesize="all", participant_label=("03",)) == 0
    page = (root / "out/sub-03.html").read_text()
    assert re.search(r"synthetic SUVR,.* CerebellarGM", page)
    assert "PET, tracer AV1451 (synthetic)" not in page
    assert "Synthetic PET" not in page
    assert "predicted from the T1w by a trained model" in (root / "out/logs/CITATION.md").read_text()


def test_a_damaged_t1w_fails_alone(study, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    path = root / "out/sub-07/anat/sub-07_desc-preproc_T1w.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    assert run(root, as_manufacturer="GE") == 1
    assert synthetic(root, "08").exists()
    assert not list((root / "out/sub-07").glob("pet/*"))
    assert "damaged" in read_json(root / "out/logs/errors/sub-07_trc-AV1451_desc-synthSUVR.json")["message"]


def test_a_t1w_unlike_the_training_images_is_flagged_or_refused(study, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    for path in (root / "out/sub-08/anat").glob("*.nii.gz"):
        img = nib.load(path)
        affine = img.affine @ np.diag([0.75, 0.75, 0.75, 1.0])
        nib.Nifti1Image(np.asarray(img.dataobj), affine).to_filename(path)
    assert run(root, as_manufacturer="GE", participant_label=("08",)) == 0
    flags = read_json(str(synthetic(root, "08")).replace(".nii.gz", ".json"))["Flags"]
    assert any("voxel edge is 1.5 mm" in flag for flag in flags)
    assert any("brain volume" in flag for flag in flags)
    assert run(root, as_manufacturer="GE", participant_label=("08",), unlike_training="refuse") == 1
    record = read_json(root / "out/logs/errors/sub-08_trc-AV1451_desc-synthSUVR.json")
    assert "unlike the training images" in record["message"]


def test_pooled_stands_for_manufacturers_that_the_model_does_not_know(study, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    assert run(root, as_manufacturer="pooled", participant_label=("08",)) == 0
    assert set(table_of(root, "08")["manufacturer"]) == {"pooled"}
    assert run(root, unknown_manufacturer="pooled", participant_label=("08",)) == 0
    sidecar = read_json(str(synthetic(root, "08")).replace(".nii.gz", ".json"))
    assert any("pooled" in sentence for sentence in sidecar["Assumptions"])


@pytest.mark.slow
def test_two_models_predict_together_and_a_stored_calibration_is_taken_for_one(study, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    write_model(root / "second", seed=1)
    both = (str(root / "model"), str(root / "second"))
    assert run(root, model=both, as_manufacturer="GE", participant_label=("08",)) == 0
    sidecar = read_json(str(synthetic(root, "08")).replace(".nii.gz", ".json"))
    assert (len(sidecar["Models"]), sidecar["EnsembleMembers"]) == (2, 4)
    of_model = load_ensemble([root / "model"]).hash
    # One that belongs to another card, of before the training went on, is not taken.
    for models, taken in ((of_model, True), ("another", False)):
        Calibration(2.0, 5.0, 1, 0.9, 0.9, "test split", 1, models).save(root / "model")
        assert run(root, as_manufacturer="GE", participant_label=("08",)) == 0
        sidecar = read_json(str(synthetic(root, "08")).replace(".nii.gz", ".json"))
        assert (sidecar["Uncertainty"]["region_factor"] == 5.0) is taken


def test_where_nobody_has_a_pet_the_intervals_are_those_that_training_stored(study, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(study, root)
    for folder in (root / "out").glob("sub-*/pet"):
        shutil.rmtree(folder)
    here = {"as_manufacturer": "GE", "participant_label": ("08",)}
    # Without any PET the tracer is spelled as the model's card has it.
    path = root / "out/sub-08/pet/sub-08_trc-flortaucipir_desc-synthSUVR_rois.tsv"
    assert run(root, **here) == 0
    assert read_tsv(path)["suvr_mean_low"].isna().all()
    Calibration(2.0, 5.0, 1, 0.9, 0.9, "test split", 1, load_ensemble([root / "model"]).hash).save(root / "model")
    assert run(root, **here) == 0
    row = read_tsv(path).set_index("region").loc["ctx-lh-entorhinal"]
    width = (row["suvr_mean_high"] - row["suvr_mean_low"]) / 2
    assert width == pytest.approx(1.6448536 * row["suvr_mean_sd"], rel=1e-4)


# --- settings and figure ---

OTHER_VALUES = {
    "as_manufacturer": "GE",
    "unlike_training": "refuse",
    "test_time_flips": False,
    "prediction_memory": "windows",
    "window_side": 64,
    "window_overlap": 0.25,
    "suvr_range": 2.0,
    "hot_suvr": (1.4,),
    "lesion_volume": 1.0,
}


def test_every_setting_is_tested_here():
    assert {item.name for item in dataclasses.fields(Synthesis)} == {*OTHER_VALUES, "model", "synthesize"}


@pytest.mark.parametrize("name", list(OTHER_VALUES))
def test_every_setting_is_read_by_its_own_name(name):
    sources = [path.read_text() for path in (Path(tau_pipeline.__file__).parent / "synthesis").rglob("*.py")]
    assert any(re.search(rf"\b(settings|synthesis)\.{name}\b", source) for source in sources)


@pytest.mark.parametrize(
    "changes",
    [
        {"window_side": 40},
        {"window_overlap": 1.0},
        {"suvr_range": 0.0},
        {"hot_suvr": ()},
        {"lesion_volume": -1.0},
        {"synthesize": "some"},
        {"model": ("a", "a")},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(changes):
    with pytest.raises(SettingError, match=next(iter(changes))):
        Synthesis(**changes)


def test_the_figure_prints_ssim_and_psnr_with_what_they_depend_on(everybody):
    root, _ = everybody
    pair = find_pairs(root / "out")[0]
    t1w, mask, measured = (load_volume(path) for path in (pair.t1w_file, pair.mask_file, pair.suvr_file))
    said = figures_of_merit(0.9, 27.04, 3.0)
    figure = synthetic_figure(load_volume(synthetic(root, "01")), t1w, mask, measured=measured, aside=said)
    assert "SSIM 0.900, PSNR 27.0 dB (volume, in the brain; data range 3 SUVR)" in [
        text.get_text() for text in figure.texts
    ]
