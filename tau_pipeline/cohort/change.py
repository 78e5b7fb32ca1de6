"""Change of regional SUVR between visits: from the first to each later one, and the slope of all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.bids.sessions import Timeline, timeline
from tau_pipeline.cohort.visits import counted, in_time, years_between
from tau_pipeline.derivatives.index import DoneScan
from tau_pipeline.derivatives.sidecars import RECONSTRUCTION

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

_KIND = ["participant_id", "tracer", "reference_region", "region", "hemisphere", "kind"]
#: Windows begin and end within these minutes of each other, and resolutions lie within these mm, if they are the same.
_WINDOW_MIN = 5.0
_RESOLUTION_MM = 0.5
#: Visits within these days show the variability of the measurement: tau does not change so fast.
RETEST_DAYS = 60
_DAYS_OF_YEAR = 365.25


def _same(what: str) -> dict[str, Any]:
    return {
        "Description": f"Whether both scans have the same {what}; a change of it also changes SUVR.",
        "Levels": {"yes": "the same", "no": "another", "n/a": "not stated for both"},
    }


#: Columns of the table of changes, and what they mean.
CHANGE_COLUMNS: dict[str, Any] = {
    "participant_id": {"Description": "Participant, with the prefix sub-."},
    "tracer": {"Description": "Tracer, by its common name."},
    "reference_region": {"Description": "Reference region of the SUVR."},
    "region": {"Description": "Region, as in suvr_rois.tsv."},
    "hemisphere": {"Description": "Side of the brain: left, right, or both."},
    "kind": {"Description": "Kind of region, as in suvr_rois.tsv."},
    "scan_first": {"Description": "Scan of the first visit that counts."},
    "scan": {"Description": "Scan of a later visit."},
    "years": {
        "Description": "Time between both, from dates, session labels that are times, or ages; n/a "
        "if nothing states it.",
        "Units": "year",
    },
    "suvr_first": {"Description": "Mean SUVR of the first visit.", "Units": "1"},
    "suvr": {"Description": "Mean SUVR of the later visit.", "Units": "1"},
    "difference": {"Description": "suvr minus suvr_first.", "Units": "1"},
    "difference_per_year": {"Description": "difference divided by years.", "Units": "1/year"},
    "percent_change": {"Description": "Change of the mean SUVR, of that of the first visit.", "Units": "%"},
    "percent_per_year": {"Description": "percent_change divided by years.", "Units": "%/year"},
    "slope": {
        "Description": "Slope of mean SUVR over years through all visits that count, by least squares; the same in "
        "every row of a region. n/a if times are not stated.",
        "Units": "1/year",
    },
    "slope_se": {
        "Description": "Standard error of slope by the residuals of the line; n/a for fewer than three visits.",
        "Units": "1/year",
    },
    "n_visits": {"Description": "Visits that slope is from: those with a value and a time."},
    "same_manufacturer": _same("manufacturer of the scanner"),
    "same_model": _same("model of the scanner"),
    "same_reconstruction": _same("reconstruction (method, parameters, and filter in the sidecars)"),
    "same_window": _same(f"window after injection, start and end to {_WINDOW_MIN:g} min"),
    "same_resolution": _same(f"effective resolution, to {_RESOLUTION_MM:g} mm"),
}


def change_table(long: pd.DataFrame, bids_dir: str | os.PathLike[str], scans: Iterable[DoneScan] = ()) -> pd.DataFrame:
    """Return the change of each region from the first to each later visit of a participant.

    Parameters
    ----------
    long
        As `tau_pipeline.cohort.tables.long_table` gives it. Measured scans that count are compared within tracer and
        reference region; of several in one session, the first.
    bids_dir
        The raw dataset, for dates.
    scans
        The scans of the table, whose sidecars state models and reconstructions.

    Returns
    -------
    DataFrame
        Columns `CHANGE_COLUMNS`; empty if no participant has two visits.
    """
    import pandas as pd

    used = counted(long)
    person = ["participant_id", "tracer", "reference_region"]
    visits = used.drop_duplicates([*person, "session_id"])
    visits = visits[visits.duplicated(person, keep=False)]
    stated = {scan.key: scan for scan in scans}
    parts = []
    by_scan = dict(iter(used[used["scan"].isin(visits["scan"])].groupby(["scan", "reference_region"], sort=False)))
    for _, own in visits.groupby(person, dropna=False, sort=True):
        times = timeline(Path(bids_dir) / str(own["participant_id"].iloc[0]))
        records = [_with_stated(visit, stated.get(visit["scan"])) for visit in own.to_dict("records")]
        parts += _changes(by_scan, records, times)
    if not parts:
        return pd.DataFrame(columns=list(CHANGE_COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(CHANGE_COLUMNS)]


def _with_stated(visit: dict[Any, Any], scan: DoneScan | None) -> dict[Any, Any]:
    """Add what the sidecar of a scan states of the scanner's model and the reconstruction."""
    if scan is None:
        return visit
    values = [scan.stated(name) for name in RECONSTRUCTION]
    known = any(value is not None for value in values)
    return {**visit, "model": scan.stated("ManufacturersModelName"), "reconstruction": str(values) if known else None}


def _changes(by_scan: Mapping[Any, pd.DataFrame], visits: list[dict[Any, Any]], times: Timeline) -> list[pd.DataFrame]:
    """Return the changes of one participant from the first visit to each other one."""
    first, *rest = in_time(visits, times)
    years = [0.0, *(years_between(first, later, times) for later in rest)]
    regions = _regions_by_visit(by_scan, [first, *rest])
    values = regions.to_numpy(float, na_value=np.nan)
    slope, error, n = slopes(np.array(years), values)
    parts = []
    for place, later in enumerate(rest, start=1):
        one, other, duration = values[:, 0], values[:, place], years[place]
        with np.errstate(divide="ignore", invalid="ignore"):
            percent = np.where(one > 0, 100 * (other / one - 1), np.nan)
        per_year = 1 / duration if duration > 0 else np.nan
        columns = {
            "scan_first": first["scan"],
            "scan": later["scan"],
            "years": duration,
            "suvr_first": one,
            "suvr": other,
            "difference": other - one,
            "difference_per_year": (other - one) * per_year,
            "percent_change": percent,
            "percent_per_year": percent * per_year,
            "slope": slope,
            "slope_se": error,
            "n_visits": n,
        }
        found = regions.index.to_frame(index=False).assign(**columns, **_sameness(first, later))
        parts.append(found[~(np.isnan(one) & np.isnan(other))])
    return parts


def _regions_by_visit(by_scan: Mapping[Any, pd.DataFrame], visits: list[dict[Any, Any]]) -> pd.DataFrame:
    """Return the mean SUVR of each region, one row per region in the order of the first visit, one column per visit."""
    import pandas as pd

    rows = [by_scan[visit["scan"], visit["reference_region"]].set_index(_KIND)["suvr_mean"] for visit in visits]
    return pd.concat(dict(enumerate(rows)), axis=1)


def slopes(years: Floats, values: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Fit a line to each row by least squares.

    Parameters
    ----------
    years
        ``(V,)``, times of the visits; NaN where not known.
    values
        ``(R, V)``, a row per region; NaN where not measured.

    Returns
    -------
    slope, error
        ``(R,)``, per year, and its standard error by the residuals with n - 2 degrees of freedom (Draper and Smith,
        Applied Regression Analysis, 1998, section 1.4). NaN for fewer than two visits, and three.
    n
        ``(R,)``, visits with a value and a time.
    """
    known = np.isfinite(values) & np.isfinite(years)
    n = known.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        time = np.where(known, years, 0.0)
        value = np.where(known, values, 0.0)
        time = np.where(known, time - (time.sum(axis=1) / n)[:, None], 0.0)
        value = np.where(known, value - (value.sum(axis=1) / n)[:, None], 0.0)
        spread = (time**2).sum(axis=1)
        slope = np.where(spread > 0, (time * value).sum(axis=1) / spread, np.nan)
        residual = ((value - slope[:, None] * time) ** 2).sum(axis=1)
        error = np.where(n > 2, np.sqrt(residual / (n - 2) / spread), np.nan)
    return slope, error, n


def _sameness(first: Mapping[Any, Any], later: Mapping[Any, Any]) -> dict[str, str | None]:
    """Return whether two scans were made alike: yes, no, or None where that is not stated for both."""
    import pandas as pd

    def of(names: Iterable[str], alike: Callable[[Any, Any], bool]) -> str | None:
        pairs = [(first.get(name), later.get(name)) for name in names]
        if any(pd.isna(value) for pair in pairs for value in pair):
            return None
        return "yes" if all(alike(one, other) for one, other in pairs) else "no"

    def equal(one: Any, other: Any) -> bool:
        return bool(one == other)

    windows = ("window_start_min", "window_end_min")
    return {
        "same_manufacturer": of(["manufacturer"], equal),
        "same_model": of(["model"], equal),
        "same_reconstruction": of(["reconstruction"], equal),
        "same_window": of(windows, lambda one, other: abs(float(one) - float(other)) <= _WINDOW_MIN),
        "same_resolution": of(
            ["effective_fwhm_mm"], lambda one, other: abs(float(one) - float(other)) <= _RESOLUTION_MM
        ),
    }


def retest_variability(change: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the test-retest variability of composites, from visits within `RETEST_DAYS` of each other.

    Parameters
    ----------
    change
        Rows of the table of changes, of one tracer and reference region.

    Returns
    -------
    list of dict
        ``region``, ``n`` pairs, and ``median``, ``low`` and ``high`` (quartiles) of the absolute difference over the
        mean of both visits, in percent: the definition of Timmers et al. 2020, J Cereb Blood Flow Metab 40:2464. Empty
        if there are no such pairs.
    """
    near = change[(change["kind"] == "composite") & (change["hemisphere"] == "both")]
    near = near[(near["years"] * _DAYS_OF_YEAR <= RETEST_DAYS) & near["suvr"].notna() & near["suvr_first"].notna()]
    found = []
    for region, own in near.groupby("region", sort=False):
        one, other = own["suvr_first"].to_numpy(float), own["suvr"].to_numpy(float)
        low, median, high = np.percentile(200 * np.abs(other - one) / (other + one), [25, 50, 75])
        found.append({"region": region, "n": len(own), "median": float(median), "low": float(low), "high": float(high)})
    return found
