"""z-scores of regional SUVR against a reference group, such as the controls of the cohort.

z is the SUVR, standardized by manufacturer, minus the mean of the reference group, divided by its standard deviation
(ddof 1), by region, tracer, and reference region. Since standardization by manufacturer is linear, offsets and gains of
scanners cancel. Each participant of the group counts once, by the mean of the included measured scans.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tau_pipeline.cohort.codes import code_of, dictionary_of, is_missing, is_same, words_of
from tau_pipeline.cohort.demographics import read_age
from tau_pipeline.errors import MissingInputError, SettingError
from tau_pipeline.files import read_tsv

if TYPE_CHECKING:
    import pandas as pd

#: With fewer participants the SD has a standard error of a quarter or more, and there is no z.
FEWEST = 10
#: What tells apart the values that are compared.
_PLACE = ["tracer", "reference_region", "region", "hemisphere"]
#: Columns that z-scores and W-scores are made from.
_OF_GROUP = ("participant_id", *_PLACE, "kind", "age", "sex", "suvr_mean", "suvr_z")
_CLAUSE = re.compile(r"\s*([\w.-]+)\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*")


def reference_participants(bids_dir: str | os.PathLike[str], expression: str) -> frozenset[str]:
    """Return the participants of a reference group, as ``participant_id``.

    Parameters
    ----------
    bids_dir
        The raw dataset; its ``participants.tsv`` is read.
    expression
        Comparisons of its columns, joined by ``and``: ``diagnosis == CN and age >= 60``. Texts need no quotes, their
        case does not matter, and words stand for the codes that ``participants.json`` explains. A participant with
        several rows belongs to the group if all of them fulfill it; an empty cell fulfills nothing.

    Raises
    ------
    SettingError
        The expression cannot be read, a column is not there, or no participant fulfills it.
    MissingInputError
        There is no ``participants.tsv``.
    """
    path = Path(bids_dir) / "participants.tsv"
    if not path.is_file():
        raise MissingInputError(f"--reference-group needs {path}, which is not there")
    table = read_tsv(path, everything_is_text=True)
    if "participant_id" not in table.columns:
        raise SettingError(f"{path} has no column participant_id, which --reference-group needs")
    holds = np.ones(len(table), bool)
    for clause in re.split(r"\s+and\s+", expression.strip()):
        holds &= _fulfilled(table, clause, path)
    who = "sub-" + table["participant_id"].astype(str).str.strip().str.removeprefix("sub-")
    found = set(who[holds]) - set(who[~holds])
    if not found:
        raise SettingError(f"no participant of {path} fulfills the reference group {expression!r}")
    return frozenset(found)


def _fulfilled(table: pd.DataFrame, clause: str, path: Path) -> np.ndarray:
    """Return for each row whether one comparison holds."""
    import pandas as pd

    parts = _CLAUSE.fullmatch(clause)
    if parts is None:
        raise SettingError(
            f"reference_group has {clause!r}; expected: comparisons such as diagnosis == CN, joined by and"
        )
    name, operator, wanted = parts[1], parts[2], parts[3].strip("'\"")
    column = next((one for one in table.columns if str(one).lower() == name.lower()), None)
    if column is None:
        raise SettingError(f"reference_group names the column {name}; {path} has {', '.join(map(str, table.columns))}")
    cells = table[column]
    if operator in ("==", "!="):
        words = words_of(dictionary_of(path), str(column))
        same = np.array([is_same(cell, wanted, words) for cell in cells], bool)
        known = np.array([not is_missing(words.get(code_of(cell) or "", cell)) for cell in cells.fillna("")], bool)
        return same if operator == "==" else ~same & known
    try:
        limit = float(wanted)
    except ValueError as exc:
        raise SettingError(f"reference_group compares {name} {operator} {wanted!r}; expected: a number") from exc
    texts = cells.astype("string").str.strip()
    years = [read_age(text)[0] for text in texts.fillna("")] if "age" in name.lower() else texts.str.replace(",", ".")
    numbers = pd.to_numeric(pd.Series(years, index=cells.index), errors="coerce").to_numpy(float)
    compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[operator]
    return compare(numbers, limit)


def reference_rows(long: pd.DataFrame, participants: Collection[str]) -> pd.DataFrame:
    """Return the rows of a reference group, those of included measured scans, with no more than scores are made from.

    Parameters
    ----------
    long
        As `tau_pipeline.cohort.tables.long_table` gives it, of all scans or of a part of them.
    participants
        Of the reference group.
    """
    used = long["participant_id"].isin(participants) & (long["source"] == "measured") & (long["included"] == "yes")
    return long.loc[used.fillna(False).to_numpy(bool), [name for name in _OF_GROUP if name in long.columns]]


def joined_rows(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return rows of `reference_rows` below each other; as categories, texts take a tenth of the memory."""
    import pandas as pd
    from pandas.api.types import is_numeric_dtype, union_categoricals

    columns: dict[str, Any] = {}
    for name in parts[0].columns:
        own = [part[name] for part in parts]
        if all(map(is_numeric_dtype, own)):
            columns[name] = pd.concat(own, ignore_index=True)
        else:
            columns[name] = union_categoricals([one.astype("string").astype("category") for one in own])
    return pd.DataFrame(columns)


def zscore_statistics(group: pd.DataFrame) -> pd.DataFrame:
    """Return mean, SD (ddof 1), and number of participants of a reference group, one row per kind of scan and region.

    Parameters
    ----------
    group
        As `joined_rows` gives it.
    """
    known = group[group["suvr_z"].notna()].astype({"suvr_z": float})
    own = known.groupby([*_PLACE, "participant_id"], dropna=False, observed=True)["suvr_z"].mean()
    found = own.groupby(_PLACE, dropna=False, observed=True).agg(["mean", "std", "count"]).reset_index()
    return found.astype(dict.fromkeys(_PLACE, "string"))


def with_zscores(long: pd.DataFrame, statistics: pd.DataFrame) -> pd.DataFrame:
    """Return a long table with ``suvr_zscore`` and ``zscore_n``, the number of participants of the group behind it.

    Parameters
    ----------
    long
        As `tau_pipeline.cohort.tables.long_table` gives it.
    statistics
        As `zscore_statistics` gives them. With a value of fewer than `FEWEST` participants there is no z-score.
    """
    joined = long[_PLACE].merge(statistics, on=_PLACE, how="left")
    n = joined["count"].fillna(0).to_numpy(int)
    enough = (n >= FEWEST) & (joined["std"].to_numpy(float) > 0)
    values = long["suvr_z"].to_numpy(dtype=float, na_value=np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (values - joined["mean"].to_numpy(float)) / joined["std"].to_numpy(float)
    return long.assign(suvr_zscore=np.where(enough, z, np.nan), zscore_n=n)
