"""Data of a training: splits, target scaling fitted on the training split, and the scans of each split."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from tau_pipeline.errors import SettingError, UnknownNameError
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.training import Training
from tau_pipeline.settings.training_inputs import channel_names
from tau_pipeline.synthesis.data.covariates import CovariateScale, missing_text
from tau_pipeline.synthesis.data.dataset import T1W_ONLY, Inputs, PairDataset
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.prepare import Prepared, cache_key, check_pairs, fit_target_scaling
from tau_pipeline.synthesis.data.scaling import TargetScaling
from tau_pipeline.synthesis.data.splits import (
    SPLITS,
    k_folds,
    load_splits,
    pairs_of_split,
    save_splits,
    split_participants,
)
from tau_pipeline.synthesis.model.channels import InputChannels
from tau_pipeline.synthesis.model.regression import REGRESSION
from tau_pipeline.synthesis.training.optimization import grid_of
from tau_pipeline.synthesis.training.priors import fit_priors
from tau_pipeline.synthesis.training.processes import Processes

#: Table of the splits while training; the model folder gets its own when it is written.
SPLITS_FILE = "checkpoints/splits.tsv"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Scans of the three splits, on one grid and one scale.

    Parameters
    ----------
    train, validation, test
        Only the first is augmented; the others have labels, and the first if the loss needs them.
    splits
        Table with the columns of `tau_pipeline.synthesis.data.splits.COLUMNS`.
    target_scaling
        Fitted on the training split.
    channels
        Of the network's input.
    """

    train: PairDataset
    validation: PairDataset
    test: PairDataset
    splits: pd.DataFrame
    target_scaling: TargetScaling
    channels: InputChannels = field(default_factory=InputChannels)

    def loader(
        self,
        split: str,
        pieces: Sequence[list[int]],
        epoch: int = 0,
        loader_workers: int = 0,
        pin_memory: bool = False,
    ) -> Iterator[Any]:
        """Give the scans of one split by lists of indices; each list as one batch.

        Parameters
        ----------
        split
            ``train``, ``validation`` or ``test``.
        pieces
            Which scans go together.
        epoch
            Decides the augmentation.
        loader_workers
            Processes that read and augment; 0 for this one.
        pin_memory
            Give tensors in page-locked memory.
        """
        dataset: PairDataset = getattr(self, split)
        dataset.set_epoch(epoch)
        return iter(DataLoader(dataset, batch_sampler=list(pieces), num_workers=loader_workers, pin_memory=pin_memory))


def training_data(
    settings: Training, pairs: Sequence[Pair], folder: Path, random_seed: int, cohort: Group, group: Processes
) -> TrainingData:
    """Split the pairs, bring all of them onto the grid, and fit the target scaling on the training split.

    Parameters
    ----------
    settings
        Of the training.
    pairs
        All pairs, of one tracer and reference region.
    folder
        Folder of the model. If an earlier start has stored its splits there, they are used; else they are stored.
    random_seed
        Of splits and augmentation.
    cohort
        Read here: ``min_participants`` and ``unknown_manufacturer``.
    group
        The processes share the reading.

    Raises
    ------
    TauPipelineError
        There are too few participants, an image cannot be used, or a manufacturer cannot be standardized.
    """
    grid, cache_dir = grid_of(settings), settings.cache_dir or Path(folder) / "cache"
    splits = _splits(settings, pairs, Path(folder) / SPLITS_FILE, random_seed, group)
    with group.together():
        for sentence in check_pairs(group.share(pairs), grid, cache_dir):
            _log.warning(sentence)
    target_scaling = fit_target_scaling(
        settings.target_scaling,
        pairs_of_split(pairs, splits, "train"),
        grid,
        cache_dir,
        min_participants=cohort.min_participants,
        unknown_manufacturer=cohort.unknown_manufacturer,
    )
    own = [pair for pair in pairs if _can_be_used(pair, target_scaling, cohort)]
    train, validation, test = (
        PairDataset(
            pairs_of_split(own, splits, split),
            grid,
            target_scaling,
            cache_dir,
            augmentation=settings.augmentation if split == "train" else "off",
            random_seed=random_seed,
            labels=split != "train" or settings.region_mae_weight > 0,
        )
        for split in SPLITS
    )
    channels = _channels(settings, train.pairs)
    priors: dict[str, NDArray[np.float32]] = {}
    if "prior" in channels.names:
        prior, priors = fit_priors(train, [validation, test], group, settings.covariates)
        channels = replace(channels, prior=prior)
    for dataset in (train, validation, test):
        dataset.inputs = _inputs(channels, dataset, cache_dir, priors)
    return TrainingData(train, validation, test, splits, target_scaling, channels)


def _channels(settings: Training, pairs: Sequence[Pair]) -> InputChannels:
    """Return the channels of the network's input, with the scale of the covariates of the training split."""
    if settings.network == REGRESSION:
        return InputChannels()
    people = {pair.participant_id: pair.covariates for pair in pairs}
    for sentence in missing_text(settings.covariates, people):
        _log.warning(sentence)
    return InputChannels(channel_names(asdict(settings)), CovariateScale.fit(settings.covariates, people))


def _inputs(
    channels: InputChannels, dataset: PairDataset, cache_dir: Path, priors: Mapping[str, NDArray[np.float32]]
) -> Inputs:
    """Return the inputs of the pairs of a dataset; shares of labels are kept in the cache."""
    if channels.names == ("t1w",):
        return T1W_ONLY

    def of(pair: Pair, found: Prepared) -> NDArray[np.float32]:
        labels_file = cache_dir / f"{pair.scan}_{cache_key(pair, dataset.grid)}_labels.npz"
        return channels.stacked(found.placed_t1w, priors.get(pair.scan), labels_file)

    return Inputs(of, channels.backgrounds(dataset.target_scaling.background))


def _splits(settings: Training, pairs: Sequence[Pair], path: Path, random_seed: int, group: Processes) -> pd.DataFrame:
    """Return the splits of an earlier start, those of a file, or newly drawn ones."""
    if path.is_file():
        return load_splits(path)
    if settings.split_file is not None:
        table = load_splits(settings.split_file)
    elif settings.folds:
        table = k_folds(pairs, settings.folds, random_seed)[settings.fold or 0]
    else:
        table = split_participants(pairs, settings.split_fractions, random_seed)
    for sentence in table.attrs.get("remarks", ()):
        _log.info(sentence)
    group.wait()
    with group.together():
        if group.writes:
            save_splits(table, path)
    return table


def _can_be_used(pair: Pair, target_scaling: TargetScaling, cohort: Group) -> bool:
    """Return whether the scan's manufacturer was fitted; otherwise the scan is left out if the settings say so."""
    try:
        target_scaling.invert(np.zeros(1), pair.manufacturer)
    except UnknownNameError:
        if cohort.unknown_manufacturer != "exclude":
            raise
        _log.warning("%s is excluded: no standardization for its manufacturer %s", pair.scan, pair.manufacturer)
        return False
    return True


def require_validation(settings: Training, data: TrainingData) -> None:
    """Refuse settings that need a validation split where there is none.

    Raises
    ------
    SettingError
        The best weights are to be tested, and nothing says which those are.
    """
    if settings.tested_weights == "best" and not len(data.validation):
        raise SettingError("tested_weights is 'best' and the validation split is empty; expected: last, or a split")
