"""Tissue of one visit, measured against the median of all visits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import expit

from tau_pipeline.anatomy.visit_tissue import segment_visit, visit_scale
from tau_pipeline.errors import GridMismatchError
from tau_pipeline.imaging.volume import image_on

SHAPE = (76, 76, 76)
#: Radii of white matter and of gray matter around it, mm: a cortex of 4 mm, so that some of it is pure.
WHITE_MM, GRAY_MM = 24.0, 28.0
RADIUS = np.sqrt(sum((axis - 37.5) ** 2 for axis in np.indices(SHAPE))).astype(np.float32)
INSIDE = RADIUS < 34


def brain(lost_mm: float = 0.0, *, one_side: bool = False) -> np.ndarray:
    """Return the scale of a ball: 2 in white matter, 1 in gray matter, 0 in fluid, with boundaries 1 mm wide."""
    lost = np.where(np.indices(SHAPE)[0] > 37.5, lost_mm, 0) if one_side else lost_mm
    return (expit((GRAY_MM - lost - RADIUS) / 0.4) + expit((WHITE_MM - RADIUS) / 0.4)).astype(np.float32)


def noisy(scale: np.ndarray, sd: float, seed: int = 0) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, SHAPE), 0.7)
    return (scale + sd * noise / noise.std()).astype(np.float32)


def outer_radius(scale: np.ndarray, where: np.ndarray = INSIDE) -> float:
    """Return the radius of the ball that a part of the head is of, from the volume of what is not fluid."""
    share = np.clip(scale, 0, 1)[where].sum() / np.clip(brain(), 0, 1)[where].sum()
    return float(GRAY_MM * np.cbrt(share))


def test_a_visit_like_the_median_changes_nothing():
    np.testing.assert_allclose(visit_scale(brain(), brain(), INSIDE), brain(), atol=1e-6)


@pytest.mark.parametrize("lost_mm", [0.3, -0.2])
def test_a_boundary_that_moved_is_found_where_it_is_now(lost_mm):
    found = visit_scale(noisy(brain(lost_mm), 0.15), brain(), INSIDE)
    assert outer_radius(found) == pytest.approx(outer_radius(brain(lost_mm)), abs=0.15 * abs(lost_mm))


def test_only_the_side_that_moved_is_changed():
    found = visit_scale(brain(0.4, one_side=True), brain(), INSIDE)
    x = np.indices(SHAPE)[0]
    # The kernel reaches some millimeters over the middle.
    changed, same = INSIDE & (x > 47), INSIDE & (x < 28)
    assert outer_radius(found, changed) == pytest.approx(GRAY_MM - 0.4, abs=0.08)
    assert outer_radius(found, same) == pytest.approx(GRAY_MM, abs=0.02)


def test_noise_hardly_moves_boundaries():
    own = noisy(brain(), 0.2)
    found = visit_scale(own, brain(), INSIDE)
    near = INSIDE & (np.abs(RADIUS - GRAY_MM) < 2)
    assert np.abs(found - brain())[near].std() < 0.15 * np.abs(own - brain())[near].std()


@pytest.mark.parametrize("offset", [0.12, -0.12])
def test_another_contrast_does_not_move_boundaries(offset):
    """Gray matter is brighter or darker than at the other visits, as by another protocol."""
    gray_part = np.minimum(np.clip(brain(), 0, 1), np.clip(2 - brain(), 0, 1))
    own = brain() + offset * gray_part
    found = visit_scale(own.astype(np.float32), brain(), INSIDE)
    true = np.count_nonzero(brain()[INSIDE] > 1.5)
    changed = [np.count_nonzero(one[INSIDE] > 1.5) - true for one in (own, found)]
    assert abs(outer_radius(found) - GRAY_MM) < 0.35 * abs(outer_radius(own) - GRAY_MM)
    assert abs(changed[1]) <= 0.35 * abs(changed[0])


def test_a_halfway_image_on_another_grid_is_refused():
    image, other = (image_on(np.ones(shape, np.float32), np.eye(4)) for shape in ((5, 5, 5), (5, 5, 6)))
    with pytest.raises(GridMismatchError, match="halfway"):
        segment_visit(image, other, image, image)
