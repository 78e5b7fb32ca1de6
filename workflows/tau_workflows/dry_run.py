"""What a run would do, told before it: a table with a row for each scan."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tau_pipeline.config import Execution
from tau_workflows.job import ParticipantJob, ScanJob

if TYPE_CHECKING:
    import pandas as pd


def tell_plan(jobs: Sequence[ParticipantJob], problems: Mapping[str, str], execution: Execution, together: int) -> None:
    """Print what would be done; nothing is computed.

    Parameters
    ----------
    jobs, problems
        What can be done, and why each other scan cannot, by its key.
    execution
        Where it would run.
    together
        How many participants would run at a time.
    """
    sys.stdout.write(plan_table(jobs, problems).to_csv(sep="\t", index=False, na_rep="n/a"))


def plan_table(jobs: Sequence[ParticipantJob], problems: Mapping[str, str]) -> pd.DataFrame:
    """Tell, a row a scan, what would be done: T1w, frames and their weights, labels, and what is assumed."""
    import pandas as pd

    rows = []
    for job in jobs:
        for t1w_job in job.t1ws:
            labels = t1w_job.freesurfer.labels_file if t1w_job.freesurfer else "tau-pipeline"
            own = {"t1w": t1w_job.t1w.path.name, "labels": labels, "reference": " ".join(job.settings.ref_region)}
            rows += [
                {"scan": f"{scan.scan.key}_pet", "state": "to do", **own, **_frames_in_words(scan)}
                for scan in t1w_job.scans
            ] or [{"scan": f"{t1w_job.t1w.key}_T1w", "state": "to do, no PET", **own}]
    rows += [{"scan": key, "state": "cannot be done", "notes": message} for key, message in problems.items()]
    columns = ["scan", "state", "t1w", "labels", "reference", "window_min", "frames", "weights", "notes"]
    return pd.DataFrame(rows, columns=columns)


def _frames_in_words(job: ScanJob) -> dict[str, str]:
    window = job.frames.window
    return {
        "window_min": f"{window.start_min:g}-{window.end_min:g}",
        "frames": " ".join(map(str, job.frames.indices)),
        "weights": " ".join(f"{weight:.3f}" for weight in job.frames.weights),
        "notes": " ".join(dict.fromkeys((*job.scan.assumptions, *job.frames.assumptions))),
    }
