"""Fit and table are the same wherever the worlds of T1w and PET lie and whichever way their axes point."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tau_pipeline.atlas import CORTICAL_NUMBERS
from tau_pipeline.imaging.transforms import displacement_mm, quarter_turns, rotation_matrix
from tau_pipeline.imaging.volume import Affine, Volume, image_like, image_on
from tau_pipeline.measures.regions import regional_table
from tau_pipeline.pet.coregister import coregister
from tau_pipeline.pet.frames import FramePlan, Window
from tau_pipeline.pet.motion import correct_motion, static_image
from tau_pipeline.pet.quantification import pet_on_t1w, suvr

pytestmark = pytest.mark.slow

#: Place of the PET's own world in the T1w's, which is to be found, and the motion of the head after the first frame.
TRUE, MOTION = np.eye(4), np.eye(4)
TRUE[:3, :3], TRUE[:3, 3] = rotation_matrix(4, -6, 9), (5, -8, 4)
MOTION[:3, :3], MOTION[:3, 3] = rotation_matrix(1, 2, -1), (1.5, -1, 2)


@st.composite
def worlds(draw: st.DrawFn) -> Affine:
    """One of the 24 quarter turns, then a shift of up to 1,000 mm along each axis."""
    moved = np.eye(4)
    moved[:3, :3] = draw(st.sampled_from(quarter_turns()))
    moved[:3, 3] = [draw(st.floats(-1000, 1000)) for _ in range(3)]
    return moved


@cache
def head() -> tuple[Volume, Volume, Volume]:
    """T1w, PET with two frames, and labels of a made-up head on voxels of 4 mm; `TRUE` brings the PET to the T1w."""
    t1w_grid, pet_grid = (_grid(half_mm) for half_mm in ((52, 66, 50), (64, 78, 62)))
    at = _points(t1w_grid)
    inside, tissue = _drawn(at)
    frames = []
    for moved in (np.eye(4), MOTION):
        pose = TRUE @ np.linalg.inv(moved)
        in_pet, uptake = _drawn(_points(pet_grid) @ pose[:3, :3].T + pose[:3, 3])
        frames.append(1000.0 * in_pet * (2 - np.tanh(uptake)))
    octant = (at > [0, -10, 0]) @ [1, 2, 4]
    labels = np.where(inside > 0.5, np.add(CORTICAL_NUMBERS, 1000)[octant], 0)
    t1w = image_like(100.0 * inside * (2 + np.tanh(tissue)), t1w_grid)
    return t1w, image_like(np.stack(frames, axis=-1), pet_grid), image_like(labels.astype(np.int16), t1w_grid)


def _grid(half_mm: tuple[int, int, int]) -> Volume:
    """An empty grid of voxels of 4 mm about the origin."""
    shape = tuple(half // 2 for half in half_mm)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -2.0 * (np.array(shape) - 1)
    return image_on(np.zeros(shape, np.uint8), affine)


def _points(grid: Volume) -> np.ndarray:
    return np.moveaxis(np.indices(grid.shape), 0, -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def _drawn(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brain with a soft edge, 0 to 1, and a pattern without symmetry inside it, at points ``(I, J, K, 3)``."""
    rng = np.random.default_rng(2)
    # two lobes, of which neither lies in the middle: no turn brings the outline near itself
    lobes = (((-4, 10, 4), (34, 40, 30)), ((16, -32, -20), (20, 22, 18)))
    distance = np.min([np.linalg.norm((points - center) / radii, axis=-1) for center, radii in lobes], axis=0)
    inside = 1 / (1 + np.exp(20 * (distance - 1)))
    pattern = np.zeros(points.shape[:3])
    for center, sign in zip(rng.uniform(-1, 1, (25, 3)) * [32, 44, 31], rng.choice([-1, 1], 25), strict=True):
        pattern += sign * np.exp(-((points - center) ** 2).sum(axis=-1) / (2 * 10.0**2))
    return inside, pattern


def result(of_t1w: Affine, of_pet: Affine, moving: bool) -> tuple[Affine, pd.Series]:
    """Transform between the worlds before they were moved, and the mean SUVR of each region."""
    t1w, pet, labels = (
        image_on(np.asanyarray(one.dataobj), moved @ one.affine)
        for one, moved in zip(head(), (of_t1w, of_pet, of_t1w), strict=True)
    )
    count = 2 if moving else 1
    plan = FramePlan(tuple(range(count)), (1 / count,) * count, (), (), Window(80, 100, "made up"), ())
    motion = correct_motion(pet, plan)
    numbers = np.asanyarray(labels.dataobj)
    found = coregister(static_image(pet, plan, motion), t1w, image_like(numbers > 0, t1w))
    activity = pet_on_t1w(pet, plan, motion.frame_xfms, found.matrix, t1w)
    reference = image_like(numbers == 1000 + CORTICAL_NUMBERS[0], t1w)
    ratio = suvr(np.asanyarray(activity.dataobj), np.asanyarray(reference.dataobj) > 0)
    table = regional_table(image_like(ratio, t1w), labels, reference, "made up", {})
    seen = table[(table["kind"] == "cortical") & (table["n_voxels"] > 0)].set_index("region")
    return np.linalg.inv(of_t1w) @ found.matrix @ of_pet, seen["suvr_mean"]


@cache
def at_home(moving: bool) -> tuple[Affine, pd.Series]:
    """Result where neither world is moved."""
    return result(np.eye(4), np.eye(4), moving)


def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-25, 25, (100, 3))


@pytest.mark.parametrize("moving", [False, True])
def test_the_offset_between_the_images_is_found(moving):
    matrix, means = at_home(moving)
    # The frame in the middle of the two is the second one.
    expected = TRUE @ np.linalg.inv(MOTION) if moving else TRUE
    assert displacement_mm(matrix, expected, points()).mean() < 1.5
    assert means.size == 8
    assert np.ptp(means) > 0.1


@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
@given(of_t1w=worlds(), of_pet=worlds(), moving=st.booleans())
def test_any_worlds_give_the_same_fit_and_table(of_t1w, of_pet, moving):
    matrix, means = result(of_t1w, of_pet, moving)
    home, expected = at_home(moving)
    # Errors of the motion and of the coregistration add up.
    assert displacement_mm(matrix, home, points()).max() < (0.05 if moving else 0.02)
    pd.testing.assert_series_equal(means, expected, rtol=1e-3)
