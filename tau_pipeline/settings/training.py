"""The section ``[training]``: everything that decides how a synthesis model is trained.

Defaults are the paper's (Moon et al., arXiv 2406.12632) wherever they run on a laptop too; the paper's sizes are in
the recipe ``paper.toml``. Knows no torch, so that the command line's help stays fast.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tau_pipeline.settings.fields import documented, require
from tau_pipeline.settings.training_hardware import Device, HardwareSettings
from tau_pipeline.settings.training_inputs import InputSettings
from tau_pipeline.settings.training_loss import EmptySlices, LossKind, LossSettings, PerceptualScaling

__all__ = [
    "Augmentation",
    "Device",
    "EmptySlices",
    "LossKind",
    "Network",
    "NetworkPreset",
    "NormLayer",
    "PerceptualScaling",
    "SelectBy",
    "System",
    "TargetScalingKind",
    "Training",
]

Network = Literal["unet", "unetr", "swinunetr", "pix2pix", "cyclegan"]
#: What can be trained: a network, or the regional regression, which is no network; auto chooses.
System = Literal["auto", "unet", "unetr", "swinunetr", "pix2pix", "cyclegan", "regression"]
NetworkPreset = Literal["laptop", "paper"]
NormLayer = Literal["instance", "group", "none"]
TargetScalingKind = Literal["by-manufacturer", "min-max"]
Augmentation = Literal["paper", "paper-strict", "upright", "off"]
GridSpace = Literal["own", "template"]
SelectBy = Literal["score", "ssim", "regional-error", "loss"]

#: With fewer participants than this, the regional regression predicts better than the networks that were tried, and no
#: network is trained unless it is asked for (docs/decisions/regional-regression.md).
LEAST_FOR_NETWORK = 200
#: Settings that are read for every system; a value given to another one asks for a network.
_OF_EVERY_SYSTEM = frozenset(
    {"network", "target_scaling", "split_fractions", "split_file", "folds", "fold", "model_name", "model_dir"}
    | {"device", "cache_dir", "loader_workers", "checkpoint_minutes", "covariates"}
)

_MOON = "Moon et al., arXiv 2406.12632"
#: Settings under which the same training goes on: they change where and how long it runs, not what it computes.
_MAY_CHANGE = frozenset(
    {
        *("epochs", "cache_dir", "device", "model_name", "model_dir", "checkpoint_minutes"),
        *("loader_workers", "pin_memory", "cudnn_benchmark", "channels_last", "compile_network"),
    }
)


@dataclass(frozen=True)
class Training(LossSettings, InputSettings, HardwareSettings):
    """Settings of training. The seed is ``random_seed`` of the section ``[settings]``.

    Raises
    ------
    SettingError
        A value has the wrong type or lies outside its range; the message names the setting and the value.
    """

    network: System = field(
        default="auto",
        metadata=documented(
            "System to train: U-Net, UNETR, SwinUNETR, or 3-D Pix2Pix or CycleGAN with their discriminators; or the "
            "regional regression, which predicts the SUVR of each region from the volumes of all regions, age, and "
            "sex, and needs no GPU and few participants. auto is the regression for fewer than 200 participants, and "
            "unet for more, or if a setting that only networks have is given.",
            source=_MOON,
            flags=("--network", "--system"),
        ),
    )
    network_preset: NetworkPreset = field(
        default="laptop", metadata=documented("Size of the network: small enough for a laptop, or that of the paper.")
    )
    norm_layer: NormLayer = field(
        default="instance",
        metadata=documented(
            "Normalization of activations in the network: instance (that of the paper) takes the overall level of "
            "uptake away where volumes have few voxels; group (of four channels each) keeps it; none is for the U-Net.",
            source="Wu and He 2018, arXiv 1803.08494",
        ),
    )
    epochs: int = field(default=1000, metadata=documented("Maximum number of epochs.", source=_MOON, at_least=1))
    batch_size: int = field(
        default=4,
        metadata=documented("Scans per optimizer step, over all processes.", source="12 in the paper", at_least=1),
    )
    micro_batch_size: int | None = field(
        default=None,
        metadata=documented(
            "Scans per process in memory at a time; gradients are accumulated over the batch. "
            "Default: the whole batch.",
            at_least=1,
        ),
    )
    optimizer: Literal["adam", "adamw"] = field(
        default="adam", metadata=documented("Optimizer; adamw decouples weight decay from the gradient.", source=_MOON)
    )
    adam_beta1: float = field(
        default=0.9,
        metadata=documented(
            "Decay of the mean of the gradient in Adam; 0.5 in Pix2Pix and CycleGAN.", at_least=0, below=1
        ),
    )
    discriminator_learning_rate: float | None = field(
        default=None,
        metadata=documented(
            "Maximum learning rate of the discriminators of Pix2Pix and CycleGAN. Default: learning_rate.", above=0
        ),
    )
    learning_rate: float = field(default=5e-4, metadata=documented("Maximum learning rate.", source=_MOON, above=0))
    weight_decay: float = field(default=0.0, metadata=documented("Weight decay of the optimizer.", at_least=0))
    learning_rate_schedule: Literal["cosine", "cosine-once", "constant"] = field(
        default="cosine",
        metadata=documented(
            "Learning rate schedule: cosine decreases to 0 and increases again with half a period of "
            "learning_rate_period, as in the paper; cosine-once decreases once over all epochs.",
            source=_MOON,
        ),
    )
    learning_rate_period: int = field(
        default=60, metadata=documented("Epochs from the maximum learning rate to 0 (T_max).", source=_MOON, at_least=1)
    )
    warmup_epochs: int = field(
        default=0, metadata=documented("Number of warm-up epochs with increasing learning rate.", at_least=0)
    )
    clip_gradient_norm: float | None = field(
        default=None, metadata=documented("Maximum norm of the gradient. Default: no clipping.", above=0)
    )
    ema_decay: float | None = field(
        default=None,
        metadata=documented(
            "Decay per step of an exponential moving average of the weights, which is validated and saved. "
            "Default: no average.",
            above=0,
            below=1,
        ),
    )
    select_by: SelectBy = field(
        default="score",
        metadata=documented(
            "Measure on the validation split by which the best weights are chosen and training stops early: score is "
            "SSIM minus the mean error of regional SUVR; ssim and regional-error are one of them alone. None of these "
            "depends on the plane of a cyclic loss. loss is the validation loss in the plane of the epoch, as in the "
            "paper.",
        ),
    )
    validate_every: int = field(
        default=1,
        metadata=documented(
            "Number of epochs from one validation to the next; the last epoch is always validated.", at_least=1
        ),
    )
    early_stopping_patience: int = field(
        default=30,
        metadata=documented(
            "Epochs without improvement of the measure that select_by names after which training stops; with a cyclic "
            "loss not before every plane has had a turn or, with select_by loss, before the third cycle. 0: never.",
            source=_MOON,
            at_least=0,
        ),
    )
    tested_weights: Literal["last", "best"] = field(
        default="last",
        metadata=documented(
            "Weights to test and save: the last ones, or the best by select_by (with loss, of the plane trained last).",
            source=_MOON,
        ),
    )

    target_scaling: TargetScalingKind = field(
        default="by-manufacturer",
        metadata=documented(
            "Scaling of SUVR for training: mean 0 and SD 1 within the brain by manufacturer, or min-max; fitted on the "
            "training split.",
            source=_MOON,
        ),
    )
    grid_voxel: float = field(default=2.0, metadata=documented("Voxel size of the common grid.", unit="mm", above=0))
    grid_space: GridSpace = field(
        default="own",
        metadata=documented(
            "Space of the common grid: own keeps the size and pose of each head; template aligns heads to the "
            "template by an affine of their labels' centers."
        ),
    )
    grid_shape: tuple[int, ...] = field(
        default=(),
        metadata=documented(
            "Shape of the common grid (left-right, posterior-anterior, inferior-superior). Default: the smallest "
            "that the network accepts and that covers 160 x 192 x 160 mm."
        ),
    )
    augmentation: Augmentation = field(
        default="paper",
        metadata=documented(
            "Augmentation of the training split: elastic, affine, flip, and noise as in the paper, which flips all "
            "three axes together; paper-strict also adds the noise outside the brain and mirrors the image at the "
            "border of the grid, as the paper's code does; upright flips left-right only.",
            source=_MOON,
        ),
    )
    split_fractions: tuple[float, ...] = field(
        default=(0.7, 0.15, 0.15),
        metadata=documented(
            "Fractions of participants for training, validation, and test.", source="360 / 78 / 78 of 516 in the paper"
        ),
    )
    split_file: Path | None = field(
        default=None,
        metadata=documented(
            "Table with the columns participant_id and split (train, validation, test) to use instead of a "
            "random split."
        ),
    )
    folds: int = field(
        default=0,
        metadata=documented(
            "Number of cross-validation folds; 0: no cross-validation. All folds are trained one after another, and "
            "their models predict together, unless fold names one.",
            at_least=0,
        ),
    )
    fold: int | None = field(
        default=None, metadata=documented("Test fold, counted from 0. Default: all folds.", at_least=0)
    )
    init_from: Path | None = field(
        default=None,
        metadata=documented(
            "Model folder whose weights the training starts from (fine-tuning); network, inputs, target scaling, and "
            "grid must be the same. Default: random weights."
        ),
    )
    encoder_weights_file: Path | None = field(
        default=None,
        metadata=documented(
            "PyTorch weights that the network starts from as far as names and shapes fit, such as those of a "
            "self-supervised encoder; the rest starts from random weights."
        ),
    )

    model_name: str | None = field(
        default=None,
        metadata=documented("Name of the model folder in models. Default: derived from network, loss, and fold."),
    )
    model_dir: Path | None = field(
        default=None,
        metadata=documented("Path of the model folder. Default: models/<model name> in the output folder."),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.ssim_window % 2 == 1, "ssim_window", self.ssim_window, "an odd number")
        used = self.mse_weight + self.ssim_weight + (self.perceptual_weight if self.loss != "mse_ssim" else 0)
        used += self.mae_weight + self.region_mae_weight
        weights = "mse_weight, ssim_weight, perceptual_weight, mae_weight, region_mae_weight"
        require(used > 0, weights, 0, "at least one weight above 0 among the terms in use")
        shape, shares = self.grid_shape, self.split_fractions
        good_shape = not shape or (len(shape) == 3 and min(shape) > 0)
        require(good_shape, "grid_shape", list(shape), "three whole numbers above 0")
        good_shares = len(shares) == 3 and min(shares) >= 0 and shares[0] > 0 and math.isclose(sum(shares), 1.0)
        require(good_shares, "split_fractions", list(shares), "three shares that add up to 1, the first above 0")
        can_do_without = self.norm_layer != "none" or self.network not in ("unetr", "swinunetr")
        require(can_do_without, "norm_layer", self.norm_layer, f"instance or group for {self.network}")
        require(self.folds == 0 or self.folds >= 3, "folds", self.folds, "0, or 3 and more")
        in_range = self.fold is None or self.fold < max(1, self.folds)
        require(in_range, "fold", self.fold, f"a fold from 0 to {max(1, self.folds) - 1}")
        one_start = self.init_from is None or self.encoder_weights_file is None
        require(one_start, "encoder_weights_file", str(self.encoder_weights_file), "none beside init_from")
        for source in ("init_from", "encoder_weights_file"):
            path = getattr(self, source)
            fits = path is None or self.network != "regression"
            require(fits, source, str(path), "none for the regional regression, which does not start from weights")
        name = self.model_name
        good_name = name is None or (name not in ("", ".", "..") and not set(name) & set('/\\:*?"<>|'))
        require(good_name, "model_name", name, "a name for a folder, without slashes")

    def resolved(self, n_participants: int) -> Training:
        """Return the settings with a system instead of ``auto``.

        Parameters
        ----------
        n_participants
            Participants with T1w and PET, of all splits together.
        """
        if self.network != "auto":
            return self
        changed = {
            item.name for item in dataclasses.fields(self) if getattr(self, item.name) != item.default
        } - _OF_EVERY_SYSTEM
        few = n_participants < LEAST_FOR_NETWORK
        return dataclasses.replace(self, network="regression" if few and not changed else "unet")

    @property
    def needs_features(self) -> bool:
        """True if the loss has a perceptual term, which needs a feature network."""
        return self.network != "regression" and self.loss != "mse_ssim" and self.perceptual_weight > 0

    @property
    def name(self) -> str:
        """Name of the model's folder."""
        fold = f"-fold{self.fold}" if self.folds and self.fold is not None else ""
        system = "unet" if self.network == "auto" else self.network
        loss = "" if system == "regression" else f"-{self.loss}"
        return self.model_name or f"{system}{loss}{fold}"

    def resume_fields(self) -> dict[str, Any]:
        """Return the settings that must stay the same when a training is taken up again, as JSON values."""
        values = {key: value for key, value in dataclasses.asdict(self).items() if key not in _MAY_CHANGE}
        if self.network == "regression":
            values = {key: value for key, value in values.items() if key in _OF_EVERY_SYSTEM or key.startswith("grid_")}
        elif self.learning_rate_schedule == "cosine-once":
            values["epochs"] = self.epochs
        return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}

    def hash(self) -> str:
        """Return twelve hexadecimal digits of `resume_fields`, equal exactly where that is equal."""
        text = json.dumps(self.resume_fields(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]
