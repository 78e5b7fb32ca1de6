"""Figures of a cohort: every scan is a point at its own value, tests are right, nothing overlaps or is cut off."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from made_up_cohort import COLUMNS, status_table, wide_table
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tau_pipeline.figures import cohort as group_figures
from tau_pipeline.figures.cohort import (
    cortex_by_diagnosis_figure,
    one_way_test,
    percentile_figure,
    percentile_tests,
    quality_figure,
    sentence_of,
)
from tau_pipeline.figures.sheet import COLORS


@pytest.fixture(scope="module")
def scans() -> pd.DataFrame:
    """24 scans that are done and 3 that are not."""
    return status_table(27)


@pytest.fixture(scope="module")
def percentiles(scans: pd.DataFrame) -> Figure:
    """The figure of the percentiles of these scans, which tests only read."""
    return percentile_figure(scans)


def points(axes: Axes) -> np.ndarray:
    """Positions ``(N, 2)`` of the filled points of a panel."""
    found = [part.get_offsets() for part in axes.collections if len(part.get_facecolors())]
    return np.concatenate(found) if found else np.empty((0, 2))


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_title()]


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts).replace("\N{NO-BREAK SPACE}", " ").replace("\n", " ")


def check_layout(figure: Figure) -> None:
    """No text is cut off, and none lies on another."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        low, high = axes.get_ylim()
        shown = [label for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
        texts += [axes.title, axes.yaxis.label, *axes.get_xticklabels(), *shown]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text().strip()]
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text
    for (a, box_a), (b, box_b) in combinations(boxes, 2):
        assert not box_a.overlaps(box_b), (a, b)


def test_every_scan_is_a_point_at_its_value_before_and_after_standardisation(
    scans: pd.DataFrame, percentiles: Figure
) -> None:
    figure = percentiles
    assert len(panels(figure)) == 6
    for end, row in (("", panels(figure)[:3]), ("_standardized", panels(figure)[3:])):
        for percentile, axes in zip((75, 90, 99), row, strict=True):
            wanted = scans[f"cortex_p{percentile}{end}"].dropna()
            np.testing.assert_allclose(np.sort(points(axes)[:, 1]), np.sort(wanted))


def test_points_stand_above_their_manufacturer(scans: pd.DataFrame, percentiles: Figure) -> None:
    axes = panels(percentiles)[0]
    names = [label.get_text().split("\n")[0] for label in axes.get_xticklabels()]
    assert names == ["GE", "Philips", "Siemens"]
    for place, name in enumerate(names):
        own = points(axes)[np.abs(points(axes)[:, 0] - place) < 0.5][:, 1]
        np.testing.assert_allclose(np.sort(own), np.sort(scans.query("manufacturer == @name")["cortex_p75"].dropna()))
        assert axes.get_xticklabels()[place].get_text() == f"{name}\nn = {len(own)}"


def test_many_groups_are_counted_and_few_are_named() -> None:
    table = pd.DataFrame({"value": range(14), "by": [*"aabbccddeeffff"]})
    assert sentence_of("By x", one_way_test(table, "value", "by")).endswith("(6 groups of 2 to 4)")
    assert sentence_of("By x", one_way_test(table[:4], "value", "by")).endswith("(a 2, b 2)")


def test_diagnoses_differ_in_shape_and_colour_and_are_named_with_their_number(
    scans: pd.DataFrame, percentiles: Figure
) -> None:
    figure = percentiles
    handles = figure.legends[0].legend_handles
    assert len({(handle.get_marker(), handle.get_color()) for handle in handles}) == 4
    counts = scans["diagnosis"].value_counts()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [*(f"{name} ({counts[name]})" for name in ("CN", "MCI", "AD")), "median"]


def test_the_legend_names_the_median_only_where_one_is_drawn(scans: pd.DataFrame) -> None:
    few = scans.groupby(["manufacturer", "diagnosis"]).head(2)
    figure = percentile_figure(few)
    assert not any(text.get_text().startswith("median") for text in figure.legends[0].get_texts())
    assert not [line for axes in panels(figure) for line in axes.lines if line.get_color() == "black"]


def test_the_tests_under_a_panel_are_those_of_its_values(scans: pd.DataFrame, percentiles: Figure) -> None:
    """Against the sums of squares written out."""
    text = words(percentiles)
    for column in ("cortex_p75", "cortex_p90", "cortex_p99", "cortex_p99_standardized"):
        values = scans[column].dropna()
        for heading, by in (
            ("By manufacturer", scans["manufacturer"]),
            ("By diagnosis", scans["diagnosis"]),
            ("AD against all others", scans["diagnosis"] == "AD"),
        ):
            groups = [own for _, own in values.groupby(by[values.index])]
            between = sum(len(own) * (own.mean() - values.mean()) ** 2 for own in groups) / (len(groups) - 1)
            within = sum(((own - own.mean()) ** 2).sum() for own in groups) / (len(values) - len(groups))
            assert (
                f"{heading}: F({len(groups) - 1}, {len(values) - len(groups)}) = {between / within:.2f}, p = " in text
            )


def test_groups_that_are_apart_and_groups_that_are_alike_are_told_apart() -> None:
    table = pd.DataFrame({"value": [1.0, 1.1, 2.0, 2.1, 3.0, 3.1], "by": list("aabbcc")})
    assert one_way_test(table, "value", "by").p < 0.001
    alike = one_way_test(table.assign(by=list("ababab")), "value", "by")
    assert alike.p > 0.3
    assert alike.n == {"a": 3, "b": 3}


def test_visits_of_one_participant_count_once() -> None:
    """Six visits of four participants; by their means, as if each had one scan."""
    table = pd.DataFrame({"value": [1.0, 1.2, 1.4, 2.0, 2.2, 2.6], "by": list("aaabbb")})
    table["participant_id"] = ["sub-1", "sub-2", "sub-2", "sub-3", "sub-4", "sub-4"]
    found = one_way_test(table, "value", "by")
    means = pd.DataFrame({"value": [1.0, 1.3, 2.0, 2.4], "by": list("aabb")})
    expected = one_way_test(means, "value", "by")
    assert found.n == {"a": 2, "b": 2}
    assert (found.f, found.p) == pytest.approx((expected.f, expected.p))
    alone = table[table["participant_id"].isin(["sub-2", "sub-4"])]
    assert np.isnan(one_way_test(alone, "value", "by").p)


def test_one_group_or_too_few_scans_are_not_tested() -> None:
    table = pd.DataFrame({"value": [1.0, 2.0, np.nan], "by": ["a", "b", "b"]})
    assert (
        sentence_of("By x", one_way_test(table, "value", "by"))
        == "By x: not tested, too few participants or groups (no group)"
    )
    assert np.isnan(one_way_test(table.assign(by="a"), "value", "by").f)


@pytest.mark.parametrize(
    ("p", "text"), [(1.0, "= 1.000"), (0.0426, "= 0.043"), (0.0009, "= 9.0e-04"), (3e-120, "< 1e-99"), (0.0, "< 1e-99")]
)
def test_small_chances_are_powers_of_ten_and_never_nought(p: float, text: str) -> None:
    assert group_figures.p_text(p) == text


def test_the_test_of_ad_is_left_out_where_nobody_has_it(scans: pd.DataFrame) -> None:
    assert {by for _, by, _ in percentile_tests(scans)} == {"manufacturer", "diagnosis", "AD against all others"}
    others = scans.assign(diagnosis="CN")
    assert {by for _, by, _ in percentile_tests(others)} == {"manufacturer", "diagnosis"}


def test_without_standardised_values_there_is_one_row_and_the_title_says_so(scans: pd.DataFrame) -> None:
    figure = percentile_figure(
        scans.drop(columns=["cortex_p75_standardized", "cortex_p90_standardized", "cortex_p99_standardized"])
    )
    assert len(panels(figure)) == 3
    assert "not standardized" in words(figure)


@pytest.mark.parametrize(
    "table",
    [
        status_table(1, bad_every=99),
        status_table(27).assign(manufacturer=None, diagnosis=None),
        status_table(200).assign(diagnosis=[f"Diagnosis number {k % 12}" for k in range(200)]),
        status_table(60).assign(manufacturer=[f"Manufacturer with a long name {k % 11}" for k in range(60)]),
        status_table(9, bad_every=99).assign(manufacturer=["$\\frac{1}{2}$", "Ünïcode 東京", "<b>GE</b>"] * 3),
    ],
    ids=["one scan", "nothing stated", "12 diagnoses", "11 manufacturers", "hostile"],
)
def test_no_text_is_cut_off_and_none_lies_on_another(table: pd.DataFrame) -> None:
    for figure in (percentile_figure(table, "measured"), quality_figure(table)):
        assert figure is not None
        check_layout(figure)


def test_with_more_diagnoses_than_colours_the_rarest_share_one() -> None:
    table = status_table(200).assign(diagnosis=[f"D{min(k % 12, 7)}" for k in range(200)])
    legend = [text.get_text() for text in percentile_figure(table).legends[0].get_texts()]
    assert len(legend) == len(COLORS) + 1
    assert any(text.startswith("other (") for text in legend)


def test_outliers_have_a_ring_and_others_have_none() -> None:
    table = status_table(24, bad_every=99)
    table["noise_outlier"], table["registration_outlier"] = [3.0, -2.6, 2.4, *[0.0] * 21], np.nan
    figure = quality_figure(table)
    assert figure is not None
    rings = {
        axes.get_title(): sum(len(part.get_offsets()) for part in axes.collections if not len(part.get_facecolors()))
        for axes in panels(figure)
    }
    assert rings["Noise"] == 2
    assert rings["Fit of PET to T1w"] == 0


def test_every_axis_has_a_unit(scans: pd.DataFrame, percentiles: Figure) -> None:
    figure = quality_figure(scans)
    assert figure is not None
    labels = [axes.get_ylabel() for axes in panels(figure)]
    assert labels == ["Activity (unit of the PET)", "Normalized mutual information", "SD (SUVR)", "Volume (mL)"]
    assert {axes.get_ylabel() for axes in panels(percentiles)} == {"SUVR", "Standardized SUVR (brain SD)"}


def test_values_that_are_near_one_another_stand_at_the_ticks_as_they_are(scans: pd.DataFrame) -> None:
    near = scans.assign(mask_volume_ml=np.linspace(1599.4, 1599.8, len(scans)))
    figure = quality_figure(near)
    assert figure is not None
    check_layout(figure)
    assert {axes.yaxis.get_offset_text().get_text() for axes in panels(figure)} == {""}
    shown = [float(label.get_text()) for label in panels(figure)[-1].get_yticklabels()]
    assert min(shown) > 1599
    assert max(shown) < 1600.5


def test_without_any_quality_figure_there_is_no_picture_of_them() -> None:
    assert quality_figure(pd.DataFrame({"manufacturer": ["GE"], "diagnosis": ["AD"]})) is None
    empty = percentile_figure(pd.DataFrame(columns=list(COLUMNS)))
    assert all(len(points(axes)) == 0 for axes in panels(empty))


def test_the_same_table_gives_the_same_points(scans: pd.DataFrame) -> None:
    first, second = (points(panels(percentile_figure(scans))[0]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_table_is_left_as_it_was(scans: pd.DataFrame) -> None:
    before, wide = scans.copy(), wide_table(scans)
    wide_before = wide.copy()
    percentile_figure(scans)
    quality_figure(scans)
    pd.testing.assert_frame_equal(scans, before)
    pd.testing.assert_frame_equal(wide, wide_before)


def test_the_cortex_shows_the_mean_of_each_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def note(rows: dict, title: str, scale: tuple[float, float], label: str, colors: str) -> Figure:
        asked.update(rows=rows, scale=scale, label=label)
        return Figure()

    monkeypatch.setattr(group_figures, "cortex_figure", note)
    table = pd.DataFrame(
        {
            "diagnosis": ["AD", "AD", "CN", "CN"],
            "ctx_lh_entorhinal": [2.0, 3.0, 1.01, np.nan],
            "ctx_rh_cuneus": [np.nan] * 4,
        }
    )
    assert cortex_by_diagnosis_figure(table, "", "Pons") is not None
    assert asked["label"] == "SUVR (reference: Pons)"
    assert list(asked["rows"]) == ["CN (n = 1)", "AD (n = 2)"]
    assert asked["rows"]["AD (n = 2)"][1006] == 2.5
    assert asked["rows"]["CN (n = 1)"][1006] == 1.01
    assert np.isnan(asked["rows"]["AD (n = 2)"][2005])
    assert asked["scale"] == (1.0, 2.5)


def test_without_regions_or_values_there_is_no_cortex() -> None:
    assert cortex_by_diagnosis_figure(pd.DataFrame({"diagnosis": ["AD"]}), "", "Pons") is None
    assert cortex_by_diagnosis_figure(pd.DataFrame({"ctx_lh_cuneus": [np.nan]}), "", "Pons") is None
