"""Read and check the table of regions and the sidecar of a scan, for `tau_pipeline.derivatives.index`.

Results are sometimes opened and saved again by other programs. So everything that the tables of the cohort take from
them is checked here, before anything is computed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tau_pipeline.derivatives.columns import COLUMNS, FURTHER_COLUMNS, IDENTITY, column_name
from tau_pipeline.derivatives.quality_measures import MEASURES
from tau_pipeline.errors import DamagedFileError, MissingInputError, shown
from tau_pipeline.files import read_json, read_tsv

if TYPE_CHECKING:
    import pandas as pd

#: Columns of a table of regions: what a row is about, texts, whole numbers, and numbers.
KEYS = ("region", "hemisphere", "kind", "reference_region")
TEXTS = (*IDENTITY, *KEYS, "quality")
COUNTS = ("index", "n_voxels")
NUMBERS = ("volume_mm3", "measured_fraction", "suvr_mean", "suvr_sd", "suvr_median", "suvr_z")
#: No label, and no number of voxels of a head, is larger.
MOST = 2**31


def window_min(sidecar: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return start and end of the time that an SUVR map stands for, minutes after injection; None if not stated.

    Examples
    --------
    >>> window_min({"FrameTimesStart": [4800], "FrameDuration": [1200]}), window_min({})
    ((80.0, 100.0), None)
    """
    try:
        starts = [float(start) for start in sidecar["FrameTimesStart"]]
        return min(starts) / 60, (max(starts) + float(sidecar["FrameDuration"][-1])) / 60
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def read_regions(path: Path) -> pd.DataFrame:
    """Return a ``*_rois.tsv`` with the columns of `tau_pipeline.derivatives.columns.COLUMNS`; numbers are float64.

    It may also have `tau_pipeline.derivatives.columns.FURTHER_COLUMNS`.

    Raises
    ------
    MissingInputError
        There is no such file.
    DamagedFileError
        It is no table, lacks a column, has no number where one is needed, or does not have each region once for each
        reference region.
    """
    table = read_tsv(path, TEXTS)
    if absent := [name for name in COLUMNS if name not in table.columns]:
        raise DamagedFileError(f"the table {path} has no column {', '.join(absent)}; run the participant level again")
    for name in (*COUNTS, *NUMBERS, *(name for name in FURTHER_COLUMNS if name in table.columns)):
        table[name] = _numbers(table[name], path, whole=name in COUNTS)
    if unnamed := [name for name in KEYS if table[name].isna().any()]:
        raise DamagedFileError(
            f"the table {path} has a row without {', '.join(unnamed)}; expected: a region in every row; run the "
            "participant level again"
        )
    # It is part of file names.
    if odd := [name for name in table["reference_region"].unique() if not re.fullmatch("[0-9A-Za-z]+", name)]:
        raise DamagedFileError(
            f"the table {path} has the reference region {shown(odd[0])}; expected: letters and digits; run the "
            "participant level again"
        )
    names = [column_name(*row) for row in zip(table["region"], table["hemisphere"], table["kind"], strict=True)]
    again = table[["reference_region"]].assign(name=names).duplicated()
    if again.any():
        place = int(np.flatnonzero(again)[0])
        raise DamagedFileError(
            f"the table {path} has the region {names[place]} more than once for {table['reference_region'][place]}; "
            "expected: each once; run the participant level again"
        )
    return table


def _numbers(values: pd.Series, path: Path, *, whole: bool) -> pd.Series:
    """Return the values as float64; ``whole`` if they count something."""
    import pandas as pd

    # What is not read as numbers goes as text, since whole numbers of any length come as objects.
    plain = values if values.dtype.kind in "iuf" else values.astype("string")
    found = pd.to_numeric(plain, errors="coerce").to_numpy(float, na_value=np.nan)
    wrong = np.isnan(found) & values.notna().to_numpy() | np.isinf(found)
    if whole:
        wrong |= (found != np.rint(found)) & ~np.isnan(found) | (abs(found) >= MOST)
    if wrong.any():
        first, kind = str(values[wrong].iloc[0]), "whole numbers" if whole else "numbers"
        raise DamagedFileError(
            f"the table {path} has {shown(first)} in {values.name}; expected: {kind} or n/a; run the participant "
            "level again"
        )
    return pd.Series(found, values.index, name=values.name)


def _is_number(value: Any) -> bool:
    # A whole number in JSON may have any length; one that no float holds is none here.
    return isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) > sys.float_info.max


def _is_stated_number(value: Any) -> bool:
    return value in (None, "n/a") or _is_number(value)


def _are_percentiles(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(one is None or _is_number(one) for one in value.values()))


_BY_KIND: dict[str, tuple[Callable[[Any], bool], str]] = {
    "number": (_is_stated_number, "a number"),
    "percentiles": (_are_percentiles, "an object of numbers"),
    "numbers": (
        lambda value: value in (None, "n/a") or (isinstance(value, list) and all(map(_is_number, value))),
        "a list of numbers",
    ),
}
#: What the values that are used must be, and how it is said.
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("TracerName", "Manufacturer", "ManufacturersModelName"),
        (lambda value: isinstance(value, str | None), "a text"),
    ),
    **{one.key: _BY_KIND[one.kind] for one in MEASURES if one.kind in _BY_KIND},
    "QualityChecks": (
        lambda value: value is None or (isinstance(value, list) and all(isinstance(one, dict) for one in value)),
        "a list of objects",
    ),
    "Assumptions": (lambda value: isinstance(value, list | None), "a list of sentences"),
}


def read_suvr_sidecar(path: Path) -> dict[str, Any]:
    """Return the sidecar of an SUVR map, in which each value that the cohort's tables use has its type or is missing.

    Raises
    ------
    MissingInputError
        There is no such file.
    DamagedFileError
        It is not a JSON object, or one of these values has another type.
    """
    if not os.path.lexists(path):
        participant = path.name.split("_")[0]
        raise MissingInputError(f"there is no sidecar {path}; run the participant level again for {participant}")
    sidecar = read_json(path)
    for name, (fits, expected) in _EXPECTED.items():
        if not fits(sidecar.get(name)):
            raise DamagedFileError(
                f"{name} in {path} is {shown(sidecar[name])}; expected: {expected}; run the participant level again"
            )
    return sidecar
