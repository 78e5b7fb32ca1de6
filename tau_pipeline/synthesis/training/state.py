"""Everything that changes during a training, and that a checkpoint therefore holds."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.losses.schedule import may_stop, round_at
from tau_pipeline.synthesis.training.checkpoints import newest_checkpoint, write_checkpoint
from tau_pipeline.synthesis.training.optimization import gradient_scaler, optimizers
from tau_pipeline.synthesis.training.weight_average import WeightAverage

if TYPE_CHECKING:
    from tau_pipeline.synthesis.networks.systems import System

#: Values by name, as means over a number of scans.
Means = tuple[dict[str, float], int]


def weighted_mean(means: Sequence[Means]) -> dict[str, float]:
    """Return means over all scans, from means over parts of them and the parts' numbers of scans.

    Examples
    --------
    >>> weighted_mean([({"mse": 1.0}, 3), ({"mse": 5.0}, 1)])
    {'mse': 2.0}
    """
    found = {}
    for name in dict.fromkeys(name for values, _ in means for name in values):
        having = [(values[name], n) for values, n in means if name in values]
        found[name] = sum(value * n for value, n in having) / sum(n for _, n in having)
    return found


def badness(scores: Mapping[str, float], settings: Training) -> float:
    """Return the number that is lowest for the best weights, from mean scores of the validation split.

    Parameters
    ----------
    scores
        From `tau_pipeline.synthesis.training.validation.mean_scores`.
    settings
        Read here: ``select_by``.

    Examples
    --------
    >>> round(badness({"loss": 0.5, "ssim": 0.9, "regional_error": 0.1}, Training()), 6)
    -0.8
    """
    if settings.select_by == "loss":
        return scores["loss"]
    error, ssim = scores["regional_error"], scores["ssim"]
    if settings.select_by == "ssim" or not math.isfinite(error):
        # Without a cortical region in the validation split, SSIM alone decides.
        return -ssim
    return error if settings.select_by == "regional-error" else error - ssim


@dataclass
class Progress:
    """Position of a training: epoch, step and counters.

    ``step`` optimizer steps of ``epoch`` are done, over ``scans`` scans, with the mean losses ``losses``, in
    ``seconds``. ``best_value`` is the lowest `badness` so far or, if ``select_by`` is ``loss``, since the turn of
    ``best_plane`` began; ``waited`` are the epochs since then that count for early stopping. ``first_losses`` are those
    of the first step, by phase.
    """

    epoch: int = 0
    step: int = 0
    scans: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    best_value: float | None = None
    best_plane: str = ""
    waited: int = 0
    first_losses: dict[str, float] = field(default_factory=dict)
    stopped: bool = False

    def count_step(self, means: Sequence[Means], n_scans: int) -> None:
        """Take in the losses of one optimizer step over ``n_scans`` scans."""
        step_means = weighted_mean(means)
        self.losses = weighted_mean([(self.losses, self.scans), (step_means, n_scans)]) if self.scans else step_means
        self.scans += n_scans
        self.step += 1

    def take_validation(self, scores: Mapping[str, float], plane: str, settings: Training) -> bool:
        """Compare a validation with the best one; returns whether it is better.

        With ``select_by`` ``loss`` and a cyclic loss, the best one is forgotten when the plane changes, since losses of
        different planes cannot be compared, and epochs without a better one count from the third round on. Otherwise
        they count from the beginning, and training may stop once each plane has had its turn.
        """
        value, by_plane = badness(scores, settings), settings.select_by == "loss"
        better = self.best_value is None or (by_plane and plane != self.best_plane) or value < self.best_value
        if better:
            self.best_value, self.best_plane, self.waited = value, plane, 0
        elif not by_plane or _counts_for_stopping(self.epoch, settings):
            self.waited += settings.validate_every
        may_end = by_plane or _all_planes_had_a_turn(self.epoch, settings)
        self.stopped = may_end and 0 < settings.early_stopping_patience <= self.waited
        return better

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch, self.step, self.scans, self.losses, self.seconds = self.epoch + 1, 0, 0, {}, 0.0


def _counts_for_stopping(epoch: int, settings: Training) -> bool:
    """Return whether an epoch counts under the paper's rule."""
    return settings.loss != "cyclic2.5d" or may_stop(epoch, settings.first_cycle, settings.cycle_factor)


def _all_planes_had_a_turn(epoch: int, settings: Training) -> bool:
    """Return whether the first round of the cyclic loss ends with this epoch or has ended; True for other losses."""
    return settings.loss != "cyclic2.5d" or round_at(epoch + 1, settings.first_cycle, settings.cycle_factor) >= 1


class TrainingState:
    """Weights, optimizers, scaling, average of the weights, best weights and progress.

    Parameters
    ----------
    system
        On the device where it trains.
    settings
        Of the training.
    device
        That device.
    """

    def __init__(self, system: System, settings: Training, device: torch.device) -> None:
        self.system = system
        self.optimizers = optimizers(system, settings)
        self.scaler = gradient_scaler(settings, device)
        self.average = WeightAverage(system.generator, settings.ema_decay) if settings.ema_decay else None
        self.progress = Progress()
        self.best_weights: dict[str, Tensor] | None = None
        self._keeps_best = settings.tested_weights == "best"

    def keep_best(self) -> None:
        """Remember the network that was just validated, if it is the one that will be tested."""
        if self._keeps_best:
            weights = self.average.weights if self.average else self.system.generator.state_dict()
            self.best_weights = {name: value.detach().cpu().clone() for name, value in weights.items()}

    def use_best_weights(self) -> None:
        """Put the best weights in the network's place, if those are the tested ones."""
        if self.best_weights is not None:
            self.system.generator.load_state_dict(self.best_weights)

    def save(self, folder: Path) -> Path:
        """Write a checkpoint."""
        content: dict[str, Any] = {
            "system": self.system.state_dict(),
            "optimizers": {phase: optimizer.state_dict() for phase, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "best_weights": self.best_weights,
            "progress": dataclasses.asdict(self.progress),
        }
        return write_checkpoint(folder, content, self.progress.epoch, self.progress.step)

    def resume(self, folder: Path) -> bool:
        """Go on from the newest checkpoint of a folder that is whole; returns whether there is one."""
        content = newest_checkpoint(folder)
        if content is None:
            return False
        self.system.load_state_dict(content["system"])
        # The second spelling is that of the first checkpoints.
        saved = content["optimizers"] if "optimizers" in content else content["optimisers"]
        for phase, optimizer in self.optimizers.items():
            # Adam keeps its state on the device of the weights, whatever the checkpoint's was.
            optimizer.load_state_dict(copy.deepcopy(saved[phase]))
        self.scaler.load_state_dict(content["scaler"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.best_weights = content["best_weights"]
        self.progress = Progress(**content["progress"])
        return True
