"""Read an image completely, or say what is wrong with the file."""

from __future__ import annotations

import io
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError

from tau_pipeline.errors import DamagedFileError, ImageError, MissingInputError, TauPipelineError, memory_shortage
from tau_pipeline.files import fetched_by, fetched_by_start
from tau_pipeline.imaging.packed import MOST_PACKED, decompress, is_compressed, packed_mgh_header
from tau_pipeline.imaging.plain_header import Glance, glance, plain_header
from tau_pipeline.imaging.volume import Affine, Volume, image_on

#: What nibabel raises where a file is not what its name says.
_UNREADABLE = (
    *(ImageFileError, HeaderDataError, MGHError, OSError, EOFError, ValueError, TypeError, LookupError),
    *(ArithmeticError, zlib.error, MemoryError),
)

_ENDINGS = (".nii", ".nii.gz", ".mgh", ".mgz")


#: A head fits in a grid within these bounds, in mm; what lies outside is in another unit, or damaged.
_SMALLEST_VOXEL_MM, _LARGEST_VOXEL_MM, _FARTHEST_MM = 0.01, 100.0, 1e5
#: Scans of a head are so long, along their longest axis.
_SCAN_MM = (100.0, 1000.0)

#: The volume spanned by the axes' directions, 1 where they are at right angles.
_FLATTEST = 1e-3


def load_volume(path: str | os.PathLike[str], ndim: int | None = None) -> Volume:
    """Read a NIfTI or MGH image completely, and check that it can be used.

    Trailing axes of length 1 are dropped, scale factors applied; integers stay integers unless the file scales them.

    Parameters
    ----------
    path
        A ``.nii``, ``.nii.gz``, ``.mgh`` or ``.mgz`` file.
    ndim
        3 or 4 to require that many dimensions; a 3-D file passes as 4-D with one frame. None accepts both.

    Raises
    ------
    MissingInputError
        There is no such file.
    DamagedFileError
        The file cannot be read to its end, or is shorter than its header says.
    ImageError
        The image has a singular, non-finite or impossible affine, no voxels, other values than one real number per
        voxel, or the wrong number of dimensions.
    """
    path = Path(path)
    img = _opened(path)
    needed = _bytes_needed(path, img)
    try:
        if is_compressed(path):
            with io.BytesIO() as content:
                decompress(path, needed, content)
                raw = np.asanyarray(type(img).from_stream(content).dataobj)
        else:
            raw = np.asanyarray(img.dataobj)
    except _UNREADABLE as exc:
        raise _damaged(path, exc) from exc
    data = raw.reshape(_without_trailing_axes(raw.shape))
    if ndim == 3 and data.ndim == 4:
        raise ImageError(f"{path} has shape {data.shape}; a 3-D image is needed")
    if ndim == 4 and data.ndim == 3:
        data = data[..., None]
    return image_on(data, _affine_mm(img))


def read_shape(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return the shape of an image without trailing axes of length 1, after all checks that need no voxel.

    Read are the header and, of a compressed file, the length that it states at its end; where that is not the header's,
    the file is unpacked to see whether it is whole.

    Raises
    ------
    MissingInputError, DamagedFileError, ImageError
        As `load_volume`, but damage inside the voxels is not seen.
    """
    path = Path(path)
    file = glance(path)
    if file is None or not file.size or fetched_by_start(file.start):
        _check_there(path)
    stated = None if file is None else _quickly_stated(path, file)
    if stated is None:
        img = _opened(path)
        stated = _Stated(_without_trailing_axes(img.shape), _bytes_needed(path, img))
    needed = stated.needed
    try:
        if file is not None and is_compressed(path) and file.stated_length != needed % 2**32:
            decompress(path, needed)
    except _UNREADABLE as exc:
        raise _damaged(path, exc) from exc
    return stated.shape


class _Stated(NamedTuple):
    """Shape without trailing axes of length 1, and unpacked length of the file, as the header states them."""

    shape: tuple[int, ...]
    needed: int


def _quickly_stated(path: Path, file: Glance) -> _Stated | None:
    """Return shape and length by an ordinary header, after the checks of `_opened`; None if nibabel has to look."""
    header = plain_header(path, file.start)
    if header is None:
        return None
    try:
        shape, dtype, affine = header.get_data_shape(), header.get_data_dtype(), header.get_best_affine()
        affine[:3] *= _UNIT_MM.get(_stated_unit(header), 1.0)
        if header.get_data_offset() < header.single_vox_offset:
            return None
        needed = int(header.get_data_offset()) + math.prod(map(int, shape)) * dtype.itemsize
    except _UNREADABLE:
        return None
    _check_usable(path, _without_trailing_axes(shape), dtype, affine, _stated_unit(header))
    _check_length(path, file.size, needed)
    return _Stated(_without_trailing_axes(shape), needed)


def read_affine(path: str | os.PathLike[str]) -> Affine:
    """Return the affine ``(4, 4)``, voxels to RAS+ mm, as `load_volume` does, from the header alone.

    Raises
    ------
    MissingInputError, DamagedFileError, ImageError
        As `load_volume`, but no voxel is looked at.
    """
    return _affine_mm(_opened(Path(path)))


#: Millimeters of the other units that NIfTI knows.
_UNIT_MM = {"meter": 1000.0, "micron": 0.001}


def _affine_mm(img: Any) -> Affine:
    """Return the affine in mm, whatever unit the header states."""
    affine = np.array(img.affine, dtype=np.float64)
    if isinstance(img, nib.Nifti1Image):
        affine[:3] *= _UNIT_MM.get(_stated_unit(img.header), 1.0)
    return affine


def _stated_unit(header: nib.Nifti1Header) -> str:
    try:
        return str(header.get_xyzt_units()[0])
    except KeyError:
        # A code that NIfTI does not define states nothing.
        return "unknown"


def _opened(path: Path) -> Any:
    """Open a nibabel image whose header has been read and can be used."""
    _check_there(path)
    if not path.name.lower().endswith(_ENDINGS):
        raise DamagedFileError(f"{path} is not named as an image is; {', '.join(_ENDINGS)} are known")
    try:
        img: Any = packed_mgh_header(path) if path.suffix.lower() == ".mgz" else nib.load(path)
        # Asked for here, since nibabel computes them only now and refuses some.
        shape, dtype, affine = img.shape, img.get_data_dtype(), _affine_mm(img)
    except _UNREADABLE as exc:
        raise _damaged(path, exc) from exc
    if not isinstance(img, nib.Nifti1Image | nib.MGHImage):
        raise ImageError(f"{path} is {type(img).__name__}; a NIfTI or MGH image in one file is needed")
    unit = _stated_unit(img.header) if isinstance(img, nib.Nifti1Image) else "mm"
    _check_usable(path, _without_trailing_axes(shape), dtype, affine, unit)
    return img


def _bytes_needed(path: Path, img: Any) -> int:
    """Return the unpacked length that the header asks for; a file that cannot hold that much is refused unread."""
    offset = int(img.dataobj.offset)
    if isinstance(img, nib.Nifti1Image) and offset < img.header.single_vox_offset:
        raise DamagedFileError(
            f"{path} begins its voxels at byte {offset} by its header (vox_offset), inside the header; expected: "
            f"{img.header.single_vox_offset} or more; convert it again"
        )
    needed = offset + math.prod(map(int, img.shape)) * img.get_data_dtype().itemsize
    _check_length(path, path.stat().st_size, needed)
    return needed


def _check_length(path: Path, length: int, needed: int) -> None:
    packed = is_compressed(path)
    if length * (MOST_PACKED if packed else 1) < needed:
        raise DamagedFileError(
            f"{path} is truncated: it has {length} {'packed ' if packed else ''}bytes, but {needed} by its "
            f"header; copy or convert it again"
        )


def _check_there(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise MissingInputError(f"{path} is a broken link; fetch its content (datalad get, git annex get)")
    if not path.is_file():
        if os.path.lexists(path):
            raise MissingInputError(f"{path} is a folder or a special file (such as a pipe); expected: an image")
        raise MissingInputError(f"there is no image {path}; check the path and the permission to read it")
    if command := fetched_by(path):
        raise MissingInputError(f"{path} only points to its content; fetch it ({command})")
    if not os.access(path, os.R_OK):
        raise MissingInputError(f"no permission to read the image {path}; change its permissions")
    if path.stat().st_size == 0:
        raise DamagedFileError(f"{path} is empty (0 bytes); copy or convert it again")


def _damaged(path: Path, exc: BaseException) -> TauPipelineError:
    if isinstance(exc, DamagedFileError):
        return exc
    if (shortage := memory_shortage(exc)) is not None:
        return shortage
    why = " ".join(str(exc).replace(str(path), path.name).split())[:200] or type(exc).__name__
    return DamagedFileError(f"{path} is damaged or is not an image ({why}); copy or convert it again")


def _without_trailing_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(int(length) for length in shape)


def _check_usable(path: Path, shape: tuple[int, ...], dtype: np.dtype, affine: Affine, unit: str) -> None:
    if len(shape) not in (3, 4):
        raise ImageError(f"{path} has shape {shape}; a 3-D or 4-D image is needed")
    if min(shape) < 1:
        raise ImageError(f"{path} has no voxels: its shape is {shape}")
    if dtype.kind not in "iufb":
        raise ImageError(f"{path} holds {dtype} values; expected: one real number per voxel")
    # As plain numbers: NumPy takes longer to begin than to compute, and headers are looked at by the thousand.
    *axes, first = affine[:3].T.tolist()
    volume = abs(_determinant(axes))
    if not np.isfinite(affine).all() or volume < 1e-9:
        raise ImageError(f"{path} has a singular or non-finite affine; correct its sform or qform")
    edges = [math.hypot(*axis) for axis in axes]
    if min(edges) < _SMALLEST_VOXEL_MM or max(edges) > _LARGEST_VOXEL_MM or max(map(abs, first)) > _FARTHEST_MM:
        raise ImageError(
            f"{path} has voxels of {' x '.join(f'{edge:.3g}' for edge in edges)} mm with the first at "
            f"{', '.join(f'{place:.3g}' for place in first)} mm, which no head has; correct its sform or qform"
            + (f", or its unit of length, which is {unit} (xyzt_units)" if unit in _UNIT_MM else _meant(shape, edges))
        )
    if volume / math.prod(edges) < _FLATTEST:
        raise ImageError(f"{path} has an affine whose axes lie nearly in one plane; correct its sform or qform")


def _meant(shape: tuple[int, ...], edges: Sequence[float]) -> str:
    """Return in words the unit in which an image would have the size of a head; empty if in none."""
    longest = max(count * edge for count, edge in zip(shape, edges, strict=False))
    units = [unit for unit, factor in _UNIT_MM.items() if _SCAN_MM[0] <= longest * factor <= _SCAN_MM[1]]
    return f" (its lengths seem to be in {units[0]}s)" if units else ""


def _determinant(axes: Sequence[Sequence[float]]) -> float:
    (a, b, c), (d, e, f), (g, h, i) = axes
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
