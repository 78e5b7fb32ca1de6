"""Figures of a cohort: tables in, a matplotlib Figure out.

Every scan is a point; where it lies across its group follows from its place in the table, so that the same table gives
the same picture. Diagnoses differ in the color and the shape of their points.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import label_table
from tau_pipeline.derivatives.columns import column_name
from tau_pipeline.derivatives.quality_measures import IN_FIGURE
from tau_pipeline.diagnoses import by_severity, is_alzheimer
from tau_pipeline.figures.cortex import cortex_figure
from tau_pipeline.figures.sheet import (
    COLORS,
    LEAST_FOR_MEDIAN,
    WIDTH_IN,
    Sheet,
    group_handle,
    group_style,
    line_handle,
    plain_axes,
    strip,
)
from tau_pipeline.measures.quality import PERCENTILES
from tau_pipeline.measures.statistics import OneWay, one_way_test

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What is not stated, and what is left when there are more groups than colors.
_NOT_STATED, _REST, _GRAY = "not stated", "other", "#7a7a7a"
#: More groups than this share one place on the axis.
_MOST_MANUFACTURERS = 5
#: More groups than this are counted under a panel and not named.
_MOST_NAMED = 5
#: A value further from the cohort's mean than this many standard deviations is marked.
OUTLIER_Z = 2.5

#: Columns of the quality figure: heading, label of the axis with the unit, and the column of z-scores.
QUALITY = {one.column: (one.plot_title, one.plot_axis, one.outlier) for one in IN_FIGURE}

#: Heights of a panel's heading, its plot, the names under it and a line of text; room at its left; width of a letter.
HEADING_IN, _PLOT_IN, _TICKS_IN, _LINE_IN, _AXIS_IN, _CHAR_IN = 0.35, 2.7, 0.72, 0.19, 0.8, 0.092
#: Characters of 9.5 pt that fit under a panel a third of the figure wide.
_LINE_CHARS = 63


def percentile_figure(scans: pd.DataFrame, what: str = "") -> Figure:
    """Draw SUVR at the 75th, 90th and 99th percentile of cortex, by manufacturer and diagnosis.

    The upper row is SUVR, the lower row SUVR standardized by manufacturer, if there is any. Under each panel stands
    the one-way analysis of variance by manufacturer, by diagnosis, and of AD against all others.

    Parameters
    ----------
    scans
        One row per scan: ``participant_id``, ``manufacturer``, ``diagnosis`` (text or missing), ``cortex_p75``,
        ``cortex_p90``, ``cortex_p99`` and the same names with ``_standardized`` (numbers or missing). Columns may be
        absent.
    what
        Which scans these are, for the title: tracer and reference region.
    """
    table = _with_groups(scans)
    rows = _units(table)
    notes = [[_test_lines(table, f"cortex_p{k}{end}") for k in PERCENTILES] for _, end in rows]
    sheet, panels = _grid(
        notes,
        "SUVR of the cortex before and after standardization"
        if len(rows) > 1
        else "SUVR of the cortex, not standardized",
        what,
        _legend(table),
    )
    for line, (unit, end) in enumerate(rows):
        for place, percentile in enumerate(PERCENTILES):
            axes = panels[line][place]
            axes.set_title(f"{percentile}th percentile of cortex", fontsize=11)
            _strips(axes, table, f"cortex_p{percentile}{end}", unit)
    return sheet.figure


def percentile_tests(scans: pd.DataFrame) -> list[tuple[str, str, OneWay]]:
    """Run the tests under the panels of `percentile_figure`: what was tested, between which groups, and the result."""
    table, found = _with_groups(scans), []
    for unit, end in _units(table):
        for percentile in PERCENTILES:
            tests = _tests_of(table, f"cortex_p{percentile}{end}")
            found += [(f"{unit}, {percentile}th percentile", by, test) for by, test in tests]
    return found


def _units(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return SUVR and, if there is any, standardized SUVR: name, and the end of the names of its columns."""
    standardized = any(_numbers(table, f"cortex_p{k}_standardized").notna().any() for k in PERCENTILES)
    return [("SUVR", ""), ("Standardized SUVR (brain SD)", "_standardized")][: 1 + standardized]


def quality_figure(scans: pd.DataFrame) -> Figure | None:
    """Draw reference value, registration, noise and volume of the brain mask by manufacturer; None if all are missing.

    Parameters
    ----------
    scans
        One row per scan: ``manufacturer``, ``diagnosis`` and the columns of `QUALITY`, any of which may be absent.
        Scans whose z-score lies beyond `OUTLIER_Z` have a ring.
    """
    table = _with_groups(scans)
    shown = [name for name in QUALITY if _numbers(table, name).notna().any()]
    if not shown:
        return None
    notes = [[[sentence_of("By manufacturer", _test(table, name, "manufacturer"))] for name in shown]]
    sheet, panels = _grid(
        notes, "Quality by manufacturer", f"ring: |z| above {OUTLIER_Z:g} within the cohort", _legend(table)
    )
    for axes, name in zip(panels[0], shown, strict=True):
        heading, label, z_name = QUALITY[name]
        axes.set_title(heading, fontsize=11)
        _strips(axes, table, name, label, _numbers(table, z_name).abs().to_numpy() > OUTLIER_Z)
    return sheet.figure


def cortex_by_diagnosis_figure(wide: pd.DataFrame, what: str, reference: str, colors: str = "viridis") -> Figure | None:
    """Draw mean SUVR of each cortical region over the scans of a diagnosis, on the average cortex; None without values.

    Parameters
    ----------
    wide
        One row per scan: ``diagnosis`` and one column per region, as `tau_pipeline.cohort.tables.wide_table` gives it.
    what
        Which scans these are, for the title.
    reference
        Name of the reference region, for the color bar.
    colors
        Name of a matplotlib color map.

    Notes
    -----
    The color scale runs from the lowest to the highest mean shown, rounded outwards to a tenth, since differences
    between diagnoses are small beside the scale of a single scan.
    """
    import pandas as pd

    columns = cortical_columns()
    present = [name for name in columns if name in wide.columns]
    values = wide[present].apply(pd.to_numeric, errors="coerce")
    used = _with_groups(wide)[values.notna().any(axis=1)] if present else wide.iloc[:0]
    if used.empty:
        return None
    rows = {}
    for diagnosis in _levels(used["diagnosis_group"], len(COLORS)):
        own = used.index[used["diagnosis_group"] == diagnosis]
        name = "All scans" if diagnosis == _NOT_STATED and used["diagnosis_group"].nunique() == 1 else diagnosis
        means = values.loc[own].mean()
        rows[f"{name} (n = {len(own)})"] = {columns[region]: float(means[region]) for region in present}
    everything = np.array([list(row.values()) for row in rows.values()])
    low, high = np.floor(np.nanmin(everything) * 10) / 10, np.ceil(np.nanmax(everything) * 10) / 10
    scale = (float(low), float(max(high, low + 0.1)))
    return cortex_figure(
        rows, f"Mean regional SUVR by diagnosis{what}", scale, f"SUVR (reference: {reference})", colors
    )


@cache
def cortical_columns() -> dict[str, int]:
    """Return the labels of the cortical regions by their columns in the wide table."""
    regions = label_table().query("kind == 'cortical'")
    return {
        column_name(row.region, row.hemisphere, "cortical"): int(row.index) for row in regions.itertuples(index=False)
    }


def sentence_of(heading: str, test: OneWay) -> str:
    """Describe a one-way analysis of variance: ``By diagnosis: F(1, 5) = 9.20, p = 0.029 (AD 3, CN 4)``.

    Spaces that must not be broken are no-break spaces.
    """
    groups = f"({n_text(test.n)})"
    if not np.isfinite(test.f):
        return f"{heading}: not tested, too few participants or groups {groups}"
    freedom = f"{len(test.n) - 1}, {sum(test.n.values()) - len(test.n)}"
    chance = p_text(test.p)
    return f"{heading}: " + f"F({freedom}) = {test.f:.2f}, p {chance}".replace(" ", "\N{NO-BREAK SPACE}") + f" {groups}"


def n_text(n: Mapping[str, int]) -> str:
    """Return the number of participants in each group, or of many groups the smallest and largest."""
    if len(n) > _MOST_NAMED:
        return f"{len(n)} groups of {min(n.values())} to {max(n.values())}"
    return ", ".join(f"{name} {count}" for name, count in n.items()) or "no group"


def p_text(p: float) -> str:
    """Format a p-value with its sign: three decimals, or a power of ten below 0.001.

    Examples
    --------
    >>> p_text(0.0426), p_text(0.00003), p_text(0.0)
    ('= 0.043', '= 3.0e-05', '< 1e-99')
    """
    if p < 1e-99:
        return "< 1e-99"
    return f"= {p:.3f}" if p >= 0.001 else f"= {p:.1e}"


def _with_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with ``manufacturer``, ``diagnosis``, and their groups as text without missing values."""
    found = table.copy()
    for name, most in (("manufacturer", _MOST_MANUFACTURERS), ("diagnosis", len(COLORS))):
        if name not in found:
            found[name] = None
        stated = found[name].astype("object").where(found[name].notna(), None)
        counts = stated.value_counts()
        kept = set(counts.index if len(counts) <= most else counts.index[: most - 1])
        found[f"{name}_group"] = [_NOT_STATED if one is None else str(one) if one in kept else _REST for one in stated]
    found["ad_group"] = [
        None if one == _NOT_STATED else "AD" if is_alzheimer(raw) else "others"
        for one, raw in zip(found["diagnosis_group"], found["diagnosis"], strict=True)
    ]
    return found


def _numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as floats; all missing if it is absent."""
    import pandas as pd

    if name not in table:
        return pd.Series(np.nan, index=table.index)
    return pd.to_numeric(table[name], errors="coerce").astype(float)


def _levels(groups: pd.Series, most: int) -> list[str]:
    """Return diagnoses by severity and other groups by the alphabet, what is left over and what is not stated last."""
    return by_severity(map(str, groups.unique()), last=(_REST, _NOT_STATED))[: most + 2]


def _style(diagnoses: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return color and marker of each diagnosis."""
    stated = [name for name in diagnoses if name != _NOT_STATED]
    return {name: group_style(k) for k, name in enumerate(stated)} | {_NOT_STATED: {"color": _GRAY, "marker": "X"}}


def _strips(axes: Axes, table: pd.DataFrame, column: str, label: str, ringed: NDArray[np.bool_] | None = None) -> None:
    """Draw one panel: points of each manufacturer, its diagnoses side by side; outliers in ``ringed`` have a ring."""
    values = _numbers(table, column).to_numpy()
    manufacturers = _levels(table["manufacturer_group"], _MOST_MANUFACTURERS)
    counts = []
    for place, manufacturer in enumerate(manufacturers):
        own = (table["manufacturer_group"] == manufacturer).to_numpy() & np.isfinite(values)
        counts.append(int(own.sum()))
        _diagnoses(axes, table, np.where(own, values, np.nan), place, ringed)
    _name_manufacturers(axes, manufacturers, counts)
    axes.set_ylabel(label, fontsize=10.5)
    axes.tick_params(axis="y", labelsize=10)
    # Where all values are near one another, the whole number stands at each tick and not a part of it above the axis.
    axes.ticklabel_format(axis="y", useOffset=False)
    plain_axes(axes)
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center", color=_GRAY)
        axes.set_yticks([])


def _diagnoses(
    axes: Axes, table: pd.DataFrame, values: NDArray[np.float64], place: int, ringed: NDArray[np.bool_] | None
) -> None:
    """Draw the finite values, one per row of the table, in a strip per diagnosis around a place on the axis."""
    diagnoses = _levels(table["diagnosis_group"], len(COLORS))
    style, width = _style(diagnoses), 0.8 / max(len(diagnoses), 1)
    size = float(np.clip(3000 / max(len(table), 1), 8, 34))
    for d, diagnosis in enumerate(diagnoses):
        own = (table["diagnosis_group"] == diagnosis).to_numpy() & np.isfinite(values)
        if not own.any():
            continue
        center = place + (d - (len(diagnoses) - 1) / 2) * width
        # The names of the scans, by which a page links each point.
        named = {"gid": "\t".join(map(str, table.loc[own, "scan"]))} if "scan" in table else {}
        across = strip(axes, values[own], center, width, s=size, alpha=0.8, **style[diagnosis], **named)
        if ringed is not None and ringed[own].any():
            ring = ringed[own]
            style_of_ring: dict[str, Any] = {"facecolors": "none", "edgecolors": "black", "linewidths": 1.2}
            axes.scatter(across[ring], values[own][ring], s=110, **style_of_ring)


def _name_manufacturers(axes: Axes, manufacturers: Sequence[str], counts: Sequence[int]) -> None:
    """Write each manufacturer and its number of scans under its place."""
    room_in = axes.get_position().width * WIDTH_IN / max(len(manufacturers), 1)
    names = [f"{_short(one, int(room_in / _CHAR_IN))}\nn = {n}" for one, n in zip(manufacturers, counts, strict=True)]
    axes.set_xticks(range(len(names)), names, fontsize=10 if len(names) < 5 else 8.5, parse_math=False)
    axes.set_xlim(-0.5, max(len(names), 1) - 0.5)


def _short(text: str, most: int) -> str:
    """Wrap a name into at most two lines of ``most`` characters and cut off the rest."""
    return "\n".join(textwrap.wrap(text, max(most, 3), max_lines=2, placeholder="…")) or text[:most]


def _tests_of(table: pd.DataFrame, column: str) -> list[tuple[str, OneWay]]:
    """Run the tests of one percentile: between manufacturers, between diagnoses, and of AD against all others."""
    found = [(name, _test(table, column, name)) for name in ("manufacturer", "diagnosis")]
    if table["ad_group"].eq("AD").any():
        found.append(("AD against all others", _test(table, column, "ad_group")))
    return found


def _test(table: pd.DataFrame, column: str, by: str) -> OneWay:
    own = [name for name in ("participant_id", by) if name in table]
    return one_way_test(table[own].assign(value=_numbers(table, column)), "value", by)


def _test_lines(table: pd.DataFrame, column: str) -> list[str]:
    """Return the caption below a panel of percentiles."""
    words = {"manufacturer": "By manufacturer", "diagnosis": "By diagnosis"}
    return [sentence_of(words.get(by, by), test) for by, test in _tests_of(table, column)]


def _grid(
    notes: Sequence[Sequence[Sequence[str]]], title: str, what: str, legend: Sequence[Artist]
) -> tuple[Sheet, list[list[Axes]]]:
    """Lay out rows of panels with lines of text under each.

    ``notes`` has, for each row and panel, the sentences under it.
    """
    columns = len(notes[0])
    wrapped = [
        [[line for note in panel for line in textwrap.wrap(note, _LINE_CHARS * 3 // columns)] for panel in row]
        for row in notes
    ]
    heights = [HEADING_IN + _PLOT_IN + _TICKS_IN + _LINE_IN * max(map(len, row)) + 0.15 for row in wrapped]
    sheet = Sheet(sum(heights), title, aside=what, legend=legend)
    panels: list[list[Axes]] = []
    width, top = WIDTH_IN / columns, 0.0
    for row, height in zip(wrapped, heights, strict=True):
        panels.append([])
        for k, lines in enumerate(row):
            box = (k * width + _AXIS_IN, top + HEADING_IN, width - _AXIS_IN - 0.15, _PLOT_IN)
            panels[-1].append(sheet.axes(box))
            under = top + HEADING_IN + _PLOT_IN + _TICKS_IN
            sheet.text(k * width + 0.12, under, "\n".join(lines), fontsize=9.5, linespacing=1.25)
        top += height
    return sheet, panels


def _legend(table: pd.DataFrame) -> list[Artist]:
    """Return what the legend shows: color, marker and number of scans of each diagnosis, and the median where drawn."""
    counts: Mapping[str, int] = table["diagnosis_group"].value_counts().to_dict()
    diagnoses = _levels(table["diagnosis_group"], len(COLORS))
    style = _style(diagnoses)
    groups = [
        group_handle(f"{textwrap.shorten(name, 20, placeholder='…')} ({counts[name]})", style[name])
        for name in diagnoses
    ]
    largest = table.groupby(["manufacturer_group", "diagnosis_group"]).size().max()
    return [*groups, line_handle("median")] if largest >= LEAST_FOR_MEDIAN else groups
