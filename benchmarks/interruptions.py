"""Interruptions of real runs at random times: how they end, what they leave, and whether they can go on.

    python benchmarks/interruptions.py FOLDER [--worker slurm] [--times 10] [--within SECONDS] [--seed 0]

Six simulated participants, two processes, coarse steps (``tests/coarse_participant.py``). SIGINT and SIGTERM are sent
to the process group and to the program alone, each at random times between the start and the end of a run. With
``--worker slurm``, a SLURM is started on this machine (``tests/slurm.py``), and only the program gets the signals.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from coarse_program import PROGRAM, SEARCHED
from slurm import Slurm, missing

from tau_pipeline.derivatives.status import all_statuses
from tau_pipeline.simulate.dataset import Simulation, simulate_dataset

PARTICIPANTS = 6
#: Files that hold a lock, in the output and the work folder.
LOCKS = ".tau-pipeline*.lock"
#: Environment variable that marks all processes of a run, including those that its children start.
MARK = "TAU_PIPELINE_BENCHMARK"
TO: dict[str, Callable[[int, int], None]] = {"group": os.killpg, "program": os.kill}
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Ended:
    """End of a run: what to report, and what is wrong with it."""

    seconds: float
    code: int
    states: Mapping[str, int]
    faults: tuple[str, ...]


class Run:
    """A run in its own process session, with new output and work folders."""

    def __init__(self, folder: Path, mark: str, options: tuple[str, ...], env: Mapping[str, str]) -> None:
        self.out, self.work, self.log, self.mark = folder / "out", folder / "work", folder / "log", mark
        places = [str(folder / "bids"), str(self.out), "participant", "-w", str(self.work)]
        with self.log.open("wb") as log:
            self.program = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *places, "--skip-bids-validation", "--nprocs", "2", *options],
                env={**env, "PYTHONPATH": SEARCHED, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def others(self) -> list[psutil.Process]:
        """Return the processes of the run that are alive, but for the program itself."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != self.program.pid and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def locked(self) -> bool:
        """Return whether one of the folders has a lock."""
        return any(folder.exists() and any(folder.glob(LOCKS)) for folder in (self.out, self.work))

    def states(self) -> Counter[str]:
        """Return how many scans are in each state."""
        return Counter(one.state for one in all_statuses(self.out).values())

    def interrupted(self, number: int, send: Callable[[int, int], None]) -> Ended:
        """Send a signal, and wait for the end."""
        before = self.others()
        begin, was_locked = time.monotonic(), self.locked()
        send(self.program.pid, number)
        late: list[psutil.Process] = []
        while self.program.poll() is None and time.monotonic() - begin < 30:
            if was_locked and not self.locked():
                late, was_locked = [one for one in before if alive(one)], False
            time.sleep(0.005)
        seconds, code = time.monotonic() - begin, self.program.poll()
        time.sleep(0.2)
        faults = [f"process {one.pid} was alive when the locks were gone" for one in late]
        faults += [f"orphan {one.pid}: {' '.join(one.cmdline())[-60:]}" for one in self.others()]
        faults += ["a lock is left"] * self.locked() + [f"took {seconds:.1f} s"] * (seconds > 5)
        said = self.log.read_text(errors="replace")
        if code == -number and not said and not self.out.exists():
            return Ended(seconds, 128 + number, {}, ())  # before Python had loaded the program; nothing had begun
        faults += [f"said {said[-300:]!r}"] * ("Traceback" in said or said.count("interrupted; rerun") != 1)
        faults += [f"exit code {code}"] * (code != 128 + number) + ["failed"] * bool(self.states()["failed"])
        return Ended(seconds, -1 if code is None else code, self.states(), tuple(faults))


def alive(process: psutil.Process) -> bool:
    """Return whether a process runs; what nobody has waited for does not."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def main() -> None:
    """Print one line per run, and how many had a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--worker", choices=("cf", "slurm"), default="cf")
    parser.add_argument("--times", type=int, default=10, help="runs of each signal and receiver")
    parser.add_argument("--within", type=float, help="seconds from the start; default: those of a whole run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Shells let programs in the background ignore Ctrl-C, and those started here would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = options.folder.absolute()
    if not (folder / "bids").exists():
        simulate_dataset(folder / "bids", Simulation(PARTICIPANTS + 1, seed=1, voxel_mm=4.0, pet="static"))
        shutil.rmtree(folder / "bids/sub-04")  # has no PET
    rng, faulty = random.Random(options.seed), 0
    receivers = ["program"] if options.worker == "slurm" else list(TO)
    with workers(options.worker, folder) as (arguments, env):
        longest = options.within
        if longest is None:
            longest = whole_run(folder, arguments, env)
            print(f"a run that nothing interrupts takes {longest:.0f} s", flush=True)
        for count, (number, to) in enumerate((s, t) for s in SIGNALS for t in receivers for _ in range(options.times)):
            wait = rng.uniform(0, longest)
            clear(folder)
            run = Run(folder, f"{os.getpid()}-{count}", arguments, env)
            time.sleep(wait)
            if run.program.poll() is not None:
                print(f"{signal.Signals(number).name} to the {to} after {wait:.1f} s: had ended before", flush=True)
                continue
            end = run.interrupted(number, TO[to])
            faulty += bool(end.faults)
            states = ", ".join(f"{n} {state}" for state, n in sorted(end.states.items())) or "none"
            print(
                f"{signal.Signals(number).name} to the {to} after {wait:.1f} s: exit code {end.code} after "
                f"{end.seconds:.2f} s; states: {states}; {'; '.join(end.faults) or 'no fault'}",
                flush=True,
            )
        print(f"{faulty} runs with a fault", flush=True)
        again = whole_run(folder, arguments, env)
        print(f"the last one goes on where it was interrupted, in {again:.0f} s", flush=True)


@contextmanager
def workers(worker: str, folder: Path) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """Yield the options and the environment of runs; for SLURM, its daemons run meanwhile."""
    if worker == "cf":
        yield (), dict(os.environ)
        return
    if reason := missing():
        raise SystemExit(f"SLURM cannot be started: {reason}")
    shutil.rmtree(folder / "slurm", ignore_errors=True)
    cluster = Slurm(folder / "slurm")
    try:
        cluster.start()
        yield ("--worker", "slurm", "--worker-args=--time=9", "--poll-interval", "2"), cluster.env
    finally:
        cluster.stop()


def clear(folder: Path) -> None:
    """Remove what an earlier run has left."""
    for name in ("out", "work"):
        shutil.rmtree(folder / name, ignore_errors=True)


def whole_run(folder: Path, arguments: tuple[str, ...], env: Mapping[str, str]) -> float:
    """Return the seconds of a run to its end, on the folders as they are.

    Raises
    ------
    RuntimeError
        The run did not end well.
    """
    begin = time.monotonic()
    run = Run(folder, f"{os.getpid()}-whole", arguments, env)
    if run.program.wait() or run.states() != Counter(done=PARTICIPANTS):
        raise RuntimeError(f"states {dict(run.states())}: {run.log.read_text(errors='replace')[-2000:]}")
    return time.monotonic() - begin


if __name__ == "__main__":
    main()
