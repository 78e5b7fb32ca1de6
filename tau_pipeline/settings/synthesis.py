"""The section ``[synthesis]``: which model makes synthetic SUVR, for whom, and how it is run and judged.

Knows no torch, so that the command line's help stays fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tau_pipeline.settings.fields import Checked, documented, require


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
            "Folder of the model that makes synthetic SUVR, as the level train wrote it. Several (folds, say) predict "
            "together, and how far they differ tells the uncertainty."
        ),
    )
    synthesize: Literal["missing", "all"] = field(
        default="missing",
        metadata=documented(
            "Who gets synthetic SUVR: T1w images without a tau PET (missing), or all, so that synthetic and measured "
            "SUVR can be compared."
        ),
    )
    as_manufacturer: str | None = field(
        default=None,
        metadata=documented(
            "PET manufacturer whose scale synthetic SUVR gets; pooled for all of the training together. Default: that "
            "of the participant's own PET, which participants without PET do not have."
        ),
    )
    unlike_training: Literal["flag", "refuse"] = field(
        default="flag",
        metadata=documented(
            "A T1w whose voxel size, histogram or brain volume is outside of what the model was trained on: flag says "
            "so in the sidecar, refuse counts the scan as failed."
        ),
    )
    test_time_flips: bool = field(
        default=True,
        metadata=documented("Predict each T1w flipped left-right too, and take the mean of both predictions."),
    )
    prediction_memory: Literal["auto", "whole", "windows"] = field(
        default="auto",
        metadata=documented(
            "Predict the whole volume at once, in overlapping windows, which needs less memory and gives slightly "
            "other values, or in windows only where the whole would not fit (auto)."
        ),
    )
    window_side: int = field(
        default=96, metadata=documented("Side of these windows on the model's grid.", unit="voxels", at_least=32)
    )
    window_overlap: float = field(
        default=0.5,
        metadata=documented("Overlap of neighboring windows, as a part of their side.", at_least=0, below=1),
    )
    suvr_range: float = field(
        default=3.0,
        metadata=documented("Data range of SSIM and PSNR between synthetic and measured SUVR.", unit="SUVR", above=0),
    )
    hot_suvr: tuple[float, ...] = field(
        default=(1.3, 1.5, 2.0),
        metadata=documented("Voxels above these SUVR are hot spots, which the evaluation compares."),
    )
    lesion_volume: float = field(
        default=0.25, metadata=documented("Smallest connected hot spot that counts as a lesion.", unit="mL", at_least=0)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(set(self.model)) == len(self.model), "model", [str(m) for m in self.model], "each folder once")
        require(self.window_side % 32 == 0, "window_side", self.window_side, "a multiple of 32 voxels")
        require(bool(self.hot_suvr), "hot_suvr", [], "at least one SUVR")
        require(len(set(self.hot_suvr)) == len(self.hot_suvr), "hot_suvr", list(self.hot_suvr), "each SUVR once")
