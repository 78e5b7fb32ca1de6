"""Data-parallel training: the processes that ``torchrun`` starts, and what they exchange.

Each process computes the gradients of its share of a batch. Every term of the loss is a mean over scans, so the
gradient of the whole batch is the sum of the shares' gradients, each weighted by its part of the scans: with any
number of processes the optimizer sees the same gradient, to rounding. (Dropout draws differently in each: there the
results are equally good, not equal.) Process 0 alone writes files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.settings.training import Device, Training
from tau_pipeline.synthesis.model.predict import chosen_device

#: How long a process waits for the others. Process 0 alone tests and calibrates the finished model, which may take
#: hours; a process that ends is noticed long before.
_PATIENCE = timedelta(hours=24)


class Processes:
    """One process among those that train together; alone, its methods do nothing.

    Parameters
    ----------
    rank
        Number of this process, from 0.
    size
        How many there are.
    device
        Where this one computes.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device

    @property
    def writes(self) -> bool:
        """True if this process is the one that writes files."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> list[Any]:
        """Return the part of a sequence that falls to this process."""
        return list(items[self.rank :: self.size])

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes, in one message; none counts as 0."""
        if self.size == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter)

    def same_as_first(self, module: nn.Module) -> None:
        """Give every process the weights and buffers of process 0."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, src=0)

    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise an error of one process within the block in all of them, so that none waits for the others in vain.

        The block must not exchange anything between the processes.

        Raises
        ------
        TauPipelineError
            Of this process or, in its words, of the first process that had one.
        RuntimeError
            Another process had an error of another kind.
        """
        own: Exception | None = None
        try:
            yield
        except Exception as exc:
            own = exc
        said = None if own is None else (type(own) if isinstance(own, TauPipelineError) else RuntimeError, str(own))
        failed = [found for found in self.gathered(said) if found is not None]
        if own is not None:
            raise own
        if failed:
            kind, message = failed[0]
            raise kind(message)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def processes(device: Device = Training.device) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started (its environment variables say so), or be alone.

    Parameters
    ----------
    device
        ``cpu``, ``cuda`` or ``auto``, which takes a GPU where there is one. Each process takes a separate GPU.

    Raises
    ------
    SettingError
        ``cuda`` is requested and there is no GPU.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = chosen_device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if size == 1:
        yield Processes(0, 1, place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(rank, size, place)
    finally:
        distributed.destroy_process_group()
