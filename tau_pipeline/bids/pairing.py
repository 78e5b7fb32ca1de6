"""Pairing of each PET with a T1w, and sentences on the choice when the dataset leaves one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import name_parts, read_tsv

#: Entities that make a T1w a lesser choice, the worst first: contrast agent, parts and echoes of an image, derived
#: reconstructions, special acquisitions.
_LESSER = ("ce", "part", "echo", "inv", "rec", "acq")


def choose_t1w(files: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
    """Choose the T1w to use among those of one session, with a sentence if there was a choice.

    Taken is the one without contrast agent (``ce-``), part, echo, inversion, ``rec-`` or ``acq-`` entity, in this order
    of weight, then the one of the lowest run; the name decides what is still open.
    """

    def rank(path: Path) -> tuple[object, ...]:
        entities, _ = name_parts(path)
        run = entities.get("run", "0")
        return (*(name in entities for name in _LESSER), int(run) if run.isdecimal() else 0, path.name)

    best, *others = sorted(files, key=rank)
    if not others:
        return best, ()
    names = ", ".join(path.name for path in others)
    return best, (f"Of {len(files)} T1w images {best.name} was taken, and not {names}.",)


def session_order(labels: Iterable[str]) -> list[str]:
    """Sort session labels that contain numbers by these numbers (``m6`` before ``m12``)."""

    def natural(label: str) -> list[tuple[int, int, str]]:
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d+|\D+", label)]

    return sorted(labels, key=natural)


@dataclass(frozen=True)
class Timeline:
    """The labels of a participant's sessions, and the dates of those whose date is known."""

    labels: tuple[str, ...] = ()
    dates: Mapping[str, datetime] = field(default_factory=dict)


def timeline(participant_dir: Path) -> Timeline:
    """Return the sessions that have a folder, with their dates."""
    labels = (path.name.removeprefix("ses-") for path in participant_dir.glob("ses-*") if path.is_dir())
    return Timeline(tuple(session_order(labels)), session_dates(participant_dir))


def session_dates(participant_dir: Path) -> dict[str, datetime]:
    """Return the date of each session from ``sessions.tsv`` or, failing that, ``scans.tsv``.

    A table that cannot be read counts as absent: dates only refine the choice, they are not needed.
    """
    name = participant_dir.name
    dates: dict[str, datetime] = {}
    for scans in sorted(participant_dir.glob(f"ses-*/{name}_ses-*_scans.tsv")):
        times = [time for _, time in _times(scans, "filename")]
        if times:
            dates[scans.parent.name.removeprefix("ses-")] = min(times)
    sessions = participant_dir / f"{name}_sessions.tsv"
    dates |= {label.removeprefix("ses-"): time for label, time in _times(sessions, "session_id")}
    return dates


def _times(table_file: Path, column: str) -> list[tuple[str, datetime]]:
    if not table_file.is_file():
        return []
    try:
        table = read_tsv(table_file)
    except TauPipelineError:
        return []
    if column not in table or "acq_time" not in table:
        return []
    pairs = zip(table[column], table["acq_time"], strict=True)
    return [(str(label), time) for label, text in pairs if (time := _time(text)) is not None]


def _time(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        # Some rows have a time zone and some have not; a day more or less does not matter here.
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None


def nearest_session(
    session: str | None, available: Iterable[str | None], timeline: Timeline
) -> tuple[str | None, tuple[str, ...]]:
    """Return the session whose T1w a PET of ``session`` uses, and a sentence if it is another one.

    The own session; else an image outside any session; else the session nearest in time; else, where dates are
    missing, nearest in the order of the sessions. At equal distance the earlier one.

    Parameters
    ----------
    session
        The PET's session; None for a PET outside any session.
    available
        Sessions that have a T1w, at least one; None stands for a T1w outside any session.
    timeline
        The participant's sessions.
    """
    available = set(available)
    if session in available:
        return session, ()
    if None in available:
        return None, (f"Session {session} has no T1w; the T1w without a session was used.",)
    labels = session_order(label for label in available if label is not None)
    if session is None:
        return labels[0], (f"The PET belongs to no session; the T1w of session {labels[0]} was used.",)
    dates = timeline.dates
    if session in dates and all(label in dates for label in labels):
        apart = {label: abs((dates[label] - dates[session]).total_seconds()) for label in labels}
        chosen = min(labels, key=lambda label: (apart[label], dates[label]))
        how = f"the nearest in time ({apart[chosen] / 86400:.0f} days apart)"
    else:
        order = session_order({*timeline.labels, *labels, session})
        chosen = min(labels, key=lambda label: abs(order.index(label) - order.index(session)))
        how = "the nearest in the order of the sessions (the dataset states no dates)"
    return chosen, (f"Session {session} has no T1w; that of session {chosen} was used, {how}.",)
