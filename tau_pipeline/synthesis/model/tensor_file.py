"""Files of tensors in a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tau_pipeline.errors import DamagedFileError, OutputError
from tau_pipeline.files import complete_file


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """Write tensors by name as a safetensors file, complete or not at all, with the permissions of other files.

    Parameters
    ----------
    tensors
        Tensors of any shape, on any device. They are copied first, because two names may share memory.
    path
        Ends in ``.safetensors``.

    Raises
    ------
    OutputError
        The folder cannot be written to, or the disk is full.
    """
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with complete_file(path) as partial:
        mode = partial.stat().st_mode
        try:
            save_file(copies, partial)
        except SafetensorError as exc:
            # Such as a full disk.
            raise OutputError(f"cannot write {path}: {exc}") from exc
        # The library puts a file in its place that the user alone can read, whatever the umask.
        partial.chmod(mode)
    return Path(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU.

    Raises
    ------
    DamagedFileError
        The file cannot be read.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as exc:
        raise DamagedFileError(f"{path} is damaged ({exc}); copy the model folder again") from exc
