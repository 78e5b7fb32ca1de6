"""The heartbeat of the program: a file that processes on this machine and others read to know whether it still runs.

It lies in a folder of the run, beside the job files: several runs may work on different participants in one work
folder.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tau_pipeline.errors import OutputError, TauPipelineError
from tau_pipeline.files import read_json, write_json

_RUN_DIR, _ALIVE_FILE, _TASKS_FILE = "run-", "alive.json", "tasks.json"

#: Seconds between two heartbeats, and without one after which a task on another machine ends.
BEAT_S, _SILENCE_S = 5.0, 300.0

#: Seconds for which the file may be missing or show another run, since shared folders can be slow.
GRACE_S = 10.0


@dataclass(frozen=True)
class Program:
    """The program, as known to the processes that start tasks.

    Attributes
    ----------
    alive_file, run
        File of its heartbeat, and the name of its run.
    pid
        Its process. A pool whose parent it is does not outlive it.
    stop_on_first_crash
        Whether no task starts after one has failed.
    loud
        Whether tasks write to the terminal instead of their logs.
    """

    alive_file: Path
    run: str
    pid: int
    stop_on_first_crash: bool = False
    loud: bool = False

    @property
    def stop_file(self) -> Path:
        """Return the file that exists when a task has failed and no other may start."""
        return self.alive_file.with_name("stop")


class Heartbeat:
    """Writes the heartbeat, in the program; ``run`` is the name of its run."""

    def __init__(self, inbox: Path) -> None:
        self.run = uuid.uuid4().hex
        self.file = inbox / f"{_RUN_DIR}{self.run}" / _ALIVE_FILE
        self._done, self._count = threading.Event(), 0
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def announce_end(self) -> None:
        """Announce the end of the run, so that the processes that started tasks terminate them and start no others."""
        self._stop()
        with suppress(OutputError):
            self._write(ends=True)

    def _stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _write(self, ends: bool = False) -> None:
        self._count += 1
        who = {"host": socket.gethostname(), "pid": os.getpid()}
        write_json({"run": self.run, "beat": self._count, "ends": ends, **who}, self.file)

    def _beat(self) -> None:
        while not self._done.wait(BEAT_S):
            with suppress(OutputError):
                self._write()

    @contextmanager
    def beating(self, tasks: Sequence[str]) -> Iterator[None]:
        """Write the names of the tasks and heartbeats until the block ends, then remove the folder of the run."""
        write_json({"tasks": list(tasks)}, self.file.with_name(_TASKS_FILE))
        self._write()
        self._thread.start()
        try:
            yield
        finally:
            self._stop()
            shutil.rmtree(self.file.parent, ignore_errors=True)


def run_dirs(inbox: Path) -> list[Path]:
    """Return the folders of runs that go on or were killed, which lie beside their job files."""
    return sorted(inbox.glob(f"{_RUN_DIR}*"))


def tasks_of(run_dir: Path) -> tuple[str, ...]:
    """Return the names of a run's tasks; none where the folder says nothing."""
    with suppress(TauPipelineError, KeyError, TypeError):
        return tuple(map(str, read_json(run_dir / _TASKS_FILE)["tasks"]))
    return ()


class HeartbeatMonitor:
    """Reads the heartbeat, in the processes that start tasks."""

    def __init__(self, file: Path, run: str) -> None:
        self.file, self.run = file, run
        self.last, self.heard = b"", time.monotonic()

    def ends(self) -> bool:
        """Return whether the program has announced its end."""
        try:
            content = json.loads(self.file.read_bytes())
        except (OSError, ValueError):
            return False
        return bool(content.get("run") == self.run and content.get("ends"))

    def lost(self) -> bool:
        """Return whether the program ends, has been followed by another run, or has been silent for too long."""
        if self.ends():
            return True
        try:
            content = self.file.read_bytes()
        except OSError:
            content = b""
        silent_s = time.monotonic() - self.heard
        if self.run.encode() not in content:
            return silent_s > GRACE_S
        if content != self.last:
            self.last, self.heard = content, time.monotonic()
            return False
        return silent_s > _SILENCE_S
