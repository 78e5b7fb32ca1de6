"""Tables of a cohort: region tables stacked, joined with who the participants are, standardized by manufacturer.

Everything is read from the tables and sidecars that the participant and synthesis levels wrote; no image is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.bids.manufacturers import common_name
from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.cohort.columns import CHECK_COLUMNS
from tau_pipeline.cohort.demographics import Demographics
from tau_pipeline.cohort.outliers import cohort_scores
from tau_pipeline.cohort.provenance import PROVENANCE_COLUMNS, provenance
from tau_pipeline.cohort.scans import is_included, kind_of, moments_of
from tau_pipeline.cohort.standardize import ScanMoments, Standardization, fit_standardization
from tau_pipeline.derivatives.columns import COLUMNS, FURTHER_COLUMNS, PVC_COLUMNS, column_name
from tau_pipeline.derivatives.index import DoneScan, rows_of
from tau_pipeline.derivatives.quality_check import number
from tau_pipeline.derivatives.quality_measures import IN_TABLE
from tau_pipeline.derivatives.status import ScanStatus
from tau_pipeline.errors import MissingInputError, SettingError, UnknownNameError
from tau_pipeline.settings.cohort import Group
from tau_pipeline.table_text import numbered_rows

if TYPE_CHECKING:
    import pandas as pd

QUALITY_COLUMNS = ("quality", "quality_failed", "quality_warned", "quality_decisions", "included")
#: Measures by which a scan is compared with the cohort, and the columns of their z-scores.
OUTLIERS = {one.column: one.outlier for one in IN_TABLE if one.outlier}
_WORSE = {one.column: one.worse for one in IN_TABLE}
_MEASURED = {one.column for one in IN_TABLE}
STATUS_COLUMNS = (
    *("scan", "participant_id", "session_id", "tracer", "manufacturer", "model", "source", "reference_region"),
    *("age", "sex", "diagnosis", "state", "reason", *QUALITY_COLUMNS),
    *(one.column for one in IN_TABLE),
    *(one.z_column for one in IN_TABLE if one.standardized),
    *("n_assumptions", "minutes", *OUTLIERS.values()),
    *(name for name in PROVENANCE_COLUMNS if name not in _MEASURED),
    *CHECK_COLUMNS,
)
_TEXTS = (
    *("scan", "participant_id", "session_id", "tracer", "manufacturer", "model", "source", "reference_region"),
    *("sex", "diagnosis", "state", "reason", *QUALITY_COLUMNS, "settings_hash"),
)
_REGION = ("region", "hemisphere", "kind")
LONG_COLUMNS = (*COLUMNS, "scan", "age", "sex", "diagnosis", "included", *PROVENANCE_COLUMNS)
WIDE_KEYS = (
    *("participant_id", "session_id", "scan", "tracer", "manufacturer", "source", "reference_region"),
    *("age", "sex", "diagnosis", "quality", "included", *PROVENANCE_COLUMNS),
)


def fit_cohort(scans: Iterable[DoneScan], group: Group) -> list[Standardization]:
    """Fit each tracer and reference region, on measured scans whose quality is not ``fail``.

    Parameters
    ----------
    scans
        All scans; synthetic ones are passed over.
    group
        Read here: ``fit_participants``, who need not have a scan of every kind, ``min_participants``,
        ``unknown_manufacturer`` and ``include_failed_quality``.

    Raises
    ------
    UnknownNameError, SettingError
        As there; the message names the tracer and the reference region.
    """
    by_kind: dict[tuple[str, str], list[ScanMoments]] = {}
    for scan in scans:
        if scan.source == "measured" and is_included(scan, include_failed=group.include_failed_quality):
            by_kind.setdefault(kind_of(scan), []).append(moments_of(scan))
    fits = []
    for (tracer, region), moments in sorted(by_kind.items()):
        chosen = None
        if group.fit_participants:
            here = {scan.participant.removeprefix("sub-") for scan in moments}
            chosen = [label for label in group.fit_participants if label.removeprefix("sub-") in here]
        what = f"tracer {tracer or 'not stated'}, reference region {region}"
        try:
            fits.append(
                fit_standardization(
                    moments,
                    chosen,
                    min_participants=group.min_participants,
                    unknown=group.unknown_manufacturer,
                )
            )
        except (UnknownNameError, SettingError) as exc:
            raise type(exc)(f"{what}: {exc}") from exc
    return fits


def fit_of(fits: Iterable[Standardization], scan: DoneScan) -> Standardization | None:
    """Return the fit for a scan's tracer and reference region that knows its manufacturer, or None."""
    kind = kind_of(scan)
    for fit in fits:
        if (fit.tracer, fit.reference_region) == kind:
            try:
                fit.group_of(scan.stated("Manufacturer"))
            except UnknownNameError:
                return None
            return fit
    return None


# --- tables -------------------------------------------------------------------------------------------------------


def long_table(
    scans: Sequence[DoneScan],
    fits: Sequence[Standardization],
    demographics: Demographics,
    *,
    include_failed: bool = False,
) -> pd.DataFrame:
    """Return all region tables stacked, one row per region: `LONG_COLUMNS`.

    Those of `tau_pipeline.derivatives.columns.FURTHER_COLUMNS` that any table has follow, empty for the others.

    ``quality`` has the decisions of people, and ``included`` says whether a scan counts: not if its quality is
    ``fail``, unless ``include_failed``. ``suvr_z`` is filled where there is a fit. Tracers and manufacturers have
    one name whatever the spelling in the sidecars.
    """
    import pandas as pd

    if not scans:
        return pd.DataFrame(columns=list(LONG_COLUMNS))
    table, lengths = rows_of(scans)
    values = np.split(table["suvr_mean"].to_numpy(dtype=float, na_value=np.nan), np.cumsum(lengths)[:-1])
    table["suvr_z"] = np.concatenate(
        [_standardized(own, scan, fit_of(fits, scan)) for own, scan in zip(values, scans, strict=True)]
    )
    who = pd.DataFrame(
        [
            {
                "scan": scan.key,
                "tracer": kind_of(scan)[0] or None,
                "manufacturer": common_name(scan.stated("Manufacturer")),
                "quality": _known(scan.verdict),
                "included": "yes" if is_included(scan, include_failed=include_failed) else "no",
                **provenance(scan),
                **demographics.of(scan.participant_id, scan.session_id),
            }
            for scan in scans
        ]
    )
    for name in ("age", *(name for name in PROVENANCE_COLUMNS if name != "settings_hash")):
        who[name] = pd.to_numeric(who[name], errors="coerce")
    for name in who.columns:
        table[name] = np.repeat(who[name].to_numpy(), lengths)
    for name in ("index", "n_voxels"):
        table[name] = table[name].astype("Int64")
    return table[[*LONG_COLUMNS, *(name for name in FURTHER_COLUMNS if name in table.columns)]]


def _known(verdict: str) -> str | None:
    """Return a verdict as tables have it: missing if nothing was measured."""
    return None if verdict == "n/a" else verdict


def _standardized(values: NDArray[np.float64], scan: DoneScan, fit: Standardization | None) -> NDArray[np.float64]:
    return np.full(len(values), np.nan) if fit is None else fit.apply(values, scan.stated("Manufacturer"))


def wide_table(table: pd.DataFrame, values: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return one row per scan and reference region: `WIDE_KEYS`, the mean SUVR of each region, then its other values.

    Parameters
    ----------
    table
        As `long_table` gives it.
    values
        Columns of it to spread, with what is put behind the names: default ``suvr_mean`` as it is, ``suvr_z`` as
        ``_standardized``, scores against a reference group as ``_zscore`` and
        ``_wscore``, and corrected columns that are there, such
        as ``suvr_pvc_mean`` as ``_pvc_mean``.
    """
    import pandas as pd

    if table.empty:
        return pd.DataFrame(columns=list(WIDE_KEYS))
    corrected = {name: name.removeprefix("suvr") for name in PVC_COLUMNS if name in table.columns}
    scored = {f"suvr{ending}": ending for ending in ("_zscore", "_wscore") if f"suvr{ending}" in table.columns}
    values = values or {"suvr_mean": "", "suvr_z": "_standardized", **scored, **corrected}
    columns, names = pd.factorize(_column_names(table))
    rows = pd.factorize(numbered_rows(table, ("scan", "source", "reference_region")))[0]
    # Rows are numbered in the order of their first values.
    firsts = np.unique(rows, return_index=True)[1]
    parts = [table[list(WIDE_KEYS)].iloc[firsts].reset_index(drop=True)]
    for value, ending in values.items():
        spread = np.full((len(firsts), len(names)), np.nan)
        spread[rows, columns] = table[value].to_numpy(float, na_value=np.nan)
        parts.append(pd.DataFrame(spread, columns=[f"{name}{ending}" for name in names]))
    return pd.concat(parts, axis=1)


def _column_names(table: pd.DataFrame) -> NDArray[np.object_]:
    """Return the column of each row in the wide table; of rows that repeat, the name is made once."""
    import pandas as pd

    place = pd.factorize(numbered_rows(table, _REGION))[0]
    first = np.unique(place, return_index=True)[1]
    regions = table[list(_REGION)].iloc[first]
    names = [column_name(*row) for row in regions.itertuples(index=False, name=None)]
    return np.array(names, dtype=object)[place]


def status_table(
    scans: Sequence[DoneScan],
    statuses: Mapping[str, ScanStatus],
    fits: Sequence[Standardization],
    demographics: Demographics,
    *,
    include_failed: bool = False,
) -> pd.DataFrame:
    """Return one row per requested or existing scan: `STATUS_COLUMNS`.

    Measures, quality, and values of checks are those of the first reference region; ``included`` is as in `long_table`.
    ``…_outlier`` columns are `tau_pipeline.cohort.outliers.cohort_scores` among the done and included scans of the same
    tracer, reference region, and source; missing for too few.
    """
    import pandas as pd

    by_stem = {(scan.stem, scan.source): scan for scan in scans if not scan.further_region}
    rows, listed = [], set()
    for key, status in statuses.items():
        scan = by_stem.get((status.stem, status.source))
        listed.add((status.stem, status.source))
        rows.append(_asked_row(key, status, scan, fits))
    rows += [_found_row(scan, fits) for key, scan in by_stem.items() if key not in listed]
    rows = [{**row, **demographics.of(row["participant_id"], row.get("session_id"))} for row in rows]
    for row in rows:
        if row["state"] == "done":
            left_out = row["included"] == "no" or (row["quality"] == "fail" and not include_failed)
            row["included"] = "no" if left_out else "yes"
    table = pd.DataFrame(rows, columns=list(STATUS_COLUMNS)).sort_values(["scan", "source"], ignore_index=True)
    table[list(_TEXTS)] = table[list(_TEXTS)].astype("string")
    numbers = [name for name in STATUS_COLUMNS if name not in _TEXTS]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    return _with_outliers(table)


def _asked_row(key: str, status: ScanStatus, scan: DoneScan | None, fits: Sequence[Standardization]) -> dict[str, Any]:
    said = {
        "participant_id": f"sub-{status.participant}" if status.participant else None,
        "session_id": f"ses-{status.session}" if status.session else None,
        "tracer": tracer_name(status.tracer) or status.tracer,
        "manufacturer": common_name(status.manufacturer),
        "model": status.model,
        "source": status.source,
    }
    gone = status.state == "done" and scan is None
    state = "failed" if gone else status.state
    reason = "its table is not there any more; run the participant level again" if gone else status.reason
    own = _found_row(scan, fits) if scan is not None and state == "done" else {}
    return {**said, **own, "scan": key, "state": state, "reason": reason or None, "minutes": status.minutes}


def _found_row(scan: DoneScan, fits: Sequence[Standardization]) -> dict[str, Any]:
    fit = fit_of(fits, scan)
    row = {
        "scan": scan.key,
        "participant_id": scan.participant_id,
        "session_id": scan.session_id,
        "tracer": kind_of(scan)[0] or None,
        "manufacturer": common_name(scan.stated("Manufacturer")),
        "model": scan.stated("ManufacturersModelName"),
        "source": scan.source,
        "reference_region": scan.reference_region,
        "state": "done",
        "n_assumptions": len(scan.sidecar.get("Assumptions") or ()),
        **_quality_row(scan),
        **provenance(scan),
    }
    for measure in IN_TABLE:
        value = row[measure.column] = measure.value(scan.sidecar)
        if measure.standardized:
            # Standardizing keeps the order of voxels, so the percentile of z is the z of the percentile.
            row[measure.z_column] = (
                fit.apply(float(value), scan.stated("Manufacturer")) if fit is not None and value is not None else None
            )
    return row


def _quality_row(scan: DoneScan) -> dict[str, str | float | None]:
    quality = scan.quality
    return {
        "quality": _known(quality.verdict),
        "quality_failed": ",".join(quality.named("fail")) or None,
        "quality_warned": ",".join(quality.named("warn")) or None,
        "quality_decisions": "; ".join(quality.decisions) or None,
        "included": "no" if quality.excluded else None,
        **{f"check_{one.get('Check')}": number(one.get("Value")) for one in quality.checks},
    }


def _with_outliers(table: pd.DataFrame) -> pd.DataFrame:
    tracers = table["tracer"].map(lambda name: tracer_name(name) or name, na_action="ignore")
    done = (table["state"] == "done") & (table["included"] == "yes").fillna(False)
    compared = table[done].assign(tracer=tracers[done])
    for column, outlier in OUTLIERS.items():
        scores = cohort_scores(compared, column, ("tracer", "reference_region", "source"), _WORSE[column])
        table[outlier] = scores.reindex(table.index)
    return table


# --- tests --------------------------------------------------------------------------------------------------------


def require_scans(scans: Sequence[DoneScan], output_dir: Path, left_out: Sequence[str] = ()) -> None:
    """Refuse derivatives without a single scan that counts.

    Parameters
    ----------
    scans
        Those that count.
    output_dir
        Root of the derivatives.
    left_out
        Names of scans that have results and do not count.

    Raises
    ------
    MissingInputError
        With what to do.
    """
    if scans:
        return
    if not left_out:
        raise MissingInputError(f"{output_dir} holds no region table (sub-*/**/pet/*_rois.tsv); run participant first")
    earlier = f"; {output_dir / 'group'} has tables of an earlier run, with scans that do not count any more: remove it"
    raise MissingInputError(
        f"none of the scans in {output_dir} counts: {', '.join(left_out[:3])}{' ...' if len(left_out) > 3 else ''} "
        "failed or were left out in the last run, or their raw images are gone"
        + (earlier if (output_dir / "group").is_dir() else "")
    )
