"""A task of a separate process, ``python -m MODULE JOB_FILE``, and the files that record it.

All of them are beside the job file, so that they are seen from every machine that shares the work folder:

- ``<name>.json``, the outcome: written by the module when it has ended in good order, with what it likes to say;
- ``<name>.ended.json``: how the process ended, written by the process that waited for it;
- ``<name>.progress``: how far the module is and in which process, if it says so, a line of JSON an event;
- ``<name>.log``: what its process said otherwise.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import read_json, write_json

StepState = Literal["running", "done", "failed", "unchanged"]

#: Where nothing is known about the end: the process that waited for the task is gone too.
NEVER_TOLD = "the worker process exited before finishing; rerun the same command to continue"
NOT_BEGUN = "not started: an earlier scan failed (--stop-on-first-crash)"


@dataclass(frozen=True)
class Task:
    """Task of a separate process, ``python -m module job_file``.

    Attributes
    ----------
    name
        For messages.
    module, job_file
        What is run, as ``python -m module job_file``; the job file's name must not end in ``.json``.
    memory_mb, processes
        The most memory (MB) and processors it uses; asked from a cluster. On this machine the caller limits how many
        tasks run together.
    threads
        Threads of each of its processes: ITK, OpenMP and the linear algebra libraries use them.
    preload
        Modules that it needs and that take long to load; where tasks share a machine, they are loaded once for many.
    """

    name: str
    module: str
    job_file: Path
    memory_mb: int
    processes: int = 1
    threads: int = 1
    preload: tuple[str, ...] = ()


#: Endings of the files that record a task: its outcome, its end, its progress, and what else it said.
_OUTCOME, _ENDED, _PROGRESS, _LOG = ".json", ".ended.json", ".progress", ".log"


def outcome_path(job_file: str | Path) -> Path:
    """Return the file in which the module of a task records its outcome."""
    return Path(job_file).with_suffix(_OUTCOME)


def ended_path(job_file: str | Path) -> Path:
    """Return the file in which the waiting process records how a task's process ended."""
    return Path(job_file).with_suffix(_ENDED)


def progress_path(job_file: str | Path) -> Path:
    """Return the file in which a task may record its progress."""
    return Path(job_file).with_suffix(_PROGRESS)


def log_path(job_file: str | Path) -> Path:
    """Return the file for standard output and error of a task's process."""
    return Path(job_file).with_suffix(_LOG)


def clear(tasks: Sequence[Task]) -> None:
    """Remove what an earlier run of the tasks has said."""
    there = files_in({task.job_file.parent for task in tasks})
    for task in tasks:
        for name in there.intersection(names_beside(task.job_file)):
            Path(name).unlink(missing_ok=True)


def names_beside(job_file: Path) -> tuple[str, ...]:
    """Return the paths of the files that record a task, as texts: progress, outcome, end, and log.

    For ten thousand tasks, instances of `Path` would take seconds.
    """
    start = f"{job_file.parent}/{job_file.stem}"
    return tuple(f"{start}{ending}" for ending in (_PROGRESS, _OUTCOME, _ENDED, _LOG))


def ends_beside(job_file: Path) -> tuple[str, ...]:
    """Return the paths of those of the files that tell that a task has ended: outcome and end."""
    return names_beside(job_file)[1:3]


def files_in(folders: Iterable[Path]) -> set[str]:
    """Return all files in some folders, by folder and name."""
    found: set[str] = set()
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            found |= {f"{folder}/{entry.name}" for entry in entries}
    return found


def tell_end(job_file: str | Path, exit_code: int) -> None:
    """Write how a task's process ended; negative codes are signals."""
    how = f"exit code {exit_code}"
    if exit_code < 0:
        try:
            how = signal.Signals(-exit_code).name
        except ValueError:
            how = f"signal {-exit_code}"
    write_json({"exit_code": exit_code, "how": how}, ended_path(job_file))


def tell_not_begun(job_file: str | Path) -> None:
    """Write that a task was left out after another had failed."""
    write_json({"exit_code": None, "how": NOT_BEGUN}, ended_path(job_file))


def how_it_ended(job_file: str | Path) -> str:
    """Return a sentence on a task that left no outcome."""
    try:
        how = str(read_json(ended_path(job_file))["how"])
    except (TauPipelineError, KeyError):
        return NEVER_TOLD
    if how == NOT_BEGUN:
        return NOT_BEGUN
    why = "too little memory is the usual reason" if how == "SIGKILL" else f"see its log: {log_path(job_file)}"
    return f"its process ended with {how}; {why}"


class ProgressWriter:
    """Records the progress of a task. Progress must not stop the task: what cannot be written is lost."""

    def __init__(self, job_file: str | Path, n_steps: int) -> None:
        self.path, self.started = progress_path(job_file), time.monotonic()
        self._add({"n_steps": n_steps, "pid": os.getpid()})

    def tell(self, step: str, state: StepState) -> None:
        """Add one event."""
        self._add({"seconds": round(time.monotonic() - self.started, 1), "step": step, "state": state})

    def _add(self, event: dict[str, object]) -> None:
        # Never through a link that someone else has put there.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with suppress(OSError), os.fdopen(os.open(self.path, flags, 0o666), "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


@dataclass(frozen=True)
class Event:
    """A step of a task, its new state, and when that was: seconds after the task began."""

    step: str
    state: StepState
    seconds: float


@dataclass(frozen=True)
class Progress:
    """Progress of a task: its number of steps (0 if unknown), and its events in order."""

    n_steps: int
    events: tuple[Event, ...]

    def steps(self, *states: StepState) -> tuple[str, ...]:
        """Return the steps that are in one of the states now."""
        last = {event.step: event.state for event in self.events}
        return tuple(step for step, state in last.items() if state in states)

    def share(self, *states: StepState) -> float:
        """Return the part of its steps that are in one of the states now, 0 to 1."""
        return min(1.0, len(self.steps(*states)) / max(self.n_steps, 1))

    @property
    def running(self) -> tuple[str, ...]:
        """Steps that have begun and not ended."""
        return self.steps("running")


def read_progress(job_file: str | Path) -> Progress:
    """Read what a task has said so far; a last line that is not complete yet is left for the next time."""
    try:
        text = progress_path(job_file).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return Progress(0, ())
    n_steps, events = 0, []
    for line in text.rpartition("\n")[0].splitlines():
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            if "n_steps" in entry:
                n_steps = int(entry["n_steps"])
            else:
                events.append(Event(str(entry["step"]), entry["state"], float(entry["seconds"])))
    return Progress(n_steps, tuple(events))
