"""Rigid registration gives the same fit wherever the worlds of both images lie and whichever way their axes point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tau_pipeline.imaging.rigid import register_rigid
from tau_pipeline.imaging.transforms import displacement_mm, quarter_turns, rotation_matrix
from tau_pipeline.imaging.volume import Affine, Volume, image_like, image_on

pytestmark = pytest.mark.slow

#: Place of the PET's own world in the T1w's: what is to be found.
TRUE = np.eye(4)
TRUE[:3, :3], TRUE[:3, 3] = rotation_matrix(4, -6, 9), (5, -8, 4)


@st.composite
def worlds(draw: st.DrawFn) -> Affine:
    """One of the 24 quarter turns, then a shift of up to 1,000 mm along each axis."""
    moved = np.eye(4)
    moved[:3, :3] = draw(st.sampled_from(quarter_turns()))
    moved[:3, 3] = [draw(st.floats(-1000, 1000)) for _ in range(3)]
    return moved


def head() -> tuple[Volume, Volume, Volume]:
    """T1w and PET of one made-up head with voxels of 4 mm, and the brain mask; `TRUE` brings the PET to the T1w."""
    t1w_grid, pet_grid = (_grid(half_mm) for half_mm in ((52, 66, 50), (64, 78, 62)))
    inside, tissue = _drawn(_points(t1w_grid))
    in_pet, uptake = _drawn(_points(pet_grid) @ TRUE[:3, :3].T + TRUE[:3, 3])
    t1w, pet = 100.0 * inside * (2 + np.tanh(tissue)), 1000.0 * in_pet * (2 - np.tanh(uptake))
    return image_like(t1w, t1w_grid), image_like(pet, pet_grid), image_like(inside > 0.5, t1w_grid)


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


@pytest.fixture(scope="module")
def at_home() -> Affine:
    """Transform that is found where neither world is moved."""
    t1w, pet, mask = head()
    return register_rigid(pet, t1w, mask).matrix


def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-25, 25, (100, 3))


def test_the_offset_between_the_images_is_found(at_home):
    assert displacement_mm(at_home, TRUE, points()).mean() < 1.5


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(of_t1w=worlds(), of_pet=worlds())
def test_any_worlds_give_the_same_fit(at_home, of_t1w, of_pet):
    t1w, pet, mask = head()
    t1w, mask = (image_on(np.asanyarray(one.dataobj), of_t1w @ one.affine) for one in (t1w, mask))
    found = register_rigid(image_on(np.asanyarray(pet.dataobj), of_pet @ pet.affine), t1w, mask)
    back = np.linalg.inv(of_t1w) @ found.matrix @ of_pet
    assert displacement_mm(back, at_home, points()).max() < 0.02
