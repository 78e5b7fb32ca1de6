"""Orientation of a head, whatever the header says of its axes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.imaging.foreground import center_of
from tau_pipeline.imaging.resample import Mask
from tau_pipeline.imaging.transforms import quarter_turns, tilts
from tau_pipeline.imaging.volume import (
    Affine,
    Volume,
    finite,
    image_like,
    image_on,
    voxel_size_mm,
    voxel_volume_mm3,
)

#: Distance between the points at which two brains are compared, and how much both are smoothed for it, mm.
_STEP_MM = 8.0
_SMOOTHING_SD_MM = 4.0
#: Heads nod and turn by as much without a wrong header, degrees.
_TILT_DEG = 20.0


@dataclass(frozen=True)
class HeadOrientation:
    """Orientation and place of a head.

    Attributes
    ----------
    frame
        ``(4, 4)``, the T1w's world to a world with its origin in the brain's center of mass and its axes, by quarter
        turns, nearest to the template's. RAS+ mm.
    template_to_frame
        ``(4, 4)``, where the template's brain comes to lie in that world: a rotation, a scale, and a shift.
    correlation
        Of the brain's and the template's intensities there: about 0.8 in heads that lie as found.
    """

    frame: Affine
    template_to_frame: Affine
    correlation: float


def head_orientation(t1w: Volume, mask: Volume, template: Volume) -> HeadOrientation:
    """Find out which way a head lies, by the correlation of its brain with the template's in 24 turns and some tilts.

    Parameters
    ----------
    t1w
        ``(I, J, K)``, full head or stripped.
    mask
        Brain mask on the same grid.
    template
        Brain of the template without skull, RAS+.
    """
    inside, of_model = (np.asanyarray(one.dataobj) > 0 for one in (mask, template))
    center, size = _center_and_size(inside, mask)
    center_of_model, size_of_model = _center_and_size(of_model, template)
    scale = size / size_of_model
    brain = _smoothed(_cropped(image_like(finite(np.asanyarray(t1w.dataobj)) * inside, mask), inside))
    model = _smoothed(template)
    offsets = _points_in(model) - center_of_model
    values = _at(model, offsets + center_of_model)
    best, turn, tilt = -2.0, np.eye(3), np.eye(3)
    for a_turn, a_tilt in product(quarter_turns(), tilts(_TILT_DEG)):
        # from the template to the frame by the tilt, from the frame to the T1w's world by the turn undone
        seen = _at(brain, scale * offsets @ a_tilt.T @ a_turn + center)
        correlation = float(np.corrcoef(values, seen)[0, 1]) if seen.std() > 0 else -1.0
        if correlation > best + 1e-6:
            best, turn, tilt = correlation, a_turn, a_tilt
    frame, start = np.eye(4), np.eye(4)
    frame[:3, :3], frame[:3, 3] = turn, -turn @ center
    start[:3, :3] = scale * tilt
    start[:3, 3] = -start[:3, :3] @ center_of_model
    return HeadOrientation(frame, start, best)


def _center_and_size(inside: Mask, img: Volume) -> tuple[NDArray[np.float64], float]:
    """Center of mass in the world, mm, and the cube root of the volume, mm."""
    return center_of(inside, img.affine), float(np.cbrt(np.count_nonzero(inside) * voxel_volume_mm3(img)))


def _cropped(img: Volume, inside: Mask) -> Volume:
    """Return the part of an image around its brain, with room for `_smoothed`; there is nothing outside of it."""
    room = np.ceil(5 * _SMOOTHING_SD_MM / voxel_size_mm(img)).astype(int)
    (box,) = ndimage.find_objects(inside.astype(np.uint8))
    return img.slicer[
        tuple(slice(max(0, ends.start - r), ends.stop + r) for ends, r in zip(box, room.tolist(), strict=True))
    ]


def _smoothed(img: Volume) -> Volume:
    """Image smoothed by `_SMOOTHING_SD_MM`, on voxels of about 2 mm."""
    block = np.maximum(1, np.round(2.0 / voxel_size_mm(img))).astype(int)
    data = finite(np.asanyarray(img.dataobj)).astype(np.float32)
    data = np.pad(data, [(0, -n % b) for n, b in zip(data.shape, block, strict=True)])
    i, j, k = (n // b for n, b in zip(data.shape, block, strict=True))
    means = data.reshape(i, block[0], j, block[1], k, block[2]).mean(axis=(1, 3, 5))
    affine = img.affine @ np.diag([*block, 1.0])
    affine[:3, 3] += img.affine[:3, :3] @ ((block - 1) / 2)
    coarse = image_on(means, affine)
    return image_like(ndimage.gaussian_filter(means, _SMOOTHING_SD_MM / voxel_size_mm(coarse)), coarse)


def _points_in(model: Volume) -> NDArray[np.float64]:
    """World points about `_STEP_MM` apart in and near the brain of a smoothed template, ``(N, 3)``."""
    data = np.asanyarray(model.dataobj)
    step = np.maximum(1, np.round(_STEP_MM / voxel_size_mm(model))).astype(int)
    voxels = np.argwhere((data > 0.02 * data.max())[:: step[0], :: step[1], :: step[2]]) * step
    points: NDArray[np.float64] = voxels @ model.affine[:3, :3].T + model.affine[:3, 3]
    return points


def _at(img: Volume, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values at world points ``(N, 3)``, linear; 0 outside of the image."""
    to_voxel = np.linalg.inv(img.affine)
    at = to_voxel[:3, :3] @ points.T + to_voxel[:3, 3:]
    return ndimage.map_coordinates(np.asanyarray(img.dataobj), at, np.float64, order=1)
