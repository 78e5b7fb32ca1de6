"""A participant for tests of interruptions: the first is done at once, the others wait, with a process of their own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import time
from pathlib import Path

from tau_workflows.execution.participant import conclude
from tau_workflows.graphs.job import ParticipantJob
from tau_workflows.interfaces.own_process import die_with_parent


def step(parent: int) -> None:
    """Wait, as a step of a participant that computes."""
    die_with_parent(parent)
    time.sleep(120)


def main(job_file: str) -> int:
    """Say by a file that the participant has begun, then wait; participant 01 ends well."""
    job: ParticipantJob = pickle.loads(Path(job_file).read_bytes())
    if job.participant != "01":
        child = multiprocessing.Process(target=step, args=(os.getpid(),))
        child.start()
        Path(job_file).with_suffix(".starts").write_text(f"{os.getpid()}\n")
        child.join()
    conclude(job, job_file, {})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
