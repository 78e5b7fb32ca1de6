"""Figures of a cohort: tables in, a matplotlib Figure out.

Every scan is a point; where it lies across its group follows from its place in the table, so that the same table gives
the same picture. Diagnoses differ in colour and in the shape of their points. Figures are made without pyplot.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import label_table
from tau_pipeline.derivatives.read import column_name
from tau_pipeline.figures.cortex import cortex_figure
from tau_pipeline.measures.quality import PERCENTILES
from tau_pipeline.measures.statistics import OneWay, one_way_test

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Told apart by colour-blind readers (Okabe & Ito, Color Universal Design, 2008), without yellow, pale on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MARKERS = ("o", "^", "s", "D", "v", "P")
#: What is not stated, and what is left when there are more groups than colours.
NOT_STATED, REST, GREY = "not stated", "other", "#7a7a7a"
#: More groups than this share one place on the axis.
MOST_MANUFACTURERS = 5
#: More groups than this are counted under a panel and not named.
MOST_NAMED = 5
#: A figure further from the cohort's mean than this many standard deviations is marked.
OUTLIER_Z = 2.5
#: Fewer points than this have no line at their median: it would hide them.
FEWEST_FOR_MEDIAN = 3
#: What counts as Alzheimer's disease among the diagnoses, in lower case.
AD_NAMES = ("ad", "ad dementia", "alzheimer", "alzheimer's disease", "alzheimers disease", "alzheimer disease", "dat")

#: Columns of the quality figure: heading, label of the axis with the unit, and the column of z-scores.
QUALITY = {
    "reference_value": ("Mean of the reference region", "Activity (unit of the PET)", "reference_value_outlier"),
    "registration_nmi": ("Fit of PET to T1w", "Normalised mutual information", "registration_outlier"),
    "noise": ("Noise", "SD (SUVR)", "noise_outlier"),
    "mask_volume_ml": ("Brain mask", "Volume (mL)", "mask_volume_outlier"),
}

WIDTH_IN, DPI = 14.0, 120
TOP_IN, PLOT_IN, TICKS_IN, LINE_IN, SIDE_IN, CHAR_IN = 0.85, 2.7, 0.72, 0.19, 0.8, 0.092
#: Characters of 9.5 pt that fit under a panel a third of the figure wide.
LINE_CHARS = 63


def percentile_figure(scans: pd.DataFrame, what: str = "") -> Figure:
    """SUVR at the 75th, 90th and 99th percentile of cortex, by manufacturer and diagnosis.

    The upper row is SUVR, the lower row SUVR standardised by manufacturer, if there is any. Under each panel stands
    the one-way analysis of variance by manufacturer, by diagnosis, and of AD against all others.

    Parameters
    ----------
    scans
        One row a scan: ``manufacturer``, ``diagnosis`` (text or missing), ``cortex_p75``, ``cortex_p90``,
        ``cortex_p99`` and the same names with ``_z`` (numbers or missing). Columns may be absent.
    what
        Which scans these are, for the title: tracer and reference region.
    """
    table = _with_groups(scans)
    rows = _units(table)
    notes = [[_test_lines(table, f"cortex_p{k}{end}") for k in PERCENTILES] for _, end in rows]
    figure, panels = _grid(
        notes,
        "SUVR of the cortex before and after standardisation"
        if len(rows) > 1
        else "SUVR of the cortex, not standardised",
        what,
    )
    for line, (unit, end) in enumerate(rows):
        for place, percentile in enumerate(PERCENTILES):
            axes = panels[line][place]
            axes.set_title(f"{percentile}th percentile of cortex", fontsize=11)
            _strips(axes, table, f"cortex_p{percentile}{end}", unit)
    _legend(figure, table)
    return figure


def percentile_tests(scans: pd.DataFrame) -> list[tuple[str, str, OneWay]]:
    """The tests under the panels of `percentile_figure`: what was tested, between which groups, and the result."""
    table, found = _with_groups(scans), []
    for unit, end in _units(table):
        for percentile in PERCENTILES:
            tests = _tests_of(table, f"cortex_p{percentile}{end}")
            found += [(f"{unit}, {percentile}th percentile", by, test) for by, test in tests]
    return found


def _units(table: pd.DataFrame) -> list[tuple[str, str]]:
    """SUVR and, if there is any, standardised SUVR: name, and the end of the names of its columns."""
    standardised = any(_numbers(table, f"cortex_p{k}_z").notna().any() for k in PERCENTILES)
    return [("SUVR", ""), ("Standardised SUVR (z)", "_z")][: 1 + standardised]


def quality_figure(scans: pd.DataFrame) -> Figure | None:
    """Reference value, registration, noise and volume of the brain mask by manufacturer; None if all are missing.

    Parameters
    ----------
    scans
        One row a scan: ``manufacturer``, ``diagnosis`` and the columns of `QUALITY`, any of which may be absent. Scans
        whose z-score lies beyond `OUTLIER_Z` have a ring.
    """
    table = _with_groups(scans)
    shown = [name for name in QUALITY if _numbers(table, name).notna().any()]
    if not shown:
        return None
    notes = [[[sentence_of("By manufacturer", _test(table, name, "manufacturer"))] for name in shown]]
    figure, panels = _grid(notes, "Quality by manufacturer", f"ring: |z| above {OUTLIER_Z:g} within the cohort")
    for axes, name in zip(panels[0], shown, strict=True):
        heading, label, z_name = QUALITY[name]
        axes.set_title(heading, fontsize=11)
        _strips(axes, table, name, label, _numbers(table, z_name).abs().to_numpy() > OUTLIER_Z)
    _legend(figure, table)
    return figure


def cortex_by_diagnosis_figure(
    wide: pd.DataFrame, what: str, reference: str, colours: str = "viridis"
) -> Figure | None:
    """Mean SUVR of each cortical region over the scans of a diagnosis, on the average cortex; None without values.

    Parameters
    ----------
    wide
        One row a scan: ``diagnosis`` and a column a region, as `tau_pipeline.cohort.tables.wide_table` gives it.
    what
        Which scans these are, for the title.
    reference
        Name of the reference region, for the colour bar.
    colours
        Name of a matplotlib colour map.

    Notes
    -----
    The colour scale runs from the lowest to the highest mean shown, rounded outwards to a tenth, since differences
    between diagnoses are small beside the scale of a single scan.
    """
    import pandas as pd

    regions = label_table().query("kind == 'cortical'")
    columns = {
        column_name(row.region, row.hemisphere, "cortical"): int(row.index) for row in regions.itertuples(index=False)
    }
    present = [name for name in columns if name in wide.columns]
    values = wide[present].apply(pd.to_numeric, errors="coerce")
    used = _with_groups(wide)[values.notna().any(axis=1)] if present else wide.iloc[:0]
    if used.empty:
        return None
    rows = {}
    for diagnosis in _levels(used["diagnosis_group"], len(COLOURS)):
        own = used.index[used["diagnosis_group"] == diagnosis]
        name = "All scans" if diagnosis == NOT_STATED and used["diagnosis_group"].nunique() == 1 else diagnosis
        means = values.loc[own].mean()
        rows[f"{name} (n = {len(own)})"] = {columns[region]: float(means[region]) for region in present}
    everything = np.array([list(row.values()) for row in rows.values()])
    low, high = np.floor(np.nanmin(everything) * 10) / 10, np.ceil(np.nanmax(everything) * 10) / 10
    scale = (float(low), float(max(high, low + 0.1)))
    return cortex_figure(
        rows, f"Mean regional SUVR by diagnosis{what}", scale, f"SUVR (reference: {reference})", colours
    )


def is_ad(diagnosis: object) -> bool:
    """Whether a diagnosis is Alzheimer's disease by one of the names in `AD_NAMES`."""
    return str(diagnosis).strip().replace("’", "'").casefold() in AD_NAMES


def sentence_of(heading: str, test: OneWay) -> str:
    """A one-way analysis of variance in words: ``By diagnosis: F(1, 5) = 9.20, p = 0.029 (AD 3, CN 4)``.

    Spaces that must not be broken are no-break spaces.
    """
    groups = f"({n_text(test.n)})"
    if not np.isfinite(test.f):
        return f"{heading}: not tested, too few scans or groups {groups}"
    freedom = f"{len(test.n) - 1}, {sum(test.n.values()) - len(test.n)}"
    chance = p_text(test.p)
    return f"{heading}: " + f"F({freedom}) = {test.f:.2f}, p {chance}".replace(" ", "\N{NO-BREAK SPACE}") + f" {groups}"


def n_text(n: Mapping[str, int]) -> str:
    """The number of scans of each group, or of many groups the smallest and largest."""
    if len(n) > MOST_NAMED:
        return f"{len(n)} groups of {min(n.values())} to {max(n.values())}"
    return ", ".join(f"{name} {count}" for name, count in n.items()) or "no group"


def p_text(p: float) -> str:
    """A p-value with its sign: three decimals, or a power of ten below 0.001.

    Examples
    --------
    >>> p_text(0.0426), p_text(0.00003), p_text(0.0)
    ('= 0.043', '= 3.0e-05', '< 1e-99')
    """
    if p < 1e-99:
        return "< 1e-99"
    return f"= {p:.3f}" if p >= 0.001 else f"= {p:.1e}"


def _with_groups(table: pd.DataFrame) -> pd.DataFrame:
    """The table with ``manufacturer``, ``diagnosis``, and their groups as text without missing values."""
    found = table.copy()
    for name, most in (("manufacturer", MOST_MANUFACTURERS), ("diagnosis", len(COLOURS))):
        if name not in found:
            found[name] = None
        stated = found[name].astype("object").where(found[name].notna(), None)
        counts = stated.value_counts()
        kept = set(counts.index if len(counts) <= most else counts.index[: most - 1])
        found[f"{name}_group"] = [NOT_STATED if one is None else str(one) if one in kept else REST for one in stated]
    found["ad_group"] = [
        None if one == NOT_STATED else "AD" if is_ad(raw) else "others"
        for one, raw in zip(found["diagnosis_group"], found["diagnosis"], strict=True)
    ]
    return found


def _numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """A column as floats; all missing if it is absent."""
    import pandas as pd

    if name not in table:
        return pd.Series(np.nan, index=table.index)
    return pd.to_numeric(table[name], errors="coerce").astype(float)


def _levels(groups: pd.Series, most: int) -> list[str]:
    """The groups in alphabetical order, what is left over and what is not stated last."""
    last = {REST: 1, NOT_STATED: 2}
    return sorted(map(str, groups.unique()), key=lambda name: (last.get(name, 0), name.casefold(), name))[: most + 2]


def _style(diagnoses: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of the points of each diagnosis."""
    own = [name for name in diagnoses if name != NOT_STATED]
    found = {name: (COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]) for k, name in enumerate(own)}
    return found | {NOT_STATED: (GREY, "X")}


def _strips(axes: Axes, table: pd.DataFrame, column: str, label: str, ringed: NDArray[np.bool_] | None = None) -> None:
    """Points of each manufacturer, its diagnoses side by side, with the median of three or more as a line."""
    values = _numbers(table, column).to_numpy()
    manufacturers = _levels(table["manufacturer_group"], MOST_MANUFACTURERS)
    diagnoses = _levels(table["diagnosis_group"], len(COLOURS))
    style, width = _style(diagnoses), 0.8 / max(len(diagnoses), 1)
    size = float(np.clip(3000 / max(len(table), 1), 8, 34))
    for k, manufacturer in enumerate(manufacturers):
        for d, diagnosis in enumerate(diagnoses):
            own = (table["manufacturer_group"] == manufacturer) & (table["diagnosis_group"] == diagnosis)
            own = own.to_numpy() & np.isfinite(values)
            if not own.any():
                continue
            centre, (colour, marker) = k + (d - (len(diagnoses) - 1) / 2) * width, style[diagnosis]
            across = centre + _spread(int(own.sum())) * 0.7 * width
            axes.scatter(across, values[own], s=size, c=colour, marker=marker, alpha=0.8, linewidths=0)
            if own.sum() >= FEWEST_FOR_MEDIAN:
                ends = [centre - 0.42 * width, centre + 0.42 * width]
                axes.plot(ends, [float(np.median(values[own]))] * 2, color="black", linewidth=1.6)
            if ringed is not None and ringed[own].any():
                ring = ringed[own]
                axes.scatter(
                    across[ring], values[own][ring], s=110, facecolors="none", edgecolors="black", linewidths=1.2
                )
    counts = [int((np.isfinite(values) & (table["manufacturer_group"] == one)).sum()) for one in manufacturers]
    room_in = axes.get_position().width * WIDTH_IN / max(len(manufacturers), 1)
    ticks = [f"{_short(one, int(room_in / CHAR_IN))}\nn = {n}" for one, n in zip(manufacturers, counts, strict=True)]
    axes.set_xticks(range(len(manufacturers)), ticks, fontsize=10 if len(ticks) < 5 else 8.5, parse_math=False)
    axes.set_xlim(-0.5, max(len(manufacturers), 1) - 0.5)
    axes.set_ylabel(label, fontsize=10.5)
    axes.tick_params(axis="y", labelsize=10)
    # Where all values are near one another, the whole number stands at each tick and not a part of it above the axis.
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.7)
    axes.set_axisbelow(True)
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center", color=GREY)
        axes.set_yticks([])


def _spread(count: int) -> NDArray[np.float64]:
    """Places ``(count,)`` between -0.5 and 0.5 that fill a group evenly: multiples of the golden ratio, modulo 1."""
    if count == 1:
        return np.zeros(1)
    return np.modf(np.arange(count, dtype=np.float64) * 0.6180339887498949)[0] - 0.5


def _short(text: str, most: int) -> str:
    """A name in two lines of so many characters at most, the rest cut off."""
    return "\n".join(textwrap.wrap(text, max(most, 3), max_lines=2, placeholder="…")) or text[:most]


def _tests_of(table: pd.DataFrame, column: str) -> list[tuple[str, OneWay]]:
    """The tests of one percentile: between manufacturers, between diagnoses, and of AD against all others."""
    found = [(name, _test(table, column, name)) for name in ("manufacturer", "diagnosis")]
    if table["ad_group"].eq("AD").any():
        found.append(("AD against all others", _test(table, column, "ad_group")))
    return found


def _test(table: pd.DataFrame, column: str, by: str) -> OneWay:
    return one_way_test(table[[by]].assign(value=_numbers(table, column)), "value", by)


def _test_lines(table: pd.DataFrame, column: str) -> list[str]:
    """What stands under a panel of percentiles."""
    words = {"manufacturer": "By manufacturer", "diagnosis": "By diagnosis"}
    return [sentence_of(words.get(by, by), test) for by, test in _tests_of(table, column)]


def _grid(notes: Sequence[Sequence[Sequence[str]]], title: str, what: str) -> tuple[Figure, list[list[Axes]]]:
    """Rows of panels with lines of text under each; nothing can overlap.

    ``notes`` has, for each row and panel, the sentences under it.
    """
    from matplotlib.figure import Figure

    columns = len(notes[0])
    chars = LINE_CHARS * 3 // columns
    wrapped = [[[line for note in panel for line in textwrap.wrap(note, chars)] for panel in row] for row in notes]
    under = [TICKS_IN + LINE_IN * max(len(lines) for lines in row) + 0.15 for row in wrapped]
    height = TOP_IN + sum(PLOT_IN + 0.35 + below for below in under)
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor="white")
    figure.text(0.08 / WIDTH_IN, 1 - 0.1 / height, title, va="top", fontsize=13, weight="bold", parse_math=False)
    figure.text(1 - 0.1 / WIDTH_IN, 1 - 0.12 / height, what, va="top", ha="right", fontsize=10, parse_math=False)
    panels, top = [], height - TOP_IN
    width = WIDTH_IN / columns
    for row, below in zip(wrapped, under, strict=True):
        bottom, line = top - 0.35 - PLOT_IN, []
        for k, lines in enumerate(row):
            left = k * width + SIDE_IN
            box = (left / WIDTH_IN, bottom / height, (width - SIDE_IN - 0.15) / WIDTH_IN, PLOT_IN / height)
            line.append(figure.add_axes(box))
            place = ((left - SIDE_IN + 0.12) / WIDTH_IN, (bottom - TICKS_IN) / height)
            figure.text(*place, "\n".join(lines), va="top", fontsize=9.5, linespacing=1.25, parse_math=False)
        panels.append(line)
        top = bottom - below
    return figure, panels


def _legend(figure: Figure, table: pd.DataFrame) -> None:
    """Colour, shape and number of each diagnosis, in a line under the title."""
    from matplotlib.lines import Line2D

    counts: Mapping[str, int] = table["diagnosis_group"].value_counts().to_dict()
    diagnoses = _levels(table["diagnosis_group"], len(COLOURS))
    style = _style(diagnoses)
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=style[name][1],
            color=style[name][0],
            label=f"{textwrap.shorten(name, 20, placeholder='…')} ({counts[name]})",
        )
        for name in diagnoses
    ]
    handles.append(Line2D([], [], color="black", linewidth=1.6, label="median"))
    anchor = (0.0, 1 - 0.36 / figure.get_figheight())
    legend = figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=anchor,
        ncols=len(handles),
        frameon=False,
        fontsize=10,
        title="",
        handletextpad=0.3,
        columnspacing=1.4,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
