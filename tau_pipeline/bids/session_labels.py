"""Times that session labels state: dates, days or months of a study, ages, and numbers of visits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from tau_pipeline.bids.tracers import ALIASES

#: Days of the units that session labels are given in: ``d0129``, ``M048``, ``24mo``, ``Y2``, ``age71``.
DAYS = {
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 1 / 24),
    **dict.fromkeys(("d", "day", "days"), 1.0),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks"), 7.0),
    **dict.fromkeys(("m", "mo", "mos", "mon", "mth", "mths", "month", "months"), 365.25 / 12),
    **dict.fromkeys(("y", "yr", "yrs", "year", "years", "age"), 365.25),
}
#: Labels of the first visit where the others count from it.
_FIRST_VISIT = ("bl", "baseline", "base", "sc", "scr", "screening", "init", "initial")
#: Visits that follow the first one, with a number.
_LATER_VISIT = ("fu", "fup", "followup", "follow")
#: Letters behind a time that tell two sessions of one visit apart; the others are units.
_PART_OF_VISIT = ("a", "b", "c", "e", "f")
#: What an image shows, before or behind the time in the label of its session: ``PETd2000``, ``m24MRI``.
_CONTENT = "|".join(
    ("mri", "mr", "pet", "tau", "amyloid", "amy", "fdg", "scan", *sorted(ALIASES, key=len, reverse=True))
)
_CONTENT_AROUND = re.compile(rf"^({_CONTENT})+(?=.)|(?<=.)({_CONTENT})+$")

#: Forms of dates in labels, which have no separators, by what they look like. Where several forms fit all labels that
#: look alike and mean different days, the dates are not certain.
_LABEL_FORMS = (
    (re.compile(r"\d{8}(t?\d{4}(\d\d)?)?"), ("%Y%m%d", "%d%m%Y", "%m%d%Y")),
    (re.compile(r"\d{6}"), ("%Y%m", "%y%m%d", "%d%m%y", "%m%d%y")),
    (re.compile(r"(19|20)\d\d"), ("%Y",)),
    (re.compile(r"\d{1,2}[a-z]{3}(19|20)\d\d"), ("%d%b%Y",)),
    (re.compile(r"(19|20)\d\d[a-z]{3}\d{1,2}"), ("%Y%b%d",)),
    (re.compile(r"[a-z]{3}(19|20)\d\d"), ("%b%Y",)),
)
_YEARS = range(1900, 2100)

_Part = tuple[tuple[str, str], str, float]


def label_times(labels: Sequence[str]) -> tuple[dict[str, float], str]:
    """Return times of session labels that differ in one number, with one prefix or in units of time, and their unit.

    Labels that are dates (``20200131``) or years are taken as such, as far as their meaning is certain. ``bl`` and
    alike are time zero beside labels in a unit of time and beside follow-ups. What images show (``PETd2000``,
    ``m24MRI``) does not count.

    Returns
    -------
    times
        By label; empty if the labels are no times.
    unit
        ``days``; ``visits`` where the prefix is no unit of time.

    Examples
    --------
    >>> label_times(["d0129", "d2010"])
    ({'d0129': 129.0, 'd2010': 2010.0}, 'days')
    >>> label_times(["bl", "m12"])
    ({'bl': 0.0, 'm12': 365.25}, 'days')
    >>> label_times(["CENT001W02", "CENT001W04"])
    ({'CENT001W02': 14.0, 'CENT001W04': 28.0}, 'days')
    >>> label_times(["PETm18", "MRy1d5"])
    ({'PETm18': 547.875, 'MRy1d5': 370.25}, 'days')
    >>> label_times(["baseline", "fu2"])
    ({'baseline': 0.0, 'fu2': 2.0}, 'visits')
    >>> label_times(["pre", "post"])
    ({}, 'visits')
    """
    plain = {label: _CONTENT_AROUND.sub("", label.lower()) for label in labels}
    dates = _dates(plain)
    if dates is not None:
        return {label: day.timestamp() / 86400 for label, day in dates.items()}, "days"
    parts = {label: _parts(text) for label, text in plain.items() if text not in _FIRST_VISIT}
    read = [part for part in parts.values() if part is not None]
    if len(read) < len(parts) or len({part[0] for part in read}) != 1:
        return {}, "visits"
    in_days = all(part[1] in DAYS for part in read)
    from_first = len(parts) == len(plain) or read[0][0] in {(name, "") for name in _LATER_VISIT}
    if not in_days and (len({part[1] for part in read}) != 1 or not from_first):
        return {}, "visits"
    times = {label: DAYS.get(part[1], 1.0) * part[2] for label, part in parts.items() if part is not None}
    return {label: times.get(label, 0.0) for label in plain}, "days" if in_days else "visits"


def _parts(label: str) -> _Part | None:
    """Return what stands around the last number of a label and its unit, the unit, and the number; None without one.

    The unit is the word before the number (``m048``, ``cent001m00``) or behind it (``24mo``, ``fu12m``) that is one.
    Several numbers that all have units (``y1m6``, ``1y6m``) are one time, in days.
    """
    if (days := _days_of_several(label)) is not None:
        return ("", ""), "d", days
    # A label has no point, so that one and a half is 1p5.
    found = re.fullmatch(r"(.*?)([0-9]+(?:p[0-9]+)?)([a-z]*)", label)
    if found is None:
        return None
    before, number, behind = found[1], float(found[2].replace("p", ".")), found[3]
    word = re.split("[^a-z]", before)[-1]
    if word in DAYS:
        return (before.removesuffix(word), "" if behind in _PART_OF_VISIT else behind), word, number
    return (before, "" if behind in DAYS else behind), behind if behind in DAYS else "", number


def _days_of_several(label: str) -> float | None:
    """Return the days of two or more numbers that all have units; None for other labels."""
    if re.fullmatch(r"([a-z]+\d+){2,}", label):
        pairs = re.findall(r"([a-z]+)(\d+)", label)
    elif re.fullmatch(r"(\d+[a-z]+){2,}", label):
        pairs = [(unit, number) for number, unit in re.findall(r"(\d+)([a-z]+)", label)]
    else:
        return None
    return sum(DAYS[unit] * int(number) for unit, number in pairs) if all(one in DAYS for one, _ in pairs) else None


def _dates(plain: Mapping[str, str]) -> dict[str, datetime] | None:
    """Return the dates that labels state, by label, ``{}`` if their meaning is not certain; None if they are none."""
    texts = set(plain.values())
    dates = _read_dates(texts)
    found = re.match(r"[a-z]+", min(texts, default=""))
    if dates is None and found is not None:
        # A letter that is a unit of time may stand before a number of six digits, but hardly before one of eight.
        digits = 8 if found[0] in DAYS else 6
        if all(re.fullmatch(rf"{found[0]}\d{{{digits}}}.*", text) for text in texts):
            short = {text.removeprefix(found[0]): text for text in texts}
            days = _read_dates(set(short))
            dates = None if days is None else {short[text]: day for text, day in days.items()}
    return None if dates is None else {label: dates[text] for label, text in plain.items() if text in dates}


def _read_dates(texts: set[str]) -> dict[str, datetime] | None:
    """Return dates by text; ``{}`` if they mean different days in different forms, None if one is no date."""
    found: dict[str, datetime] = {}
    for looks, forms in _LABEL_FORMS:
        own = sorted(text for text in texts if looks.fullmatch(text))
        meanings = {tuple(days) for form in forms if own and (days := _in_form(own, form))}
        if len(meanings) > 1:
            return {}
        found |= zip(own, meanings.pop(), strict=True) if meanings else ()
    return found if len(found) == len(texts) else None


def _in_form(texts: Iterable[str], form: str) -> list[datetime]:
    """Read all texts in one form, whatever time of day follows eight digits; empty if one does not fit."""
    found = []
    for text in texts:
        day = re.sub(r"^(\d{8})t?\d{4,6}$", r"\1", text)
        with suppress(ValueError):
            found.append(datetime.strptime(day, form))
            if found[-1].year in _YEARS:
                continue
        return []
    return found
