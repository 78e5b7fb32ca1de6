"""Masks: the head by its brightness, the center of a mask, and what lies near it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.imaging.resample import Mask
from tau_pipeline.imaging.volume import Affine, Volume, finite, image_like

#: Share of voxels that is too small to matter, and how far below 0 air must be, as a share of the range of the image.
_FEW_VOXELS, _DARK = 0.02, 0.05


def largest_object(data: NDArray, level: float | np.floating[Any]) -> Mask:
    """Return the largest connected piece ``(I, J, K)`` of what is brighter than a level; empty if nothing is.

    Pieces are connected by faces of voxels.
    """
    from scipy import ndimage

    pieces, count = ndimage.label(data > level)
    if count == 0:
        return np.zeros(data.shape, dtype=bool)
    largest: Mask = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return largest


def center_of(inside: Mask, affine: Affine) -> NDArray[np.float64]:
    """Return the center of mass of a mask ``(I, J, K)`` in the world of its ``affine``, ``(3,)``, RAS+ mm."""
    # Sums along the axes: a list of all voxels of a brain would take ten times as long.
    counts = [np.count_nonzero(inside, axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    voxel = [float(count @ np.arange(count.size) / count.sum()) for count in counts]
    center: NDArray[np.float64] = affine[:3, :3] @ voxel + affine[:3, 3]
    return center


def box_around(mask: Mask, room: NDArray[np.float64]) -> tuple[slice, slice, slice]:
    """Return the smallest box of a mask ``(I, J, K)`` that is not empty, with at least ``room`` ``(3,)`` voxels around.

    Work inside the box takes less memory than on a whole head. The box ends where the image ends.
    """
    ends = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    more = np.ceil(room).astype(int)
    i, j, k = (slice(max(0, int(low - n)), int(high + n) + 1) for (low, high), n in zip(ends, more, strict=True))
    return i, j, k


def distance_to(mask: Mask, voxel_mm: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the distance ``(I, J, K)`` in mm of each voxel to the nearest one of a mask, whose voxels have 0.

    The Euclidean distance transform of SciPy, slice by slice from the indices of the nearest voxels: at once it takes
    60 bytes per voxel, so 20.
    """
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(~mask, sampling=voxel_mm, return_distances=False, return_indices=True)
    distance = np.empty(mask.shape, np.float32)
    for i in range(mask.shape[0]):
        squared = ((nearest[0, i] - i) * voxel_mm[0]) ** 2
        for axis in (1, 2):
            own = np.expand_dims(np.arange(mask.shape[axis]), 2 - axis)
            squared += ((nearest[axis, i] - own) * voxel_mm[axis]) ** 2
        distance[i] = np.sqrt(squared)
    return distance


def closer_than(mask: Mask, reach: float) -> Mask:
    """Return the voxels ``(I, J, K)`` whose distance to a mask is below ``reach``, in voxels, at most 10.

    The same as a Euclidean distance transform below ``reach``, in a tenth of its time: squared distances are minima
    along one axis after the other (Felzenszwalb and Huttenlocher 2012, Theory Comput. 8:415).

    Raises
    ------
    ValueError
        ``reach`` is above 10.
    """
    if reach > 10:
        raise ValueError(f"a reach of {reach:g} voxels was found; expected: 10 at most")
    steps = int(np.ceil(reach)) - 1
    limit = int(np.ceil(reach**2)) - 1
    squared = np.where(mask, np.uint8(0), np.uint8(limit + 1))
    for axis in range(3):
        before = np.moveaxis(squared, axis, 0)
        squared = squared.copy()
        found = np.moveaxis(squared, axis, 0)
        for step in range(1, min(steps, len(before) - 1) + 1):
            farther = before + np.uint8(step**2)
            np.minimum(found[step:], farther[:-step], out=found[step:])
            np.minimum(found[:-step], farther[step:], out=found[:-step])
    return squared <= limit


def with_dark_air(img: Volume) -> tuple[Volume, str]:
    """Return an image whose air is near 0, and what was done about negative values, in words; empty if nothing.

    Air that was filled with one negative value becomes 0. An image that was shifted as a whole is shifted back.
    Slightly negative values, as interpolation leaves them, stay.

    Parameters
    ----------
    img
        T1w, 3-D.
    """
    data = finite(np.asanyarray(img.dataobj)).astype(np.float32)
    low = data[data < 0]
    if low.size < _FEW_VOXELS * data.size:
        return img, ""
    level = float(np.median(low))
    if -level < _DARK * (float(np.percentile(data, 99)) - level):
        return img, ""
    above = np.count_nonzero(data > 0.1 * level)
    between = np.count_nonzero((data > 0.9 * level) & (data <= 0.1 * level))
    share = f"{100 * low.size / data.size:.0f} % of the T1w is negative, most of it near {level:.4g}"
    if between < _FEW_VOXELS * above:
        return image_like(np.maximum(data, 0), img), f"{share}; this was taken as air, and set to 0."
    return image_like(np.maximum(data - level, 0), img), f"{share}; {-level:.4g} was added, so that air is near 0."
