"""The group level: standardization by manufacturer, tables of the cohort, and the group report."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tau_pipeline.cohort.columns import STANDARDIZATION_COLUMNS
from tau_pipeline.cohort.demographics import Demographics, read_demographics
from tau_pipeline.cohort.long_files import LongTable, for_parquet, has_parquet, parts_folder
from tau_pipeline.cohort.maps import MapPlan, plan_maps, stale_maps, write_maps
from tau_pipeline.cohort.provenance import is_elsewhere, mixtures, refuse_mixtures, removed_from, repeated
from tau_pipeline.cohort.scans import is_included, left_out_text, without_failed
from tau_pipeline.cohort.standardize import Standardization, load_standardizations, save_standardizations
from tau_pipeline.cohort.tables import fit_cohort, require_scans
from tau_pipeline.derivatives.dataset import write_bidsignore
from tau_pipeline.derivatives.index import DoneScan, find_scans
from tau_pipeline.derivatives.kept_json import KeptJson
from tau_pipeline.derivatives.names import sidecar_path
from tau_pipeline.derivatives.quality_override import without_scan
from tau_pipeline.derivatives.status import ScanStatus, all_statuses
from tau_pipeline.errors import SettingError
from tau_pipeline.files import complete_file, write_changed, write_changed_table
from tau_pipeline.lock import exclusive_use
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import Selection
from tau_pipeline.words import counted, form
from tau_workflows.levels.call import DONE, SOME_FAILED, check_call, say
from tau_workflows.levels.group_tables import OPTIONAL, Cohort, Remarks, cohort_tables, described
from tau_workflows.levels.group_voxelwise import plan_voxelwise, write_voxelwise
from tau_workflows.reports.cohort import write_group_report
from tau_workflows.reports.cohort_warnings import counted_unbeaten
from tau_workflows.reports.methods import write_methods
from tau_workflows.reports.neighbors import refresh_pages

if TYPE_CHECKING:
    import pandas as pd

#: Contents of tables and their sidecars, and of other JSON files, as the last run read them
#: (`tau_pipeline.derivatives.kept`), in the output folder.
_KEPT, _KEPT_JSON = ".tau-pipeline-tables.npz", ".tau-pipeline-records.npz"
#: Why a scan whose raw image is gone is left out.
_REMOVED = "its raw image is no longer in the dataset, or .bidsignore names it"
#: Scans from which on the terminal says that Parquet files could be written.
_LARGE = 1000
#: Thresholds of `gc.set_threshold`: new objects, and collections of the younger generations.
_COLLECTED_AFTER = (100_000, 50, 100)


def run_group(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    """Make the cohort's tables, standardized maps and report; returns the exit code.

    Only files whose content changes are written.

    Raises
    ------
    TauPipelineError
        The call is wrong, or the cohort cannot be standardized as requested; nothing was written.
    """
    started = time.monotonic()
    bids_dir, output_dir = Path(bids_dir).absolute(), Path(output_dir).absolute()
    check_call(bids_dir, output_dir)
    _refuse_selection(config.selection)
    execution = config.execution
    again = execution.boilerplate_only or execution.reports_only
    if execution.dry_run:
        return _again(output_dir, execution) if again else _run(bids_dir, output_dir, config, started, None)
    with (
        exclusive_use(output_dir, "group", "give another folder"),
        parts_folder(output_dir) as parts,
        _rarely_collected(),
    ):
        return _again(output_dir, execution) if again else _run(bids_dir, output_dir, config, started, parts)


@contextmanager
def _rarely_collected() -> Iterator[None]:
    """Run the garbage collector rarely: it would look again and again at millions of objects that stay in use."""
    before = gc.get_threshold()
    gc.set_threshold(*_COLLECTED_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _again(output_dir: Path, execution: Execution) -> int:
    """Write the methods text or the pages again, if that is all that is asked for."""
    if execution.boilerplate_only:
        say(f"methods: {write_methods(output_dir)}")
    elif execution.reports_only:
        say(f"report: {write_group_report(output_dir)}")
        refresh_pages(output_dir, however_many=True)
    return DONE


def _run(bids_dir: Path, output_dir: Path, config: Configuration, started: float, parts: Path | None) -> int:
    kept_json = KeptJson(output_dir, output_dir / _KEPT_JSON)
    statuses = all_statuses(output_dir, kept_json.read)
    kept = (None, None) if parts is None else (output_dir / _KEPT, parts / _KEPT)
    found = find_scans(output_dir, config.group.exclude, *kept)
    scans, statuses = _without_removed(bids_dir, output_dir, found, statuses)
    # Scans that do not count would keep the rows of all tables in memory.
    del found
    include_failed = config.group.include_failed_quality
    mixed = mixtures(scan for scan in scans if is_included(scan, include_failed=include_failed))
    refuse_mixtures(mixed, allowed=config.group.allow_mixed_settings)
    stems = [scan.stem for scan in scans] + [status.stem for status in statuses.values()]
    for sentence in (*mixed, *_doubts(bids_dir, scans, config.group), *without_scan(scans[0].decisions, stems)):
        say(sentence)
    demographics = _demographics(bids_dir, config, scans)
    fits = _fits(scans, config.group)
    left_out = left_out_text(scans, include_failed=include_failed)
    processes = config.execution.nprocs or 1
    dry_run = config.execution.dry_run
    cohort = Cohort(bids_dir, scans, statuses, fits, demographics, config.group, processes, dry_run, parts)
    tables = cohort_tables(cohort)
    status = tables["status"]
    comparisons = plan_voxelwise(cohort)
    if config.execution.dry_run:
        return _tell_plan(len(scans), plan_maps(scans, fits, output_dir, kept_json.read))
    write_bidsignore(output_dir)
    _remove_stale_maps(scans, fits)
    failed = _write_maps(plan_maps(scans, fits, output_dir, kept_json.read), config.execution, kept_json)
    _write_tables(tables, fits, output_dir / "group", _remarks(scans, left_out), config.group)
    _keep(parts, output_dir)
    pages = write_voxelwise(comparisons, config.group, output_dir, processes)
    known = {sidecar_path(scan.suvr_file): scan.sidecar for scan in scans}
    n_maps = len(scans)
    # The page reads the tables again, and both together would take a third more memory.
    del tables, cohort, scans, comparisons
    report = _write_pages(output_dir, known, kept_json)
    _tell(status, fits, time.monotonic() - started)
    _tell_quality(status, left_out, include_failed=include_failed)
    _tell_parquet(n_maps)
    say(f"table: {output_dir / 'group' / 'suvr_rois.csv'}")
    say(f"table, one row per scan: {output_dir / 'group' / 'suvr_rois_wide.csv'}")
    say(f"report: {report}")
    for page in pages:
        say(f"voxelwise comparison: {page}")
    for scan, reason in failed.items():
        say(f"FAILED {scan}: its standardized map was not written: {reason}")
    return SOME_FAILED if failed or status["state"].isin(["failed", "interrupted"]).any() else DONE


def _tell_plan(n_scans: int, plans: Sequence[MapPlan]) -> int:
    """Say what a run would write; returns the exit code."""
    say(f"{counted(n_scans, 'SUVR map')}; standardized maps to write: {len(plans)}")
    return DONE


def _write_pages(output_dir: Path, known: Mapping[Path, Mapping[str, Any]], kept_json: KeptJson) -> Path:
    """Write the methods text and the report, whose path is returned; ``known`` sidecars are not read again."""

    def read(path: Path) -> Mapping[str, Any]:
        return known.get(path) or kept_json.read(path)

    write_methods(output_dir, read=read)
    report = write_group_report(output_dir, read)
    kept_json.write(output_dir / _KEPT_JSON)
    return report


def _keep(parts: Path | None, output_dir: Path) -> None:
    """Keep what was read for the next run, now that all tables have been made."""
    if parts is not None and (parts / _KEPT).is_file():
        (parts / _KEPT).replace(output_dir / _KEPT)


def _without_removed(
    bids_dir: Path, output_dir: Path, found: Sequence[DoneScan], statuses: Mapping[str, ScanStatus]
) -> tuple[list[DoneScan], dict[str, ScanStatus]]:
    """Leave out scans that failed, and those whose raw image is no longer in the dataset; their states say so.

    Raises
    ------
    MissingInputError
        No scan is left.
    """
    scans = without_failed(found, statuses)
    gone = {(scan.stem, scan.source) for scan in removed_from(bids_dir, scans)}
    told = {
        key: replace(status, state="skipped", reason=_REMOVED)
        for key, status in statuses.items()
        if (status.stem, status.source) in gone
    }
    for stem, _ in sorted(gone):
        say(f"{stem} is left out: {_REMOVED}")
    left = [scan for scan in scans if (scan.stem, scan.source) not in gone]
    require_scans(left, output_dir, sorted({scan.stem for scan in found}))
    return left, {**statuses, **told}


def _doubts(bids_dir: Path, scans: Sequence[DoneScan], settings: Group) -> list[str]:
    """Say what is odd about the scans that are there."""
    found = repeated(scan for scan in scans if is_included(scan, include_failed=settings.include_failed_quality))
    if is_elsewhere(bids_dir, scans):
        found.append(
            f"none of the raw images is in {bids_dir}, so that it is not known which scans were removed from the "
            "dataset; give the dataset that the scans were made from"
        )

    def listed(stems: Sequence[str]) -> str:
        return ", ".join(stems[:3]) + (f" and {len(stems) - 3} more" if len(stems) > 3 else "")

    without = sorted({scan.stem for scan in scans if not scan.suvr_file.is_file()})
    if without:
        found.append(
            f"{len(without)} of {counted(len({scan.stem for scan in scans}), 'scan')} "
            f"{form(len(without), 'has', 'have')} no SUVR map any more, so that no "
            f"standardized map is written for them: {listed(without)}"
        )
    lengths = {scan: len(scan.place.rows) for scan in scans if scan.place is not None}
    short = sorted({scan.stem for scan, length in lengths.items() if length < max(lengths.values())})
    if short:
        have = f"{counted(len(short), 'scan')} {form(len(short), 'has', 'have')}"
        found.append(
            f"the {form(len(short), 'table', 'tables')} of {have} fewer regions than the others: {listed(short)}. If "
            f"cut off, remove {form(len(short), 'it', 'them')} and run the participant level again"
        )
    return found


def _demographics(bids_dir: Path, config: Configuration, scans: Sequence[DoneScan]) -> Demographics:
    """Read age, sex and diagnosis, and say what is missing or was read in a certain way."""
    found = read_demographics(bids_dir, config.group.diagnosis_column)
    sessions = [(scan.participant_id, str(scan.session_id)) for scan in scans]
    for sentence in (*found.notes, *found.gaps(sessions)):
        say(sentence)
    return found


def _refuse_selection(selection: Selection) -> None:
    """Refuse a selection, which only a settings file can give here: the tables of this level contain all scans.

    Raises
    ------
    SettingError
        A setting of the section is not its default.
    """
    given = [item.name for item in fields(selection) if getattr(selection, item.name) != item.default]
    if given:
        raise SettingError(
            f"[selection] sets {', '.join(given)}, which the group level does not read, since its tables contain all "
            "scans; remove the section for this level. fit_participants in [group] selects the participants for the fit"
        )


def _fits(scans: Sequence[DoneScan], group: Group) -> list[Standardization]:
    if group.standardization is not None:
        fits = load_standardizations(group.standardization)
    else:
        fits = fit_cohort(scans, group)
    return [fit.with_unknown(group.unknown_manufacturer) for fit in fits]


def _remove_stale_maps(scans: Sequence[DoneScan], fits: Sequence[Standardization]) -> None:
    for path in stale_maps(scans, fits):
        for old in (path, sidecar_path(path)):
            old.unlink(missing_ok=True)


def _write_maps(plans: Sequence[MapPlan], execution: Execution, kept_json: KeptJson) -> Mapping[str, Exception]:
    from tqdm import tqdm

    processes = execution.nprocs or psutil.cpu_count() or 1
    quiet = not plans or not sys.stderr.isatty()
    with tqdm(total=len(plans), desc="standardized maps", unit="map", disable=quiet) as bar:
        failed = write_maps(plans, processes, bar.update)
    for plan in plans:
        if plan.scan.stem not in failed:
            kept_json.note(sidecar_path(plan.target), plan.sidecar)
    if plans:
        say(f"{len(plans) - len(failed)} of {counted(len(plans), 'standardized map')} written")
    return failed


def _write_tables(
    tables: Mapping[str, pd.DataFrame | LongTable],
    fits: Sequence[Standardization],
    folder: Path,
    remarks: Remarks,
    settings: Group,
) -> None:
    """Write each table as TSV for BIDS and as CSV for statistics, with its data dictionary."""
    for name, table in tables.items():
        head = table.head if isinstance(table, LongTable) else table
        if isinstance(table, LongTable):
            table.place(folder)
        else:
            _write_short(name, table, folder)
        if head is not None:
            write_dictionary(described(name, head, remarks, settings), folder / f"{name}.json")
    for path in [folder / f"{name}.{ending}" for name in OPTIONAL for ending in ("tsv", "csv", "json")]:
        if path.stem not in tables:
            path.unlink(missing_ok=True)
    if fits:
        new = folder / ".standardization.tsv"
        save_standardizations(fits, new)
        write_changed(new.read_text(encoding="utf-8"), folder / "standardization.tsv")
        new.unlink()
        participants = {**STANDARDIZATION_COLUMNS["n_participants"], "LeftOut": remarks.left_out or "none"}
        write_dictionary({**STANDARDIZATION_COLUMNS, "n_participants": participants}, folder / "standardization.json")


def _remarks(scans: Sequence[DoneScan], left_out: str) -> Remarks:
    synthetic = [scan.sidecar for scan in scans if scan.source == "synthetic"]
    return Remarks(left_out, tuple(counted_unbeaten(synthetic)))


def _write_short(name: str, table: pd.DataFrame, folder: Path) -> None:
    if not name.endswith("_wide"):
        write_changed_table(table, folder / f"{name}.tsv")
    if name != "status":
        # An empty cell is what pandas, R and Excel all take as missing.
        write_changed_table(table, folder / f"{name}.csv", ",", "")
    parquet = folder / f"{name}.parquet"
    if name.endswith("_wide") and has_parquet():
        with complete_file(parquet) as partial:
            for_parquet(table).to_parquet(partial, compression="zstd", index=False)
    else:
        # Of an earlier run, with other rows.
        parquet.unlink(missing_ok=True)


def write_dictionary(columns: Mapping[str, Any], path: Path) -> None:
    """Write a data dictionary, unless it is there already."""
    import json

    write_changed(json.dumps(columns, indent=2, ensure_ascii=False) + "\n", path)


def _tell_quality(status: pd.DataFrame, left_out: str, *, include_failed: bool) -> None:
    """Say which scans fail or are doubtful, one line each, and how many are left out."""
    for verdict, column in (("fail", "quality_failed"), ("warn", "quality_warned")):
        for row in status[(status["quality"] == verdict).fillna(False)].to_dict("records"):
            say(f"QUALITY {verdict.upper()} {row['scan']} ({row['source']}): {row[column]}")
    if left_out:
        say(left_out)
    if include_failed and (status["quality"] == "fail").any():
        say("scans of failed quality are included, as requested (--include-failed-quality)")
    elif "failed quality" in left_out:
        say("--include-failed-quality includes those of failed quality")


def _tell_parquet(n_scans: int) -> None:
    if n_scans >= _LARGE and not has_parquet():
        say("pip install tau-pipeline[parquet] adds the tables as Parquet, which is much faster to read than CSV")


def _tell(status: pd.DataFrame, fits: Sequence[Standardization], seconds: float) -> None:
    passed_over = status["scan"].str.contains("/", regex=False)
    for source, what in (("measured", "scan"), ("synthetic", "synthetic scan")):
        own = status[(status["source"] == source).fillna(False) & ~passed_over]
        counts = ", ".join(f"{n} {state}" for state, n in own["state"].value_counts().items())
        if len(own):
            say(f"{counted(len(own), what)}: {counts}")
    if passed_over.any():
        say(
            f"{counted(int(passed_over.sum()), 'image or folder', 'images and folders')} left out; see group/status.tsv"
        )
    say(f"done in {seconds:.0f} s")
    for fit in fits:
        groups = ", ".join(f"{name} {len(group.participants)}" for name, group in fit.groups.items()) or "none"
        pooled = f", others by all {len(fit.participants)} together" if fit.unknown == "pooled" else ""
        kind = f"{fit.tracer or 'tracer not stated'}, {fit.reference_region}"
        say(f"standardized by manufacturer ({kind}): {groups}{pooled}")
    without = int(((status["state"] == "done") & status["cortex_p90_standardized"].isna()).sum())
    if without:
        have = f"{counted(without, 'scan')} {form(without, 'has', 'have')}"
        say(f"{have} no standardized values; see standardization.tsv for the manufacturers fitted")
