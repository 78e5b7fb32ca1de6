"""Settings of a training translated to torch: loss, optimizers, learning rate, order of the scans, seeds.

All of it are pure functions of the settings, the seed, the epoch and the step. A training that goes on after an
interruption calls them with the same numbers, so that no scheduler and no random state has to be kept.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from tau_pipeline.errors import SettingError
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.data.grid import Grid, common_grid
from tau_pipeline.synthesis.losses.weighted import WeightedLoss, build_loss
from tau_pipeline.synthesis.model.regression import REGRESSION
from tau_pipeline.synthesis.networks.networks import NETWORKS
from tau_pipeline.synthesis.networks.recompute import checkpoint_activations

if TYPE_CHECKING:
    from tau_pipeline.synthesis.networks.systems import System


def grid_of(settings: Training) -> Grid:
    """Return the grid to which images are resampled.

    Raises
    ------
    SettingError
        A side of the grid does not divide as the network needs.
    """
    if settings.network == REGRESSION:
        return common_grid(settings.grid_voxel, settings.grid_shape or None, 1)
    side_multiple = NETWORKS[settings.network].side_multiple[settings.network_preset]
    return common_grid(settings.grid_voxel, settings.grid_shape or None, side_multiple, settings.grid_space)


def optimizers(system: System, settings: Training) -> dict[str, torch.optim.Optimizer]:
    """Return one optimizer for each phase of the system's step (generator; discriminator)."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    betas = (settings.adam_beta1, 0.999)
    return {
        phase: kind(
            system.parameters_of(phase),
            lr=_highest_rate(phase, settings),
            betas=betas,
            weight_decay=settings.weight_decay,
        )
        for phase in system.phases
    }


def _highest_rate(phase: str, settings: Training) -> float:
    """Return the highest learning rate of a phase of the system's step."""
    if phase == "discriminator" and settings.discriminator_learning_rate is not None:
        return settings.discriminator_learning_rate
    return settings.learning_rate


def learning_rate_at(epoch: int, settings: Training) -> float:
    """Return the learning rate of an epoch.

    The paper's ``cosine`` is what torch's ``CosineAnnealingLR`` gives: half a period down to 0, half a period up
    again, and so on. ``cosine-once`` falls once, from the end of the warm-up to the last epoch.
    """
    if epoch < settings.warmup_epochs:
        return settings.learning_rate * (epoch + 1) / (settings.warmup_epochs + 1)
    if settings.learning_rate_schedule == "constant":
        return settings.learning_rate
    once = settings.learning_rate_schedule == "cosine-once"
    period = max(settings.epochs - settings.warmup_epochs, 1) if once else settings.learning_rate_period
    return settings.learning_rate * (1 + math.cos(math.pi * (epoch - settings.warmup_epochs) / period)) / 2


def set_learning_rate(optimizers: Mapping[str, torch.optim.Optimizer], epoch: int, settings: Training) -> None:
    """Give all optimizers the learning rate of an epoch; that of discriminators may have another maximum."""
    share = learning_rate_at(epoch, settings) / settings.learning_rate
    for phase, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = share * _highest_rate(phase, settings)


def batches(n_scans: int, batch_size: int, random_seed: int, epoch: int) -> list[list[int]]:
    """Return the scans of each optimizer step of an epoch: every scan once, in an order drawn for the epoch.

    The last batch has what is left.
    """
    order = np.random.default_rng([random_seed, epoch]).permutation(n_scans).tolist()
    return [order[start : start + batch_size] for start in range(0, n_scans, batch_size)]


def in_pieces(scans: Sequence[int], micro_batch_size: int | None) -> list[list[int]]:
    """Split a batch into the pieces that are in memory together."""
    size = micro_batch_size or max(len(scans), 1)
    return [list(scans[start : start + size]) for start in range(0, len(scans), size)]


def seed_everything(*numbers: int) -> None:
    """Seed torch (on all devices), NumPy and Python from several numbers: seed, epoch, step, rank."""
    digest = hashlib.sha256(repr(numbers).encode("ascii")).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    np.random.seed(int.from_bytes(digest[8:12], "little"))  # noqa: NPY002  # for libraries that use the old generator
    random.seed(digest)


def autocast(settings: Training, device: torch.device) -> torch.autocast:
    """Return the context of mixed precision; does nothing where it is off.

    Raises
    ------
    SettingError
        Half precision (fp16) on a CPU, whose small exponent needs the scaling that only GPUs have.
    """
    if settings.mixed_precision == "fp16" and device.type == "cpu":
        raise SettingError("mixed_precision is 'fp16' on a CPU; expected: bf16 or off there")
    dtype = torch.float16 if settings.mixed_precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=settings.mixed_precision != "off")


def prepare_network(network: nn.Module, settings: Training, device: torch.device) -> None:
    """Apply the settings of memory and speed to a network, in place; its state dict keeps its names.

    Parameters
    ----------
    network
        On the device.
    settings
        Read here: ``activation_checkpointing``, ``channels_last``, ``compile_network``, and ``cudnn_benchmark``.
    device
        The last one is for GPUs.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = settings.cudnn_benchmark
    if settings.channels_last:
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if settings.activation_checkpointing:
        checkpoint_activations(network)
    if settings.compile_network:
        network.compile()


def gradient_scaler(settings: Training, device: torch.device) -> torch.amp.GradScaler:
    """Return the scaling of the loss that keeps small gradients in fp16; no-op in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=settings.mixed_precision == "fp16")


def training_loss(settings: Training, device: torch.device) -> WeightedLoss:
    """Return the loss, with its feature network on the device.

    Raises
    ------
    MissingInputError, DamagedFileError
        The feature network's weights are not there, or not what they should be.
    """
    return build_loss(settings).to(device)


@contextmanager
def sound_gradients(network: nn.Module, settings: Training, device: torch.device) -> Iterator[None]:
    """Let those 3-D convolutions of ``network`` leave autocast whose gradients bf16 gets wrong on a CPU.

    In torch 2.13, on processors with ``avx512_bf16``, oneDNN's bf16 weight gradient of a convolution reads memory that
    nobody wrote where the image is thinner than the kernel (3 x 3 x 3 on 2 x 3 x 2 or 2 x 20 x 20 voxels): values up to
    1e35, or small ones that nobody would notice. Without oneDNN, bf16 takes 90 times as long. So convolutions with a
    side no longer than the kernel are computed in float32. These are the innermost layers, which cost next to nothing.
    """
    if device.type != "cpu" or settings.mixed_precision != "bf16":
        yield
        return
    entered: list[torch.autocast | None] = []

    def before(layer: nn.Conv3d | nn.ConvTranspose3d, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        image = args[0]
        tiny = any(side <= size for side, size in zip(image.shape[2:], layer.kernel_size, strict=True))
        entered.append(torch.autocast("cpu", enabled=False).__enter__() if tiny else None)
        return (image.float(), *args[1:]) if tiny else None

    def after(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        context = entered.pop()
        if context is not None:
            context.__exit__(None, None, None)

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)]
    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    hooks += [layer.register_forward_hook(after, always_call=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
