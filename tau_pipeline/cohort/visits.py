"""Visits of participants in the order of time, and the years between them."""

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
#: Years since the first visit, in the long table of regions.
YEARS_COLUMN: dict[str, Any] = {
    "Description": "Years since the first visit of the participant with a measured scan of this tracer that counts, "
    "from scans.tsv or sessions.tsv, session labels that are times, or ages: 0 for the first, n/a if nothing states "
    "them.",
    "Units": "year",
}


def in_time(visits: Sequence[dict[Any, Any]], times: Timeline) -> list[dict[Any, Any]]:
    """Return visits in the order of time: by dates, by labels that are times, by ages, else by labels.

    Parameters
    ----------
    visits
        Rows with ``session_id`` and ``age``, of one participant.
    times
        Of its sessions.
    """
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


def years_between(first: Mapping[Any, Any], later: Mapping[Any, Any], times: Timeline) -> float:
    """Return the years between two visits; NaN if nothing states them."""
    other = _label(later)
    distances, unit = times.distances(_label(first), [other])
    if other in distances and unit == "days":
        return distances[other] / _DAYS_OF_YEAR
    ages = float(later["age"]) - float(first["age"])
    return ages if ages > 0 else float("nan")


def _label(visit: Mapping[Any, Any]) -> str:
    return str(visit["session_id"]).removeprefix("ses-")


def counted(long: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of measured scans in sessions that count."""
    keep = (long["source"] == "measured") & (long["included"] == "yes").fillna(False) & long["session_id"].notna()
    return long[keep]


def with_years(long: pd.DataFrame, bids_dir: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the long table with the column ``years_from_first``.

    Years are those of the session; scans of one session, measured or synthetic, have the same. A participant without
    sessions has one visit.
    """
    key = ["participant_id", "tracer", "session_id"]
    first_of = counted(long).drop_duplicates(key)
    countable = {name: own.to_dict("records") for name, own in first_of.groupby(key[:2], dropna=False, sort=False)}
    found: dict[tuple[Any, ...], float] = {}
    for name, own in long.drop_duplicates(key).groupby(key[:2], dropna=False, sort=False):
        found |= _years_of(own.to_dict("records"), countable.get(name, []), Path(bids_dir) / str(name[0]))
    years = [found.get(_key(row), np.nan) for row in long[key].to_dict("records")]
    return long.assign(years_from_first=np.array(years, float))


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    import pandas as pd

    values = (row["participant_id"], row["tracer"], row["session_id"])
    return tuple(None if pd.isna(value) else value for value in values)


def _years_of(
    sessions: list[dict[Any, Any]], countable: list[dict[Any, Any]], folder: Path
) -> dict[tuple[Any, ...], float]:
    """Return the years of the sessions of one participant, by participant, tracer, and session."""
    if len(sessions) == 1:
        return {_key(sessions[0]): 0.0}
    dated = [row for row in sessions if _key(row)[-1] is not None]
    if not (countable and dated):
        return {}
    times = timeline(folder)
    first = in_time(countable, times)[0]
    order = [_label(row) for row in in_time(dated, times)]
    start = order.index(_label(first))
    found = {_key(first): 0.0}
    for row in dated:
        place = order.index(_label(row))
        if place > start:
            found[_key(row)] = years_between(first, row, times)
        elif place < start:
            found[_key(row)] = -years_between(row, first, times)
    return found
