"""Codes in tables of people (1, 2) and the words that their data dictionary has for them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import read_json

if TYPE_CHECKING:
    import pandas as pd

#: Texts that stand for a missing value, in small letters.
_NO_VALUE = frozenset(
    (
        *("", "na", "n/a", "n.a.", "n.a", "#n/a", "<na>", "nan", "nd", "n.d.", "null", "nil", "none"),
        *("-", "--", "?", ".", "missing", "not available", "not applicable", "not known", "not reported"),
        *("not recorded", "unknown", "unk", "#value!", "#ref!", "#num!", "#name?", "#null!", "#div/0!"),
    )
)
#: Spellings of the sexes, in small letters; others stay as they are.
_SEXES = {
    **dict.fromkeys(
        ("f", "female", "fem", "w", "woman", "femme", "féminin", "weiblich", "frau", "mujer", "vrouw"), "F"
    ),
    **dict.fromkeys(("m", "male", "man", "homme", "masculin", "männlich", "mann", "hombre", "masculino"), "M"),
}
#: Codes of missing values.
MISSING_CODES = frozenset(("-1", "-4", "-9", "-99", "-999", "-9999", "999", "9999"))
#: Number of codes that a sentence names.
_NAMED = 10
#: How many months, weeks, and days are a year, by the start of their names.
_A_YEAR = {"mo": 12.0, "week": 365.25 / 7, "day": 365.25}
_CODE = re.compile(r"[-+]?\d+([.,]0*)?")
#: ``1 = male, 2 = female`` in a text; a word ends where the next code begins.
_PAIR = re.compile(r"(-?\d+)\s*(?:=|:|->|→|\bis\b)\s*([^\W\d][^,;|=:\n]*)")


def code_of(value: str) -> str | None:
    """Return a cell as a code, a whole number; None if it is none.

    Examples
    --------
    >>> code_of("1.0"), code_of("02"), code_of("-4"), code_of("1.5"), code_of("F")
    ('1', '2', '-4', None, None)
    """
    text = value.strip()
    return str(int(re.split("[.,]", text)[0])) if _CODE.fullmatch(text) else None


def words_of(dictionary: Mapping[str, Any], column: str) -> dict[str, str]:
    """Return the word of each code of a column.

    ``Levels`` may have them either way round, or as objects with a ``Description``; without ``Levels`` the description
    of the column may list them.

    Parameters
    ----------
    dictionary
        The JSON file beside the table.
    column
        As it is spelled in the table.

    Examples
    --------
    >>> words_of({"sex": {"Levels": {"1": "male", "2": "female"}}}, "sex")
    {'1': 'male', '2': 'female'}
    >>> words_of({"dx": {"Levels": {"CN": 1, "AD": 3}}}, "dx"), words_of({"s": {"Description": "0: F; 1: M"}}, "s")
    ({'1': 'CN', '3': 'AD'}, {'0': 'F', '1': 'M'})
    """
    about = _about(dictionary, column)
    levels = about.get("Levels", about.get("levels"))
    pairs = [(str(name), _text(one)) for name, one in levels.items()] if isinstance(levels, Mapping) else []
    if not pairs:
        pairs = _PAIR.findall(str(about.get("Description") or about.get("LongName") or ""))
        pairs = pairs if len(pairs) > 1 else []
    found: dict[str, str] = {}
    for one, other in pairs:
        for code, word in ((one, other), (other, one)):
            if (known := code_of(code)) is not None and code_of(word) is None and word.strip():
                found.setdefault(known, " ".join(word.split()).rstrip(".)"))
    return found


def _about(dictionary: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    """Return what a data dictionary says of a column, whose case does not matter; empty if it says nothing."""
    plain = {str(name).strip().lower(): one for name, one in dictionary.items()}
    about = dictionary.get(column, plain.get(column.strip().lower()))
    return about if isinstance(about, Mapping) else {}


def _text(level: Any) -> str:
    return str(level.get("Description", "")) if isinstance(level, Mapping) else str(level)


class Codes:
    """Puts the codes of a dataset's tables into words, and notes what it did.

    Parameters
    ----------
    root
        The dataset's folder, whose ``sessions.json`` and ``participants.json`` hold for all tables.
    """

    def __init__(self, root: Path) -> None:
        self._unread: list[str] = []
        self._shared = [self._dictionary(root / f"{name}.tsv") for name in ("sessions", "participants")]
        self._read: dict[str, dict[str, str]] = {}
        self._unknown: dict[str, set[str]] = {}
        self._units: set[tuple[str, str]] = set()
        self._repeated: set[str] = set()

    def _dictionary(self, table_file: Path) -> dict[str, Any]:
        """Return the data dictionary beside a table; note it if it cannot be read."""
        try:
            return _read(table_file)
        except TauPipelineError as exc:
            self._unread.append(f"{exc}; the table beside it is read without it")
            return {}

    def in_words(self, name: str, table_file: Path, column: str, cells: Iterable[Any]) -> list[Any]:
        """Return the cells of a column, with words in the place of codes that a data dictionary explains.

        Parameters
        ----------
        name
            What the column states.
        table_file
            The table, whose data dictionary may lie beside it.
        column
            As it is spelled in the table.
        cells
            Texts, or missing values.
        """
        own = [dictionary_of(table_file), *self._shared]
        words = next(filter(None, (words_of(one, column) for one in own)), {})
        return [self._in_words(name, cell, words) if isinstance(cell, str) else cell for cell in cells]

    def in_years(self, table_file: Path, column: str, cells: Iterable[Any]) -> list[Any]:
        """Return the cells of a column of ages in years, if the column or its data dictionary states another unit."""
        units = (str(_about(one, column).get("Units", "")) for one in (dictionary_of(table_file), *self._shared))
        stated = " ".join([*units, column])
        found = re.search(r"(?<![a-z])(months?|mos?|weeks?|days?)(?![a-z])", stated.lower().replace("_", " "))
        if found is None or re.search(r"(?<![a-z])(years?|yrs?)(?![a-z])", stated.lower().replace("_", " ")):
            return list(cells)
        self._units.add((column, found[1]))
        a_year = next(number for start, number in _A_YEAR.items() if found[1].startswith(start))

        def in_years(cell: Any) -> Any:
            plain = cell.strip().replace(",", ".") if isinstance(cell, str) else ""
            return f"{float(plain) / a_year:.6g}" if re.fullmatch(r"\d+(\.\d+)?", plain) else cell

        return [in_years(cell) for cell in cells]

    def _in_words(self, name: str, cell: str, words: Mapping[str, str]) -> str:
        code = code_of(cell)
        if code is None:
            return cell
        if code in words:
            self._read.setdefault(name, {})[code] = words[code]
            return words[code]
        if code not in MISSING_CODES:
            self._unknown.setdefault(name, set()).add(code)
        return cell

    def note_repeated(self, table_file: Path, column: str, columns: Iterable[Any]) -> None:
        """Note a column that a table has twice; pandas calls the second one ``age.1``."""
        if any(re.fullmatch(rf"{re.escape(column)}\.\d+", str(one)) for one in columns):
            self._repeated.add(f"{table_file.name} has the column {column} twice; the first one counts")

    def notes(self) -> list[str]:
        """Return a sentence on the codes of each column that were read, and one on those that nothing explains."""
        found = [f"ages in the column {column} are in {unit}; they were put into years" for column, unit in self._units]
        found += [*self._unread, *sorted(self._repeated)]
        for name, words in self._read.items():
            pairs = ", ".join(f"{code} is {words[code]}" for code in sorted(words, key=int))
            found.append(f"codes of {name} were read by the data dictionary: {pairs}")
        for name, codes in self._unknown.items():
            listed = ", ".join(sorted(codes, key=int)[:_NAMED])
            found.append(
                f"{name} has codes that nothing explains ({listed}); they count as names. Explain them in "
                "participants.json (Levels)"
            )
        return found


def dictionary_of(table_file: Path) -> dict[str, Any]:
    """Return the data dictionary beside a table; empty if there is none, or it cannot be read."""
    try:
        return _read(table_file)
    except TauPipelineError:
        return {}


def _read(table_file: Path) -> dict[str, Any]:
    file = table_file.with_suffix(".json")
    return read_json(file) if os.path.lexists(file) else {}


def sex_of(stated: str) -> str:
    """Return ``F`` or ``M`` for the spellings of a sex, also within a few words; other texts as they are."""
    found = {_SEXES[word] for word in re.findall(r"[^\W\d_]+", stated.lower()) if word in _SEXES and len(word) > 2}
    return _SEXES.get(stated.lower()) or (found.pop() if len(found) == 1 else stated)


def is_missing(value: Any) -> bool:
    """Return whether a cell of a table of texts has no value, however that is written."""
    return not isinstance(value, str) or value.strip().lower() in _NO_VALUE


def is_same(cell: Any, wanted: str, words: Mapping[str, str]) -> bool:
    """Return whether a cell states a value: in the same letters but for case, in its code, or as the same sex.

    Examples
    --------
    >>> is_same("cn", "CN", {}), is_same("1", "CN", {"1": "CN"}), is_same("1.0", "1", {}), is_same("female", "F", {})
    (True, True, True, True)
    """
    if is_missing(cell):
        return False
    code = code_of(cell)
    stated = {_letters(cell), code, _letters(words.get(code or "", cell))}
    sex = sex_of(" ".join(wanted.split()))
    return bool(stated & {_letters(wanted), code_of(wanted) or _letters(wanted)}) or (
        sex in ("F", "M") and sex_of(words.get(code or "", cell)) == sex
    )


def _letters(text: str) -> str:
    return " ".join(text.casefold().split())


def explained(table: pd.DataFrame, table_file: Path) -> pd.DataFrame:
    """Return a table of texts with numbers where a column has nothing else, and words where codes are explained.

    What stands for a missing value is missing.
    """
    import pandas as pd

    codes, columns = Codes(table_file.parent), {}
    for column in table.columns:
        cells = codes.in_words(str(column), table_file, str(column), table[column])
        texts = pd.Series([None if is_missing(one) else one for one in cells], index=table.index, dtype=object)
        numbers = pd.to_numeric(texts.str.replace(",", "."), errors="coerce") if texts.notna().any() else texts
        all_numbers = column != "participant_id" and numbers.notna().equals(texts.notna())
        columns[column] = numbers if all_numbers else texts
    return pd.DataFrame(columns)
