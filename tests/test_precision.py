"""Gradients in bf16 on a CPU are those of float32, also in the innermost layers of a small image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.training.optimization import autocast, sound_gradients

CPU = torch.device("cpu")
BF16 = Training(mixed_precision="bf16")


def gradients(layer: nn.Module, image: Tensor, settings: Training, recompute: bool = False) -> list[Tensor]:
    """Of the mean square of the layer's output, as a training step computes them."""
    layer.zero_grad()
    with sound_gradients(layer, settings, CPU):
        with autocast(settings, CPU):
            found = checkpoint(layer, image, use_reentrant=False) if recompute else layer(image)
            value = found.float().square().mean()
        value.backward()
    return [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 2), (2, 20, 20), (3, 3, 3), (4, 6, 4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_weight_gradients_of_tiny_images_are_right(shape: tuple[int, ...], stride: int, recompute: bool) -> None:
    torch.manual_seed(0)
    for _ in range(5):
        # Memory that is given back full of large numbers is what a gradient that reads too far would find.
        del [torch.full((200_000,), 1e30) for _ in range(3)][:]
        layer = nn.Conv3d(64, 128, 3, stride, padding=1)
        image = torch.randn(1, 64, *shape)
        expected = gradients(layer, image, Training())
        for found, right in zip(gradients(layer, image, BF16, recompute), expected, strict=True):
            # bf16 has 8 bits of mantissa.
            assert float((found - right).abs().max()) <= 0.03 * float(right.abs().max())


def test_large_images_stay_in_bf16() -> None:
    layer = nn.Conv3d(4, 8, 3, padding=1)
    with sound_gradients(layer, BF16, CPU), autocast(BF16, CPU):
        assert layer(torch.randn(1, 4, 8, 8, 8)).dtype == torch.bfloat16
        assert layer(torch.randn(1, 4, 2, 8, 8)).dtype == torch.float32
