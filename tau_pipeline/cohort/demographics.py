"""Age, sex, and diagnosis of the participants of a cohort."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.cohort.codes import MISSING_CODES, Codes, code_of, is_missing, sex_of
from tau_pipeline.errors import DamagedFileError, SettingError
from tau_pipeline.files import read_tsv
from tau_pipeline.words import counted, form

if TYPE_CHECKING:
    import pandas as pd


#: What joins a row to a person; spellings that datasets use for each, most telling first.
_DEMOGRAPHICS = {
    "age": ("age", "age_at_scan", "age_at_pet", "age_at_visit", "age_years", "age_in_years", "ageatscan", "age_months"),
    "sex": ("sex", "gender", "ptgender"),
    "diagnosis": ("diagnosis", "dx", "diag", "clinical_diagnosis", "dx_bl", "dx_group", "group"),
}


#: Further covariates, which only models ask for; spellings of their columns.
_FURTHER = {
    "apoe": ("apoe", "apoe_genotype", "apoe4", "apoe_e4", "apoegn", "apoe_status"),
    "p_tau217": ("p_tau217", "ptau217", "p-tau217", "plasma_ptau217", "plasma_p_tau217", "pt217_f"),
}

#: Spellings of the column that makes a row of ``participants.tsv`` one of a session.
_SESSION_COLUMNS = ("session_id", "session", "ses", "visit", "visit_id", "viscode")

#: What tables have in codes.
_CODED = ("sex", "diagnosis")

#: Number of participants that a sentence names.
_NAMED = 5


@dataclass(frozen=True)
class Demographics:
    """Age, sex and diagnosis (the names in `_DEMOGRAPHICS`) as far as the dataset's tables state them.

    ``of_participant`` by ``participant_id``, ``of_session`` by ``(participant_id, session_id)``; what is missing is
    not there. ``notes`` are sentences on values that were read in a certain way, or could not be.
    """

    of_participant: Mapping[str, Mapping[str, Any]]
    of_session: Mapping[tuple[str, str], Mapping[str, Any]]
    notes: tuple[str, ...] = ()

    def of(self, participant_id: str, session_id: str | None) -> dict[str, Any]:
        """Return the demographics of one scan: the session's values, else the participant's, else missing."""
        general = self.of_participant.get(participant_id, {})
        own = self.of_session.get((participant_id, session_id or ""), {})
        return {**dict.fromkeys(_DEMOGRAPHICS), **general, **own}

    def gaps(self, scans: Iterable[tuple[str, str | None]]) -> list[str]:
        """Say how many participants have no row, no age, no sex or no diagnosis, and which rows belong to nobody.

        Parameters
        ----------
        scans
            ``participant_id`` and ``session_id`` (None: no session) of each scan.
        """
        scans = sorted(set(scans), key=str)
        everybody = {who for who, _ in scans}
        rows = {*self.of_participant, *(who for who, _ in self.of_session)}
        sentences = []
        if everybody - rows:
            sentences.append(
                f"{len(everybody - rows)} of {counted(len(everybody), 'participant')} "
                f"{form(len(everybody - rows), 'has', 'have')} no row in participants.tsv or sessions.tsv: "
                f"{_listed(everybody - rows)}"
            )
        meant = {_plain_id(who): who for who in everybody - rows}
        nearly = {f"{who} ({meant[plain]})" for who in rows - everybody if (plain := _plain_id(who)) in meant}
        if nearly:
            sentences.append(
                f"some ids in participants.tsv are nearly those of participants: {_listed(nearly)}. Write the ids as "
                "in the folders' names"
            )
        sentences += self._sessions_without_rows(scans)
        for name in _DEMOGRAPHICS:
            without = {who for who, session in scans if who in rows and self.of(who, session)[name] is None}
            if without:
                have = f"{counted(len(everybody), 'participant')} {form(len(without), 'has', 'have')}"
                sentences.append(f"{len(without)} of {have} no {name}: {_listed(without)}")
        if everybody.isdisjoint(rows) and rows and not nearly:
            sentences.append(
                f"no participant_id in participants.tsv matches a participant; it has {_listed(rows)}. Write the ids "
                "as in the folders' names"
            )
        return sentences

    def _sessions_without_rows(self, scans: Iterable[tuple[str, str | None]]) -> list[str]:
        """Say which sessions with scans have no row, of participants that have rows of sessions without scans."""
        scans = set(scans)
        strange: dict[str, set[str]] = {}
        for who, session in self.of_session.keys() - scans:
            strange.setdefault(who, set()).add(session)
        without = [(who, session) for who, session in scans if session and (who, session) not in self.of_session]
        named = {f"{who} {session} (there are {_listed(strange[who])})" for who, session in without if who in strange}
        if not named:
            return []
        return [
            f"sessions with scans have no row in participants.tsv or sessions.tsv: {_listed(named)}. Write the "
            "sessions as in the folders' names"
        ]


def read_demographics(
    bids_dir: str | os.PathLike[str], diagnosis_column: str | None = None, further: bool = False
) -> Demographics:
    """Read age, sex and diagnosis from ``participants.tsv`` and the ``sessions.tsv`` of participants.

    ``participants.tsv`` may have one row per session, with a column ``session_id``. Where rows of one participant (or
    session) contradict each other, the value counts as missing, and a note says so.

    Parameters
    ----------
    bids_dir
        The raw dataset.
    diagnosis_column
        Its name in these tables; None takes the first of `_DEMOGRAPHICS` that is there.
    further
        Read APOE and plasma p-tau217 too.

    Raises
    ------
    SettingError
        ``diagnosis_column`` is in none of the tables.
    DamagedFileError
        A table cannot be read or has no ``participant_id`` or ``session_id``.
    """
    root = Path(bids_dir)
    wanted = {**_DEMOGRAPHICS, "diagnosis": (diagnosis_column,)} if diagnosis_column else _DEMOGRAPHICS
    wanted = {**wanted, **_FURTHER} if further else wanted
    rows, codes = _Rows(), Codes(root)
    columns: set[str] = set()
    if os.path.lexists(root / "participants.tsv"):
        table = _with_key(root / "participants.tsv", "participant_id", "sub-")
        columns |= set(table.columns)
        sessions = _sessions_of(table)
        picked = _picked(table, wanted, root / "participants.tsv", codes)
        for who, session, values in zip(table["participant_id"], sessions, picked, strict=True):
            rows.add((who, session), values, "participants.tsv")
        rows.keep_what_never_changes()
    tables, closed = _tables_of_sessions(root)
    for path in tables:
        table = _with_key(path, "session_id", "ses-")
        columns |= set(table.columns)
        for session, values in zip(table["session_id"], _picked(table, wanted, path, codes), strict=True):
            rows.add((path.parent.name, session), values, path.name)
    if diagnosis_column and diagnosis_column.lower() not in {name.lower() for name in columns}:
        raise SettingError(
            f"neither participants.tsv nor a sessions.tsv of {root} has a column {diagnosis_column!r}; "
            f"there are: {', '.join(sorted(columns)) or 'none'}"
        )
    return rows.demographics([*codes.notes(), *closed])


def _tables_of_sessions(root: Path) -> tuple[list[Path], list[str]]:
    """Return the ``sessions.tsv`` of participants, sorted, and a sentence on folders that may not be looked into."""
    found, closed = [], []
    with os.scandir(root) as entries:
        folders = sorted(one.path for one in entries if one.name.startswith("sub-"))
    for folder in map(Path, folders):
        table = folder / f"{folder.name}_sessions.tsv"
        try:
            table.lstat()
            found.append(table)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            closed.append(folder.name)
    told = f"the folders of some participants cannot be read, nor a sessions.tsv in them: {_listed(closed)}"
    return found, [told] if closed else []


class _Rows:
    """Values of rows, by participant and session (None: of the participant), and what was noted about them."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str | None], dict[str, list[Any]]] = {}
        self._readings: dict[str, list[str]] = {}
        self._spellings: dict[str, str] = {}
        self._tables: dict[tuple[str, str | None], str] = {}

    def add(self, key: tuple[str, str | None], values: Mapping[str, Any], table: str) -> None:
        """Add one row. A later table replaces values of an earlier one, rows of one table are compared."""
        own = self._values.setdefault(key, {})
        same_table = self._tables.setdefault(key, table) == table
        self._tables[key] = table
        for name, stated in values.items():
            value, note = read_age(stated) if name == "age" else self._as_elsewhere(name, stated)
            if note:
                self._readings.setdefault(f"{table}: {note}", []).append(key[0])
            if value is None:
                continue
            if not same_table:
                own[name] = [value]
            elif value not in own.setdefault(name, []):
                own[name].append(value)

    def _as_elsewhere(self, name: str, stated: str) -> tuple[str, str]:
        """Return a sex or diagnosis in one spelling for all rows, and a sentence where that changes a diagnosis."""
        if name != "diagnosis":
            return sex_of(stated) if name == "sex" else stated, ""
        known = self._spellings.setdefault(" ".join(stated.casefold().split()), stated)
        return known, "" if known == stated else f"diagnosis {stated!r} was taken as {known!r}, as in other rows"

    def keep_what_never_changes(self) -> None:
        """Give participants with a row per session the values that all their rows agree on."""
        together: dict[str, dict[str, list[Any]]] = {}
        for (who, session), own in self._values.items():
            if session is not None:
                for name, found in own.items():
                    together.setdefault(who, {}).setdefault(name, []).extend(found)
        for who, own in together.items():
            constant = {name: found[0] for name, found in own.items() if len(set(found)) == 1}
            general = self._values.setdefault((who, None), {})
            general.update({name: [value] for name, value in constant.items() if name not in general})

    def demographics(self, codes: Sequence[str] = ()) -> Demographics:
        """Return what the rows agree on; sentences on ``codes`` are noted, too."""
        agreed = {
            key: {name: found[0] for name, found in own.items() if len(found) == 1} for key, own in self._values.items()
        }
        contradicted: dict[str, set[str]] = {}
        for (who, session), own in self._values.items():
            where = who if session is None else f"{who} {session}"
            for name, found in own.items():
                if len(found) > 1:
                    contradicted.setdefault(name, set()).add(f"{where} ({', '.join(map(str, found))})")
        notes = [
            f"rows of one participant or session contradict each other; {name} counts as missing for {_listed(who)}"
            for name, who in contradicted.items()
        ]
        notes += [f"{note}: {_listed(set(who))}" for note, who in self._readings.items()]
        notes += codes
        return Demographics(
            {who: values for (who, session), values in agreed.items() if session is None},
            {(who, session): values for (who, session), values in agreed.items() if session is not None},
            tuple(notes),
        )


def read_age(value: Any) -> tuple[float | None, str]:
    """Return the age that a cell states, in years, and a sentence where it took reading; None if there is no number.

    Examples
    --------
    >>> read_age("71"), read_age("71,5"), read_age("89+")[0], read_age("70-74")[0], read_age("old")[0]
    ((71.0, ''), (71.5, ''), 89.0, 72.0, None)
    >>> read_age("0")[1]
    "age '0' is no number of years and counts as missing"
    >>> read_age("71 years")[0], read_age("P071Y")[0], read_age("852 months")[0], read_age("-4")[0], read_age("1950")[0]
    (71.0, 71.0, 71.0, None, None)
    """
    text = str(value).strip()
    number = _as_number(text)
    # An age of 0 in a study of tau is a code for a missing one.
    if number is not None and 0 < number < _OLDEST:
        return number, ""
    years, how = _age_text(text)
    if years is None or not 0 < years < _OLDEST:
        return None, f"age {text!r} is no number of years and counts as missing"
    return years, f"age {text!r} was taken as {years:.4g}{how}"


def _age_text(text: str) -> tuple[float | None, str]:
    """Return the years that a text with more than a number states, and what to add to the number in a sentence."""
    if found := re.fullmatch(_WITH_UNIT, text, re.IGNORECASE):
        return (_as_number(found[1]) or 0.0) / (1 if found[2] else 12), " years"
    if found := re.fullmatch(_AT_LEAST, text, re.IGNORECASE):
        return _as_number(found[1]), ""
    found = re.fullmatch(r"(\d+)\s*(?:-|–|to)\s*(\d+)", text)
    if found and int(found[1]) <= int(found[2]) < _OLDEST:
        return (int(found[1]) + int(found[2])) / 2, ", the middle of the range"
    return None, ""


#: ``89+``, ``>89``, ``90 or older``, ``over 89 years``; and ``ca. 70``.
_AT_LEAST = (
    r"(?:[>≥]?\s*=?|over|older than|above|ca\.?|circa|about|~)\s*(\d+(?:[.,]\d+)?)\s*(?:\+|\+?\s*(?:y|yrs?|years?))?"
    r"(?:\s*(?:or|and) (?:older|over|above|more))?"
)
#: ``71 years``, ``71y``, DICOM's ``071Y``, ISO's ``P71Y``; or months.
_WITH_UNIT = r"p?(\d+(?:[.,]\d+)?)\s*(?:(y|yrs?|years?|y\.?o\.?)|m|mo|months?)(?: old)?"

#: Larger numbers are no ages.
_OLDEST = 150


def _as_number(text: str) -> float | None:
    """Return a number written with point or comma; None if it is none."""
    if not re.fullmatch(r"-?\d+([.,]\d*)?([eE][+-]?\d+)?", text):
        return None
    number = float(text.replace(",", "."))
    return number if math.isfinite(number) else None


def _plain_id(participant_id: str) -> str:
    """Return an id without what spreadsheets and people change: leading zeros, marks, case, and a second ``sub``."""
    plain = re.sub(r"[^0-9a-z.]", "", participant_id.lower()).removesuffix(".0")
    return re.sub(r"0+(?=\d)", "", re.sub(r"^(sub)+", "", plain))


def _listed(names: Iterable[str]) -> str:
    """List names, sorted; of many the first ones and their number."""
    ordered = sorted(names)
    more = len(ordered) - _NAMED
    return ", ".join(ordered[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _with_key(path: Path, key: str, prefix: str) -> pd.DataFrame:
    """Read a table whose columns stay text, with the key in BIDS's form."""
    table = read_tsv(path, everything_is_text=True).dropna(axis=0, how="all")
    table = table.rename(columns={name: key for name in table.columns if _plain(name) == key})
    if list(table.columns).count(key) != 1:
        columns = ", ".join(map(str, table.columns))
        raise DamagedFileError(
            f"{path} has the columns {columns}; expected: one column {key}, and tabs between the columns"
        )
    table = table.dropna(subset=[key])
    table[key] = [prefix + re.sub(rf"^{prefix}", "", str(value).strip(), flags=re.IGNORECASE) for value in table[key]]
    return table


def _plain(name: Any) -> str:
    """Return the name of a column in small letters, without a remark: ``Age at scan (years)`` is ``age_at_scan``."""
    return re.sub(r"\s+", "_", re.sub(r"[(\[].*", "", str(name).lower()).strip())


def _sessions_of(table: pd.DataFrame) -> list[str | None]:
    """Return the session of each row of ``participants.tsv``; None for all if it has no such column."""
    import pandas as pd

    column = next((name for name in table.columns if _plain(name) in _SESSION_COLUMNS), None)
    if column is None:
        return [None] * len(table)
    return [None if pd.isna(value) else f"ses-{str(value).strip().removeprefix('ses-')}" for value in table[column]]


def _picked(
    table: pd.DataFrame, wanted: Mapping[str, Sequence[str | None]], table_file: Path, codes: Codes
) -> list[dict[str, Any]]:
    """Return the values of `_DEMOGRAPHICS` in each row, by the first spelling found; missing ones are left out.

    Codes of sexes and diagnoses are replaced by their words.
    """
    import pandas as pd

    by_name = {_plain(name): name for name in reversed(table.columns)}
    by_name |= {str(name).lower(): name for name in table.columns}
    picked: dict[str, Any] = {}
    for name, spellings in wanted.items():
        own = next((by_name[str(spelling).lower()] for spelling in spellings if str(spelling).lower() in by_name), None)
        if own is not None:
            picked[name] = table[own]
            if name in _CODED:
                picked[name] = codes.in_words(name, table_file, str(own), table[own])
            elif name == "age":
                picked[name] = codes.in_years(table_file, str(own), table[own])
            codes.note_repeated(table_file, str(own), table.columns)
    rows = pd.DataFrame(picked, index=table.index).astype(object).to_dict("records")
    stated = [{name: str(value).strip() for name, value in row.items() if not is_missing(value)} for row in rows]
    return [
        {name: value for name, value in row.items() if name == "age" or code_of(value) not in MISSING_CODES}
        for row in stated
    ]
