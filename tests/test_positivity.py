"""Thresholds, stages, and W-scores, each against a slow plain computation; refusals in a sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from participant_results import write_cohort

from tau_pipeline.cohort.positivity import STAGES, Request, fit_mixture, parse_thresholds, with_positivity
from tau_pipeline.cohort.reference_group import reference_rows
from tau_pipeline.cohort.wscores import WScores, fit_wscores
from tau_pipeline.errors import SettingError
from tau_pipeline.files import read_tsv, write_tsv
from tau_pipeline.settings.cohort import Group
from tau_workflows.cli import main
from tau_workflows.levels import group

REGIONS = ("metatemporal", *STAGES)


def wide_table(n: int, seed: int = 0, tracer: str = "flortaucipir") -> pd.DataFrame:
    """Make the rows of ``n`` participants: the even ones have higher SUVR in all regions; 3 has failed, 5 two scans."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(n):
        for visit in (0, 1) if k == 5 else (0,):
            row = {"participant_id": f"sub-{k:02d}", "scan": f"{tracer}-{k}-{visit}", "tracer": tracer}
            row |= {"source": "measured", "reference_region": "CerebellarGM", "included": "no" if k == 3 else "yes"}
            rows.append(row | {region: rng.normal(1.1 + 0.6 * (k % 2 == 0), 0.08) for region in REGIONS})
    return pd.DataFrame(rows)


def test_regions_and_methods_are_read_from_texts() -> None:
    found = parse_thresholds(["META_TEMPORAL=1.32", "braak=GMM"], REGIONS)
    assert found[0] == Request("metatemporal", "value", 1.32)
    assert [(one.region, one.method) for one in found[1:]] == [(name, "gmm") for name in STAGES]
    with pytest.raises(SettingError, match="metatemporal more than once"):
        parse_thresholds(["metatemporal=1.3", "meta-temporal=2sd"], REGIONS)
    with pytest.raises(SettingError, match="'amygdla', which the tables do not have"):
        parse_thresholds(["amygdla=1.3"], REGIONS)
    assert Group(threshold=("metatemporal=2SD",), reference_group="dx == CN").threshold
    with pytest.raises(SettingError, match="metatemporal=2SD is relative to a reference group"):
        Group(threshold=("metatemporal=2SD",))
    with pytest.raises(SettingError, match="threshold is 'metatemporal'; expected"):
        Group(threshold=("metatemporal",))
    with pytest.raises(SettingError, match="reference_group is None"):
        Group(threshold=("braak=2sd",))


def test_two_sd_above_the_reference_group_by_hand() -> None:
    wide = wide_table(30)
    reference = {f"sub-{k:02d}" for k in range(1, 30, 2)}
    answered, thresholds, _ = with_positivity(wide, [Request("metatemporal", "2sd")], reference, ())
    values = []
    for who in sorted(reference - {"sub-03"}):
        own = [row["metatemporal"] for _, row in wide.iterrows() if row["participant_id"] == who]
        values.append(sum(own) / len(own))
    mean = sum(values) / len(values)
    cut = mean + 2 * math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    assert thresholds.loc[0, "threshold"] == pytest.approx(cut)
    assert thresholds.loc[0, "n_participants"] == 14
    for _, row in answered.iterrows():
        if row["included"] == "no":
            assert row["metatemporal_positive"] is pd.NA
        else:
            assert row["metatemporal_positive"] == ("yes" if row["metatemporal"] >= cut else "no")
    # A fit on a split depends on no other participant.
    split = {f"sub-{k:02d}" for k in range(25)}
    changed = wide.assign(metatemporal=np.where(wide["participant_id"].isin(split), wide["metatemporal"], 9.0))
    ours, theirs = (
        with_positivity(one, [Request("metatemporal", "2sd")], reference, split)[1] for one in (wide, changed)
    )
    pd.testing.assert_frame_equal(ours, theirs)


def test_the_mixture_finds_the_groups_and_its_threshold_is_where_they_are_equally_likely() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(1.1, 0.06, 4000), rng.normal(1.6, 0.15, 2000)])
    found = fit_mixture(values)
    assert found.means == pytest.approx((1.1, 1.6), abs=0.02)
    assert found.sds == pytest.approx((0.06, 0.15), rel=0.06)
    assert found.weights[1] == pytest.approx(1 / 3, abs=0.02)
    # The point by bisection on the true densities.
    low, high = 1.1, 1.6
    for _ in range(60):
        middle = (low + high) / 2
        lower = 2 / 0.06 * math.exp(-(((middle - 1.1) / 0.06) ** 2) / 2)
        upper = 1 / 0.15 * math.exp(-(((middle - 1.6) / 0.15) ** 2) / 2)
        low, high = (middle, high) if lower > upper else (low, middle)
    assert found.threshold == pytest.approx(low, abs=0.015)
    assert found.probability(found.threshold) == pytest.approx(0.5, abs=1e-6)
    probability = found.probability(np.linspace(0.5, 3, 200))
    assert (np.diff(probability) >= 0).all()


def test_what_cannot_be_found_is_refused_in_a_sentence() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(SettingError, match="show no two groups"):
        fit_mixture(rng.normal(1.2, 0.1, 60))
    with pytest.raises(SettingError, match="needs 20 participants, and there are 8"):
        fit_mixture(rng.normal(1.2, 0.1, 8))
    wide = wide_table(30)
    with pytest.raises(SettingError, match="reference group has 2 participants with a value, and 10 are needed"):
        with_positivity(wide, [Request("metatemporal", "2sd")], {"sub-01", "sub-02", "sub-03"}, ())
    both = pd.concat([wide, wide_table(6, tracer="MK-6240")], ignore_index=True)
    with pytest.raises(SettingError, match="scans of MK-6240, flortaucipir, whose SUVR differ"):
        with_positivity(both, [Request("metatemporal", "value", 1.3)], (), ())
    # With another tracer of too few scans, that one alone has no answer.
    answered, thresholds, sentences = with_positivity(both, [Request("metatemporal", "gmm")], (), ())
    assert len(thresholds) == len(sentences) == 1
    assert answered.loc[answered["tracer"] == "MK-6240", "metatemporal_positive"].isna().all()
    assert 1.2 < thresholds.loc[0, "threshold"] < 1.6


def test_the_stage_is_the_highest_positive_one_and_gaps_are_atypical() -> None:
    wide = wide_table(6).assign(included="yes").iloc[:6]
    for region, values in zip(STAGES, ("000110", "001110", "000101"), strict=True):
        wide[region] = [1.0 + int(one) for one in values] + [1.0] * (len(wide) - 6)
    wide.loc[wide.index[5], "braak1"] = np.nan
    requests = [Request(region, "value", 1.5) for region in STAGES]
    answered, _, _ = with_positivity(wide, requests, (), ())
    assert answered["braak_stage"].tolist()[:5] == ["0", "0", "III-IV", "V-VI", "III-IV"]
    assert answered["braak_order"].tolist()[:5] == ["typical", "typical", "atypical", "typical", "typical"]
    assert answered["braak_stage"].isna().tolist()[5]


def long_table(n: int) -> pd.DataFrame:
    """Make scans of ``n`` participants in two regions: SUVR rises with age, and is higher in women."""
    rng = np.random.default_rng(4)
    rows = []
    for k in range(n):
        age, sex = rng.uniform(55, 85), "FM"[k % 2]
        for visit in (0, 1) if k == 2 else (0,):
            for region in ("ctx-lh-fusiform", "ctx-rh-fusiform"):
                suvr = 0.8 + 0.005 * age + 0.1 * (sex == "F") + rng.normal(0, 0.05)
                row = {"participant_id": f"sub-{k:02d}", "scan": f"{k}-{visit}", "source": "measured", "sex": sex}
                row |= {
                    "tracer": "flortaucipir",
                    "reference_region": "CerebellarGM",
                    "region": region,
                    "age": age + visit,
                }
                rows.append({**row, "hemisphere": region[4], "kind": "cortical", "included": "yes", "suvr_mean": suvr})
    return pd.DataFrame(rows)


def fitted(long: pd.DataFrame, participants: set[str]) -> WScores:
    return fit_wscores(reference_rows(long, participants), long[["tracer", "reference_region"]], ("age", "sex"))


def test_w_scores_are_residuals_of_a_regression_in_the_reference_group() -> None:
    long = long_table(40)
    long.loc[long["participant_id"] == "sub-04", "included"] = "no"
    long.loc[long["participant_id"] == "sub-30", "age"] = np.nan
    reference = {f"sub-{k:02d}" for k in range(24)}
    found = fitted(long, reference).apply(long)
    for region in ("ctx-lh-fusiform", "ctx-rh-fusiform"):
        own = long[long["region"] == region]
        design, values = [], []
        for who in sorted(reference - {"sub-04"}):
            rows = own[own["participant_id"] == who]
            design.append([1.0, rows["age"].mean(), float(rows["sex"].iloc[0] == "M")])
            values.append(rows["suvr_mean"].mean())
        x, y = np.array(design), np.array(values)
        beta = np.linalg.solve(x.T @ x, x.T @ y)
        sd = math.sqrt(sum((y - x @ beta) ** 2) / (len(y) - 3))
        rows = found[found["region"] == region]
        assert (rows["wscore_n"] == 23).all()
        for _, row in rows.iterrows():
            expected = (row["suvr_mean"] - beta @ [1.0, row["age"], float(row["sex"] == "M")]) / sd
            np.testing.assert_allclose(row["suvr_wscore"], expected, rtol=1e-8)
    assert found.loc[found["participant_id"] == "sub-30", "suvr_wscore"].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda long: long[long["participant_id"] < "sub-12"],
            "has 12 participants with age and sex, and 13 are needed",
        ),
        (lambda long: long.assign(sex="F"), "all 30 participants of the reference group have the sex female"),
        (lambda long: long.assign(age=long["sex"].map({"F": 60.0, "M": 80.0})), "one follows from the other"),
        (lambda long: long.assign(age=long["sex"].map({"F": 60.0, "M": 80.0}) + long["suvr_mean"]), "go together"),
    ],
)
def test_a_group_that_is_too_small_or_confounded_is_refused(change: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        fitted(change(long_table(30)), {f"sub-{k:02d}" for k in range(30)})


@pytest.mark.slow
def test_the_group_level_writes_the_answers_and_describes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "write_group_report", lambda folder, *_: folder / "group/report.html")
    bids, out = write_cohort(tmp_path, n=39, images=False)
    people = read_tsv(bids / "participants.tsv")
    write_tsv(
        people.assign(amyloid=np.where(people["group"] == "CN", "negative", "positive")), bids / "participants.tsv"
    )
    options = ("--threshold", "braak=2sd", "metatemporal=1.4", "--w-scores", "age", "--columns", "adni")
    reference = ("--reference-group", "group == CN and amyloid == negative")
    assert main([str(bids), str(out), "group", *options, *reference]) == 0
    wide = pd.read_csv(out / "group/suvr_rois_wide.csv")
    expected = np.where(wide["metatemporal"] >= 1.4, "yes", "no")
    assert (wide["metatemporal_positive"] == expected).all()
    assert set(wide["braak_stage"]) <= {"0", *STAGES.values()}
    assert wide["braak1_wscore"].notna().all()
    thresholds = read_tsv(out / "group/thresholds.tsv")
    assert thresholds["region"].tolist() == ["braak1", "braak34", "braak56", "metatemporal"]
    assert thresholds["n_participants"].tolist()[:3] == [15, 15, 15]
    for name in ("suvr_rois_wide.csv", "suvr_rois.tsv", "thresholds.tsv"):
        table = pd.read_csv(out / "group" / name, sep="\t" if name.endswith("tsv") else ",", nrows=2)
        described = (out / "group" / name).with_suffix(".json").read_text()
        assert all(f'"{column}"' in described for column in table.columns)
    described = json.loads((out / "group/suvr_rois.json").read_text())
    assert described["suvr_wscore"]["Covariates"] == ["age"]
    assert described["suvr_zscore"]["ReferenceGroup"] == reference[1]
    # z-scores and W-scores are by those of the group that may be fitted on.
    controls = sorted(people.loc[people["group"] == "CN", "participant_id"])[:12]
    fit = ("--fit-participants", *controls, "--unknown-manufacturer", "pooled")
    assert main([str(bids), str(out), "group", "--w-scores", "age", *reference, *fit]) == 0
    fitted = read_tsv(out / "group/suvr_rois.tsv")
    assert (fitted["zscore_n"].max(), fitted["wscore_n"].max()) == (12, 12)
    # Without thresholds, those of the earlier run go.
    assert main([str(bids), str(out), "group"]) == 0
    assert not (out / "group/thresholds.tsv").exists()
