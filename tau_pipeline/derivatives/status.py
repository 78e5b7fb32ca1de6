"""Processing status of every requested scan: one small record per participant, under ``logs/status``.

A record is written before the work begins, as not finished, and again when it has ended; so a run that is killed
leaves behind what it did not finish.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tau_pipeline.derivatives.names import Source
from tau_pipeline.errors import DamagedFileError, MissingInputError, TauPipelineError, shown
from tau_pipeline.files import JsonReader, read_json, write_json
from tau_pipeline.settings.participant import Selection

State = Literal["done", "failed", "skipped", "interrupted"]
NOT_FINISHED = "the run ended before this scan was finished; rerun the same command to continue"
INTERRUPTED = "the run was interrupted before this scan was finished; rerun the same command to continue"

#: Name of the record of folders that are not named as those of participants.
_OF_NOBODY = "dataset.json"


@dataclass(frozen=True)
class ScanStatus:
    """State of one scan.

    Attributes
    ----------
    scan
        Stem of the raw file's name (``sub-01_ses-a_trc-AV1451_pet``), or ``sub-01`` where there is no file; of a
        synthetic scan the stem of its table's name (``sub-01_trc-AV1451_desc-synthSUVR``).
    state, reason
        ``done``, ``failed``, ``skipped`` or ``interrupted``, and why it was not done; empty if it was.
    stem
        What the names of its outputs begin with (``sub-01_ses-a_trc-AV1451``); empty if that is not known.
    session, tracer, manufacturer, model
        As far as the metadata say.
    minutes
        How long its participant's computation took, all scans together; None if nothing was computed.
    source
        Whether it was measured, or is made from a T1w.
    """

    scan: str
    state: State = "failed"
    reason: str = NOT_FINISHED
    stem: str = ""
    session: str | None = None
    tracer: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    minutes: float | None = None
    source: Source = "measured"

    @property
    def participant(self) -> str:
        """Label without ``sub-``; empty if it is no scan of a participant, but a folder that is not named as one."""
        found = re.match(r"sub-([0-9A-Za-z+]+)(?![^/]*/$)", self.scan)
        return found.group(1) if found else ""


def status_path(output_dir: str | os.PathLike[str], participant: str) -> Path:
    """Record of one participant; without a label that of folders that belong to none."""
    return Path(output_dir) / "logs" / "status" / (f"sub-{participant}.json" if participant else _OF_NOBODY)


def read_status(
    output_dir: str | os.PathLike[str], participant: str, read: JsonReader = read_json
) -> dict[str, ScanStatus]:
    """Read the record of one participant, by scan; empty if there is none.

    Raises
    ------
    DamagedFileError
        It is not what `update_status` writes.
    """
    path = status_path(output_dir, participant)
    if not path.is_file():
        return {}
    content = read(path)
    try:
        return {key: _status(key, fields) for key, fields in content["scans"].items()}
    except (KeyError, TypeError, AttributeError, OverflowError) as exc:
        raise DamagedFileError(
            f"{path} is no record of scans ({exc}); remove it and run the participant level again"
        ) from exc


def _status(scan: str, fields: Mapping[str, Any]) -> ScanStatus:
    """Convert a state that was read; TypeError, naming the field and its value, if it is none."""
    status = ScanStatus(scan=scan, **fields)
    for name in ("reason", "stem"):
        if not isinstance(getattr(status, name), str):
            raise TypeError(f"{name} of {scan} is {shown(getattr(status, name))}, no text")
    for name in ("session", "tracer", "manufacturer", "model"):
        if not isinstance(getattr(status, name), str | None):
            raise TypeError(f"{name} of {scan} is {shown(getattr(status, name))}, no text")
    for name, known in (("state", get_args(State)), ("source", get_args(Source))):
        if getattr(status, name) not in known:
            raise TypeError(f"{name} of {scan} is {shown(getattr(status, name))}, none of {', '.join(known)}")
    minutes = status.minutes
    if minutes is not None and (isinstance(minutes, bool) or not math.isfinite(minutes)):
        raise TypeError(f"minutes of {scan} is {shown(minutes)}, no number")
    return status


def update_status(
    output_dir: str | os.PathLike[str], updates: Mapping[str, ScanStatus], removed: Collection[str] = ()
) -> None:
    """Put new states into the records of their participants; other scans of theirs keep what they have.

    Scans that are ``removed`` have no state any more.

    ``minutes`` is that of the longest run: one that finds the results of an earlier run takes no time worth telling.
    """
    by_participant: dict[str, dict[str, ScanStatus]] = {ScanStatus(key).participant: {} for key in removed}
    for key, status in updates.items():
        by_participant.setdefault(status.participant, {})[key] = status
    gone = frozenset(removed)
    there = _recorded(output_dir) if len(by_participant) > 1 else by_participant.keys()
    for participant, own in by_participant.items():
        try:
            known = read_status(output_dir, participant) if participant in there else {}
        except TauPipelineError:
            known = {}
        known = {key: status for key, status in known.items() if key not in gone}
        merged = {**known, **{key: _with_minutes(status, known.get(key)) for key, status in own.items()}}
        fields = {key: asdict(merged[key]) for key in sorted(merged)}
        for one in fields.values():
            one.pop("scan")
        write_json({"scans": fields}, status_path(output_dir, participant))


def note_requested(
    output_dir: str | os.PathLike[str], requested: Mapping[str, ScanStatus], selection: Selection
) -> list[str]:
    """Put the states of all scans of a run into the records before the work begins.

    The state of a whole participant also applies to its scans of earlier runs. Other scans of earlier runs that
    were not done are removed from the records where this run does not find them: their images have other names now.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    requested
        States by scan.
    selection
        What the run looks at.

    Returns
    -------
    removed
        Keys of the scans that were removed.
    """
    removed: list[str] = []
    updates = dict(requested)
    participants = {status.participant for status in requested.values()}
    participants |= set() if selection.participant_label else {""}
    for participant in participants & _recorded(output_dir):
        whole = requested.get(f"sub-{participant}")
        with suppress(TauPipelineError):
            for key, known in read_status(output_dir, participant).items():
                if key in requested or known.source != "measured":
                    continue
                if whole is not None:
                    updates[key] = replace(known, state=whole.state, reason=whole.reason)
                elif known.state != "done" and (selection.takes_all_images or key == f"sub-{participant}"):
                    removed.append(key)
    update_status(output_dir, updates, removed)
    return removed


def _recorded(output_dir: str | os.PathLike[str]) -> frozenset[str]:
    """Return the participants who have a record."""
    with suppress(OSError), os.scandir(status_path(output_dir, "").parent) as entries:
        return frozenset(_label_of(one.name) for one in entries)
    return frozenset()


def note_interrupted(output_dir: str | os.PathLike[str], participants: Iterable[str]) -> None:
    """Set scans that the present run has not finished to interrupted.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    participants
        Labels of the participants of the run.
    """
    for participant in participants:
        known = read_status(output_dir, participant)
        unfinished = {key: one for key, one in known.items() if (one.state, one.reason) == ("failed", NOT_FINISHED)}
        if unfinished:
            changed = {key: replace(one, state="interrupted", reason=INTERRUPTED) for key, one in unfinished.items()}
            update_status(output_dir, changed)


def _with_minutes(status: ScanStatus, before: ScanStatus | None) -> ScanStatus:
    if before is None or before.minutes is None:
        return status
    return replace(status, minutes=max(before.minutes, status.minutes or 0.0))


def all_statuses(output_dir: str | os.PathLike[str], read: JsonReader = read_json) -> dict[str, ScanStatus]:
    """Return the records of all participants, by scan; ``read`` reads each file.

    Raises
    ------
    MissingInputError
        Their folder cannot be read.
    DamagedFileError
        As `read_status`.
    """
    folder = Path(output_dir) / "logs" / "status"
    names: list[str] = []
    try:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            names = [one.name for one in entries if one.name == _OF_NOBODY or re.fullmatch(r"sub-.*\.json", one.name)]
    except OSError as exc:
        # Without their states, scans that failed would count.
        raise MissingInputError(f"cannot read the folder {folder}: {exc.strerror or exc}") from exc
    found: dict[str, ScanStatus] = {}
    for name in sorted(names):
        found |= read_status(output_dir, _label_of(name), read)
    return found


def _label_of(record: str) -> str:
    return "" if record == _OF_NOBODY else record.removeprefix("sub-").removesuffix(".json")
