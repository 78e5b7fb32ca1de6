"""Array job on a real SLURM: interrupted, submitted again, and compared with one plain run.

    python benchmarks/array_on_slurm.py FOLDER [--participants 12]

Starts SLURM on this machine (as root, see ``tests/slurm.py``), simulates small heads, two of which have a damaged PET,
and runs them with coarse steps (``tests/coarse_participant.py``): once by one call, and once by the scripts of
``--write-array``, whose jobs are killed when a third of the participants are done; then the scripts are written and
submitted again. Prints how many tasks each submission had, whether all tables are equal, and how often the program
called ``squeue`` and ``sacct``; exit code 1 if a table differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from coarse_program import PROGRAM, SEARCHED
from slurm import Slurm, missing

from tau_pipeline.simulate.dataset import Simulation, simulate_dataset

_LIMIT_S = 3000.0
#: Participants whose PET is cut short.
_BROKEN = 2
#: Of these tables every value has to be equal; those of states hold minutes.
_TABLES = ("suvr_rois.csv", "suvr_rois_wide.csv", "suvr_bilateral.csv")


class Program:
    """Program with coarse participants, whose calls of SLURM's commands are counted."""

    def __init__(self, folder: Path, slurm: Slurm) -> None:
        self.folder, self.slurm = folder, slurm
        self.calls = folder / "calls.txt"
        programs = folder / "bin"
        programs.mkdir()
        texts = {"tau-pipeline": f"#!{sys.executable}\n{PROGRAM}"}
        for name in ("squeue", "sacct"):
            real = shutil.which(name, path=slurm.env["PATH"])
            texts[name] = f'#!/bin/sh\necho {name} >> {self.calls}\nexec {real} "$@"\n'
        for name, text in texts.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        path = f"{programs}:{slurm.env['PATH']}"
        self.env = {**slurm.env, "PATH": path, "PYTHONPATH": SEARCHED, "NO_ET": "1", "NIPYPE_NO_ET": "1"}

    def run(self, *words: str | Path) -> str:
        """Run a command to its end; returns what it says."""
        done = subprocess.run(
            [str(word) for word in words],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        return done.stdout

    def level(self, bids: Path, out: str, level: str, *options: str | Path) -> str:
        """Run a level of the program."""
        work = self.folder / f"work_{out}"
        more: list[str | Path] = list(options)
        if level == "participant":
            more += ["--work-dir", work, "--skip-bids-validation"]
        return self.run(self.folder / "bin" / "tau-pipeline", bids, self.folder / out, level, *more)

    def submit(self, bids: Path, number: int) -> int:
        """Write and submit an array of one task per participant; returns the number of tasks."""
        scripts = self.folder / f"array_{number}"
        options = ("--array-chunk", "1", "--nprocs", "1", "--mem-mb", "2000")
        self.level(bids, "array", "participant", "--write-array", scripts, *options)
        for name in ("array.sh", "group.sh"):
            script = scripts / name
            text = script.read_text().replace(
                f"{sys.executable} -m tau_workflows", str(self.folder / "bin/tau-pipeline")
            )
            script.write_text(text)
        with (scripts / "settings.toml").open("a") as settings:
            settings.write('\n[group]\nunknown_manufacturer = "pooled"\nmin_participants = 1\n')
        print(self.run("bash", scripts / "submit.sh").strip(), flush=True)
        return len((scripts / "participants.txt").read_text().splitlines())

    def jobs(self) -> list[str]:
        """Return the jobs in the queue, asked past the programs that count."""
        return self.slurm.run("squeue", "-h", "-r", "-t", "PENDING,RUNNING", "-o", "%i").split()

    def done(self) -> int:
        """Return the number of tables of regions that the array has written."""
        return len(list((self.folder / "array").glob("sub-*/pet/*_rois.tsv")))


def wait(ready: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + _LIMIT_S
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError("the jobs did not end")
        time.sleep(1)


def dataset(folder: Path, participants: int) -> Path:
    """Simulate participants with one static PET each, the first two of which are damaged."""
    bids = simulate_dataset(folder / "bids", Simulation(participants + 1, seed=3, voxel_mm=4.0, pet="static"))
    without = [path.name for path in sorted(bids.glob("sub-*")) if not list(path.glob("pet/*_pet.nii.gz"))]
    for name in without:
        shutil.rmtree(bids / name)
    table = pd.read_csv(bids / "participants.tsv", sep="\t", dtype=str, keep_default_na=False)
    table[~table["participant_id"].isin(without)].to_csv(bids / "participants.tsv", sep="\t", index=False)
    for pet in sorted(bids.glob("sub-*/pet/*_pet.nii.gz"))[:_BROKEN]:
        pet.write_bytes(pet.read_bytes()[: pet.stat().st_size // 2])
    return bids


def differences(folder: Path) -> list[str]:
    """Return the tables of the array that are not those of the plain run."""
    names = {path.relative_to(folder / "plain").as_posix() for path in (folder / "plain").glob("sub-*/pet/*_rois.tsv")}
    names |= {f"group/{name}" for name in _TABLES}
    alike = {name for name in names if _text(folder / "plain" / name) == _text(folder / "array" / name) != ""}
    return sorted(names - alike)


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def main() -> int:
    """Run, compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--participants", type=int, default=12)
    args = parser.parse_args()
    if missing():
        print(f"no SLURM: {missing()}")
        return 2
    folder = args.folder.absolute()
    folder.mkdir(parents=True)
    bids = dataset(folder, args.participants)
    slurm = Slurm(folder / "slurm")
    os.chdir(folder)
    try:
        slurm.start()
        program = Program(folder, slurm)
        started = time.monotonic()
        program.level(bids, "plain", "participant", "--nprocs", "2")
        program.level(bids, "plain", "group", "--unknown-manufacturer", "pooled", "--min-participants", "1")
        plain_s, started = time.monotonic() - started, time.monotonic()
        tasks = [program.submit(bids, 1)]
        wait(lambda: program.done() >= args.participants // 3)
        slurm.run("scancel", "--signal=KILL", "--full", "--user=root")
        slurm.run("scancel", "--user=root")
        wait(lambda: not program.jobs())
        left = program.done()
        tasks.append(program.submit(bids, 2))
        wait(lambda: not program.jobs())
        array_s = time.monotonic() - started
        calls = program.calls.read_text().split() if program.calls.is_file() else []
    finally:
        slurm.stop()
    differ = differences(folder)
    print(f"plain run {plain_s:.0f} s; array {array_s:.0f} s: tasks {tasks}, {left} tables when it was killed")
    print(f"calls by the program: squeue {calls.count('squeue')}, sacct {calls.count('sacct')}")
    print(f"tables that differ: {', '.join(differ) or 'none'}")
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main())
