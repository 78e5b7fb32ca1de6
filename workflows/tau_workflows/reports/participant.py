"""One self-contained HTML report per participant.

The report is a query over files: figures, sidecars, tables and error records are found by their BIDS names under the
output folder, so that it can be written again at any time without computing anything. Images are embedded; the report
needs no network and no other file. The same files give the same report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tau_pipeline.derivatives.names import report_path
from tau_pipeline.errors import MissingInputError
from tau_pipeline.files import write_text
from tau_workflows.reports import html
from tau_workflows.reports.about import about_rows, read_about, suvr_scale
from tau_workflows.reports.methods import found, methods_text
from tau_workflows.reports.neighbors import cohort_parts, marked
from tau_workflows.reports.quality import boxes
from tau_workflows.reports.regions import AGREEMENT, COMPOSITES, IN_SUMMARY, MISSING
from tau_workflows.reports.scans import Scan, find_scans, is_synthetic, side_by_side
from tau_workflows.reports.verdicts import OVERRIDE_COLUMNS, decisions_of, override_rows


def write_participant_report(output_dir: Path, participant: str) -> Path:
    """Write ``OUTPUT_DIR/sub-XX.html`` from what lies under the output folder; returns its path.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    participant
        Label, with or without ``sub-``.

    Raises
    ------
    MissingInputError
        There is neither a folder nor an error record of that participant.
    OutputError
        The report cannot be written.
    """
    output_dir = Path(output_dir)
    label = "sub-" + participant.removeprefix("sub-")
    errors = own_error_records(output_dir, label)
    if not (output_dir / label).is_dir() and not errors:
        raise MissingInputError(
            f"{output_dir} contains neither a folder {label} nor an error record; run the participant level first"
        )
    about = read_about(output_dir, label.removeprefix("sub-"))
    decisions, problem = decisions_of(output_dir)
    scans = find_scans(output_dir, label, suvr_scale(about), decisions)
    failed = [scan for scan in scans if scan.failure]
    shown_elsewhere = {f"{scan.failure.scan}.json" for scan in failed if scan.failure}
    report = html.render(
        "participant.html.jinja",
        label=label,
        parts=marked(cohort_parts(output_dir, label.removeprefix("sub-"))),
        about=about_rows(about),
        override_problem=problem,
        override={"columns": OVERRIDE_COLUMNS, "rows": override_rows(output_dir), "root": "."},
        t1ws=[scan for scan in scans if scan.kind == "T1w"],
        pets=[scan for scan in scans if scan.kind == "pet"],
        measured=sum(scan.kind == "pet" and not is_synthetic(scan) for scan in scans),
        synthetic=sum(one["synthetic"] for scan in scans for one in scan.maps),
        failed=failed,
        quality=[] if problem else boxes([scan for scan in scans if scan.kind == "pet"], output_dir),
        errors=[record for record in errors if record["file"] not in shown_elsewhere],
        records={Path(record["file"]).stem: record["details"] for record in errors},
        methods=_methods(output_dir, label),
        software=_software(scans),
        composite_names={name: COMPOSITES[name] for name in IN_SUMMARY},
        agreement_columns={name: heading for name, (heading, _) in AGREEMENT.items()},
        side_by_side=side_by_side,
        missing=MISSING,
    )
    return write_text(report, report_path(output_dir, label.removeprefix("sub-")))


def _methods(output_dir: Path, label: str) -> list[tuple[str, list[str]]]:
    """Return the steps that ran for this participant; without sidecars, the steps that the run had planned."""
    facts = found(output_dir, label.removeprefix("sub-"))
    return html.blocks_of(methods_text(facts)) if facts else html.methods(output_dir)


def own_error_records(output_dir: Path, label: str) -> list[dict[str, str]]:
    """Return the error records of a participant: those whose name holds the whole label (``sub-1``, not ``sub-10``)."""
    own = re.compile(rf"(?<![A-Za-z0-9]){re.escape(label)}(?![A-Za-z0-9])")
    return [record for record in html.error_records(output_dir) if own.search(record["file"])]


def _software(scans: Iterable[Scan]) -> list[str]:
    """Name and version of what wrote the sidecars; more than one if they are from several runs."""
    named = [one["sidecar"] for scan in scans for one in scan.maps if "SoftwareName" in one["sidecar"]]
    return sorted({f"{sidecar['SoftwareName']} {sidecar.get('SoftwareVersion', '')}".strip() for sidecar in named})
