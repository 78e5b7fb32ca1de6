"""Values brought to the scale of a reference by the line of the level calibrate."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tau_pipeline.cohort.centaur import MASKS, centaurz
from tau_pipeline.errors import DamagedFileError, SettingError
from tau_pipeline.files import read_json

if TYPE_CHECKING:
    import pandas as pd


def read_line(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the line that the level calibrate stored.

    Raises
    ------
    MissingInputError
        There is no such file.
    DamagedFileError
        It is no JSON object, or has no slope, intercept, column, or tracer.
    """
    line = read_json(path)
    numbers = [line.get(name) for name in ("Slope", "Intercept")]
    fine = all(isinstance(one, int | float) and math.isfinite(one) for one in numbers)
    if not fine or not all(isinstance(line.get(name), str) for name in ("MeasuredColumn", "Tracer")):
        raise DamagedFileError(
            f"{path} has no numbers Slope and Intercept with a MeasuredColumn and a Tracer; expected: the file "
            "group/calibration.json that the level calibrate writes"
        )
    return line


def with_calibrated(
    tables: Mapping[str, pd.DataFrame], line: Mapping[str, Any], source: str
) -> tuple[dict[str, pd.DataFrame], int]:
    """Return tables in which the values of the line's column stand calibrated, and how many lie outside its range.

    Parameters
    ----------
    tables
        Those of the cohort by name; the first of ``centaur`` and ``suvr_rois_wide`` that has the column is changed.
        The column ``NAME_calibrated`` is added for scans of the line's tracer and reference region. For an SUVR in a
        CenTauR mask, CenTauRz is that of the calibrated SUVR.
    line
        As `read_line` gives it.
    source
        Name of its file, for the column ``calibration``.

    Raises
    ------
    SettingError
        No table has the column.
    """
    column = line["MeasuredColumn"]
    name = next((one for one in ("centaur", "suvr_rois_wide") if one in tables and column in tables[one]), None)
    if name is None:
        raise SettingError(
            f"calibration_line is for the column {column}, which no table has; columns of CenTauR need --centaur-masks"
        )
    table = tables[name].copy()
    same = (table["tracer"] == line["Tracer"]).fillna(False).to_numpy(bool)
    if "reference_region" in table and "ReferenceRegion" in line:
        same = same & (table["reference_region"] == line["ReferenceRegion"]).fillna(False).to_numpy(bool)
    values = table[column].to_numpy(float, na_value=np.nan)
    calibrated = np.where(same, line["Intercept"] + line["Slope"] * values, np.nan)
    table[f"{column}_calibrated"] = calibrated
    mask = column.removesuffix("_suvr")
    if name == "centaur" and mask in MASKS:
        own = [centaurz(value, line["Tracer"], mask) for value in calibrated]
        table[f"{mask}_centaurz"] = np.where(same, own, table[f"{mask}_centaurz"].to_numpy(float))
        table["calibration"] = np.where(same, f"{mask}: {Path(source).name}", table["calibration"].to_numpy(object))
    low, high = line.get("MeasuredRange") or (-np.inf, np.inf)
    outside = same & np.isfinite(values) & ((values < low) | (values > high))
    return {name: table}, int(outside.sum())
