"""Count tau positivity and Braak stages for the page of the cohort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tau_pipeline.cohort.positivity import STAGES
from tau_pipeline.diagnoses import by_severity

if TYPE_CHECKING:
    import pandas as pd

_ALL = "All"


def positivity_tables(wide: pd.DataFrame | None, thresholds: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return counts of positive scans and of stages, one entry per tracer and reference region.

    Parameters
    ----------
    wide, thresholds
        ``suvr_rois_wide.csv`` and ``thresholds.tsv`` as text; None if they are not there. Measured scans that count are
        counted, by diagnosis.
    """
    if wide is None or thresholds is None or thresholds.empty:
        return []
    used = wide[(wide["source"] == "measured") & (wide["included"] == "yes")]
    used = used.assign(diagnosis=used["diagnosis"].fillna("not stated"))
    found = []
    for (tracer, reference), rows in thresholds.groupby(["tracer", "reference_region"], dropna=False, sort=True):
        own = used[_same(used["tracer"], tracer) & _same(used["reference_region"], reference)]
        groups = [*by_severity(own["diagnosis"], last=("not stated",)), _ALL]
        found.append(
            {
                "what": f"tracer {_text(tracer)}, reference {_text(reference)}, n = {len(own)}",
                "groups": groups,
                "rows": [_region_row(own, row, groups) for row in rows.to_dict("records")],
                "stages": _stage_rows(own, groups),
            }
        )
    return found


def _same(column: pd.Series, value: Any) -> pd.Series:
    return column == value if isinstance(value, str) else column.isna()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "not stated"


def _of_group(own: pd.DataFrame, group: str) -> pd.DataFrame:
    return own if group == _ALL else own[own["diagnosis"] == group]


def _region_row(own: pd.DataFrame, row: dict[Any, Any], groups: list[str]) -> dict[str, Any]:
    """Return threshold, method, and how many scans of each group are positive, of how many with a value."""
    column = f"{row['region']}_positive"
    cells = []
    for group in groups:
        answers = _of_group(own, group)[column].dropna() if column in own else []
        cells.append(f"{sum(one == 'yes' for one in answers)} of {len(answers)}")
    participants = row["n_participants"] if isinstance(row["n_participants"], str) else "n/a"
    threshold = f"{float(row['threshold']):.3f}"
    return {"region": row["region"], "method": row["method"], "threshold": threshold, "n": participants, "cells": cells}


def _stage_rows(own: pd.DataFrame, groups: list[str]) -> list[dict[str, Any]]:
    """Return how many scans of each group have each stage, and how many an atypical order; empty without stages."""
    if "braak_stage" not in own:
        return []
    wanted = [
        (f"Braak {stage}" if stage != "0" else "no stage", "braak_stage", stage) for stage in ("0", *STAGES.values())
    ]
    wanted.append(("atypical order", "braak_order", "atypical"))
    return [
        {"name": name, "cells": [int((_of_group(own, group)[column] == value).sum()) for group in groups]}
        for name, column, value in wanted
    ]
