"""The section ``[synthesis]``: models, images to predict, inference, and evaluation.

Knows no torch, so that the command line's help stays fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tau_pipeline.settings.fields import Checked, documented, require

Synthesize = Literal["missing", "all"]


@dataclass(frozen=True)
class Synthesis(Checked):
    """Settings of the synthesize level. The seed is ``random_seed``, the processor ``device`` of ``[training]``.

    Raises
    ------
    SettingError
        A value has the wrong type or lies outside its range; the message names the setting and the value.
    """

    model: tuple[Path, ...] = field(
        default=(),
        metadata=documented(
            "Model folders written by the train level. The predictions of several models, such as one per fold, "
            "are averaged, and their spread determines the uncertainty. Default: models/regression in the output "
            "folder, if it exists."
        ),
    )
    synthesize: Synthesize = field(
        default="missing",
        metadata=documented(
            "Images to predict: T1w images without tau PET (missing), or all, for example to compare synthetic "
            "with measured SUVR."
        ),
    )
    as_manufacturer: str | None = field(
        default=None,
        metadata=documented(
            "PET manufacturer whose scale synthetic SUVR gets; pooled is the scale of all training participants "
            "together. Default: the manufacturer of the participant's own PET; required for participants "
            "without PET."
        ),
    )
    unlike_training: Literal["flag", "refuse"] = field(
        default="flag",
        metadata=documented(
            "T1w images whose voxel size, histogram, or brain volume is outside the range of the training data: "
            "flag records this in the sidecar, refuse counts the scan as failed."
        ),
    )
    test_time_flips: bool = field(
        default=True,
        metadata=documented(
            "Also predict the T1w flipped left-right, and average both predictions (test-time augmentation)."
        ),
    )
    prediction_memory: Literal["auto", "whole", "windows"] = field(
        default="auto",
        metadata=documented(
            "Prediction of the whole volume at once (whole), or in overlapping windows (windows), which needs "
            "less memory and changes values slightly; auto uses windows only if the whole volume does not fit "
            "into memory."
        ),
    )
    window_side: int = field(
        default=96, metadata=documented("Side of the windows on the model's grid.", unit="voxels", at_least=32)
    )
    window_overlap: float = field(
        default=0.5,
        metadata=documented("Overlap of neighboring windows, as a fraction of their side.", at_least=0, below=1),
    )
    suvr_range: float = field(
        default=3.0,
        metadata=documented("Data range of SSIM and PSNR between synthetic and measured SUVR.", unit="SUVR", above=0),
    )
    hot_suvr: tuple[float, ...] = field(
        default=(1.3, 1.5, 2.0),
        metadata=documented(
            "SUVR thresholds; the voxels and clusters above each of them are compared between synthetic and "
            "measured SUVR."
        ),
    )
    lesion_volume: float = field(
        default=0.25,
        metadata=documented("Minimum volume of a connected cluster above a threshold.", unit="mL", at_least=0),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(set(self.model)) == len(self.model), "model", [str(m) for m in self.model], "each folder once")
        require(self.window_side % 32 == 0, "window_side", self.window_side, "a multiple of 32 voxels")
        require(bool(self.hot_suvr), "hot_suvr", [], "at least one SUVR")
        require(len(set(self.hot_suvr)) == len(self.hot_suvr), "hot_suvr", list(self.hot_suvr), "each SUVR once")
