"""Uncertainty of synthetic SUVR: the spread of an ensemble, scaled by the errors on the validation split.

The members of an ensemble agree with each other more than with the measurement, so their standard deviation (SD) is too
small. One factor for voxels and one for regions make it honest: they are chosen such that the interval
``value ± 1.645 factor SD`` holds the measured value in 90 % of the cases on validation participants. How often it does
on others is reported beside it. A model of the ensemble never predicts someone whom it was trained on here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import composites
from tau_pipeline.errors import DamagedFileError
from tau_pipeline.files import read_json, write_json
from tau_pipeline.measures.regions import composite_value, values_by_label
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.settings.training import Device, Training
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.prepare import Prepared, prepare
from tau_pipeline.synthesis.model.ensemble import Ensemble, known_or_pooled
from tau_pipeline.synthesis.model.folder import LoadedModel
from tau_pipeline.synthesis.model.predict import Prediction, predict_placed

Floats = NDArray[np.float64]

#: Part of the cases that the interval shall hold, and the quantile of the normal distribution that goes with it.
_CONFIDENCE, NORMAL_QUANTILE = 0.9, 1.6448536269514722
#: SUVR; where members agree more closely than this, they agree by chance.
_LEAST_SD = 1e-3
#: A few members say little about the variance of one region, so each region's is mixed with the mean of all regions,
#: which counts as this many members more (moderated variances, Smyth 2004, Stat Appl Genet Mol Biol 3:3).
_PRIOR_MEMBERS = 4
#: Voxels drawn from each scan, so that all scans weigh the same.
_VOXELS_OF_A_SCAN = 20000
#: In a model's folder.
FILE = "uncertainty.json"


@dataclass(frozen=True)
class Errors:
    """Absolute errors of one scan in units of the members' SD: of voxels, and of regional means."""

    participant_id: str
    voxels: Floats
    regions: Floats


@dataclass(frozen=True)
class Calibration:
    """Factors that make the members' SD honest, and how honest it then is.

    Attributes
    ----------
    voxel_factor, region_factor
        For the SD of voxels and of regional means.
    n_participants
        Of the validation split, on whom the factors were found.
    coverage_voxels, coverage_regions
        Part of the errors inside the 90 % interval, on participants whose errors were not used for the factor.
    coverage_on, n_coverage
        Who they are: the test split, or the validation split with each participant left out in turn; and how many.
    models
        Hash of the ensemble.
    confidence
        0.9.
    """

    voxel_factor: float
    region_factor: float
    n_participants: int
    coverage_voxels: float
    coverage_regions: float
    coverage_on: str
    n_coverage: int
    models: str = ""
    confidence: float = _CONFIDENCE

    def sd(self, raw: NDArray, of: str = "voxel") -> NDArray:
        """Return the calibrated SD of voxels (``of="voxel"``) or regions (``"region"``) from that of the members."""
        factor = self.voxel_factor if of == "voxel" else self.region_factor
        return factor * np.maximum(raw, _LEAST_SD)

    def describe(self) -> str:
        """Describe the coverage of the intervals in one sentence.

        >>> Calibration(2.0, 5.0, 3, 0.88, 0.914, "test split", 6).describe()
        '90 % intervals hold 88 % of the voxels and 91 % of the regions of the test split (6 participants)'
        """
        if math.isnan(self.coverage_voxels):
            return "how often the 90 % intervals hold the measured value is not known: one participant is too few"
        people = f"{self.n_coverage} participant{'s' * (self.n_coverage != 1)}"
        return (
            f"{self.confidence * 100:.0f} % intervals hold {self.coverage_voxels * 100:.0f} % of the voxels and "
            f"{self.coverage_regions * 100:.0f} % of the regions of the {self.coverage_on} ({people})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form; an unknown number is None."""
        found = dataclasses.asdict(self)
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in found.items()}

    def save(self, folder: Path) -> Path:
        """Write `FILE`."""
        return write_json(self.as_dict(), Path(folder) / FILE)

    @classmethod
    def load(cls, folder: Path) -> Calibration | None:
        """Read `FILE`; None where there is none.

        Raises
        ------
        DamagedFileError
            It is not what `save` writes.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        content = read_json(path)
        try:
            known: dict[str, Any] = {item.name: content[item.name] for item in dataclasses.fields(cls)}
            known |= {name: math.nan for name, value in known.items() if value is None}
            found = cls(**known)
            usable = found.voxel_factor > 0 and found.region_factor > 0
        except (KeyError, TypeError) as exc:
            raise DamagedFileError(f"{path} is no calibration of uncertainty ({exc}); remove it") from exc
        if not usable:
            raise DamagedFileError(f"{path} has a factor that is not above 0; remove it")
        return found


def calibrate(
    ensemble: Ensemble,
    pairs: Iterable[Pair],
    cache_dir: Path | None = None,
    settings: Synthesis | None = None,
    device: Device = Training.device,
    mem_mb: int | None = None,
) -> Calibration | None:
    """Calibrate the uncertainty of an ensemble on measured scans.

    Parameters
    ----------
    ensemble
        The models.
    pairs
        Any scans. Used are those of participants in the validation split of a model (and, for the coverage, test
        split), each predicted by the models that were not trained on the participant.
    cache_dir
        As in `tau_pipeline.synthesis.data.prepare.prepare`.
    settings, device, mem_mb
        As `tau_pipeline.synthesis.model.predict.predict` will get them.

    Returns
    -------
    Calibration or None
        None where no validation scan is among the pairs, or the ensemble has a single member.
    """
    by_split: dict[str, list[Errors]] = {"validation": [], "test": []}
    for pair in sorted(pairs, key=lambda pair: pair.scan):
        strict = ensemble.models_not_trained_on(pair.participant_id)
        splits = {_split(model, pair.participant_id) for model in strict.models}
        split = next((name for name in by_split if name in splits), None)
        if split is not None:
            # A manufacturer that is too rare for a separate scale was trained on with the pooled one.
            manufacturer = known_or_pooled(ensemble, pair.manufacturer)
            known = prepare(pair, ensemble.grid, cache_dir)
            anatomy = known.anatomy(pair.covariates)
            prediction = predict_placed(strict, known.placed_t1w, manufacturer, settings, device, mem_mb, anatomy)
            found = _errors(prediction, known, pair.participant_id)
            by_split[split] += [] if found is None else [found]
    return fit_calibration(by_split["validation"], by_split["test"], ensemble.hash)


def _split(model: LoadedModel, participant_id: str) -> str:
    table = model.splits
    found = table.loc[table["participant_id"] == participant_id, "split"]
    return str(found.iloc[0]) if len(found) else "none"


def _errors(prediction: Prediction, known: Prepared, participant_id: str) -> Errors | None:
    """Return the errors of a prediction in units of its members' SD; None for a single member."""
    if len(prediction.members) < 2:
        return None
    measured, sd = known.suvr[known.known], np.maximum(prediction.sd[known.known], _LEAST_SD)
    ratio = np.abs(prediction.mean[known.known].astype(np.float64) - measured) / sd
    # A fixed seed for each scan: the same voxels whatever other scans there are.
    drawn = np.random.default_rng(0).permutation(ratio.size)[:_VOXELS_OF_A_SCAN]
    labels = np.where(known.known, known.labels, 0)
    truth = region_means(known.suvr, labels)
    members = np.stack([region_means(member, labels) for member in prediction.members])
    apart = np.abs(members.mean(axis=0) - truth) / np.maximum(moderated_sd(members), _LEAST_SD)
    return Errors(participant_id, ratio[drawn], apart[np.isfinite(apart)])


def region_means(suvr: NDArray, labels: NDArray) -> Floats:
    """Return the mean of each region except the reference region, in table order; NaN without voxels.

    Parameters
    ----------
    suvr, labels
        ``(I, J, K)`` on one grid, any; labels are FreeSurfer numbers.
    """
    by_label = values_by_label(suvr, labels)
    single = [float(values.mean()) if values.size else np.nan for values in by_label.values()]
    combined = [
        composite_value(name, [by_label[number] for number in members])
        for name, hemispheres in composites().items()
        for members in hemispheres.values()
    ]
    return np.array([*single, *combined])


def region_sd(prediction: Prediction, labels: NDArray) -> Floats:
    """Return the SD over members of each regional mean (`moderated_sd`), as `region_means`; NaN for one member.

    Parameters
    ----------
    prediction
        The members.
    labels
        ``(I, J, K)`` on the model's grid.
    """
    inside = np.where(prediction.brain, labels, 0)
    members = np.stack([region_means(member, inside) for member in prediction.members])
    return moderated_sd(members)


def moderated_sd(members: NDArray) -> Floats:
    """Return the SD over members of each region, its square mixed with the mean over regions (see `_PRIOR_MEMBERS`).

    Parameters
    ----------
    members
        ``(M, R)``: regional means of M members; NaN in all members for a region without voxels.

    Returns
    -------
    ndarray
        ``(R,)``; NaN for a single member, and for a region without voxels.
    """
    if len(members) < 2 or np.isnan(members).all():
        return np.full(members.shape[1], np.nan)
    variance = members.var(axis=0, ddof=1)
    freedom = len(members) - 1
    return np.sqrt((freedom * variance + _PRIOR_MEMBERS * np.nanmean(variance)) / (freedom + _PRIOR_MEMBERS))


def fit_calibration(validation: Sequence[Errors], test: Sequence[Errors] = (), models: str = "") -> Calibration | None:
    """Find the factors on the validation scans, and the coverage on scans that were not used for it.

    Returns None without a validation scan.
    """
    if not validation:
        return None
    factors = _factors(validation)
    if test:
        coverage, used, on = _coverage(test, factors), test, "test split"
    else:
        coverage, used, on = _left_out(validation), validation, "validation split, each participant left out in turn"
    return Calibration(
        voxel_factor=factors[0],
        region_factor=factors[1],
        n_participants=len({each.participant_id for each in validation}),
        coverage_voxels=coverage[0],
        coverage_regions=coverage[1],
        coverage_on=on,
        n_coverage=len({each.participant_id for each in used}),
        models=models,
    )


def _factors(scans: Sequence[Errors]) -> tuple[float, float]:
    """Return, for voxels and for regions, the quantile of the errors over that of the normal distribution."""
    voxels, regions = (np.concatenate([getattr(each, name) for each in scans]) for name in ("voxels", "regions"))
    at_voxels, at_regions = (float(np.quantile(x, _CONFIDENCE)) / NORMAL_QUANTILE for x in (voxels, regions))
    return max(at_voxels, 1e-6), max(at_regions, 1e-6)


def _coverage(scans: Sequence[Errors], factors: tuple[float, float]) -> tuple[float, float]:
    """Return the part of the errors inside the interval, the mean over scans."""
    ends = [NORMAL_QUANTILE * factor for factor in factors]
    voxels = float(np.mean([(each.voxels <= ends[0]).mean() for each in scans]))
    return voxels, float(np.mean([(each.regions <= ends[1]).mean() for each in scans]))


def _left_out(scans: Sequence[Errors]) -> tuple[float, float]:
    found = []
    for who in sorted({each.participant_id for each in scans}):
        others = [each for each in scans if each.participant_id != who]
        if others:
            found.append(_coverage([each for each in scans if each.participant_id == who], _factors(others)))
    voxels, regions = np.mean(found, axis=0) if found else (math.nan, math.nan)
    return float(voxels), float(regions)
