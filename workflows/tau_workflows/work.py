"""One piece of work that runs in a process of its own, ``python -m MODULE JOB_FILE``, and the files that tell of it.

All of them stand beside the job file, so that they are seen from every machine that shares the work folder:

- ``<name>.json``, the outcome: written by the module when it has ended in good order, with what it likes to say;
- ``<name>.ended.json``: how the process ended, written by the process that waited for it;
- ``<name>.progress.json``: how far the module is, if it says so.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import read_json, write_json

#: Where nothing is known about the end: the process that waited for the work is gone too.
NEVER_TOLD = "the worker ended before this was done; run the same command again"


@dataclass(frozen=True)
class Work:
    """Something that a process of its own does.

    Attributes
    ----------
    name
        For messages.
    module, job_file
        What is run, as ``python -m module job_file``; the job file's name must not end in ``.json``.
    memory_mb, processes
        The most memory (MB) and processors it uses; asked from a cluster. On this machine the caller limits how many
        works run together.
    threads
        Threads of each of its processes: ITK, OpenMP and the linear algebra libraries are told.
    """

    name: str
    module: str
    job_file: Path
    memory_mb: int
    processes: int = 1
    threads: int = 1


def outcome_path(job_file: str | Path) -> Path:
    """Where the module of a work says how it ended."""
    return Path(job_file).with_suffix(".json")


def ended_path(job_file: str | Path) -> Path:
    """Where the process that waits for a work writes how its process ended."""
    return Path(job_file).with_suffix(".ended.json")


def progress_path(job_file: str | Path) -> Path:
    """Where a work may say how far it is."""
    return Path(job_file).with_suffix(".progress.json")


def clear(works: Sequence[Work]) -> None:
    """Remove what an earlier run of the works has said."""
    for work in works:
        for path in (outcome_path(work.job_file), ended_path(work.job_file), progress_path(work.job_file)):
            path.unlink(missing_ok=True)


def tell_end(job_file: str | Path, exit_code: int) -> None:
    """Write how a work's process ended; negative codes are signals."""
    how = f"exit code {exit_code}"
    if exit_code < 0:
        try:
            how = signal.Signals(-exit_code).name
        except ValueError:
            how = f"signal {-exit_code}"
    write_json({"exit_code": exit_code, "how": how}, ended_path(job_file))


def how_it_ended(job_file: str | Path) -> str:
    """One sentence on a work that left no outcome."""
    try:
        how = read_json(ended_path(job_file))["how"]
    except (TauPipelineError, KeyError):
        return NEVER_TOLD
    return f"its process ended with {how}; too little memory is the usual reason"
