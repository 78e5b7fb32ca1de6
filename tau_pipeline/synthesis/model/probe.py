"""Probe of a network: its output for a fixed input, by which a rebuilt network is recognized."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tau_pipeline.errors import DamagedFileError, OutputError
from tau_pipeline.settings.training_inputs import channel_names
from tau_pipeline.synthesis.model.card import CARD, ModelCard
from tau_pipeline.synthesis.model.regression import RegionalRegression
from tau_pipeline.synthesis.networks.networks import SIDE_MULTIPLE

#: How many values of the output are kept to recognize a network.
_PROBED = 16


def probe(generator: nn.Module, card: ModelCard, weights: Mapping[str, Tensor] | None = None) -> list[float]:
    """Return a generator's output for a fixed input, in evaluation mode.

    Parameters
    ----------
    generator
        From T1w and further channels ``(1, C, I, J, K)`` to PET.
    card
        Names the network, which decides how large the input must be: small, but for UNETR, which knows one size.
    weights
        Taken instead of the generator's own.

    Returns
    -------
    list of float
        `_PROBED` values, evenly over the output.

    Raises
    ------
    OutputError
        They are not finite.
    """
    multiple = SIDE_MULTIPLE.get(card.network)
    # Two voxels at the narrowest place: instance normalization of one is not possible.
    shape: tuple[int, ...] = (2 * (multiple or 1), multiple or 1, multiple or 1)
    if isinstance(generator, RegionalRegression):
        shape = generator.probe_shape
    elif multiple is None or card.network == "unetr":
        shape = card.grid.shape
    # On the processor and in full precision whatever trained it: devices differ by more than versions may.
    own = {**dict(generator.named_parameters()), **dict(generator.named_buffers()), **(weights or {})}
    state = {name: value.detach().cpu() for name, value in own.items()}
    # No random numbers, which another version of torch might draw differently.
    n_channels = len(channel_names(card.settings))
    n = n_channels * math.prod(shape)
    t1w = torch.sin(torch.arange(n, dtype=torch.float32) * 0.37).reshape(1, n_channels, *shape)
    was_training = generator.training
    generator.eval()
    with torch.no_grad():
        out = functional_call(generator, state, (t1w,)).flatten()
    generator.train(was_training)
    values = out[torch.linspace(0, len(out) - 1, _PROBED).long()]
    if not bool(torch.isfinite(values).all()):
        raise OutputError(
            f"the network {card.network} gives values that are not finite, so there is no model to keep; train it with "
            "a lower learning rate"
        )
    return [float(value) for value in values]


def check_probe(generator: nn.Module, card: ModelCard, name: str) -> None:
    """Refuse a generator that does not compute what the card says that it computed.

    Raises
    ------
    DamagedFileError
        The card has no such probe, or the generator computes something else; the message names the versions.
    """
    try:
        wanted = torch.tensor(card.probes[name], dtype=torch.float32)
    except (KeyError, TypeError, ValueError) as exc:
        raise DamagedFileError(f"{CARD} has no probe of {name} in numbers; copy the model folder again") from exc
    found = torch.tensor(probe(generator, card))
    # Far more than rounding on other devices makes, far less than another stride, activation or normalization.
    tolerance = 0.01 * float(wanted.abs().max()) + 1e-6
    if wanted.shape != found.shape or not float((wanted - found).abs().max()) <= tolerance:
        raise DamagedFileError(
            f"the network {card.network} ({card.preset}) of this version does not compute what it computed when the "
            f"model was written, by tau-pipeline {card.code_version}, torch {card.torch_version} and MONAI "
            f"{card.monai_version}; install these to use the model"
        )
