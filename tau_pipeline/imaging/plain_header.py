"""Read the header of an ordinary NIfTI file without opening it as an image, for datasets of thousands of files."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel as nib
from nibabel.spatialimages import HeaderDataError

#: Bytes of a NIfTI-1 header and of the flag for extensions behind it, and bytes of a packed file that hold them.
_HEADER, _FLAG, _PACKED = 348, 4, 4096


def plain_header(path: Path) -> nib.Nifti1Header | None:
    """Return the header of a NIfTI-1 file, checked as nibabel checks it; None for what nibabel itself has to look at.

    That is any file that is not NIfTI-1 in one file, has extensions, or is damaged in some way.

    Parameters
    ----------
    path
        A file that exists.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        return None
    try:
        with path.open("rb") as file:
            start = file.read(_PACKED)
        if path.suffix == ".gz":
            start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, _HEADER + _FLAG)
        if len(start) < _HEADER + _FLAG or start[_HEADER] or start[_HEADER - 4 : _HEADER] != b"n+1\0":
            return None
        return nib.Nifti1Header(start[:_HEADER])
    except (OSError, zlib.error, HeaderDataError, ValueError, TypeError, LookupError, ArithmeticError):
        return None
