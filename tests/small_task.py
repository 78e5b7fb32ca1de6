"""A task for tests: ``python -m small_task JOB``, where JOB holds what to do, as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from tau_workflows.execution.task import outcome_path


def main(job_file: str) -> int:
    """Do what the job says: wait, die, fail, or end well and tell of the process."""
    job = json.loads(Path(job_file).read_text())
    with Path(job_file).with_suffix(".starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    time.sleep(job.get("seconds", 0))
    if job.get("signal"):
        os.kill(os.getpid(), signal.Signals[job["signal"]])
    if job.get("kills_parent"):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if not job.get("exit_code"):
        told = {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "threads": os.environ["OMP_NUM_THREADS"],
            "loaded": job.get("asks_for") in sys.modules,
        }
        outcome_path(job_file).write_text(json.dumps(told))
    return int(job.get("exit_code", 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
