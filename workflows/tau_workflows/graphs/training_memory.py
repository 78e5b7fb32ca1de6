"""Memory of a training, and of applying a model, as measured: by it graphs and comparisons share a machine out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tau_pipeline.settings.training import Training

#: Peak memory of a training's process in GB, by system and preset: without an image, and what a million voxels add for
#: each scan that is in memory at a time. In float32, with the cyclic loss and all activations kept, rounded up
#: (``benchmarks/training_step.py VGG16 --memory``; benchmarks/README.md has the table).
_TRAINING_GB: dict[tuple[str, str], tuple[float, float]] = {
    ("unet", "laptop"): (0.7, 0.4),
    ("unetr", "laptop"): (0.9, 1.0),
    ("swinunetr", "laptop"): (1.3, 2.6),
    ("pix2pix", "laptop"): (0.7, 0.4),
    ("cyclegan", "laptop"): (0.8, 0.6),
    ("unet", "paper"): (1.4, 0.6),
    ("unetr", "paper"): (2.2, 1.8),
    ("swinunetr", "paper"): (1.9, 6.6),
    ("pix2pix", "paper"): (1.5, 0.8),
    ("cyclegan", "paper"): (2.3, 2.2),
}
#: Peak memory of a process that applies a model to a head on 160 x 192 x 160 voxels, in GB: the largest of the networks
#: that ``benchmarks/synthesize.py`` measured, without the paper's SwinUNETR.
APPLYING_GB = {"laptop": 2.1, "paper": 4.0}


def training_gb(settings: Training, grid_shape: Sequence[int]) -> float:
    """Estimate the memory of a training, in GB (10**9 bytes).

    Parameters
    ----------
    settings
        Read here: the system, its preset, and how many scans are in memory at a time.
    grid_shape
        Voxels along the three axes.
    """
    fixed, per_million_voxels = _TRAINING_GB[settings.network, settings.network_preset]
    at_a_time = settings.micro_batch_size or settings.batch_size
    return fixed + per_million_voxels * math.prod(grid_shape) / 1e6 * at_a_time
