"""Training of the regional regression: from pairs to a model folder, as the training loop does for networks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.data.covariates import unused_text
from tau_pipeline.synthesis.data.pairs import UNKNOWN, Pair
from tau_pipeline.synthesis.model.card import ModelCard
from tau_pipeline.synthesis.model.folder import save_model
from tau_pipeline.synthesis.model.regression import COVARIATES
from tau_pipeline.synthesis.model.regression_fit import RegressionFit, fit_regression
from tau_pipeline.synthesis.training.results import save_measures

if TYPE_CHECKING:
    from tau_pipeline.synthesis.training.data import TrainingData

_log = logging.getLogger(__name__)


def train_regression(
    settings: Training, data: TrainingData, folder: Path, random_seed: int, left_out: Sequence[str] = ()
) -> None:
    """Fit the regional regression on the training split, and write its model folder.

    Parameters
    ----------
    settings
        Of the training; read here: ``target_scaling``, ``grid_voxel``, ``device``, for the card; ``covariates``.
    data
        Scans of the splits.
    folder
        Of the model.
    random_seed
        Of the splits, for the card.
    left_out
        Scans that were left out because of their quality, for the card.

    Raises
    ------
    TauPipelineError
        The training split has too few participants, or an image cannot be used.
    """
    pairs: Sequence[Pair] = data.train.pairs
    found = fit_regression(pairs, data.target_scaling, data.train.grid, data.train.cache_dir, settings.covariates)
    _log.info("%s; error over left-out training participants %.3f", found.choice, found.error)
    people = {pair.participant_id: pair.covariates for pair in pairs}
    unused = unused_text(dict.fromkeys((*COVARIATES, *settings.covariates)), people)
    for sentence in unused:
        _log.warning(sentence)
    found.system.preset = settings.network_preset
    first = pairs[0]
    card = ModelCard(
        network=settings.network,
        preset=settings.network_preset,
        grid=data.train.grid,
        settings={**settings.resume_fields(), "epochs": settings.epochs},
        seed=random_seed,
        figures=_measures(found, data, left_out),
        limits=(*unused, *ModelCard.limits),
        tracer="" if first.tracer == UNKNOWN else first.tracer,
        reference_region="" if first.reference_region == UNKNOWN else first.reference_region,
    )
    save_model(folder, found.system, card, data.target_scaling, data.splits)
    save_measures(folder, data, settings.device)


def _measures(found: RegressionFit, data: TrainingData, left_out: Sequence[str]) -> dict[str, object]:
    return {
        "epochs": 0,
        "stopped_early": True,
        "test_scans": len(data.test.pairs),
        "scans_left_out_for_quality": list(left_out),
        "choice": found.choice,
        "blur_mm": float(found.system.fwhm_mm),
        "cross_validated_error": round(found.error, 6),
        "cross_validated_error_of": "regional values of left-out training participants, on the scale of the targets",
    }
