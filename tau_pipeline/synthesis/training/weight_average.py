"""Exponential moving average of a network's weights, by torch's `torch.optim.swa_utils.AveragedModel`.

See docs/decisions/weight-average.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage:
    """Average of the weights over the last steps: ``average += (1 - decay) (weights - average)``.

    The decay of step t is at most (1 + t) / (10 + t), so that the first weights, which are random, are soon forgotten
    (as in TensorFlow's ExponentialMovingAverage). Buffers and integers are copied, not averaged.

    Parameters
    ----------
    network
        The network that is trained.
    ema_decay
        Between 0 and 1.
    """

    def __init__(self, network: nn.Module, ema_decay: float) -> None:
        def average(averaged: Tensors, weights: Tensors, step: Tensor | int) -> None:
            decay = min(ema_decay, (1 + int(step)) / (10 + int(step)))
            for old, new in zip(averaged, weights, strict=True):
                old.lerp_(new, 1 - decay)

        self._averaged = AveragedModel(network, multi_avg_fn=average)
        # Counted from 1, since torch's first update would discard the weights before the first step.
        self._averaged.n_averaged.fill_(1)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Return the averaged weights, as a state dict of the network."""
        return dict(self._averaged.module.state_dict())

    def update(self, network: nn.Module) -> None:
        """Average the weights after an optimizer step into the others."""
        self._averaged.update_parameters(network)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs."""
        return {"steps": int(self._averaged.n_averaged) - 1, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._averaged.n_averaged.fill_(state["steps"] + 1)
        self._averaged.module.load_state_dict(state["weights"])


@contextmanager
def averaged_weights(network: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """Put the average in the network's place for the length of a block; None leaves the network as it is."""
    if average is None:
        yield
        return
    own = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(average.weights)
    try:
        yield
    finally:
        network.load_state_dict(own)
