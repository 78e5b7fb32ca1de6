"""Sessions of a participant in time: from tables of dates, sidecars, or labels that are times themselves."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from tau_pipeline.bids.entities import stem
from tau_pipeline.bids.session_labels import DAYS, label_times
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import is_folder, name_parts, read_json, read_tsv

#: Forms of dates outside BIDS that have one meaning: the year first, or the month in words.
_CERTAIN_FORMS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y-%m", "%Y/%m", "%b %Y", "%B %Y", "%b-%Y"),
    *(f"%d{mark}{month}{mark}%Y" for mark in ("-", " ", "", ". ", ".") for month in ("%b", "%B")),
    *(f"{month} %d{mark} %Y" for mark in ("", ",") for month in ("%b", "%B")),
)
#: Other forms. A column is read in the one form, or the forms of one meaning, that fit all its values.
_FORMS = (
    "%d-%b-%y",
    *("%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y", "%d-%m-%Y", "%d.%m.%Y", "%m/%d/%y", "%d/%m/%y"),
)


#: Columns with dates of sessions and images; BIDS's first.
_DATE_COLUMNS = (
    *(
        "acq_time",
        "acq_date",
        "session_date",
        "scan_date",
        "scandate",
        "visit_date",
        "exam_date",
        "examdate",
        "EXAMDATE",
    ),
    *("date", "Date"),
)
#: Dates in sidecars: BIDS keeps them in tables, converters and labs have them here, too.
_DATE_KEYS = ("AcquisitionDateTime", "AcquisitionDate", "ScanDate", "SeriesDate", "StudyDate")
#: Years of the first of January that stands for a date that was removed.
_REMOVED = (1, 1800, 1900, 1901, 1904, 1925, 1970, 1980)


@dataclass(frozen=True)
class Timeline:
    """A participant's sessions and what is known of their times.

    Parameters
    ----------
    labels
        Of the sessions, without ``ses-``.
    dates
        Of the sessions whose date is known.
    files
        Times of single images, by file name without ending, from ``scans.tsv`` or sidecars.
    unreadable
        Values that should be dates and could not be read.
    days
        Times of the sessions since any one time, from columns of ``sessions.tsv`` such as ``days_since_baseline``.
    ages
        Ages at the sessions in whole years, which tell only which sessions are far apart; empty if ``days`` are known.
    source
        Where the dates of the sessions are from; empty for the tables that BIDS has for them.
    """

    labels: tuple[str, ...] = ()
    dates: Mapping[str, datetime] = field(default_factory=dict)
    files: Mapping[str, datetime] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    days: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    ages: Mapping[str, float] = field(default_factory=dict)

    def days_between_files(self, one: Path, other: Path) -> float | None:
        """Return the days between two images by ``scans.tsv`` or sidecars; None where they do not date both."""
        times = [self.files.get(stem(path)) for path in (one, other)]
        return None if times[0] is None or times[1] is None else _days(times[0], times[1])

    def distances(self, session: str, others: Sequence[str]) -> tuple[dict[str, float], str]:
        """Return how far other sessions are from one, and the unit.

        Parameters
        ----------
        session, others
            Labels.

        Returns
        -------
        distances
            By label; empty where neither dates, nor columns of times, nor labels state the time of every one of them.
        unit
            ``days``, or ``visits`` where labels are numbers without a known unit.
        """
        if session in self.dates and all(label in self.dates for label in others):
            return {label: _days(self.dates[label], self.dates[session]) for label in others}, "days"
        if session in self.days and all(label in self.days for label in others):
            return {label: abs(self.days[label] - self.days[session]) for label in others}, "days"
        times, unit = label_times([session, *others])
        return {label: abs(times[label] - times[session]) for label in others if times}, unit


def _days(one: datetime, other: datetime) -> float:
    return abs((one - other).total_seconds()) / 86400


def session_order(labels: Iterable[str]) -> list[str]:
    """Sort session labels that contain numbers by these numbers (``m6`` before ``m12``)."""

    def natural(label: str) -> list[tuple[int, int, str]]:
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d+|\D+", label)]

    return sorted(labels, key=natural)


def timeline(participant_dir: Path, sidecars: Mapping[Path, Mapping[str, Any]] | None = None) -> Timeline:
    """Return the sessions that have a folder, and the dates in ``sessions.tsv`` and ``scans.tsv``.

    A session's date is that of ``sessions.tsv``, failing that the earliest of its ``scans.tsv``. Where these tables
    have no date at all, those of sidecars count; the two are not mixed, since one may be shifted for privacy. A table
    that cannot be read is named among what is unreadable: dates only refine the choice, they are not needed.

    Parameters
    ----------
    participant_dir
        Folder of the participant.
    sidecars
        Metadata by image, if they are known already.
    """
    name = participant_dir.name
    folders: list[str] = []
    with suppress(OSError), os.scandir(participant_dir) as entries:
        folders = sorted(one.name for one in entries if one.name.startswith("ses-") and is_folder(one))
    labels = session_order(folder.removeprefix("ses-") for folder in folders)
    dates: dict[str, datetime] = {}
    files: dict[str, datetime] = {}
    unreadable: list[str] = []
    in_sessions = [participant_dir / folder / f"{name}_{folder}_scans.tsv" for folder in folders]
    times, bad = _times([participant_dir / f"{name}_scans.tsv", *in_sessions], "filename")
    unreadable += bad
    times = _without_removed(times)
    for (table, file), time in times.items():
        files[stem(Path(file))] = time
        session = table.parent.name if table in in_sessions else f"ses-{name_parts(Path(file))[0].get('ses', '')}"
        if session in folders:
            label = session.removeprefix("ses-")
            dates[label] = min(time, dates.get(label, time))
    times, bad = _times([participant_dir / f"{name}_sessions.tsv"], "session_id")
    dates |= {label.removeprefix("ses-"): time for (_, label), time in _without_removed(times).items()}
    source = ""
    if not (dates and files):
        stated, bad_texts = _sidecar_dates(_sidecars_in(participant_dir, folders) if sidecars is None else sidecars)
        unreadable += bad_texts
        by_session = _by_session(stated)
        files = files or {stem(path): time for path, time in stated.items()}
        source = " by the sidecars" if by_session and not dates else ""
        dates = dates or by_session
    dated = set(labels) <= dates.keys()
    days, ages = ({}, {}) if dated else _times_of_sessions(participant_dir / f"{name}_sessions.tsv")
    return Timeline(tuple(labels), dates, files, tuple(dict.fromkeys([*bad, *unreadable])), days, source, ages)


class Times:
    """Times of the images of a participant, whose tables are read only if they matter.

    Parameters
    ----------
    folder
        Of the participant.
    sidecars
        Metadata by image.
    dated
        Whether there is a ``scans.tsv``.

    Attributes
    ----------
    dated
        Whether anything may state when an image was acquired.
    """

    def __init__(self, folder: Path, sidecars: Mapping[Path, Mapping[str, Any]], *, dated: bool) -> None:
        self._folder, self._sidecars = folder, sidecars
        self.dated = dated or any(not one.keys().isdisjoint(_DATE_KEYS) for one in sidecars.values())

    @cached_property
    def order(self) -> Timeline:
        """The sessions, and what is known of their times."""
        return timeline(self._folder, self._sidecars)


def _sidecars_in(participant_dir: Path, folders: Sequence[str]) -> dict[Path, dict[str, Any]]:
    """Return the sidecars of the T1w and PET images of a participant that can be read, by path."""
    found: dict[Path, dict[str, Any]] = {}
    for folder in (participant_dir, *(participant_dir / one for one in folders)):
        for path in (*folder.glob("anat/*_T1w.json"), *folder.glob("pet/*_pet.json")):
            with suppress(TauPipelineError):
                found[path] = read_json(path)
    return found


def _sidecar_dates(sidecars: Mapping[Path, Mapping[str, Any]]) -> tuple[dict[Path, datetime], list[str]]:
    """Return the dates that sidecars state, by image, and the texts that could not be read.

    The first of January of years that stand for a date that was removed is none.
    """
    texts: dict[Path, str] = {}
    for path, metadata in sidecars.items():
        stated = (metadata.get(key) for key in _DATE_KEYS)
        text = next((one.strip() for one in stated if isinstance(one, str) and re.search(r"[1-9]", one)), "")
        if text:
            texts[path] = text
    read = read_dates(list(texts.values()))
    removed = {text for text, day in read.items() if _is_removed(day)}
    found = {path: read[text] for path, text in texts.items() if text in read and text not in removed}
    return found, [text for text in texts.values() if text not in read]


def _is_removed(day: datetime) -> bool:
    return (day.month, day.day) == (1, 1) and day.year in _REMOVED


def _without_removed(times: Mapping[tuple[Path, str], datetime]) -> dict[tuple[Path, str], datetime]:
    """Leave out the dates of tables if several are one time that stands for a date that was removed.

    A single one may be a real date, shifted for privacy.
    """
    removed = [time for time in times.values() if _is_removed(time)]
    return {key: time for key, time in times.items() if removed.count(time) < 2}


def _by_session(dates: Mapping[Path, datetime]) -> dict[str, datetime]:
    """Return the earliest date of each session; none if more than two sessions have one day, which dates them all."""
    found: dict[str, datetime] = {}
    for path, time in dates.items():
        label = name_parts(path)[0].get("ses")
        if label is not None:
            found[label] = min(time, found.get(label, time))
    return {} if len(found) > 2 and len({time.date() for time in found.values()}) == 1 else found


#: Columns of ``sessions.tsv`` with times since a start, in small letters, by their unit; and with ages.
_TIME_COLUMN = re.compile(
    r"(?:(?:study|visit|session|scan|time|delay|interval)_)?(days?|weeks?|months?|years?)"
    r"(?:_(?:since|from|after|to|post)_\w+)?"
)
_AGE_COLUMN = re.compile(r"age(?:_\w+)?")


def _times_of_sessions(table_file: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Return the days of sessions since any one time, or else ages in whole years, by label.

    Both are empty if no column states them for all rows. Ages to a part of a year at least count as days.
    """
    ages: dict[str, float] = {}
    try:
        table = read_tsv(table_file, everything_is_text=True) if table_file.is_file() else None
    except TauPipelineError:
        return {}, ages
    if table is None or "session_id" not in table or table["session_id"].duplicated().any():
        return {}, ages
    labels = [str(label).strip().removeprefix("ses-") for label in table["session_id"]]
    for column in table.columns:
        plain = re.sub(r"\s+", "_", str(column).strip().lower())
        found, is_age = _TIME_COLUMN.fullmatch(plain), _AGE_COLUMN.fullmatch(plain)
        if not (found or is_age):
            continue
        try:
            numbers = [float(str(value).strip().replace(",", ".")) for value in table[column]]
        except ValueError:
            continue
        if not all(map(math.isfinite, numbers)):
            continue
        if found or any(number % 1 for number in numbers):
            unit = DAYS[found[1]] if found else DAYS["years"]
            return {label: unit * number for label, number in zip(labels, numbers, strict=True)}, {}
        ages = ages or dict(zip(labels, numbers, strict=True))
    return {}, ages


def _times(tables: Iterable[Path], column: str) -> tuple[dict[tuple[Path, str], datetime], list[str]]:
    """Return the times in tables by table and value of a column, and what could not be read.

    The tables are of one participant, and their dates of one form: what is certain in one of them is so in the others.
    """
    named: list[tuple[Path, str, str]] = []
    unreadable: list[str] = []
    for table_file in tables:
        rows, why = _dated_rows(table_file, column)
        named += [(table_file, key, text) for key, text in rows]
        unreadable += [why] if why else []
    read = read_dates([text for _, _, text in named])
    times: dict[tuple[Path, str], set[datetime]] = {}
    for table_file, key, text in named:
        times.setdefault((table_file, key), set()).update({read[text]} if text in read else ())
    unreadable += [text for _, _, text in named if text not in read]
    for (_, key), found in times.items():
        unreadable += [f"{' and '.join(map(str, sorted(found)))} of {key}"] if len(found) > 1 else []
    return {key: found.pop() for key, found in times.items() if len(found) == 1}, unreadable


def _dated_rows(table_file: Path, column: str) -> tuple[list[tuple[str, str]], str]:
    """Return a column's values with the dates of their rows, and what is wrong with the table; empty if nothing is."""
    if not (table_file.is_file() or table_file.is_symlink()):
        return [], ""
    try:
        table = read_tsv(table_file, [column, *_DATE_COLUMNS])
    except TauPipelineError:
        return [], table_file.name
    if column not in table:
        return [], f"{table_file.name} has no column {column}"
    dates = next((name for name in _DATE_COLUMNS if name in table), None)
    if dates is None:
        return [], ""
    rows = table[[column, dates]].dropna().astype(str)
    return list(zip(rows[column], rows[dates], strict=True)), ""


def read_dates(texts: Sequence[str]) -> dict[str, datetime]:
    """Return the dates that texts of one column state, as far as their meaning is certain.

    ISO 8601 (BIDS) is always read, and so is what has the year first or the month in words. Other forms are read if
    all other texts fit them, and all forms that fit mean the same days: 13/02/2020 is certain, and makes 03/04/2020
    beside it certain; 03/04/2020 alone is not.

    Examples
    --------
    >>> sorted(read_dates(["2020-01-31T10:00:00", "03/04/2020"]))
    ['2020-01-31T10:00:00']
    >>> read_dates(["13/02/2020", "03/04/2020"])["03/04/2020"].month
    4
    """
    read = {text: time for text in texts if (time := _certain(text)) is not None}
    others = [text for text in texts if text not in read]
    meanings = {tuple(found) for form in _FORMS if others and (found := _in_form(others, form))}
    if len(meanings) == 1:
        read |= zip(others, meanings.pop(), strict=True)
    return read


def _certain(text: str) -> datetime | None:
    """Return the date of a text that has one meaning whatever stands beside it."""
    if (time := _iso(text)) is not None:
        return time
    return next((found[0] for form in _CERTAIN_FORMS if (found := _in_form([text], form))), None)


def _iso(text: str) -> datetime | None:
    # DICOM writes time behind date without a mark between them.
    text = re.sub(r"^(\d{8})\d{4,6}(\.\d*)?([+-]\d{4})?$", r"\1", text.strip())
    try:
        # Some rows have a time zone and some have not; a day more or less does not matter here.
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None


def _in_form(texts: Sequence[str], form: str) -> list[datetime]:
    """Read all texts in one form, whatever time of day follows; empty if one does not fit."""
    days = [re.sub(r"[ T]+\d{1,2}:\d{2}.*$", "", text.strip()) for text in texts]
    try:
        return [datetime.strptime(day, form) for day in days]
    except ValueError:
        return []
