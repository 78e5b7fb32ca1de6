"""Exceptions raised by this package.

All exceptions share a base class. Each also derives from the closest built-in exception, so that scripts can catch it
without importing this package. Users see the message without a traceback, so it must be complete in itself: what was
found, what was expected, and what to do, in one or two sentences.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any

_shown = reprlib.Repr()
_shown.maxlevel, _shown.maxlist, _shown.maxtuple, _shown.maxdict = 3, 8, 8, 4
_shown.maxstring = _shown.maxlong = _shown.maxother = 80


def shown(value: Any) -> str:
    """Return the representation of a value for a message, shortened to one or two lines.

    >>> shown("4800"), shown([1] * 100)
    ("'4800'", '[1, 1, 1, 1, 1, 1, 1, 1, ...]')
    """
    return _shown.repr(value)


class TauPipelineError(Exception):
    """Base class of all exceptions raised by this package."""


class MissingInputError(TauPipelineError, FileNotFoundError):
    """A required file or folder does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DamagedFileError(TauPipelineError, OSError):
    """A file exists but cannot be read: truncated gzip, invalid header, or invalid JSON."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class InvalidDatasetError(TauPipelineError, ValueError):
    """A dataset is not valid BIDS according to the official validator."""


class ImageError(TauPipelineError, ValueError):
    """An image can be read but not used: wrong dimensions, singular affine, or all voxels zero."""


class GridMismatchError(ImageError):
    """Two images that must have the same grid do not."""


class MetadataError(TauPipelineError, ValueError):
    """A sidecar lacks a required value, or a value has the wrong type, unit, or range."""


class SettingError(TauPipelineError, ValueError):
    """A setting has an invalid value, or does not exist."""


class UnknownNameError(TauPipelineError, LookupError):
    """A region, tracer, scanner, or manufacturer is unknown; the message lists the known ones."""


class ReferenceRegionError(TauPipelineError, ValueError):
    """A reference region is empty, too small, or has implausible activity."""


class RegistrationError(TauPipelineError, RuntimeError):
    """A registration failed, or its result is implausible."""


class MemoryShortageError(TauPipelineError, MemoryError):
    """There was not enough memory; nothing is wrong with the input."""


#: How PyTorch, NumPy, ITK, and the C++ library say so, the last two in exceptions of any type.
_NO_MEMORY = re.compile(
    r"not enough memory|can't allocate memory|cannot allocate memory|unable to allocate|bad.?alloc|out of memory"
    r"|failed to allocate|memory allocation|errno 12\b",
    re.IGNORECASE,
)


def memory_shortage(exc: BaseException) -> MemoryShortageError | None:
    """Return the error to raise in place of one that means too little memory, whatever its type; None for others.

    Examples
    --------
    >>> memory_shortage(RuntimeError("std::bad_alloc")) is None, memory_shortage(RuntimeError("no brain")) is None
    (False, True)
    """
    if isinstance(exc, MemoryShortageError):
        return exc
    text = str(exc)
    if not isinstance(exc, MemoryError) and not _NO_MEMORY.search(text):
        return None
    first = text.strip().splitlines()[-1][:200] if text.strip() else type(exc).__name__
    return MemoryShortageError(
        f"there was not enough memory ({first}); close other programs, process fewer participants at a time "
        "(--nprocs 1), or raise the limit of the shell or container"
    )


class DivergenceError(TauPipelineError, ArithmeticError):
    """Training diverged: the loss or the gradient is not finite, or the loss is far above its initial value."""


class OutputError(TauPipelineError, OSError):
    """An output cannot be written: no permission, no disk space, or the path is already in use."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class BusyError(OutputError):
    """A folder is locked by another run."""
