"""The section ``[comparison]``: the systems, losses, and SUVR scalings that are trained, fold by fold, and compared.

All other settings of each training are in ``[training]``. Knows no torch, so that the command line's help stays
fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tau_pipeline.settings.fields import Checked, documented, require
from tau_pipeline.settings.training import LossKind, Network, TargetScalingKind

_MOON = "Moon et al., arXiv 2406.12632"


@dataclass(frozen=True)
class Comparison(Checked):
    """Contenders of a comparison. Folds and sizes follow ``[training]``, the seed is ``random_seed`` of ``[settings]``.

    Raises
    ------
    SettingError
        A value has the wrong type or lies outside its range; the message names the setting and the value.
    """

    comparison_name: str = field(
        default="comparison",
        metadata=documented("Name of the folder of the comparison, within comparisons in the output folder."),
    )
    systems: tuple[Network, ...] = field(
        default=("unet", "unetr", "swinunetr", "pix2pix", "cyclegan"),
        metadata=documented("Systems to compare.", source=_MOON),
    )
    losses: tuple[LossKind, ...] = field(
        default=("mse_ssim", "2.5d", "3d", "cyclic2.5d"),
        metadata=documented(
            "Losses to compare; each is tested against the cyclic loss, if that is included.", source=_MOON
        ),
    )
    target_scalings: tuple[TargetScalingKind, ...] = field(
        default=("by-manufacturer", "min-max"),
        metadata=documented("SUVR scalings to compare.", source=_MOON),
    )
    volume_features: Literal["pretrained", "random"] = field(
        default="pretrained",
        metadata=documented(
            "Feature network of the loss 3d: a pretrained 3-D ResNet, or random weights, which is stated in the "
            "model cards and in the report. The other perceptual losses use perceptual_features."
        ),
    )
    volume_weights_file: Path | None = field(
        default=None,
        metadata=documented("Weights of the 3-D ResNet of MedicalNet (PyTorch state dict). There is no default."),
    )
    validation_fold: bool = field(
        default=True,
        metadata=documented(
            "Use one fold of the training participants for validation, as in a single training. Otherwise, all "
            "folds except the tested one are used for training, which requires tested_weights last and "
            "early_stopping_patience 0."
        ),
    )
    runs_per_process: int = field(
        default=1,
        metadata=documented(
            "Number of trainings that one process runs in turn. More than 1 saves the startup time of Python, a "
            "few seconds each.",
            at_least=1,
        ),
    )
    drawn_scans: int = field(
        default=2,
        metadata=documented(
            "Number of scans whose synthetic maps are kept and shown in the report, from the first fold, from "
            "highest to lowest cortical SUVR.",
            at_least=0,
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("systems", "losses", "target_scalings"):
            values = getattr(self, name)
            require(bool(values), name, [], "at least one")
            require(len(set(values)) == len(values), name, list(values), "each once")
        name = self.comparison_name
        good_name = name not in ("", ".", "..") and not set(name) & set('/\\:*?"<>|')
        require(good_name, "comparison_name", name, "a name for a folder, without slashes")
