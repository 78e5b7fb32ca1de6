"""Fit of a regional regression on the training split; its penalty is chosen by cross-validation within that split."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tau_pipeline.errors import SettingError
from tau_pipeline.synthesis.data.anatomy import thickness_labels, thickness_name
from tau_pipeline.synthesis.data.grid import Grid, common_grid
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.prepare import Prepared, prepare
from tau_pipeline.synthesis.data.scaling import TargetScaling
from tau_pipeline.synthesis.model.regression import (
    COVARIATES,
    Floats,
    RegionalRegression,
    covariate_places,
    features,
    painted,
)

if TYPE_CHECKING:
    from sklearn.model_selection import GridSearchCV

#: Fewer training participants than this give no regression.
LEAST_PARTICIPANTS = 6
#: Parts of the cross-validation, each of which is also left out of one member.
_FOLDS = 5
#: Penalties of ridge regression, on standardized features, and numbers of components of partial least squares.
_PENALTIES, _COMPONENTS = tuple(np.logspace(0, 4, 9)), (1, 2, 3)
#: FWHM of the blurs that are compared, mm, and the largest number of training scans used for it.
_BLURS_MM, _BLURRED_SCANS = (5.0, 6.0, 7.0, 8.0, 9.0), 4
#: A label counts where at least this part of the training scans has it.
_LEAST_PRESENT = 0.5


@dataclass(frozen=True)
class RegressionFit:
    """A regression, and how it was chosen.

    Attributes
    ----------
    system
        Ready to be used.
    choice
        In words: the penalty or number of components.
    error
        Mean absolute error over labels and left-out training participants, on the scale of the targets.
    """

    system: RegionalRegression
    choice: str
    error: float


def regression_grid(voxel_mm: float = 2.0) -> Grid:
    """Return the grid on which the values are painted; it needs no sides that a network could halve."""
    return common_grid(voxel_mm, None, 1)


def fit_regression(
    pairs: Sequence[Pair],
    target_scaling: TargetScaling,
    grid: Grid,
    cache_dir: Path | None = None,
    covariates: Sequence[str] = (),
) -> RegressionFit:
    """Fit a regional regression.

    Parameters
    ----------
    pairs
        Of the training split.
    target_scaling
        Applied to the regional SUVR first; fitted on the training split too.
    grid
        The grid of the prepared images; the blur is chosen on it where its voxels are small enough, else on
        `regression_grid`.
    cache_dir
        As in `tau_pipeline.synthesis.data.prepare.prepare`.
    covariates
        Of the training; those beside age and sex become features too. So does the thickness of the cortex, by region,
        where enough of the scans have it.

    Raises
    ------
    SettingError
        There are fewer than `LEAST_PARTICIPANTS` participants.
    """
    people = [pair.participant_id for pair in pairs]
    if (n := len(set(people))) < LEAST_PARTICIPANTS:
        raise SettingError(
            f"the training split has {n} participant{'s' * (n != 1)}, and a regional regression needs "
            f"{LEAST_PARTICIPANTS} or more; add participants, or make the training split larger (split_fractions, "
            "folds, split_file)"
        )
    scans = [_without_images(prepare(pair, grid, cache_dir)) for pair in pairs]
    painted_labels = _common(scan.uptake for scan in scans)
    feature_labels = [number for number in _common(scan.volumes for scan in scans) if number]
    thick = _common(dict.fromkeys(thickness_labels(pair.covariates), 0.0) for pair in pairs)
    known = tuple(dict.fromkeys((*COVARIATES, *covariates)))
    names = (*known, *map(thickness_name, thick))
    table = np.array(
        [
            features(scan.anatomy(pair.covariates), feature_labels, names)
            for pair, scan in zip(pairs, scans, strict=True)
        ]
    )
    targets = np.array(
        [_targets(scan, pair, painted_labels, target_scaling) for pair, scan in zip(pairs, scans, strict=True)]
    )
    targets = np.where(np.isfinite(targets), targets, np.nanmean(targets, axis=0))
    search = _searched(table, targets, people)
    center, scale, weight, bias = _members(search, table, targets, people)
    state = {
        "labels": torch.tensor(painted_labels),
        "feature_labels": torch.tensor(feature_labels),
        "fwhm_mm": torch.tensor([_best_blur(pairs, grid, cache_dir)]),
        "covariates": covariate_places(known),
        "thickness_labels": torch.tensor(thick, dtype=torch.int64),
        **{
            name: torch.from_numpy(np.asarray(array, np.float32))
            for name, array in (("center", center), ("scale", scale), ("weight", weight), ("bias", bias))
        },
    }
    return RegressionFit(RegionalRegression(state), _text(search.best_params_), float(-search.best_score_))


def _common(scans: Iterable[Mapping[int, float]]) -> list[int]:
    """Return the labels that enough scans have, sorted."""
    every = list(scans)
    counts: dict[int, int] = {}
    for scan in every:
        for number in scan:
            counts[number] = counts.get(number, 0) + 1
    return sorted(number for number, count in counts.items() if count >= _LEAST_PRESENT * len(every))


def _without_images(scan: Prepared) -> Prepared:
    """Return what is known of the regions of a scan; the images of a large cohort do not fit into memory."""
    nothing, nowhere = np.empty(0, np.float32), np.empty(0, np.bool_)
    labels = np.empty(0, np.int32)
    return replace(scan, t1w=nothing, suvr=nothing, brain=nowhere, known=nowhere, labels=labels)


def _targets(scan: Prepared, pair: Pair, labels: Sequence[int], target_scaling: TargetScaling) -> Floats:
    suvr = np.array([scan.uptake.get(number, np.nan) for number in labels], np.float64)
    return np.asarray(target_scaling.apply(suvr, pair.manufacturer), np.float64)


def _searched(table: Floats, targets: Floats, people: Sequence[str]) -> GridSearchCV:
    """Return the model with the least absolute error over left-out participants."""
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    folds = _folds(table, people)
    smallest = min(len(train) for train, _ in folds)
    steps = [("known", SimpleImputer(keep_empty_features=True)), ("scaled", StandardScaler()), ("model", Ridge())]
    candidates = [
        {"model": [Ridge()], "model__alpha": list(_PENALTIES)},
        {"model": [PLSRegression(scale=False)], "model__n_components": [n for n in _COMPONENTS if n < smallest]},
    ]
    search = GridSearchCV(Pipeline(steps), candidates, scoring="neg_mean_absolute_error", cv=folds)
    with warnings.catch_warnings():
        # A candidate that cannot be fitted, such as more components than the table has directions, is not chosen.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        return search.fit(table, targets)


def _folds(table: Floats, people: Sequence[str]) -> list[tuple[NDArray, NDArray]]:
    """Return the parts of the cross-validation; all scans of a participant are in one."""
    from sklearn.model_selection import GroupKFold

    return list(GroupKFold(min(_FOLDS, len(set(people)))).split(table, groups=list(people)))


def _members(
    search: GridSearchCV, table: Floats, targets: Floats, people: Sequence[str]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return center and scale of the features, and weight and bias of the members.

    Each member is the model of all participants, moved by how far that without one part lies from the mean of these:
    their mean is the model of all participants, and their spread is that of the cross-validation.
    """
    from sklearn.base import clone

    known = np.isfinite(table)
    counts = np.maximum(known.sum(axis=0), 1)
    center = np.where(known, table, 0.0).sum(axis=0) / counts
    scale = np.sqrt(np.where(known, (table - center) ** 2, 0.0).sum(axis=0) / counts)
    scale[scale < 1e-9] = 1.0
    points = np.vstack([center, center + np.diag(scale)])

    def affine(model: Any) -> tuple[Floats, Floats]:
        values = model.predict(points)
        return (values[1:] - values[0]).T, values[0]

    weight, bias = affine(search.best_estimator_)
    parts = [
        affine(clone(search.best_estimator_).fit(table[train], targets[train])) for train, _ in _folds(table, people)
    ]
    weights, biases = np.array([part[0] for part in parts]), np.array([part[1] for part in parts])
    return center, scale, weight + weights - weights.mean(axis=0), bias + biases - biases.mean(axis=0)


def _best_blur(pairs: Sequence[Pair], grid: Grid, cache_dir: Path | None) -> float:
    """Return the FWHM with which the measured regional values, painted, are closest to the measured maps."""
    fine = grid if max(grid.voxel_mm) <= regression_grid().voxel_mm[0] else regression_grid()
    used = list(pairs)[:: max(1, len(pairs) // _BLURRED_SCANS)][:_BLURRED_SCANS]
    errors = np.zeros(len(_BLURS_MM))
    for pair in used:
        scan = prepare(pair, fine, cache_dir)
        for n, fwhm in enumerate(_BLURS_MM):
            found = painted(scan.uptake, scan.labels, scan.brain, fwhm, fine.voxel_mm)
            errors[n] += np.abs(found - scan.suvr)[scan.known].mean()
    return _BLURS_MM[int(errors.argmin())]


def _text(parameters: Mapping[str, Any]) -> str:
    if "model__alpha" in parameters:
        return f"ridge regression, penalty {parameters['model__alpha']:.3g}"
    n = parameters["model__n_components"]
    return f"partial least squares, {n} component{'s' * (n != 1)}"
