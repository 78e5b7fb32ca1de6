"""The display of a run: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import os
import pty
import select
import time
from pathlib import Path

import pytest

from tau_workflows.execution import progress
from tau_workflows.execution.progress import Overview, duration, shown, time_left
from tau_workflows.execution.task import ProgressWriter, Task, outcome_path, progress_path, read_progress, tell_end


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    """One that is done, one whose process was killed, one that runs, one that waits."""
    tasks = [Task(f"sub-0{k}", "m", tmp_path / f"sub-0{k}.pkl", 1) for k in range(1, 5)]
    for task in tasks[:3]:
        writer = ProgressWriter(task.job_file, 4)
        writer.tell("brain", "running")
        writer.tell("brain", "done")
        writer.tell("template", "running")
    outcome_path(tasks[0].job_file).write_text('{"failures": {}}')
    tell_end(tasks[0].job_file, 0)
    tell_end(tasks[1].job_file, -9)
    return tasks


def test_the_state_is_what_the_files_say(tasks: list[Task]) -> None:
    now = Overview(tasks)
    news = now.look()
    assert (len(now.tasks), now.done, now.failed) == (4, 1, 1)
    assert {name: seen.running for name, seen in now.running.items()} == {"sub-03": ("template",)}
    assert now.sentence().startswith("1 done, 1 running, 1 waiting, 1 failed, about ")
    assert len(news) == 9


def test_news_are_told_once(tasks: list[Task]) -> None:
    watch = Overview(tasks)
    watch.look()
    assert watch.look() == []
    with progress_path(tasks[2].job_file).open("a") as file:
        file.write('{"seconds": 3, "step": "template", "sta')
    assert watch.look() == []
    with progress_path(tasks[2].job_file).open("a") as file:
        file.write('te": "failed"}\n')
    assert [(name, event.step, event.state) for name, event in watch.look()] == [("sub-03", "template", "failed")]


def test_plain_lines_where_there_is_no_terminal(tasks: list[Task]) -> None:
    stream = io.StringIO()
    with shown(tasks, "participant", stream):
        pass
    lines = stream.getvalue().splitlines()
    assert lines.count("sub-03 [    0 s] template ...") == 1
    assert lines[-1].startswith("tau-pipeline: 4 participants: 1 done, 1 running, 1 waiting, 1 failed")
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def read_terminal(master: int, until: str) -> str:
    """Read what a terminal shows: it arrives in pieces, a while after it was written."""
    said, end = b"", time.monotonic() + 60
    while until not in said.decode(errors="replace") and time.monotonic() < end:
        if select.select([master], [], [], 0.1)[0]:
            said += os.read(master, 65536)
    while select.select([master], [], [], 0.2)[0]:
        said += os.read(master, 65536)
    return said.decode()


def test_a_live_display_on_a_terminal(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOOK_S", 0.05)
    monkeypatch.setenv("COLUMNS", "160")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        with shown(tasks, "participant", terminal):
            pass
        said = read_terminal(master, until="sub-03: 1 of 4 steps, template")
    os.close(master)
    assert "participants: 2/4 |" in said
    assert "1 done, 1 running, 1 waiting, 1 failed" in said
    assert "sub-03: 1 of 4 steps, template" in said
    assert "\r" in said


def test_time_left_does_not_take_what_was_there_for_what_is_quick() -> None:
    assert time_left(60, [1, 0, 0], [0, 0, 0]) == pytest.approx(120)
    assert time_left(60, [1, 1, 0, 0], [1, 0, 0, 0]) == pytest.approx(120)
    assert time_left(60, [1, 0], [1, 0]) is None
    assert time_left(60, [1, 1], [0, 0]) == 0


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (720, "12 min"), (11100, "3 h 5 min")])
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_progress_that_cannot_be_written_is_lost_and_nothing_else(tmp_path: Path) -> None:
    writer = ProgressWriter(tmp_path / "no" / "folder.pkl", 3)
    writer.tell("brain", "running")
    assert read_progress(tmp_path / "no" / "folder.pkl").n_steps == 0
