"""Memory that each step of a participant takes: what its node declares to Nipype is read off here.

    python benchmarks/memory_by_step.py BIDS_DIR PARTICIPANT [PARTICIPANT ...] [--nprocs 2] [--derivatives NAME=PATH]

A participant runs with one process, so that one step runs at a time; with ``--nprocs 2`` the whole is what counts. Ten
times a second the memory of the program and its processes is looked at (PSS: what each holds alone plus its share of
what it shares) and put down to the step that is running. The table gives the largest value in each step, and how far it
lies above the least of the whole run, which is what the program itself takes. Nodes declare the latter, rounded up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from participant import memory_mb

from tau_workflows.execution.task import read_progress


def peaks_mb(bids: Path, participant: str, folder: Path, more: list[str]) -> tuple[float, dict[str, float]]:
    """Return the memory of the program alone, and the peak in each step of a participant.

    Raises
    ------
    RuntimeError
        The program failed.
    """
    places = [str(bids), str(folder / "out"), "participant", "--work-dir", str(folder / "work")]
    options = ["--participant-label", participant, "--skip-bids-validation", *more]
    program = subprocess.Popen(
        [sys.executable, "-m", "tau_workflows.cli", *places, *options], stderr=subprocess.DEVNULL
    )
    base, peaks = float("inf"), defaultdict[str, float](float)
    while program.poll() is None:
        job_file = next((folder / "work").glob("jobs/**/*.progress"), None)
        running = read_progress(job_file.with_suffix(".pkl")).running if job_file else ()
        if running:
            used = memory_mb(program.pid)
            base = min(base, used)
            peaks[running[0]] = max(peaks[running[0]], used)
        time.sleep(0.1)
    if program.returncode:
        raise RuntimeError(f"participant {participant} failed")
    return base, dict(peaks)


def main() -> int:
    """Print the table of each participant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bids", type=Path)
    parser.add_argument("participants", nargs="+")
    parser.add_argument("--nprocs", default="1")
    parser.add_argument("--derivatives", nargs="+", default=[], help="as of tau-pipeline")
    args = parser.parse_args()
    more = ["--nprocs", args.nprocs, *(["--derivatives", *args.derivatives] if args.derivatives else [])]
    for participant in args.participants:
        with tempfile.TemporaryDirectory() as folder:
            base, peaks = peaks_mb(args.bids.absolute(), participant, Path(folder), more)
        most = max(peaks.values()) / 1024
        print(f"sub-{participant}: {most:.2f} GB at the most; the program alone takes {base / 1024:.2f} GB", flush=True)
        for step, peak in peaks.items():
            print(f"    {step:40s} {peak / 1024:5.2f} GB in all, {(peak - base) / 1024:5.2f} GB more")
    return 0


if __name__ == "__main__":
    sys.exit(main())
