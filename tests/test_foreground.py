from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tau_pipeline.imaging.foreground import box_around, center_of, closer_than, distance_to, largest_object


def test_the_larger_of_two_bright_pieces_is_found_and_dim_voxels_are_not():
    image = np.zeros((9, 9, 9))
    image[1:3, 1:3, 1:3] = 5
    image[4:8, 4:8, 4:8] = 3
    image[8, 8, 8] = 3  # touches the cube at a corner only
    expected = np.zeros(image.shape, bool)
    expected[4:8, 4:8, 4:8] = True
    assert np.array_equal(largest_object(image, 2.0), expected)
    assert largest_object(image, 4.0).sum() == 8


def test_an_image_without_bright_voxels_has_no_object():
    assert not largest_object(np.ones((3, 3, 3)), 1.0).any()


@pytest.mark.parametrize("reach", [1.0, 1.5, 2.1, 3.0, 6.0, 10.0])
def test_what_is_near_a_mask_is_what_the_distance_transform_has_below_the_reach(reach):
    mask = np.random.default_rng(4).random((31, 5, 24)) < 0.003
    np.testing.assert_array_equal(closer_than(mask, reach), ndimage.distance_transform_edt(~mask) < reach)
    assert not closer_than(np.zeros((4, 4, 4), bool), reach).any()


def test_distances_slice_by_slice_are_those_of_the_distance_transform():
    mask = np.random.default_rng(5).random((11, 14, 17)) < 0.01
    voxel_mm = np.array([0.8, 1.1, 2.5])
    expected = ndimage.distance_transform_edt(~mask, sampling=voxel_mm)
    np.testing.assert_allclose(distance_to(mask, voxel_mm), expected, rtol=1e-6)


def test_a_reach_that_would_overflow_is_refused():
    with pytest.raises(ValueError, match="10 at most"):
        closer_than(np.ones((3, 3, 3), bool), 11)


def test_the_center_of_a_mask_is_the_mean_of_its_voxels_in_the_world():
    mask = np.random.default_rng(6).random((7, 8, 9)) < 0.4
    affine = np.array([[0, -2.0, 0, 400], [1.5, 0, 0.3, -7], [0, 0, 3, 1], [0, 0, 0, 1]])
    expected = (np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]).mean(axis=0)
    np.testing.assert_allclose(center_of(mask, affine), expected)


def test_the_box_around_a_mask_has_the_room_that_was_asked_for_as_far_as_the_image_reaches():
    mask = np.zeros((20, 12, 9), bool)
    mask[6, 2:4, 5] = mask[9, 3, 4] = True
    assert box_around(mask, np.zeros(3)) == (slice(6, 10), slice(2, 4), slice(4, 6))
    assert box_around(mask, np.array([1.2, 4, 9])) == (slice(4, 12), slice(0, 8), slice(0, 15))
    assert mask[box_around(mask, np.array([1.2, 4, 9]))].sum() == mask.sum()
