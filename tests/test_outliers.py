"""Outliers among scans: error rates by simulation, sides, manufacturers, and too few scans."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tau_pipeline.cohort.outliers import FEWEST, LIMIT, cohort_scores, outlier_scores

SIZES = (5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30)
#: Least share of cohorts in which all bad scans are found; the four good values of a cohort of five or six say little,
#: and no test finds many more (benchmarks/outlier_bound.py).
ALL_MARKED = {5: 0.94, 6: 0.92, 7: 0.97, 8: 0.98, 9: 0.98}


def marked(values: np.ndarray, bad: str = "both") -> np.ndarray:
    return np.abs(outlier_scores(values, bad)) > LIMIT


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("bad", ["both", "high"])
def test_at_most_two_percent_of_the_scans_of_clean_cohorts_are_marked(n: int, bad: str) -> None:
    rng = np.random.default_rng(n)
    cohorts = 3000 // n
    share = np.mean([marked(rng.normal(1.1, 0.005, n), bad).mean() for _ in range(cohorts)])
    # Of 3000 scans, 2 % and two standard errors of marks that come in pairs.
    assert share <= 0.02 + 0.006


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("bad", "shift"), [("both", -10), ("both", 10), ("high", 10), ("low", -10)])
def test_up_to_a_third_of_bad_scans_at_ten_sd_are_all_marked(n: int, bad: str, shift: float) -> None:
    rng = np.random.default_rng(n)
    for count in sorted({1, max(1, n // 4), n // 3}):
        whole = []
        for _ in range(100):
            values = rng.normal(1.1, 0.005, n)
            values[:count] += shift * 0.005
            whole.append(marked(values, bad)[:count].all())
        assert np.mean(whole) >= ALL_MARKED.get(n, 1.0)


def test_two_bad_scans_of_twelve_do_not_hide_each_other() -> None:
    values = np.append(np.random.default_rng(0).normal(1.10, 0.005, 10), [1.03, 1.03])
    assert marked(values).tolist() == [False] * 10 + [True] * 2
    z = np.abs(values - values.mean()) / values.std(ddof=1)
    assert (z < 2.5).all(), "the mean and SD of the same scans see nothing"


def test_only_the_bad_side_is_marked_where_only_one_is_bad() -> None:
    values = np.append(np.linspace(0.95, 1.05, 12), [2.0, 0.0])
    assert np.flatnonzero(marked(values, "high")).tolist() == [12]
    assert np.flatnonzero(marked(values, "low")).tolist() == [13]
    assert np.flatnonzero(marked(values)).tolist() == [12, 13]
    assert outlier_scores(values, "high")[13] == -LIMIT


def test_of_too_few_scans_nothing_is_said_and_missing_values_do_not_count() -> None:
    assert np.isnan(outlier_scores([1.0] * (FEWEST - 1))).all()
    assert np.isnan(outlier_scores([1.0, 1.1, 0.9, 1.0, np.nan])).all()
    some = outlier_scores([1.0, 1.1, np.nan, 0.9, 1.0, 1.05, 9.0])
    assert np.isnan(some[2])
    assert some[-1] > LIMIT


def test_scores_do_not_depend_on_order_unit_or_offset() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(5, 1, 15)
    values[3] = 20
    order = rng.permutation(15)
    np.testing.assert_allclose(outlier_scores(values[order]), outlier_scores(values)[order])
    np.testing.assert_allclose(outlier_scores(1000 * values), outlier_scores(values))


def plain_scores(values: np.ndarray) -> np.ndarray:
    """Scores on both sides of more than twelve values, every stretch of every length computed by itself."""
    for left_out in range(len(values) // 3, -1, -1):
        size = len(values) - left_out
        stretches = [np.sort(values)[start : start + size] for start in range(left_out + 1)]
        core = min(stretches, key=np.var)
        distance = (values - core.mean()) / core.std(ddof=1)
        inner = len(values) - max(left_out, 1)
        limit = stats.t.ppf(1 - 0.04 / (2 * (inner + 1)), inner - 1) * np.sqrt(1 + 1 / inner)
        if left_out == 0 or np.sort(np.abs(distance))[-left_out] > limit:
            break
    scores = np.clip(LIMIT * distance / limit, -LIMIT, LIMIT)
    beyond = np.argsort(-np.abs(distance))[:left_out]
    scores[beyond] = LIMIT * distance[beyond] / limit
    return scores


@pytest.mark.parametrize(("bad", "offset"), [(0, 0.0), (7, 0.0), (20, 300.0)])
def test_scores_are_those_of_a_plain_search_for_the_core(bad: int, offset: float) -> None:
    values = np.random.default_rng(bad).normal(5, 1, 90) + offset
    values[:bad] += 12
    np.testing.assert_allclose(outlier_scores(values), plain_scores(values), rtol=1e-9)


def test_equal_values_are_no_outliers_and_one_that_differs_is() -> None:
    assert not marked(np.full(9, 3.0)).any()
    assert not marked(np.zeros(9)).any()
    assert np.flatnonzero(marked(np.append(np.full(9, 3.0), 4.0))).tolist() == [9]


def test_scans_are_compared_within_tracer_and_within_manufacturers_that_have_enough() -> None:
    rng = np.random.default_rng(3)
    siemens, ge, philips = rng.normal(10, 0.1, 10), rng.normal(20, 0.1, 10), rng.normal(10, 0.1, 3)
    ge[0] = 10.0
    table = pd.DataFrame(
        {
            "noise": [*siemens, *ge, *philips, *rng.normal(99, 1, 4)],
            "manufacturer": ["Siemens"] * 10 + ["GE"] * 10 + ["Philips"] * 3 + [None] * 4,
            "tracer": ["flortaucipir"] * 23 + ["MK-6240"] * 4,
        }
    )
    scores = cohort_scores(table, "noise", ["tracer"], "both")
    assert np.flatnonzero(scores.abs() > LIMIT).tolist() == [10]
    assert scores[20:23].notna().all(), "compared with all scans of the tracer"
    assert scores[23:].isna().all(), "four scans"
