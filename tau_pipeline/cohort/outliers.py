"""Outliers of a quality measure among scans that can be compared, from five scans on.

The scans are sorted, and the stretch of at least two thirds of them with the least variance is the core; what lies
further from it than chance explains is an outlier. For up to twelve scans, what chance explains comes from simulation.
This is Rosner's generalized test (1983, Technometrics 25:165) with the core of least trimmed squares (Rousseeuw & Leroy
1987, Robust Regression and Outlier Detection, chapter 4) in place of stepwise deletion, so that two bad scans do not
hide each other. docs/decisions/outliers.md compares it with median and MAD, which miss more in small cohorts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

if TYPE_CHECKING:
    import pandas as pd

#: With fewer scans nothing can be said.
FEWEST = 5
#: A manufacturer with this many scans is compared within itself; a test of fewer would miss too much.
FEWEST_OF_MANUFACTURER = 8
#: Scores beyond this are outliers; figures and pages mark them by it.
LIMIT = 2.5
#: Level of the two-sided test for more scans than `_LIMITS` has.
_LEVEL = 0.04
_NEVER = np.inf
#: For fewer scans, limits from simulations (benchmarks/outlier_limits.py) by number of scans, two-sided and one-sided,
#: one pair for each number of scans left out: distance of each of them from the core in standard deviations of the
#: core, and of their mean in pooled standard deviations where they lie on one side. At most 1.9 % of the scans of clean
#: normal cohorts are marked, and bad scans of any number are found equally often.
_LIMITS: dict[int, tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]] = {
    5: (((5.17, _NEVER),), ((3.97, _NEVER),)),
    6: (((5.82, _NEVER), (11.57, 5.93)), ((4.79, _NEVER), (9.90, 4.90))),
    7: (((4.92, _NEVER), (6.15, 5.05)), ((4.12, _NEVER), (5.55, 4.36))),
    8: (((4.46, _NEVER), (4.07, _NEVER)), ((3.92, _NEVER), (3.63, _NEVER))),
    9: (((4.46, _NEVER), (4.91, 4.70), (5.37, 4.84)), ((3.88, _NEVER), (4.65, 4.26), (5.17, 4.40))),
    10: (((4.40, _NEVER), (4.03, _NEVER), (3.82, _NEVER)), ((3.92, _NEVER), (3.68, _NEVER), (3.61, _NEVER))),
    11: (((4.11, _NEVER), (3.86, _NEVER), (3.51, _NEVER)), ((4.11, _NEVER), (3.86, _NEVER), (3.51, _NEVER))),
    12: (
        ((4.13, _NEVER), (3.73, _NEVER), (3.96, _NEVER), (3.88, _NEVER)),
        ((4.13, _NEVER), (3.73, _NEVER), (3.96, _NEVER), (3.88, _NEVER)),
    ),
}
#: Differences below this part of the center are no outliers where the core hardly varies.
_SMALLEST_SD = 1e-3
#: Stretches of nearly the same variance of which each is computed in full; of more, which hold equal values, the first.
_MOST_COMPARED = 3

Bad = Literal["high", "low", "both", "neither"]


def outlier_scores(values: ArrayLike, bad: Bad = "both") -> NDArray[np.float64]:
    """Return scores that are beyond `LIMIT` exactly for outliers.

    Parameters
    ----------
    values
        ``(n,)``; NaN is passed over.
    bad
        Which side can be bad: a value on the other side is never beyond the limit.

    Returns
    -------
    ndarray
        ``(n,)``: distance from the center of the core in its standard deviations, divided by the distance at which
        chance ends for this many scans, times `LIMIT`. NaN for fewer than `FEWEST` values.

    Examples
    --------
    >>> outlier_scores([1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 3.0]).round(0) + 0
    array([ 0.,  1., -1.,  0.,  0.,  0., 14.])
    """
    found = np.asarray(values, np.float64)
    scores = np.full(found.shape, np.nan)
    known = np.isfinite(found)
    if known.sum() < FEWEST:
        return scores
    own = found[known]
    one_sided, ordered = bad in ("high", "low"), np.sort(own)
    sums = _sums(ordered)
    for left_out in range(own.size // 3, -1, -1):
        center, sd = _core(ordered, sums, left_out)
        distance = (own - center) / sd
        critical = _critical(distance, left_out, one_sided)
        if left_out == 0 or np.count_nonzero(np.abs(distance) > critical) >= left_out:
            break
    beyond = np.zeros(own.size, bool)
    if left_out:
        beyond[np.argsort(-np.abs(distance), kind="stable")[:left_out]] = True
    if one_sided:
        beyond &= distance > 0 if bad == "high" else distance < 0
    ratio = LIMIT * distance / critical
    scores[known] = np.where(beyond, ratio, np.clip(ratio, -LIMIT, LIMIT))
    return scores


def _sums(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of the first 0, 1, ... values and of their squares, ``(2, n + 1)``, around the median."""
    apart = ordered - ordered[ordered.size // 2]
    return np.concatenate([np.zeros((2, 1)), np.cumsum([apart, apart**2], axis=1)], axis=1)


def _core(ordered: NDArray[np.float64], sums: NDArray[np.float64], left_out: int) -> tuple[float, float]:
    """Return mean and SD (ddof 1) of the sorted values without ``left_out`` at the ends, where the SD is least.

    The variances of all stretches come from `_sums`; those that rounding cannot tell from the least are computed in
    full.
    """
    size = ordered.size - left_out
    first, second = sums[:, size:] - sums[:, : left_out + 1]
    squares = second - first**2 / size
    rounding = 1e-12 * float(sums[1, -1])
    starts = np.flatnonzero(squares <= squares.min() + rounding)[:_MOST_COMPARED]
    stretches = np.lib.stride_tricks.sliding_window_view(ordered, size)[starts]
    best = stretches[np.argmin(stretches.var(axis=1))] if len(starts) > 1 else stretches[0]
    center = float(best.mean())
    return center, max(float(best.std(ddof=1)), _SMALLEST_SD * abs(center), float(np.finfo(float).tiny))


def _critical(distance: NDArray[np.float64], left_out: int, one_sided: bool) -> float:
    """Return the distance from a core, in its SD, that chance explains in the nearest of the values left out.

    In small cohorts the values left out are also judged together: bad scans of one cause lie side by side, so that
    their spread tells of the standard deviation, too.
    """
    n, left_out = distance.size, max(left_out, 1)
    if n in _LIMITS:
        apart, together = _LIMITS[n][one_sided][left_out - 1]
        order = np.argsort(np.abs(distance), kind="stable")
        core, out = distance[order[:-left_out]], distance[order[-left_out:]]
        gap = abs(float(out.mean() - core.mean()))
        if together == _NEVER or out.min() * out.max() <= 0 or not gap:
            return apart
        pooled = np.sqrt((np.sum((core - core.mean()) ** 2) + np.sum((out - out.mean()) ** 2)) / (n - 2))
        return min(apart, float(np.abs(out).min() * together * pooled / gap))
    size = n - left_out
    level = _LEVEL * (2 if one_sided else 1)
    return float(-special.stdtrit(size - 1, level / (2 * (size + 1))) * np.sqrt(1 + 1 / size))


def cohort_scores(table: pd.DataFrame, column: str, by: Sequence[str], bad: Bad) -> pd.Series:
    """Return the scores of one measure among scans that can be compared.

    Parameters
    ----------
    table
        One row per scan, with ``manufacturer``.
    column
        The measure.
    by
        Columns that must be the same, such as tracer, reference region, and source. A manufacturer with
        `FEWEST_OF_MANUFACTURER` scans or more is compared within itself, others with all scans.
    bad
        As in `outlier_scores`.
    """
    import pandas as pd

    scores = pd.Series(np.nan, index=table.index, dtype=float)
    for _, rows in table.groupby(list(by), dropna=False):
        scores[rows.index] = outlier_scores(rows[column], bad)
        for _, own in rows.groupby("manufacturer"):
            if own[column].notna().sum() >= FEWEST_OF_MANUFACTURER:
                scores[own.index] = outlier_scores(own[column], bad)
    return scores
