"""Section ``[calibration]``: how our values are related to those of a reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tau_pipeline.settings.fields import Checked, documented


@dataclass(frozen=True)
class Calibration(Checked):
    """Settings of the level that fits a line of our values to reference values."""

    reference_table: Path | None = field(
        default=None,
        metadata=documented(
            "TSV file with reference values: a column scan, or participant_id and perhaps session_id, and the values. "
            "Required."
        ),
    )
    reference_column: str | None = field(
        default=None, metadata=documented("Column of the reference table with the values. Required.")
    )
    measured_column: str = field(
        default="universal_suvr",
        metadata=documented("Our values: a column of group/centaur.tsv or group/suvr_rois_wide.csv."),
    )
    error_ratio: float = field(
        default=1.0,
        metadata=documented(
            "Variance of the errors of the reference values over that of the errors of ours.",
            source="Linnet 1990, Stat Med 9:1463",
            above=0,
        ),
    )
