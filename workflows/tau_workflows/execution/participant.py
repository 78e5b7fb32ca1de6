"""Run one participant in a separate process: ``python -m tau_workflows.execution.participant JOB``.

A separate process, so that a crash, a kill or running out of memory takes down one participant and no other, and so
that ITK's number of threads, which is fixed when ANTs is loaded, can be set for it.
"""

from __future__ import annotations

import gc
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from tau_pipeline.derivatives.names import AnatNames, PetNames, error_path
from tau_pipeline.derivatives.status import ScanStatus, update_status
from tau_pipeline.derivatives.withdraw import withdraw, withdraw_surfaces
from tau_pipeline.errors import MissingInputError, OutputError, TauPipelineError
from tau_pipeline.files import read_json, write_json
from tau_workflows.execution.task import ProgressWriter, StepState, outcome_path
from tau_workflows.graphs.job import ParticipantJob, T1wJob, is_surface_step, names_cortex, scan_steps, t1w_step
from tau_workflows.reports.failures import forget_headers

#: Modules that the graph or several of its nodes need; loaded once, before processes are forked, and shared by them.
#: What a single node needs (deepbet with torch, scikit-learn) it loads itself: a run that finds the mask done does not
#: pay for it.
PRELOADED = (
    "ants",
    "matplotlib.figure",
    "pandas",
    "scipy.ndimage",
    "tau_workflows.execution.nipype_engine",
    "tau_workflows.reports.participant",
    "tau_workflows.graphs.subject",
)


def run_participant(job: ParticipantJob, job_file: str | Path) -> dict[str, dict[str, Any]]:
    """Run the graph of one participant; returns a record of each scan that failed, by its key.

    Progress is recorded beside ``job_file``; the report is written by `conclude`.

    The error records of earlier runs of its scans are removed first.
    """
    from tau_workflows.execution import nipype_engine as engine
    from tau_workflows.graphs.subject import init_subject_wf

    forget_headers(job.output_dir, job.keys)
    for key in (*job.keys, _page_key(job), *map(_surfaces_key, job.t1ws)):
        error_path(job.output_dir, key).unlink(missing_ok=True)
    _times_path(job).unlink(missing_ok=True)
    wf = init_subject_wf(job)
    engine.set_verbosity(job.execution.verbose)
    engine.configure(wf, job.execution.work_dir, job.execution.stop_on_first_crash)
    started = time.monotonic()
    times = engine.NodeTimes(listener=_listener(ProgressWriter(job_file, engine.n_steps(wf))))
    engine.execute(wf, job.execution, times)
    failures = _failures(job, times.failed)
    _write_times(job, times.seconds, time.monotonic() - started)
    return failures


def _page_key(job: ParticipantJob) -> str:
    return f"sub-{job.participant}_page"


def _listener(writer: ProgressWriter) -> Callable[[str, str], None]:
    """Record the events of Nipype's nodes as steps."""
    states: dict[str, StepState] = {"start": "running", "end": "done", "exception": "failed", "cached": "unchanged"}

    def listen(node: str, status: str) -> None:
        writer.tell(_step(node), states[status])

    return listen


def _failures(job: ParticipantJob, failed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the reason why each scan failed: its own step, or one of the anatomy that it needs.

    Steps of surfaces fail under a key of their own, since no scan needs them; except where surfaces name the cortex.
    """
    from tau_workflows.execution import nipype_engine as engine

    failures: dict[str, dict[str, Any]] = {}
    for name, node in failed.items():
        record, parts = {"step": _step(name), **engine.error_of(node)}, set(name.split("."))
        on_surfaces = is_surface_step(name.rsplit(".", 1)[-1])
        for t1w_job in job.t1ws if on_surfaces else ():
            if t1w_step(t1w_job.t1w) in parts:
                failures.setdefault(_surfaces_key(t1w_job), record)
        if on_surfaces and not _stops_tables(name, job):
            continue
        said = record["message"] + (_WITHOUT_FOLDS if on_surfaces else "")
        for key in _stopped_by(parts, job):
            failures.setdefault(key, {**record, "message": said})
    return failures


#: End of the error message of scans that need labels from a surface that failed.
_WITHOUT_FOLDS = "; --cortex-labels hybrid needs it: --cortex-labels volume makes the tables without surfaces"


def _surfaces_key(t1w_job: T1wJob) -> str:
    return f"{t1w_job.t1w.key}_surfaces"


def _stops_tables(step: str, job: ParticipantJob) -> bool:
    """Return whether a step of surfaces gives the labels of the cortex: one of the anatomy, with labels by folds."""
    given = [one.freesurfer for one in job.t1ws if t1w_step(one.t1w) in step.split(".")]
    return "anat_wf" in step.split(".") and any(names_cortex(job.settings, one) for one in given)


def _stopped_by(parts: set[str], job: ParticipantJob) -> tuple[str, ...]:
    """Return keys of the scans that a failed node stops: its own scan, all of its T1w, or all of the participant."""
    for t1w_job in job.t1ws:
        own = tuple(f"{scan.scan.key}_pet" for scan in t1w_job.scans if parts & set(scan_steps(scan.scan)))
        if own or t1w_step(t1w_job.t1w) in parts:
            return own or t1w_job.keys
    return job.keys


def _step(fullname: str) -> str:
    """Return a node's readable name: without the participant's and the T1w's workflow."""
    return " ".join(fullname.split(".")[2:]).replace("_wf", "") or fullname


def _times_path(job: ParticipantJob) -> Path:
    return job.execution.work_dir / "times" / f"sub-{job.participant}.json"


def _write_times(job: ParticipantJob, seconds: dict[str, float], total: float) -> None:
    steps = {_step(name): value for name, value in seconds.items()}
    content = {"participant_id": f"sub-{job.participant}", "total_s": round(total, 1), "steps_s": steps}
    write_json(content, _times_path(job))


def _ended(job: ParticipantJob, failures: Mapping[str, dict[str, Any]]) -> dict[str, ScanStatus]:
    """Return the state of each scan at the end. A T1w without PET is done, and no scan of the cohort."""
    minutes = _minutes(job)
    ended = {key: replace(_end_of(status, failures), minutes=minutes) for key, status in job.statuses().items()}
    for t1w_job in job.t1ws:
        record = failures.get(_surfaces_key(t1w_job), {})
        done = [key for key in t1w_job.keys if record and ended[key].state == "done"]
        ended |= {key: replace(ended[key], reason=f"done without surfaces: {record['message']}") for key in done}
    return ended


def _minutes(job: ParticipantJob, computed: bool = False) -> float | None:
    """Return how long the graph took; None if that is not known, or if ``computed`` and it only saved results."""
    if not _times_path(job).is_file():
        return None
    times = read_json(_times_path(job))
    if computed and all(step.split(" ")[-1].startswith("save_") for step in times["steps_s"]):
        return None
    return round(float(times["total_s"]) / 60, 2)


def _end_of(status: ScanStatus, failures: Mapping[str, dict[str, Any]]) -> ScanStatus:
    if status.scan in failures:
        return replace(status, reason=str(failures[status.scan]["message"]))
    if status.scan.endswith("_T1w"):
        return replace(status, state="skipped", reason="no PET for this T1w; anatomical processing only")
    return replace(status, state="done", reason="")


def _write_records(job: ParticipantJob, failures: Mapping[str, dict[str, Any]]) -> None:
    for key, record in failures.items():
        with suppress(OutputError):
            write_json({"scan": key, **record}, error_path(job.output_dir, key))


def conclude(job: ParticipantJob, job_file: str | Path, failures: Mapping[str, dict[str, Any]]) -> bool:
    """Write error records, states, report and outcome, in this order; returns whether nothing failed.

    A full disk must not hide why the task failed.
    """
    _write_records(job, failures)
    with suppress(TauPipelineError):
        update_status(job.output_dir, _ended(job, failures))
    failures = {**failures, **_write_report(job, failures)}
    write_json({"failures": {key: record["message"] for key, record in failures.items()}}, outcome_path(job_file))
    return not failures


def _write_report(job: ParticipantJob, failures: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Write the report, with the raw images of the scans that failed; returns a record if it cannot be written.

    Where there is neither an output nor an error record, there is nothing to report.
    """
    from tau_workflows.reports.about import write_about
    from tau_workflows.reports.failures import draw_headers
    from tau_workflows.reports.participant import write_participant_report

    draw_headers(job.bids_dir, job.output_dir, failures)
    minutes = _minutes(job, computed=True)
    with suppress(TauPipelineError):
        write_about(job.output_dir, job.participant, job.command, job.settings, job.execution, minutes)
    try:
        write_participant_report(job.output_dir, job.participant)
    except MissingInputError:
        return {}
    except TauPipelineError as exc:
        record = {_page_key(job): {"step": "report", "error": type(exc).__name__, "message": str(exc)}}
        _write_records(job, record)
        return record
    return {}


def _withdraw(job: ParticipantJob, keys: Collection[str]) -> None:
    """Delete maps and tables of scans or surfaces that failed: they are of an earlier run, or not complete."""
    for scan in (one.scan for t1w_job in job.t1ws for one in t1w_job.scans):
        if f"{scan.key}_pet" in keys:
            withdraw(PetNames(job.output_dir, scan.entities))
    for t1w_job in job.t1ws:
        if _surfaces_key(t1w_job) in keys:
            scans = [PetNames(job.output_dir, one.scan.entities) for one in t1w_job.scans]
            withdraw_surfaces(AnatNames(job.output_dir, t1w_job.t1w.entities), scans)


def preload() -> None:
    """Load what the nodes need, once, before Nipype forks its workers."""
    for module in PRELOADED:
        import_module(module)
    # Nipype collects garbage twenty times a second while it waits; what is loaded by now never becomes garbage.
    gc.freeze()


def main(job_file: str) -> int:
    """Read a job, run it, write the report; 0 when all its scans are done, else 1."""
    job: ParticipantJob = pickle.loads(Path(job_file).read_bytes())
    preload()
    try:
        failures = run_participant(job, job_file)
    except Exception as exc:
        # Whatever it is, the scans of this participant are not done, and the reason must reach the user.
        lines = traceback.format_exc().splitlines()
        record = {"step": "graph", "error": type(exc).__name__, "message": str(exc) or lines[-1], "traceback": lines}
        failures = dict.fromkeys(job.keys, record)
    _withdraw(job, failures)
    return 0 if conclude(job, job_file, failures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
