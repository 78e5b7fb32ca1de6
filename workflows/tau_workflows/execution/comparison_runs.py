"""Runs of a comparison, one after the other, in one process: ``python -m tau_workflows.execution.comparison_runs``.

A run that fails does not stop the next; a process that dies takes down those runs that it had not ended.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import write_json
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.comparison.one_run import ComparisonContext, do_baselines, do_run
from tau_pipeline.synthesis.comparison.runs import Run
from tau_workflows.execution.task import outcome_path


@dataclass(frozen=True)
class PlannedRun:
    """A run with the settings of its training; ``source_model`` is the model whose mean images are scored, if any."""

    run: Run
    settings: Training
    source_model: Path | None = None


@dataclass(frozen=True)
class ComparisonJob:
    """Runs that one process does one after the other.

    Attributes
    ----------
    planned
        The runs, in their order.
    context
        What is the same for all.
    threads
        Of torch.
    stop_on_first_crash
        Whether a run that fails ends the process.
    """

    planned: tuple[PlannedRun, ...]
    context: ComparisonContext
    threads: int
    stop_on_first_crash: bool = False


def do_planned(job: ComparisonJob, report: Callable[[dict[str, str]], object]) -> dict[str, str]:
    """Do every run of a job; returns why runs failed, by their names, and reports it after each of them."""
    failures: dict[str, str] = {}
    for planned in job.planned:
        sys.stderr.write(f"{planned.run.description}\n")
        try:
            if planned.source_model is None:
                do_run(planned.run, planned.settings, job.context)
            else:
                do_baselines(planned.run, planned.settings, job.context, planned.source_model)
        except Exception as exc:
            # Whatever it is, this run is not done, the others can be, and the reason must reach the user.
            failures[planned.run.name] = str(exc) or type(exc).__name__
            if not isinstance(exc, TauPipelineError):
                traceback.print_exc()
        report(failures)
        if failures and job.stop_on_first_crash:
            break
    return failures


def main(job_file: str) -> int:
    """Read a job and do it; 0 when all its runs are done, else 1."""
    import torch

    job: ComparisonJob = pickle.loads(Path(job_file).read_bytes())
    torch.set_num_threads(job.threads)
    failed = Path(job_file).with_suffix(".failed.json")
    failures = do_planned(job, lambda found: write_json({"failures": found}, failed))
    write_json({"failures": failures}, outcome_path(job_file))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
