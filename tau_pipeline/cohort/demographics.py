"""Age, sex, and diagnosis of the participants of a cohort."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.errors import DamagedFileError, SettingError
from tau_pipeline.files import read_tsv

if TYPE_CHECKING:
    import pandas as pd


#: What joins a row to a person; spellings that datasets use for each, most telling first.
_DEMOGRAPHICS = {
    "age": ("age", "age_at_scan", "age_years", "ageatscan"),
    "sex": ("sex", "gender", "ptgender"),
    "diagnosis": ("diagnosis", "dx", "diag", "clinical_diagnosis", "dx_bl", "dx_group", "group"),
}


@dataclass(frozen=True)
class Demographics:
    """Age, sex and diagnosis (the names in `_DEMOGRAPHICS`) as far as the dataset's tables state them.

    ``of_participant`` by ``participant_id``, ``of_session`` by ``(participant_id, session_id)``; what is missing is
    not there.
    """

    of_participant: Mapping[str, Mapping[str, Any]]
    of_session: Mapping[tuple[str, str], Mapping[str, Any]]

    def of(self, participant_id: str, session_id: str | None) -> dict[str, Any]:
        """Return the demographics of one scan: the session's values, else the participant's, else missing."""
        general = self.of_participant.get(participant_id, {})
        own = self.of_session.get((participant_id, session_id or ""), {})
        return {**dict.fromkeys(_DEMOGRAPHICS), **general, **own}


def read_demographics(bids_dir: str | os.PathLike[str], diagnosis_column: str | None = None) -> Demographics:
    """Read age, sex and diagnosis from ``participants.tsv`` and the ``sessions.tsv`` of participants.

    Parameters
    ----------
    bids_dir
        The raw dataset.
    diagnosis_column
        Its name in these tables; None takes the first of `_DEMOGRAPHICS` that is there.

    Raises
    ------
    SettingError
        ``diagnosis_column`` is in none of the tables.
    DamagedFileError
        A table cannot be read or has no ``participant_id`` or ``session_id``.
    """
    root = Path(bids_dir)
    wanted = {**_DEMOGRAPHICS, "diagnosis": (diagnosis_column,)} if diagnosis_column else _DEMOGRAPHICS
    of_participant: dict[str, dict[str, Any]] = {}
    of_session: dict[tuple[str, str], dict[str, Any]] = {}
    columns: set[str] = set()
    if (root / "participants.tsv").is_file():
        table = _with_key(root / "participants.tsv", "participant_id", "sub-")
        columns |= set(table.columns)
        of_participant = dict(zip(table["participant_id"], _picked(table, wanted), strict=True))
    for path in sorted(root.glob("sub-*/sub-*_sessions.tsv")):
        table = _with_key(path, "session_id", "ses-")
        columns |= set(table.columns)
        keys = [(path.parent.name, session) for session in table["session_id"]]
        of_session |= dict(zip(keys, _picked(table, wanted), strict=True))
    if diagnosis_column and diagnosis_column.lower() not in {name.lower() for name in columns}:
        raise SettingError(
            f"neither participants.tsv nor a sessions.tsv of {root} has a column {diagnosis_column!r}; "
            f"there are: {', '.join(sorted(columns)) or 'none'}"
        )
    return Demographics(of_participant, of_session)


def _with_key(path: Path, key: str, prefix: str) -> pd.DataFrame:
    table = read_tsv(path, [key]).dropna(axis=0, how="all")
    if key not in table.columns:
        raise DamagedFileError(f"{path} has no column {key}; correct the table")
    table[key] = [prefix + str(value).removeprefix(prefix) for value in table[key]]
    return table


def _picked(table: pd.DataFrame, wanted: Mapping[str, Sequence[str | None]]) -> list[dict[str, Any]]:
    """Return the values of `_DEMOGRAPHICS` in each row, by the first spelling found; missing ones are left out."""
    import pandas as pd

    by_name = {str(name).lower(): name for name in table.columns}
    picked: dict[str, Any] = {}
    for name, spellings in wanted.items():
        own = next((by_name[str(spelling).lower()] for spelling in spellings if str(spelling).lower() in by_name), None)
        if own is not None:
            # As text first: pandas does not take whole numbers that are longer than a float for numbers.
            ages = pd.to_numeric(table[own].astype("string"), errors="coerce") if name == "age" else None
            picked[name] = table[own] if ages is None else ages.where(abs(ages) < math.inf)
    rows = pd.DataFrame(picked, index=table.index).astype(object).to_dict("records")
    return [{name: value for name, value in row.items() if not pd.isna(value)} for row in rows]
