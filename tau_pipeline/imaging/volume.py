"""Images on grids: load, save, compare grids, convert.

An image in this package is a `nibabel.Nifti1Image`: an array with axes I J K (and T), and an affine that takes voxel
indices to world coordinates in mm, RAS+. Nothing here changes an image's grid without saying so in its name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike, NDArray

from tau_pipeline.errors import GridMismatchError, ImageError
from tau_pipeline.files import complete_file

if TYPE_CHECKING:
    import ants

Volume = nib.Nifti1Image
Affine = NDArray[np.float64]


#: World is RAS+ here and LPS+ in ITK; multiplying by this on the left goes from one to the other and back.
RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def image_on(data: NDArray, affine: Affine) -> Volume:
    """Put an array on a grid, with both NIfTI codes set to scanner space and units to mm.

    Booleans become uint8, float64 becomes float32 and 64-bit integers int32, which every reader understands; float32
    where they are too large for it.
    """
    whole = np.float32 if data.dtype.itemsize == 8 and data.dtype.kind in "iu" and _is_large(data) else np.int32
    as_stored: dict[str, DTypeLike] = {"bool": np.uint8, "float64": np.float32, "int64": whole, "uint64": whole}
    img = Volume(data.astype(as_stored.get(data.dtype.name, data.dtype.newbyteorder("=")), copy=False), affine)
    img.header.set_xyzt_units("mm", "sec")
    img.set_qform(affine, code=1)
    img.set_sform(affine, code=1)
    return img


def _is_large(data: NDArray) -> bool:
    """Return whether integers are beyond the range of int32."""
    limits = np.iinfo(np.int32)
    return bool(data.size) and not limits.min <= int(data.min()) <= int(data.max()) <= limits.max


def image_like(data: NDArray, like: Volume) -> Volume:
    """Put an array ``(I, J, K[, T])`` on the grid of ``like``.

    Raises
    ------
    GridMismatchError
        The first three axes of the array are not those of ``like``.
    """
    if data.shape[:3] != like.shape[:3]:
        raise GridMismatchError(f"an array of shape {data.shape} does not fit a grid of {like.shape[:3]}")
    return image_on(data, like.affine)


def part_of(img: Volume, box: tuple[slice, ...]) -> Volume:
    """Return a copy of the voxels in a box ``(I, J, K)``, where they are in the world; the whole is not held on to."""
    affine = img.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [one.start for one in box]
    return image_on(np.array(np.asanyarray(img.dataobj)[box], subok=False), affine)


def save_volume(img: Volume, path: str | os.PathLike[str]) -> Path:
    """Write an image under its final name only when it is complete; returns the path.

    Raises
    ------
    OutputError
        The folder cannot be written to, or the disk is full.
    """
    with complete_file(path) as partial:
        nib.save(img, partial)
    return Path(path)


def same_grid(a: Volume, b: Volume, tolerance_mm: float = 1e-3) -> bool:
    """Return whether two spatial grids agree in shape, and in their corners within ``tolerance_mm``."""
    if a.shape[:3] != b.shape[:3]:
        return False
    ends = [(0, n - 1) for n in a.shape[:3]]
    corners = np.array(np.meshgrid(*ends)).reshape(3, -1)
    difference = (a.affine - b.affine)[:3]
    return bool(np.abs(difference[:, :3] @ corners + difference[:, 3:]).max() <= tolerance_mm)


def require_same_grid(**images: Volume) -> None:
    """Refuse images on different grids; the keyword names are used in the message.

    Raises
    ------
    GridMismatchError
        Two of the images differ in shape or affine. This function performs no resampling.
    """
    (first_name, first), *others = images.items()
    for name, img in others:
        if not same_grid(first, img):
            raise GridMismatchError(
                f"{name} (shape {img.shape[:3]}) is not on the grid of {first_name} (shape {first.shape[:3]}, "
                f"voxel {voxel_size_mm(first).round(3).tolist()} mm); resample one of them first"
            )


def voxel_size_mm(img: Volume) -> NDArray[np.float64]:
    """Edge lengths of a voxel along I, J, K in mm."""
    return np.sqrt((img.affine[:3, :3] ** 2).sum(axis=0))


def voxel_volume_mm3(img: Volume) -> float:
    """Return the volume of a voxel in mm³, right for sheared grids too."""
    return float(abs(np.linalg.det(img.affine[:3, :3])))


def finite(data: NDArray, fill: float = 0.0) -> NDArray[np.float32]:
    """Return a float32 copy in which NaN and infinities are ``fill``."""
    return np.nan_to_num(data.astype(np.float32), copy=False, nan=fill, posinf=fill, neginf=fill)


def to_ants(img: Volume) -> ants.ANTsImage:
    """Convert a 3-D image for ANTs: float32, LPS+ world. NaN and infinities become 0."""
    import ants

    if len(img.shape) != 3:
        raise ImageError(f"an image of shape {img.shape} cannot go to ANTs; a 3-D image is needed")
    lps = RAS_LPS @ img.affine
    spacing = voxel_size_mm(img)
    direction = lps[:3, :3] / spacing
    return ants.from_numpy(
        finite(np.asanyarray(img.dataobj)), origin=lps[:3, 3].tolist(), spacing=spacing.tolist(), direction=direction
    )
