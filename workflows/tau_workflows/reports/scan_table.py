"""Show the table of scans of the cohort report: which columns, and each cell as text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tau_pipeline
from tau_pipeline.derivatives.quality_measures import IN_TABLE
from tau_pipeline.figures.cohort import OUTLIER_Z
from tau_workflows.reports.cohort_warnings import options
from tau_workflows.reports.links import scan_link

if TYPE_CHECKING:
    import pandas as pd

MISSING = "n/a"
#: Rows of a page; each takes 1.5 to 2.5 kB of it.
_MOST_ROWS = 1000


@dataclass(frozen=True)
class Column:
    """A column of the table of scans: its name in ``status.tsv``, heading, unit, format, and its z-score if any.

    ``form`` is empty for text. A ``core`` column is shown even if no scan has a value.
    """

    name: str
    heading: str
    unit: str = ""
    form: str = ""
    z: str = ""
    core: bool = False


COLUMNS = (
    Column("scan", "Scan", core=True),
    Column("state", "State", core=True),
    Column("quality", "Quality"),
    Column("source", "Source"),
    Column("tracer", "Tracer"),
    Column("reference_region", "Reference region"),
    Column("manufacturer", "Manufacturer", core=True),
    Column("diagnosis", "Diagnosis", core=True),
    Column("age", "Age", "years", ".0f"),
    Column("sex", "Sex"),
    Column("largest_z", "Largest |z|", "", ".1f", core=True),
    *(
        Column(one.column, one.short_heading, one.short_unit, one.digits, one.outlier, one.core)
        for one in IN_TABLE
        if one.short_heading
    ),
    Column("n_assumptions", "Assumed", "values", ".0f"),
    Column("minutes", "Time", "min", ".1f"),
)
#: Columns that are left out, and said above the table, when all scans have the same value.
_SAID_ONCE = ("source", "tracer", "reference_region")
#: Columns by which the table can be filtered with a list.
FILTERS = ("manufacturer", "diagnosis", "state", "quality", "source")


@dataclass(frozen=True)
class Cell:
    """A cell of the table of scans: its text, the number to sort by (empty for text or n/a), and what stands below."""

    text: str
    sort: str = ""
    below: str = ""
    outlier: bool = False
    link: str = ""


def table_pages(status: pd.DataFrame, output_dir: Path) -> list[dict[str, Any]]:
    """Return what the template of the table of scans needs, one after the other for each page of it.

    All scans of a cohort of up to `_MOST_ROWS` are on one page, ``report.html``.
    """
    starts = range(0, max(len(status), 1), _MOST_ROWS)
    names = [f"scans-{number}.html" if number > 1 else "report.html" for number, _ in enumerate(starts, 1)]
    known: dict[str, Any] = {
        "columns": shown_columns(status),
        "about_columns": about_columns(status),
        "filters": [(name, options(status[name])) for name in FILTERS],
        "outlier_z": OUTLIER_Z,
        "missing": MISSING,
        "total_scans": len(status),
        "version": tau_pipeline.__version__,
    }
    found = []
    for start, name in zip(starts, names, strict=True):
        rows = rows_of(status.iloc[start : start + _MOST_ROWS], known["columns"], output_dir)
        links = [{"name": number, "link": other, "here": other == name} for number, other in enumerate(names, 1)]
        title = f"{start + 1} to {start + len(rows)}"
        found.append({**known, "rows": rows, "pages": links, "file": name, "title": title})
    return found


def shown_columns(status: pd.DataFrame) -> list[Column]:
    """Return the columns in which a scan has a value, without those that are stated once."""
    same = _same_for_all(status)
    return [column for column in COLUMNS if column.core or (status[column.name].notna().any() and column not in same)]


def _same_for_all(status: pd.DataFrame) -> list[Column]:
    return [column for column in COLUMNS if column.name in _SAID_ONCE and len(set(status[column.name].dropna())) == 1]


def about_columns(status: pd.DataFrame) -> list[str]:
    """Return sentences on what the table of scans omits or lacks."""
    same = [f"{column.heading.lower()} {status[column.name].dropna().iloc[0]}" for column in _same_for_all(status)]
    empty = [column.heading.lower() for column in COLUMNS if not column.core and status[column.name].isna().all()]
    found = [f"All scans: {', '.join(same)}."] if same else []
    return found + ([f"Not shown because no scan has a value: {', '.join(empty)}."] if empty else [])


def rows_of(status: pd.DataFrame, columns: list[Column], output_dir: Path) -> list[dict[str, Any]]:
    """Return columns of the table of scans as text."""
    pairs = zip(status["scan"], status["participant_id"], strict=True)
    links = {scan: scan_link(str(scan), output_dir, "" if is_missing(who) else str(who)) for scan, who in pairs}
    return [
        {
            "pairs": [(column, _cell(column, record, links)) for column in columns],
            "filters": {name: "" if is_missing(record[name]) else str(record[name]) for name in FILTERS},
            "scan": str(record["scan"]),
            "outlier": not is_missing(record["largest_z"]) and record["largest_z"] > OUTLIER_Z,
        }
        for record in status.to_dict("records")
    ]


def _cell(column: Column, record: dict[str, Any], links: dict[str, str]) -> Cell:
    value = record[column.name]
    if is_missing(value):
        return Cell(MISSING)
    if not column.form:
        below = record["model"] if column.name == "manufacturer" else None
        if column.name == "scan":
            link = links.get(value, "")
            value, _, below = str(value).partition("_")
            return Cell(value, below=below, link=link)
        return Cell(str(value), below="" if is_missing(below) else str(below))
    z = record[column.z] if column.z else math.nan
    outlier = abs(z) > OUTLIER_Z if column.z else column.name == "largest_z" and value > OUTLIER_Z
    return Cell(format(value, column.form), repr(float(value)), "" if is_missing(z) else _signed(z), outlier)


def _signed(z: float) -> str:
    """Format a z-score with its sign, and no sign if it rounds to nothing."""
    number = f"{z:+.1f}".replace("-", "\N{MINUS SIGN}")
    return "z\N{NO-BREAK SPACE}" + (number if number[1:] != "0.0" else "0.0")


def is_missing(value: Any) -> bool:
    """Return whether a cell of a table of text and numbers has no value."""
    return value is None or (isinstance(value, float) and math.isnan(value))
