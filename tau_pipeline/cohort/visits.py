"""Visits of participants in the order of time, and the years between them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.bids.session_labels import label_times
from tau_pipeline.bids.sessions import Timeline, session_order, timeline
from tau_pipeline.table_text import coded

if TYPE_CHECKING:
    import pandas as pd

_DAYS_OF_YEAR = 365.25
#: What tells sessions apart; of a participant, those with one tracer.
_SESSION = ["participant_id", "tracer", "session_id"]
#: Years since the first visit, in the long table of regions.
YEARS_COLUMN: dict[str, Any] = {
    "Description": "Years since the first visit of the participant with a measured scan of this tracer that counts, "
    "from dates, session labels that are times, or ages: 0 for the first, n/a if nothing states "
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
    place, first, visits = _sessions(long)
    years = np.zeros(len(first))
    if (several := visits > 1).any():
        found = _years_by_session(long[several[place]], Path(bids_dir))
        sessions = long.iloc[first[several]][_SESSION].to_dict("records")
        years[several] = [found.get(_key(row), np.nan) for row in sessions]
    return long.assign(years_from_first=years[place])


def _sessions(long: pd.DataFrame) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Return the session of each row by number, the first row of each, and how many sessions its participant has.

    Sessions are those of a participant with a tracer.
    """
    person, session = np.zeros(len(long), np.int64), np.zeros(len(long), np.int64)
    for name in _SESSION:
        codes, values = coded(long[name])
        person = session
        session = session * (len(values) + 1) + codes + 1
    _, first, place = np.unique(session, return_index=True, return_inverse=True)
    _, people, counts = np.unique(person[first], return_inverse=True, return_counts=True)
    return place.reshape(-1), first, counts[people.reshape(-1)]


def _years_by_session(long: pd.DataFrame, bids_dir: Path) -> dict[tuple[Any, ...], float]:
    """Return the years of sessions, by participant, tracer, and session; none where nothing states them."""
    used, person = [*_SESSION, "age"], _SESSION[:2]
    first_of = counted(long).drop_duplicates(_SESSION)[used]
    countable = {name: own.to_dict("records") for name, own in first_of.groupby(person, dropna=False, sort=False)}
    found: dict[tuple[Any, ...], float] = {}
    for name, own in long.drop_duplicates(_SESSION)[used].groupby(person, dropna=False, sort=False):
        found |= _years_of(own.to_dict("records"), countable.get(name, []), bids_dir / str(name[0]))
    return found


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    import pandas as pd

    values = (row["participant_id"], row["tracer"], row["session_id"])
    return tuple(None if pd.isna(value) else value for value in values)


def _years_of(
    sessions: list[dict[Any, Any]], countable: list[dict[Any, Any]], folder: Path
) -> dict[tuple[Any, ...], float]:
    """Return the years of the sessions of one participant, by participant, tracer, and session."""
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
