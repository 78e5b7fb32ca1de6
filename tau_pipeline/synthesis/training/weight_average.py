"""Exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average of the weights over the last steps: ``average += (1 - decay) (weights - average)``.

    The decay of step t is at most (1 + t) / (10 + t), so that the first weights, which are random, are soon forgotten
    (as in TensorFlow's ExponentialMovingAverage). Buffers and integers are copied, not averaged.

    Parameters
    ----------
    network
        The network that is trained.
    decay
        Between 0 and 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights: dict[str, Tensor] = {name: value.clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after an optimiser step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        trained = {name for name, _ in network.named_parameters()}
        for name, value in network.state_dict().items():
            if name in trained and value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)

    def state_dict(self) -> dict[str, object]:
        """Return everything that `load_state_dict` needs."""
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from `state_dict`."""
        self.steps = int(state["steps"])  # type: ignore[call-overload]
        for name, value in state["weights"].items():  # type: ignore[attr-defined]
            self.weights[name].copy_(value)


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
