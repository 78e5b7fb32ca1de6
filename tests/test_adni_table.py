"""ADNI's tables: names, values against the long table, and a script written for ADNI's columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from participant_results import write_cohort, write_scan

from tau_pipeline.cohort.adni import ADNI_PVC_TABLE, ADNI_TABLE, adni_regions
from tau_pipeline.files import read_tsv, write_tsv
from tau_workflows.cli import main
from tau_workflows.levels import group


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The group folder of ten scans, two of them of an ADNI participant with dates and two reference regions."""
    root = tmp_path_factory.mktemp("adni")
    bids, out = write_cohort(root, n=8, images=False)
    checks = {"QualityChecks": [{"Check": "coreg_fit", "Verdict": "pass"}]}
    regions = ("Pons", "InferiorCerebellarGM", "ADNIInferiorCerebellarGM", "ADNIErodedWM")
    for session in ("bl", "M012"):
        pet = write_scan(
            out,
            "ADNI002S0295",
            "SIEMENS",
            50,
            session=session,
            regions=regions,
            changes=checks,
        )
        table = read_tsv(pet.rois)
        rng = np.random.default_rng(3)
        write_tsv(
            table.assign(suvr_pvc_mean=1.3 * table["suvr_mean"], suvr_pvc_se=rng.uniform(size=len(table))), pet.rois
        )
    (bids / "sub-ADNI002S0295/ses-M012").mkdir(parents=True)
    times = pd.DataFrame({"session_id": ["ses-bl", "ses-M012"], "acq_time": ["2019-03-04T10:00:00", "2020-03-05"]})
    write_tsv(times, bids / "sub-ADNI002S0295/sub-ADNI002S0295_sessions.tsv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "write_group_report", lambda folder, *_: folder / "group/report.html")
        options = ("--columns", "adni", "--unknown-manufacturer", "pooled", "--allow-mixed-settings")
        assert main([str(bids), str(out), "group", *options]) == 0
    return out / "group"


def test_the_columns_are_those_of_adnis_table(folder: Path) -> None:
    table = pd.read_csv(folder / f"{ADNI_TABLE}.csv")
    names = list(table.columns)
    # The table on LONI has 339 columns; its first and last ones, and how regions are spelled.
    assert len(names[: names.index("update_stamp") + 1]) == 339
    assert names[:12] == [
        *("LONIUID", "RID", "VISCODE", "VISCODE2", "SITEID", "PTID", "SCANDATE", "PROCESSDATE"),
        *("IMAGE_RESOLUTION", "qc_flag", "TRACER", "TRACER_SUVR_WARNING"),
    ]
    for name in (
        *("META_TEMPORAL", "CTX_ENTORHINAL", "CTX_LH_ENTORHINAL", "CTX_RH_BANKSSTS", "LEFT_AMYGDALA", "AMYGDALA"),
        *("RIGHT_THALAMUS_PROPER", "LEFT_VENTRALDC", "ACCUMBENS_AREA", "INFERIORCEREBELLUM", "ERODED_SUBCORTICALWM"),
        *("BRAAK1", "BRAAK34", "BRAAK56", "OPTIC_CHIASM", "CC_MID_ANTERIOR", "VENTRICLE_3RD"),
    ):
        assert {f"{name}_SUVR", f"{name}_VOLUME"} <= set(names), name
    assert len(set(adni_regions())) == 163
    assert set(json.loads((folder / f"{ADNI_TABLE}.json").read_text())) == set(names)


def test_values_are_those_of_the_long_table_and_both_sides_are_weighted_by_volume(folder: Path) -> None:
    table = pd.read_csv(folder / f"{ADNI_TABLE}.csv").set_index("SCAN")
    long = pd.read_csv(folder / "suvr_rois.csv")
    for scan, reference in (
        ("sub-03_trc-AV1451_pet", "CerebellarGM"),
        ("sub-ADNI002S0295_ses-bl_trc-AV1451_pet", "ADNIInferiorCerebellarGM"),
    ):
        own = long[(long["scan"] == scan) & (long["reference_region"] == reference)].set_index(["region", "hemisphere"])
        row = table.loc[scan]
        left, right = own.loc[("Left-Amygdala", "left")], own.loc[("Right-Amygdala", "right")]
        assert row["LEFT_AMYGDALA_SUVR"] == left["suvr_mean"]
        assert row["CTX_RH_FUSIFORM_VOLUME"] == own.loc[("ctx-rh-fusiform", "right"), "volume_mm3"]
        weight = left["volume_mm3"] + right["volume_mm3"]
        both = (left["suvr_mean"] * left["volume_mm3"] + right["suvr_mean"] * right["volume_mm3"]) / weight
        assert row["AMYGDALA_SUVR"] == pytest.approx(both, rel=1e-6)
        assert row["AMYGDALA_VOLUME"] == pytest.approx(weight)
        # Pooled entorhinal voxels are both Braak I and the bilateral region.
        assert row["CTX_ENTORHINAL_SUVR"] == pytest.approx(row["BRAAK1_SUVR"], rel=1e-6)
        assert row["META_TEMPORAL_SUVR"] == own.loc[("metatemporal", "both"), "suvr_mean"]
    # Both activities are the same in the made-up sidecars.
    assert table.loc["sub-ADNI002S0295_ses-bl_trc-AV1451_pet", "ERODED_SUBCORTICALWM_SUVR"] == 1
    assert table["LEFT_LATERAL_VENTRICLE_SUVR"].isna().all()
    assert read_tsv(folder / f"{ADNI_TABLE}.tsv")["BRAINSTEM_SUVR"].isna().all()


def test_a_script_written_for_adni_runs(folder: Path) -> None:
    tau = pd.read_csv(folder / f"{ADNI_TABLE}.csv", parse_dates=["SCANDATE"])
    tau = tau[(tau["qc_flag"] >= 1) & (tau["TRACER"] == "FTP") & (tau["IMAGE_RESOLUTION"] == "6MM")]
    tau = tau.dropna(subset=["RID", "SCANDATE"]).sort_values(["RID", "SCANDATE"])
    assert (pd.read_csv(folder / f"{ADNI_TABLE}.csv")["qc_flag"] == -1).sum() == 8
    assert tau["RID"].tolist() == [295, 295]
    assert tau["PTID"].unique() == "002_S_0295"
    assert tau["VISCODE2"].tolist() == ["bl", "m12"]
    assert (tau["SCANDATE"].iloc[1] - tau["SCANDATE"].iloc[0]).days == 367
    cortex = tau.filter(regex="^CTX_(LH|RH)_.*_SUVR$")
    assert cortex.shape[1] == 68
    divided = cortex.div(tau["INFERIORCEREBELLUM_SUVR"], axis=0)
    pd.testing.assert_frame_equal(divided, cortex)
    weights = tau.filter(regex="^CTX_(LH|RH)_.*_VOLUME$").to_numpy()
    assert np.isfinite((divided.to_numpy() * weights).sum(axis=1) / weights.sum(axis=1)).all()


def test_corrected_values_have_the_name_of_adnis_corrected_table(folder: Path) -> None:
    plain, table = (pd.read_csv(folder / f"{name}.csv").set_index("SCAN") for name in (ADNI_TABLE, ADNI_PVC_TABLE))
    scan = "sub-ADNI002S0295_ses-M012_trc-AV1451_pet"
    ratio = table.loc[scan, "CTX_INSULA_SUVR"] / plain.loc[scan, "CTX_INSULA_SUVR"]
    assert ratio == pytest.approx(1.3, rel=1e-6)
    assert "INFERIOR_CEREBGM_SUVR" in table
    assert "INFERIORCEREBELLUM_SUVR" not in table
    assert (
        table.loc["sub-03_trc-AV1451_pet", "CTX_INSULA_SUVR"] != table.loc["sub-03_trc-AV1451_pet", "CTX_INSULA_SUVR"]
    )
