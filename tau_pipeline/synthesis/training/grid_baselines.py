"""Baselines on the model's grid: what stands beside the figures of each epoch in the log.

The figures of an epoch are on the model's grid, where they are cheap. They are larger than those on the grid of the T1w
(`tau_pipeline.synthesis.model.baseline_scores`), by which a finished model is judged, so they mean nothing without the
same figures of the mean of the training images, of the mean of those with the participant's diagnosis, and of the
regional regression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from tau_pipeline.synthesis.data.dataset import PairDataset
from tau_pipeline.synthesis.model.baseline_scores import DIAGNOSIS_MEAN, REGIONAL_REGRESSION, TRAINING_MEAN
from tau_pipeline.synthesis.model.baselines import MeanImages, participant_weights
from tau_pipeline.synthesis.model.regression import RegionalRegression
from tau_pipeline.synthesis.model.regression_fit import LEAST_PARTICIPANTS, fit_regression
from tau_pipeline.synthesis.training.data import TrainingData
from tau_pipeline.synthesis.training.validation import (
    ScanScores,
    mean_scores,
    regional_correlation,
    score_prediction,
)

#: Measures of an epoch that baselines have too; a loss depends on the plane of the epoch.
_MEASURES = ("ssim", "psnr", "mae", "regional_error")


@dataclass(frozen=True)
class GridBaselines:
    """Simple predictors on the model's grid.

    Attributes
    ----------
    mean_image
        ``(I, J, K)`` mean of the scaled training images.
    regression
        The regional regression; None with too few participants.
    diagnosis_images
        Mean image of each diagnosis; who has none of these gets the mean of all.
    """

    mean_image: NDArray[np.float32]
    regression: RegionalRegression | None
    diagnosis_images: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def scores(self, data: TrainingData, split: str) -> dict[str, dict[str, float]]:
        """Return the mean of each measure over the scans of a split, by predictor; empty without scans.

        The test split also has ``regional_correlation``, as the card has it; NaN for fewer than three scans.
        """
        dataset: PairDataset = getattr(data, split)
        found: dict[str, list[ScanScores]] = {}
        for scan in data.loader(split, [[index] for index in range(len(dataset))]):
            for name, z in self._maps(dataset, int(scan["index"][0])).items():
                prediction = torch.from_numpy(z)[None, None]
                found.setdefault(name, []).append(score_prediction(scan, prediction, 0.0, data.target_scaling))
        means = {name: {key: mean_scores(own)[key] for key in _MEASURES} for name, own in found.items()}
        if split != "test":
            return means
        return {name: {**own, "regional_correlation": regional_correlation(found[name])} for name, own in means.items()}

    def _maps(self, dataset: PairDataset, index: int) -> dict[str, NDArray[np.float32]]:
        prepared, maps = dataset.prepared(index), {TRAINING_MEAN: self.mean_image}
        if self.diagnosis_images:
            maps[DIAGNOSIS_MEAN] = self.diagnosis_images.get(dataset.pairs[index].diagnosis, self.mean_image)
        if self.regression is not None:
            anatomy = prepared.anatomy(dataset.pairs[index].covariates)
            maps[REGIONAL_REGRESSION] = self.regression.mean_map(anatomy, prepared.brain, dataset.grid.voxel_mm)
        return maps


def fit_grid_baselines(data: TrainingData, covariates: Sequence[str]) -> GridBaselines:
    """Fit the baselines of the log on the training split; the regression gets the covariates of the training."""
    train, grid = data.train, data.train.grid
    images, weights = MeanImages(data.target_scaling, grid), participant_weights(train.pairs)
    for index, pair in enumerate(train.pairs):
        scan = train.prepared(index)
        images.add(pair, scan.suvr, scan.known, weights[pair.participant_id])
    regression = None
    if len(weights) >= LEAST_PARTICIPANTS:
        regression = fit_regression(train.pairs, data.target_scaling, grid, train.cache_dir, covariates).system
    return GridBaselines(images.mean(), regression, images.of_diagnoses())


def log_columns(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the columns of the log for scores of the validation split.

    >>> log_columns({"training mean": {"ssim": 0.8}})
    {'validation_ssim_of_training_mean': 0.8}
    """
    return {
        f"validation_{measure}_of_{name.replace(' ', '_')}": value
        for name, own in scores.items()
        for measure, value in own.items()
    }


def validation_text(scores: Mapping[str, float], baselines: Mapping[str, float]) -> str:
    """Say how the model does on the validation split, on its own grid, and how the baselines do."""
    found = f"SSIM {scores['ssim']:.3f} PSNR {scores['psnr']:.1f} dB regional error {scores['regional_error']:.3f}"
    stem = "validation_ssim_of_"
    names = [column.removeprefix(stem) for column in baselines if column.startswith(stem)]
    others = [
        f"{name.replace('_', ' ')}: SSIM {baselines[stem + name]:.3f}"
        f" regional error {baselines[f'validation_regional_error_of_{name}']:.3f}"
        for name in names
    ]
    return "on the model's grid: " + (f"{found} ({'; '.join(others)})" if others else found)
