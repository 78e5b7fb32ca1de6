"""Write the group report: one self-contained HTML file with outliers and the effects of scanner and disease on SUVR.

Like the report of a participant it is a query over files: the tables that the group level wrote, error records and
sidecars. It computes nothing but figures and tests, and can be written again at any time.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.bids.sidecars import sentences
from tau_pipeline.derivatives.index import Output, find_outputs
from tau_pipeline.derivatives.quality_measures import IN_TABLE
from tau_pipeline.diagnoses import by_severity
from tau_pipeline.errors import DamagedFileError, MissingInputError, TauPipelineError
from tau_pipeline.figures import cohort as group_figures
from tau_pipeline.figures.cohort import OUTLIER_Z, cortical_columns
from tau_pipeline.files import JsonReader, read_json, write_text
from tau_pipeline.measures.statistics import OneWay
from tau_workflows.reports import html
from tau_workflows.reports.change import change_figures
from tau_workflows.reports.cohort_warnings import unbeaten_models, warnings_of
from tau_workflows.reports.links import scan_link
from tau_workflows.reports.mosaic import tiles
from tau_workflows.reports.neighbors import refresh_pages
from tau_workflows.reports.positivity import positivity_tables
from tau_workflows.reports.scan_table import COLUMNS, MISSING, is_missing, table_pages
from tau_workflows.reports.verdicts import OVERRIDE_COLUMNS, override_rows
from tau_workflows.reports.voxelwise import voxelwise_pages

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the wide table that tell scans apart.
_OF_WIDE = ("scan", "participant_id", "source", "tracer", "reference_region", "diagnosis", "included", "manufacturer")
_STATES = ("done", "failed", "skipped")
#: Most points of a figure that lead to scans; of more, only those of outliers do.
_MOST_LINKED = 500
#: Different sentences of assumptions that are shown before the rest is folded away.
_MOST_ASSUMPTIONS = 12


def write_group_report(output_dir: Path, read: JsonReader = read_json) -> Path:
    """Write ``OUTPUT_DIR/group/report.html`` from what lies under the output folder; returns its path.

    Of a large cohort the table of scans goes on in ``scans-2.html`` and so on.

    Parameters
    ----------
    output_dir
        The derivatives dataset, with ``group/status.tsv``. What else the report shows is left out, and named, if its
        file is not there or is damaged.
    read
        Reads sidecars.

    Raises
    ------
    MissingInputError
        There is no ``group/status.tsv``: the group level has not been run.
    DamagedFileError
        That table cannot be read, or does not say which scans there are.
    OutputError
        The report cannot be written.
    """
    output_dir = Path(output_dir)
    group = output_dir / "group"
    if not (group / "status.tsv").is_file():
        raise MissingInputError(f"{group / 'status.tsv'} does not exist; run the group level first")
    status = read_status(group / "status.tsv")
    problems: list[str] = []
    standardization = _optional(group, ("standardization.tsv",), problems)
    wide = _optional(group, ("suvr_rois_wide.tsv", "suvr_rois_wide.csv"), problems, _is_shown)
    thresholds = _optional(group, ("thresholds.tsv",), problems)
    change = _optional(group, ("change.tsv",), problems)
    records = html.error_records(output_dir)
    bad = status[status["state"] != "done"]
    first, *others = table_pages(status, output_dir)
    worst, n_tiles = tiles(status, output_dir)
    report = html.render(
        "group.html.jinja",
        counts=[
            _counts(_pets(status), by, heading)
            for by, heading in (("manufacturer", "Manufacturer"), ("diagnosis", "Diagnosis"))
        ],
        total=_state_counts(_pets(status), _states_of(_pets(status))),
        n_pets=len(_pets(status)),
        n_synthetic=int((status["source"] == "synthetic").sum()),
        warnings=[*problems, *unbeaten_models(output_dir, read), *warnings_of(status, standardization)],
        assumptions=_assumptions(output_dir, read),
        most_assumptions=_MOST_ASSUMPTIONS,
        n_participants=status["participant_id"].nunique(),
        mosaic=worst,
        n_tiles=n_tiles,
        override={"columns": OVERRIDE_COLUMNS, "rows": override_rows(output_dir), "root": ".."},
        positivity=positivity_tables(wide, thresholds),
        voxelwise=voxelwise_pages(output_dir),
        figures=_figures(status, wide, change, output_dir),
        standardization=_standardization_rows(standardization),
        failures=_failures(bad, records),
        records=_other_records(bad, records),
        methods=html.methods(output_dir),
        **first,
    )
    written = write_text(report, group / "report.html")
    for page in others:
        write_text(html.render("scans.html.jinja", **page), group / page["file"])
    for old in set(group.glob("scans-*.html")) - {group / page["file"] for page in others}:
        old.unlink(missing_ok=True)
    refresh_pages(output_dir)
    return written


def _is_shown(name: str) -> bool:
    """Return whether the page uses a column of the wide table; a large cohort has many millions of values in it."""
    return name in _OF_WIDE or name in cortical_columns() or name.endswith("_positive") or name.startswith("braak_")


def read_status(path: Path) -> pd.DataFrame:
    """Read ``status.tsv`` with every column of the report: numbers as floats, text as text, missing as missing.

    Raises
    ------
    DamagedFileError
        It is not a table, or has no column ``scan`` or ``state``.
    """
    import pandas as pd

    table = _read_text(path)
    if absent := [name for name in ("scan", "state") if name not in table]:
        raise DamagedFileError(f"the table {path} has no column {absent[0]}; run the group level again")
    numbers = [column.name for column in COLUMNS if column.form] + [column.z for column in COLUMNS if column.z]
    numbers += [one.z_column for one in IN_TABLE if one.standardized]
    for name in (
        "participant_id",
        "model",
        "reason",
        "included",
        "quality_failed",
        *(column.name for column in COLUMNS),
        *numbers,
    ):
        if name not in table:
            table[name] = None
    for name in numbers:
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(float)
    z_scores = table[[column.z for column in COLUMNS if column.z]]
    table["largest_z"] = z_scores.abs().max(axis=1)
    table["source"] = table["source"].fillna("measured")
    return table.sort_values("scan", kind="stable", ignore_index=True)


def _read_text(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> pd.DataFrame:
    """Read a table as text, so that a label like 007 or 1e5 is preserved; ``n/a``, ``NA`` and empty are missing.

    Only columns whose names are ``wanted`` are read. Those of cortical regions are numbers, as which a large cohort
    takes a tenth of the memory.
    """
    import pandas as pd

    separator = "," if path.suffix == ".csv" else "\t"
    types: defaultdict[str, type] = defaultdict(lambda: str, dict.fromkeys(cortical_columns(), float))
    try:
        return pd.read_csv(
            path,
            sep=separator,
            dtype=types,
            na_values=["n/a", "NA", ""],
            keep_default_na=False,
            encoding="utf-8-sig",
            usecols=wanted,
        )
    except (ValueError, OSError) as exc:
        raise DamagedFileError(f"{path} is not a table in UTF-8 ({exc}); run the group level again") from exc


def _optional(
    group: Path, names: Sequence[str], problems: list[str], wanted: Callable[[str], bool] = lambda _: True
) -> pd.DataFrame | None:
    """Read the first table that exists; None, with a sentence in ``problems`` if it exists and is damaged."""
    path = next((group / name for name in names if (group / name).is_file()), None)
    if path is None:
        return None
    try:
        return _read_text(path, wanted)
    except DamagedFileError as exc:
        problems.append(str(exc))
        return None


def _states_of(status: pd.DataFrame) -> tuple[str, ...]:
    """Return the states that the page counts; interrupted only where a scan is."""
    return (*_STATES, *(["interrupted"] if (status["state"] == "interrupted").any() else []))


def _pets(status: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of measured scans: neither synthetic ones nor images and folders that were passed over."""
    return status[(status["source"] != "synthetic") & ~status["scan"].str.contains("/", regex=False)]


def _state_counts(table: pd.DataFrame, states: Sequence[str]) -> dict[str, int]:
    counts = table["state"].value_counts()
    return {state: int(counts.get(state, 0)) for state in states}


def _counts(status: pd.DataFrame, by: str, heading: str) -> dict[str, Any]:
    """Count scans done, failed and skipped in each group; scans without a group come last."""
    groups = status[by].fillna("not stated")
    names = by_severity(groups, last=("not stated",))
    states = _states_of(status)
    return {"heading": heading, "rows_of": [(name, _state_counts(status[groups == name], states)) for name in names]}


def _figures(
    status: pd.DataFrame, wide: pd.DataFrame | None, change: pd.DataFrame | None, output_dir: Path
) -> list[dict[str, Any]]:
    """Draw the figures of each kind of scan: source, tracer and reference region are never mixed."""
    done = status[(status["state"] == "done") & (status["included"] != "no")]
    wide = wide if wide is None or "included" not in wide else wide[wide["included"] != "no"]
    kinds = ["source", "tracer", "reference_region"]
    found = []
    for key, scans in done.groupby(kinds, dropna=False, sort=True):
        source, tracer, reference = (MISSING if is_missing(part) else str(part) for part in key)
        what = f"{source.capitalize()} SUVR, tracer {tracer}, reference {reference}, n = {len(scans)}"
        percentiles = group_figures.percentile_figure(scans, what)
        tests = group_figures.percentile_tests(scans)
        found.append(_figure("Cortical SUVR by manufacturer and diagnosis", what, _PERCENTILE_HINT, percentiles))
        found[-1]["tests"] = [_test_row(measure, by, test) for measure, by, test in tests]
        quality = group_figures.quality_figure(scans)
        if quality is not None:
            found.append(_figure("Reference value and quality by manufacturer", what, _QUALITY_HINT, quality))
        own = _same_kind(wide, dict(zip(kinds, key, strict=True)))
        cortex = (
            None if own is None else group_figures.cortex_by_diagnosis_figure(own, f" ({tracer}, {source})", reference)
        )
        if cortex is not None:
            found.append(_figure("Mean regional SUVR by diagnosis", what, _CORTEX_HINT, cortex))
    found += [_figure(*parts) for parts in change_figures(change, wide)]
    outliers = frozenset(done.loc[done["largest_z"] > OUTLIER_Z, "scan"])
    for figure in found:
        figure["only_outliers"] = len({point.scan for point in figure["points"]}) > _MOST_LINKED
        if figure["only_outliers"]:
            figure["points"] = [point for point in figure["points"] if point.scan in outliers][:_MOST_LINKED]
        links = {point.scan: scan_link(point.scan, output_dir) for point in figure["points"]}
        figure["points"] = [(point, links[point.scan]) for point in figure["points"] if links[point.scan]]
    return found


_PERCENTILE_HINT = (
    "One point per scan. Upper row: SUVR. Lower row, if present: SUVR standardized by manufacturer. "
    "Standardization should remove differences between manufacturers and preserve those between diagnoses. "
    "F and p: one-way analysis of variance over participants, with their number in each group; "
    "the scans of one participant are averaged."
)
_QUALITY_HINT = (
    "One point per scan. Check the reports of scans that differ from others of the same manufacturer. "
    "The reference value depends on injected dose, body weight, and tracer; "
    "the other measures should not depend on the diagnosis."
)
_CORTEX_HINT = "Mean over the scans of each diagnosis, not standardized. The color scale covers the values shown."


def _figure(title: str, what: str, hint: str, figure: Any) -> dict[str, Any]:
    source = html.figure_uri(figure)
    return {"title": title, "what": what, "hint": hint, "source": source, "points": html.points_of(figure), "tests": []}


def _test_row(measure: str, by: str, test: OneWay) -> dict[str, str]:
    """Return a test as text; a test that could not be computed is missing."""
    row = {
        "measure": measure,
        "by": by,
        "n": group_figures.n_text(test.n),
        "f": MISSING,
        "freedom": MISSING,
        "p": MISSING,
    }
    if not math.isfinite(test.f):
        return row
    freedom = f"{len(test.n) - 1}, {sum(test.n.values()) - len(test.n)}"
    return row | {"f": f"{test.f:.2f}", "freedom": freedom, "p": group_figures.p_text(test.p).removeprefix("= ")}


def _same_kind(wide: pd.DataFrame | None, kind: dict[str, Any]) -> pd.DataFrame | None:
    """Return rows of one source, tracer and reference region; an absent column does not distinguish rows."""
    if wide is None:
        return None
    for name, value in kind.items():
        if name in wide:
            wide = wide[wide[name].isna() if is_missing(value) else wide[name] == value]
    return wide


def _standardization_rows(table: pd.DataFrame | None) -> list[dict[str, str]]:
    """Return rows of ``standardization.tsv`` as text, without the lists of participants."""
    if table is None:
        return []
    names = ("tracer", "reference_region", "manufacturer", "n_participants", "mean", "sd", "participants_hash")
    return [
        {name: MISSING if is_missing(row.get(name)) else _short_number(str(row[name])) for name in names}
        for row in table.to_dict("records")
    ]


def _short_number(text: str) -> str:
    """Format a number with a decimal point with four digits; everything else is unchanged."""
    try:
        return f"{float(text):.4g}" if "." in text else text
    except ValueError:
        return text


def _failures(bad: pd.DataFrame, records: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """List scans that are not done, failed ones first: state, reason, and the error record if there is one."""
    by_key = {Path(record["file"]).stem: record for record in records}
    found = []
    for row in bad.sort_values(["state", "scan"], kind="stable").to_dict("records"):
        record = by_key.get(_record_name(row), {})
        reason = record.get("message", "no reason recorded") if is_missing(row["reason"]) else str(row["reason"])
        scan = f"{row['scan']} (synthetic)" if row["source"] == "synthetic" else row["scan"]
        found.append({"scan": scan, "state": row["state"], "reason": reason, "details": record.get("details", "")})
    return found


def _record_name(row: Mapping[Hashable, Any]) -> str:
    """Return the name of a scan's error record: the two kinds of scan of one session have separate records."""
    scan = str(row["scan"])
    return f"{scan.removesuffix('_pet')}_desc-synthSUVR" if row["source"] == "synthetic" else scan


def _other_records(bad: pd.DataFrame, records: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """List error records that belong to no failed scan of the table: of a participant, a T1w, or an earlier run."""
    shown = {_record_name(row) for row in bad.to_dict("records")}
    return [record for record in records if Path(record["file"]).stem not in shown]


def _assumptions(output_dir: Path, read: JsonReader) -> list[tuple[str, int]]:
    """Return each sentence in the ``Assumptions`` of SUVR and T1w sidecars, with its number of files."""
    counted: Counter[str] = Counter()
    outputs: tuple[Output, ...] = ("t1w", "suvr", "synthetic_suvr")
    for path in chain.from_iterable(find_outputs(output_dir, output, sidecars=True) for output in outputs):
        try:
            said = sentences(read(path).get("Assumptions"))
        except TauPipelineError:
            continue
        counted.update(dict.fromkeys(said, 1))
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))
