"""Agreement of a synthetic with a measured volume, computed on the device where the network is.

The same measures as in `tau_pipeline.measures.images`, which computes on the processor and in double precision; they
differ by rounding only. Tensors are ``(I, J, K)``.
"""

from __future__ import annotations

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

#: Gaussian window of SSIM (Wang et al. 2004, IEEE Trans Image Process 13:600): SD and side in voxels.
_SSIM_SIGMA, _SSIM_WINDOW = 1.5, 11


def ssim(synthetic: Tensor, measured: Tensor, mask: Tensor, data_range: float) -> float:
    """Return the mean over a mask of the local SSIM, as `tau_pipeline.measures.images.ssim`.

    Parameters
    ----------
    synthetic, measured
        ``(I, J, K)``, equal outside the mask.
    mask
        ``(I, J, K)`` boolean.
    data_range
        Range of the values.
    """
    a, b = (_mirrored(volume, _SSIM_WINDOW // 2)[None, None] for volume in (synthetic, measured))
    local, _ = compute_ssim_and_cs(a, b, 3, [_SSIM_WINDOW] * 3, [_SSIM_SIGMA] * 3, data_range)
    return float(local[0, 0][mask].mean())


def _mirrored(volume: Tensor, width: int) -> Tensor:
    """Return a volume continued by its mirror image, voxels of the border twice, as scipy's filters continue it."""
    for axis, side in enumerate(volume.shape):
        places = torch.arange(-width, side + width, device=volume.device) % (2 * side)
        volume = volume.index_select(axis, torch.where(places < side, places, 2 * side - 1 - places))
    return volume


def psnr(synthetic: Tensor, measured: Tensor, mask: Tensor, data_range: float) -> float:
    """Return the PSNR in dB within a mask; parameters as in `ssim`."""
    return float(20 * torch.log10(data_range / (synthetic - measured)[mask].double().square().mean().sqrt()))


def mae(synthetic: Tensor, measured: Tensor, mask: Tensor) -> float:
    """Return the mean absolute difference within a mask; parameters as in `ssim`."""
    return float((synthetic - measured)[mask].double().abs().mean())


def label_means(values: Tensor, labels: Tensor, mask: Tensor, numbers: tuple[int, ...]) -> tuple[float, ...]:
    """Return the mean within a mask of each label in ``numbers``; NaN for a label without voxels.

    Parameters
    ----------
    values, labels, mask
        ``(I, J, K)``: numbers, whole numbers from 0, and booleans.
    numbers
        Labels, in the order of the result.
    """
    inside = labels[mask].long()
    largest = max(*numbers, int(inside.max()) if len(inside) else 0) + 1
    total = torch.bincount(inside, values[mask].double(), minlength=largest)
    count = torch.bincount(inside, minlength=largest)
    chosen = torch.tensor(numbers, device=values.device)
    return tuple((total[chosen] / count[chosen]).tolist())
