"""Registration by greedy: right wherever the world's origin is, silent, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tau_pipeline.errors import RegistrationError
from tau_pipeline.imaging import greedy
from tau_pipeline.imaging.greedy import Schedule, register_deformable, register_linear
from tau_pipeline.imaging.transforms import displacement_mm, quarter_turns, rotation_matrix, tilts
from tau_pipeline.imaging.volume import image_on

SHAPE = (24, 28, 22)


def blobs(seed=0):
    """Smooth random image in an ellipsoid, and the ellipsoid, on 3 mm voxels with the origin in the middle."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -1.5 * np.array(SHAPE)
    at = (np.indices(SHAPE) - (np.array(SHAPE).reshape(3, 1, 1, 1) - 1) / 2) / np.array([9, 11, 8]).reshape(3, 1, 1, 1)
    inside = (at**2).sum(axis=0) < 1
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.5)
    data = (noise - noise.min()) / np.ptp(noise) * 100 * ndimage.gaussian_filter(inside.astype(float), 1)
    return image_on(data.astype(np.float32), affine), image_on(inside, affine)


def offset():
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = rotation_matrix(6, -4, 5), (4, -3, 5)
    return move


def linear(moving, fixed, mask, start=None):
    begin = np.eye(4) if start is None else start
    return register_linear(moving, fixed, mask, begin, degrees_of_freedom=6, schedule=Schedule("NMI", (60, 40)))


@pytest.mark.parametrize("far", [0.0, 1000.0])
def test_a_rigid_transform_is_found_wherever_the_origins_are(far):
    fixed, mask = blobs()
    there = np.eye(4)
    there[:3, 3] = (far, -far, far / 2)
    moved = offset()
    moving = image_on(np.asanyarray(fixed.dataobj), there @ moved @ fixed.affine)
    start = np.linalg.inv(there)  # as if a search had brought the two near each other
    points = np.random.default_rng(0).uniform(-25, 25, (50, 3))
    found = linear(moving, fixed, mask, start) @ there
    assert displacement_mm(found, np.linalg.inv(moved), points).max() < 0.3


def test_equal_calls_give_equal_transforms_and_print_nothing(capfd):
    fixed, mask = blobs()
    moving = image_on(np.asanyarray(fixed.dataobj), offset() @ fixed.affine)
    np.testing.assert_array_equal(linear(moving, fixed, mask), linear(moving, fixed, mask))
    assert capfd.readouterr() == ("", "")


def test_a_failure_of_greedy_is_a_registration_error():
    fixed, mask = blobs()
    with pytest.raises(RegistrationError, match="greedy could not register"):
        register_linear(
            fixed, fixed, mask, np.eye(4), degrees_of_freedom=6, schedule=Schedule("NMI -no-such-option", (5,))
        )


def test_a_deformation_is_found_and_its_inverse_undoes_it_with_any_number_of_threads():
    fixed, mask = blobs()
    along = 2.0 * np.sin(np.arange(SHAPE[1]) / SHAPE[1] * 2 * np.pi)  # voxels
    at = np.indices(SHAPE).astype(float)
    at[0] += along.reshape(1, -1, 1)
    moving = image_on(ndimage.map_coordinates(np.asanyarray(fixed.dataobj), at, order=1), fixed.affine)
    schedule = Schedule("NCC 2x2x2", (60, 40), "1.5vox 0.5vox")
    fields = [
        register_deformable(moving, fixed, mask, np.eye(4), schedule=schedule, threads=threads) for threads in (1, 2, 4)
    ]
    warp, *others = (greedy.displacements(field) for field in fields)
    for other in others:
        np.testing.assert_array_equal(warp, other)
    inverse = greedy.displacements(greedy.inverse_of(fields[0]))
    inside = ndimage.binary_erosion(np.asanyarray(mask.dataobj) > 0, iterations=2)
    # fixed(x) = moving(x + u) and moving(x) = fixed(x + along), so that u is -along; LPS turns the sign, 3 mm a voxel
    expected = np.broadcast_to(3 * along.reshape(1, -1, 1), SHAPE)[inside]
    assert np.median(np.abs(warp[inside][:, 0] - expected)) < 1.0
    assert np.median(np.abs(warp[inside][:, 1:])) < 0.7
    lps = np.diag([-1.0, -1.0, 1.0]) @ fixed.affine[:3, :3]
    beyond = np.argwhere(inside) + warp[inside] @ np.linalg.inv(lps).T
    back = np.stack([ndimage.map_coordinates(inverse[..., k], beyond.T, order=1) for k in range(3)], axis=-1)
    assert np.abs(warp[inside] + back).mean() < 0.1
    # from each voxel by the inverse and back by the warp, which is what the inverse is made for
    beyond = np.argwhere(inside) + inverse[inside] @ np.linalg.inv(lps).T
    there = np.stack([ndimage.map_coordinates(warp[..., k], beyond.T, order=1) for k in range(3)], axis=-1)
    assert np.abs(inverse[inside] + there).max() < 0.02


def test_the_24_quarter_turns_are_a_group_and_the_tilts_go_with_it():
    turns = quarter_turns()
    known = {turn.tobytes() for turn in turns}
    assert len(known) == 24
    np.testing.assert_array_equal(turns[0], np.eye(3))
    assert all((one @ other + 0.0).tobytes() in known for one in turns for other in turns)
    some = tilts(25.0)
    assert len(some) == 27
    for turn in turns:
        turned = [turn @ tilt @ turn.T for tilt in some]
        assert all(min(np.abs(one - other).max() for other in some) < 1e-9 for one in turned)
