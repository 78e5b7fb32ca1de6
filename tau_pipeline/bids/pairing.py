"""Pairing of each PET with a T1w, and sentences on the choice when the dataset leaves one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from tau_pipeline.bids.sessions import Timeline, session_order
from tau_pipeline.files import name_parts

#: Entities that make a T1w a lesser choice, the worst first: contrast agent, parts and echoes of an image, derived
#: reconstructions, special acquisitions.
_LESSER = ("ce", "part", "echo", "inv", "space", "desc", "rec", "acq")

#: A brain needs about this along each axis, mm; adult brains measure about 170 x 140 x 130 mm.
_BRAIN_MM = 110.0
#: Slices so much thicker than those of the finest image are a lesser choice.
_THICKER = 1.5

#: Images in thick planes, by the ``acq`` label.
_IN_PLANES = re.compile(r"axial|^ax|coronal|^cor|2d|tse|fse|lowres|thick", re.IGNORECASE)
#: Where dates or times are incomplete, a session within these days is taken before those whose date is not known.
_NEAR_DAYS = 365.0

#: Images of other parts of the body, or made to plan others, by the ``acq`` label or the sidecar's BodyPart.
_NO_HEAD = re.compile(
    r"^(?!.*(head|brain|skull))"
    r".*(spine|neck|cervi|lumbar|thora|chest|abdom|pelvi|heart|knee|leg$|foot|hand$|shoulder|loc(ali[sz]er)?$|scout|^survey"
    r"|^body|whole_?body|orbit|pituitar|sella|carotid|vessel_?wall|liver|prostate)",
    re.IGNORECASE,
)
#: Whole heads in fine voxels, by the ``acq`` label: of images that are alike otherwise, these are taken.
_WHOLE_HEAD = re.compile(r"mp2?rage|mpr|spgr|bravo|tfe|3d", re.IGNORECASE)


#: Contrast agent, images that are no T1w, and those that people found bad, by the ``acq`` label or the series.
_WITH_CONTRAST = re.compile(
    r"(?<![a-z])(?:post[ _-]?|with[ _-]?)?(?:gd|gad|gado[a-z]*|contrast|km|ce)(?![a-z])|\+[ ]?c(?![a-z])|(?<![a-z])c\+"
    r"|(?<![a-z])post(?![a-z])",
    re.IGNORECASE,
)
_WITHOUT_CONTRAST = re.compile(
    r"(?<![a-z])(?:no|non|without|pre|w/o)[ _-]*(?:gd|gad[a-z]*|contrast|km|ce)?(?![a-z])", re.IGNORECASE
)
_OTHER_KIND = re.compile(
    r"(?<![a-z0-9])(?:flair|t2[a-z]{0,3}|swi|dwi|dti|diff(?:usion)?|bold|rest|fmri|asl|tof|mra|pd|dir)(?![a-z0-9])",
    re.IGNORECASE,
)
_DEFACED = re.compile(r"(?<![a-z])(?:defaced?|anon[a-z]*|mask(?:ed)?)(?![a-z])", re.IGNORECASE)
_BAD = re.compile(
    r"(?<![a-z])(?:bad|moved|fail(?:ed)?|reject(?:ed)?|discard(?:ed)?|abort(?:ed)?|incomplete|art[ei]fact|motion(?!.?cor))(?![a-z])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Looks:
    """Header and sidecar of a T1w, as far as they tell its use.

    Parameters
    ----------
    extent_mm
        Lengths of the imaged box along its axes, sorted.
    voxel_mm
        Lengths of a voxel's edges, sorted.
    body_part
        ``BodyPart`` or ``BodyPartExamined`` of the sidecar.
    series
        ``SeriesDescription`` or ``ProtocolName`` of the sidecar.
    contrast
        Contrast agent that the sidecar states.
    """

    extent_mm: tuple[float, ...]
    voxel_mm: tuple[float, ...]
    body_part: str = ""
    series: str = ""
    contrast: str = ""


def choose_t1w(
    files: Sequence[Path], look: Callable[[Path], Looks | None] = lambda _: None
) -> tuple[Path, tuple[str, ...]]:
    """Choose the T1w to use among those of one session, with a sentence if there was a choice.

    Taken is an image of a head (not of the neck, no FLAIR by its series, large enough for a brain), with voxels that
    are not much longer than those of the others, not acquired in thick planes by its name, not called bad, without
    contrast agent, not defaced, without part, echo, inversion, ``rec-`` or ``acq-`` entity, in this order of weight,
    then one whose ``acq-`` is a sequence for whole heads (MPRAGE), then the one of the lowest run; the name decides
    what is still open.

    Parameters
    ----------
    files
        At least one.
    look
        Returns what is known of an image; None if it cannot be read. Called only if there is a choice.
    """
    if len(files) == 1:
        return files[0], ()
    looks = {path: look(path) for path in files}
    finest = min((one.voxel_mm[-1] for one in looks.values() if one is not None and _why_no_head(one) == ""), default=0)

    def faults(path: Path) -> list[str]:
        """Name what makes an image a lesser choice, in an order of weight; empty texts are no faults."""
        found = looks[path]
        acquisition = name_parts(path)[0].get("acq", "")
        elsewhere = f"acq-{acquisition}" if _NO_HEAD.search(acquisition) else ""
        flat = f"acq-{acquisition}" if _IN_PLANES.search(acquisition) else ""
        if found is None:
            return [elsewhere, "", "", flat, "", "", "", ""]
        thick = found.voxel_mm[-1] > _THICKER * finest > 0
        edges = " x ".join(f"{edge:.3g}" for edge in found.voxel_mm)
        voxels = f"voxels of {edges} mm" if thick else ""
        other = _named(_OTHER_KIND, acquisition, found.series)
        bad = _named(_BAD, acquisition, found.series)
        return [
            elsewhere or _other_part(found),
            other,
            _too_small(found),
            voxels,
            flat,
            bad,
            _contrast(found, acquisition),
            _named(_DEFACED, name_parts(path)[0].get("rec", ""), found.series, "rec"),
        ]

    def rank(path: Path) -> tuple[object, ...]:
        entities, _ = name_parts(path)
        run = entities.get("run", "0")
        lesser = (name in entities for name in _LESSER)
        other_kind = not _WHOLE_HEAD.search(entities.get("acq", "mprage"))
        return (*map(bool, faults(path)), *lesser, other_kind, int(run) if run.isdecimal() else 0, path.name)

    best, *others = sorted(files, key=rank)
    named = [f"{path.name} ({'; '.join(filter(None, faults(path))) or _by_name(path, best)})" for path in others]
    return best, (f"Of {len(files)} T1w images {best.name} was taken, and not {', '.join(named)}.",)


def _by_name(path: Path, best: Path) -> str:
    """Return what in the name of an image made it a lesser choice than the best one."""
    own, of_best = name_parts(path)[0], name_parts(best)[0]
    lesser = [f"{name}-{own[name]}" for name in _LESSER if name in own and name not in of_best]
    if "acq" in own and _WHOLE_HEAD.search(of_best.get("acq", "")) and not _WHOLE_HEAD.search(own["acq"]):
        lesser.append(f"acq-{own['acq']}")
    later = [f"run-{own['run']}"] if own.get("run") != of_best.get("run") and "run" in own else []
    return next(iter(lesser + later), "alike; the first name was taken")


def _why_no_head(looks: Looks) -> str:
    return _other_part(looks) or _too_small(looks)


def _other_part(looks: Looks) -> str:
    if _NO_HEAD.search(looks.body_part):
        return f"body part {looks.body_part}"
    return f"series {looks.series}" if _NO_HEAD.search(looks.series) else ""


def _named(pattern: re.Pattern[str], label: str, series: str, entity: str = "acq") -> str:
    """Return where a pattern is found, in words; empty if nowhere."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    if pattern.search(words):
        return f"{entity}-{label}"
    return f"series {series}" if pattern.search(series) else ""


def _contrast(looks: Looks, acquisition: str) -> str:
    if looks.contrast:
        return f"contrast agent {looks.contrast}"
    series = "" if _WITHOUT_CONTRAST.search(looks.series) else looks.series
    return _named(_WITH_CONTRAST, "" if _WITHOUT_CONTRAST.search(acquisition) else acquisition, series)


def _too_small(looks: Looks) -> str:
    box = " x ".join(f"{edge:.0f}" for edge in looks.extent_mm)
    return f"too small for a brain: {box} mm" if looks.extent_mm[0] < _BRAIN_MM else ""


def looks_of(extent_mm: Iterable[float], voxel_mm: Iterable[float], metadata: Mapping[str, Any]) -> Looks:
    """Return what header and sidecar of a T1w tell of its use."""

    def stated(*keys: str) -> str:
        return next((value for key in keys if isinstance(value := metadata.get(key), str)), "")

    contrast = stated("ContrastBolusIngredient", "ContrastBolusAgent").strip()
    return Looks(
        tuple(sorted(extent_mm)),
        tuple(sorted(voxel_mm)),
        stated("BodyPart", "BodyPartExamined"),
        stated("SeriesDescription", "ProtocolName"),
        "" if contrast.lower() in ("", "n/a", "none", "no") else contrast,
    )


class Nearest(NamedTuple):
    """The session whose T1w a PET uses (None: outside any), a sentence if it is another one, and the days between."""

    session: str | None
    sentences: tuple[str, ...] = ()
    days: float | None = None


def nearest_session(session: str | None, available: Iterable[str | None], timeline: Timeline) -> Nearest:
    """Return the session whose T1w a PET of ``session`` uses.

    The own session; else an image outside any session; else the session nearest in time by the dates of the tables, or
    by labels that are times (``d0129``, ``M048``); else nearest in the order of the sessions. At equal distance the
    earlier one.

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
        return Nearest(session)
    if None in available:
        return Nearest(None, (f"Session {session} has no T1w; the T1w without a session was used.",))
    labels = session_order(label for label in available if label is not None)
    if session is None:
        return Nearest(labels[0], (f"The PET belongs to no session; the T1w of session {labels[0]} was used.",))
    apart, unit = timeline.distances(session, labels)
    undated = ""
    if not apart and (near := _near_in_time(session, labels, timeline)):
        labels = near
        apart, unit = timeline.distances(session, labels)
        what = "date" if session in timeline.dates else "time"
        undated = f"; not all sessions with a T1w have a {what}"
    ages = timeline.ages if timeline.ages.keys() >= {session, *labels} else dict.fromkeys([session, *labels], 0.0)
    if len({ages[label] for label in labels}) > 1 and unit != "days":
        apart = {}  # Visits need not be at equal distance.
    if apart:
        # `labels` are in order: of two at equal distance the first is the earlier one, by date where there are dates.
        chosen = min(labels, key=lambda label: (apart[label], timeline.dates.get(label, datetime.min)))
        source = _source(session, timeline, labels) if unit == "days" else " by the sessions' labels"
        count = f"{apart[chosen]:.0f} {unit if round(apart[chosen]) != 1 else unit.removesuffix('s')}"
        how = f"the nearest in time ({count} apart{source}{undated})"
        days = apart[chosen] if unit == "days" else None
    else:
        order = session_order({*timeline.labels, *labels, session})

        def far(label: str) -> tuple[float, int]:
            return abs(ages[label] - ages[session]), abs(order.index(label) - order.index(session))

        chosen = min(labels, key=far)
        by_age = "by age in whole years, then " if len({ages[label] for label in labels}) > 1 else ""
        how, days = f"the nearest {by_age}in the order of the sessions ({_why_no_times(timeline, session)})", None
    return Nearest(chosen, (f"Session {session} has no T1w; that of session {chosen} was used, {how}.",), days)


def _source(session: str, timeline: Timeline, labels: Sequence[str]) -> str:
    """Say what distances in days were taken from; empty for dates of tables."""
    for times, text in ((timeline.dates, timeline.source), (timeline.days, " by sessions.tsv")):
        if times.keys() >= {session, *labels}:
            return text
    return " by the sessions' labels"


def _near_in_time(session: str, labels: Sequence[str], timeline: Timeline) -> list[str]:
    """Return the sessions within `_NEAR_DAYS` of one, by dates or, where it has none, by labels that are times."""
    if session in timeline.dates:
        known = [label for label in labels if label in timeline.dates]
    else:
        alone = {label: timeline.distances(session, [label]) for label in labels}
        known = [label for label, (apart, unit) in alone.items() if apart and unit == "days"]
    apart = timeline.distances(session, known)[0] if known else {}
    return [label for label in known if apart.get(label, math.inf) <= _NEAR_DAYS]


def _why_no_times(timeline: Timeline, session: str) -> str:
    if timeline.unreadable:
        first = timeline.unreadable[0]
        if ".tsv has no column" in first:
            return f"{first}; its columns must be separated by tabs"
        if first.endswith(".tsv"):
            return f"{first} cannot be read; if it is a broken link, fetch its content (datalad get, git annex get)"
        return f"its dates cannot be read, such as {first!r}; expected: 2020-01-31T10:30:00"
    if timeline.dates:
        which = f"session {session}" if session not in timeline.dates else "all sessions"
        return f"the dataset does not state the date of {which}"
    return "the dataset states no dates"
