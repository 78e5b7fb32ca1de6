"""Deming regression: a line between two measurements that both have errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tau_pipeline.errors import SettingError

#: With fewer pairs, intervals are too wide to be of use.
FEWEST_PAIRS = 10


@dataclass(frozen=True)
class DemingLine:
    """Line ``y = intercept + slope * x`` with jackknife intervals."""

    slope: float
    intercept: float
    slope_interval: tuple[float, float]
    intercept_interval: tuple[float, float]
    n: int
    pearson_r: float
    error_ratio: float
    confidence: float


def deming_line(x: ArrayLike, y: ArrayLike, *, error_ratio: float = 1.0, confidence: float = 0.95) -> DemingLine:
    """Fit a Deming line (Linnet 1990, Stat Med 9:1463; its jackknife intervals have n - 2 degrees of freedom).

    Parameters
    ----------
    x, y
        ``(n,)`` pairs, finite.
    error_ratio
        Variance of the errors of ``y`` over that of the errors of ``x``.
    confidence
        Of the intervals.

    Raises
    ------
    SettingError
        There are fewer than `FEWEST_PAIRS`, or the pairs have no slope.
    """
    one, other = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n = len(one)
    if n < FEWEST_PAIRS:
        raise SettingError(f"there are {n} pairs of values, and a calibration needs {FEWEST_PAIRS}; give more scans")
    if not (one.std() > 0 and other.std() > 0) or np.corrcoef(one, other)[0, 1] == 0:
        raise SettingError("the pairs of values do not vary together, so there is no line; check the columns")
    estimate = _line(one, other, error_ratio)
    left = ~np.eye(n, dtype=bool)
    without = np.array([_line(one[keep], other[keep], error_ratio) for keep in left])
    pseudo = n * estimate - (n - 1) * without
    error = pseudo.std(axis=0, ddof=1) / np.sqrt(n)
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 2)) * error
    low, high = estimate - reach, estimate + reach
    return DemingLine(
        slope=float(estimate[0]),
        intercept=float(estimate[1]),
        slope_interval=(float(low[0]), float(high[0])),
        intercept_interval=(float(low[1]), float(high[1])),
        n=n,
        pearson_r=float(np.corrcoef(one, other)[0, 1]),
        error_ratio=error_ratio,
        confidence=confidence,
    )


def _line(x: NDArray[np.float64], y: NDArray[np.float64], error_ratio: float) -> NDArray[np.float64]:
    """Return slope and intercept by the closed form."""
    (xx, xy), (_, yy) = np.cov(x, y)
    lead = yy - error_ratio * xx
    slope = (lead + np.sqrt(lead**2 + 4 * error_ratio * xy**2)) / (2 * xy)
    return np.array([slope, y.mean() - slope * x.mean()])
