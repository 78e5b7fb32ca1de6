"""Preparation of a comparison: splits, grids, and checks that refuse early what would fail late."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from tau_pipeline.errors import MissingInputError, SettingError
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.data.grid import FIELD_MM, covering_sides
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.splits import k_folds
from tau_pipeline.synthesis.losses.features import find_vgg16_features, load_resnet3d_features, load_vgg16_features
from tau_pipeline.synthesis.model.baselines import regional_values
from tau_pipeline.synthesis.networks.networks import NETWORKS, check_sides
from tau_pipeline.synthesis.training.optimization import grid_of


def with_grid_shape(settings: Training) -> Training:
    """Return the settings with the smallest grid that the run's network takes, unless they name one.

    Systems differ in how often they halve a volume, so that the same voxels come with more or less air around them.

    Raises
    ------
    SettingError, ImageError
        The named grid does not fit the network.
    """
    network, preset = settings.network, settings.network_preset
    if not settings.grid_shape:
        multiple = NETWORKS[network].side_multiple[preset]
        sides = covering_sides(FIELD_MM, (settings.grid_voxel,) * 3, multiple)
        if math.prod(sides) == multiple**3:
            # One voxel would be left at the narrowest place, which no network of these takes.
            sides = (sides[0], 2 * sides[1], sides[2])
        settings = dataclasses.replace(settings, grid_shape=sides)
    check_sides(network, preset, grid_of(settings).shape)
    return settings


def fold_splits(pairs: Sequence[Pair], folds: int, random_seed: int, validation_fold: bool) -> list[pd.DataFrame]:
    """Return the splits of each fold; without a validation fold those participants are trained on too."""
    tables = k_folds(pairs, folds, random_seed)
    if validation_fold:
        return tables
    return [table.assign(split=table["split"].replace("validation", "train")) for table in tables]


def check_folds(tables: Sequence[pd.DataFrame], cohort: Group) -> None:
    """Refuse folds that leave a manufacturer with too few participants for training, where that is an error.

    Raises
    ------
    SettingError
        The message says which, in which fold, and what can be done.
    """
    if cohort.unknown_manufacturer != "error":
        return
    for number, table in enumerate(tables):
        counts = table.loc[table["split"] == "train", "manufacturer"].value_counts()
        for manufacturer in sorted(table["manufacturer"].unique()):
            if counts.get(manufacturer, 0) < cohort.min_participants:
                raise SettingError(
                    f"fold {number} has {counts.get(manufacturer, 0)} participants of {manufacturer} for training, and "
                    f"a standardization by manufacturer needs {cohort.min_participants}; lower min_participants, take "
                    "fewer folds, or set unknown_manufacturer to pooled or exclude"
                )


def check_features(settings: Sequence[Training]) -> None:
    """Refuse trainings whose feature network is not there or cannot be read, before the first one starts.

    Raises
    ------
    MissingInputError, DamagedFileError
        The message says which file.
    """
    pretrained = [one for one in settings if one.loss != "mse_ssim" and one.perceptual_features == "pretrained"]
    for file in {one.perceptual_weights_file for one in pretrained if one.loss != "3d"}:
        load_vgg16_features(find_vgg16_features(file))
    for file in {one.perceptual_weights_file for one in pretrained if one.loss == "3d"}:
        if file is not None:
            load_resnet3d_features(file)


def check_tables(pairs: Sequence[Pair]) -> None:
    """Refuse scans without a region table, which could not be scored.

    Raises
    ------
    MissingInputError
        The message names the first.
    """
    for pair in pairs:
        if pair.rois_file is None or not pair.reference_mask_file.is_file():
            raise MissingInputError(
                f"{pair.scan} has no region table or no mask of its reference region {pair.reference_region}, which "
                "its scores need; run the participant level again"
            )


def most_tau_first(pairs: Sequence[Pair]) -> list[Pair]:
    """Sort scans by the mean of the measured SUVR of their cortical regions, the largest first."""

    def cortex(pair: Pair) -> float:
        table = regional_values(pair)
        return float(pd.to_numeric(table.loc[table["kind"] == "cortical", "suvr_mean"], errors="coerce").mean())

    return sorted(pairs, key=lambda pair: (-cortex(pair), pair.scan))
