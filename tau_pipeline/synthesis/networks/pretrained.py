"""Weights of another training as the start of a network: whatever has the same name and shape."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tau_pipeline.errors import DamagedFileError, SettingError
from tau_pipeline.synthesis.networks.networks import AddedToPrior
from tau_pipeline.synthesis.networks.weights import read_torch_file

_log = logging.getLogger(__name__)
#: Names under which training programs keep the weights in their checkpoints.
_WITHIN = ("state_dict", "model_state_dict", "model", "network")
#: Names that a message gives.
_MOST_NAMED = 3


def load_pretrained(network: nn.Module, file: Path) -> dict[str, Any]:
    """Give a network the tensors of a file that fit it; all others keep their random start.

    A tensor fits if it has the shape and the name of one of the network's. Leading parts of the name in the file
    (``module.``, ``encoder.``) do not count. The last layer of a network that corrects a prior is left at 0, so that
    training still starts from the prior.

    Parameters
    ----------
    network
        A generator; changed in place.
    file
        Weights or a checkpoint that ``torch.save`` wrote.

    Returns
    -------
    dict
        For the model card: ``file`` (its name), ``sha256``, ``loaded`` and ``total``, the numbers of tensors.

    Raises
    ------
    DamagedFileError
        It cannot be read, or holds no tensors.
    SettingError
        Nothing in it fits.
    """
    file = Path(file)
    given = _tensors(read_torch_file(file, str(file)), file)
    corrected = isinstance(network, AddedToPrior)
    target = network.network if isinstance(network, AddedToPrior) else network
    own = target.state_dict()
    if corrected:
        own = {name: value for name, value in own.items() if name.rpartition(".")[0] != network.last}
    fitting = {}
    for name, value in given.items():
        found = next((end for end in _ends(name) if end in own and own[end].shape == value.shape), None)
        if found is not None:
            fitting[found] = value
    if not fitting:
        named = ", ".join(list(given)[:_MOST_NAMED])
        raise SettingError(
            f"no tensor of {file} fits this network (it has {named}, ...; the network has "
            f"{', '.join(list(own)[:_MOST_NAMED])}, ...); expected: weights of the same network and preset"
        )
    target.load_state_dict(fitting, strict=False)
    rest = [name for name in own if name not in fitting]
    _log.info(
        "%d of %d tensors of the network start from %s%s",
        len(fitting),
        len(own),
        file.name,
        f"; random: {', '.join(rest[:_MOST_NAMED])}{', ...' if len(rest) > _MOST_NAMED else ''}" if rest else "",
    )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"file": file.name, "sha256": digest, "loaded": len(fitting), "total": len(own)}


def _tensors(content: Any, file: Path) -> dict[str, Tensor]:
    """Return the tensors by name, of the file itself or of the first part that programs keep them in."""
    parts = [content, *(content[name] for name in _WITHIN if isinstance(content, Mapping) and name in content)]
    for part in parts:
        if isinstance(part, Mapping):
            found = {str(name): value for name, value in part.items() if isinstance(value, Tensor)}
            if found:
                return found
    raise DamagedFileError(f"{file} holds no tensors by name; expected: a state dict, or a checkpoint with one")


def _ends(name: str) -> Iterator[str]:
    """Yield a name, and what is left of it without its first part, its first two parts, and so on."""
    parts = name.split(".")
    for start in range(len(parts) - 1):
        yield ".".join(parts[start:])
