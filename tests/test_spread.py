"""Tasks spread over processes: each by itself, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from grid_engine import write_stand_ins
from slurm import Slurm, missing

from tau_pipeline.settings.execution import Execution
from tau_workflows.execution.fork_server import can_fork
from tau_workflows.execution.heartbeat import HeartbeatMonitor
from tau_workflows.execution.spread import hide_closed_loops, spread
from tau_workflows.execution.task import NEVER_TOLD, Task, how_it_ended, outcome_path

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def module_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_program_that_was_asked_is_forgotten_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``squeue`` when a run is interrupted, and the loop that waits for it is closed."""
    told: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    loop = asyncio.new_event_loop()
    asked = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = loop.run_until_complete(asyncio.create_subprocess_exec(*asked, stdout=subprocess.PIPE))
    held = weakref.ref(process._transport)
    hide_closed_loops()
    loop.close()
    os.kill(process.pid, signal.SIGTERM)
    del process
    end = time.monotonic() + 20
    while held() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.02)
    assert held() is None
    assert not told


_ORPHAN = """
import subprocess, sys, time
import psutil
from tau_workflows.execution.spread import wait_for_last
child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(2)'], stdout=subprocess.DEVNULL)"
parent = [sys.executable, "-c", f"import subprocess, sys; print({child}.pid)"]
orphan = psutil.Process(int(subprocess.run(parent, stdout=subprocess.PIPE, check=True).stdout))
print(orphan.status())
wait_for_last(20.0)
print(orphan.status() if orphan.is_running() else psutil.STATUS_ZOMBIE)
begin = time.monotonic()
wait_for_last(20.0)
print(time.monotonic() - begin)
"""


#: What /proc says of the others' programs while they end.
_ENDING = """
import os, psutil
exe = psutil.Process.exe
psutil.Process.exe = lambda process: exe(process) if process.pid == os.getpid() else ""
"""


@pytest.mark.parametrize("before", ["", _ENDING], ids=["running", "ending"])
def test_processes_that_are_nobodys_children_any_more_are_waited_for(before: str) -> None:
    """A parent that has gone leaves a process of the group, which ends by itself."""
    # Run in a new session, because other tests may run in the process group of this one.
    call = [sys.executable, "-c", before + _ORPHAN]
    found = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True, start_new_session=True).stdout.split()
    assert found[0] != psutil.STATUS_ZOMBIE
    assert found[1] == psutil.STATUS_ZOMBIE
    assert float(found[2]) < 5


def tasks_of(folder: Path, jobs: dict[str, dict[str, object]], **options: Any) -> list[Task]:
    folder.mkdir(exist_ok=True)
    tasks = [Task(name, "small_task", folder / f"{name}.job", 100, **options) for name in jobs]
    for task in tasks:
        task.job_file.write_text(json.dumps(jobs[task.name]))
    return tasks


def outcomes(tasks: list[Task]) -> dict[str, dict[str, object]]:
    found = {task.name: outcome_path(task.job_file) for task in tasks}
    return {name: json.loads(path.read_text()) for name, path in found.items() if path.is_file()}


def test_a_crash_or_a_kill_takes_down_one_task_only(tmp_path: Path) -> None:
    jobs = {"well": {}, "killed": {"signal": "SIGKILL"}, "crashed": {"signal": "SIGSEGV"}, "failed": {"exit_code": 3}}
    tasks = tasks_of(tmp_path, {**jobs, "last": {}}, threads=1)
    spread(tasks, Execution(), 2)
    assert set(outcomes(tasks)) == {"well", "last"}
    ends = {task.name: how_it_ended(task.job_file) for task in tasks}
    assert "SIGKILL" in ends["killed"]
    assert "SIGSEGV" in ends["crashed"]
    assert "exit code 3" in ends["failed"]
    assert all(len(task.job_file.with_suffix(".starts").read_text().split()) == 1 for task in tasks)


def test_each_task_has_a_process_of_its_own_with_its_threads(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path, {"a": {}, "b": {}, "c": {}}, threads=3)
    spread(tasks, Execution(), 2)
    told = outcomes(tasks)
    assert len({entry["pid"] for entry in told.values()} | {os.getpid()}) == 4
    assert {entry["threads"] for entry in told.values()} == {"3"}


@pytest.mark.skipif(not can_fork(), reason="processes are not forked on this system")
@pytest.mark.slow
def test_what_tasks_need_is_loaded_once_for_tasks_that_follow_each_other(tmp_path: Path) -> None:
    jobs = {"a": {"asks_for": "wave"}, "b": {"asks_for": "wave"}, "killed": {"signal": "SIGKILL"}, "c": {}}
    bare, tasks = tasks_of(tmp_path / "bare", jobs), tasks_of(tmp_path / "loaded", jobs, preload=("wave",))
    spread(bare, Execution(), 1)
    spread(tasks, Execution(), 1)
    without, told = outcomes(bare), outcomes(tasks)
    assert not without["a"]["loaded"]
    assert told["a"]["loaded"]
    assert told["b"]["loaded"]
    assert len({entry["pid"] for entry in told.values()}) == 3
    # The one that was killed has left the process that loads as it was.
    assert len({entry["parent"] for entry in told.values()}) == 1


@pytest.mark.skipif(not can_fork(), reason="processes are not forked on this system")
def test_a_kill_of_the_process_that_loads_takes_down_one_task_only(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path, {"a": {}, "b": {"kills_parent": True}, "c": {}, "d": {}})
    spread(tasks, Execution(), 1)
    assert set(outcomes(tasks)) == {"a", "c", "d"}
    assert "SIGKILL" in how_it_ended(tasks[1].job_file)


def test_tasks_with_other_threads_are_not_forked_from_what_was_loaded_for_fewer(tmp_path: Path) -> None:
    tasks = [task for n in (1, 2) for task in tasks_of(tmp_path / str(n), {"a": {}}, threads=n)]
    spread(tasks, Execution(), 1)
    assert [outcomes([task])["a"]["threads"] for task in tasks] == ["1", "2"]


def test_a_module_that_cannot_be_loaded_is_left_to_the_work(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path, {"a": {}}, preload=("no_such_module",))
    spread(tasks, Execution(), 1)
    assert set(outcomes(tasks)) == {"a"}


def test_tasks_that_are_done_again_do_not_take_the_outcome_of_the_first_time(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path, {"a": {}})
    spread(tasks, Execution(), 1)
    first = outcomes(tasks)["a"]["pid"]
    spread(tasks, Execution(), 1)
    assert outcomes(tasks)["a"]["pid"] != first


def test_tasks_are_given_in_parts_and_all_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tau_workflows.execution.spread._AT_A_TIME", 2)
    tasks = tasks_of(tmp_path, {"a": {}, "killed": {"signal": "SIGKILL"}, "b": {}})
    spread(tasks, Execution(), 2)
    assert set(outcomes(tasks)) == {"a", "b"}
    assert all(len(task.job_file.with_suffix(".starts").read_text().split()) == 1 for task in tasks)


def test_nothing_to_spread_is_no_error(tmp_path: Path) -> None:
    spread([], Execution(), 2)


PROGRAM = """
import sys
from pathlib import Path
from slurm import Slurm, missing

from tau_pipeline.settings.execution import Execution
from tau_workflows.execution.spread import spread, wait_for_last
from tau_workflows.execution.task import Task
files = [Path(name) for name in sys.argv[1:]]
spread([Task(file.stem, "small_task", file, 100) for file in files], Execution(), 2)
"""


def started(tasks: list[Task], seconds: float = 60) -> list[psutil.Process]:
    """The processes of the tasks, when all of them have started."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        files = [task.job_file.with_suffix(".starts") for task in tasks]
        if all(file.is_file() and file.read_text().endswith("\n") for file in files):
            return [psutil.Process(int(file.read_text().split()[-1])) for file in files]
        time.sleep(0.05)
    raise AssertionError("the tasks did not start")


def gone(processes: list[psutil.Process], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_tasks_do_not_outlive_a_program_that_is_killed(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path, {"a": {"seconds": 120}, "b": {"seconds": 120}})
    command = [sys.executable, "-c", PROGRAM, *(str(task.job_file) for task in tasks)]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        processes = started(tasks)
        tree = [*psutil.Process(program.pid).children(recursive=True), *processes]
        os.kill(program.pid, signal.SIGKILL)
        program.wait(60)
        assert gone(tree)
    finally:
        program.kill()


GRAPH = """
import sys
from pathlib import Path
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from tau_pipeline.settings.execution import Execution
from tau_workflows.execution import nipype_engine as engine


def wait(file):
    import os, time

    with open(file, "w") as starts:
        starts.write(f"{os.getpid()}\\n")
    time.sleep(120)


file = Path(sys.argv[1])
node = pe.Node(niu.Function(function=wait, input_names=["file"]), name="wait")
node.inputs.file = str(file)
wf = pe.Workflow(name="wait_wf")
wf.add_nodes([node])
engine.configure(wf, file.parent)
engine.execute(wf, Execution(nprocs=2), engine.NodeTimes())
"""


def test_steps_do_not_outlive_a_participant_that_is_killed(tmp_path: Path) -> None:
    script, file = tmp_path / "graph.py", tmp_path / "a.starts"
    script.write_text(GRAPH)
    command = [sys.executable, str(script), str(file)]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    workers: list[psutil.Process] = []
    try:
        started([Task("a", "", tmp_path / "a.job", 1)])
        workers = psutil.Process(program.pid).children(recursive=True)
        assert len(workers) == 2
        program.kill()
        program.wait(60)
        assert gone(workers)
    finally:
        program.kill()
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()


@pytest.mark.slow
def test_tasks_that_were_lost_with_a_worker_are_done_once_more(tmp_path: Path) -> None:
    tasks = tasks_of(tmp_path, {"a": {"seconds": 3}, "b": {"seconds": 3}, "c": {}})
    command = [sys.executable, "-c", PROGRAM, *(str(task.job_file) for task in tasks)]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process = started(tasks[:1])[0]
        worker = next(p for p in process.parents() if p.ppid() == program.pid)
        worker.kill()
        assert program.wait(60) == 0
        assert set(outcomes(tasks)) == {"a", "b", "c"}
        assert gone([process])
    finally:
        program.kill()


def test_a_task_on_another_machine_hears_that_its_program_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    file = tmp_path / "alive.json"
    file.write_text('{"run": "one", "beat": 0}')
    life = HeartbeatMonitor(file, "one")
    assert not life.lost()
    now[0] = 299
    assert not life.lost()
    now[0] = 301
    assert life.lost()
    file.write_text('{"run": "one", "beat": 1}')
    assert not life.lost()
    file.write_text('{"run": "other", "beat": 0}')
    now[0] = 305
    assert not life.lost()
    now[0] = 312
    assert life.lost()
    file.unlink()
    assert life.lost()


def test_a_task_without_a_word_about_its_end_says_so(tmp_path: Path) -> None:
    assert how_it_ended(tmp_path / "none.job") == NEVER_TOLD


@pytest.mark.slow
def test_slurm_runs_each_task_as_a_job_and_a_killed_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing():
        pytest.skip(f"no SLURM: {missing()}")
    jobs = {"well": {}, "killed": {"signal": "SIGKILL"}, "failed": {"exit_code": 3}}
    tasks = tasks_of(tmp_path / "jobs", jobs, processes=2, threads=1)
    cluster = Slurm(tmp_path / "slurm")
    calls = tmp_path / "calls"
    for name in ("squeue", "sacct"):
        counted = tmp_path / "bin" / name
        counted.parent.mkdir(exist_ok=True)
        counted.write_text(f'#!/bin/sh\necho {name} >> {calls}\nexec {shutil.which(name)} "$@"\n')
        counted.chmod(0o755)
    try:
        cluster.start()
        for name, value in cluster.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        execution = Execution(worker="slurm", worker_args="--time=5 --comment=mine", poll_interval=2, max_jobs=2)
        expected = ["COMPLETED|2|100M|00:05:00"] * 3
        started = time.monotonic()
        spread(tasks, execution, 3)
        seconds = time.monotonic() - started
        asked = ("sacct", "-n", "-X", "-P", "-j", "1,2,3", "-o")
        # Accounting completes the record of a job some seconds after its end.
        while (rows := cluster.run(*asked, "State,AllocCPUS,ReqMem,Timelimit").split()) != expected:
            assert time.monotonic() < started + seconds + 30, rows
            time.sleep(0.5)
        times = cluster.run(*asked, "Submit,End").split()
    finally:
        cluster.stop()
    # One call of squeue for all jobs every two seconds, and one of sacct when jobs have left the queue.
    called = calls.read_text().split()
    assert 0 < called.count("squeue") <= seconds / 2 + 1
    assert called.count("sacct") <= called.count("squeue")
    submitted, ended = zip(*(row.split("|") for row in times), strict=True)
    assert max(submitted) >= min(ended)
    assert set(outcomes(tasks)) == {"well"}
    assert "SIGKILL" in how_it_ended(tasks[1].job_file)
    assert "exit code 3" in how_it_ended(tasks[2].job_file)


@pytest.mark.slow
def test_sge_runs_the_tasks_as_an_array_job_by_its_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = write_stand_ins(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    tasks = tasks_of(tmp_path / "jobs", {"a": {}, "b": {"exit_code": 3}, "c": {}}, threads=1)
    spread(tasks, Execution(worker="sge", worker_args="-q long.q -l h_vmem=4G"), 3)
    assert set(outcomes(tasks)) == {"a", "c"}
    assert "exit code 3" in how_it_ended(tasks[1].job_file)
    (asked,) = (programs / "asked").read_text().splitlines()
    assert asked.startswith("-t 1-3 -q long.q -l h_vmem=4G -N ")
