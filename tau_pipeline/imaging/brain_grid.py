"""Grids of cubes around a brain, on which images are compared."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tau_pipeline.imaging.foreground import center_of
from tau_pipeline.imaging.resample import Mask
from tau_pipeline.imaging.volume import Volume, image_on, voxel_size_mm

#: Steps that are tried, as parts of the largest.
_FINER = (1.0, 0.95, 0.9)


def grid_about(mask: Volume, step_mm: float, room_mm: float) -> Volume:
    """Return an empty grid of cubes along the axes of a mask's image, centered on the mask, ``room_mm`` around it.

    A mask whose world is moved, or whose axes are flipped or permuted, gives the same points of the head.

    Parameters
    ----------
    mask
        ``(I, J, K)``, not empty.
    step_mm
        Edge of the cubes, mm.
    room_mm
        Room between the mask and the ends of the grid, mm.
    """
    canonical = nib.as_closest_canonical(mask)
    left, _, right = np.linalg.svd(canonical.affine[:3, :3] / voxel_size_mm(canonical))
    axes = left @ right
    inside = np.asanyarray(mask.dataobj) > 0
    center = center_of(inside, mask.affine)
    points = _ends_of_rows(inside) @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    reach = np.abs((points - center) @ axes).max(axis=0) + room_mm
    steps = np.ceil(reach / step_mm).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * step_mm
    affine[:3, 3] = center - affine[:3, :3] @ steps
    return image_on(np.zeros(tuple(2 * steps + 1), np.uint8), affine)


def _ends_of_rows(inside: Mask) -> NDArray[np.int64]:
    """Return the first and last voxels of each row of a mask, ``(N, 3)``; the mask reaches no farther anywhere."""
    rows = np.argwhere(inside.any(axis=2))
    first = inside.argmax(axis=2)[tuple(rows.T)]
    last = inside.shape[2] - 1 - inside[:, :, ::-1].argmax(axis=2)[tuple(rows.T)]
    return np.concatenate([np.column_stack([rows, ends]) for ends in (first, last)])


def step_beside(moving_mm: NDArray[np.float64], largest_mm: float) -> float:
    """Return the step of a grid of which the voxel sizes of a moving image are no whole multiples, mm.

    Where points of the grid and centers of voxels coincide, nothing is interpolated, values are not blurred, and mutual
    information has a maximum: the optimizer stops where the axes are parallel, up to 2 mm from the truth (Pluim,
    Maintz & Viergever 2000, Comput. Vis. Image Underst. 77:211).

    Parameters
    ----------
    moving_mm
        ``(3,)``, voxel sizes of the moving image, mm.
    largest_mm
        The largest step, mm; the smallest that is tried is a tenth smaller.
    """
    steps = largest_mm * np.array(_FINER)
    multiples = moving_mm[:, None] / steps
    return float(steps[np.abs(multiples - np.round(multiples)).min(axis=0).argmax()])
