"""Arrays of the cache of prepared pairs, checked once and then mapped into memory."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Files of the cache whose checksums this process has compared, with their size and time of change.
_WHOLE: set[tuple[str, int, int]] = set()


def read_arrays(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return record and arrays of a file of the cache; Zip files carry a checksum of each array.

    The first time the arrays are read whole, and the checksums are compared. Later they are mapped into memory: they
    are read where they are used, processes share them, and the system drops them when memory is short, so that an epoch
    can be larger than memory. What is written into them stays in this process.

    Parameters
    ----------
    path
        Archive of `numpy.savez`, with a member ``record`` that is JSON.
    names
        Of the arrays.

    Raises
    ------
    OSError, ValueError, KeyError, EOFError, struct.error, zipfile.BadZipFile
        The file is not there, or not whole.
    """
    status = path.stat()
    mark = (str(path), status.st_size, status.st_mtime_ns)
    with np.load(path, allow_pickle=False) as stored:
        record = dict(json.loads(str(stored["record"])))
        if mark in _WHOLE:
            return record, {name: _mapped(path, stored.zip.getinfo(f"{name}.npy")) for name in names}
        arrays = {name: stored[name] for name in names}
    _WHOLE.add(mark)
    return record, arrays


def _mapped(path: Path, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Map an array that is not compressed; before it stand the member's own header in the Zip file and NumPy's."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        name_length, extra_length = struct.unpack("<2H", file.read(30)[26:])
        file.seek(name_length + extra_length, os.SEEK_CUR)
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        return np.asarray(np.memmap(path, dtype, "c", file.tell(), shape, "F" if fortran else "C"))
