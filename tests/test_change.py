"""Change between visits: order in time, years by dates, labels, and ages, and what is not compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress

from tau_pipeline.cohort.change import CHANGE_COLUMNS, change_table, retest_variability, slopes
from tau_pipeline.cohort.visits import with_years
from tau_pipeline.figures.change import annual_change
from tau_pipeline.files import write_tsv
from tau_workflows.reports.change import change_figures


def rows(who: str, session: str, suvr: float, *, age: float = np.nan, **more: object) -> list[dict]:
    """Make the rows of one scan in two regions."""
    row = {
        "participant_id": who,
        "session_id": session,
        "scan": f"{who}_{session}_pet",
        "age": age,
        "hemisphere": "both",
    }
    row |= {"source": "measured", "included": "yes", "tracer": "flortaucipir", "reference_region": "CerebellarGM"}
    row |= {"kind": "composite", "manufacturer": "GE", **more}
    return [{**row, "region": "braak1", "suvr_mean": suvr}, {**row, "region": "braak34", "suvr_mean": 2 * suvr + 0.1}]


def test_percent_change_is_from_the_first_visit_in_time(tmp_path: Path) -> None:
    # The labels' order is not that of the dates.
    write_tsv(
        pd.DataFrame(
            {"session_id": ["ses-b", "ses-a", "ses-c"], "acq_time": ["2019-01-01", "2021-01-01", "2020-01-01"]}
        ),
        tmp_path / "sub-1/sub-1_sessions.tsv",
    )
    long = pd.DataFrame(
        [
            *(*rows("sub-1", "ses-a", 1.32), *rows("sub-1", "ses-b", 1.2, manufacturer="Siemens")),
            *rows("sub-1", "ses-c", 9.0, included="no"),
            *(*rows("sub-2", "ses-M000", 1.0), *rows("sub-2", "ses-M018", 1.03)),
            *(*rows("sub-3", "ses-pre", 1.0, age=71.5), *rows("sub-3", "ses-post", 0.9, age=70.0)),
            *(*rows("sub-4", "ses-x", 1.0), *rows("sub-4", "ses-y", 1.1, reference_region="Pons")),
            *rows("sub-5", "ses-x", 1.0),
        ]
    )
    found = change_table(long, tmp_path)
    assert tuple(found.columns) == tuple(CHANGE_COLUMNS)
    assert found["participant_id"].unique().tolist() == ["sub-1", "sub-2", "sub-3"]
    one = found[(found["participant_id"] == "sub-1") & (found["region"] == "braak1")].iloc[0]
    assert (one["scan_first"], one["scan"]) == ("sub-1_ses-b_pet", "sub-1_ses-a_pet")
    assert one["percent_change"] == pytest.approx(10.0)
    assert one["years"] == pytest.approx(731 / 365.25)
    assert one["percent_per_year"] == pytest.approx(10 / (731 / 365.25))
    assert one["same_manufacturer"] == "no"
    two = found[(found["participant_id"] == "sub-2") & (found["region"] == "braak34")].iloc[0]
    assert two["years"] == pytest.approx(1.5)
    three = found[found["participant_id"] == "sub-3"].iloc[0]
    assert (three["scan"], three["years"]) == ("sub-3_ses-pre_pet", pytest.approx(1.5))
    assert two["percent_change"] == pytest.approx(100 * (2.16 / 2.1 - 1))


def test_without_two_visits_the_table_is_empty(tmp_path: Path) -> None:
    assert change_table(pd.DataFrame(rows("sub-1", "ses-a", 1.0)), tmp_path).empty


def test_slopes_are_those_of_a_fitted_line_whatever_visit_is_missing() -> None:
    rng = np.random.default_rng(5)
    years = np.array([0.0, 1.1, 1.9, 3.2])
    values = 1.4 + 0.05 * years + rng.normal(0, 0.02, (3, 4))
    values[1, 2] = np.nan
    values[2, :2] = np.nan
    slope, error, n = slopes(years, values)
    assert n.tolist() == [4, 3, 2]
    for row, own_slope, own_error in zip(values[:2], slope, error, strict=False):
        known = np.isfinite(row)
        fit = linregress(years[known], row[known])
        assert (own_slope, own_error) == (pytest.approx(fit.slope), pytest.approx(fit.stderr))
    assert slope[2] == pytest.approx((values[2, 3] - values[2, 2]) / 1.3)
    assert np.isnan(error[2])
    assert np.isnan(slopes(np.array([0.0, np.nan]), np.ones((1, 2)))[0])


def test_flags_say_what_differs_between_two_scans_and_rows_say_how_long_after_the_first(tmp_path: Path) -> None:
    alike = {"window_start_min": 80.0, "window_end_min": 100.0, "effective_fwhm_mm": 6.0}
    long = pd.DataFrame(
        [
            *rows("sub-1", "ses-M00", 1.0, included="no", **alike),
            *rows("sub-1", "ses-M06", 1.0, **alike),
            *rows("sub-1", "ses-M18", 1.1, **{**alike, "window_start_min": 70.0, "effective_fwhm_mm": 6.3}),
            *rows("sub-1", "ses-M30", 1.3, **{**alike, "effective_fwhm_mm": np.nan}),
            *rows("sub-2", "ses-M00", 1.0, **alike),
        ]
    )
    found = change_table(long, tmp_path).query("region == 'braak1'").set_index("scan")
    assert found["same_window"].tolist() == ["no", "yes"]
    assert found["same_resolution"].isna().tolist() == [False, True]
    assert found["same_resolution"].iloc[0] == "yes"
    assert found["same_model"].isna().all()
    assert found["slope"].tolist() == pytest.approx([0.15, 0.15])
    assert found["n_visits"].tolist() == [3, 3]
    assert found["slope_se"].tolist() == pytest.approx([0.05 / np.sqrt(3)] * 2)
    assert found["difference_per_year"].tolist() == pytest.approx([0.1, 0.15])
    years = with_years(long, tmp_path)
    assert years["years_from_first"].tolist() == pytest.approx([-0.5, -0.5, 0, 0, 1, 1, 2, 2, 0, 0])


def cortical(who: str, session: str, suvr: float) -> list[dict]:
    """Make the rows of one scan in two cortical regions and a composite."""
    shared = {"kind": "cortical", "hemisphere": "left"}
    first, second = rows(who, session, suvr, **shared)
    named = ({**first, "region": "ctx-lh-entorhinal"}, {**second, "region": "ctx-lh-fusiform"})
    return [*named, {**first, "region": "metatemporal", "kind": "composite", "hemisphere": "both"}]


def test_the_page_has_lines_a_map_of_mean_annual_change_and_the_variability_of_near_visits(tmp_path: Path) -> None:
    scans = [
        ("sub-1", "ses-d0", 1.0),
        ("sub-1", "ses-d30", 1.02),
        ("sub-1", "ses-d365", 1.05),
        ("sub-2", "ses-d0", 2.0),
    ]
    long = pd.DataFrame([row for scan in [*scans, ("sub-2", "ses-d60", 1.9)] for row in cortical(*scan)])
    change = change_table(long, tmp_path)
    means, n = annual_change(change)
    assert n == 2
    slope = linregress(np.array([0, 30, 365]) / 365.25, [1.0, 1.02, 1.05]).slope
    other = (1.9 - 2.0) / (60 / 365.25)
    assert means[1006] == pytest.approx(100 * np.mean([slope / 1.0, other / 2.0]))
    # The second region has twice the SUVR and 0.1.
    assert means[1007] == pytest.approx(100 * np.mean([2 * slope / 2.1, 2 * other / 4.1]))
    (near,) = retest_variability(change)
    assert (near["region"], near["n"]) == ("metatemporal", 2)
    assert near["median"] == pytest.approx((2 / 1.01 + 10 / 1.95) / 2)
    text = change.astype(object).where(change.notna(), None).astype(str).replace({"None": None, "nan": None})
    wide = pd.DataFrame({"participant_id": ["sub-1", "sub-2"], "diagnosis": ["AD", None]})
    lines, cortex = change_figures(text, wide)
    assert (lines[0], cortex[0]) == ("Change between visits", "Mean annual change")
    assert "participants with several visits: 2" in lines[1]
    assert "metatemporal median 3.6%" in lines[2]
    assert [handle.get_text() for handle in lines[3].legends[0].get_texts()] == ["AD (1)", "diagnosis not stated (1)"]
    assert [axes.get_title() for axes in lines[3].axes] == ["metatemporal"]
    assert change_figures(None, None) == []
