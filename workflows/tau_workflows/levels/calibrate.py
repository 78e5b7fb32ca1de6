"""The level calibrate: a Deming line of our values to the reference values of the same scans."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.errors import DamagedFileError, MissingInputError, SettingError
from tau_pipeline.files import read_tsv, write_json
from tau_pipeline.lock import exclusive_use
from tau_pipeline.measures.deming import deming_line
from tau_pipeline.settings.calibration import Calibration
from tau_pipeline.settings.configuration import Configuration
from tau_workflows.levels.call import DONE, check_call, say

if TYPE_CHECKING:
    import pandas as pd

_TEXTS = ("participant_id", "session_id", "scan", "tracer", "reference_region", "source", "included")


def run_calibration(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    """Fit the line and write ``group/calibration.json``; returns the exit code.

    Raises
    ------
    TauPipelineError
        The call is wrong, or the tables have too few scans in common; nothing was written.
    """
    bids_dir, output_dir = Path(bids_dir).absolute(), Path(output_dir).absolute()
    check_call(bids_dir, output_dir)
    found = calibration(output_dir / "group", config.calibration)
    slope, intercept = found["Slope"], found["Intercept"]
    say(
        f"{found['ReferenceColumn']} = {intercept:.4g} + {slope:.4g} * {found['MeasuredColumn']}, {found['N']} scans; "
        f"{found['Confidence']:.0%} intervals: slope {_span(found['SlopeInterval'])}, "
        f"intercept {_span(found['InterceptInterval'])}; r = {found['PearsonR']:.3f}"
    )
    if not config.execution.dry_run:
        with exclusive_use(output_dir, "calibrate", "give another folder"):
            say(f"calibration: {write_json(found, output_dir / 'group' / 'calibration.json')}")
    return DONE


def calibration(group: Path, settings: Calibration) -> dict[str, Any]:
    """Return the line from our values to the reference values, and what it was fitted on.

    Parameters
    ----------
    group
        Folder with the tables of the group level. Measured scans that count are used.
    settings
        Which columns.

    Raises
    ------
    SettingError
        A setting or column is missing, scans are of several tracers or reference regions, or too few are in both.
    """
    if settings.reference_table is None or settings.reference_column is None:
        raise SettingError("calibrate needs --reference-table FILE and --reference-column NAME")
    ours = _measured(group, settings.measured_column)
    theirs = read_tsv(settings.reference_table, ("participant_id", "session_id", "scan"))
    keys = ["scan"] if "scan" in theirs else [name for name in ("participant_id", "session_id") if name in theirs]
    if "session_id" in keys and theirs["session_id"].isna().all():
        keys.remove("session_id")
    if not {"scan", "participant_id"} & set(keys) or settings.reference_column not in theirs:
        raise SettingError(
            f"the reference table {settings.reference_table} has the columns {', '.join(map(str, theirs.columns))}; "
            f"expected: scan or participant_id, and {settings.reference_column}"
        )
    one, other = f"{settings.measured_column} (ours)", f"{settings.reference_column} (reference)"
    pairs = ours.rename(columns={settings.measured_column: one})[[*_present(ours), one]].merge(
        theirs.rename(columns={settings.reference_column: other})[[*keys, other]], on=keys
    )
    for name in (one, other):
        pairs[name] = _numbers(pairs[name], name)
    pairs = pairs.dropna(subset=[one, other])
    _refuse_mixed(pairs)
    if pairs["scan"].duplicated().any() or pairs[keys].duplicated().any():
        raise SettingError(f"a scan has several rows by {' and '.join(keys)}; give one row for each, by scan")
    line = asdict(deming_line(pairs[one], pairs[other], error_ratio=settings.error_ratio))
    return {
        "Description": "Deming line: reference = Intercept + Slope * measured; jackknife intervals",
        "MeasuredColumn": settings.measured_column,
        "ReferenceColumn": settings.reference_column,
        "ReferenceTable": settings.reference_table.name,
        "Tracer": str(pairs["tracer"].iloc[0]),
        **({"ReferenceRegion": str(pairs["reference_region"].iloc[0])} if "reference_region" in pairs else {}),
        **{"".join(part.capitalize() for part in name.split("_")): value for name, value in line.items()},
        "MeasuredRange": [float(pairs[one].min()), float(pairs[one].max())],
        "Scans": sorted(pairs["scan"]),
    }


def _span(interval: Any) -> str:
    low, high = interval
    return f"{low:.4g} to {high:.4g}"


def _present(table: pd.DataFrame) -> list[str]:
    return [name for name in _TEXTS if name in table]


def _measured(group: Path, column: str) -> pd.DataFrame:
    """Return the table that has our values, only measured scans that count.

    Raises
    ------
    MissingInputError
        The group level has not been run.
    SettingError
        No table has the column.
    """
    import pandas as pd

    wide = group / "suvr_rois_wide.csv"
    if not wide.is_file():
        raise MissingInputError(f"{wide} does not exist; run the group level first")
    tables = [read_tsv(group / "centaur.tsv", _TEXTS)] if (group / "centaur.tsv").is_file() else []
    tables.append(pd.read_csv(wide, dtype=dict.fromkeys(_TEXTS, "string")))
    found = next((table for table in tables if column in table), None)
    if found is None:
        raise SettingError(
            f"measured_column is {column!r}, which neither group/centaur.tsv nor group/suvr_rois_wide.csv has; "
            "universal_suvr and others need the group level with --centaur-masks"
        )
    if "source" in found:
        found = found[found["source"] == "measured"]
    return found[found["included"] == "yes"]


def _numbers(values: pd.Series, name: str) -> pd.Series:
    import pandas as pd

    try:
        return pd.to_numeric(values).astype(float)
    except (TypeError, ValueError) as exc:
        raise DamagedFileError(f"the column {name} has a value that is no number ({exc}); correct the table") from exc


def _refuse_mixed(pairs: pd.DataFrame) -> None:
    """Refuse scans whose values differ by more than errors.

    Raises
    ------
    SettingError
        They are of several tracers or reference regions.
    """
    for name in ("tracer", "reference_region"):
        if name in pairs and pairs[name].nunique() > 1:
            kinds = ", ".join(sorted(map(str, pairs[name].dropna().unique())))
            raise SettingError(
                f"the scans in both tables have several values of {name} ({kinds}); a line holds for one: give a "
                "reference table for one of them, by scan, in an output folder with one reference region"
            )
