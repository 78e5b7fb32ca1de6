"""The participant level: plan all jobs first, then run each participant in a separate process."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tau_pipeline.anatomy.freesurfer import parse_derivatives
from tau_pipeline.bids.filters import without_match
from tau_pipeline.bids.left_out import passed_over_folders
from tau_pipeline.bids.scans import find_participants
from tau_pipeline.bids.validator import validate
from tau_pipeline.derivatives.dataset import check_output_dir, write_dataset_files
from tau_pipeline.derivatives.names import PetNames, error_path, report_path
from tau_pipeline.derivatives.status import NOT_FINISHED, ScanStatus, note_interrupted, note_requested, update_status
from tau_pipeline.errors import OutputError
from tau_pipeline.files import complete_file, read_json, write_json
from tau_pipeline.pet.reference_region import parse_reference
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import Selection
from tau_pipeline.words import counted, form
from tau_workflows.execution.machine import available_memory_mb, available_processors
from tau_workflows.execution.participant import PRELOADED, conclude
from tau_workflows.execution.progress import shown
from tau_workflows.execution.task import NOT_BEGUN, Task, clear, ended_path, how_it_ended, outcome_path, read_progress
from tau_workflows.graphs.job import ParticipantJob
from tau_workflows.levels.call import DONE, NOTHING_TO_DO, SOME_FAILED, command_line, exclusive_run, say
from tau_workflows.levels.pages import show_problems, write_pages_again
from tau_workflows.levels.validation import Validation, say_validity, validated
from tau_workflows.plan.jobs import Plan, by_reason, plan_participants
from tau_workflows.plan.surfaces import check_surfaces, without_surfaces
from tau_workflows.reports.methods import write_methods
from tau_workflows.reports.quality import sentences_of

#: A participant takes less than this: 2.56 GB on the largest head that was measured, 274 x 384 x 384 voxels, before
#: steps worked on the box of the brain (benchmarks/README.md). It limits how many run at a time.
MEMORY_OF_ONE_MB = 3000
#: From this number of participants on, a run on some leaves the methods text, made of all sidecars, to the group.
_MANY_RESULTS = 200
#: State of a scan whose task of an array has not begun.
_WAITS = "not started: its task of the array job has not run"
#: What runs one participant, as `python -m MODULE JOB_FILE`.
MODULE = "tau_workflows.execution.participant"
#: Processes that one participant makes use of: the coregistration runs beside the registration to the template.
PROCESSES_OF_ONE = 2


def run_participants(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    """Process all selected scans; returns the exit code.

    Raises
    ------
    TauPipelineError
        The call or the dataset as a whole is wrong; nothing was computed.
    """
    started = time.monotonic()
    config = _resolved(config)
    check_surfaces(config)
    bids_dir, output_dir = bids_dir.absolute(), output_dir.absolute()
    _check_places(bids_dir, output_dir, config.execution)
    # A dry run writes nothing and may look at any time.
    if config.execution.dry_run:
        return _run(bids_dir, output_dir, config, started)
    advice = "give all participants to one run, or different ones to each with --participant-label"
    labels = config.selection.participant_label or None
    with exclusive_run("participant", (output_dir, advice), (config.execution.work_dir, advice), participants=labels):
        return _run(bids_dir, output_dir, config, started)


def _run(bids_dir: Path, output_dir: Path, config: Configuration, started: float) -> int:
    validation = Validation(bids_dir, config)
    participants = find_participants(bids_dir, config.selection)
    validation.check(len(participants))
    for sentence in without_match(participants, config.selection):
        say(sentence)
    plan = plan_participants(participants, bids_dir, output_dir, config)
    further = {} if config.selection.participant_label else passed_over_folders(bids_dir)
    jobs = tuple(replace(job, command=command_line()) for job in plan.jobs)
    plan = replace(plan, jobs=jobs, left_out={**further, **plan.left_out})
    if not (plan.jobs or plan.problems or plan.left_out):
        say("nothing to do: no T1w or PET image matches the selection options")
        return NOTHING_TO_DO
    if config.execution.dry_run:
        from tau_workflows.plan.dry_run import tell_plan

        together, *_ = shares(len(plan.jobs), config.execution)
        tell_plan(plan.jobs, plan.problems, plan.left_out, config.execution, together)
        return DONE
    write_dataset_files(output_dir, bids_dir, parse_derivatives(config.selection.derivatives))
    methods = _write_methods(output_dir, config)
    if config.execution.boilerplate_only:
        say(f"methods: {methods}")
        return DONE
    if config.execution.reports_only:
        return write_pages_again([job.participant for job in plan.jobs], plan.problems, output_dir)
    if config.execution.write_array is not None:
        return _write_array(plan, bids_dir, output_dir, config)
    _note_requested(plan, output_dir, config.selection)
    with _interruptions_noted(plan, output_dir):
        code = _compute(plan, bids_dir, output_dir, config, started)
    return validation.tell() or code


def _write_methods(output_dir: Path, config: Configuration) -> Path:
    """Write the methods text; a run on some participants of a large cohort keeps the one that is there."""
    file = output_dir / "logs" / "CITATION.md"
    some = config.selection.participant_label and file.is_file() and not config.execution.boilerplate_only
    if some and len(list((output_dir / "logs" / "status").glob("sub-*.json"))) >= _MANY_RESULTS:
        return file
    return write_methods(output_dir, config.settings)


def _write_array(plan: Plan, bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    """Write an array job for the participants that are not done, whose states are noted; computes nothing."""
    from tau_workflows.plan.array import unfinished, write_array

    labels = unfinished(plan.jobs)
    waiting = set(labels)
    jobs = tuple(job for job in plan.jobs if job.participant in waiting)
    _note_requested(replace(plan, jobs=jobs), output_dir, config.selection, _WAITS)
    show_problems(plan.problems, bids_dir, output_dir)
    if not labels:
        say(f"nothing to do: {len(plan.jobs)} of {counted(len(plan.jobs), 'participant')} done")
        return NOTHING_TO_DO
    execution = config.execution
    processes, memory_mb = execution.nprocs or PROCESSES_OF_ONE, execution.mem_mb or MEMORY_OF_ONE_MB
    file = write_array(labels, bids_dir, output_dir, config, processes, memory_mb)
    say(f"{len(labels)} of {counted(len(plan.jobs), 'participant')} to be computed; submit them with: bash {file}")
    return SOME_FAILED if plan.problems else DONE


def _note_requested(plan: Plan, output_dir: Path, selection: Selection, reason: str = NOT_FINISHED) -> None:
    """Write the states of all scans before the work begins, and say which will not be computed."""
    requested = {key: replace(status, reason=reason) for job in plan.jobs for key, status in job.statuses().items()}
    # With its stem a scan that cannot be begun replaces what an earlier run has left of it.
    requested |= {
        key: ScanStatus(key, reason=message, stem=key.removesuffix("_pet") if key.endswith("_pet") else "")
        for key, message in plan.problems.items()
    }
    requested |= {
        key: ScanStatus(key, state="skipped", reason=message, stem=key.removesuffix("_pet"))
        for key, message in plan.left_out.items()
    }
    for key in note_requested(output_dir, requested, selection):
        error_path(output_dir, key).unlink(missing_ok=True)
    for sentence in by_reason({**plan.left_out, **plan.problems}.items()):
        say(sentence)
    labels = [t1w_job.freesurfer is not None for job in plan.jobs for t1w_job in job.t1ws]
    if selection.derivatives and not all(labels):
        say(
            f"{labels.count(False)} of {counted(len(labels), 'T1w image')} "
            f"{form(labels.count(False), 'has', 'have')} no results in {', '.join(selection.derivatives)}; "
            "their labels are made by tau-pipeline (see the assumptions in their sidecars)"
        )
    if sentence := without_surfaces(plan.jobs):
        say(sentence)
    for key, message in plan.problems.items():
        write_json({"scan": key, "step": "input", "message": message}, error_path(output_dir, key))


@contextmanager
def _interruptions_noted(plan: Plan, output_dir: Path) -> Iterator[None]:
    """Note scans as interrupted that are not finished when the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        note_interrupted(output_dir, [job.participant for job in plan.jobs])
        raise


def _compute(plan: Plan, bids_dir: Path, output_dir: Path, config: Configuration, started: float) -> int:
    stopped = bool(plan.problems) and config.execution.stop_on_first_crash
    failures = {**plan.problems, **(_left_out(plan.jobs) if stopped else run_jobs(plan.jobs, config.execution))}
    _write_methods(output_dir, config)
    show_problems(plan.problems, bids_dir, output_dir)
    labels = config.selection.participant_label
    say_validity(validated(lambda: validate(output_dir, labels)), "the output")
    _summarize(plan, failures, output_dir, time.monotonic() - started)
    return SOME_FAILED if failures else DONE


def _known_plugin(file: Path) -> Path:
    """Return the file, once its content is known to be a plugin of Nipype."""
    from tau_workflows.execution.nipype_engine import check_plugin

    check_plugin(file)
    return file


def _resolved(config: Configuration) -> Configuration:
    """Return the configuration with canonical names of reference regions and absolute paths."""
    regions = tuple(dict.fromkeys(parse_reference(name) for name in config.settings.ref_region))
    return replace(
        config,
        settings=replace(config.settings, ref_region=regions),
        execution=replace(
            config.execution,
            work_dir=config.execution.work_dir.absolute(),
            use_plugin=config.execution.use_plugin and _known_plugin(config.execution.use_plugin.absolute()),
        ),
    )


def _check_places(bids_dir: Path, output_dir: Path, execution: Execution) -> None:
    """Refuse an input that is not there, and output or work folders that would write into it.

    Both folders are made; a dry run makes none.
    """
    work_dir = execution.work_dir
    check_output_dir(output_dir, bids_dir)
    inside = (work_dir.resolve(), *work_dir.resolve().parents)
    if bids_dir.resolve() in inside and output_dir.resolve() not in inside:
        raise OutputError(f"the work folder {work_dir} is inside the input; give another with --work-dir")
    if output_dir.resolve() in inside:
        raise OutputError(
            f"the work folder {work_dir} is inside the output, which its files would make invalid; give another with "
            "--work-dir"
        )
    for folder, what in ((output_dir, "output"), (work_dir, "work")):
        there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        if not there.is_dir():
            raise OutputError(f"the {what} folder {folder} cannot be made: {there} is a file; give another folder")
    for folder in () if execution.dry_run else (output_dir, work_dir):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise OutputError(f"cannot make the folder {folder}: {exc.strerror or exc}") from exc
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"no permission to write to {folder}; change it, or give another folder")


def run_jobs(jobs: Sequence[ParticipantJob], execution: Execution) -> dict[str, str]:
    """Run each participant in a separate process; returns why scans failed, by their keys."""
    if not jobs:
        return {}
    together, processes, memory_mb = shares(len(jobs), execution)
    inbox = execution.work_dir / "jobs"
    inbox.mkdir(parents=True, exist_ok=True)
    own = replace(execution, nprocs=processes, mem_mb=memory_mb)
    tasks = [
        Task(
            name=f"sub-{job.participant}",
            module=MODULE,
            job_file=inbox / f"sub-{job.participant}.pkl",
            memory_mb=memory_mb,
            processes=processes,
            threads=execution.omp_nthreads or 1,
            preload=PRELOADED,
        )
        for job in jobs
    ]
    by_name = {task.name: job for task, job in zip(tasks, jobs, strict=True)}

    def write_jobs(part: Sequence[Task]) -> None:
        for task in part:
            with complete_file(task.job_file) as partial:
                partial.write_bytes(pickle.dumps(replace(by_name[task.name], execution=own)))

    clear(tasks)
    from tau_workflows.execution.spread import spread

    try:
        with shown(tasks, "participant"):
            spread(tasks, execution, together, write_jobs)
    except KeyboardInterrupt:
        ended = {task.name for task in tasks if ended_path(task.job_file).is_file()}
        _all_failures([(job, task) for job, task in zip(jobs, tasks, strict=True) if task.name in ended])
        raise
    return _all_failures(list(zip(jobs, tasks, strict=True)))


def _all_failures(done: Sequence[tuple[ParticipantJob, Task]]) -> dict[str, str]:
    """Say why scans failed, by their keys; participants whose processes died get their records."""
    return {key: message for job, task in done for key, message in _failures(job, task.job_file).items()}


def shares(n_jobs: int, execution: Execution) -> tuple[int, int, int]:
    """Return the number of participants that run at a time, and processes and memory (MB) for each.

    On this machine memory is what is scarce, and what is given is shared by all. On a cluster each participant is a
    job, what is given is for one job, and the queue decides how many run.
    """
    if execution.worker != "cf":
        return n_jobs, execution.nprocs or PROCESSES_OF_ONE, execution.mem_mb or MEMORY_OF_ONE_MB
    processes = execution.nprocs or available_processors()
    memory_mb = execution.mem_mb or available_memory_mb()
    together = max(1, min(n_jobs, processes, memory_mb // MEMORY_OF_ONE_MB))
    return together, max(1, processes // together), memory_mb // together


def _failures(job: ParticipantJob, job_file: Path) -> dict[str, str]:
    """Return the reason why each scan of a participant failed. Only a scan that its process reported is done."""
    if outcome_path(job_file).is_file():
        return dict(read_json(outcome_path(job_file))["failures"])
    message = how_it_ended(job_file)
    if message == NOT_BEGUN:
        return _left_out([job])
    step = " and ".join(read_progress(job_file).running) or "process"
    record = {"step": step, "error": "Killed", "message": message}
    with suppress(OutputError):
        conclude(job, job_file, dict.fromkeys(job.keys, record))
    return dict.fromkeys(job.keys, message)


def _left_out(jobs: Sequence[ParticipantJob]) -> dict[str, str]:
    """Say of participants that they were not begun; nothing is known against them, so they get no error record."""
    for job in jobs:
        for key in job.keys:  # what an earlier run has left
            error_path(job.output_dir, key).unlink(missing_ok=True)
        statuses = {key: replace(status, reason=NOT_BEGUN) for key, status in job.statuses().items()}
        update_status(job.output_dir, statuses)
    return {key: NOT_BEGUN for job in jobs for key in job.keys}


def _summarize(plan: Plan, failures: Mapping[str, str], output_dir: Path, seconds: float) -> None:
    asked = {key for job in plan.jobs for key in job.keys} | set(plan.problems)
    done = sorted(asked - set(failures))
    say(f"{len(done)} of {counted(len(asked), 'scan')} done in {seconds / 60:.1f} minutes")
    _tell_quality(plan, failures, output_dir)
    for key, message in failures.items():
        record = error_path(output_dir, key)
        say(f"FAILED {key}: {message}" + (f" ({record.relative_to(output_dir)})" if record.is_file() else ""))
    say(f"tables: {output_dir}/sub-*/**/pet/*_desc-suvr_rois.tsv")
    asked_for = {job.participant for job in plan.jobs} | {ScanStatus(key).participant for key in plan.problems}
    for participant in sorted(asked_for):
        if report_path(output_dir, participant).is_file():
            say(f"report: {report_path(output_dir, participant)}")


def _tell_quality(plan: Plan, failures: Mapping[str, str], output_dir: Path) -> None:
    """Say which of the scans that are done fail or are doubtful, one line each, and how many."""
    scans = [one.scan for job in plan.jobs for t1w in job.t1ws for one in t1w.scans]
    done = [PetNames(output_dir, scan.entities) for scan in scans if f"{scan.key}_pet" not in failures]
    lines, counts = sentences_of(done)
    for line in lines:
        say(line)
    if counts:
        found = ", ".join(f"{counts[name]} {name}" for name in ("pass", "warn", "fail", "n/a") if name in counts)
        say(f"quality of {counted(sum(counts.values()), 'scan')}: {found}")
