"""Preview of a run: a summary, and a table with one row per scan."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tau_pipeline.derivatives.names import PetNames
from tau_pipeline.derivatives.status import NOT_FINISHED, read_status
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import write_tsv
from tau_pipeline.settings.execution import Execution
from tau_pipeline.words import counted
from tau_workflows.graphs.job import ParticipantJob, ScanJob, T1wJob
from tau_workflows.plan.costs import Cost, cost, measured_speed
from tau_workflows.plan.earlier import anatomy_is_done, scan_is_done
from tau_workflows.plan.jobs import by_reason
from tau_workflows.plan.surfaces import makes_surfaces

if TYPE_CHECKING:
    import pandas as pd

_TO_DO, DONE, _IMPOSSIBLE, _LEFT_OUT = "to do", "done", "cannot be done", "left out"
#: Name of the table in the work folder; the output folder is left as it is.
TABLE = "dry_run.tsv"
COLUMNS = (
    *("scan", "state", "t1w", "window_min", "frames", "weights", "reference", "labels"),
    *("minutes", "memory_mb", "disk_mb", "notes"),
)
#: Those that are printed; the notes follow, each once.
_PRINTED = COLUMNS[:-3]


def tell_plan(
    jobs: Sequence[ParticipantJob],
    problems: Mapping[str, str],
    left_out: Mapping[str, str],
    execution: Execution,
    together: int,
) -> None:
    """Print what would be done, and write it as a table into the work folder if there or named.

    Parameters
    ----------
    jobs, problems, left_out
        What can be done, why each other scan cannot, and which are of a kind that is not used, by their keys.
    execution
        Where it would run.
    together
        How many participants would run at a time.
    """
    speed, runs = measured_speed(jobs)
    table = plan_table(jobs, problems, left_out, speed)
    # The default work folder is not made for it: a dry run leaves nothing behind where nobody named a place.
    wanted = execution.work_dir.is_dir() or execution.work_dir != Execution.work_dir.absolute()
    file = write_tsv(table, execution.work_dir / TABLE) if wanted else None
    source = f"scaled by {runs} earlier runs in {execution.work_dir / 'times'}" if runs else "as measured on two cores"
    lines = [
        *_summary(table, together, source),
        "",
        *_printed(table),
        "",
        *by_reason(zip(table["scan"], table["notes"], strict=True)),
    ]
    lines += [f"table: {file}"] if file else []
    sys.stdout.write("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace").decode("utf-8"))


def plan_table(
    jobs: Sequence[ParticipantJob],
    problems: Mapping[str, str],
    left_out: Mapping[str, str] = MappingProxyType({}),
    speed: float = 1.0,
) -> pd.DataFrame:
    """Report, one row per scan, what would be done, how, at what cost, and what is assumed or missing."""
    import pandas as pd

    rows = [row for job in jobs for row in _rows(job, speed)]
    rows += [{"scan": key, "state": _IMPOSSIBLE, "notes": message} for key, message in problems.items()]
    rows += [{"scan": key, "state": _LEFT_OUT, "notes": message} for key, message in left_out.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class _Row:
    """One scan, or the T1w where it has none, and what an earlier run left of it."""

    key: str
    done: bool
    cost: Cost
    before: str


def _rows(job: ParticipantJob, speed: float) -> Iterator[dict[str, Any]]:
    reasons = _earlier_reasons(job)
    for t1w_job in job.t1ws:
        anatomy = not anatomy_is_done(job, t1w_job)
        for scan_job in t1w_job.scans or (None,):
            key = f"{t1w_job.t1w.key}_T1w" if scan_job is None else f"{scan_job.scan.key}_pet"
            done = not anatomy and (scan_job is None or scan_is_done(job, t1w_job, scan_job))
            # The anatomy is shared by the scans of a T1w, and counted with the first of them.
            first = anatomy and scan_job in (None, *t1w_job.scans[:1])
            surfaces = makes_surfaces(job.settings, t1w_job.freesurfer)
            expected = cost(t1w_job, None if done else scan_job, anatomy=first, surfaces=surfaces, speed=speed)
            before = _before(job, scan_job, done) or reasons.get(key, "")
            yield _described(job, t1w_job, scan_job, _Row(key, done, expected, before))


def _described(job: ParticipantJob, t1w_job: T1wJob, scan_job: ScanJob | None, row: _Row) -> dict[str, Any]:
    freesurfer = t1w_job.freesurfer
    notes = [row.before, *t1w_job.t1w.assumptions, *(freesurfer.assumptions if freesurfer else ())]
    if scan_job is None:
        notes.append("No PET goes with this T1w; its anatomy is computed alone.")
    else:
        notes += [*scan_job.scan.assumptions, *scan_job.frames.assumptions]
    return {
        "scan": row.key,
        "state": DONE if row.done else _TO_DO,
        "t1w": t1w_job.t1w.path.name,
        "reference": " ".join(job.settings.ref_region),
        "labels": str(freesurfer.labels_file) if freesurfer else "tau-pipeline",
        "minutes": round(row.cost.minutes, 1),
        "memory_mb": round(row.cost.memory_mb),
        "disk_mb": round(row.cost.disk_mb),
        "notes": " ".join(dict.fromkeys(note for note in notes if note)),
        **(_frames_text(scan_job) if scan_job else {}),
    }


def _frames_text(job: ScanJob) -> dict[str, str]:
    window = job.frames.window
    return {
        "window_min": f"{window.start_min:g}-{window.end_min:g}",
        "frames": " ".join(map(str, job.frames.indices)),
        "weights": " ".join(f"{weight:.3f}" for weight in job.frames.weights),
    }


def _before(job: ParticipantJob, scan_job: ScanJob | None, done: bool) -> str:
    """Describe what an earlier run did, where this one would repeat or restore it."""
    if scan_job is None:
        return ""
    names = PetNames(job.output_dir, scan_job.scan.entities)
    there = names.suvr().is_file() and names.rois.is_file()
    if done and not there:
        return "Everything is computed; outputs that are missing will be put back from the work folder."
    if there and not done:
        return (
            "There is a result of an earlier run, with other inputs, settings, version or work folder; it will be "
            "replaced."
        )
    return ""


def _earlier_reasons(job: ParticipantJob) -> dict[str, str]:
    """Return the reasons why scans were not done by the last run."""
    try:
        records = read_status(job.output_dir, job.participant)
    except TauPipelineError:
        return {}
    return {
        key: f"The last run failed here: {record.reason}"
        for key, record in records.items()
        if record.state == "failed" and record.reason != NOT_FINISHED
    }


def _summary(table: pd.DataFrame, together: int, source: str) -> list[str]:
    counts = Counter(table["state"])
    parts = [f"{counts[state]} {state}" for state in (_TO_DO, DONE, _IMPOSSIBLE)]
    if counts[_LEFT_OUT]:
        parts.append(f"{counts[_LEFT_OUT]} {_LEFT_OUT}")
    to_do = table[table["state"] == _TO_DO]
    minutes, disk = float(to_do["minutes"].sum()), float(to_do["disk_mb"].sum())
    if to_do.empty:
        return [f"{counted(len(table), 'scan')}: {', '.join(parts)}"]
    memory = float(to_do["memory_mb"].max()) * together
    longest = max(minutes / together, float(to_do.groupby(to_do["scan"].str.split("_").str[0])["minutes"].sum().max()))
    return [
        f"{counted(len(table), 'scan')}: {', '.join(parts)}",
        f"expected: {_time(longest)} with {counted(together, 'participant')} at a time ({_time(minutes)} of "
        f"one; {source}),",
        f"{disk / 1000:.1f} GB of disk (work folder and output), {memory / 1000:.1f} GB of memory",
    ]


def _time(minutes: float) -> str:
    if minutes >= 120:
        return f"{minutes / 60:.1f} hours"
    return f"{counted(round(minutes), 'minute')}"


def _printed(table: pd.DataFrame) -> list[str]:
    """Format the table in columns, without the notes."""
    if table.empty:
        return []
    cells = table[list(_PRINTED)].astype(object).where(table[list(_PRINTED)].notna(), "n/a").astype(str)
    widths = [max(len(name), int(cells[name].str.len().max())) for name in _PRINTED]
    rows = [_PRINTED, *cells.itertuples(index=False, name=None)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
