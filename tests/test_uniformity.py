"""Values of a PET: an offset of the background and scales of slices are found on a head of known values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from tau_pipeline.anatomy.brain_mask import cut_note
from tau_pipeline.derivatives.quality_checks import BY_NAME
from tau_pipeline.imaging.volume import Affine, Volume, image_on
from tau_pipeline.measures.quality_figures import cut_area
from tau_pipeline.pet.uniformity import describe, same_maximum, value_figures

SHAPE, SIZE_MM = (56, 60, 48), 4.0


@dataclass(frozen=True)
class Head:
    pet: Volume
    t1w: Volume
    mask: Volume
    xfm: Affine

    def figures(self, pet: np.ndarray, *, fits: bool = True) -> dict[str, float]:
        return value_figures(image_on(pet, self.pet.affine), self.t1w, self.mask, self.xfm, fits=fits)

    @property
    def values(self) -> np.ndarray:
        return np.asanyarray(self.pet.dataobj).copy()


@pytest.fixture(scope="module", params=[(0, 1, 2), (2, 0, 1)], ids=["axial", "sagittal"])
def head(request: pytest.FixtureRequest) -> Head:
    """An ellipsoid of two tissues in a scalp, activity with a slope along the axis, noise of 3 %; and its world."""
    rng = np.random.default_rng(5)
    at = (np.moveaxis(np.indices(SHAPE), 0, -1) - (np.array(SHAPE) - 1) / 2) * SIZE_MM
    brain = ((at / [68, 85, 62]) ** 2).sum(-1) < 1
    scalp = ((at / [80, 97, 74]) ** 2).sum(-1) < 1
    white = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.0) > 0
    t1w = np.where(brain, np.where(white, 1.0, 0.66), 0.3 * scalp).astype(np.float32)
    uptake = np.where(brain, np.where(white, 1.0, 1.3) * (1 + at[..., 2] / 400), 0.4 * scalp)
    pet = 4000 * ndimage.gaussian_filter(uptake, 6 / 2.355 / SIZE_MM) * rng.normal(1, 0.03, SHAPE)
    pet[pet < 1] = 0
    affine = np.diag([SIZE_MM] * 3 + [1.0])
    order = request.param
    turned = affine[:, [*order, 3]]
    xfm = np.eye(4)
    xfm[:3, 3] = [3.0, -2.0, 4.0]
    back = np.linalg.inv(xfm)
    return Head(
        image_on(pet.transpose(order).astype(np.float32), back @ turned),
        image_on(t1w, affine),
        image_on(brain.astype(np.uint8), affine),
        xfm,
    )


def along_axis(head: Head, scale: np.ndarray) -> np.ndarray:
    """Scales of slices as an array that multiplies the PET."""
    axis = int(np.argmax(np.abs(head.pet.affine[2, :3])))
    return np.expand_dims(scale, tuple(other for other in range(3) if other != axis))


def verdicts(figures: dict[str, float]) -> dict[str, str]:
    names = ("air_percent", "slice_step_percent", "slice_same_maximum_percent")
    return {name: BY_NAME[name].judge(BY_NAME[name].value(figures)) for name in names}


def test_a_good_scan_passes_without_a_word(head: Head) -> None:
    figures = head.figures(head.values) | same_maximum(head.pet, [0])
    assert set(verdicts(figures).values()) == {"pass"}
    assert describe(figures) == []
    assert verdicts(head.figures(head.values, fits=False))["slice_step_percent"] == "pass"


@pytest.mark.parametrize("offset", [1000.0, 4000.0, -800.0])
def test_an_offset_is_found_in_the_air(head: Head, offset: float) -> None:
    inside = head.values[head.values > 2000].mean()
    figures = head.figures(head.values + offset)
    assert figures["AirActivity"] == pytest.approx(offset / (inside + offset), rel=0.1)
    assert verdicts(figures)["air_percent"] == "fail"
    assert "background" in describe(figures)[0]


@pytest.mark.parametrize("neck", [slice(0, 7), slice(-7, None)], ids=["below", "above"])
def test_a_warm_neck_is_no_offset_at_whichever_end_of_the_world_it_is(head: Head, neck: slice) -> None:
    warm = np.zeros(SHAPE[2])
    warm[neck] = 1500
    assert verdicts(head.figures(head.values + along_axis(head, warm)))["air_percent"] == "pass"


def test_the_brain_beyond_the_end_of_a_t1w_is_no_air(head: Head) -> None:
    """Most of it: what the T1w does not show is no background of the PET."""
    slab = np.s_[:, :, :16]
    t1w, mask = (image_on(np.asanyarray(one.dataobj)[slab], one.affine) for one in (head.t1w, head.mask))
    # A tight field of view, but at the top.
    room = {0: slice(13, -13), 1: slice(12, -12), 2: slice(11, 34)}
    pet = head.pet.slicer[tuple(room[int(np.argmax(np.abs(column)))] for column in head.pet.affine[:3, :3].T)]
    figures = value_figures(pet, t1w, mask, head.xfm)
    assert BY_NAME["air_percent"].judge(BY_NAME["air_percent"].value(figures)) in ("pass", "n/a")
    assert describe(figures) == []
    areas = [cut_area(one, np.ones(one.shape, bool))["BrainCutArea"] for one in (mask, head.mask)]
    (note,) = cut_note(areas[0])
    assert "cut off" in note
    assert cut_note(areas[1]) == []


@pytest.mark.parametrize("fwhm_mm", [8.0, 12.0])
def test_fluid_around_the_brain_that_a_mask_includes_is_no_step(head: Head, fwhm_mm: float) -> None:
    """8 mm of it: the T1w does not change there, but the blur of the scanner lowers the PET from slice to slice."""
    at = (np.moveaxis(np.indices(SHAPE), 0, -1) - (np.array(SHAPE) - 1) / 2) * SIZE_MM
    brain, mask, scalp = (((at / (np.array([68, 85, 62]) + more)) ** 2).sum(-1) < 1 for more in (0, 8, 14))
    t1w = np.where(mask & ~brain, 0.3, np.where(brain, np.asanyarray(head.t1w.dataobj), 0.3 * scalp))
    uptake = np.where(brain, np.where(t1w > 0.8, 1.0, 1.3), 0.4 * scalp)
    noise = np.random.default_rng(5).normal(1, 0.03, SHAPE)
    pet = 4000 * ndimage.gaussian_filter(uptake, fwhm_mm / 2.355 / SIZE_MM) * noise
    grid = head.mask.affine
    images = (image_on(one.astype(np.float32), grid) for one in (pet, t1w, mask))
    assert value_figures(*images, np.eye(4))["SliceStep"] < 0.05


@pytest.mark.parametrize("place", [20, 24, 30])
def test_a_step_between_two_beds_is_found_wherever_it_is(head: Head, place: int) -> None:
    scale = np.where(np.arange(SHAPE[2]) >= place, 1.2, 1.0)
    figures = head.figures(head.values * along_axis(head, scale))
    assert figures["SliceStep"] == pytest.approx(0.2, abs=0.03)
    assert verdicts(figures)["slice_step_percent"] == "fail"
    assert "bed position" in describe(figures)[0]


@pytest.mark.parametrize("end", ["low", "high"])
def test_a_step_between_two_beds_is_found_in_the_last_slices_with_enough_tissue(head: Head, end: str) -> None:
    """The outermost 8 to 12 mm of the brain hold too little tissue; the next pair of slices is enough."""
    lowest = int(np.flatnonzero(np.asanyarray(head.mask.dataobj).any(axis=(0, 1)))[0 if end == "low" else -1])
    place = lowest + 3 if end == "low" else lowest - 2
    scale = np.where((np.arange(SHAPE[2]) >= place) == (end == "low"), 1.0, 1.25)
    assert verdicts(head.figures(head.values * along_axis(head, scale)))["slice_step_percent"] == "fail"


def test_wide_voxels_hide_no_step_near_the_end(head: Head) -> None:
    """It is the area of tissue that counts, and not the number of voxels that it has."""
    axis = int(np.argmax(np.abs(head.pet.affine[2, :3])))
    width = [1 if one == axis else 4 for one in range(3)]
    pet = head.pet.slicer[tuple(slice(0, size - size % wide) for size, wide in zip(head.pet.shape, width, strict=True))]
    inner = [part for size, wide in zip(pet.shape, width, strict=True) for part in (size // wide, wide)]
    grid = pet.affine @ np.diag([*width, 1.0])
    grid[:3, 3] += pet.affine[:3, :3] @ ((np.array(width) - 1) / 2)
    averaged = np.asanyarray(pet.dataobj).reshape(inner).mean(axis=(1, 3, 5))
    lowest = int(np.flatnonzero(np.asanyarray(head.mask.dataobj).any(axis=(0, 1)))[0])
    for place, verdict in ((0, "pass"), (lowest + 4, "fail")):
        scale = along_axis(head, np.where(np.arange(SHAPE[2]) >= place, 1.2, 1.0))
        figures = value_figures(image_on(averaged * scale, grid), head.t1w, head.mask, head.xfm)
        assert verdicts(figures)["slice_step_percent"] == verdict


def test_one_slope_that_is_lost_is_found(head: Head) -> None:
    for place in (16, 24, 32):
        scale = np.where(np.arange(SHAPE[2]) == place, 1.25, 1.0)
        assert verdicts(head.figures(head.values * along_axis(head, scale)))["slice_step_percent"] == "fail"


def test_slopes_of_slices_are_missed(head: Head) -> None:
    axis = int(np.argmax(np.abs(head.pet.affine[2, :3])))
    others = tuple(other for other in range(3) if other != axis)
    stored = np.round(32767 * head.values / np.maximum(head.values.max(axis=others, keepdims=True), 1e-3))
    dynamic = image_on(np.stack([head.values, stored], -1).astype(np.float32), head.pet.affine)
    assert same_maximum(dynamic, [0])["SlicesOfOneMaximum"] < 0.1
    figures = same_maximum(dynamic, [0, 1])
    assert figures["SlicesOfOneMaximum"] == 1
    assert "slope" in describe(figures)[0]
    uneven = np.random.default_rng(1).uniform(0.5, 2, SHAPE[2])
    for fits in (True, False):
        assert verdicts(head.figures(head.values * along_axis(head, uneven), fits=fits))["slice_step_percent"] == "fail"


def test_what_cannot_be_measured_is_left_out(head: Head) -> None:
    nothing = np.zeros(head.pet.shape, np.float32)
    assert head.figures(nothing) == {}
    assert same_maximum(image_on(nothing, head.pet.affine), [0]) == {}
    assert describe({}) == []
