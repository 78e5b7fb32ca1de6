"""CenTauR: masks, published lines, and the line of a calibration, against simulated pairs."""

from __future__ import annotations

from pathlib import Path

import ants
import numpy as np
import pandas as pd
import pytest
from participant_results import write_cohort

from tau_pipeline.cohort.calibrated import with_calibrated
from tau_pipeline.cohort.centaur import LINES, MASKS, REFERENCE, centaurz, find_masks, mask_means
from tau_pipeline.derivatives.index import find_maps
from tau_pipeline.errors import MissingInputError, SettingError
from tau_pipeline.files import read_json, read_tsv, write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import image_like, save_volume
from tau_pipeline.measures.deming import deming_line
from tau_workflows.cli import main
from tau_workflows.levels import group


def write_masks(folder: Path, like: object) -> dict[str, np.ndarray]:
    """Write boxes that overlap, as the universal mask does with the others, on the grid of an image."""
    folder.mkdir()
    found = {}
    for place, name in enumerate((*MASKS.values(), REFERENCE)):
        inside = np.zeros(like.shape, np.uint8)
        inside[1 + place % 3 : 6, 1 + place : 4 + place, 1:6] = 1
        save_volume(image_like(inside, like), folder / f"{name}.nii")
        found[name] = inside > 0
    return found


def test_a_published_line_maps_the_mean_of_controls_to_zero_and_the_threshold_to_two() -> None:
    # Villemagne 2023: flortaucipir, universal mask; z is 0 at -intercept / slope, and rises by 1 each 1 / slope.
    assert centaurz(15.85 / 13.63, "flortaucipir", "universal") == pytest.approx(0)
    assert centaurz(17.85 / 13.63, "flortaucipir", "universal") == pytest.approx(2)
    assert np.isnan(centaurz(1.2, "florbetapir", "universal"))
    assert all(len(lines) == len(MASKS) for lines in LINES.values())


def test_the_means_are_those_of_voxels_and_need_enough_measured_ones() -> None:
    rng = np.random.default_rng(0)
    suvr, bits = rng.uniform(0.5, 2, (6, 6, 6)), rng.integers(0, 64, (6, 6, 6))
    suvr[0] = np.nan
    found = mask_means(suvr, bits)
    for place, name in enumerate(MASKS):
        own, reference = (
            [suvr[at] for at in np.ndindex(suvr.shape) if bits[at] // 2**bit % 2 and np.isfinite(suvr[at])]
            for bit in (place, len(MASKS))
        )
        assert found[name] == pytest.approx(sum(own) / len(own) / (sum(reference) / len(reference)))
    suvr[:4] = np.nan
    assert all(np.isnan(value) for value in mask_means(suvr, bits, 0.5).values())


def test_masks_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"has no CenTauR\.nii, Mesial_CenTauR\.nii"):
        find_masks(tmp_path)


def test_the_group_level_carries_the_masks_by_the_saved_transform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "write_group_report", lambda folder, *_: folder / "group/report.html")
    bids, out = write_cohort(tmp_path, n=6)
    scans = find_maps(out)
    like = load_volume(scans[0].suvr_file, ndim=3)
    masks = write_masks(tmp_path / "masks", like)
    # The template lies 2 mm from the head, which is one voxel: the transform maps points of the T1w to the template.
    shift = ants.create_ants_transform(transform_type="AffineTransform", dimension=3, translation=(2.0, 0.0, 0.0))
    for scan in scans[1:]:
        path = scan.anat.from_template()
        path.parent.mkdir(parents=True, exist_ok=True)
        ants.write_transform(shift, str(path))
    options = ("--centaur-masks", str(tmp_path / "masks"), "--unknown-manufacturer", "pooled")
    assert main([str(bids), str(out), "group", *options]) == 0
    table = read_tsv(out / "group/centaur.tsv").set_index("scan")
    assert (table["calibration"] == "uncalibrated").all()
    assert table.loc[scans[0].key].filter(like="_suvr").isna().all()
    # x of ITK points to the left and so does the first axis of this grid: one voxel on.
    values = np.asanyarray(load_volume(scans[3].suvr_file, ndim=3).dataobj)
    moved = {name: np.roll(inside, -1, axis=0) for name, inside in masks.items()}
    for name, stem in MASKS.items():
        expected = values[moved[stem]].mean() / values[moved[REFERENCE]].mean()
        assert table.loc[scans[3].key, f"{name}_suvr"] == pytest.approx(expected, rel=1e-5)
        line = centaurz(expected, "flortaucipir", name)
        assert table.loc[scans[3].key, f"{name}_centaurz"] == pytest.approx(line, rel=1e-4)
    described = read_json(out / "group/centaur.json")
    assert set(described) == {"scan", *table.columns}


@pytest.mark.slow
def test_the_deming_line_has_the_slope_of_the_truth_and_intervals_that_cover_it() -> None:
    rng = np.random.default_rng(2)
    covered, lines, least_squares = [], [], []
    for _ in range(400):
        truth = rng.gamma(2, 0.3, 60) + 1
        x, y = truth + rng.normal(0, 0.1, 60), -15 + 13 * truth + rng.normal(0, 13 * 0.1 * np.sqrt(0.5), 60)
        line = deming_line(x, y, error_ratio=13**2 * 0.5)
        lines.append((line.slope, line.intercept))
        least_squares.append(np.polyfit(x, y, 1)[0])
        low, high = line.slope_interval
        covered.append((low <= 13 <= high, line.intercept_interval[0] <= -15 <= line.intercept_interval[1]))
    assert np.mean(lines, axis=0) == pytest.approx((13, -15), rel=0.01)
    # Least squares is pulled towards 0 by the errors of x.
    assert np.mean(least_squares) < 12.6
    assert np.mean(covered, axis=0) == pytest.approx(0.95, abs=0.035)


def test_the_deming_line_minimizes_the_weighted_distances() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(1.3, 0.3, 40)
    y = 2 + 3 * x + rng.normal(0, 0.4, 40)
    ratio = 4.0
    line = deming_line(x, y, error_ratio=ratio)

    def cost(slope: float, intercept: float) -> float:
        return float(sum((y - intercept - slope * x) ** 2) / (ratio + slope**2))

    best = cost(line.slope, line.intercept)
    for slope in line.slope + np.linspace(-0.2, 0.2, 9):
        for intercept in line.intercept + np.linspace(-0.2, 0.2, 9):
            assert cost(slope, intercept) >= best - 1e-9


@pytest.mark.slow
def test_calibrate_fits_our_values_to_a_column_and_stores_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "write_group_report", lambda folder, *_: folder / "group/report.html")
    bids, out = write_cohort(tmp_path, n=15, images=False)
    command = [str(bids), str(out), "calibrate", "--measured-column", "metatemporal", "--reference-column", "theirs"]
    reference = tmp_path / "reference.tsv"
    write_tsv(pd.DataFrame({"participant_id": ["sub-01"], "theirs": [1.0]}), reference)
    assert main([*command, "--reference-table", str(reference)]) == 2
    assert main([str(bids), str(out), "group"]) == 0
    assert main([*command, "--reference-table", str(reference)]) == 2
    wide = pd.read_csv(out / "group/suvr_rois_wide.csv", dtype={"participant_id": str})
    theirs = wide[["participant_id"]].assign(theirs=0.2 + 0.7 * wide["metatemporal"])
    write_tsv(theirs.iloc[2:], reference)
    assert main([*command, "--reference-table", str(reference)]) == 0
    found = read_json(out / "group/calibration.json")
    assert (found["Slope"], found["Intercept"], found["N"]) == (
        pytest.approx(0.7, rel=1e-4),
        pytest.approx(0.2, rel=1e-3),
        13,
    )
    assert main([str(bids), str(out), "group", "--calibration-line", str(out / "group/calibration.json")]) == 0
    wide = pd.read_csv(out / "group/suvr_rois_wide.csv")
    np.testing.assert_allclose(wide["metatemporal_calibrated"], 0.2 + 0.7 * wide["metatemporal"], rtol=1e-4)
    assert "metatemporal_calibrated" in read_json(out / "group/suvr_rois_wide.json")
    assert found["SlopeInterval"][0] <= found["Slope"] <= found["SlopeInterval"][1]


def test_calibrated_centaurz_are_by_the_calibrated_suvr_of_the_same_tracer_alone() -> None:
    table = pd.DataFrame(
        {"tracer": ["flortaucipir", "MK-6240"], "frontal_suvr": [1.2, 1.2], "calibration": "uncalibrated"}
    )
    table["frontal_centaurz"] = [centaurz(1.2, name, "frontal") for name in table["tracer"]]
    line = {"Slope": 1.1, "Intercept": -0.05, "MeasuredColumn": "frontal_suvr", "Tracer": "flortaucipir"}
    found, outside = with_calibrated({"centaur": table}, {**line, "MeasuredRange": [1.3, 2.0]}, "calibration.json")
    first, second = found["centaur"].to_dict("records")
    assert first["frontal_centaurz"] == pytest.approx(11.61 * (1.1 * 1.2 - 0.05) - 13.01)
    assert (first["calibration"], second["calibration"]) == ("frontal: calibration.json", "uncalibrated")
    assert second["frontal_centaurz"] == table["frontal_centaurz"][1]
    assert outside == 1
    with pytest.raises(SettingError, match="frontal_suvr, which no table has"):
        with_calibrated({}, line, "calibration.json")


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(SettingError, match="there are 3 pairs of values, and a calibration needs 10"):
        deming_line([1, 2, 3], [1, 2, 3])
