"""Change of regional SUVR between two visits, in percent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tau_pipeline.bids.sessions import Timeline, label_times, session_order, timeline

if TYPE_CHECKING:
    import pandas as pd

_DAYS_OF_YEAR = 365.25
_KIND = ["participant_id", "tracer", "reference_region", "region", "hemisphere", "kind"]
#: Columns of the table of changes, and what they mean.
CHANGE_COLUMNS: dict[str, Any] = {
    "participant_id": {"Description": "Participant, with the prefix sub-."},
    "tracer": {"Description": "Tracer, by its common name."},
    "reference_region": {"Description": "Reference region of the SUVR."},
    "region": {"Description": "Region, as in suvr_rois.tsv."},
    "hemisphere": {"Description": "Side of the brain: left, right, or both."},
    "kind": {"Description": "Kind of region, as in suvr_rois.tsv."},
    "scan_first": {"Description": "Scan of the first visit that counts."},
    "scan": {"Description": "Scan of a later visit."},
    "years": {
        "Description": "Time between both, from scans.tsv or sessions.tsv, session labels that are times, or ages; n/a "
        "if nothing states it.",
        "Units": "year",
    },
    "suvr_first": {"Description": "Mean SUVR of the first visit.", "Units": "1"},
    "suvr": {"Description": "Mean SUVR of the later visit.", "Units": "1"},
    "percent_change": {"Description": "Change of the mean SUVR, of that of the first visit.", "Units": "%"},
    "percent_per_year": {"Description": "percent_change divided by years.", "Units": "%/year"},
    "same_manufacturer": {
        "Description": "Whether both scanners are of one manufacturer; a change of scanner also changes SUVR.",
        "Levels": {"yes": "one manufacturer", "no": "two, or not known"},
    },
}


def change_table(long: pd.DataFrame, bids_dir: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the change of each region from the first to each later visit of a participant.

    Parameters
    ----------
    long
        As `tau_pipeline.cohort.tables.long_table` gives it. Measured scans that count are compared within tracer and
        reference region; of several in one session, the first.
    bids_dir
        The raw dataset, for dates.

    Returns
    -------
    DataFrame
        Columns `CHANGE_COLUMNS`; empty if no participant has two visits.
    """
    import pandas as pd

    used = long[(long["source"] == "measured") & (long["included"] == "yes").fillna(False) & long["session_id"].notna()]
    scans = used.drop_duplicates(["participant_id", "tracer", "reference_region", "session_id"])
    parts = []
    by_scan = dict(iter(used.groupby(["scan", "reference_region"], sort=False)))
    for _, own in scans.groupby(["participant_id", "tracer", "reference_region"], dropna=False, sort=True):
        if len(own) > 1:
            times = timeline(Path(bids_dir) / str(own["participant_id"].iloc[0]))
            parts += _changes(by_scan, own.to_dict("records"), times)
    if not parts:
        return pd.DataFrame(columns=list(CHANGE_COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(CHANGE_COLUMNS)]


def _changes(by_scan: Mapping[Any, pd.DataFrame], visits: list[dict[Any, Any]], times: Timeline) -> list[pd.DataFrame]:
    """Return the changes of one participant from the first visit to each other one."""
    first, *rest = _in_time(visits, times)
    before = _rows_of(by_scan, first)
    parts = []
    for later in rest:
        both = before.merge(_rows_of(by_scan, later), on=_KIND, suffixes=("_before", "_after"))
        one, other = (both[f"suvr_mean_{name}"].to_numpy(float, na_value=np.nan) for name in ("before", "after"))
        with np.errstate(divide="ignore", invalid="ignore"):
            percent = np.where(one > 0, 100 * (other / one - 1), np.nan)
        years = _years(first, later, times)
        same = "yes" if first["manufacturer"] == later["manufacturer"] else "no"
        parts.append(
            both[_KIND].assign(
                scan_first=first["scan"],
                scan=later["scan"],
                years=years,
                suvr_first=one,
                suvr=other,
                percent_change=percent,
                percent_per_year=percent / years if years > 0 else np.nan,
                same_manufacturer=same,
            )
        )
    return parts


def _rows_of(by_scan: Mapping[Any, pd.DataFrame], visit: dict[Any, Any]) -> pd.DataFrame:
    return by_scan[visit["scan"], visit["reference_region"]][[*_KIND, "suvr_mean"]]


def _label(visit: dict[Any, Any]) -> str:
    return str(visit["session_id"]).removeprefix("ses-")


def _in_time(visits: Sequence[dict[Any, Any]], times: Timeline) -> list[dict[Any, Any]]:
    """Return visits in the order of time: by dates, by labels that are times, by ages, else by labels."""
    labels = [_label(visit) for visit in visits]
    stated, _ = label_times(labels)
    ages = [float(visit["age"]) for visit in visits]
    if all(label in times.dates for label in labels):
        return sorted(visits, key=lambda visit: times.dates[_label(visit)])
    if stated:
        return sorted(visits, key=lambda visit: stated[_label(visit)])
    if len(set(ages)) == len(ages) and not np.isnan(ages).any():
        return sorted(visits, key=lambda visit: float(visit["age"]))
    order = session_order(labels)
    return sorted(visits, key=lambda visit: order.index(_label(visit)))


def _years(first: dict[Any, Any], later: dict[Any, Any], times: Timeline) -> float:
    """Return the years between two visits; NaN if nothing states them."""
    other = _label(later)
    distances, unit = times.distances(_label(first), [other])
    if other in distances and unit == "days":
        return distances[other] / _DAYS_OF_YEAR
    ages = float(later["age"]) - float(first["age"])
    return ages if ages > 0 else float("nan")
