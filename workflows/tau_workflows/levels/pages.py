"""Pages of participants that the level writes itself: without processing, and of scans that could not be started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tau_pipeline.derivatives.status import ScanStatus
from tau_pipeline.errors import TauPipelineError
from tau_workflows.levels.call import DONE, NOTHING_TO_DO, say
from tau_workflows.reports.failures import draw_headers
from tau_workflows.reports.participant import write_participant_report


def show_problems(problems: Mapping[str, str], bids_dir: Path, output_dir: Path) -> None:
    """Write the reports of participants with scans that could not be started, with pictures of their raw images."""
    draw_headers(bids_dir, output_dir, problems)
    for participant in sorted({ScanStatus(key).participant for key in problems}):
        try:
            write_participant_report(output_dir, participant)
        except TauPipelineError as exc:
            say(f"the report of sub-{participant} could not be written: {exc}")


def write_pages_again(participants: Iterable[str], problems: Mapping[str, str], output_dir: Path) -> int:
    """Write the report of each participant that has results; returns the exit code."""
    asked_for = {*participants, *(ScanStatus(key).participant for key in problems)}
    made = [one for one in sorted(asked_for) if (output_dir / f"sub-{one}").is_dir()]
    for participant in made:
        say(f"report: {write_participant_report(output_dir, participant)}")
    if not made:
        say(f"nothing to do: {output_dir} has no results of the selected participants; run without --reports-only")
    return DONE if made else NOTHING_TO_DO
