"""Folders that nobody may read, for root too."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Version 3 of the kernel's capabilities, and the bits by which root reads what its permissions forbid:
#: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
_VERSION, _READS_ALL = 0x20080522, 0b110


@contextmanager
def closed(*folders: Path, mode: int = 0o000) -> Iterator[None]:
    """Take the permissions of folders away, and from this thread what lets root pass over them."""
    for folder in folders:
        folder.chmod(mode)
    try:
        with _obeying_permissions():
            yield
    finally:
        for folder in folders:
            folder.chmod(0o755)


@contextmanager
def _obeying_permissions() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    before = sets[0]
    try:
        sets[0] = before & ~_READS_ALL
        libc.capset(header, sets)
        yield
    finally:
        sets[0] = before
        libc.capset(header, sets)
