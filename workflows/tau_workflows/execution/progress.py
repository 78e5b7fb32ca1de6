"""Progress of a run: one live display on a terminal, plain lines elsewhere.

It reads the files in which tasks record their steps, so it includes those on other machines.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from typing import TextIO

from tqdm import tqdm

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import read_json
from tau_pipeline.words import counted
from tau_workflows.execution.task import (
    Event,
    Progress,
    Task,
    ended_path,
    files_in,
    names_beside,
    outcome_path,
    read_progress,
)

#: Seconds between two looks at the files.
LOOK_S = 0.5

#: Number of running tasks that are shown on a terminal, one line each.
_MOST_LINES = 8


def duration(seconds: float) -> str:
    """Format a duration: ``40 s``, ``12 min``, ``3 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def time_left(elapsed_s: float, shares: Sequence[float], unchanged: Sequence[float]) -> float | None:
    """Estimate the seconds that a run still takes at the present rate; None before anything was computed.

    Parameters
    ----------
    elapsed_s
        Seconds since it began.
    shares
        For each task, how much of it is done, 0 to 1.
    unchanged
        For each task, the share that was there already and took no time; it must not make the rest look quick.
    """
    computed = sum(shares) - sum(unchanged)
    if computed <= 0:
        return None
    return elapsed_s * (len(shares) - sum(shares)) / computed


#: Progress of a task that has not begun.
_NOTHING = Progress(0, ())


class Overview:
    """Counts of the tasks of a run, and their progress, read from their files.

    Attributes
    ----------
    done, failed
        How many tasks have ended well, and not.
    running
        Tasks that have begun and not ended, by name, with their progress.
    left_s
        Seconds that the run still takes, if known.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks, self.started = tuple(tasks), time.monotonic()
        self.done = self.failed = 0
        self.left_s: float | None = None
        self.running: dict[str, Progress] = {}
        self._ended: dict[str, bool] = {}
        # Of the tasks that run, and the shares of those that have ended which were there already.
        self._last: dict[str, Progress] = {}
        self._unchanged = 0.0
        # The progress, which is there from the beginning of a task on, and what tells its end.
        self._files = {task.name: names_beside(task.job_file)[:3] for task in tasks}

    @property
    def ended(self) -> int:
        """Tasks that have ended, well or not."""
        return self.done + self.failed

    def look(self) -> list[tuple[str, Event]]:
        """Read the files of the tasks that have not ended; returns the events since the last look, by name.

        Folders are listed once for all tasks: asking for the files of thousands that wait would take a processor.
        """
        news: list[tuple[str, Event]] = []
        written = files_in({task.job_file.parent for task in self.tasks})
        for task in self.tasks:
            if task.name in self._ended or written.isdisjoint(self._files[task.name]):
                continue
            well = ended_well(task)
            before, now = self._last.get(task.name, _NOTHING), read_progress(task.job_file)
            news += [(task.name, event) for event in now.events[len(before.events) :]]
            self._last[task.name] = now
            if well is not None:
                self._ended[task.name] = well
                self._unchanged += min(1.0, self._last.pop(task.name).share("unchanged"))
        self._count(written)
        return news

    def _count(self, written: Set[str]) -> None:
        self.done = sum(self._ended.values())
        self.failed = len(self._ended) - self.done
        self.running = {name: own for name, own in self._last.items() if self._files[name][0] in written}
        # Only those that run are looked at, or the display of thousands of tasks would take a processor.
        shares = [own.share("done", "failed", "unchanged") for own in self._last.values()]
        unchanged = [min(share, own.share("unchanged")) for share, own in zip(shares, self._last.values(), strict=True)]
        waiting = len(self.tasks) - self.ended - len(shares)
        self.left_s = time_left(
            time.monotonic() - self.started,
            [*shares, *[1.0] * self.ended, *[0.0] * waiting],
            [*unchanged, self._unchanged],
        )

    def sentence(self) -> str:
        """Return counts and time left, in words."""
        waiting = len(self.tasks) - self.ended - len(self.running)
        left = "" if self.left_s is None else f", about {duration(self.left_s)} left"
        return f"{self.done} done, {len(self.running)} running, {waiting} waiting, {self.failed} failed{left}"


def ended_well(task: Task) -> bool | None:
    """Return whether a task has ended without a failure; None while it has not ended."""
    try:
        if outcome_path(task.job_file).is_file():
            return not read_json(outcome_path(task.job_file)).get("failures")
    except TauPipelineError:
        return False
    return False if ended_path(task.job_file).is_file() else None


class Lines:
    """A line for each step that begins or fails, and one for each task that ends."""

    def __init__(self, stream: TextIO, what: str) -> None:
        self.stream, self.what, self.ended = stream, what, 0

    def show(self, now: Overview, news: Sequence[tuple[str, Event]]) -> None:
        """Show where the tasks stand, and what has happened since the last time."""
        for name, event in news:
            if event.state in ("running", "failed"):
                ending = "FAILED" if event.state == "failed" else "..."
                self.stream.write(f"{name} [{event.seconds:5.0f} s] {event.step} {ending}\n")
        if now.ended > self.ended:
            self.ended = now.ended
            self.stream.write(f"tau-pipeline: {counted(len(now.tasks), self.what)}: {now.sentence()}\n")
        self.stream.flush()

    def close(self) -> None:
        """Leave the screen as it is."""
        self.stream.flush()


class Bars:
    """On a terminal: a bar for all tasks, and under it a line for each that runs."""

    def __init__(self, stream: TextIO, what: str, n_tasks: int) -> None:
        self.bar = tqdm(
            total=n_tasks, desc=f"{what}s", file=stream, bar_format="{desc}: {n}/{total} |{bar:20}| {elapsed} {postfix}"
        )
        self.lines = [
            tqdm(total=0, file=stream, position=place + 1, bar_format="{desc}", leave=False)
            for place in range(min(_MOST_LINES, n_tasks))
        ]

    def show(self, now: Overview, news: Sequence[tuple[str, Event]]) -> None:
        """Show where the tasks stand, and what has happened since the last time."""
        for name, event in news:
            if event.state == "failed":
                self.bar.write(f"{name} [{event.seconds:5.0f} s] {event.step} FAILED", file=self.bar.fp)
        self.bar.n = now.ended
        self.bar.set_postfix_str(now.sentence())
        running = list(now.running.items())
        for place, line in enumerate(self.lines):
            line.set_description_str(_in_one_line(*running[place]) if place < len(running) else "")

    def close(self) -> None:
        """Leave the screen as it is."""
        for line in reversed(self.lines):
            line.close()
        self.bar.close()


def _in_one_line(name: str, progress: Progress) -> str:
    ended = len(progress.steps("done", "failed", "unchanged"))
    return f"  {name}: {ended} of {progress.n_steps} steps, {', '.join(progress.running) or 'starting'}"


@contextmanager
def shown(tasks: Sequence[Task], what: str, stream: TextIO | None = None) -> Iterator[None]:
    """Show how far the tasks are while the block, which runs them, goes on.

    What an earlier run of them has said must have been cleared before.
    """
    stream = stream or sys.stderr
    display = Bars(stream, what, len(tasks)) if stream.isatty() else Lines(stream, what)
    now = Overview(tasks)

    def look() -> None:
        # A display that fails must not take the run with it.
        with suppress(OSError, ValueError):
            display.show(now, now.look())

    try:
        with repeated(look, LOOK_S):
            yield
    finally:
        with suppress(OSError, ValueError):
            display.close()


@contextmanager
def repeated(look: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call a function again and again in a thread while the block goes on, and once more when it has ended.

    After an exception in the block it is not called once more, since there is nothing left to show.
    """
    done = threading.Event()

    def follow() -> None:
        while not done.wait(every_s):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        done.set()
        thread.join()
        raise
    done.set()
    thread.join()
    look()
