"""Components of a training run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.losses.weighted import Within
from tau_pipeline.synthesis.training.data import TrainingData
from tau_pipeline.synthesis.training.grid_baselines import GridBaselines
from tau_pipeline.synthesis.training.processes import Processes
from tau_pipeline.synthesis.training.state import TrainingState

#: loss(prediction, target, epoch, within) -> (scalar, its parts)
Loss = Callable[[Tensor, Tensor, int, Within | None], tuple[Tensor, dict[str, float]]]


#: Scans in memory together: t1w, pet, mask (B, 1, I, J, K), and names as lists.
Piece = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """Components of one training.

    Parameters
    ----------
    state
        System, optimizers and progress: all that changes.
    data
        Scans of the three splits.
    loss
        Of prediction and target ``(B, 1, I, J, K)`` at an epoch.
    settings, random_seed
        What decides everything else.
    folder
        Takes ``checkpoints``, ``log.tsv`` and ``tensorboard``.
    group
        The processes that train together.
    left_out
        Scans that were left out because of their quality.
    baselines
        Of the log; None where they are not wanted.
    baseline_columns
        Their figures on the validation split, by column of the log.
    started_from
        Which weights the training started from, as in the card; None for random ones.
    """

    state: TrainingState
    data: TrainingData
    loss: Loss
    settings: Training
    random_seed: int
    folder: Path
    group: Processes
    left_out: tuple[str, ...] = ()
    baselines: GridBaselines | None = None
    baseline_columns: Mapping[str, float] = field(default_factory=dict)
    started_from: Mapping[str, Any] | None = None

    @property
    def pins_memory(self) -> bool:
        """True if images are loaded into page-locked memory."""
        return self.settings.pin_memory and self.group.device.type == "cuda"
