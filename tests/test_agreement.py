"""Agreement across participants against published examples, scipy, scikit-learn, and loops over pairs."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from tau_pipeline.errors import MetadataError
from tau_pipeline.measures import agreement
from tau_pipeline.measures.agreement import BraakThresholds, bootstrap_interval

RNG = np.random.default_rng(0)
X = RNG.normal(1.5, 0.3, 40)
Y = X + RNG.normal(0.1, 0.2, 40)
#: Six targets rated by four judges: Shrout & Fleiss 1979, table 2.
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])


def test_the_correlation_is_that_of_scipy():
    assert agreement.pearson(X, Y) == pytest.approx(stats.pearsonr(X, Y).statistic)


def test_intraclass_correlations_are_those_that_shrout_and_fleiss_print():
    assert round(float(agreement.icc(SHROUT_FLEISS.T, "2,1")), 2) == 0.29
    assert round(float(agreement.icc(SHROUT_FLEISS.T, "3,1")), 2) == 0.71


def test_intraclass_correlations_are_those_of_sums_over_all_ratings():
    n, k = len(X), 2
    table = np.stack([X, Y], axis=1)
    grand = sum(v for row in table for v in row) / (n * k)
    rows = [sum(row) / k for row in table]
    columns = [sum(row[j] for row in table) / n for j in range(k)]
    total = sum((v - grand) ** 2 for row in table for v in row)
    ssr = sum(k * (m - grand) ** 2 for m in rows)
    ssc = sum(n * (m - grand) ** 2 for m in columns)
    msr, msc, mse = ssr / (n - 1), ssc / (k - 1), (total - ssr - ssc) / ((n - 1) * (k - 1))
    assert agreement.icc([X, Y], "3,1") == pytest.approx((msr - mse) / (msr + (k - 1) * mse))
    assert agreement.icc([X, Y], "2,1") == pytest.approx((msr - mse) / (msr + (k - 1) * mse + k * (msc - mse) / n))


def test_a_constant_offset_lowers_absolute_agreement_but_not_consistency():
    assert agreement.icc([X, X + 1.0], "3,1") == pytest.approx(1.0)
    assert agreement.icc([X, X + 1.0], "2,1") < 0.3


def test_bland_altman_of_known_differences():
    found = agreement.bland_altman([1.0, 2.0, 3.0, 6.0], [1.0, 1.0, 1.0, 1.0])
    sd = math.sqrt((4 + 1 + 0 + 9) / 3)
    assert (found.bias, found.n) == (2.0, 4)
    assert (found.sd, found.low, found.high) == pytest.approx((sd, 2 - 1.96 * sd, 2 + 1.96 * sd))


def test_the_area_under_the_roc_is_that_of_scikit_learn_with_ties_too():
    positive = X > 1.6
    for scores in (Y, np.round(Y, 1), -Y):
        assert agreement.roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_the_weighted_kappa_is_that_of_scikit_learn():
    a, b = RNG.integers(0, 4, (2, 60))
    assert agreement.weighted_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b, weights="quadratic"))
    assert agreement.weighted_kappa(a, a) == 1.0


def test_the_highest_composite_above_its_threshold_gives_the_braak_stage():
    thresholds = BraakThresholds(braak1=1.3, braak34=1.2, braak56=1.1)
    composites = [
        (1.0, 1.0, 1.0),
        (1.3, 1.0, 1.0),
        (1.5, 1.2, 1.0),
        (1.5, 1.5, 1.2),
        (1.0, 1.0, 1.1),
        (1.5, math.nan, 1),
    ]
    found = agreement.braak_stage(*np.array(composites).T, thresholds)
    np.testing.assert_array_equal(found, [0, 1, 2, 3, 3, math.nan])


@pytest.mark.parametrize(
    "measure",
    [
        agreement.pearson,
        lambda x, y: agreement.icc(np.stack([x, y], -2), "2,1"),
        lambda x, y: agreement.icc(np.stack([x, y], -2), "3,1"),
        lambda x, y: agreement.roc_auc(x, y > 1.5),
        lambda x, y: agreement.weighted_kappa(np.round(x), np.round(y)),
    ],
)
def test_many_samples_at_once_give_what_each_gives_alone(measure):
    drawn = np.random.default_rng(1).integers(40, size=(5, 7, 40))
    together = measure(X[drawn], Y[drawn])
    assert together.shape == (5, 7)
    for place in np.ndindex(5, 7):
        assert together[place] == pytest.approx(float(measure(X[drawn[place]], Y[drawn[place]])), nan_ok=True)


def test_what_cannot_be_computed_is_nan():
    constant = np.full(5, 0.1)
    for x in ([], [1.0], constant):
        assert math.isnan(agreement.pearson(x, x))
        assert math.isnan(agreement.icc([x, x], "2,1"))
        assert math.isnan(agreement.icc([x, x], "3,1"))
        assert math.isnan(agreement.roc_auc(x, np.ones(len(x), bool)))
        assert math.isnan(agreement.weighted_kappa(np.round(x), np.round(x)))
    assert math.isnan(agreement.pearson(constant, X[:5]))
    one, none = agreement.bland_altman([1.5], [1.0]), agreement.bland_altman([], [])
    assert (one.bias, one.n, none.n) == (0.5, 1, 0)
    assert all(math.isnan(v) for v in (one.sd, one.low, one.high, none.bias, none.high))


def test_the_bootstrap_interval_is_that_of_scipy_to_within_chance():
    ours = bootstrap_interval(agreement.pearson, X, Y, seed=1, n_resamples=20000)
    theirs = stats.bootstrap(
        (X, Y),
        lambda x, y, axis: agreement.pearson(x, y),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20000,
        random_state=2,
    ).confidence_interval
    assert ours.estimate == pytest.approx(stats.pearsonr(X, Y).statistic)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_the_bootstrap_repeats_with_its_seed_and_keeps_participants_together():
    first, again, other = (bootstrap_interval(agreement.pearson, X, Y, seed=seed) for seed in (4, 4, 5))
    assert first == again
    assert first != other
    together = bootstrap_interval(agreement.pearson, X, 3 * X - 1, seed=4)
    assert (together.low, together.high) == pytest.approx((1.0, 1.0))


def test_a_bootstrap_of_one_participant_has_an_estimate_and_no_interval():
    found = bootstrap_interval(lambda x: x.mean(-1), [2.0], seed=0)
    assert (found.estimate, found.n) == (2.0, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    none = agreement.mean_interval([math.nan, math.nan], seed=0)
    assert none.n == 0
    assert math.isnan(none.estimate)


def test_an_undefined_statistic_has_no_interval():
    found = bootstrap_interval(agreement.roc_auc, X[:5], np.ones(5, bool), seed=0)
    assert math.isnan(found.low)


def test_a_mean_with_an_infinite_value_has_an_interval_without_nan():
    found = agreement.mean_interval([30.0, 31.0, math.inf, 29.0], seed=0)
    assert found.low >= 29.0
    assert found.high == math.inf


def test_samples_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one value per participant"):
        bootstrap_interval(agreement.pearson, X, Y[:-1], seed=0)


def regional(means, participant, session=None, region="ctx-lh-entorhinal", **more):
    row = {
        "participant_id": participant,
        "session_id": session,
        "tracer": "AV1451",
        "region": region,
        "index": 1006 if region.startswith("ctx") else None,
        "hemisphere": "left",
        "kind": "cortical",
        "n_voxels": 10,
        "suvr_mean": means,
        "reference_region": "CerebellarGM",
    }
    return row | more


def test_regional_values_are_joined_by_participant_session_and_region_in_any_order():
    measured = [
        regional(1.0 + i / 10, f"sub-{i}", f"ses-{s}", r) for i in range(3) for s in "ab" for r in ("ctx-1", "b")
    ]
    synthetic = [{**row, "suvr_mean": row["suvr_mean"] + 0.5} for row in reversed(measured)][1:]
    pairs = agreement.paired_regions(pd.DataFrame(synthetic), pd.DataFrame(measured))
    assert len(pairs) == len(measured) - 1
    np.testing.assert_allclose(pairs["error"], 0.5)
    np.testing.assert_allclose(pairs["relative_error"], 0.5 / pairs["measured"])


def test_missing_sessions_and_numbers_join_and_empty_regions_do_not():
    measured = pd.DataFrame([regional(1.0, "sub-1", region="braak1"), regional(math.nan, "sub-2")])
    synthetic = measured.assign(suvr_mean=1.2, session_id=pd.Series([pd.NA, pd.NA], dtype="string"))
    pairs = agreement.paired_regions(synthetic, measured)
    assert list(pairs["participant_id"]) == ["sub-1"]


def test_two_scans_of_one_session_need_a_column_that_tells_them_apart():
    twice = pd.DataFrame([regional(1.0, "sub-1", scan="run1"), regional(2.0, "sub-1", scan="run2")])
    assert len(agreement.paired_regions(twice, twice)) == 2
    with pytest.raises(MetadataError, match="more than once"):
        agreement.paired_regions(twice.drop(columns="scan"), twice.drop(columns="scan"))


def test_regional_agreement_counts_each_participant_once():
    measured = [regional(x, f"sub-{i}", "ses-a") for i, x in enumerate(X)]
    synthetic = [regional(y, f"sub-{i}", "ses-a") for i, y in enumerate(Y)]
    once = agreement.regional_agreement(
        agreement.paired_regions(pd.DataFrame(synthetic), pd.DataFrame(measured)), seed=0, n_resamples=200
    ).iloc[0]
    assert once["n"] == 40
    assert once["pearson_r"] == pytest.approx(stats.pearsonr(X, Y).statistic)
    assert once["bias"] == pytest.approx(np.mean(Y - X))
    assert once["mae"] == pytest.approx(np.mean(np.abs(Y - X)))
    assert once["icc21_low"] < once["icc21"] < once["icc21_high"]
    # A second scan whose values lie as far to the other side leaves each participant's mean where it was.
    more = [regional(x - 0.2, f"sub-{i}", "ses-b") for i, x in enumerate(X)]
    measured = [regional(x + 0.2, f"sub-{i}", "ses-a") for i, x in enumerate(X)] + more
    synthetic += [regional(y, f"sub-{i}", "ses-b") for i, y in enumerate(Y)]
    twice = agreement.regional_agreement(
        agreement.paired_regions(pd.DataFrame(synthetic), pd.DataFrame(measured)), seed=0, n_resamples=200
    ).iloc[0]
    for name in ("n", "pearson_r", "pearson_r_low", "icc31", "bias", "mae"):
        assert twice[name] == pytest.approx(once[name])
