"""Settings of a training that concern device, precision, memory, and speed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tau_pipeline.settings.fields import Checked, documented

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class HardwareSettings(Checked):
    """Device, precision, memory, and speed; part of the section ``[training]``."""

    mixed_precision: Literal["off", "bf16", "fp16"] = field(
        default="off",
        metadata=documented(
            "Precision of the network (autocast). bf16 needs no scaling of the loss and is preferred where the GPU has "
            "it; fp16 requires a GPU."
        ),
    )
    activation_checkpointing: bool = field(
        default=False,
        metadata=documented(
            "Recompute the activations of the network instead of storing them: less memory, longer run time."
        ),
    )
    device: Device = field(
        default="auto", metadata=documented("Device for training and prediction; auto uses a GPU if available.")
    )
    cache_dir: Path | None = field(
        default=None,
        metadata=documented("Folder for images on the common grid. Default: cache in the model folder."),
    )
    loader_workers: int = field(
        default=0,
        metadata=documented("Number of processes that load and augment images; 0: the training process.", at_least=0),
    )
    pin_memory: bool = field(
        default=True,
        metadata=documented("Load images into page-locked memory, which is copied to a GPU faster; only with a GPU."),
    )
    cudnn_benchmark: bool = field(
        default=True,
        metadata=documented(
            "Let cuDNN choose the fastest convolution for the shape of the volumes; only with a GPU. Two runs may then "
            "differ by rounding."
        ),
    )
    channels_last: bool = field(
        default=False,
        metadata=documented("Store the channels of a voxel side by side, which some GPUs compute faster on."),
    )
    compile_network: bool = field(
        default=False,
        metadata=documented("Compile the network with torch.compile: slow first step, faster steps on a GPU."),
    )
    checkpoint_minutes: float = field(
        default=10.0,
        metadata=documented(
            "Interval between checkpoints within an epoch; a checkpoint is also written after each epoch. "
            "0: after every step.",
            unit="min",
            at_least=0,
        ),
    )
