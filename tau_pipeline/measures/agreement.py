"""Agreement across participants: correlation, intraclass correlation, Bland-Altman, ROC, Braak stages, and intervals.

In every array the last axis is participants, so that the bootstrap computes all its resamples at once. What cannot be
computed is NaN (``n/a`` in tables), never an exception: a correlation of constants, one participant, none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tau_pipeline.errors import MetadataError

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

#: What two regional tables are joined on.
_REGION_KEYS = (
    *("participant_id", "session_id", "tracer", "region", "index", "hemisphere", "kind", "reference_region"),
)


def pearson(prediction: ArrayLike, measured: ArrayLike) -> Floats:
    """Return Pearson's r along the last axis; NaN for fewer than two participants or where one side is constant."""
    x, y = np.asarray(prediction, np.float64), np.asarray(measured, np.float64)
    if x.shape[-1] < 2:
        return np.full(x.shape[:-1], np.nan)
    dx, dy = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    constant = (np.ptp(x, axis=-1) == 0) | (np.ptp(y, axis=-1) == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (dx * dy).sum(-1) / np.sqrt((dx**2).sum(-1) * (dy**2).sum(-1))
    return np.where(constant, np.nan, np.clip(r, -1.0, 1.0))


def icc(ratings: ArrayLike, form: Literal["2,1", "3,1"]) -> Floats:
    """Return the intraclass correlation of single ratings, from the mean squares of a two-way layout.

    ``"2,1"`` (absolute agreement; McGraw and Wong's ICC(A,1)): a constant offset between prediction and measurement
    lowers it. ``"3,1"`` (consistency; ICC(C,1)): it does not. Formulas: Shrout & Fleiss 1979, Psychol Bull 86:420;
    McGraw & Wong 1996, Psychol Methods 1:30.

    Parameters
    ----------
    ratings
        ``(..., k, n)``: k methods (prediction, measurement), n participants.
    form
        Which of the two.

    Returns
    -------
    ndarray
        Shape ``(...)``; NaN for fewer than two participants, and where all ratings are equal.
    """
    x = np.asarray(ratings, np.float64)
    k, n = x.shape[-2:]
    if n < 2 or k < 2:
        return np.full(x.shape[:-2], np.nan)
    grand = x.mean((-2, -1), keepdims=True)
    of_participant, of_method = x.mean(-2, keepdims=True), x.mean(-1, keepdims=True)
    between = k * ((of_participant - grand) ** 2).sum((-2, -1)) / (n - 1)
    methods = n * ((of_method - grand) ** 2).sum((-2, -1)) / (k - 1)
    residual = ((x - of_participant - of_method + grand) ** 2).sum((-2, -1)) / ((n - 1) * (k - 1))
    total = between + (k - 1) * residual + (k * (methods - residual) / n if form == "2,1" else 0.0)
    constant = np.ptp(x, axis=(-2, -1)) == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(constant | (total == 0), np.nan, (between - residual) / total)


@dataclass(frozen=True)
class BlandAltman:
    """Bias (mean of prediction minus measurement), SD of the differences, and 95 % limits of agreement."""

    bias: float
    sd: float
    low: float
    high: float
    n: int


def bland_altman(prediction: ArrayLike, measured: ArrayLike) -> BlandAltman:
    """Return Bland-Altman's limits of agreement: bias ± 1.96 SD (ddof 1) (Bland & Altman 1986, Lancet i:307).

    NaN limits for one participant, NaN everything for none.
    """
    difference = np.asarray(prediction, np.float64) - np.asarray(measured, np.float64)
    n = difference.size
    bias = float(difference.mean()) if n else float("nan")
    sd = float(difference.std(ddof=1)) if n > 1 else float("nan")
    return BlandAltman(bias, sd, bias - 1.96 * sd, bias + 1.96 * sd, n)


def roc_auc(scores: ArrayLike, positive: ArrayLike) -> Floats:
    """Return the area under the ROC curve along the last axis, ties counting half (Hanley & McNeil 1982).

    Parameters
    ----------
    scores
        ``(..., n)``, e.g. predicted regional SUVR.
    positive
        ``(..., n)`` booleans, e.g. measured SUVR above a threshold.

    Returns
    -------
    ndarray
        Shape ``(...)``; NaN where all or none are positive.
    """
    score, truth = np.asarray(scores, np.float64), np.asarray(positive, bool)
    n_positive = truth.sum(-1)
    n_negative = truth.shape[-1] - n_positive
    if not truth.shape[-1]:
        return np.full(truth.shape[:-1], np.nan)
    ranks = stats.rankdata(score, axis=-1)
    above = np.where(truth, ranks, 0.0).sum(-1) - n_positive * (n_positive + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / (n_positive * n_negative)


def weighted_kappa(prediction: ArrayLike, measured: ArrayLike) -> Floats:
    """Return Cohen's kappa with quadratic weights of whole-numbered stages along the last axis.

    The sum of weighted disagreements is the mean squared difference, the one expected by chance that over all pairs
    of one participant's prediction and another's measurement (Fleiss & Cohen 1973, Educ Psychol Meas 33:613).
    NaN without participants, and where all stages are one and the same.
    """
    a, b = np.asarray(prediction, np.float64), np.asarray(measured, np.float64)
    if not a.shape[-1]:
        return np.full(a.shape[:-1], np.nan)
    observed = ((a - b) ** 2).mean(-1)
    expected = a.var(-1) + b.var(-1) + (a.mean(-1) - b.mean(-1)) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected == 0, np.nan, 1 - observed / expected)


@dataclass(frozen=True)
class BraakThresholds:
    """SUVR of the composites ``braak1 braak34 braak56`` (both hemispheres) from which on a stage is reached.

    There are no defaults: they depend on tracer, reference region and preprocessing.
    """

    braak1: float
    braak34: float
    braak56: float


def braak_stage(braak1: ArrayLike, braak34: ArrayLike, braak56: ArrayLike, thresholds: BraakThresholds) -> Floats:
    """Return stage 0, 1 (Braak I), 2 (III-IV) or 3 (V-VI): the highest composite that reaches its threshold.

    The highest one counts, whether or not those below it are reached, as in the scheme of Schöll et al. 2016 (Neuron
    89:971) and Maass et al. 2017 (NeuroImage 157:448). NaN where a composite is missing.
    """
    values = np.stack([np.asarray(v, np.float64) for v in (braak1, braak34, braak56)])
    cut = np.array([thresholds.braak1, thresholds.braak34, thresholds.braak56])
    reached = values >= cut.reshape(-1, *([1] * (values.ndim - 1)))
    stage = np.max(reached * np.arange(1, 4).reshape(-1, *([1] * (values.ndim - 1))), axis=0).astype(np.float64)
    return np.where(np.isfinite(values).all(axis=0), stage, np.nan)


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap confidence interval; ``n`` is the number of participants."""

    estimate: float
    low: float
    high: float
    n: int
    confidence: float


def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples: ArrayLike,
    seed: int,
    n_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Return the percentile bootstrap over participants (Efron & Tibshirani 1993, chapter 13), seeded.

    Parameters
    ----------
    statistic
        Takes as many arrays as there are samples, participants along the last axis, and reduces that axis.
    *samples
        Arrays ``(n,)``; the same participants are drawn from each.
    seed
        The same seed gives the same interval.
    n_resamples, confidence
        Number of resamples, and the part of them inside the interval.

    Returns
    -------
    Interval
        The ends are NaN with fewer than two participants, and where the statistic is undefined in more than half of
        the resamples; undefined resamples are otherwise left out.

    Raises
    ------
    ValueError
        The samples differ in length.
    """
    arrays = [np.asarray(sample) for sample in samples]
    n = arrays[0].shape[-1]
    if any(array.shape != (n,) for array in arrays):
        raise ValueError(f"samples have the shapes {[a.shape for a in arrays]}; expected: one value per participant")
    estimate = float(statistic(*arrays)) if n else float("nan")
    low = high = float("nan")
    if n > 1:
        drawn = np.random.default_rng(seed).integers(n, size=(n_resamples, n))
        values = np.asarray(statistic(*(array[drawn] for array in arrays)), np.float64)
        values = values[~np.isnan(values)]
        if values.size * 2 >= n_resamples:
            tail = (1 - confidence) / 2
            # An order statistic, not an interpolation: a PSNR may be infinite.
            low, high = (float(v) for v in np.quantile(values, [tail, 1 - tail], method="inverted_cdf"))
    return Interval(estimate, low, high, n, confidence)


def mean_interval(values: ArrayLike, *, seed: int, n_resamples: int = 2000, confidence: float = 0.95) -> Interval:
    """Return the mean over participants with its bootstrap interval; missing values (NaN) are left out."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return bootstrap_interval(lambda x: x.mean(-1), known, seed=seed, n_resamples=n_resamples, confidence=confidence)


def paired_regions(synthetic: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Join the regional values of two tables on participant, session, tracer, region and reference.

    Parameters
    ----------
    synthetic, measured
        Tables as `tau_pipeline.measures.regions.regional_table` makes them, of any number of scans. Where both have a
        column ``scan``, they are joined on it too.

    Returns
    -------
    DataFrame
        `_REGION_KEYS` (and ``scan``), ``n_voxels`` (of the measured), ``measured``, ``synthetic``, ``error`` (synthetic
        minus measured), ``absolute_error``, ``relative_error`` (of the measured). Rows that only one table has, and
        regions without voxels, are left out.

    Raises
    ------
    MetadataError
        A table has a region of a participant and session more than once, and no column ``scan``.
    """
    keys = [*_REGION_KEYS, *(["scan"] if "scan" in synthetic and "scan" in measured else [])]
    left = _keyed(measured, keys, "measured")
    right = _keyed(synthetic, keys, "synthetic").drop(columns="n_voxels")
    # pandas joins missing keys (no session, composites without index) with each other, which is what is wanted.
    both = left.merge(right, on=keys, how="inner").dropna(subset=["measured", "synthetic"]).reset_index(drop=True)
    both["error"] = both["synthetic"] - both["measured"]
    both["absolute_error"] = both["error"].abs()
    both["relative_error"] = both["error"] / both["measured"]
    return both


def _keyed(table: pd.DataFrame, keys: list[str], source: str) -> pd.DataFrame:
    """Return keys in types that join for any source file, with ``n_voxels`` and the mean under the source's name."""
    texts = {key: "string" for key in keys if key != "index"}
    found = table[[*keys, "n_voxels", "suvr_mean"]].astype({**texts, "index": "Int64", "suvr_mean": "float64"})
    twice = found.duplicated(keys)
    if twice.any():
        row = found[twice].iloc[0]
        raise MetadataError(
            f"the {source} table has {row['participant_id']}, {row['region']}, more than once in one session; "
            "add a column scan that identifies each scan"
        )
    return found.rename(columns={"suvr_mean": source})


def regional_agreement(pairs: pd.DataFrame, *, seed: int, n_resamples: int = 2000) -> pd.DataFrame:
    """Return agreement across participants, one row per region.

    Parameters
    ----------
    pairs
        As `paired_regions` makes it. Several scans of a participant count as one, by their mean, since they are not
        independent.
    seed, n_resamples
        Of the bootstrap.

    Returns
    -------
    DataFrame
        ``tracer reference_region region index hemisphere kind n``, then r, ICC(2,1), ICC(3,1) and the mean absolute
        error, each with ``_low`` and ``_high`` (95 %), then Bland-Altman's ``bias bias_sd limit_low limit_high``.
    """
    import pandas as pd

    keys = ["tracer", "reference_region", "region", "index", "hemisphere", "kind"]
    rows = []
    for place, of_region in pairs.groupby(keys, sort=False, dropna=False):
        means = of_region.groupby("participant_id")[["synthetic", "measured"]].mean()
        x, y = (means[name].to_numpy(np.float64) for name in ("synthetic", "measured"))
        rows.append({**dict(zip(keys, place, strict=True)), **_agreement_row(x, y, seed, n_resamples)})
    return pd.DataFrame(rows)


def _agreement_row(x: Floats, y: Floats, seed: int, n_resamples: int) -> dict[str, float | int]:
    measures: dict[str, Callable[..., Any]] = {
        "pearson_r": pearson,
        "icc21": lambda a, b: icc(np.stack([a, b], axis=-2), "2,1"),
        "icc31": lambda a, b: icc(np.stack([a, b], axis=-2), "3,1"),
        "mae": lambda a, b: np.abs(a - b).mean(-1),
    }
    row: dict[str, float | int] = {"n": x.size}
    for name, measure in measures.items():
        found = bootstrap_interval(measure, x, y, seed=seed, n_resamples=n_resamples)
        row |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
    limits = bland_altman(x, y)
    return row | {"bias": limits.bias, "bias_sd": limits.sd, "limit_low": limits.low, "limit_high": limits.high}
