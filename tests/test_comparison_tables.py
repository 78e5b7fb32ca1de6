"""Means, paired tests and regional agreement of a comparison, on made-up scores."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tau_pipeline.synthesis.comparison.runs import NO_LOSS, TRAINING_MEAN
from tau_pipeline.synthesis.comparison.tables import (
    holm,
    not_beaten,
    paired_test,
    paired_test_table,
    region_table,
    summary_table,
    wide_table,
)

PEOPLE = [f"sub-{n:02}" for n in range(1, 9)]


def scores(seed: int = 0) -> pd.DataFrame:
    """SSIM and MAE of eight people in two folds: two losses of one system on two scales, and the training mean."""
    rng, rows = np.random.default_rng(seed), []
    settings = [
        ("unet", loss, scale) for loss in ("mse_ssim", "cyclic2.5d") for scale in ("by-manufacturer", "min-max")
    ]
    for system, loss, scale in [*settings, (TRAINING_MEAN, NO_LOSS, "by-manufacturer")]:
        for n, who in enumerate(PEOPLE):
            row = {"system": system, "loss": loss, "target_scaling": scale, "fold": n % 2, "participant_id": who}
            rows.append({**row, "scan": who, "ssim": rng.uniform(0.5, 0.9), "mae": rng.uniform(0.1, 0.3)})
    return pd.DataFrame(rows)


def regions(seed: int = 0) -> pd.DataFrame:
    """Two cortical regions of eight people from two manufacturers."""
    rng, rows = np.random.default_rng(seed), []
    for n, who in enumerate(PEOPLE):
        for index, region in ((1006, "ctx-lh-entorhinal"), (1015, "ctx-lh-middletemporal")):
            measured = 1 + rng.random() + (n % 2)
            place = {"region": region, "index": index, "hemisphere": "left", "kind": "cortical"}
            values = {"measured": measured, "synthetic": measured + rng.normal(0, 0.4)}
            who_and_where = {"participant_id": who, "manufacturer": "GE" if n % 2 else "Siemens", "diagnosis": "AD"}
            setting = {"system": "unet", "loss": "cyclic2.5d", "target_scaling": "min-max", "fold": 0}
            rows.append({**setting, **who_and_where, **place, **values})
    return pd.DataFrame(rows)


def of(table: pd.DataFrame, **wanted: str) -> pd.Series:
    found = table[np.logical_and.reduce([table[name] == value for name, value in wanted.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_p_is_the_share_of_all_signs_that_give_ranks_as_uneven():
    difference = np.array([0.3, -0.1, 0.5, 0.7, 0.2, 1.1, -0.4])
    ranks = stats.rankdata(np.abs(difference))
    smaller = min(ranks[difference > 0].sum(), ranks[difference < 0].sum())
    signs = np.array(list(itertools.product((0, 1), repeat=len(ranks))))
    positive = signs @ ranks
    extreme = np.minimum(positive, ranks.sum() - positive) <= smaller
    found = paired_test(difference + 2.0, np.full(7, 2.0))
    assert found.p == pytest.approx(extreme.mean())
    assert (found.n, found.statistic) == (7, smaller)
    assert found.mean == pytest.approx(sum(difference) / 7)
    assert found.sd == pytest.approx(np.sqrt(((difference - difference.mean()) ** 2).sum() / 6))


def test_the_test_turns_round_with_its_sides_and_equal_pairs_are_not_different():
    x, y = np.random.default_rng(1).random((2, 9))
    one, other = paired_test(x, y), paired_test(y, x)
    assert one.p == other.p
    assert one.mean == pytest.approx(-other.mean)
    assert paired_test(x, x).p == 1.0
    assert np.isnan(paired_test([1.0], [2.0]).p)
    assert paired_test([1.0, np.inf, 3.0, np.nan], [0.0, 1.0, 1.0, 1.0]).n == 2


def test_holm_multiplies_the_smallest_p_by_the_number_of_tests_and_never_falls():
    found = holm([0.04, 0.001, float("nan"), 0.03, 0.9])
    assert found[1] == pytest.approx(0.004)
    assert found[3] == pytest.approx(0.09)
    assert found[0] == pytest.approx(0.09), "0.08 would be below that of a smaller p"
    assert found[4] == pytest.approx(0.9)
    assert np.isnan(found[2])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_mean_and_sd_are_over_participants_and_scans_of_one_participant_count_as_one():
    table = scores()
    twice = table[table["participant_id"] == "sub-01"].assign(scan="second", ssim=0.2)
    table = pd.concat([table, twice], ignore_index=True)
    found = of(
        summary_table(table, regions()), system="unet", loss="mse_ssim", target_scaling="min-max", measure="ssim"
    )
    own = table[(table["loss"] == "mse_ssim") & (table["target_scaling"] == "min-max")]
    values = [own.loc[own["participant_id"] == who, "ssim"].mean() for who in PEOPLE]
    assert found["n_participants"] == len(PEOPLE)
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["sd"] == pytest.approx(np.std(values, ddof=1))
    folds = [own.loc[own["fold"] == fold, "ssim"].mean() for fold in (0, 1)]
    assert found["sd_folds"] == pytest.approx(np.std(folds, ddof=1))


def test_each_loss_is_tested_against_the_cyclic_one_of_its_system_and_scale_on_the_same_people():
    table = scores()
    shuffled = table.sample(frac=1, random_state=3)
    tests = paired_test_table(shuffled)
    losses = tests[tests["contrast"] == "loss"]
    assert set(losses["loss"]) == {"mse_ssim"}
    assert len(losses) == 2 * 2, "two scales, two measures"
    found = of(losses, measure="ssim", target_scaling="min-max")
    mine, cyclic = (
        table[(table["loss"] == loss) & (table["target_scaling"] == "min-max")].set_index("participant_id")["ssim"]
        for loss in ("mse_ssim", "cyclic2.5d")
    )
    assert found["p"] == pytest.approx(stats.wilcoxon((mine - cyclic).to_numpy()).pvalue)
    assert found["mean_difference"] == pytest.approx((mine - cyclic).mean())
    both = losses[losses["measure"] == "ssim"]["p"].to_numpy()
    assert found["p_holm"] == pytest.approx(holm(both.tolist())[both.tolist().index(found["p"])])


def test_scales_are_tested_against_by_manufacturer_and_models_against_the_training_mean():
    tests = paired_test_table(scores())
    scales = tests[tests["contrast"] == "target_scaling"]
    assert set(scales["target_scaling"]) == {"min-max"}
    assert (scales["reference_loss"] == scales["loss"]).all()
    baseline = tests[tests["contrast"] == "baseline"]
    assert set(baseline["reference_system"]) == {TRAINING_MEAN}
    assert set(baseline["target_scaling"]) == {"by-manufacturer"}, "the other scale has no training mean here"


def test_a_region_correlates_over_people_and_within_manufacturers_as_numpy_has_it():
    table = regions()
    found = of(region_table(table), region="ctx-lh-entorhinal")
    own = table[table["region"] == "ctx-lh-entorhinal"]
    assert found["regional_r"] == pytest.approx(np.corrcoef(own["measured"], own["synthetic"])[0, 1])
    parts = [own[own["manufacturer"] == maker][["measured", "synthetic"]].to_numpy() for maker in ("GE", "Siemens")]
    centred = np.concatenate([part - part.mean(axis=0) for part in parts])
    assert found["regional_r_within"] == pytest.approx(np.corrcoef(centred.T)[0, 1])
    assert found["bias"] == pytest.approx((own["synthetic"] - own["measured"]).mean())
    assert found["mae"] == pytest.approx((own["synthetic"] - own["measured"]).abs().mean())


def test_the_wide_table_has_a_row_a_setting_and_no_p_for_the_cyclic_loss_itself():
    table = scores()
    wide = wide_table(summary_table(table, regions()), paired_test_table(table))
    assert len(wide) == 5
    assert np.isnan(of(wide, system="unet", loss="cyclic2.5d", target_scaling="min-max")["ssim_p_holm"])
    assert np.isfinite(of(wide, system="unet", loss="mse_ssim", target_scaling="min-max")["ssim_p_holm"])


def test_a_setting_beats_a_baseline_only_if_it_is_better_in_every_measure_that_both_have():
    rows = [
        ("training mean", NO_LOSS, 0.8, 0.2, np.nan),
        ("regional regression", NO_LOSS, 0.9, 0.1, 0.8),
        ("unet", "mse_ssim", 0.95, 0.15, 0.9),
        ("unet", "cyclic2.5d", 0.95, 0.05, 0.9),
        ("unetr", "mse_ssim", 0.8, 0.15, 0.9),
    ]
    columns = ["system", "loss", "ssim_mean", "mae_mean", "regional_r_mean"]
    found = not_beaten(pd.DataFrame(rows, columns=columns).assign(target_scaling="min-max"))
    assert found == {
        ("unet", "mse_ssim", "min-max"): ["regional regression"],
        ("unetr", "mse_ssim", "min-max"): ["training mean", "regional regression"],
    }
