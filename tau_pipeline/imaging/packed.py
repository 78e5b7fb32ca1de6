"""Unpack a gzip file completely, without more memory than the header of its image asks for."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import DATA_OFFSET

from tau_pipeline.errors import DamagedFileError

#: Bytes that are unpacked at a time, and that may follow the last voxel of a file.
CHUNK = 1 << 22
MOST_AFTER_VOXELS = 1 << 26
#: Most bytes that one byte of a gzip file can stand for: 258 for two bits.
MOST_PACKED = 1032


def is_compressed(path: Path) -> bool:
    """Return whether a file is packed, by its name."""
    return path.suffix.lower() in (".gz", ".mgz")


def decompress(path: Path, needed: int, into: io.BytesIO | None = None) -> None:
    """Unpack the first ``needed`` bytes, then go on to the end, where the checksum stands, which nibabel never sees.

    No more memory is taken than the file has content, whatever its header says.

    Raises
    ------
    DamagedFileError
        The content is shorter than ``needed``, or goes on long after it.
    """
    done = 0
    with gzip.open(path) as file:
        while chunk := file.read(CHUNK):
            if into is not None and done < needed:
                into.write(chunk)
            done += len(chunk)
            if done > needed + MOST_AFTER_VOXELS:
                raise DamagedFileError(f"{path} has data far beyond its last voxel; copy or convert it again")
    if done < needed:
        raise DamagedFileError(
            f"{path} is truncated: it holds {done} bytes, but {needed} by its header; copy or convert it again"
        )


def packed_mgh_header(path: Path) -> nib.MGHImage:
    """Read the header of a packed MGH file, with nothing behind it.

    nibabel looks for the fields that follow the voxels, and unpacks for that as far as the header says, however far.
    """
    with gzip.open(path) as file, np.errstate(over="ignore"):
        return nib.MGHImage.from_bytes(file.read(DATA_OFFSET))
