"""Perceptual losses between a predicted and a measured volume: by slices of one plane, of three, in turn, or in 3-D.

The loss of a slice is ``((f(x) - f(y)) ** 2).mean()`` with the feature network ``f`` and the predicted and measured
slices ``x`` and ``y``, both scaled to [0, 1]. The rest of this module keeps that within memory.

All take tensors ``(B, 1, I, J, K)`` in RAS order: sagittal slices lie along I, coronal along J, axial along K.

The loss of slices is that of Moon, Kim, Chung & Jang 2026 (Human Brain Mapping 47(5) e70508): each slice of prediction
and of target is scaled to [0, 1] by its own minimum and maximum, passed through VGG-16 up to relu4_3, and the mean
squared difference of the two responses is averaged over the slices of one plane. It sees neither scale nor offset of a
slice; those are learned from MSE and SSIM.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tau_pipeline.errors import ImageError, SettingError, UnknownNameError
from tau_pipeline.settings.fields import require
from tau_pipeline.settings.training import EmptySlices, PerceptualScaling, Training
from tau_pipeline.synthesis.losses.checks import check_device, check_slice_settings, check_volumes
from tau_pipeline.synthesis.losses.chunks import SliceBudget
from tau_pipeline.synthesis.losses.features import frozen, gray_input
from tau_pipeline.synthesis.losses.schedule import PLANES, Plane, plane_at
from tau_pipeline.synthesis.losses.threads import in_threads
from tau_pipeline.synthesis.losses.winograd import responses_to_both, with_winograd

#: Axis of the volume along which the slices of a plane are counted.
_SLICE_AXIS: dict[Plane, int] = {"sagittal": 2, "coronal": 3, "axial": 4}
#: Added to the range of a slice before it divides (Moon et al.).
_EPSILON = 1e-8
#: Slices whose target spans less than this fraction of the target volume's own span count as empty.
_EMPTY_FRACTION = 0.01
#: Pixels that three poolings leave a response of, on each side.
_SMALLEST_SIDE = 8


class _Slices(NamedTuple):
    """Slices ``(B, N, H, W)``, with the values that become 0 and 1 in each, ``(B, N, 1, 1)``; or gradients of these."""

    images: Tensor
    low: Tensor
    high: Tensor

    def at(self, indices: Tensor) -> _Slices:
        """Return copies of some of them, counted item by item, as a batch ``(n, 1, H, W)``."""
        return _Slices(*(part[_place(indices, part)][:, None] for part in self))


def _place(indices: Tensor, slices: Tensor) -> tuple[Tensor, Tensor]:
    """Return item and number within the item of slices that are counted item by item."""
    return indices // slices.shape[1], indices % slices.shape[1]


class PlanePerceptualLoss(nn.Module):
    """Perceptual loss over all slices of one plane.

    Value and gradient are computed together, a few slices at a time, so that the responses of only those are in memory;
    what is kept for the backward pass is one volume, the gradient. Where the prediction needs no gradient, none is
    computed.

    Parameters
    ----------
    features
        Network from ``(N, 3, H, W)`` or ``(N, 1, H, W)`` to responses ``(N, C, h, w)``; it is frozen here. Gray images
        are given to it as three equal channels, which for a first convolution amounts to one with summed weights.
    chunk
        Slices that are in memory together. None: see `tau_pipeline.synthesis.losses.chunks.SliceBudget`.
    empty_slices, empty_fraction
        "skip": slices in which the target spans less than ``empty_fraction`` of its span over the whole volume have no
        weight and cost nothing, and the mean is over the others; a target without any other slice costs 0. "paper":
        all slices count, and noise in air is scaled up to [0, 1].
    scaling
        "item": minimum and maximum of each slice of each item of the batch, so that no item depends on another.
        "batch": over the slices of equal number of all items, as the authors' code does; the same for a batch of one.

    Attributes
    ----------
    slice_share : float
        Share of the slices that are compared where a gradient is computed, drawn by torch's generator for each call and
        item; 1 for all. The mean over the drawn slices estimates that over all.

    Raises
    ------
    SettingError
        A setting has a value that cannot be used.
    """

    slice_share: float = 1.0

    def __init__(
        self,
        features: nn.Module,
        chunk: int | None = None,
        empty_slices: EmptySlices = Training.empty_slices,
        empty_fraction: float = _EMPTY_FRACTION,
        scaling: PerceptualScaling = Training.perceptual_scaling,
    ) -> None:
        super().__init__()
        require(isinstance(features, nn.Module), "features", features, "a torch module, see load_vgg16_features")
        check_slice_settings(chunk, empty_slices, empty_fraction, scaling)
        self.features = frozen(with_winograd(gray_input(features)))
        self.chunk = chunk
        self.empty_slices = empty_slices
        self.empty_fraction = empty_fraction
        self.scaling = scaling
        self._budget = SliceBudget(self.features)

    def train(self, mode: bool = True) -> PlanePerceptualLoss:
        """Set the training mode; the features stay in evaluation mode."""
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, prediction: Tensor, target: Tensor, plane: Plane) -> Tensor:
        """Return the loss between two volumes in one plane.

        Parameters
        ----------
        prediction, target
            ``(B, 1, I, J, K)``, RAS. Only the prediction gets a gradient.
        plane
            "axial", "coronal" or "sagittal".

        Returns
        -------
        Tensor
            A scalar in float32 (float64 for features in float64): the mean over the items of the mean over their
            slices. NaN where the prediction holds NaN or infinite values.

        Raises
        ------
        ImageError
            Shapes differ or are not ``(B, 1, I, J, K)``, slices are smaller than 8 x 8 pixels, the target holds NaN or
            infinite values, or the tensors are on another device than the features.
        UnknownNameError
            There is no such plane.
        SettingError
            In the backward pass: a second derivative was requested (``create_graph=True``).
        """
        if plane not in _SLICE_AXIS:
            raise UnknownNameError(f"there is no plane {plane!r}; known: {', '.join(PLANES)}")
        check_volumes(prediction, target)
        self._check_slices(prediction, plane)
        if not (torch.is_grad_enabled() and prediction.requires_grad):
            return self.value_and_gradient(prediction, target, plane)[0]
        value: Tensor = _ValueWithGradient.apply(prediction, target, self, plane)
        return value

    def _responses(self, slices: _Slices, targets: _Slices) -> tuple[Tensor, Tensor]:
        """Return responses ``(n, C, h, w)`` to slices and, without a gradient, to targets, in the slices' precision."""
        both = responses_to_both(self.features, self._scaled(slices), self._scaled(targets))
        return both[0].to(slices.images.dtype), both[1].to(slices.images.dtype)

    def _scaled(self, slices: _Slices) -> Tensor:
        """Return slices scaled to [0, 1], in the precision of the features."""
        images = (slices.images - slices.low) / (slices.high - slices.low + _EPSILON)
        if images.device.type == "cpu":
            # With the channels of a pixel side by side, oneDNN need not rearrange images before every convolution.
            images = images.to(memory_format=torch.channels_last)
        return images.to(next(self.features.parameters()).dtype)

    def _distances(self, slices: _Slices, targets: _Slices, wanted: bool) -> tuple[Tensor, _Slices | None]:
        """Return ``((f(x) - f(y)) ** 2).mean()`` of each of a few slices ``(n,)``, and its gradient if wanted."""
        with torch.set_grad_enabled(wanted):
            for part in slices:
                part.requires_grad_(wanted)
            responses, expected = self._responses(slices, targets)
            # Squares are summed, and divided only afterwards: in half precision a mean's gradient would vanish.
            squares = (responses - expected).square().flatten(1)
            distances = squares.sum(dim=1)
        n_responses = squares.shape[1]
        if not wanted:
            return distances / n_responses, None
        slopes = torch.autograd.grad(distances.sum(), slices)
        return distances.detach() / n_responses, _Slices(*(slope / n_responses for slope in slopes))

    def _check_slices(self, prediction: Tensor, plane: Plane) -> None:
        sides = [n for axis, n in enumerate(prediction.shape) if axis >= 2 and axis != _SLICE_AXIS[plane]]
        if min(sides) < _SMALLEST_SIDE:
            raise ImageError(
                f"{plane} slices of {sides[0]} x {sides[1]} pixels are too small for the perceptual loss; expected: "
                f"{_SMALLEST_SIDE} x {_SMALLEST_SIDE} or more"
            )
        check_device(prediction, self.features)

    def value_and_gradient(self, prediction: Tensor, target: Tensor, plane: Plane) -> tuple[Tensor, Tensor | None]:
        """Return the loss, and its gradient ``(B, 1, I, J, K)`` where the prediction and torch require one.

        The gradient is in float32 or the precision of the features, whatever that of the prediction.
        """
        wanted = torch.is_grad_enabled() and prediction.requires_grad
        dtype = torch.promote_types(next(self.features.parameters()).dtype, torch.float32)
        if not (torch.isfinite(prediction.amin()) and torch.isfinite(prediction.amax())):
            # Not an error: scaled half-precision training steps over such a batch, and a training loop can name it.
            nothing = prediction.new_full((), math.nan, dtype=dtype)
            return nothing, torch.full_like(prediction, math.nan) if wanted else None
        leaf = prediction.detach().to(dtype).requires_grad_(wanted)
        slices = self._slices(leaf, plane)
        with torch.no_grad():
            targets = self._slices(target.to(dtype), plane)
            weights = self._weights(targets, self.slice_share if wanted else 1.0)
        value, slopes = self._over_chunks(_Slices(*(part.detach() for part in slices)), targets, weights, wanted)
        if slopes is None:
            return value, None
        # Minimum and maximum depend on the prediction too: torch leads their part of the gradient back to it.
        (gradient,) = torch.autograd.grad(slices, leaf, slopes)
        return value, gradient

    def _slices(self, volumes: Tensor, plane: Plane) -> _Slices:
        """Return all slices of a plane of volumes ``(B, 1, I, J, K)``, item by item, with their scaling."""
        # A view: a copy of both volumes would take more memory than the responses to a slice.
        slices = volumes[:, 0].movedim(_SLICE_AXIS[plane] - 1, 1)
        over = (0, 2, 3) if self.scaling == "batch" else (2, 3)
        low, high = (
            extreme.expand(len(volumes), -1, 1, 1)
            for extreme in (slices.amin(dim=over, keepdim=True), slices.amax(dim=over, keepdim=True))
        )
        return _Slices(slices, low, high)

    def _weights(self, targets: _Slices, share: float) -> Tensor:
        """Return the weight of each slice in the loss, ``(B * N,)``, where a share of the slices is drawn."""
        low, high = targets.images.amin(dim=(2, 3)), targets.images.amax(dim=(2, 3))
        counts = torch.ones_like(low)
        if self.empty_slices == "skip":
            span, volume_span = high - low, high.amax(dim=1) - low.amin(dim=1)
            counts = ((span >= self.empty_fraction * volume_span[:, None]) & (span > 0)).to(span.dtype)
        if share < 1:
            counts = counts * _drawn(counts, share)
        return (counts / counts.sum(dim=1, keepdim=True).clamp(min=1) / len(counts)).flatten()

    def _over_chunks(
        self, slices: _Slices, targets: _Slices, weights: Tensor, wanted: bool
    ) -> tuple[Tensor, _Slices | None]:
        """Return the weighted sum of the distances of all slices, and its gradient if wanted."""
        value = weights.new_zeros(())
        gradient = _Slices(*(torch.zeros_like(part) for part in slices)) if wanted else None
        counted = weights.nonzero().squeeze(1)
        if not len(counted):
            return value, gradient
        together = self.chunk or self._budget.slices_together(slices.images[:1, :1])
        workers = min(together, torch.get_num_threads()) if slices.images.device.type == "cpu" else 1
        chunks = counted.split(together // workers)

        def distances(indices: Tensor) -> tuple[Tensor, _Slices | None]:
            return self._distances(slices.at(indices), targets.at(indices), wanted)

        for indices, (found, slopes) in zip(chunks, in_threads(distances, chunks, workers), strict=True):
            value += (found * weights[indices]).sum()
            for whole, part in zip(gradient or (), slopes or (), strict=True):
                whole[_place(indices, whole)] = part[:, 0] * weights[indices].view(-1, 1, 1)
        return value, gradient


def _drawn(counts: Tensor, share: float) -> Tensor:
    """Return 1 for slices that are drawn and 0 for others ``(B, N)``: of each item that share of those that count."""
    # Drawn on the processor, so that all devices draw the same.
    order = torch.rand(counts.shape).to(counts.device).masked_fill(counts == 0, 2.0).argsort(dim=1).argsort(dim=1)
    n_drawn = (share * counts.sum(dim=1, keepdim=True)).round().clamp(min=1)
    return (order < n_drawn).to(counts.dtype)


class _ValueWithGradient(torch.autograd.Function):
    """Computes the gradient together with the value, and keeps it for the backward pass."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, loss: PlanePerceptualLoss, plane: Plane) -> Tensor:
        with torch.enable_grad():
            value, gradient = loss.value_and_gradient(prediction, target, plane)
        ctx.save_for_backward(gradient)
        ctx.dtype = prediction.dtype
        return value

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        if torch.is_grad_enabled():
            raise SettingError(
                "the perceptual loss has no second derivative, since it keeps no graph; call backward or grad without "
                "create_graph"
            )
        (gradient,) = ctx.saved_tensors
        # Scaled before it is cast: in half precision most of the gradient itself would vanish.
        return (gradient * outer[0]).to(ctx.dtype), None, None, None


class ThreePlanePerceptualLoss(nn.Module):
    """Mean of the perceptual losses of the three planes, all in every step ("2.5D").

    Parameters
    ----------
    loss
        The loss of one plane.
    """

    def __init__(self, loss: PlanePerceptualLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean of three scalars; shapes and errors as `PlanePerceptualLoss`."""
        return torch.stack([self.loss(prediction, target, plane) for plane in PLANES]).mean()


class CyclicPerceptualLoss(nn.Module):
    """Perceptual loss of the plane whose turn it is in an epoch (Moon et al. 2026).

    Parameters
    ----------
    features, chunk, empty_slices, empty_fraction, scaling
        See `PlanePerceptualLoss`.
    first_cycle, factor
        See `tau_pipeline.synthesis.losses.schedule.plane_at`.

    Raises
    ------
    SettingError
        A setting has a value that cannot be used.
    """

    def __init__(
        self,
        features: nn.Module,
        first_cycle: int = Training.first_cycle,
        factor: float = Training.cycle_factor,
        chunk: int | None = None,
        empty_slices: EmptySlices = Training.empty_slices,
        empty_fraction: float = _EMPTY_FRACTION,
        scaling: PerceptualScaling = Training.perceptual_scaling,
    ) -> None:
        super().__init__()
        plane_at(0, first_cycle, factor)  # refuses a schedule that cannot be
        self.loss = PlanePerceptualLoss(features, chunk, empty_slices, empty_fraction, scaling)
        self.first_cycle = first_cycle
        self.factor = factor

    def forward(self, prediction: Tensor, target: Tensor, epoch: int) -> Tensor:
        """Return the loss in the plane of ``epoch``, counted from 0; shapes and errors as `PlanePerceptualLoss`."""
        value: Tensor = self.loss(prediction, target, plane_at(epoch, self.first_cycle, self.factor))
        return value


class VolumePerceptualLoss(nn.Module):
    """Perceptual loss of whole volumes by a 3-D network.

    Each volume is brought to mean 0 and SD 1, as MedicalNet was trained; responses are scaled to unit length over their
    channels at each place; the squared difference is summed over channels and averaged over places and items. That is
    what MONAI's ``PerceptualLoss`` computes with MedicalNet, but mean and SD are of each item instead of the batch.

    Parameters
    ----------
    features
        Network from ``(B, 1, I, J, K)`` to responses ``(B, C, i, j, k)``; it is frozen here.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        require(isinstance(features, nn.Module), "features", features, "a torch module, see load_resnet3d_features")
        self.features = frozen(features)

    def train(self, mode: bool = True) -> VolumePerceptualLoss:
        """Set the training mode; the features stay in evaluation mode."""
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return a scalar loss in float32; errors as `PlanePerceptualLoss`, planes aside."""
        check_volumes(prediction, target)
        check_device(prediction, self.features)
        with torch.no_grad():
            expected = self._unit_responses(target)
        return (self._unit_responses(prediction) - expected).square().sum(dim=1).mean()

    def _unit_responses(self, volumes: Tensor) -> Tensor:
        volumes = volumes.float()
        mean = volumes.mean(dim=(1, 2, 3, 4), keepdim=True)
        variance = (volumes - mean).square().mean(dim=(1, 2, 3, 4), keepdim=True)
        responses = self.features((volumes - mean) / (variance + _EPSILON).sqrt()).float()
        # EPSILON inside of the root, whose slope at 0 is infinite.
        return responses / (responses.square().sum(dim=1, keepdim=True) + _EPSILON).sqrt()
