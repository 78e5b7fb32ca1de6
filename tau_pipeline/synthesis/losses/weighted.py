"""Loss of a network: MSE, SSIM and a perceptual term, weighted and added up.

Tensors are ``(B, 1, I, J, K)`` in RAS order. The perceptual terms are in `tau_pipeline.synthesis.losses.perceptual`,
their feature networks in `tau_pipeline.synthesis.losses.features`; the names that scripts need are here too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.losses import SSIMLoss
from torch import Tensor, nn

from tau_pipeline.errors import ImageError, SettingError
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.losses.features import (
    find_resnet3d_features,
    find_vgg16_features,
    load_resnet3d_features,
    load_vgg16_features,
    random_features,
    random_resnet3d_features,
)
from tau_pipeline.synthesis.losses.perceptual import (
    CyclicPerceptualLoss,
    PlanePerceptualLoss,
    ThreePlanePerceptualLoss,
    VolumePerceptualLoss,
)

__all__ = [
    "CyclicPerceptualLoss",
    "PlanePerceptualLoss",
    "ThreePlanePerceptualLoss",
    "VolumePerceptualLoss",
    "WeightedLoss",
    "Within",
    "build_features",
    "build_loss",
    "load_vgg16_features",
]


class Within(NamedTuple):
    """Voxels that absolute errors are averaged over, boolean ``(B, 1, I, J, K)``; None stands for all.

    ``brain`` is where the PET is known in the brain, ``regions`` the part of it in regions of the Braak stages.
    """

    brain: Tensor | None = None
    regions: Tensor | None = None


def _absolute_error(prediction: Tensor, target: Tensor, inside: Tensor | None) -> Tensor:
    """Return the mean over scans of the mean absolute error inside; a scan without voxels there has none."""
    difference = (prediction.float() - target.float()).abs()
    if inside is None:
        return difference.mean()
    over = tuple(range(1, difference.ndim))
    return ((difference * inside).sum(over) / inside.sum(over).clamp(min=1)).mean()


class WeightedLoss(nn.Module):
    """Weighted sum of squared and absolute errors, 1 - SSIM and a perceptual term, with each of them for the log.

    Parameters
    ----------
    settings
        Read here: the loss, its weights, and the settings of SSIM and of the perceptual term.
    features
        Feature network of the perceptual term; may be None where there is no such term.

    Raises
    ------
    SettingError
        A feature network is needed and was not given.
    """

    def __init__(self, settings: Training, features: nn.Module | None) -> None:
        super().__init__()
        self.settings = settings
        self.ssim = SSIMLoss(
            spatial_dims=3,
            data_range=settings.ssim_range,
            win_size=settings.ssim_window,
            kernel_sigma=settings.ssim_sigma,
        )
        self.perceptual = _perceptual(settings, features) if settings.needs_features else None

    def forward(
        self, prediction: Tensor, target: Tensor, epoch: int, within: Within | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch.

        Parameters
        ----------
        prediction, target
            ``(B, 1, I, J, K)``.
        epoch
            From 0; chooses the plane of the cyclic loss.
        within
            Voxels of the absolute errors; None for all of the volume.

        Returns
        -------
        Tensor
            The weighted sum, a scalar in float32.
        dict
            The terms before they are weighted: "mse", "ssim" (1 - SSIM), "mae", "region_mae", "perceptual". Only those
            of weight above 0.

        Raises
        ------
        ImageError
            The volumes cannot be compared, or are smaller than SSIM's window.
        """
        self._check_window(prediction)
        parts: dict[str, tuple[float, Tensor]] = {}
        weights = self.settings
        # In half precision, squares of differences and SSIM's variances would lose what they are about.
        with torch.autocast(prediction.device.type, enabled=False):
            if weights.mse_weight:
                parts["mse"] = weights.mse_weight, nn.functional.mse_loss(prediction.float(), target.float())
            if weights.ssim_weight:
                parts["ssim"] = weights.ssim_weight, self.ssim(prediction.float(), target.float())
            brain, regions = within or Within()
            if weights.mae_weight:
                parts["mae"] = weights.mae_weight, _absolute_error(prediction, target, brain)
            if weights.region_mae_weight:
                parts["region_mae"] = weights.region_mae_weight, _absolute_error(prediction, target, regions)
        if self.perceptual is not None:
            parts["perceptual"] = weights.perceptual_weight, self._perceptual_term(prediction, target, epoch)
        total = torch.stack([weight * value for weight, value in parts.values()]).sum()
        return total, {name: value.item() for name, (_, value) in parts.items()}

    def _perceptual_term(self, prediction: Tensor, target: Tensor, epoch: int) -> Tensor:
        term = self.perceptual
        value: Tensor
        if isinstance(term, CyclicPerceptualLoss):
            value = term(prediction, target, epoch)
        else:
            assert term is not None
            value = term(prediction, target)
        return value

    def _check_window(self, prediction: Tensor) -> None:
        if self.settings.ssim_weight and min(prediction.shape[2:], default=0) < self.settings.ssim_window:
            raise ImageError(
                f"the prediction has the shape {tuple(prediction.shape)}; expected: (B, 1, I, J, K) with sides of "
                f"{self.settings.ssim_window} or more, the window of SSIM"
            )


def build_features(settings: Training) -> nn.Module | None:
    """Build the feature network of the settings, or None where there is no perceptual term.

    Raises
    ------
    MissingInputError, DamagedFileError
        The file with the weights is not there, or holds something else.
    """
    if not settings.needs_features:
        return None
    if settings.perceptual_features == "random":
        return random_resnet3d_features(0) if settings.loss == "3d" else random_features(0)
    if settings.loss == "3d":
        return load_resnet3d_features(find_resnet3d_features(settings.perceptual_weights_file))
    return load_vgg16_features(find_vgg16_features(settings.perceptual_weights_file))


def build_loss(settings: Training, features: nn.Module | None = None) -> WeightedLoss:
    """Build the loss that the settings describe.

    Parameters
    ----------
    settings
        What to add up.
    features
        A feature network; None to find the one that the settings ask for.

    Raises
    ------
    MissingInputError, DamagedFileError
        The file with the weights of the features is not there, or holds something else.
    """
    return WeightedLoss(settings, build_features(settings) if features is None else features)


def _perceptual(settings: Training, features: nn.Module | None) -> nn.Module:
    if features is None:
        raise SettingError(f"the loss {settings.loss!r} needs a feature network; give one, or call build_loss")
    if settings.loss == "3d":
        return VolumePerceptualLoss(features)
    if settings.loss == "2.5d":
        loss = PlanePerceptualLoss(
            features,
            chunk=settings.perceptual_chunk,
            empty_slices=settings.empty_slices,
            scaling=settings.perceptual_scaling,
        )
        loss.slice_share = settings.perceptual_slices
        return ThreePlanePerceptualLoss(loss)
    cyclic = CyclicPerceptualLoss(
        features,
        first_cycle=settings.first_cycle,
        factor=settings.cycle_factor,
        chunk=settings.perceptual_chunk,
        empty_slices=settings.empty_slices,
        scaling=settings.perceptual_scaling,
    )
    cyclic.loss.slice_share = settings.perceptual_slices
    return cyclic
