from __future__ import annotations

import numpy as np

from tau_pipeline.imaging.foreground import largest_object


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
