"""Settings of a training that define its loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tau_pipeline.settings.fields import Checked, documented

LossKind = Literal["mse_ssim", "2.5d", "3d", "cyclic2.5d"]
EmptySlices = Literal["skip", "paper"]
PerceptualScaling = Literal["item", "batch"]

_MOON = "Moon et al., arXiv 2406.12632"
_MOON_CODE = "the code of Moon et al., arXiv 2406.12632"


@dataclass(frozen=True)
class LossSettings(Checked):
    """Terms of the loss, their weights, and the schedule of the planes; part of the section ``[training]``."""

    loss: LossKind = field(
        default="cyclic2.5d",
        metadata=documented(
            "Loss: MSE and SSIM (mse_ssim), or with a perceptual term on slices of all three planes in every "
            "step (2.5d), of a 3-D feature network (3d), or on one plane at a time in cycles (cyclic2.5d).",
            source=_MOON,
        ),
    )
    mse_weight: float = field(
        default=1.0, metadata=documented("Weight of the mean squared error.", source=_MOON_CODE, at_least=0)
    )
    ssim_weight: float = field(default=1.0, metadata=documented("Weight of 1 - SSIM.", source=_MOON_CODE, at_least=0))
    perceptual_weight: float = field(
        default=0.5, metadata=documented("Weight of the perceptual term.", source=_MOON_CODE, at_least=0)
    )
    first_cycle: int = field(
        default=120,
        metadata=documented("Epochs per plane in the first cycle.", source=_MOON, at_least=1),
    )
    cycle_factor: float = field(
        default=2 / 3,
        metadata=documented(
            "Factor by which the number of epochs per plane decreases from one cycle to the next.",
            source=_MOON,
            above=0,
            at_most=1,
        ),
    )
    mae_weight: float = field(
        default=0.0, metadata=documented("Weight of the mean absolute error within the brain.", at_least=0)
    )
    region_mae_weight: float = field(
        default=0.0,
        metadata=documented("Weight of the mean absolute error within the regions of the Braak stages.", at_least=0),
    )
    loss_mask: Literal["brain", "none"] = field(
        default="brain",
        metadata=documented(
            "Voxels that the loss sees: brain puts the background in place of the prediction outside the brain, so "
            "that nothing is learned there; none compares whole volumes, as in the paper."
        ),
    )
    perceptual_features: Literal["pretrained", "random"] = field(
        default="pretrained",
        metadata=documented(
            "Feature network of the perceptual term: pretrained (VGG-16 for slices, a 3-D ResNet for loss 3d), or "
            "random weights, which is stated in the model card."
        ),
    )
    perceptual_weights_file: Path | None = field(
        default=None,
        metadata=documented(
            "Weights of the feature network (PyTorch state dict). Default: VGG-16 from the PyTorch cache; loss 3d has "
            "no default."
        ),
    )
    perceptual_chunk: int | None = field(
        default=None,
        metadata=documented(
            "Number of slices that are processed together. Default: depends on the available memory.", at_least=1
        ),
    )
    empty_slices: EmptySlices = field(
        default="skip",
        metadata=documented(
            "Slices without contrast in the measured PET: skip excludes them from the perceptual term, paper includes "
            "them."
        ),
    )
    perceptual_scaling: PerceptualScaling = field(
        default="item",
        metadata=documented(
            "Minimum and maximum that the perceptual term scales slices with: of each scan, or of the whole batch as "
            "in the paper's code.",
        ),
    )
    ssim_window: int = field(
        default=11,
        metadata=documented("Side of the SSIM window in the loss.", unit="voxels", source=_MOON_CODE, at_least=1),
    )
    ssim_sigma: float = field(
        default=1.5,
        metadata=documented("SD of the SSIM window in the loss.", unit="voxels", source=_MOON_CODE, above=0),
    )
    ssim_range: float = field(
        default=2.0,
        metadata=documented("Data range of SSIM in the loss, in standardized SUVR.", source=_MOON_CODE, above=0),
    )
    perceptual_slices: float = field(
        default=1.0,
        metadata=documented(
            "Share of the slices of a plane that the perceptual term compares in a training step, drawn anew for each "
            "step. Less than 1 saves most of the run time on a processor; validation compares all slices.",
            above=0,
            at_most=1,
        ),
    )
    adversarial_weight: float = field(
        default=0.01,
        metadata=documented(
            "Weight of the adversarial term of Pix2Pix and CycleGAN beside the content loss: 1 to 100.",
            source="Isola et al. 2017, arXiv 1611.07004",
            at_least=0,
        ),
    )
    cycle_weight: float = field(
        default=0.1,
        metadata=documented(
            "Weight of the cycle term of CycleGAN: ten times the adversarial weight.",
            source="Zhu et al. 2017, arXiv 1703.10593",
            at_least=0,
        ),
    )
