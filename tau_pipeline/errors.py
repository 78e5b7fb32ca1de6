"""Every error a user can meet.

One base class, so that a caller can catch them all; each is also the nearest built-in, so that a script that knows
nothing of this package can catch it too. A message is one sentence or two: what was found, what was expected, what
to do. It stands alone: the user sees it without a traceback.
"""

from __future__ import annotations

import reprlib
from typing import Any

_shown = reprlib.Repr()
_shown.maxlevel, _shown.maxlist, _shown.maxtuple, _shown.maxdict = 3, 8, 8, 4
_shown.maxstring = _shown.maxlong = _shown.maxother = 80


def shown(value: Any) -> str:
    """A value that was found, for a message: as Python writes it, but never longer than a line or two.

    >>> shown("4800"), shown([1] * 100)
    ("'4800'", '[1, 1, 1, 1, 1, 1, 1, 1, ...]')
    """
    return _shown.repr(value)


class TauPipelineError(Exception):
    """Base of all errors that this package raises on purpose."""


class MissingInputError(TauPipelineError, FileNotFoundError):
    """A file or folder that the call needs is not there."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DamagedFileError(TauPipelineError, OSError):
    """A file is there but cannot be read: truncated gzip, broken header, JSON that does not parse."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class InvalidDatasetError(TauPipelineError, ValueError):
    """A dataset as a whole breaks the rules of BIDS, by the word of the official validator."""


class ImageError(TauPipelineError, ValueError):
    """An image can be read but cannot be used: wrong dimensions, singular affine, nothing but zeros."""


class GridMismatchError(ImageError):
    """Two images that must share one grid do not."""


class MetadataError(TauPipelineError, ValueError):
    """A sidecar lacks a value that the job needs, or holds one of the wrong type, unit or range."""


class SettingError(TauPipelineError, ValueError):
    """A setting has a value that cannot be used, or a name that does not exist."""


class UnknownNameError(TauPipelineError, LookupError):
    """A region, tracer, scanner or manufacturer that is not known; the message lists the known ones."""


class ReferenceRegionError(TauPipelineError, ValueError):
    """A reference region is empty, too small or has an implausible activity."""


class RegistrationError(TauPipelineError, RuntimeError):
    """A registration failed, or its result is implausible."""


class DivergenceError(TauPipelineError, ArithmeticError):
    """A training has left the numbers: its loss or gradient is not finite, or far above where it began."""


class OutputError(TauPipelineError, OSError):
    """A result cannot be written: no permission, no space, or the place is taken by something else."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class BusyError(OutputError):
    """A folder is in use by another run."""
