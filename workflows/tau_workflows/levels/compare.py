"""The train level with ``--compare``: systems, losses and normalizations, fold by fold, and what comes of them.

Every run is one training and the test of its model, has a folder and a row, and is spread over processes or a cluster.
The same command again does only what is missing.
"""

from __future__ import annotations

import pickle
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.derivatives.dataset import write_bidsignore
from tau_pipeline.files import complete_file, read_json, write_json, write_tsv
from tau_pipeline.lock import exclusive_use
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.synthesis.comparison.runs import (
    Run,
    baselines_of,
    check_comparison,
    evenly_spread,
    runs_of,
    settings_of,
)
from tau_pipeline.words import counted
from tau_workflows.execution.machine import available_memory_mb, available_processors
from tau_workflows.execution.progress import repeated
from tau_workflows.execution.spread import spread
from tau_workflows.execution.task import Task, how_it_ended, outcome_path
from tau_workflows.graphs.training_memory import APPLYING_GB, training_gb
from tau_workflows.levels.call import DONE, NOTHING_TO_DO, SOME_FAILED, check_call, say
from tau_workflows.levels.comparison_plan import RECORD, Plan, check_folder, record_of
from tau_workflows.levels.train import chosen_pairs

if TYPE_CHECKING:
    import pandas as pd

    from tau_workflows.execution.comparison_runs import PlannedRun


#: Where the comparisons lie in the output folder.
FOLDER = "comparisons"


def run_comparison(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    """Do all runs of a comparison that are not done, then its tables and report; returns the exit code.

    Parameters
    ----------
    bids_dir, output_dir
        As at the level train.
    config
        Read here: ``comparison``, ``training``, the scores' settings of ``synthesis`` (``suvr_range``, ``hot_suvr``,
        ``lesion_volume``), and what the level train reads; ``worker``, ``worker_args``, ``nprocs``, ``omp_nthreads``,
        ``mem_mb``, ``stop_on_first_crash``, ``dry_run``, ``reports_only``.

    Raises
    ------
    TauPipelineError
        The call or the data are wrong; nothing was trained.
    """
    from tau_workflows.reports.comparison import write_comparison_report

    started = time.monotonic()
    bids_dir, output_dir = Path(bids_dir).absolute(), Path(output_dir).absolute()
    check_call(bids_dir, output_dir)
    check_comparison(config.comparison, config.training)
    folder = output_dir / FOLDER / config.comparison.comparison_name
    if config.execution.reports_only:
        say(f"report: {write_comparison_report(folder, output_dir)}")
        return DONE
    plan, splits = _plan(bids_dir, output_dir, config, folder)
    record = record_of(plan, splits, bids_dir, output_dir)
    check_folder(folder, record)
    if config.execution.dry_run:
        _tell_plan(plan)
        return DONE
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_use(folder, "train", "give the comparison another --comparison-name"):
        write_bidsignore(output_dir)
        from tau_pipeline.synthesis.data.splits import save_splits

        for number, table in enumerate(splits):
            save_splits(table, folder / "splits" / f"fold{number}.tsv")
        write_json(record, folder / RECORD)
        waiting = [run for run in plan.settings if plan.row(run) is None]
        failures = _do_all(plan, waiting)
        write_tsv(_row_table(plan, failures), folder / "runs.tsv")
        report = write_comparison_report(folder, output_dir)
    _summarize(plan, failures, len(waiting), time.monotonic() - started)
    say(f"tables: {folder}/summary.csv, tests.csv, runs.csv")
    say(f"report: {report}")
    return SOME_FAILED if failures else DONE if waiting else NOTHING_TO_DO


def _plan(bids_dir: Path, output_dir: Path, config: Configuration, folder: Path) -> tuple[Plan, Sequence[pd.DataFrame]]:
    """Decide what is to be done, and refuse now what would fail later."""
    pairs = chosen_pairs(bids_dir, output_dir, config).pairs
    # Only here, so that a wrong call is answered before torch is loaded.
    from tau_pipeline.synthesis.comparison import preparation
    from tau_pipeline.synthesis.comparison.one_run import ComparisonContext
    from tau_pipeline.synthesis.data.splits import pairs_of_split
    from tau_pipeline.synthesis.model.predict import chosen_device
    from tau_pipeline.synthesis.training.optimization import autocast

    chosen, training, random_seed = config.comparison, config.training, config.settings.random_seed
    autocast(training, chosen_device(training.device))
    preparation.check_tables(pairs)
    splits = preparation.fold_splits(pairs, training.folds, random_seed, chosen.validation_fold)
    if "by-manufacturer" in chosen.target_scalings:
        preparation.check_folds(splits, config.group)
    if training.cache_dir is None:
        training = replace(training, cache_dir=config.execution.work_dir.absolute() / "synthesis_cache")
    settings = {
        run: preparation.with_grid_shape(settings_of(run, training, chosen, folder / "splits" / f"fold{run.fold}.tsv"))
        for run in runs_of(chosen, training.folds)
    }
    preparation.check_features(list(settings.values()))
    tested = preparation.most_tau_first(pairs_of_split(pairs, splits[0], "test"))
    context = ComparisonContext(
        folder=folder,
        pairs=tuple(pairs),
        random_seed=random_seed,
        cohort=config.group,
        synthesis=config.synthesis,
        drawn=evenly_spread([pair.scan for pair in tested], chosen.drawn_scans),
        device=training.device,
    )
    return Plan(context, settings, baselines_of(chosen, training.folds), config), splits


def _tell_plan(plan: Plan) -> None:
    """Print a row for each run: what it is and whether it is done."""
    lines = ["run\tsystem\tloss\ttarget_scaling\tfold\tgrid\tstate"]
    for run, settings in plan.settings.items():
        state = "to do" if plan.row(run) is None else "done"
        grid = "x".join(map(str, settings.grid_shape))
        lines.append("\t".join([run.name, run.system, run.loss, run.target_scaling, str(run.fold), grid, state]))
    sys.stdout.write("\n".join(lines) + "\n")


def _do_all(plan: Plan, waiting: Sequence[Run]) -> dict[str, str]:
    """Do the trainings, then the trivial predictors of each fold; returns why runs failed, by their names."""
    from tau_workflows.execution.comparison_runs import PlannedRun

    if waiting:
        say(f"{len(plan.settings) - len(waiting)} of {counted(len(plan.settings), 'run')} done; {len(waiting)} to do")
    failures = _do(plan, [PlannedRun(run, plan.settings[run]) for run in waiting])
    planned = []
    for run in plan.baselines:
        if plan.row(run) is None:
            source_model = next((one for one in plan.trainings_of(run) if plan.row(one) is not None), None)
            if source_model is None:
                failures[run.name] = "no training of this fold and SUVR scaling is complete"
            else:
                planned.append(PlannedRun(run, plan.settings_for(run), plan.context.run_dir(source_model) / "model"))
    return failures | _do(plan, planned)


def _do(plan: Plan, planned: Sequence[PlannedRun]) -> dict[str, str]:
    """Spread planned over processes; returns why runs failed."""
    from tau_workflows.execution.comparison_runs import ComparisonJob

    if not planned:
        return {}
    execution, chosen = plan.config.execution, plan.config.comparison
    together, threads, memory_mb = _shares(plan, len(planned))
    inbox = execution.work_dir.absolute() / "comparison" / chosen.comparison_name
    shutil.rmtree(inbox, ignore_errors=True)
    inbox.mkdir(parents=True)
    tasks, jobs = [], []
    for start in range(0, len(planned), chosen.runs_per_process):
        own = tuple(planned[start : start + chosen.runs_per_process])
        job = ComparisonJob(own, plan.context, threads, execution.stop_on_first_crash)
        task = Task(
            name=own[0].run.name,
            module="tau_workflows.execution.comparison_runs",
            job_file=inbox / f"{own[0].run.name}.pkl",
            memory_mb=memory_mb,
            processes=threads,
            threads=threads,
        )
        with complete_file(task.job_file) as partial:
            partial.write_bytes(pickle.dumps(job))
        tasks.append(task)
        jobs.append(job)
    with _telling(plan, [one.run for one in planned]):
        spread(tasks, execution, together)
    failures: dict[str, str] = {}
    for job, task in zip(jobs, tasks, strict=True):
        failures |= _failures(plan, job.planned, task.job_file)
    return failures


def _shares(plan: Plan, n_tasks: int) -> tuple[int, int, int]:
    """Return the number of processes that run at a time, and threads and memory (MB) for each."""
    from tau_pipeline.synthesis.model.predict import chosen_device

    execution = plan.config.execution
    # A run trains, and then applies its model to whole heads.
    need_gb = [training_gb(settings, settings.grid_shape) for settings in plan.settings.values()]
    memory_mb = round(1000 * max(*need_gb, APPLYING_GB[plan.config.training.network_preset]))
    if execution.worker != "cf":
        return n_tasks, execution.omp_nthreads or execution.nprocs or 1, execution.mem_mb or memory_mb
    processors = execution.nprocs or available_processors()
    fitting = (execution.mem_mb or available_memory_mb()) // memory_mb
    on_gpu = chosen_device(plan.config.training.device).type == "cuda"
    # A GPU is one training's at a time, unless somebody says how many may share it.
    together = max(1, min(n_tasks, processors if not on_gpu or execution.nprocs else 1, fitting))
    return together, execution.omp_nthreads or max(1, processors // together), memory_mb


def _failures(plan: Plan, planned: Sequence[PlannedRun], job_file: Path) -> dict[str, str]:
    """Return the reason why each run of a process failed. Only a run with a row is done."""
    said: dict[str, str] = {}
    for path in (job_file.with_suffix(".failed.json"), outcome_path(job_file)):
        if path.is_file():
            said |= read_json(path)["failures"]
    missing = [one.run for one in planned if plan.row(one.run) is None]
    if not missing:
        return {}
    ended_well = outcome_path(job_file).is_file()
    reason = "not begun, since an earlier run failed" if ended_well else how_it_ended(job_file)
    return {run.name: said.get(run.name, reason) for run in missing}


@contextmanager
def _telling(plan: Plan, runs: Sequence[Run], every_s: float = 2.0) -> Iterator[None]:
    """Say each run that has been done, with the time that is left, while the block runs."""
    started, waiting = time.monotonic(), list(runs)

    def look() -> None:
        for run in [run for run in waiting if (plan.context.run_dir(run) / "row.json").is_file()]:
            row = plan.row(run)
            if row is None:
                continue
            waiting.remove(run)
            count = len(runs) - len(waiting)
            left_min = (time.monotonic() - started) / count * len(waiting) / 60
            say(f"[{count} of {len(runs)}] {run.description}: {_done_text(row)}; about {left_min:.0f} min left")

    with repeated(look, every_s):
        yield


def _done_text(row: Mapping[str, Any]) -> str:
    """Say how long a run took, without scores: those of its baselines do not exist yet."""
    if "ssim" not in row.get("means", {}):
        return "scored"
    return f"done in {row['training']['seconds'] + row['scoring']['seconds']:.0f} s"


def _row_table(plan: Plan, failures: Mapping[str, str]) -> pd.DataFrame:
    """Return one row per run: its settings, status, duration, and mean scores."""
    import pandas as pd

    rows = []
    for run in (*plan.settings, *plan.baselines):
        found = plan.row(run) or {"state": "failed", "reason": failures.get(run.name, "not done")}
        flat = {key: value for key, value in found.items() if not isinstance(value, dict | list)}
        times = {
            f"{part}_{unit}": found.get(part, {}).get(unit)
            for part in ("training", "scoring")
            for unit in ("seconds", "processor_seconds")
        }
        own = {"run": run.name, "system": run.system, "loss": run.loss, "target_scaling": run.target_scaling}
        rows.append({**own, "fold": run.fold, "reason": None, **flat, **times, **found.get("means", {})})
    return pd.DataFrame(rows).drop(columns=["identity"], errors="ignore")


def _summarize(plan: Plan, failures: Mapping[str, str], n_asked: int, seconds: float) -> None:
    done = sum(plan.row(run) is not None for run in plan.settings)
    say(f"{done} of {counted(len(plan.settings), 'run')} done, {n_asked} to do, in {seconds / 60:.1f} minutes")
    for name, message in failures.items():
        say(f"FAILED {name}: {message}")
