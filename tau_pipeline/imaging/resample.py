"""Bring an image onto another grid in one interpolation."""

from __future__ import annotations

from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.errors import ImageError, SettingError
from tau_pipeline.imaging.volume import (
    Affine,
    Volume,
    finite,
    image_like,
    image_on,
    voxel_size_mm,
)

Interpolation = Literal["nearest", "linear", "cubic"]


def resample(img: Volume, like: Volume, moving_to_fixed: Affine, interpolation: Interpolation = "linear") -> Volume:
    """Bring a 3-D image onto the grid of ``like`` in one interpolation.

    Parameters
    ----------
    img
        3-D image. For ``linear`` and ``cubic``, NaN and infinities count as 0 and the result is float32.
    like
        Gives the grid.
    moving_to_fixed
        ``(4, 4)``: world of ``img`` to world of ``like``, RAS+ mm.
    interpolation
        ``nearest`` keeps the values and the type (labels); ``cubic`` is the cubic B-spline (Unser 1999, IEEE Signal
        Process. Mag. 16:22). Outside of ``img`` the result is 0.

    Raises
    ------
    ImageError
        The image is not 3-D.
    SettingError
        The interpolation has another name.
    """
    orders = {"nearest": 0, "linear": 1, "cubic": 3}
    if interpolation not in orders:
        raise SettingError(f"there is no interpolation {interpolation!r}; use one of {', '.join(orders)}")
    if len(img.shape) != 3:
        raise ImageError(f"an image of shape {img.shape} cannot be resampled here; a 3-D image is needed")
    data = np.asanyarray(img.dataobj)
    if interpolation != "nearest":
        data = finite(data)
    to_voxel = np.linalg.inv(img.affine) @ np.linalg.inv(moving_to_fixed) @ like.affine
    out = ndimage.affine_transform(
        data, to_voxel[:3, :3], to_voxel[:3, 3], like.shape[:3], order=orders[interpolation], output=data.dtype
    )
    return image_like(out, like)


Mask = NDArray[np.bool_]


Floats = NDArray[np.float32]


#: Edge of a voxel of the working grid, mm. Cortex is 2 to 4 mm thick; the atlas has 1 mm voxels.
WORKING_MM = 1.0


#: Room left around the brain on the working grid, mm.
MARGIN_MM = 6.0


def brain_box(mask: Volume) -> tuple[slice, slice, slice]:
    """The smallest box of voxels that holds a mask; what is done inside it costs less memory than on the whole head.

    Raises
    ------
    ImageError
        The mask is empty.
    """
    inside = np.asanyarray(mask.dataobj) > 0
    if not inside.any():
        raise ImageError("the brain mask is empty; check the T1w")
    ends = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    i, j, k = (slice(int(low), int(high) + 1) for low, high in ends)
    return i, j, k


def working_grid(mask: Volume, voxel_mm: float = WORKING_MM) -> Volume:
    """An empty grid of cubes around a mask: canonical axes of the mask's image, `MARGIN_MM` of room.

    Raises
    ------
    ImageError
        The mask is empty.
    """
    canonical = nib.as_closest_canonical(mask)
    box = brain_box(canonical)
    size = voxel_size_mm(canonical)
    low = np.array([s.start for s in box]) - np.ceil(MARGIN_MM / size)
    high = np.array([s.stop - 1 for s in box]) + np.ceil(MARGIN_MM / size)
    affine = canonical.affine.copy()
    affine[:3, :3] *= voxel_mm / size
    affine[:3, 3] += canonical.affine[:3, :3] @ low
    shape = tuple(int(n) for n in np.ceil((high - low) * size / voxel_mm) + 1)
    return image_on(np.zeros(shape, dtype=np.uint8), affine)


def resample_onto_data(img: Volume, like: Volume, order: int = 1, mode: str = "constant") -> Floats:
    """Values of a 3-D image at the voxels of another grid in the same world, float32 ``(I, J, K)``."""
    from scipy import ndimage

    # Rounded, or rounding errors would put the first and last planes outside the image.
    to_voxel = np.round(np.linalg.inv(img.affine) @ like.affine, 9)
    data = finite(np.asanyarray(img.dataobj))
    result: Floats = ndimage.affine_transform(
        data, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=like.shape[:3], order=order, mode=mode
    )
    return result


def resample_onto(img: Volume, like: Volume, order: int = 1) -> Volume:
    """A 3-D image on another grid in the same world: order 0 nearest neighbour, 1 linear; 0 outside."""
    return image_like(resample_onto_data(img, like, order), like)
