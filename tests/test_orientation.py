"""Orientation of a head, and the grid that follows from it."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy import ndimage

from tau_pipeline.anatomy import orientation
from tau_pipeline.anatomy.grid import working_grid
from tau_pipeline.anatomy.orientation import head_orientation
from tau_pipeline.imaging.resample import resample_onto_data
from tau_pipeline.imaging.transforms import quarter_turns, rotation_matrix
from tau_pipeline.imaging.volume import image_like, image_on


@functools.cache
def brain(spacing=4.0):
    """A lopsided brain with ventricles in front of its center and a cerebellum, and its mask."""
    shape = (40, 48, 40)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    x, y, z = (np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]).transpose(3, 0, 1, 2)
    cerebrum = (x / 62) ** 2 + (y / 82) ** 2 + (z / 52) ** 2 < 1
    cerebellum = (x / 45) ** 2 + ((y + 55) / 28) ** 2 + ((z + 45) / 25) ** 2 < 1
    ventricle = (x / 18) ** 2 + ((y - 12) / 30) ** 2 + ((z - 10) / 12) ** 2 < 1
    inside = cerebrum | cerebellum
    data = 100.0 * inside - 80.0 * (ventricle & cerebrum) - 25.0 * cerebellum
    return image_on(ndimage.gaussian_filter(data, 0.7) * inside, affine), image_on(inside, affine)


@pytest.mark.parametrize("number", range(24))
def test_each_quarter_turn_of_a_head_is_found_wherever_it_lies(number, monkeypatch):
    if number:  # the points of one turn are as close as they are for a head
        monkeypatch.setattr(orientation, "_STEP_MM", 16.0)
    template, mask = brain()
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = quarter_turns()[number], (400, -900, 50)
    head = image_on(np.asanyarray(template.dataobj), turn @ template.affine)
    found = head_orientation(head, image_on(np.asanyarray(mask.dataobj), turn @ mask.affine), template)
    np.testing.assert_array_equal(found.frame[:3, :3], quarter_turns()[number].T)
    assert found.correlation > 0.95
    # the template lies on the head: to and fro is no motion
    np.testing.assert_allclose(found.frame @ turn, found.template_to_frame, atol=1.0)


def test_a_turned_head_gives_the_same_values_on_the_working_grid():
    template, mask = brain()
    expected = resample_onto_data(template, working_grid(mask, 3.0))
    for turned in quarter_turns():
        turn = np.eye(4)
        turn[:3, :3], turn[:3, 3] = turned, (12.5, -700, 3)
        head, inside = (image_on(np.asanyarray(one.dataobj), turn @ one.affine) for one in (template, mask))
        upright = np.eye(4)
        upright[:3, :3] = turned.T
        grid = working_grid(inside, 3.0, upright)
        np.testing.assert_allclose(resample_onto_data(head, grid), expected, atol=1e-3)


def test_an_oblique_head_far_from_the_origin_gives_the_same_values_to_the_last_bit():
    """Headers hold places in single precision: 900 mm away, to 0.00006 mm."""
    rng = np.random.default_rng(5)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = 0.7 * rotation_matrix(7, -2, 1.5), (-11.3, 4.1, 7.7)
    data = rng.normal(size=(31, 28, 26)).astype(np.float32)
    inside = np.zeros(data.shape, np.uint8)
    inside[5:26, 4:24, 3:20] = 1
    found = []
    for turned, shift_mm in ((np.eye(3), 0.0), (quarter_turns()[5], 900.3), (quarter_turns()[14], -433.7)):
        moved, upright = np.eye(4), np.eye(4)
        moved[:3, :3], moved[:3, 3], upright[:3, :3] = turned, shift_mm, turned.T
        head, mask = (image_on(one, moved @ affine) for one in (data, inside))
        grid = working_grid(mask, upright=upright)
        there = resample_onto_data(head, grid)
        found.append((there, resample_onto_data(image_like(there, grid), head, order=0)))
    for there, back in found[1:]:
        np.testing.assert_array_equal(there, found[0][0])
        np.testing.assert_array_equal(back, found[0][1])
