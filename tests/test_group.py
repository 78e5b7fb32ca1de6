"""The group level: tables of a cohort, standardised maps, and what is written again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from closed_folders import closed
from participant_results import GROUPS, MAKERS, write_cohort, write_scan
from scipy import stats

from tau_pipeline.bids.validator import validate
from tau_pipeline.cohort.demographics import Demographics, read_demographics
from tau_pipeline.cohort.harmonize import combat
from tau_pipeline.cohort.outliers import outlier_scores
from tau_pipeline.cohort.scans import moments_of
from tau_pipeline.cohort.standardize import BACKGROUND, Standardization
from tau_pipeline.cohort.tables import LONG_COLUMNS, STATUS_COLUMNS, wide_table
from tau_pipeline.cohort.thickness import stack_thickness
from tau_pipeline.derivatives import columns
from tau_pipeline.derivatives.columns import UNCERTAINTY_COLUMNS
from tau_pipeline.derivatives.index import find_scans
from tau_pipeline.derivatives.names import AnatNames
from tau_pipeline.derivatives.status import ScanStatus, update_status
from tau_pipeline.errors import DamagedFileError, MissingInputError, SettingError, shown
from tau_pipeline.files import read_json, read_tsv, write_json, write_tsv
from tau_pipeline.measures.statistics import one_way_test
from tau_pipeline.surface import thickness
from tau_workflows.cli import main
from tau_workflows.levels import group


@pytest.fixture(autouse=True)
def quick_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the page out: it takes seconds and has tests of its own. One test here undoes this."""
    monkeypatch.setattr(group, "write_group_report", lambda folder, *_: folder / "group/report.html")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cohort of 18 on which `group` has run; tests only read it."""
    bids, out = write_cohort(tmp_path_factory.mktemp("cohort"))
    update_status(
        out,
        {
            "sub-90_trc-AV1451_pet": ScanStatus("sub-90_trc-AV1451_pet", reason="the PET is truncated, send it again"),
            "sub-91_T1w": ScanStatus("sub-91_T1w", "skipped", "no PET for this T1w; anatomical processing only"),
        },
    )
    write_thickness(out, "01")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "write_group_report", lambda folder, *_: folder / "group/report.html")
        assert run(bids, out) == 1
    return bids, out


def write_thickness(out: Path, label: str) -> None:
    """Write a table of thickness as the participant level does, of two regions."""
    columns = {name: [1.0, 2.0] for name in thickness.COLUMNS}
    keys = {"participant_id": f"sub-{label}", "session_id": None, "region": ["ctx-lh-insula", "cortex"]}
    table = pd.DataFrame({**columns, **keys, "hemisphere": ["left", "both"], "thickness_mean": [2.9, 3.1]})
    write_tsv(table, AnatNames(out, {"sub": label}).thickness_table)


def run(bids: Path, out: Path, *options: str) -> int:
    return main([str(bids), str(out), "group", *options])


@pytest.mark.slow
def test_the_long_table_stacks_the_participants_tables(cohort: tuple[Path, Path]) -> None:
    _, out = cohort
    long = read_tsv(out / "group/suvr_rois.tsv")
    assert tuple(long.columns) == (*LONG_COLUMNS, "suvr_p90", "years_from_first")
    assert LONG_COLUMNS[: len(columns.COLUMNS)] == columns.COLUMNS
    own = pd.concat([read_tsv(path) for path in sorted(out.glob("sub-*/pet/*_rois.tsv"))], ignore_index=True)
    unchanged = [name for name in columns.COLUMNS if name not in ("suvr_z", "manufacturer", "tracer")]
    pd.testing.assert_frame_equal(long[unchanged], own[unchanged], check_dtype=False)


def test_bilateral_values_and_asymmetry_are_those_of_a_loop_over_pairs(cohort: tuple[Path, Path]) -> None:
    _, out = cohort
    long, table = read_tsv(out / "group/suvr_rois.tsv"), read_tsv(out / "group/suvr_bilateral.tsv")
    scan = long["scan"].iloc[0]
    own = long[long["scan"] == scan].set_index(["region", "hemisphere"])
    rows = table[table["scan"] == scan].set_index("region")
    assert len(rows) == 34 + 9 + 11
    for name, sides in {
        "ctx-entorhinal": ("ctx-lh-entorhinal", "ctx-rh-entorhinal"),
        "Hippocampus": ("Left-Hippocampus", "Right-Hippocampus"),
        "braak34": ("braak34", "braak34"),
    }.items():
        left, right = (own.loc[one] for one in zip(sides, ("left", "right"), strict=True))
        total = left["n_voxels"] + right["n_voxels"]
        mean = (left["suvr_mean"] * left["n_voxels"] + right["suvr_mean"] * right["n_voxels"]) / total
        index = 2 * (left["suvr_mean"] - right["suvr_mean"]) / (left["suvr_mean"] + right["suvr_mean"])
        assert rows.loc[name, "suvr_mean"] == pytest.approx(mean, rel=1e-5)
        assert rows.loc[name, "asymmetry_index"] == pytest.approx(index, abs=1e-5)
        assert rows.loc[name, "volume_mm3"] == pytest.approx(left["volume_mm3"] + right["volume_mm3"], rel=1e-5)
    assert (out / "group/suvr_bilateral.csv").is_file()
    described = json.loads((out / "group/suvr_bilateral.json").read_text())
    assert "both sides" in described["suvr_mean"]["Description"]


def test_the_uncertainty_of_synthetic_scans_stands_in_the_long_table(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, n=9)
    measured = sorted(out.glob("sub-*/pet/*_desc-suvr_rois.tsv"))[0]
    table = read_tsv(measured)
    reach = 0.1 + 0.001 * np.arange(len(table))
    synthetic = table.assign(source="synthetic", suvr_mean_sd=reach / 1.645)
    synthetic = synthetic.assign(suvr_mean_low=table["suvr_mean"] - reach, suvr_mean_high=table["suvr_mean"] + reach)
    for suffix in ("_rois.tsv", "_rois.json"):
        of = measured.with_name(measured.name.replace("_rois.tsv", suffix))
        if of.is_file():
            shutil.copyfile(of, of.with_name(of.name.replace("_desc-suvr_", "_desc-synthSUVR_")))
    write_tsv(synthetic, measured.with_name(measured.name.replace("_desc-suvr_", "_desc-synthSUVR_")))
    sidecar = next(measured.parent.glob("*_space-T1w_desc-suvr_pet.json"))
    shutil.copyfile(sidecar, sidecar.with_name(sidecar.name.replace("_desc-suvr_", "_desc-synthSUVR_")))
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    long = read_tsv(out / "group/suvr_rois.tsv")
    assert tuple(long.columns) == (*LONG_COLUMNS, "suvr_p90", *UNCERTAINTY_COLUMNS, "years_from_first")
    made = long[long["source"] == "synthetic"]
    # Seven digits are written.
    np.testing.assert_allclose(made["suvr_mean_high"] - made["suvr_mean_low"], 2 * reach, rtol=1e-5)
    assert long.loc[long["source"] == "measured", list(UNCERTAINTY_COLUMNS)].isna().all(axis=None)
    assert set(UNCERTAINTY_COLUMNS) < set(json.loads((out / "group/suvr_rois.json").read_text()))


def test_z_of_the_tables_is_the_suvr_by_the_manufacturers_mean_and_sd(cohort: tuple[Path, Path]) -> None:
    _, out = cohort
    long, fit = read_tsv(out / "group/suvr_rois.tsv"), read_tsv(out / "group/standardization.tsv")
    by_maker = fit.set_index("manufacturer")
    for k, name in enumerate(("Siemens", "GE", "Philips")):
        rows = long[long["manufacturer"] == name]
        assert set(rows["participant_id"]) == {f"sub-{n:02d}" for n in range(k, 18, 3)}
        expected = (rows["suvr_mean"] - by_maker.loc[name, "mean"]) / by_maker.loc[name, "sd"]
        np.testing.assert_allclose(rows["suvr_z"], expected, rtol=0, atol=2e-5)
    assert set(fit["n_participants"]) == {6, 18}


def test_inverting_the_tables_gives_back_the_suvr(cohort: tuple[Path, Path]) -> None:
    _, out = cohort
    fit = Standardization.load(out / "group/standardization.tsv")
    long = read_tsv(out / "group/suvr_rois.tsv")
    for spelling, rows in long.groupby("manufacturer"):
        back = fit.invert(rows["suvr_z"].to_numpy(), str(spelling))
        # seven digits are written
        np.testing.assert_allclose(back, rows["suvr_mean"], rtol=2e-6)


def test_a_map_is_standardised_in_the_brain_constant_outside_and_inverts_to_float32(cohort: tuple[Path, Path]) -> None:
    _, out = cohort
    fit = Standardization.load(out / "group/standardization.tsv")
    for k in (0, 1, 2):
        folder = out / f"sub-{k:02d}"
        suvr = nib.load(next(folder.glob("pet/*_desc-suvr_pet.nii.gz")))
        std = nib.load(next(folder.glob("pet/*_desc-std_pet.nii.gz")))
        brain = np.asanyarray(nib.load(next(folder.glob("anat/*_mask.nii.gz"))).dataobj) > 0
        z, values = np.asanyarray(std.dataobj), np.asanyarray(suvr.dataobj)
        assert np.array_equal(std.affine, suvr.affine)
        assert z.dtype == np.float32
        assert (z[~brain] == BACKGROUND).all()
        assert np.abs(fit.invert(z, MAKERS[k])[brain] - values[brain]).max() < 2e-7 * 4
        sidecar = read_json(next(folder.glob("pet/*_desc-std_pet.json")))
        assert sidecar["Background"] == BACKGROUND
        assert sidecar["StandardizationMean"] == fit.group_of(MAKERS[k]).mean
        assert sidecar["Sources"][0].endswith("_space-T1w_desc-suvr_pet.nii.gz")


def test_over_a_manufacturers_participants_the_maps_have_mean_0_and_sd_1(cohort: tuple[Path, Path]) -> None:
    _, out = cohort
    for first in range(3):
        z = []
        for k in range(first, 18, 3):
            folder = out / f"sub-{k:02d}"
            brain = np.asanyarray(nib.load(next(folder.glob("anat/*_mask.nii.gz"))).dataobj) > 0
            z.append(nib.load(next(folder.glob("pet/*_desc-std_pet.nii.gz"))).get_fdata()[brain])
        assert abs(np.mean(z)) < 1e-6
        assert abs(np.std(z) - 1) < 1e-6


def test_the_output_with_group_files_is_valid_bids(cohort: tuple[Path, Path]) -> None:
    report = validate(cohort[1])
    ours = [line for line in (*report.errors, *report.participant_errors) if "std" in line or "group" in line]
    assert not ours


def test_before_manufacturers_differ_after_they_do_not_and_diagnoses_still_do(cohort: tuple[Path, Path]) -> None:
    status = read_tsv(cohort[1] / "group/status.tsv")
    status["ad"] = status["diagnosis"] == "AD"
    for percent in (75, 90, 99):
        assert one_way_test(status, f"cortex_p{percent}", "manufacturer").p < 1e-3
        assert one_way_test(status, f"cortex_p{percent}_standardized", "manufacturer").p > 0.2
        assert one_way_test(status, f"cortex_p{percent}_standardized", "ad").p < 1e-3


def test_the_status_tells_of_every_scan_that_was_asked_for(cohort: tuple[Path, Path]) -> None:
    status = read_tsv(cohort[1] / "group/status.tsv").set_index("scan")
    assert tuple(status.reset_index().columns) == STATUS_COLUMNS
    assert status["state"].value_counts().to_dict() == {"done": 18, "failed": 1, "skipped": 1}
    assert status.loc["sub-90_trc-AV1451_pet", "reason"] == "the PET is truncated, send it again"
    assert status.loc["sub-91_T1w", "state"] == "skipped"
    done = status.loc["sub-05_trc-AV1451_pet"]
    assert (done["minutes"], done["motion_mm"], done["n_assumptions"]) == (2.5, 1.5, 1)
    assert done["diagnosis"] == GROUPS[1]


def test_outliers_are_scored_within_the_cohort(cohort: tuple[Path, Path]) -> None:
    status = read_tsv(cohort[1] / "group/status.tsv").query("state == 'done'")
    expected = outlier_scores(status["reference_value"])
    np.testing.assert_allclose(status["reference_value_outlier"], expected, atol=1e-4)
    assert (status["tracer"] == "flortaucipir").all()


def test_the_csv_files_are_read_by_pandas_without_options_as_the_tsv_is(cohort: tuple[Path, Path]) -> None:
    group = cohort[1] / "group"
    plain = pd.read_csv(group / "suvr_rois.csv")
    pd.testing.assert_frame_equal(plain, read_tsv(group / "suvr_rois.tsv"), check_dtype=False)
    wide = pd.read_csv(group / "suvr_rois_wide.csv")
    assert len(wide) == 18
    assert wide["ctx_lh_entorhinal"].dtype == float
    # names that R's read.csv leaves as they are
    assert all(name.isidentifier() and "." not in name for name in wide.columns)
    assert wide.columns.is_unique


def test_the_wide_table_holds_each_region_of_the_long_one(cohort: tuple[Path, Path]) -> None:
    group = cohort[1] / "group"
    wide, long = pd.read_csv(group / "suvr_rois_wide.csv"), pd.read_csv(group / "suvr_rois.csv")
    scan = "sub-07_trc-AV1451_pet"
    row, rows = wide.set_index("scan").loc[scan], long[long["scan"] == scan]
    one = rows[rows["region"] == "ctx-rh-fusiform"].iloc[0]
    assert row["ctx_rh_fusiform"] == one["suvr_mean"]
    assert row["ctx_rh_fusiform_standardized"] == one["suvr_z"]
    left = rows[(rows["region"] == "braak34") & (rows["hemisphere"] == "left")].iloc[0]
    assert row["braak34_left"] == left["suvr_mean"]
    both = rows[(rows["region"] == "braak34") & (rows["hemisphere"] == "both")].iloc[0]
    assert row["braak34"] == both["suvr_mean"]
    assert row["reference"] == pytest.approx(rows[rows["kind"] == "reference"].iloc[0]["suvr_mean"])


def test_every_column_of_every_table_is_in_its_dictionary(cohort: tuple[Path, Path]) -> None:
    group = cohort[1] / "group"
    for table in [*group.glob("*.tsv"), *group.glob("*.csv")]:
        columns = pd.read_csv(table, sep="\t" if table.suffix == ".tsv" else ",", nrows=1).columns
        described = json.loads(table.with_suffix(".json").read_text())
        assert set(columns) == set(described), table.name
        assert all(entry["Description"].strip() for entry in described.values())


def test_thickness_is_stacked_with_age_and_diagnosis_of_those_in_the_dataset(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    bids, out = cohort
    table = read_tsv(out / "group/thickness_rois.tsv")
    person = read_tsv(bids / "participants.tsv").set_index("participant_id").loc["sub-01"]
    assert table["thickness_mean"].tolist() == [2.9, 3.1]
    assert (table[["age", "sex", "diagnosis"]] == [person["age"], person["sex"], person["group"]]).all(axis=None)
    for label in ("01", "99"):
        write_thickness(tmp_path / "out", label)
    assert len(stack_thickness(tmp_path / "out", tmp_path / "other", Demographics({}, {}))) == 4
    (tmp_path / "bids/sub-01").mkdir(parents=True)
    stacked = stack_thickness(tmp_path / "out", tmp_path / "bids", Demographics({}, {}))
    assert set(stacked["participant_id"]) == {"sub-01"}
    assert stack_thickness(tmp_path / "nothing", bids, Demographics({}, {})) is None


def test_running_again_writes_nothing(cohort: tuple[Path, Path]) -> None:
    bids, out = cohort
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    run(bids, out)
    assert [path.name for path, time in before.items() if path.stat().st_mtime_ns != time] == []


def copy_of(cohort: tuple[Path, Path], to: Path) -> tuple[Path, Path]:
    """A copy of the cohort that `group` has run on; a scan of it has failed, so that the exit code is 1."""
    shutil.copytree(cohort[0].parent, to, dirs_exist_ok=True)
    return to / cohort[0].name, to / cohort[1].name


def test_adding_a_participant_changes_the_maps_of_its_manufacturer_alone(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    bids, out = copy_of(cohort, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in out.rglob("*_desc-std_pet.*")}
    write_scan(out, "50", "GE Healthcare", 50)
    assert run(bids, out) == 1
    changed = {
        path.name[:6] for path in out.rglob("*_desc-std_pet.*") if before.get(path.name) != path.stat().st_mtime_ns
    }
    assert changed == {"sub-50", *(f"sub-{k:02d}" for k in range(1, 18, 3))}


def test_with_a_given_fit_adding_a_participant_changes_no_other_map(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    bids, out = copy_of(cohort, tmp_path)
    fit = tmp_path / "fit.tsv"
    fit.write_bytes((out / "group/standardization.tsv").read_bytes())
    before = {path.name: path.stat().st_mtime_ns for path in out.rglob("*_desc-std_pet.*")}
    write_scan(out, "50", "GE Healthcare", 50)
    assert run(bids, out, "--standardization", str(fit)) == 1
    after = {path.name: path.stat().st_mtime_ns for path in out.rglob("*_desc-std_pet.*")}
    assert {name for name in after if after[name] != before.get(name)} == {
        "sub-50_trc-AV1451_space-T1w_desc-std_pet.nii.gz",
        "sub-50_trc-AV1451_space-T1w_desc-std_pet.json",
    }


@pytest.mark.slow
def test_a_fit_on_a_training_split_does_not_depend_on_the_others(tmp_path: Path) -> None:
    training = [f"{k:02d}" for k in range(15)]
    bids, out = write_cohort(tmp_path / "a", images=False)
    assert run(bids, out, "--fit-participants", *training) == 0
    other_bids, other = write_cohort(tmp_path / "b", images=False)
    for k in (15, 16, 17):
        write_scan(other, f"{k:02d}", MAKERS[k % 3], 900 + k, tau=2.0, images=False)
    assert run(other_bids, other, "--fit-participants", *training) == 0
    tables = [(place / "group/standardization.tsv").read_text() for place in (out, other)]
    assert tables[0] == tables[1]
    assert "sub-15" not in tables[0]


def test_a_rare_manufacturer_stops_before_anything_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bids, out = write_cohort(tmp_path)
    write_scan(out, "50", "UIH", 50)
    assert run(bids, out) == 2
    assert "United Imaging has 1 participant (sub-50)" in capfd.readouterr().err
    assert not (out / "group").exists()
    assert not list(out.rglob("*_desc-std_pet.nii.gz"))


def test_a_rare_manufacturer_is_pooled_or_left_out_by_choice_and_a_map_of_an_earlier_fit_goes(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    bids, out = copy_of(cohort, tmp_path)
    write_scan(out, "50", "UIH", 50)
    for choice in ("pooled", "exclude"):
        assert run(bids, out, "--unknown-manufacturer", choice) == 1
        long = read_tsv(out / "group/suvr_rois.tsv")
        own = long[long["participant_id"] == "sub-50"]
        assert len(own) == 120
        assert own["suvr_z"].notna().any() == (choice == "pooled")
        assert bool(list(out.glob("sub-50/pet/*_desc-std_pet.nii.gz"))) == (choice == "pooled")
        assert long[long["participant_id"] != "sub-50"]["suvr_z"].notna().all()
    assert not list(out.glob("sub-50/pet/*desc-std*"))


def test_tables_without_images_make_a_cohort_too(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, images=False)
    assert run(bids, out) == 0
    assert read_tsv(out / "group/suvr_rois.tsv")["suvr_z"].notna().all()
    assert not list(out.rglob("*_desc-std_pet.*"))


def test_each_reference_region_has_its_own_fit_rows_and_maps(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, n=1)
    for k in range(6):
        write_scan(out, f"{k:02d}", "GE", k, regions=("CerebellarGM", "Pons"))
    assert run(bids, out) == 0
    fit = read_tsv(out / "group/standardization.tsv")
    assert list(fit["reference_region"]) == ["CerebellarGM", "CerebellarGM", "Pons", "Pons"]
    assert len(pd.read_csv(out / "group/suvr_rois_wide.csv")) == 12
    assert (out / "sub-03/pet/sub-03_trc-AV1451_space-T1w_desc-stdPons_pet.nii.gz").is_file()
    status = read_tsv(out / "group/status.tsv")
    assert list(status["reference_region"]) == ["CerebellarGM"] * 6


def test_sessions_have_their_own_age_and_diagnosis(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, n=6, images=False)
    for session, seed in (("a", 70), ("b", 71)):
        write_scan(out, "07", "GE", seed, session=session, images=False)
    table = read_tsv(bids / "participants.tsv")
    table.loc[len(table)] = {"participant_id": "sub-07", "age": 80, "sex": "F", "group": "CN"}
    write_tsv(table, bids / "participants.tsv")
    (bids / "sub-07").mkdir()
    sessions = pd.DataFrame({"session_id": ["ses-a", "ses-b"], "age": [80.5, 83], "diagnosis": ["n/a", "MCI"]})
    write_tsv(sessions, bids / "sub-07/sub-07_sessions.tsv")
    assert run(bids, out, "--min-participants", "2") == 0
    rows = read_tsv(out / "group/status.tsv").set_index("scan")
    first, second = rows.loc["sub-07_ses-a_trc-AV1451_pet"], rows.loc["sub-07_ses-b_trc-AV1451_pet"]
    assert (first["age"], first["sex"], first["diagnosis"]) == (80.5, "F", "CN")
    assert (second["age"], second["sex"], second["diagnosis"]) == (83, "F", "MCI")


def test_without_participants_tsv_the_columns_are_missing_and_the_table_is_whole(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, images=False)
    (bids / "participants.tsv").unlink()
    assert run(bids, out) == 0
    assert read_tsv(out / "group/suvr_rois.tsv")[["age", "sex", "diagnosis"]].isna().all(axis=None)


def test_the_diagnosis_column_can_be_chosen_and_must_be_there(tmp_path: Path) -> None:
    bids, _ = write_cohort(tmp_path, n=3)
    found = read_demographics(bids, "sex")
    assert found.of("sub-01", None)["diagnosis"] == "M"
    with pytest.raises(SettingError, match=r"'stage'; there are: age, group, participant_id, sex"):
        read_demographics(bids, "stage")


def test_names_of_columns_with_spaces_and_remarks_and_ids_in_capitals_are_read(tmp_path):
    rows = "SUB-01\t71\tF\t-9\n"
    (tmp_path / "participants.tsv").write_text(f"Participant ID\t Age at scan (years)\tSex [M/F]\tdiagnosis \n{rows}")
    assert read_demographics(tmp_path).of("sub-01", None) == {"age": 71.0, "sex": "F", "diagnosis": None}


def test_a_row_of_a_visit_does_not_replace_the_one_of_the_participant(tmp_path):
    rows = "sub-01\tn/a\t70\nsub-01\tses-b\t71\n"
    (tmp_path / "participants.tsv").write_text(f"participant_id\tsession_id\tage\n{rows}")
    found = read_demographics(tmp_path)
    assert [found.of("sub-01", session)["age"] for session in (None, "ses-b")] == [70.0, 71.0]


def test_ages_are_read_as_people_write_them_and_the_rest_is_said_to_be_missing(tmp_path: Path) -> None:
    ages = {"1": "89+", "2": "71", "3": "71,5", "4": "70-74", "5": "old", "6": "n/a", "7": "> 90", "8": "90 or older"}
    rows = "".join(f"sub-{who}\t{age}\tAD\n" for who, age in ages.items())
    (tmp_path / "participants.tsv").write_text(f"participant_id\tAGE\tDX\n{rows}")
    found = read_demographics(tmp_path)
    read = [found.of(f"sub-{who}", None)["age"] for who in ages]
    assert read == [89, 71, 71.5, 72, None, None, 90, 90]
    assert found.of("sub-2", "ses-x")["diagnosis"] == "AD"
    for who in "1458":
        assert any(repr(ages[who]) in note and f"sub-{who}" in note for note in found.notes)
    assert len(found.notes) == 5


def test_ages_in_units_are_read_and_numbers_that_are_no_ages_count_as_missing(tmp_path: Path) -> None:
    ages = {"1": "71 years", "2": "P071Y", "3": "852 months", "4": "-4", "5": "1950", "6": " 70 "}
    rows = "".join(f"sub-{who}\t{age}\t F\tNA\n" for who, age in ages.items())
    (tmp_path / "participants.tsv").write_text(f"Participant_ID\tage\tsex\tdiagnosis\n{rows}")
    found = read_demographics(tmp_path)
    assert [found.of(f"sub-{who}", None)["age"] for who in ages] == [71, 71, 71, None, None, 70]
    assert found.of("sub-1", None)["sex"] == "F"
    assert len(found.notes) == 5
    assert any("6 of 6 participants have no diagnosis" in one for one in found.gaps([(f"sub-{k}", None) for k in ages]))


def test_an_age_of_0_is_a_code_for_a_missing_one_and_is_said(tmp_path: Path) -> None:
    rows = "".join(f"sub-{who}\t{age}\n" for who, age in enumerate(("0", "0.0", "0 years", "0.5")))
    (tmp_path / "participants.tsv").write_text(f"participant_id\tage\n{rows}")
    found = read_demographics(tmp_path)
    assert [found.of(f"sub-{who}", None)["age"] for who in range(4)] == [None, None, None, 0.5]
    assert any("age '0' is no number of years and counts as missing: sub-0" in note for note in found.notes)
    assert len(found.notes) == 3


def test_one_sex_and_one_diagnosis_have_one_name_in_a_cohort(tmp_path: Path) -> None:
    sexes = ("F", "female", "Femme", "m", "männlich", "0", "other")
    diagnoses = ("CN", "cn", "CN", "Mild  impairment", "mild impairment", "AD", "ad")
    rows = "".join(f"sub-{k}\t{sexes[k]}\t{diagnoses[k]}\n" for k in range(7)) + "sub-1\tF\tCN\n"
    (tmp_path / "participants.tsv").write_text(f"participant_id\tsex\tdiagnosis\n{rows}")
    found = read_demographics(tmp_path)
    people = [found.of(f"sub-{k}", None) for k in range(7)]
    assert [one["sex"] for one in people] == ["F", "F", "F", "M", "M", "0", "other"]
    assert [one["diagnosis"] for one in people] == ["CN"] * 3 + ["Mild  impairment"] * 2 + ["AD"] * 2
    assert any("diagnosis 'cn' was taken as 'CN', as in other rows: sub-1" in note for note in found.notes)


@pytest.mark.parametrize(
    ("sex", "diagnosis"),
    [
        ({"Levels": {"1": "Male", "2": "female"}}, {"Levels": {"1": "CN", "2": "MCI", "9": "unknown"}}),
        ({"Levels": {"1": {"Description": "male"}, "2": {"Description": "female"}}}, {"Levels": {"CN": 1, "MCI": "2"}}),
        (
            {"Description": "1 = male sex, 2 = female sex"},
            {"Description": "Baseline (1: CN; 2: MCI; -4: not available)"},
        ),
    ],
)
@pytest.mark.parametrize("decimals", ["", ".0"])
def test_codes_are_put_into_the_words_of_the_data_dictionary(
    tmp_path: Path, sex: dict[str, Any], diagnosis: dict[str, Any], decimals: str
) -> None:
    cells = [("1", "1"), ("2", "2"), ("n/a", "-4"), ("999", "9")]
    rows = "".join(f"sub-{k}\t{one}{decimals}\t{other}{decimals}\n" for k, (one, other) in enumerate(cells))
    (tmp_path / "participants.tsv").write_text(f"participant_id\tSex\tDX\n{rows.replace('n/a.0', 'n/a')}")
    (tmp_path / "participants.json").write_text(json.dumps({"Sex": sex, "dx": diagnosis}))
    found = read_demographics(tmp_path)
    people = [found.of(f"sub-{k}", None) for k in range(4)]
    assert [one["sex"] for one in people] == ["M", "F", None, None]
    last = None if "unknown" in str(diagnosis) else f"9{decimals}"
    assert [one["diagnosis"] for one in people] == ["CN", "MCI", None, last]
    assert sum("codes of sex were read by the data dictionary: 1 is" in note for note in found.notes) == 1
    assert any("diagnosis has codes that nothing explains (9)" in note for note in found.notes) == (last is not None)


@pytest.mark.parametrize(
    ("column", "units", "cells", "years"),
    [
        ("age", "months", ("840", "n/a"), (70, None)),
        ("Age", "Month", ("110", "903"), (9.16667, 75.25)),
        ("age", "days", ("25567,5", "90+"), (70, 90)),
        ("age_months", "", ("840", "852"), (70, 71)),
        ("Age (months)", "", ("840", "852"), (70, 71)),
        ("age", "years", ("70", "71"), (70, 71)),
        ("age", "years (from months)", ("70", "71"), (70, 71)),
    ],
)
def test_ages_in_another_unit_are_put_into_years_and_it_is_said(
    tmp_path: Path, column: str, units: str, cells: tuple[str, ...], years: tuple[float, ...]
) -> None:
    rows = "".join(f"sub-{k}\t{cell}\n" for k, cell in enumerate(cells))
    (tmp_path / "participants.tsv").write_text(f"participant_id\t{column}\n{rows}")
    (tmp_path / "participants.json").write_text(json.dumps({"age": {"Units": units}} if units else {}))
    found = read_demographics(tmp_path)
    assert [found.of(f"sub-{k}", None)["age"] for k in range(2)] == pytest.approx(list(years))
    assert any("they were put into years" in note for note in found.notes) == ("year" not in units)


def test_a_column_that_is_there_twice_is_said(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\tage\nsub-1\t70\tF\t71\n")
    found = read_demographics(tmp_path)
    assert found.of("sub-1", None)["age"] == 70
    assert found.notes == ("participants.tsv has the column age twice; the first one counts",)


def test_codes_that_nothing_explains_stay_and_are_said_once(tmp_path: Path) -> None:
    rows = "".join(f"sub-{k}\t{k % 2}\tAD\n" for k in range(6))
    (tmp_path / "participants.tsv").write_text(f"participant_id\tsex\tdiagnosis\n{rows}")
    found = read_demographics(tmp_path)
    assert found.of("sub-1", None)["sex"] == "1"
    assert sum("sex has codes that nothing explains (0, 1)" in note for note in found.notes) == len(found.notes) == 1


def test_levels_of_words_do_not_rename_them(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text("participant_id\tsex\tdiagnosis\nsub-1\tf\tCN\n")
    levels = {"sex": {"Levels": {"f": "female"}}, "diagnosis": {"Levels": {"CN": "cognitively normal"}}}
    (tmp_path / "participants.json").write_text(json.dumps(levels))
    assert read_demographics(tmp_path).of("sub-1", None) == {"age": None, "sex": "F", "diagnosis": "CN"}


def test_codes_in_a_table_of_sessions_are_explained_beside_it_or_at_the_root(tmp_path: Path) -> None:
    for k, place in enumerate(("sub-0/sub-0_sessions.json", "sessions.json", "participants.json")):
        root = tmp_path / str(k)
        (root / "sub-0").mkdir(parents=True)
        (root / "sub-0/sub-0_sessions.tsv").write_text("session_id\tdiagnosis\nses-a\t2\n")
        (root / place).write_text(json.dumps({"diagnosis": {"Levels": {"2": "MCI"}}}))
        assert read_demographics(root).of("sub-0", "ses-a")["diagnosis"] == "MCI"


@pytest.mark.parametrize("text", ["NA", "NaN", "-4", "-4.0", "999", "n.a.", "<NA>", "Unknown", "#REF!", " ", "--"])
def test_missing_values_are_missing_however_they_are_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "participants.tsv").write_text(f"participant_id\tage\tsex\tdiagnosis\nsub-1\t{text}\t{text}\t{text}\n")
    assert set(read_demographics(tmp_path).of("sub-1", None).values()) == {None}


@pytest.mark.parametrize("written", ["1", "sub-1", "1.0", "sub_001", "SUB001", "\u200bsub-001"])
def test_ids_that_are_nearly_those_of_the_folders_are_named_with_them(tmp_path: Path, written: str) -> None:
    (tmp_path / "participants.tsv").write_text(f"participant_id\tage\n{written}\t71\nsub-002\t64\nsub-011\t60\n")
    said = read_demographics(tmp_path).gaps([("sub-001", None), ("sub-002", None)])
    assert any("nearly those of participants" in one and "(sub-001)" in one and "sub-011" not in one for one in said)


def test_rows_of_sessions_that_have_other_names_than_the_folders_are_said(tmp_path: Path) -> None:
    rows = "sub-1\tbl\t71\nsub-1\tm12\t72\nsub-2\ta\t60\nsub-2\tc\t61\n"
    (tmp_path / "participants.tsv").write_text(f"participant_id\tVISCODE\tage\n{rows}")
    said = read_demographics(tmp_path).gaps([("sub-1", "ses-M00"), ("sub-2", "ses-a")])
    assert any("sub-1 ses-M00 (there are ses-bl, ses-m12)" in one for one in said)
    assert not any("sub-2" in one for one in said if "no row" in one)


def test_tables_that_were_not_fetched_or_have_other_separators_are_said(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").symlink_to(".git/annex/objects/none")
    with pytest.raises(MissingInputError, match="datalad get"):
        read_demographics(tmp_path)
    (tmp_path / "participants.tsv").unlink()
    (tmp_path / "participants.tsv").write_text("participant_id,age\nsub-01,71\n")
    with pytest.raises(DamagedFileError, match=r"columns participant_id,age; expected.*tabs"):
        read_demographics(tmp_path)


def test_a_row_per_session_gives_each_scan_its_own_values(tmp_path: Path) -> None:
    text = "participant_id\tsession_id\tage\tsex\tdiagnosis\nsub-01\tses-a\t71\tF\tCN\nsub-01\tb\t75\tF\tAD\n"
    (tmp_path / "participants.tsv").write_text(text)
    found = read_demographics(tmp_path)
    assert found.of("sub-01", "ses-a") == {"age": 71, "sex": "F", "diagnosis": "CN"}
    assert found.of("sub-01", "ses-b") == {"age": 75, "sex": "F", "diagnosis": "AD"}
    assert found.of("sub-01", "ses-c") == {"age": None, "sex": "F", "diagnosis": None}, "only what never changes"
    assert not found.notes


def test_rows_that_contradict_each_other_are_said_and_count_as_missing(tmp_path: Path) -> None:
    rows = "sub-01\t71\tF\tCN\nsub-01\t64\tF\tAD\nsub-02\t60\tM\tCN\nsub-02\t60\tM\tCN\n"
    (tmp_path / "participants.tsv").write_text(f"participant_id\tage\tsex\tdiagnosis\n{rows}")
    found = read_demographics(tmp_path)
    assert found.of("sub-01", None) == {"age": None, "sex": "F", "diagnosis": None}
    assert found.of("sub-02", None) == {"age": 60, "sex": "M", "diagnosis": "CN"}
    assert len(found.notes) == 2
    assert all("sub-01" in note and "sub-02" not in note for note in found.notes)


def test_participants_without_row_age_or_diagnosis_are_counted(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tsex\tdiagnosis\nsub-01\tn/a\tF\tCN\nsub-09\t70\tF\tn/a\n"
    )
    said = read_demographics(tmp_path).gaps([("sub-01", None), ("sub-02", None), ("sub-09", "ses-a")])
    assert "1 of 3 participants has no row" in said[0]
    assert "sub-02" in said[0]
    assert any("no age: sub-01" in sentence for sentence in said)
    assert any("no diagnosis: sub-09" in sentence for sentence in said)
    strangers = read_demographics(tmp_path).gaps([("sub-x1", None)])
    assert any("no participant_id" in sentence and "sub-01, sub-09" in sentence for sentence in strangers)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--participant-label", "01"], "--participant-label is not an option of the level group"),
        (["--fit-participants", "77"], "no scan to fit"),
        (["--diagnosis-column", "stage"], "has a column 'stage'"),
        (["--standardization", "/nowhere.tsv"], "no table /nowhere.tsv"),
        (["--min-participants", "0"], "min_participants is 0"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    bids, out = write_cohort(tmp_path, n=9, images=False)
    assert run(bids, out, "--unknown-manufacturer", "pooled", *options) == 2
    err = capfd.readouterr().err
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "value"), [("participant_label", ["01"]), ("bids_filter_file", "f.json"), ("derivatives", ["a=/b"])]
)
def test_a_selection_in_the_settings_file_is_refused_and_not_ignored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, value: object
) -> None:
    bids, out = write_cohort(tmp_path, n=9, images=False)
    (tmp_path / "settings.toml").write_text(f"[selection]\n{name} = {json.dumps(value)}\n")
    assert run(bids, out, "--config-file", str(tmp_path / "settings.toml")) == 2
    assert f"[selection] sets {name}, which the group level does not read" in capfd.readouterr().err
    assert not (out / "group").exists()


def test_an_output_without_results_says_what_to_run_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bids, out = write_cohort(tmp_path, n=1)
    assert run(bids, tmp_path / "nowhere") == 2
    assert "run the participant level first" in capfd.readouterr().err
    next(out.rglob("*_rois.tsv")).unlink()
    assert run(bids, out) == 2
    assert "holds no region table" in capfd.readouterr().err


def test_a_damaged_table_and_an_old_sidecar_are_named(tmp_path: Path) -> None:
    _, out = write_cohort(tmp_path, n=2, images=False)
    table = next(out.glob("sub-00/pet/*_rois.tsv"))
    table.write_text(table.read_text().replace("suvr_mean", "mean", 1))
    with pytest.raises(DamagedFileError, match="no column suvr_mean"):
        find_scans(out)
    write_scan(out, "00", "GE", 0, changes={"BrainMean": None})
    with pytest.raises(DamagedFileError, match="run the participant level again for sub-00"):
        moments_of(find_scans(out)[0])


def test_a_scan_whose_results_have_gone_is_a_failed_one(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, images=False)
    next(out.glob("sub-04/pet/*_rois.tsv")).unlink()
    assert run(bids, out) == 1
    row = read_tsv(out / "group/status.tsv").set_index("scan").loc["sub-04_trc-AV1451_pet"]
    assert (row["state"], row["manufacturer"]) == ("failed", "GE")
    assert "run the participant level again" in row["reason"]


def test_what_the_validator_has_no_names_for_is_named_to_it_whoever_wrote_it_before(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, n=9, images=False)
    (out / ".bidsignore").write_text("*.html\n")
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 0
    assert {"group", "models", "*_agreement.tsv"} <= set((out / ".bidsignore").read_text().split())


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_what_an_earlier_run_left_of_a_scan_that_was_not_finished_since_is_not_counted(
    tmp_path: Path, state: Literal["failed", "interrupted"]
) -> None:
    bids, out = write_cohort(tmp_path, images=False)
    key = "sub-04_trc-AV1451_pet"
    update_status(out, {key: ScanStatus(key, state, "the disk is full", key.removesuffix("_pet"))})
    assert run(bids, out) == 1
    assert "sub-04" not in set(read_tsv(out / "group/suvr_rois.tsv")["participant_id"])
    assert "sub-04" not in (out / "group/standardization.tsv").read_text()
    row = read_tsv(out / "group/status.tsv").set_index("scan").loc[key]
    assert (row["state"], row["reason"]) == (state, "the disk is full")


def test_a_failed_synthetic_scan_is_told_beside_the_measured_one_of_its_session(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, n=9, images=False)
    key = "sub-04_trc-AV1451_desc-synthSUVR"
    failed = ScanStatus(key, "failed", "no T1w", "sub-04_trc-AV1451", tracer="AV1451", source="synthetic")
    update_status(out, {key: failed})
    assert run(bids, out, "--unknown-manufacturer", "pooled") == 1
    status = read_tsv(out / "group/status.tsv").query("participant_id == 'sub-04'").set_index("scan")
    assert status["state"].to_dict() == {"sub-04_trc-AV1451_pet": "done", key: "failed"}
    assert status["source"].to_dict() == {"sub-04_trc-AV1451_pet": "measured", key: "synthetic"}
    assert status.loc[key, "reason"] == "no T1w"
    # The measured scan counts as before.
    assert "sub-04" in set(read_tsv(out / "group/suvr_rois.tsv")["participant_id"])


@pytest.mark.slow
def test_combat_takes_out_the_manufacturer_and_keeps_the_diagnosis(tmp_path: Path) -> None:
    bids, out = write_cohort(tmp_path, n=36, images=False)
    assert run(bids, out, "--harmonize", "combat") == 0
    before = pd.read_csv(out / "group/suvr_rois_wide.csv")
    after = pd.read_csv(out / "group/suvr_rois_combat_wide.csv")
    assert list(after["scan"]) == list(before["scan"])
    assert one_way_test(before, "braak34", "manufacturer").p < 1e-3
    assert one_way_test(after, "braak34", "manufacturer").p > 0.2
    gap = [table.groupby("diagnosis")["braak34"].mean() for table in (before, after)]
    assert gap[1]["AD"] - gap[1]["CN"] == pytest.approx(gap[0]["AD"] - gap[0]["CN"], rel=0.1)
    # what is not to be harmonised is as it was
    assert after["reference"].equals(before["reference"])


def test_combat_says_what_it_lacks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bids, out = write_cohort(tmp_path, n=18, images=False)
    table = read_tsv(bids / "participants.tsv")
    table.loc[3, "age"] = np.nan
    write_tsv(table, bids / "participants.tsv")
    assert run(bids, out, "--harmonize", "combat") == 2
    assert "ComBat keeps age, which is missing for sub-03" in capfd.readouterr().err


def combat_cohort(makers: list[str], sexes: list[str], seed: int = 0) -> pd.DataFrame:
    """Regional SUVR of a cohort, with a shift and a scale of each manufacturer."""
    rng = np.random.default_rng(seed)
    shift = {"Siemens": 0.0, "GE": 0.2, "Philips": -0.1}
    n = len(makers)
    table = pd.DataFrame({"participant_id": [f"sub-{k:02d}" for k in range(n)], "manufacturer": makers, "sex": sexes})
    table["age"], table["diagnosis"] = rng.uniform(55, 85, n), rng.permutation(np.resize(["CN", "CN", "AD"], n))
    for region in range(20):
        own = 1.2 + 0.02 * region + 0.3 * (table["diagnosis"] == "AD") + rng.normal(0, 0.05, n)
        table[f"r{region}"] = own + [shift[name] for name in makers]
    return table


REGIONS = [f"r{region}" for region in range(20)]
MIXED = np.resize(["Siemens", "GE", "Philips"], 36).tolist(), np.resize(list("FFFMMM"), 36).tolist()


@pytest.mark.parametrize(
    ("makers", "sexes", "message"),
    [
        (["Siemens", "GE", "Philips"] * 2, list("FMFMMF"), "ComBat needs 16 scans for 3 manufacturers"),
        (["Siemens", "GE"] * 12, ["F", "M"] * 12, "cannot tell the manufacturers from sex, since sex and manufacturer"),
        (["Siemens"] * 12, ["F", "M"] * 6, "at least two manufacturers"),
    ],
)
def test_combat_refuses_a_design_that_cannot_be_estimated(makers: list[str], sexes: list[str], message: str) -> None:
    with pytest.raises(SettingError, match=message) as said:
        combat(combat_cohort(makers, sexes), REGIONS)
    assert "\n" not in str(said.value)


def test_combat_refuses_a_result_that_no_suvr_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    import neuroCombat

    table = combat_cohort(*MIXED)
    for wrong in (-4.0, np.nan, 30.0):
        monkeypatch.setattr(neuroCombat, "neuroCombat", lambda dat, wrong=wrong, **_: {"data": dat * 0 + wrong})
        with pytest.raises(SettingError, match=r"ComBat gives SUVR of .* in r0, where the scans have 1"):
            combat(table, REGIONS)


def test_combat_harmonises_a_region_that_a_scan_lacks_among_the_others() -> None:
    table = combat_cohort(*MIXED)
    table.loc[5, "r3"] = np.nan
    table.loc[3:, "r4"] = np.nan
    table["r5"] = 1.5
    found = combat(table, REGIONS)
    assert np.flatnonzero(found["r3"].isna()).tolist() == [5]
    means = found.groupby("manufacturer")["r3"].mean()
    assert np.ptp(means) < 0.5 * np.ptp(table.groupby("manufacturer")["r3"].mean())
    others = table.drop(index=5)
    np.testing.assert_allclose(found["r3"].drop(index=5), combat(others, REGIONS)["r3"])
    assert found["r4"].isna().all(), "three scans cannot be harmonized"
    assert (found["r5"] == 1.5).all()
    whole = [name for name in REGIONS if name not in ("r3", "r4")]
    np.testing.assert_allclose(found[whole], combat(table[[*table.columns.drop(["r3", "r4"])]], whole)[whole])


def test_the_one_way_test_is_the_t_test_squared_for_two_groups() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"v": rng.normal(size=20), "g": ["a"] * 9 + ["b"] * 11})
    found = one_way_test(table, "v", "g")
    t = stats.ttest_ind(table["v"][:9], table["v"][9:])
    assert found.f == pytest.approx(t.statistic**2)
    assert found.p == pytest.approx(t.pvalue)
    assert found.n == {"a": 9, "b": 11}


def test_the_one_way_test_needs_two_groups_of_two() -> None:
    found = one_way_test(pd.DataFrame({"v": [1.0, 2.0, 3.0], "g": ["a", "a", "b"]}), "v", "g")
    assert np.isnan(found.p)
    assert found.n == {"a": 2}


def test_an_empty_long_table_makes_an_empty_wide_one() -> None:
    assert wide_table(pd.DataFrame(columns=list(LONG_COLUMNS))).empty


def test_pages_alone_are_made_again_from_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bids, out = write_cohort(tmp_path, n=9, images=False)
    assert run(bids, out, "--min-participants", "3") == 0
    page, table = out / "group/report.html", out / "group/status.tsv"
    before = table.stat().st_mtime_ns
    monkeypatch.undo()
    monkeypatch.setattr("tau_workflows.reports.cohort._figures", lambda *_: [])
    assert run(bids, out, "--reports-only") == 0
    assert "sub-08" in page.read_text()
    assert table.stat().st_mtime_ns == before


def group_run(tmp_path: Path, out: Path, *options: str, **places: str) -> None:
    """The group level in a process of its own, with an empty home that nobody may write to."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    for folder in (home, temporary):
        folder.mkdir(exist_ok=True)
    home.chmod(0o500)
    keys = ("MPLCONFIGDIR", "NIPYPE_CONFIG_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    env = {key: value for key, value in os.environ.items() if key not in keys}
    env |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1", **places}
    done = subprocess.run(
        [sys.executable, "-m", "tau_workflows.cli", str(tmp_path / "bids"), str(out), "group", "-w", "work", *options],
        env=env, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path for folder in (home, temporary) for path in folder.rglob("*")] == []


@pytest.mark.slow
def test_figures_leave_nothing_in_the_home_folder(tmp_path: Path) -> None:
    _, out = write_cohort(tmp_path, 6, images=False)
    group_run(tmp_path, out, "--min-participants", "2")
    assert (out / "group/report.html").is_file()
    # Where Matplotlib keeps its list of fonts, so that the page did have figures.
    assert list((tmp_path / "work/matplotlib").glob("fontlist*.json"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bids", "home", "out", "tmp", "work"]
    group_run(tmp_path, out, "--reports-only", MPLCONFIGDIR=str(tmp_path / "mine"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bids", "home", "mine", "out", "tmp", "work"]


def test_an_age_that_no_number_holds_is_missing(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text(f"participant_id\tage\nsub-01\t{'9' * 400}\nsub-02\t71\n")
    known = read_demographics(tmp_path)
    assert known.of("sub-01", None)["age"] is None
    assert known.of("sub-02", None)["age"] == 71


@pytest.mark.parametrize("value", [1e300, "n/a", float("nan"), 10**300])
def test_moments_that_have_no_square_are_refused_with_what_was_found(tmp_path: Path, value: object) -> None:
    write_scan(tmp_path, "00", "GE", 0, images=False)
    (sidecar,) = tmp_path.glob("sub-00/**/*_desc-suvr_pet.json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "BrainMean": value}))
    (scan,) = find_scans(tmp_path)
    with pytest.raises(DamagedFileError, match=r"sub-00_trc-AV1451.*expected: three numbers") as caught:
        moments_of(scan)
    assert shown(value) in str(caught.value)


def test_a_map_that_the_participant_level_has_not_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    write_scan(tmp_path, "00", "GE", 0, images=False)
    path = next(tmp_path.rglob("*desc-suvr_pet.json"))
    write_json({name: value for name, value in read_json(path).items() if not name.startswith("Brain")}, path)
    (scan,) = find_scans(tmp_path)
    with pytest.raises(DamagedFileError, match=r"has no BrainMean.*was not written by the participant level"):
        moments_of(scan)


def test_a_data_dictionary_and_folders_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for label in ("1", "2"):
        (tmp_path / f"sub-{label}").mkdir()
        (tmp_path / f"sub-{label}/sub-{label}_sessions.tsv").write_text("session_id\tage\nses-a\t70\n")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-1\t70\n")
    (tmp_path / "participants.json").write_text("{")
    with closed(tmp_path / "sub-2"):
        found = read_demographics(tmp_path)
    assert found.of_session.keys() == {("sub-1", "ses-a")}
    assert any("participants.json is not valid JSON" in note and "without it" in note for note in found.notes)
    assert any("cannot be read, nor a sessions.tsv in them: sub-2" in note for note in found.notes)
    assert len(found.notes) == 2
