"""The runs of a comparison: which trainings there are, what they are called, and what they are trained with.

Knows no torch: a call that is wrong is answered at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tau_pipeline.errors import SettingError
from tau_pipeline.settings.comparison import Comparison
from tau_pipeline.settings.fields import require
from tau_pipeline.settings.training import Training

#: The loss that the others are tested against, and the scaling.
CYCLIC, BY_MANUFACTURER = "cyclic2.5d", "by-manufacturer"
#: Simple predictors in the tables beside the systems; they have no loss.
TRAINING_MEAN, DIAGNOSIS_MEAN, REGIONAL_REGRESSION = "training mean", "diagnosis mean", "regional regression"
BASELINES = (TRAINING_MEAN, DIAGNOSIS_MEAN, REGIONAL_REGRESSION)
NO_LOSS = "n/a"
#: Name of the run that scores both of them.
_OF_BASELINES = "baselines"


@dataclass(frozen=True)
class Run:
    """One training, and the test of its model on one fold; or the trivial predictors of that fold.

    Attributes
    ----------
    system, loss, target_scaling
        As in ``[training]``; the system is `_OF_BASELINES`, without a loss, for the trivial predictors.
    fold
        Which fold is tested, counted from 0.
    """

    system: str
    loss: str
    target_scaling: str
    fold: int

    @property
    def name(self) -> str:
        """Return the name of the run's folder."""
        parts = [self.system, *([] if self.loss == NO_LOSS else [self.loss]), self.target_scaling, f"fold{self.fold}"]
        return "_".join(parts)

    @property
    def description(self) -> str:
        """Describe the run for people."""
        return f"{self.system}, {self.loss}, {self.target_scaling}, fold {self.fold}"


def runs_of(comparison: Comparison, folds: int) -> tuple[Run, ...]:
    """List all trainings, fold by fold, so that a comparison that is interrupted is still one."""
    return tuple(
        Run(system, loss, target_scaling, fold)
        for fold in range(folds)
        for target_scaling in comparison.target_scalings
        for system in comparison.systems
        for loss in comparison.losses
    )


def baselines_of(comparison: Comparison, folds: int) -> tuple[Run, ...]:
    """List the trivial predictors of each fold and scaling."""
    return tuple(
        Run(_OF_BASELINES, NO_LOSS, target_scaling, fold)
        for fold in range(folds)
        for target_scaling in comparison.target_scalings
    )


def settings_of(run: Run, training: Training, comparison: Comparison, split_file: Path) -> Training:
    """Return the settings of one training.

    Parameters
    ----------
    run
        Which.
    training
        What all trainings have in common.
    comparison
        The feature network of the loss 3d.
    split_file
        Table of the splits of the run's fold.
    """
    own = replace(
        training,
        network=run.system,  # type: ignore[arg-type]
        loss=run.loss,  # type: ignore[arg-type]
        target_scaling=run.target_scaling,  # type: ignore[arg-type]
        split_file=split_file,
        folds=0,
        fold=0,
        model_name=None,
        model_dir=None,
    )
    if run.loss != "3d":
        return own
    return replace(
        own,
        perceptual_features=comparison.volume_features,
        perceptual_weights_file=comparison.volume_weights_file,
    )


def check_comparison(comparison: Comparison, training: Training) -> None:
    """Refuse sections that do not fit together.

    Raises
    ------
    SettingError
        The message names the setting.
    """
    require(training.folds >= 3, "folds", training.folds, "3 or more for a comparison, each of which is tested once")
    for name in ("fold", "split_file", "model_name", "model_dir"):
        value = getattr(training, name)
        if value not in (0, None):
            raise SettingError(f"{name} is {str(value)!r}; expected: none, since a comparison makes its own")
    if not comparison.validation_fold:
        last, patience = training.tested_weights == "last", training.early_stopping_patience
        require(last, "tested_weights", training.tested_weights, "last where validation_fold is false")
        require(patience == 0, "early_stopping_patience", patience, "0 where validation_fold is false")
    if "3d" in comparison.losses and comparison.volume_features == "pretrained":
        file = comparison.volume_weights_file
        require(file is not None, "volume_weights_file", file, "a file for the loss 3d, or volume_features random")


def evenly_spread(items: Sequence[str], count: int) -> tuple[str, ...]:
    """Choose ``count`` of the items at even distances, the first and the last among them.

    >>> evenly_spread("abcde", 3), evenly_spread("abcde", 1), evenly_spread("ab", 4)
    (('a', 'c', 'e'), ('a',), ('a', 'b'))
    """
    if count >= len(items) or count < 2:
        return tuple(items[:count])
    return tuple(items[round(k * (len(items) - 1) / (count - 1))] for k in range(count))
