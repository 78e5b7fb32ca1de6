"""Checkpoints of a training: complete or not there, recognized when torn, the last two kept.

A file holds a line that says what it is, the SHA-256 of the rest, and the rest: what `torch.save` makes of tensors,
numbers, texts, lists and dicts, read with ``weights_only=True``, so that nothing in a checkpoint is ever executed. A
checkpoint gets its name only once it is on the disk. A disk that loses power can still tear it; the hash shows this,
and the one before is used.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from pathlib import Path
from typing import IO, Any, cast

import torch

from tau_pipeline.errors import DamagedFileError
from tau_pipeline.files import complete_file
from tau_pipeline.synthesis.networks.weights import read_torch_file

#: Checkpoints that are kept: the newest, and one to fall back on.
KEPT = 2

_FIRST_LINE = b"tau-pipeline checkpoint 1\n"
_HASH_CHARACTERS = 64
_NAME = re.compile(r"checkpoint-(\d+)-(\d+)\.pt")

_log = logging.getLogger(__name__)


def write_checkpoint(folder: Path, state: dict[str, Any], epoch: int, step: int) -> Path:
    """Write a checkpoint and remove all but the newest `KEPT`.

    Parameters
    ----------
    folder
        Made where it does not exist.
    state
        Tensors, numbers, texts, None, and lists and dicts of them.
    epoch, step
        Where training will go on: ``step`` optimizer steps of ``epoch`` are done. They make the file's name.

    Raises
    ------
    OutputError
        The folder cannot be written to, or the disk is full. Earlier checkpoints are untouched.
    """
    folder = Path(folder)
    path = folder / f"checkpoint-{epoch:06d}-{step:06d}.pt"
    with complete_file(path) as partial, partial.open("wb") as file:
        file.write(_FIRST_LINE + b"0" * _HASH_CHARACTERS)
        hashing = _HashingWriter(file)
        _save(state, hashing)
        file.seek(len(_FIRST_LINE))
        file.write(hashing.digest.hexdigest().encode("ascii"))
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(folder)
    for old in find_checkpoints(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first; partial files are ignored."""
    found = [path for path in Path(folder).glob("checkpoint-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: tuple(int(number) for number in _NAME.fullmatch(path.name).groups()))  # type: ignore[union-attr]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, with all tensors on the CPU.

    Raises
    ------
    DamagedFileError
        The file is torn or something else.
    """
    content = memoryview(Path(path).read_bytes())
    start = len(_FIRST_LINE) + _HASH_CHARACTERS
    if bytes(content[: len(_FIRST_LINE)]) != _FIRST_LINE:
        raise DamagedFileError(f"{path} is no checkpoint of this program")
    expected = bytes(content[len(_FIRST_LINE) : start])
    if hashlib.sha256(content[start:]).hexdigest().encode("ascii") != expected:
        raise DamagedFileError(f"the checkpoint {path} is not complete")
    state: dict[str, Any] = read_torch_file(io.BytesIO(content[start:]), f"the checkpoint {path}")
    return state


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the newest complete checkpoint; None if there is none.

    Damaged ones are passed over with a warning.
    """
    for path in reversed(find_checkpoints(folder)):
        try:
            return read_checkpoint(path)
        except DamagedFileError as exc:
            _log.warning("%s; continuing from the previous checkpoint", exc)
    return None


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed process left of a checkpoint that it was writing."""
    for partial in Path(folder).glob(".partial-*.pt"):
        partial.unlink(missing_ok=True)


def _save(state: dict[str, Any], file: _HashingWriter) -> None:
    try:
        # write() is all that torch needs.
        torch.save(state, cast("IO[bytes]", file))
    except RuntimeError:
        # When a write fails, torch raises its own error, which hides that of the disk.
        if file.error is not None:
            raise file.error from None
        raise


class _HashingWriter:
    """A file to write to, which keeps the SHA-256 of what was written, and the error if it could not be."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as exc:
            self.error = exc
            raise

    def flush(self) -> None:
        self._file.flush()


def _sync_folder(folder: Path) -> None:
    """Bring the new name itself to the disk, where the system has a way to."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
