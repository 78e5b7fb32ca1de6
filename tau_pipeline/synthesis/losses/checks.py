"""Checks of what the perceptual losses are given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tau_pipeline.errors import ImageError
from tau_pipeline.settings.fields import require


def check_volumes(prediction: Tensor, target: Tensor) -> None:
    """Refuse volumes that cannot be compared.

    Raises
    ------
    ImageError
        Shapes differ or are not ``(B, 1, I, J, K)``, or the target holds NaN or infinite values.
    """
    for name, volumes in (("prediction", prediction), ("target", target)):
        if volumes.ndim != 5 or volumes.shape[1] != 1 or 0 in volumes.shape:
            raise ImageError(f"the {name} has the shape {tuple(volumes.shape)}; expected: (B, 1, I, J, K)")
        if not volumes.is_floating_point():
            raise ImageError(f"the {name} holds {volumes.dtype}; expected: floating-point numbers")
    if prediction.shape != target.shape:
        raise ImageError(
            f"the prediction has the shape {tuple(prediction.shape)} and the target {tuple(target.shape)}; expected: "
            "the same"
        )
    if not (torch.isfinite(target.amin()) and torch.isfinite(target.amax())):
        raise ImageError("the target holds NaN or infinite values; expected: a measured volume with finite ones")


def check_device(volumes: Tensor, features: nn.Module) -> None:
    """Refuse volumes on another device than the features.

    Raises
    ------
    ImageError
        The message names both devices.
    """
    device = next(features.parameters()).device
    if device != volumes.device:
        raise ImageError(
            f"the volumes are on {volumes.device} and the features of the perceptual loss on {device}; move the loss "
            f"with loss.to({str(volumes.device)!r})"
        )


def check_slice_settings(chunk: int | None, empty_slices: str, empty_fraction: float, scaling: str) -> None:
    """Refuse settings of `PlanePerceptualLoss` that cannot be used.

    Raises
    ------
    SettingError
        The message names the setting and the value.
    """
    whole = isinstance(chunk, int) and not isinstance(chunk, bool) and chunk > 0
    require(chunk is None or whole, "chunk", chunk, "a whole number above 0, or None to go by free memory")
    require(empty_slices in ("skip", "paper"), "empty_slices", empty_slices, "skip or paper")
    require(0 <= empty_fraction < 1, "empty_fraction", empty_fraction, "a fraction, 0 or more and below 1")
    require(scaling in ("item", "batch"), "scaling", scaling, "item or batch")
