"""What a network is trained to make small: MSE, SSIM and a perceptual term, weighted and added up.

Tensors are ``(B, 1, I, J, K)`` in RAS order. The perceptual terms are in `tau_pipeline.synthesis.losses.perceptual`,
their feature networks in `tau_pipeline.synthesis.losses.features`; the names that scripts need are here too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from monai.losses import SSIMLoss
from torch import Tensor, nn

from tau_pipeline.errors import ImageError, SettingError
from tau_pipeline.synthesis.losses.features import (
    find_resnet3d_features,
    find_vgg16_features,
    load_resnet3d_features,
    load_vgg16_features,
    random_features,
    random_resnet3d_features,
)
from tau_pipeline.synthesis.losses.perceptual import (
    EMPTY_FRACTION,
    CyclicPerceptualLoss,
    EmptySlices,
    PlanePerceptualLoss,
    Scaling,
    ThreePlanePerceptualLoss,
    VolumePerceptualLoss,
    check_slice_settings,
)
from tau_pipeline.synthesis.losses.schedule import plane_at

__all__ = [
    "CyclicPerceptualLoss",
    "LossSettings",
    "PlanePerceptualLoss",
    "ThreePlanePerceptualLoss",
    "VolumePerceptualLoss",
    "WeightedLoss",
    "build_features",
    "build_loss",
    "load_vgg16_features",
]

LossKind = Literal["mse_ssim", "2.5d", "3d", "cyclic2.5d"]
FeatureKind = Literal["pretrained", "vgg16", "random"]


@dataclass(frozen=True)
class LossSettings:
    """Settings of the loss; the defaults are the paper's, as its authors' current code has them.

    Parameters
    ----------
    kind
        Perceptual term: "cyclic2.5d" (planes take turns), "2.5d" (three planes in every step), "3d" (3-D features), or
        "mse_ssim" (none).
    mse, ssim, perceptual
        Weights of the mean squared error, of 1 - SSIM, and of the perceptual term. A term of weight 0 is not computed.
    first_cycle, factor
        Epochs of each plane in the first round, and what they are multiplied by after a round (cyclic2.5d).
    chunk
        Slices that pass through the feature network together; None goes by free memory.
    empty_slices, empty_fraction
        Whether slices count in which the target spans less than this fraction of its span over the volume.
    scaling
        Minimum and maximum of slices of each "item", or over the "batch" as in the authors' code.
    ssim_window, ssim_sigma
        Side of the 3-D Gaussian window of SSIM and its standard deviation, in voxels.
    data_range
        Span of values that SSIM's constants refer to.
    features
        "pretrained" (or "vgg16", for slices the same), or "random" weights of a small network.
    features_path
        File with the pretrained weights. None: VGG-16 from torch's hub cache or a download; 3-D has no default.
    features_seed
        Seed of random features.

    Raises
    ------
    SettingError
        A setting has a value that cannot be used.
    """

    kind: LossKind = "cyclic2.5d"
    mse: float = 1.0
    ssim: float = 1.0
    perceptual: float = 0.5
    first_cycle: int = 120
    factor: float = 2 / 3
    chunk: int | None = None
    empty_slices: EmptySlices = "skip"
    empty_fraction: float = EMPTY_FRACTION
    scaling: Scaling = "item"
    ssim_window: int = 11
    ssim_sigma: float = 1.5
    data_range: float = 2.0
    features: FeatureKind = "pretrained"
    features_path: Path | None = None
    features_seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in {"kind": LossKind, "features": FeatureKind}.items():
            known = get_args(kind)
            _require(getattr(self, name) in known, name, getattr(self, name), f"one of {', '.join(known)}")
        for name in ("mse", "ssim", "perceptual"):
            weight = getattr(self, name)
            _require(math.isfinite(weight) and weight >= 0, name, weight, "a finite weight, 0 or more")
        used = self.mse + self.ssim + (self.perceptual if self.kind != "mse_ssim" else 0)
        _require(used > 0, "mse, ssim, perceptual", 0, "at least one weight above 0 among the terms in use")
        for name in ("ssim_sigma", "data_range"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, value, "a number above 0")
        odd = isinstance(self.ssim_window, int) and self.ssim_window > 0 and self.ssim_window % 2 == 1
        _require(odd, "ssim_window", self.ssim_window, "an odd whole number above 0")
        check_slice_settings(self.chunk, self.empty_slices, self.empty_fraction, self.scaling)
        plane_at(0, self.first_cycle, self.factor)  # refuses a schedule that cannot be

    @property
    def needs_features(self) -> bool:
        """Whether a feature network takes part."""
        return self.kind != "mse_ssim" and self.perceptual > 0


class WeightedLoss(nn.Module):
    """Weighted sum of mean squared error, 1 - SSIM and a perceptual term, with each of them for the log.

    Parameters
    ----------
    settings
        Weights and the rest.
    features
        Feature network of the perceptual term; may be None where there is no such term.

    Raises
    ------
    SettingError
        A feature network is needed and was not given.
    """

    def __init__(self, settings: LossSettings, features: nn.Module | None) -> None:
        super().__init__()
        self.settings = settings
        self.ssim = SSIMLoss(
            spatial_dims=3,
            data_range=settings.data_range,
            win_size=settings.ssim_window,
            kernel_sigma=settings.ssim_sigma,
        )
        self.perceptual = _perceptual(settings, features) if settings.needs_features else None

    def forward(self, prediction: Tensor, target: Tensor, epoch: int) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch.

        Parameters
        ----------
        prediction, target
            ``(B, 1, I, J, K)``.
        epoch
            From 0; chooses the plane of the cyclic loss.

        Returns
        -------
        Tensor
            The weighted sum, a scalar in float32.
        dict
            The terms before they are weighted: "mse", "ssim" (1 - SSIM), "perceptual". Only those of weight above 0.

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
            if weights.mse:
                parts["mse"] = weights.mse, nn.functional.mse_loss(prediction.float(), target.float())
            if weights.ssim:
                parts["ssim"] = weights.ssim, self.ssim(prediction.float(), target.float())
        if self.perceptual is not None:
            parts["perceptual"] = weights.perceptual, self._perceptual_term(prediction, target, epoch)
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
        if self.settings.ssim and min(prediction.shape[2:], default=0) < self.settings.ssim_window:
            raise ImageError(
                f"the prediction has the shape {tuple(prediction.shape)}; expected: (B, 1, I, J, K) with sides of "
                f"{self.settings.ssim_window} or more, the window of SSIM"
            )


def build_features(settings: LossSettings) -> nn.Module | None:
    """The feature network that the settings ask for, or None where there is no perceptual term.

    Raises
    ------
    MissingInputError, DamagedFileError
        The file with the weights is not there, or holds something else.
    """
    if not settings.needs_features:
        return None
    if settings.features == "random":
        seed = settings.features_seed
        return random_resnet3d_features(seed) if settings.kind == "3d" else random_features(seed)
    if settings.kind == "3d":
        return load_resnet3d_features(find_resnet3d_features(settings.features_path))
    return load_vgg16_features(find_vgg16_features(settings.features_path))


def build_loss(settings: LossSettings, features: nn.Module | None = None) -> WeightedLoss:
    """The loss that the settings describe.

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


def _perceptual(settings: LossSettings, features: nn.Module | None) -> nn.Module:
    if features is None:
        raise SettingError(f"the loss {settings.kind!r} needs a feature network; give one, or call build_loss")
    if settings.kind == "3d":
        return VolumePerceptualLoss(features)
    slices = (settings.chunk, settings.empty_slices, settings.empty_fraction, settings.scaling)
    if settings.kind == "2.5d":
        return ThreePlanePerceptualLoss(PlanePerceptualLoss(features, *slices))
    return CyclicPerceptualLoss(features, settings.first_cycle, settings.factor, *slices)


def _require(condition: bool, name: str, found: object, expected: str) -> None:
    if not condition:
        raise SettingError(f"{name} is {found!r}; expected: {expected}")
