"""Baselines for a model's predictions, computed on its training split and kept in its folder.

- The range of the training T1w images, so that one unlike them is flagged.
- Baselines: the mean of the training images, the mean of those with the same diagnosis, and a regional regression
  (`tau_pipeline.synthesis.model.regression`). A model that does not beat the means has learned nothing about the
  participant; one that does not beat the regression, nothing that the volumes of regions do not say.
- Thresholds of tau positivity: regional SUVR that few controls reach.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tau_pipeline.derivatives.read import read_regions
from tau_pipeline.diagnoses import is_control
from tau_pipeline.errors import DamagedFileError, SettingError
from tau_pipeline.files import complete_file
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.pairs import UNKNOWN, Pair
from tau_pipeline.synthesis.data.placement import Placement
from tau_pipeline.synthesis.data.prepare import prepare
from tau_pipeline.synthesis.data.scaling import TargetScaling
from tau_pipeline.synthesis.model.folder import LoadedModel
from tau_pipeline.synthesis.model.regression import REGRESSION, RegionalRegression
from tau_pipeline.synthesis.model.regression_fit import LEAST_PARTICIPANTS, fit_regression

FILE = "baselines.npz"
#: Begin of the names of the regression's arrays in it.
_PREFIX = "regression_"

#: A figure is flagged when it lies outside the training range by more than this part of the range's width, or, where
#: all training images are alike, of its value.
_SLACK = 0.25
#: Quantiles of the T1w in the brain, on the model's scale from -1 to 1: a summary of its histogram.
_QUANTILES = (5, 25, 50, 75, 95)
#: Fewer controls than this give no threshold.
_LEAST_CONTROLS = 5
#: A region is tau-positive from the controls' mean plus this many of their standard deviations on.
_POSITIVE_SD = 2.0

_FIGURES = {
    "smallest_voxel_mm": ("the smallest voxel edge", "mm"),
    "largest_voxel_mm": ("the largest voxel edge", "mm"),
    "brain_ml": ("the brain volume", "mL"),
    **{f"t1w_p{q:02d}": (f"percentile {q} of the T1w in the brain", "on the scale from -1 to 1") for q in _QUANTILES},
}
#: Covariates among the figures, by the names that these have, in the words of a sentence.
_COVARIATES = {
    "age": ("the age", "years"),
    "sex": ("the sex", "(1 female, 0 male)"),
    "diagnosis": ("the diagnosis", "(0 unimpaired, 1 mild impairment, 2 dementia)"),
    "apoe": ("the number of APOE ε4 alleles", ""),
    "p_tau217": ("the natural logarithm of plasma p-tau217", ""),
}


@dataclass(frozen=True)
class TrainingStatistics:
    """Baselines of a training split.

    Attributes
    ----------
    t1w_range
        Least and largest value over the training images of each figure of `t1w_measures`, and of each covariate that
        the model uses.
    mean_image
        ``(I, J, K)`` mean of the normalized training images on the model's grid; the background where there is none.
    diagnosis_images
        The same of each diagnosis.
    positivity
        SUVR threshold of each region, by ``region|hemisphere``; empty without controls.
    participants
        Who was used.
    regression
        The regional regression; None where the model is one itself, or there are too few participants.
    """

    t1w_range: Mapping[str, tuple[float, float]]
    mean_image: NDArray[np.float32]
    diagnosis_images: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    positivity: Mapping[str, float] = field(default_factory=dict)
    participants: tuple[str, ...] = ()
    regression: RegionalRegression | None = None

    def save(self, folder: Path) -> Path:
        """Write `FILE`, complete or not at all."""
        record = {
            "t1w_range": {name: list(ends) for name, ends in self.t1w_range.items()},
            "positivity": dict(self.positivity),
            "participants": list(self.participants),
            "diagnoses": list(self.diagnosis_images),
        }
        images: dict[str, Any] = {f"diagnosis_{n}": image for n, image in enumerate(self.diagnosis_images.values())}
        if self.regression is not None:
            images |= {_PREFIX + name: value.numpy() for name, value in self.regression.state_dict().items()}
        with complete_file(Path(folder) / FILE) as partial:
            np.savez_compressed(partial, record=np.array(json.dumps(record)), mean_image=self.mean_image, **images)
        return Path(folder) / FILE

    @classmethod
    def load(cls, folder: Path) -> TrainingStatistics | None:
        """Read `FILE`; None where there is none.

        Raises
        ------
        DamagedFileError
            It is not what `save` writes.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                record = json.loads(str(stored["record"]))
                images = {name: stored[f"diagnosis_{n}"] for n, name in enumerate(record["diagnoses"])}
                ends = {name: (float(low), float(high)) for name, (low, high) in record["t1w_range"].items()}
                people = tuple(record["participants"])
                return cls(ends, stored["mean_image"], images, record["positivity"], people, _regression_in(stored))
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as exc:
            raise DamagedFileError(f"{path} is damaged ({exc}); copy the model folder again, or remove it") from exc


def _regression_in(stored: Mapping[str, NDArray]) -> RegionalRegression | None:
    state = {name.removeprefix(_PREFIX): stored[name] for name in stored if name.startswith(_PREFIX)}
    return RegionalRegression({name: torch.from_numpy(value) for name, value in state.items()}) if state else None


def t1w_measures(t1w: NDArray, brain: NDArray, placement: Placement) -> dict[str, float]:
    """Return measures of a T1w that are compared with the training images: voxel edges, brain volume, histogram.

    Parameters
    ----------
    t1w, brain
        ``(I, J, K)`` on the model's grid, as `tau_pipeline.synthesis.data.prepare.prepare_t1w` gives them.
    placement
        Where they come from.
    """
    edges = np.sqrt((np.array(placement.source_affine)[:3, :3] ** 2).sum(axis=0))
    quantiles = np.percentile(t1w[brain > 0], _QUANTILES)
    return {
        "smallest_voxel_mm": float(edges.min()),
        "largest_voxel_mm": float(edges.max()),
        "brain_ml": float((brain > 0).sum() * np.prod(placement.grid.voxel_mm) / 1000),
        **{f"t1w_p{q:02d}": float(value) for q, value in zip(_QUANTILES, quantiles, strict=True)},
    }


def unlike_training(figures: Mapping[str, float], known: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return one sentence per measure or covariate that lies outside the training range (see `_SLACK`).

    Parameters
    ----------
    figures
        Of `t1w_measures`, and the covariates of the participant by name.
    known
        Range of each in the training.
    """
    said = []
    for name, (low, high) in known.items():
        slack = _SLACK * (high - low) if high > low else _SLACK * abs(high)
        value = figures.get(name)
        if value is not None and not low - slack <= value <= high + slack:
            who = (
                "participant is unlike the training participants"
                if name in _COVARIATES
                else ("T1w is unlike the training images")
            )
            what, unit = (_FIGURES | _COVARIATES).get(name, (name, ""))
            measure = f"{value:.3g} {unit}".strip()
            said.append(f"The {who}: {what} is {measure}, and there it lies between {low:.3g} and {high:.3g}.")
    return said


def fit_training_statistics(
    model: LoadedModel, pairs: Iterable[Pair], cache_dir: Path | None = None
) -> TrainingStatistics:
    """Find the training statistics on those pairs whose participants the model was trained on.

    Every participant weighs the same in the mean images, whatever the number of scans.

    Parameters
    ----------
    model
        Its card says who was trained on; its target scaling is applied before images are averaged.
    pairs
        Any pairs.
    cache_dir
        As in `tau_pipeline.synthesis.data.prepare.prepare`.

    Raises
    ------
    SettingError
        No pair is of the training split.
    """
    train = set(model.card.training_participants)
    used = sorted((pair for pair in pairs if pair.participant_id in train), key=lambda pair: pair.scan)
    if not used:
        raise SettingError("none of the scans is of the model's training split; baselines need some of its training")
    figures, sums = [], MeanImages(model.target_scaling, model.grid)
    weights = participant_weights(used)
    covariates_used = [name for name in model.covariate_names if name in _COVARIATES]
    for pair in used:
        known = prepare(pair, model.grid, cache_dir)
        used_here = {name: pair.covariates[name] for name in covariates_used if name in pair.covariates}
        figures.append({**t1w_measures(known.t1w, known.brain, known.placement), **used_here})
        sums.add(pair, known.suvr, known.known, weights[pair.participant_id])
    table = pd.DataFrame(figures)
    enough = len(weights) >= LEAST_PARTICIPANTS and model.card.network != REGRESSION
    covariates = model.card.settings.get("covariates") or ()
    fitted = fit_regression(used, model.target_scaling, model.grid, cache_dir, covariates).system if enough else None
    return TrainingStatistics(
        t1w_range={str(name): (float(table[name].min()), float(table[name].max())) for name in table},
        mean_image=sums.mean(),
        diagnosis_images=sums.of_diagnoses(),
        positivity=positivity_thresholds(used),
        participants=tuple(sorted({pair.participant_id for pair in used})),
        regression=fitted,
    )


def participant_weights(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return the weight of a scan of each participant, so that every participant weighs the same."""
    counts = Counter(pair.participant_id for pair in pairs)
    return {participant: 1 / n for participant, n in counts.items()}


class MeanImages:
    """Mean of scaled training images, of all participants (``""``) and by diagnosis.

    Parameters
    ----------
    target_scaling, grid
        Of the model.
    """

    def __init__(self, target_scaling: TargetScaling, grid: Grid) -> None:
        self.target_scaling, self.grid = target_scaling, grid
        self._sums: dict[str, tuple[NDArray, NDArray]] = {}

    def add(self, pair: Pair, suvr: NDArray, known: NDArray, weight: float) -> None:
        """Add the image of a scan where it is known."""
        z = self.target_scaling.apply(suvr, pair.manufacturer, known).astype(np.float64)
        for name in {"", *([pair.diagnosis] if pair.diagnosis != UNKNOWN else [])}:
            empty = np.zeros(self.grid.shape), np.zeros(self.grid.shape)
            total, weights = self._sums.setdefault(name, empty)
            total += np.where(known, weight * z, 0.0)
            weights += np.where(known, weight, 0.0)

    def of_diagnoses(self) -> dict[str, NDArray[np.float32]]:
        """Return the mean image of each diagnosis."""
        return {name: self.mean(name) for name in sorted(self._sums) if name}

    def mean(self, name: str = "") -> NDArray[np.float32]:
        """Return the mean image of a diagnosis, or of all participants; the background where there is none."""
        total, weights = self._sums[name]
        background = self.target_scaling.background
        return np.where(weights > 0, total / np.maximum(weights, 1e-12), background).astype(np.float32)


def positivity_thresholds(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return the SUVR above which a region is tau-positive: mean plus `_POSITIVE_SD` SD of controls.

    By ``region|hemisphere``; empty with fewer than `_LEAST_CONTROLS` controls. The number
    depends on the controls, and is therefore in the tables that use it.
    """
    controls = [pair for pair in pairs if is_control(pair.diagnosis) and pair.rois_file is not None]
    if len({pair.participant_id for pair in controls}) < _LEAST_CONTROLS:
        return {}
    tables = [regional_values(pair) for pair in controls]
    both = pd.concat(tables, ignore_index=True)
    means = both.groupby(["participant_id", "region", "hemisphere"])["suvr_mean"].mean().unstack("participant_id")
    threshold = means.mean(axis=1) + _POSITIVE_SD * means.std(axis=1, ddof=1)
    return {f"{region}|{side}": float(value) for (region, side), value in threshold.items() if np.isfinite(value)}


def regional_values(pair: Pair) -> pd.DataFrame:
    """Return the measured regional table of a pair, by its reference region, with a column ``scan``.

    The tracer is spelled as in the pair, so that tables join whatever the sidecars call it.
    """
    if pair.rois_file is None:
        raise SettingError(f"{pair.scan} has no table of regions; run the participant level again")
    table = read_regions(pair.rois_file)
    return table[table["reference_region"] == pair.reference_region].assign(scan=pair.scan, tracer=pair.tracer)
