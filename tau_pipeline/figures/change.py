"""Figures of change between visits: SUVR over years for each participant, and the mean annual change of each region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import label_table
from tau_pipeline.diagnoses import by_severity
from tau_pipeline.figures.cortex import cortex_figure
from tau_pipeline.figures.sheet import DIFFERENCE_MAP, Sheet, group_handle, group_style, plain_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Composites that the lines are drawn for, as far as the table has them.
REGIONS = ("metatemporal", "braak1", "braak34", "braak56")
_PANEL_IN = 3.4
#: The axis of SUVR covers at least this, so that noise does not look like change.
_LEAST_RANGE = 0.1
#: Ends of the color scale of annual change are at least this far from 0, percent, so that noise does not look large.
_LEAST_SCALE = 1.0


def lines_figure(change: pd.DataFrame, diagnoses: Mapping[str, str], title: str) -> Figure | None:
    """Draw the SUVR of each participant over the years since the first visit, one panel per composite.

    Parameters
    ----------
    change
        Rows of ``change.tsv`` of one tracer and reference region, with numbers.
    diagnoses
        By participant; the lines take the color of the diagnosis.
    title
        What stands above.

    Returns
    -------
    Figure or None
        None if no composite has two visits with a time.
    """
    both = change[(change["hemisphere"] == "both") & change["years"].notna()]
    shown = [name for name in REGIONS if (both["region"] == name).any()]
    if not shown:
        return None
    named = both["participant_id"].map(lambda who: diagnoses.get(who) or "diagnosis not stated")
    groups = by_severity(named, last=("diagnosis not stated",))
    styles = {name: group_style(place) for place, name in enumerate(groups)}
    counts = both.assign(group=named).groupby("group")["participant_id"].nunique()
    legend = [group_handle(f"{name} ({counts[name]})", styles[name]) for name in groups]
    sheet = Sheet(
        _PANEL_IN, title, legend=legend, note="One line per participant: SUVR over years since the first visit."
    )
    panels: Sequence[Axes] = sheet.plots(1, len(shown))[0]
    for axes, region in zip(panels, shown, strict=True):
        own = both[both["region"] == region]
        for who, rows in own.groupby("participant_id"):
            _line(axes, rows, styles[diagnoses.get(str(who)) or "diagnosis not stated"])
        axes.set_title(region, fontsize=11)
        axes.set_xlabel("Years", fontsize=10)
        axes.ticklabel_format(axis="y", useOffset=False)
        low, high = axes.get_ylim()
        missing = max(0.0, _LEAST_RANGE - (high - low)) / 2
        axes.set_ylim(low - missing, high + missing)
        plain_axes(axes)
    panels[0].set_ylabel("Mean SUVR", fontsize=10.5)
    return sheet.figure


def _line(axes: Axes, rows: pd.DataFrame, style: Mapping[str, str]) -> None:
    """Draw one participant: the first visit at 0 and each later one."""
    rows = rows.sort_values("years")
    years = np.append(0.0, rows["years"].to_numpy(float))
    values = np.append(rows["suvr_first"].to_numpy(float)[0], rows["suvr"].to_numpy(float))
    scans = "\t".join([str(rows["scan_first"].iloc[0]), *map(str, rows["scan"])])
    axes.plot(years, values, color=style["color"], linewidth=1.1, alpha=0.7)
    axes.scatter(years, values, s=22, color=style["color"], marker=style["marker"], linewidths=0, gid=scans)


def annual_map_figure(change: pd.DataFrame, title: str) -> Figure | None:
    """Draw the mean annual change of each cortical region over participants, on the average cortex.

    Parameters
    ----------
    change
        Rows of ``change.tsv`` of one tracer and reference region, with numbers.
    title
        What stands above.

    Returns
    -------
    Figure or None
        None if no cortical region has a slope.
    """
    means, n = annual_change(change)
    if not means:
        return None
    end = max(_LEAST_SCALE, float(np.ceil(np.abs(list(means.values())).max())))
    rows = {f"All participants with several visits (n = {n})": means}
    return cortex_figure(rows, title, (-end, end), "Mean annual change of SUVR (% of the first visit)", DIFFERENCE_MAP)


def annual_change(change: pd.DataFrame) -> tuple[dict[int, float], int]:
    """Return the mean annual change of each cortical region, percent by FreeSurfer number, and the participants.

    That of a participant is the slope of all visits, divided by the SUVR of the first.
    """
    rows = change[(change["kind"] == "cortical") & change["slope"].notna()]
    rows = rows.drop_duplicates(["participant_id", "region"])
    numbers = dict(label_table().query("kind == 'cortical'")[["region", "index"]].itertuples(index=False, name=None))
    percent: NDArray[np.float64] = 100 * rows["slope"].to_numpy(float) / rows["suvr_first"].to_numpy(float)
    means = rows.assign(percent=percent).groupby("region")["percent"].mean()
    found = {int(numbers[name]): float(value) for name, value in means.items() if name in numbers}
    return found, int(rows["participant_id"].nunique())
