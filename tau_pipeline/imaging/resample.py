"""Bring an image onto another grid in one interpolation.

Everything that is resampled by an affine goes through `resample_array`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.errors import ImageError, SettingError
from tau_pipeline.imaging.volume import Affine, Volume, finite, image_like

Interpolation = Literal["nearest", "linear", "cubic"]

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
#: Grids that are made for an image begin at multiples of this part of its voxels.
ORIGIN_STEP = 1 / 64
#: Places nearer than this, in voxels, are the same but for the single precision of the headers.
_SAME_PLACE = 5e-4


def resample_array(
    data: NDArray,
    to_voxel: Affine,
    shape: Sequence[int],
    *,
    order: int,
    mode: Literal["constant", "nearest", "grid-constant"] = "constant",
    fill: float = 0.0,
) -> NDArray[Any]:
    """Return the values of an array at the voxels of another grid, in the array's own type.

    Parameters
    ----------
    data
        ``(I, J, K)``, integer or floating point.
    to_voxel
        ``(4, 4)``: voxel indices of the new grid to voxel indices of ``data``.
    shape
        First three axes of the new grid.
    order
        Of the B-spline: 0 nearest neighbor, 1 linear, 3 cubic.
    mode
        What lies outside of ``data``: ``constant`` is ``fill``, ``nearest`` the value at the edge, ``grid-constant``
        is ``fill`` from half a voxel beyond the centers of the outermost voxels.
    fill
        Value outside of ``data``.

    Notes
    -----
    `nibabel.processing.resample_from_to` calls the same function of SciPy, but takes two voxel-to-world matrices and
    multiplies them itself. With a transform between the two worlds the last bit of that product differs, and a voxel
    in some millions with it; see ``docs/decisions/resampling.md``.
    """
    if order > 0:
        # Images from files have the first axis fastest. SciPy walks along the last one, in three times the time.
        data = np.ascontiguousarray(data)
    return ndimage.affine_transform(
        data, to_voxel[:3, :3], to_voxel[:3, 3], tuple(shape[:3]), order=order, output=data.dtype, mode=mode, cval=fill
    )


def resample(img: Volume, like: Volume, moving_to_fixed: Affine, interpolation: Interpolation = "linear") -> Volume:
    """Resample a 3-D image onto the grid of ``like`` in one interpolation.

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
    return image_like(resample_array(data, to_voxel, like.shape, order=orders[interpolation]), like)


def resample_measured(
    img: Volume, like: Volume, moving_to_fixed: Affine, interpolation: Interpolation = "linear"
) -> Volume:
    """Resample a 3-D image in which NaN is not measured: the result is NaN there and outside of the image.

    A voxel has a value where the nearest voxel of the image has one. Nothing is mixed with what was not measured: the
    nearest measured value takes its place in the interpolation.

    Parameters
    ----------
    img, like, moving_to_fixed, interpolation
        As in `resample`.

    Returns
    -------
    Volume
        float32.

    Raises
    ------
    ImageError
        The image is not 3-D, or holds no value at all.
    """
    data, known = filled(img)
    to_voxel = np.linalg.inv(img.affine) @ np.linalg.inv(moving_to_fixed) @ like.affine
    order = {"nearest": 0, "linear": 1, "cubic": 3}[interpolation]
    found = resample_array(data, to_voxel, like.shape, order=order, mode="nearest")
    covered = resample_array(known.astype(np.uint8), to_voxel, like.shape, order=0, mode="grid-constant")
    found[covered == 0] = np.nan
    return image_like(found, like)


def filled(img: Volume) -> tuple[Floats, Mask]:
    """Return a 3-D image with the nearest measured value where it holds NaN or infinity, and where it was measured.

    Raises
    ------
    ImageError
        The image is not 3-D, or holds no value at all.
    """
    if len(img.shape) != 3:
        raise ImageError(f"an image of shape {img.shape} cannot be resampled here; a 3-D image is needed")
    data = np.asanyarray(img.dataobj).astype(np.float32)
    known = np.isfinite(data)
    if not known.any():
        raise ImageError("an image without any value cannot be resampled; look at the image")
    if not known.all():
        nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        data = data[tuple(nearest)]
    return data, known


def resample_onto_data(
    img: Volume, like: Volume, order: int = 1, mode: Literal["constant", "nearest"] = "constant"
) -> Floats:
    """Return the values of a 3-D image at the voxels of another grid in the same world, float32 ``(I, J, K)``."""
    to_voxel = _between(img, like)
    return resample_array(finite(np.asanyarray(img.dataobj)), to_voxel, like.shape, order=order, mode=mode)


def _between(img: Volume, like: Volume) -> Affine:
    """Return the matrix ``(4, 4)`` from voxels of ``like`` to voxels of ``img``, in the same world.

    NIfTI keeps places in single precision, which is 0.00006 mm where the origin of the world is far away. Where one of
    the grids begins at a multiple of `ORIGIN_STEP` of the other's voxels, as working grids do, that place is taken: the
    result is then the same wherever the world lies. Rounding keeps the first and last planes inside the image.
    """
    forward, back = np.linalg.inv(img.affine) @ like.affine, np.linalg.inv(like.affine) @ img.affine
    if _begins_at_step(forward):
        return np.round(forward, 9)
    return np.round(np.linalg.inv(back) if _begins_at_step(back) else forward, 9)


def _begins_at_step(matrix: Affine) -> bool:
    """Return whether the origin of a grid lies at a multiple of `ORIGIN_STEP`, to which it is then set in place."""
    origin = np.round(matrix[:3, 3] / ORIGIN_STEP) * ORIGIN_STEP
    found = bool(np.abs(matrix[:3, 3] - origin).max() < _SAME_PLACE)
    if found:
        matrix[:3, 3] = origin
    return found


def resample_onto(img: Volume, like: Volume, order: int = 1) -> Volume:
    """Resample a 3-D image onto another grid in the same world: order 0 nearest neighbor, 1 linear; 0 outside."""
    return image_like(resample_onto_data(img, like, order), like)
