"""Tests and intervals over participants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class OneWay:
    """A one-way analysis of variance: F, p, and participants in each group. F and p are NaN without two groups."""

    f: float
    p: float
    n: dict[str, int]


def one_way_test(table: pd.DataFrame, column: str, by: str) -> OneWay:
    """Test whether a measure differs between groups: one-way ANOVA (`scipy.stats.f_oneway`).

    Parameters
    ----------
    table
        One row per scan. With a column ``participant_id``, the scans of a participant in one group count once, by their
        mean: visits of one person are not independent.
    column, by
        The measure, and the column that names the groups. Rows without either do not count, groups of one neither.
        Where the measure does not vary within any group there is nothing to compare with: NaN.
    """
    from scipy import stats

    rows = table[[column, by]].dropna()
    if "participant_id" in table:
        rows = rows.groupby([table.loc[rows.index, "participant_id"], by], observed=True)[column].mean().reset_index()
    groups = {str(name): own[column].to_numpy(float) for name, own in rows.groupby(by) if len(own) > 1}
    n = {name: len(values) for name, values in groups.items()}
    if len(groups) < 2 or all(np.ptp(values) == 0 for values in groups.values()):
        return OneWay(float("nan"), float("nan"), n)
    found = stats.f_oneway(*groups.values())
    return OneWay(float(found.statistic), float(found.pvalue), n)
