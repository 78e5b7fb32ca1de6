"""Figures of quality checks: exact on images and metadata that are made so."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantom import TRACER, tiny_dataset
from scipy import ndimage

from tau_pipeline.bids.off_target import meningeal_note, off_target
from tau_pipeline.bids.scans import find_participants
from tau_pipeline.derivatives.quality_checks import BY_NAME
from tau_pipeline.imaging.transforms import rotation
from tau_pipeline.imaging.volume import image_on
from tau_pipeline.measures import quality_figures as figures
from tau_pipeline.pet.frames import WINDOWS, FramePlan, Window, plan_frames
from tau_pipeline.pet.quality import known_figures, window_figures

#: 2 mm, in RAS and turned: nothing may depend on how voxels are stored.
GRIDS = {
    "RAS": np.diag([2.0, 2.0, 2.0, 1.0]),
    "LPS": np.diag([-2.0, -2.0, 2.0, 1.0]),
    "upside down": np.diag([2.0, 2.0, -2.0, 1.0]),
}


def shifted(x: float, y: float, z: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def turned(degrees: float, center: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(np.deg2rad([0.0, 0.0, degrees]))
    matrix[:3, 3] = center - matrix[:3, :3] @ center
    return matrix


def box_brain(affine: np.ndarray) -> nib.Nifti1Image:
    """A brain of 20 x 20 x 20 voxels in a grid of 40 x 40 x 40."""
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[10:30, 10:30, 10:30] = 1
    return image_on(mask, affine)


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
def test_the_move_is_that_of_the_brain(affine: np.ndarray) -> None:
    mask = box_brain(affine)
    center = (affine @ [19.5, 19.5, 19.5, 1])[:3]
    found = figures.move(shifted(3, 0, 4), mask)
    assert found == pytest.approx({"RegistrationShift": 5.0, "RegistrationRotation": 0.0}, abs=1e-6)
    assert figures.move(turned(30, center), mask)["RegistrationRotation"] == pytest.approx(30)
    # A turn about a far point moves the brain on a circle about it.
    far = center + np.array([500.0, 0.0, 0.0])
    assert figures.move(turned(10, far), mask)["RegistrationShift"] == pytest.approx(1000 * np.sin(np.deg2rad(5)), 0.01)


def test_motion_between_frames_is_that_of_six_points_at_50_mm() -> None:
    center = np.array([10.0, -20.0, 30.0])
    xfms = [np.eye(4), shifted(2, 0, 0), shifted(2, 0, 3) @ turned(4, center)]
    found = figures.motion_between(xfms, center)["FrameMotionBetween"]
    assert found[0] == pytest.approx(2.0)
    alone = figures.motion_between([np.eye(4), turned(4, center)], center)["FrameMotionBetween"]
    # The two points on the axis stay, the other four move along a chord.
    assert alone[0] == pytest.approx(4 / 6 * 100 * np.sin(np.deg2rad(2)))
    assert figures.motion_between(xfms[:1], center) == {"FrameMotionBetween": []}


@pytest.mark.parametrize("sd", [0.02, 0.1])
def test_noise_is_that_of_independent_voxels_whatever_the_slope(sd: float) -> None:
    affine, rng = GRIDS["RAS"], np.random.default_rng(1)
    slope = 5 + 0.05 * np.arange(40)[:, None, None] * np.ones((40, 40, 40))
    mask = box_brain(affine)
    assert figures.noise(image_on(slope, affine), np.eye(4), mask)["NeighborNoise"] == pytest.approx(0, abs=1e-9)
    noisy = slope + sd * slope.mean() * rng.standard_normal(slope.shape)
    found = figures.noise(image_on(noisy, affine), np.eye(4), mask)["NeighborNoise"]
    assert found == pytest.approx(sd, rel=0.05)


def test_noise_of_a_pet_elsewhere_is_not_measured() -> None:
    pet = image_on(np.ones((20, 20, 20), np.float32), shifted(900, 0, 0))
    assert figures.noise(pet, np.eye(4), box_brain(GRIDS["RAS"])) == {}


def test_contrast_is_mriqcs_coefficient_of_joint_variation() -> None:
    rng = np.random.default_rng(2)
    t1w, tissue = np.zeros((20, 20, 20)), np.zeros((20, 20, 20, 3))
    t1w[:10], t1w[10:] = rng.normal(60, 3, (10, 20, 20)), rng.normal(100, 5, (10, 20, 20))
    tissue[:10, ..., 1] = tissue[10:, ..., 2] = 1
    found = figures.tissue_contrast(t1w, tissue)["CoefficientOfJointVariation"]
    expected = (t1w[:10].std() + t1w[10:].std()) / (t1w[10:].mean() - t1w[:10].mean())
    assert found == pytest.approx(expected)
    assert figures.tissue_contrast(t1w, tissue * 0.5) == {}


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("cut", ["outside of the image", "filled"])
def test_a_brain_that_ends_with_the_t1w_is_cut(affine: np.ndarray, cut: str) -> None:
    mask, measured = box_brain(affine), np.ones((40, 40, 40), bool)
    assert figures.cut_area(mask, measured) == {"BrainCutArea": 0}
    if cut == "filled":
        # The mask may end a voxel before what is filled.
        measured[:, :, 30:] = False
    else:
        mask, measured = mask.slicer[:, :, 10:], measured[:, :, 10:]
    found = figures.cut_area(mask, measured)
    assert found["BrainCutArea"] == pytest.approx(20 * 20 * 2 * 2)
    check = BY_NAME["t1w_cut_cm2"]
    assert check.value(found) == pytest.approx(16)


def test_a_t1w_cropped_to_the_brain_does_not_cut_it() -> None:
    at = np.indices((70, 70, 70)) - 34.5
    mask = image_on((np.linalg.norm(at, axis=0) < 35).astype(np.uint8), GRIDS["RAS"])
    check = BY_NAME["t1w_cut_cm2"]
    assert check.judge(check.value(figures.cut_area(mask, np.ones(mask.shape, bool)))) == "pass"
    lacking = mask.slicer[:, :, 8:]
    assert check.judge(check.value(figures.cut_area(lacking, np.ones(lacking.shape, bool)))) == "fail"


def test_a_hot_spot_in_the_reference_region_is_found_and_noise_is_none() -> None:
    rng = np.random.default_rng(3)
    reference = np.zeros((40, 40, 40), bool)
    reference[10:30, 10:30, 10:30] = True
    suvr = np.where(reference, rng.normal(1.0, 0.15, reference.shape), 5.0)
    suvr[10:12, 10, 10] = np.nan
    assert figures.hot_share(suvr, reference)["ReferenceRegionHot"] < 1e-3
    suvr[20:24, 20:24, 20:24] = 3.0
    found = figures.hot_share(suvr, reference)
    assert found["ReferenceRegionHot"] == pytest.approx(64 / 7998, abs=1e-3)
    check = BY_NAME["ref_hot_percent"]
    assert check.judge(check.value(found)) == "warn"
    assert figures.hot_share(suvr, np.zeros_like(reference)) == {}


@pytest.mark.parametrize("size", [1.0, 2.0])
def test_the_shell_is_2_to_6_mm_outside_the_brain(size: float) -> None:
    n = int(60 / size)
    mask = np.zeros((n, n, n), bool)
    mask[tuple([slice(n // 4, 3 * n // 4)] * 3)] = True
    away = ndimage.distance_transform_edt(~mask) * size
    suvr = np.where(mask | (away < 1.5) | (away > 7.5), 50.0, 1.7).astype(np.float32)
    suvr[:, :, : n // 2][(away[:, :, : n // 2] > 3) & (away[:, :, : n // 2] < 5)] = 0  # outside the field of view
    img = image_on(suvr, np.diag([size, size, size, 1.0]))
    assert figures.shell_uptake(suvr, mask, img)["MeningealSUVR"] == pytest.approx(1.7, rel=1e-6)


def test_high_uptake_of_the_meninges_is_told_for_tracers_that_bind_there() -> None:
    limit = BY_NAME["meninges_suvr"].warn_above
    assert limit is not None
    note = meningeal_note("[18F]MK-6240", limit + 0.01)
    assert f"{limit + 0.01:.2f}" in note
    assert "Fu et al. 2023" in note
    assert meningeal_note("MK-6240", limit) == meningeal_note("MK-6240", None) == ""
    assert meningeal_note("PI-2620", 3.0) == meningeal_note(None, 3.0) == ""


def test_off_target_binding_is_known_for_every_tracer_with_a_source_and_no_other() -> None:
    assert {one.tracer for one in off_target()} == set(WINDOWS)
    assert all(re.search(r"(19|20)\d\d", one.source) for one in off_target())


@pytest.mark.parametrize(
    ("tracer", "starts_min", "lasts_min", "asked", "share", "start"),
    [
        ("AV1451", [80, 85, 90, 95], 5, None, 1.0, 0),
        ("AV1451", [80], 20, None, 1.0, 0),
        ("AV1451", [70], 20, None, 10 / 30, -10),
        ("AV1451", [60], 40, None, 0.5, -20),
        ("AV1451", [77], 20, None, 17 / 23, -3),
        ("PI-2620", [60], 30, None, 1.0, 0),
        ("PI-2620", [50], 30, None, 25 / 35, 5),
        ("MK-6240", [70], 20, (70, 90), 1.0, 0),
        ("MK-6240", [90], 20, (70, 110), 1.0, 0),
    ],
)
def test_the_window_is_compared_with_those_of_the_tracer_and_the_one_asked_for(
    tracer: str,
    starts_min: list[float],
    lasts_min: float,
    asked: tuple[float, float] | None,
    share: float,
    start: float,
) -> None:
    n = len(starts_min)
    metadata = {
        "TracerName": tracer,
        "Units": "Bq/mL",
        "InjectionStart": 0,
        "FrameTimesStart": [60 * start for start in starts_min],
        "FrameDuration": [60 * lasts_min] * n,
    }
    plan = plan_frames((4, 4, 4, n), metadata, asked)
    found = window_figures(plan, tracer)
    assert (found["WindowOverlap"], found["WindowStart"]) == pytest.approx((share, start))


def test_a_window_is_not_judged_without_times_or_a_known_tracer() -> None:
    untimed = FramePlan((0,), (1.0,), (), (), Window(80, 100, ""), ())
    timed = FramePlan((0,), (1.0,), (4800.0,), (1200.0,), Window(80, 100, ""), ())
    assert window_figures(untimed, "AV1451") == {}
    assert window_figures(timed, "unheard") == {}


def test_days_between_pet_and_t1w_are_those_of_the_scan(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path / "bids", ("01",))
    images = {"anat/sub-01_T1w.nii.gz": "2020-01-01", f"pet/sub-01_trc-{TRACER}_pet.nii.gz": "2020-03-01"}
    rows = ["filename\tacq_time", *(f"{name}\t{day}" for name, day in images.items())]

    def days() -> float | None:
        (scan,) = find_participants(dataset)[0].scans
        plan = plan_frames((1, 1, 1, scan.n_frames), scan.pet_metadata)
        return known_figures(scan, plan).get("DaysBetweenPETAndT1w")

    assert days() is None
    (dataset / "sub-01" / "sub-01_scans.tsv").write_text("\n".join(rows) + "\n")
    assert days() == 60
