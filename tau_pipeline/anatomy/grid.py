"""The part of a T1w that is computed on: the box around its brain, and the grid that the brain is brought to."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.foreground import box_around
from tau_pipeline.imaging.resample import ORIGIN_STEP
from tau_pipeline.imaging.volume import Affine, Volume, image_on, voxel_size_mm

#: Edge of a voxel of the working grid, mm. Cortex is 2 to 4 mm thick; the atlas has 1 mm voxels.
_WORKING_MM = 1.0
#: Room left around the brain on the working grid, mm.
_MARGIN_MM = 6.0


def brain_box(mask: Volume) -> tuple[slice, slice, slice]:
    """Return the smallest box of voxels that holds a mask.

    Work inside the box costs less memory than on the whole head.

    Raises
    ------
    ImageError
        The mask is empty.
    """
    inside = np.asanyarray(mask.dataobj) > 0
    if not inside.any():
        raise ImageError("the brain mask is empty; check the T1w")
    return box_around(inside, np.zeros(3))


def united(boxes: Sequence[tuple[slice, ...]], room: int) -> tuple[slice, ...]:
    """Return the smallest box that holds some boxes, with ``room`` voxels around it as far as there are any."""
    return tuple(
        slice(max(0, min(side.start for side in sides) - room), max(side.stop for side in sides) + room)
        for sides in zip(*boxes, strict=True)
    )


def working_grid(mask: Volume, voxel_mm: float = _WORKING_MM, upright: Affine | None = None) -> Volume:
    """Return an empty grid of cubes around a mask, with `_MARGIN_MM` of room, in the world of the mask.

    Its axes are those of the mask's image, in the order and direction nearest to left to right, posterior to anterior,
    and inferior to superior. Its center is that of the mask's box, so that flipped axes give the same points.

    Parameters
    ----------
    mask
        Brain mask, ``(I, J, K)``.
    voxel_mm
        Edge of the cubes.
    upright
        ``(4, 4)``, quarter turns that bring the axes of the world to those of the head, where the header has them
        wrong; see `tau_pipeline.anatomy.template.TemplateRegistration`.

    Raises
    ------
    ImageError
        The mask is empty.
    """
    turn = np.eye(4) if upright is None else upright
    canonical = nib.as_closest_canonical(Volume(np.asanyarray(mask.dataobj), turn @ mask.affine))
    box = brain_box(canonical)
    size = voxel_size_mm(canonical)
    low = np.array([s.start for s in box]) - np.ceil(_MARGIN_MM / size)
    high = np.array([s.stop - 1 for s in box]) + np.ceil(_MARGIN_MM / size)
    shape = np.ceil(np.round((high - low) * size / voxel_mm, 6)).astype(int) + 1
    # At steps that the single precision of NIfTI does not blur.
    first = np.round(((low + high) / 2 - (shape - 1) / 2 * voxel_mm / size) / ORIGIN_STEP) * ORIGIN_STEP
    affine = canonical.affine.copy()
    affine[:3, :3] *= voxel_mm / size
    affine[:3, 3] += canonical.affine[:3, :3] @ first
    return image_on(np.zeros(tuple(shape.tolist()), dtype=np.uint8), np.linalg.inv(turn) @ affine)
