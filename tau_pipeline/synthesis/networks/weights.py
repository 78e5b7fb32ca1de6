"""Files of tensors that torch wrote, read without letting them run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import torch

from tau_pipeline.errors import DamagedFileError

#: Longest part of torch's own message that is passed on.
_MOST_SAID = 200


def read_torch_file(file: Path | BinaryIO, source: str) -> Any:
    """Read a file that ``torch.save`` wrote, with all tensors on the CPU.

    Parameters
    ----------
    file
        Path or open file.
    source
        What to call it in a message.

    Raises
    ------
    DamagedFileError
        It is torn or something else, or holds other things than tensors, numbers, texts and their collections.
    """
    try:
        # weights_only: a file from anywhere can hold numbers, but no code.
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as exc:
        # Torch runs the file's opcodes unchecked: IndexError, KeyError and others have been seen besides its own.
        reason = str(exc).splitlines()[0][:_MOST_SAID] if str(exc) else type(exc).__name__
        raise DamagedFileError(
            f"{source} cannot be read as a torch file of weights alone ({reason}); expected: tensors that torch.save "
            "wrote, without other objects"
        ) from exc
