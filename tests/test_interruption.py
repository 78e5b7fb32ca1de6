"""Ctrl-C and SIGTERM: the run ends within seconds in one sentence, leaves no process and no lock, and can go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from grid_engine import write_stand_ins
from phantom import tiny_dataset
from slurm import Slurm, missing

from tau_pipeline.derivatives.status import all_statuses
from tau_pipeline.lock import NAME, exclusive_use
from tau_workflows.cli import LEVELS
from tau_workflows.levels.interruption import GRACE_S, SENTENCE

HERE = Path(__file__).parent
SEARCHED = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
#: The command line, with participants that wait.
PROGRAM = """
import sys
from tau_workflows import cli
from tau_workflows.levels import participant
participant.MODULE, participant.PRELOADED = "slow_participant", ()
sys.exit(cli.main(sys.argv[1:]))
"""
#: The command line, with levels that wait.
WAITING = """
import sys, time
from tau_workflows import cli
def wait(*_):
    print("begun", flush=True)
    time.sleep(60)
cli._RUN = dict.fromkeys(cli._RUN, wait)
sys.exit(cli.main(sys.argv[1:]))
"""
#: The command line, with another program in the place of the validator.
VALIDATING = """
import sys
from pathlib import Path
from tau_pipeline.bids import validator
from tau_workflows import cli
validator.validator_program = lambda: Path({stub!r})
sys.exit(cli.main(sys.argv[1:]))
"""
#: An installed command that is interrupted while it imports its modules.
IMPORTING = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "tau_workflows.{module}":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from tau_workflows import start
sys.exit(start.{command}())
"""
#: The simulator.
SIMULATING = "import sys; from tau_workflows import start; sys.exit(start.simulate())"
TO = {"group": os.killpg, "program": os.kill}
SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: An interruption is over after this time, in seconds; a busy machine needs a while to end a process.
END_S = GRACE_S + 10


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Five participants with tiny images."""
    return tiny_dataset(tmp_path / "bids", ("01", "02", "03", "04", "05"))


class Run:
    """Run of the participant level in a new session, so that signals reach it alone."""

    def __init__(self, bids: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.out, self.work, self.log = bids.parent / "out", bids.parent / "work", bids.parent / "log"
        places = [str(bids), str(self.out), "participant", "--work-dir", str(self.work)]
        with self.log.open("wb") as log:
            self.program = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *places, "--skip-bids-validation", "--nprocs", "2", *options],
                env={**os.environ, **(env or {}), "PYTHONPATH": SEARCHED},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.below: list[psutil.Process] = []

    def begun(self) -> list[str]:
        """Return the participants that have begun and wait."""
        return sorted(path.stem for path in (self.work / "jobs").glob("*.starts") if path.read_text().endswith("\n"))

    def wait_for(self, n_begun: int) -> None:
        end = time.monotonic() + 120
        while len(self.begun()) < n_begun:
            assert time.monotonic() < end
            assert self.program.poll() is None, self.log.read_text()
            time.sleep(0.05)
        self.below = psutil.Process(self.program.pid).children(recursive=True)

    def ended(self, seconds: float = END_S) -> int:
        """Return the exit code, once the program and all of its processes have ended."""
        code = self.program.wait(seconds)
        _, left = psutil.wait_procs(self.below, timeout=10)
        assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
        return code

    def states(self) -> dict[str, str]:
        return {one.participant: one.state for one in all_statuses(self.out).values()}


@pytest.fixture
def started(bids: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(*options: str, env: Mapping[str, str] | None = None) -> Run:
        runs.append(Run(bids, *options, env=env))
        return runs[-1]

    yield start
    for run in runs:
        run.program.kill()
        run.program.wait()
        for process in run.below:
            if process.is_running():
                process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("to", list(TO))
@pytest.mark.parametrize("number", SIGNALS)
def test_one_signal_ends_a_run_of_several_participants(
    started: Callable[..., Run], number: signal.Signals, to: str
) -> None:
    run = started()
    run.wait_for(2)
    TO[to](run.program.pid, number)
    assert run.ended() == 128 + number
    said = run.log.read_text()
    assert said.count(SENTENCE) == 1
    assert said.rstrip().endswith(SENTENCE)
    assert "Traceback" not in said
    assert "FAILED" not in said
    assert run.begun() == ["sub-02", "sub-03"]
    assert run.states() == {"01": "done", **dict.fromkeys(("02", "03", "04", "05"), "interrupted")}
    assert not list((run.out / "logs/errors").glob("*"))
    assert not [folder for folder in (run.out, run.work) if (folder / NAME).exists()]


@pytest.mark.slow
@pytest.mark.parametrize("to", list(TO))
def test_one_signal_ends_a_run_of_one_participant(started: Callable[..., Run], to: str) -> None:
    run = started("--participant-label", "02")
    run.wait_for(1)
    TO[to](run.program.pid, signal.SIGINT)
    assert run.ended() == 130
    assert "Traceback" not in run.log.read_text()
    assert run.states() == {"02": "interrupted"}


@pytest.mark.slow
@pytest.mark.parametrize("to", list(TO))
def test_a_second_signal_ends_the_run_at_once(started: Callable[..., Run], to: str) -> None:
    run = started()
    run.wait_for(2)
    for process in run.below:
        process.suspend()  # so that nothing ends by itself
    TO[to](run.program.pid, signal.SIGINT)
    time.sleep(0.3)
    assert run.program.poll() is None
    TO[to](run.program.pid, signal.SIGINT)
    assert run.ended(GRACE_S - 0.5) == 130  # before the first signal has ended it
    assert "Traceback" not in run.log.read_text()
    for folder in (run.out, run.work):
        with exclusive_use(folder, "test", ""):
            pass


@pytest.mark.slow
def test_a_run_whose_end_hangs_is_ended(started: Callable[..., Run]) -> None:
    run = started()
    run.wait_for(2)
    for process in run.below:
        process.suspend()
    os.kill(run.program.pid, signal.SIGTERM)
    assert run.ended() == 143


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_a_signal_at_any_time_ends_the_run(started: Callable[..., Run], delay_s: float) -> None:
    run = started()
    end = time.monotonic() + 60
    while not (run.work / NAME).exists():  # from here on it is this program, and no longer Python's start
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(delay_s)
    run.below = psutil.Process(run.program.pid).children(recursive=True)
    os.kill(run.program.pid, signal.SIGINT)
    assert run.ended() == 130
    assert "Traceback" not in run.log.read_text()
    assert "failed" not in run.states().values()


@pytest.mark.slow
def test_one_signal_ends_the_jobs_on_a_cluster(started: Callable[..., Run], tmp_path: Path) -> None:
    if missing():
        pytest.skip(f"no SLURM: {missing()}")
    cluster = Slurm(tmp_path / "slurm")
    try:
        cluster.start()
        run = started("--worker", "slurm", "--worker-args=--time=5", env=cluster.env)
        run.wait_for(1)  # the cluster has room for one at a time
        run.below += [psutil.Process(int((run.work / f"jobs/{who}.starts").read_text())) for who in run.begun()]
        os.kill(run.program.pid, signal.SIGINT)
        assert run.ended() == 130
        assert "Traceback" not in run.log.read_text()
        assert run.states() == {"01": "done", **dict.fromkeys(("02", "03", "04", "05"), "interrupted")}
        assert cluster.run("squeue", "-h", "-t", "PENDING,RUNNING").split() == []
    finally:
        cluster.stop()


@pytest.mark.slow
def test_one_signal_takes_the_jobs_out_of_the_queue_of_grid_engine(started: Callable[..., Run], tmp_path: Path) -> None:
    programs = write_stand_ins(tmp_path / "bin")
    run = started("--worker", "sge", "--worker-args=-q long.q", env={"PATH": f"{programs}:{os.environ['PATH']}"})
    run.wait_for(1)  # the stand-in runs one task at a time
    run.below += [psutil.Process(int((run.work / f"jobs/{who}.starts").read_text())) for who in run.begun()]
    os.kill(run.program.pid, signal.SIGINT)
    assert run.ended() == 130
    assert (programs / "deleted").read_text() == "7\n"
    assert "Traceback" not in run.log.read_text()
    assert run.states() == {"01": "done", **dict.fromkeys(("02", "03", "04", "05"), "interrupted")}


@pytest.mark.slow
def test_a_signal_while_the_validator_runs_ends_it_too(bids: Path, tmp_path: Path) -> None:
    stub = tmp_path / "validator"
    stub.write_text(f"#!/bin/sh\necho > {tmp_path / 'begun'}\nexec sleep 60\n")
    stub.chmod(0o755)
    code = VALIDATING.format(stub=str(stub))
    program = subprocess.Popen(
        [sys.executable, "-c", code, str(bids), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work")],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    program.terminate()
    _, said = program.communicate(timeout=END_S)
    assert program.returncode == 143
    assert said == f"{SENTENCE}\n"


def begun(code: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start a program, and wait for its first line; returns both."""
    program = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    return program, program.stdout.readline()


@pytest.mark.parametrize("level", list(LEVELS))
def test_every_level_ends_with_a_code_and_a_sentence(level: str) -> None:
    for number in SIGNALS:
        program, first_line = begun(WAITING, "bids", "out", level)
        assert first_line == "begun\n"
        program.send_signal(number)
        _, said = program.communicate(timeout=60)
        assert program.returncode == 128 + number
        assert said == f"{SENTENCE}\n"


@pytest.mark.parametrize(
    ("command", "module", "sentence"),
    [
        ("pipeline", "cli", SENTENCE),
        ("simulate", "simulate_cli", "tau-simulate: interrupted before anything was written"),
    ],
)
def test_a_signal_while_modules_are_imported_is_answered_in_a_sentence(
    command: str, module: str, sentence: str
) -> None:
    code = IMPORTING.format(command=command, module=module)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (130, f"{sentence}\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_simulation_that_is_interrupted_says_that_it_is_not_complete(tmp_path: Path, number: int) -> None:
    made = tmp_path / "made"
    program, first_line = begun(SIMULATING, str(made), "--participants", "40", "--voxel-size", "4")
    assert first_line.startswith("sub-01: 1 of 40")
    program.send_signal(number)
    _, said = program.communicate(timeout=END_S)
    assert program.returncode == 128 + number
    assert said.count("\n") == 1
    assert said.startswith(f"tau-simulate: interrupted; the dataset in {made} is not complete: remove it")
