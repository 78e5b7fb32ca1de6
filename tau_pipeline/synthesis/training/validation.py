"""Validation during training: loss, SSIM, PSNR, and regional SUVR of held-out scans.

All figures but the loss are of SUVR, after the target scaling was inverted, within the brain where the PET is known,
on the model's grid, and computed on the device of the network. `tau_pipeline.synthesis.evaluation.scores` says more
about a finished model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tau_pipeline.atlas import composites, region_numbers
from tau_pipeline.measures.agreement import pearson
from tau_pipeline.synthesis.data.scaling import TargetScaling
from tau_pipeline.synthesis.losses.weighted import Within
from tau_pipeline.synthesis.training import agreement

#: SUVR is taken to lie between 0 and 3 for SSIM and PSNR; both change with this number.
SUVR_RANGE = 3.0

#: loss(prediction, target, within) -> (scalar, its parts)
ScanLoss = Callable[[Tensor, Tensor, Within], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class ScanScores:
    """Agreement of one synthetic image with the measured one.

    ``synthetic`` and ``measured`` are mean SUVR of the regions of `regions`, NaN for a region without voxels.
    """

    participant: str
    scan: str
    loss: float
    ssim: float
    psnr: float
    mae: float
    synthetic: tuple[float, ...]
    measured: tuple[float, ...]

    @property
    def regional_error(self) -> float:
        """Mean absolute difference of regional SUVR."""
        return float(np.nanmean(np.abs(np.subtract(self.synthetic, self.measured))))


def regions() -> tuple[int, ...]:
    """Return FreeSurfer numbers of the regions that are compared: the cortical ones of Desikan-Killiany."""
    return region_numbers("cortical")


def loss_voxels(mask: Tensor, labels: Tensor | None) -> Within:
    """Return the voxels of the absolute errors in the loss: known ones of the brain, and of the Braak stages.

    Parameters
    ----------
    mask, labels
        ``(B, 1, I, J, K)`` boolean, and FreeSurfer numbers; without these there are no regions.
    """
    if labels is None:
        return Within(mask)
    stages = sorted({n for name in ("braak1", "braak34", "braak56") for n in composites()[name]["both"]})
    return Within(mask, mask & torch.isin(labels.to(mask.device), torch.tensor(stages, device=mask.device)))


def score_scans(
    network: nn.Module,
    scans: Iterable[dict],
    loss: ScanLoss,
    target_scaling: TargetScaling,
    autocast: torch.autocast,
    loss_everywhere: bool = False,
) -> list[ScanScores]:
    """Predict scans and compare them with what was measured.

    Parameters
    ----------
    network
        From T1w ``(1, 1, I, J, K)`` to normalized SUVR; is in evaluation mode meanwhile.
    scans
        Batches of one item of a `PairDataset` with labels.
    loss
        Of prediction and target.
    target_scaling
        Of the model.
    autocast
        Mixed precision as in training.
    loss_everywhere
        Whether the loss compares whole volumes, as in training with ``loss_mask`` none; SSIM, PSNR, and errors are
        within the brain either way.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    found = []
    for scan in scans:
        t1w, pet, mask = (scan[name].to(device) for name in ("t1w", "pet", "mask"))
        with torch.no_grad(), autocast:
            whole = network(t1w).float()
            # Outside of the mask both have the same background.
            prediction = torch.where(mask, whole, pet)
            value, _ = loss(whole if loss_everywhere else prediction, pet, loss_voxels(mask, scan["labels"]))
        found.append(score_prediction(scan, prediction, float(value), target_scaling))
    network.train(was_training)
    return found


def score_prediction(scan: dict, prediction: Tensor, loss: float, target_scaling: TargetScaling) -> ScanScores:
    """Compare a prediction ``(1, 1, I, J, K)``, scaled, with what was measured; ``scan`` is a batch of one item."""
    (manufacturer,), (participant,), (name,) = (scan[key] for key in ("manufacturer", "participant", "scan"))
    device = prediction.device
    mask, labels, pet = (scan[key][0, 0].to(device) for key in ("mask", "labels", "pet"))
    # Both scalings are lines, so that two values say everything and volumes stay on the device.
    zero, one = (float(target_scaling.invert(np.array(z), manufacturer)) for z in (0.0, 1.0))
    synthetic, measured = (torch.where(mask, zero + (one - zero) * z.float(), 0.0) for z in (prediction[0, 0], pet))
    return ScanScores(
        participant=participant,
        scan=name,
        loss=loss,
        ssim=agreement.ssim(synthetic, measured, mask, SUVR_RANGE),
        psnr=agreement.psnr(synthetic, measured, mask, SUVR_RANGE),
        mae=agreement.mae(synthetic, measured, mask),
        synthetic=agreement.label_means(synthetic, labels, mask, regions()),
        measured=agreement.label_means(measured, labels, mask, regions()),
    )


def mean_scores(scores: Sequence[ScanScores]) -> dict[str, float]:
    """Return means over scans; an empty dict for none."""
    if not scores:
        return {}
    names = ("loss", "ssim", "psnr", "mae", "regional_error")
    return {name: float(np.mean([getattr(score, name) for score in scores])) for name in names}


def regional_correlation(scores: Sequence[ScanScores]) -> float:
    """Return the mean over regions of Pearson's r of SUVR across scans; NaN for fewer than three scans."""
    if len(scores) < 3:
        return float("nan")
    synthetic, measured = (np.array([getattr(score, name) for score in scores]).T for name in ("synthetic", "measured"))
    whole = np.isfinite(synthetic).all(axis=1) & np.isfinite(measured).all(axis=1)
    r = pearson(synthetic[whole], measured[whole])
    return float(np.nanmean(r)) if np.isfinite(r).any() else float("nan")
