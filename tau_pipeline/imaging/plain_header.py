"""Read the header of an ordinary NIfTI file without opening it as an image, for datasets of thousands of files."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
from nibabel.spatialimages import HeaderDataError

#: Bytes of a NIfTI-1 header and of the flag for extensions behind it, and bytes of a packed file that hold them.
_HEADER, _FLAG, _PACKED = 348, 4, 4096


#: Bits per voxel of the types of real numbers, by their codes.
_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
_FORM_CODES = range(5)


class Glance(NamedTuple):
    """Length of a file, its first bytes, and its last four."""

    size: int
    start: bytes
    end: bytes

    @property
    def stated_length(self) -> int:
        """The length of a gzip file's content (modulo 2**32), which its last four bytes state."""
        return int.from_bytes(self.end, "little")


def glance(path: Path) -> Glance | None:
    """Look at a file once, since thousands of files are looked at; None if it is no file or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        handle = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(handle).st_size
            return Glance(size, os.pread(handle, _PACKED, 0), os.pread(handle, 4, max(0, size - 4)))
        finally:
            os.close(handle)
    except OSError:
        return None


def plain_header(path: Path, start: bytes) -> nib.Nifti1Header | None:
    """Return the header of a NIfTI-1 file, checked as nibabel checks it; None for what nibabel itself has to look at.

    That is any file that is not NIfTI-1 in one file, has extensions, or is damaged in some way.

    Parameters
    ----------
    path
        Its name says whether it is packed.
    start
        Its first bytes, as `glance` gives them.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        return None
    try:
        if path.suffix == ".gz":
            start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, _HEADER + _FLAG)
        if len(start) < _HEADER + _FLAG or start[_HEADER] or start[_HEADER - 4 : _HEADER] != b"n+1\0":
            return None
        # Its checks take longer than all else here.
        return nib.Nifti1Header(start[:_HEADER], check=not _passes_checks(start))
    except (OSError, zlib.error, HeaderDataError, ValueError, TypeError, LookupError, ArithmeticError):
        return None


def _passes_checks(start: bytes) -> bool:
    """Return whether nibabel's checks of a header would certainly find nothing."""
    (size,) = struct.unpack_from("<i", start, 0)
    order = "<" if size == _HEADER else ">"
    if struct.unpack_from(f"{order}i", start, 0)[0] != _HEADER:
        return False
    kind, bits = struct.unpack_from(f"{order}2h", start, 70)
    handedness, *edges = struct.unpack_from(f"{order}4f", start, 76)
    (offset,) = struct.unpack_from(f"{order}f", start, 108)
    forms = struct.unpack_from(f"{order}2h", start, 252)
    return (
        _BITS.get(kind) == bits
        and handedness in (-1.0, 1.0)
        and all(edge > 0 for edge in edges)
        and offset == _HEADER + _FLAG
        and all(form in _FORM_CODES for form in forms)
    )
