"""One run at a time on a folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tau_pipeline.errors import BusyError, OutputError
from tau_pipeline.lock import NAME, exclusive_use

HOLD = """
import sys
from tau_pipeline.lock import exclusive_use
with exclusive_use(sys.argv[1], "participant", "wait"):
    print("held", flush=True)
    sys.stdin.read()
"""


def record(folder: Path, **changes: object) -> Path:
    """Write the record that a killed run leaves behind."""
    content = {"host": "elsewhere", "pid": 1, "since": "2026-01-01 00:00:00", "level": "group", **changes}
    (folder / NAME).write_text(json.dumps(content))
    return folder / NAME


def holding(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_and_told_which_is_the_first(tmp_path: Path) -> None:
    first = holding(tmp_path)
    try:
        with pytest.raises(BusyError) as caught, exclusive_use(tmp_path, "group", "look for another folder"):
            pass
        message = str(caught.value)
        assert f"the level participant, process {first.pid} on " in message
        assert "wait for its end, or look for another folder" in message
    finally:
        first.communicate(timeout=60)
    with exclusive_use(tmp_path, "group", ""):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_killed_leaves_the_folder_free(tmp_path: Path) -> None:
    first = holding(tmp_path)
    first.kill()
    first.communicate(timeout=60)
    assert (tmp_path / NAME).is_file()
    with exclusive_use(tmp_path, "group", ""):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_outlives_the_run_does_not_keep_the_lock(tmp_path: Path) -> None:
    code = HOLD.replace("    print(", "    import os, time\n    if not os.fork():\n        time.sleep(60)\n    print(")
    first = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None
    children = []
    try:
        assert first.stdout.readline() == b"held\n"
        children = [int(pid) for pid in Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()]
        assert children
        first.kill()
        first.wait(60)
        with exclusive_use(tmp_path, "group", ""):
            pass
    finally:
        for child in children:
            os.kill(child, 9)
        first.kill()
        first.stdout.close()


@pytest.mark.parametrize("reaped", [True, False])
def test_a_child_that_has_not_closed_the_lock_of_a_killed_run_yet_is_waited_for(tmp_path: Path, reaped: bool) -> None:
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
        ended.wait(60)
    path = record(tmp_path, host=os.uname().nodename, pid=ended.pid)
    late = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, 2); print('held', flush=True); time.sleep(1)"
    child = subprocess.Popen([sys.executable, "-c", late, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with exclusive_use(tmp_path, "group", ""):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    child.communicate(timeout=60)
    ended.wait(60)


def test_the_record_of_another_machine_counts_while_it_is_fresh(tmp_path: Path) -> None:
    path = record(tmp_path)
    with pytest.raises(BusyError, match="on elsewhere since 2026"), exclusive_use(tmp_path, "group", ""):
        pass
    old = path.stat().st_mtime - 1000
    os.utime(path, (old, old))
    with exclusive_use(tmp_path, "group", ""):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_where_files_cannot_be_locked_the_record_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    host = os.uname().nodename
    record(tmp_path, host=host, pid=os.getpid())
    with pytest.raises(BusyError), exclusive_use(tmp_path, "group", ""):
        pass
    ended = subprocess.Popen(["true"])
    ended.wait(60)
    record(tmp_path, host=host, pid=ended.pid)
    with exclusive_use(tmp_path, "group", ""):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_cannot_be_read_does_not_keep_the_folder(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("{half")
    with exclusive_use(tmp_path, "group", ""):
        pass


def test_a_record_from_the_future_does_not_keep_the_folder(tmp_path: Path) -> None:
    path = record(tmp_path)
    os.utime(path, (time.time() + 86400, time.time() + 86400))
    with exclusive_use(tmp_path, "group", ""):
        pass


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda path, other: os.link(other, path), "hard link"), (lambda path, _: os.mkfifo(path), "pipe")],
)
def test_a_file_with_another_name_and_a_pipe_are_no_locks(tmp_path, make, message):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    make(tmp_path / NAME, precious)
    with pytest.raises(OutputError, match=message), exclusive_use(tmp_path, "group", ""):
        pass
    assert precious.read_text() == "precious"


def test_a_record_that_is_nested_too_deeply_is_nobodys(tmp_path):
    (tmp_path / NAME).write_text("[" * 100_000)
    with exclusive_use(tmp_path, "group", ""):
        assert (tmp_path / NAME).stat().st_size < 1000


def test_a_link_in_the_place_of_the_lock_is_refused_and_its_target_kept(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / NAME).symlink_to(precious)
    with pytest.raises(OutputError, match="symbolic link"), exclusive_use(tmp_path, "group", ""):
        pass
    assert precious.read_text() == "kept"


HOLD_PARTICIPANTS = HOLD.replace('"wait"', '"wait", sys.argv[2:] or None')


def holding_participants(folder: Path, *labels: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_PARTICIPANTS, str(folder), *labels],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_runs_on_different_participants_work_side_by_side(tmp_path: Path) -> None:
    first = holding_participants(tmp_path, "01", "02")
    try:
        with exclusive_use(tmp_path, "participant", "", ["03"]):
            assert len(list(tmp_path.glob(".tau-pipeline-*.lock"))) == 2
        with (
            pytest.raises(BusyError, match=f"^sub-02 in {tmp_path} is in use by .* process {first.pid} on .*, or wait"),
            exclusive_use(tmp_path, "synthesize", "wait", ["02", "03"]),
        ):
            pass
        with pytest.raises(BusyError, match=f"^{tmp_path} is in use by"), exclusive_use(tmp_path, "group", "wait"):
            pass
    finally:
        first.communicate(timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_a_run_on_the_whole_folder_keeps_runs_on_participants_out(tmp_path: Path) -> None:
    with exclusive_use(tmp_path, "group", ""):
        with (
            pytest.raises(BusyError, match="in use by the level group"),
            exclusive_use(tmp_path, "participant", "", ["01"]),
        ):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_killed_run_leaves_its_participants_free(tmp_path: Path) -> None:
    first = holding_participants(tmp_path, "01")
    first.kill()
    first.communicate(timeout=60)
    with exclusive_use(tmp_path, "participant", "", ["01"]):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


RACE = """
import os, sys, time
from pathlib import Path
from tau_pipeline.errors import BusyError
from tau_pipeline.lock import exclusive_use
folder, *labels = sys.argv[1:]
while time.time() < float(os.environ["START"]):
    time.sleep(0.001)
try:
    with exclusive_use(folder, "participant", "wait", labels or None):
        inside = [Path(folder, f"inside-{label}") for label in labels or map(str, range(4))]
        for path in inside:
            path.touch(exist_ok=False)
        time.sleep(0.05)
        for path in inside:
            path.unlink()
    print("held")
except BusyError:
    print("busy")
"""


@pytest.mark.slow
def test_of_runs_that_start_at_one_moment_no_two_hold_the_same_participant(tmp_path: Path) -> None:
    env = {**os.environ, "START": str(time.time() + 4)}
    wanted = [["0"], ["1"], ["2", "3"], ["0", "1"], ["1", "2"], [], ["3"], ["0", "3"]]
    runs = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), *labels], stdout=subprocess.PIPE, env=env)
        for labels in wanted
    ]
    ends = [run.communicate(timeout=60)[0].decode().strip() for run in runs]
    # A file that is there already would have ended a run with an error and without a word.
    assert set(ends) <= {"held", "busy"}
    assert "held" in ends
    assert list(tmp_path.iterdir()) == []
