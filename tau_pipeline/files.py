"""Files that appear under their final name only when they are complete."""

from __future__ import annotations

import filecmp
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tau_pipeline.errors import DamagedFileError, MissingInputError, OutputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

AnyPath = str | os.PathLike[str]

#: Larger files are no sidecars, records, or cards; parsing one could take many times its size in memory.
_LARGEST_JSON_BYTES = 20_000_000


@contextmanager
def complete_file(path: AnyPath) -> Iterator[Path]:
    """Give a partial path beside ``path`` to write to; rename it to ``path`` when the block ends without an error.

    The partial name starts with ``.partial-`` and keeps the ending, so that writers which go by the ending work.

    Raises
    ------
    OutputError
        The folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    ending = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".partial-{secrets.token_hex(8)}{ending}"
        # The file gets the permissions that the user's umask leaves, and never follows a link.
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield partial
        partial.replace(path)
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {exc.strerror or exc}") from exc
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def write_text(text: str, path: AnyPath) -> Path:
    """Write UTF-8 text, complete or not at all."""
    with complete_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(path)


def write_changed(text: str, path: AnyPath) -> Path:
    """Write UTF-8 text unless the file holds it already: what has not changed keeps its time."""
    path = Path(path)
    try:
        same = path.is_file() and path.read_bytes() == text.encode("utf-8")
    except OSError as exc:
        raise OutputError(f"cannot read {path}: {exc.strerror or exc}") from exc
    return path if same else write_text(text, path)


def write_json(content: Mapping[str, Any], path: AnyPath) -> Path:
    """Write a JSON object with an indent of 2, complete or not at all."""
    return write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", path)


def _check_there(path: Path, what: str) -> None:
    link = False
    try:
        there, why = path.is_file(), ""
        link = path.is_symlink()
    except OSError as exc:
        # A name that no file system takes, or a folder that may not be looked into.
        there, why = False, f": {exc.strerror}"
    if not there and link:
        raise MissingInputError(f"the {what} {path} is a broken link; fetch its content (datalad get, git annex get)")
    if not there:
        raise MissingInputError(f"there is no {what} {path}{why}")
    if command := fetched_by(path):
        raise MissingInputError(f"the {what} {path} only points to its content; fetch it ({command})")


#: Beginnings of the small files that stand in the place of content, and what fetches it.
_POINTERS = {b"/annex/objects/": "datalad get, git annex get", b"version https://git-lfs": "git lfs pull"}


def fetched_by(path: Path) -> str:
    """Return the commands that fetch the content of a file that is only a pointer to it; empty for any other file."""
    try:
        with path.open("rb") as file:
            start = file.read(32)
    except OSError:
        return ""
    return next((command for pointer, command in _POINTERS.items() if start.startswith(pointer)), "")


def read_json(path: AnyPath) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    MissingInputError
        There is no such file.
    DamagedFileError
        The file is not UTF-8 JSON, its top level is not an object, or it states two values for one key.
    """
    path = Path(path)
    _check_there(path, "file")
    if path.stat().st_size > _LARGEST_JSON_BYTES:
        raise DamagedFileError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB; JSON files here have at most "
            f"{_LARGEST_JSON_BYTES / 1e6:.0f} MB; check what it is"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_contradiction)
    except (OSError, ValueError, RecursionError) as exc:
        why = "nested too deeply" if isinstance(exc, RecursionError) else exc
        raise DamagedFileError(f"{path} is not valid JSON ({why}); correct the file") from exc
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path} holds a JSON {type(content).__name__}; expected: a JSON object {{...}}")
    return content


def _without_contradiction(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; ValueError if a key has two values, of which readers take one or the other."""
    content = dict(pairs)
    if len(content) < len(pairs) and (again := [key for key, value in pairs if repr(content[key]) != repr(value)]):
        raise ValueError(f"{again[0]!r} is there twice with different values")
    return content


def table_text(table: pd.DataFrame, separator: str = "\t", missing: str = "n/a") -> str:
    """Return a table as text, with texts from elsewhere made harmless, and floats with 7 digits.

    In texts, tabs, line breaks, and other control characters become spaces, so that a row stays a row. Texts that a
    spreadsheet would take for a formula get an apostrophe before them in tables with commas (OWASP, CSV injection).
    """
    return table_texts(table, [(separator, missing)])[0]


def table_texts(table: pd.DataFrame, forms: Sequence[tuple[str, str]], *, header: bool = True) -> list[str]:
    """Return a table as text in several forms, each as `table_text` does.

    The texts are those of `pandas.DataFrame.to_csv`, which takes several times as long, since it looks at each cell
    alone. Here, values that repeat are written once, and so are rows of neighboring columns that repeat together;
    numbers that differ from row to row are written a row at a time, once for all forms.

    Parameters
    ----------
    table
        What is written.
    forms
        What separates cells, and what stands for a missing value.
    header
        Whether the first line has the names of the columns.
    """
    found = [[separator.join(_cell(str(name), separator, missing) for name in table.columns)] if header else []
             for separator, missing in forms]  # fmt: skip
    at_a_time = max(1, _MOST_CELLS // max(1, table.shape[1]))
    for start in range(0, len(table), at_a_time):
        groups = [
            one.written() if isinstance(one, _Numbers) else one
            for one in _groups(table.iloc[start : start + at_a_time])
        ]
        for lines, (separator, missing) in zip(found, forms, strict=True):
            lines.extend(_lines(groups, separator, missing))
    # A line of nothing would be no row.
    return ["".join(f"{line}\n" if line else '""\n' for line in lines) for lines in found]


#: Cells of a table that are held as text at a time.
_MOST_CELLS = 1_000_000


def _groups(table: pd.DataFrame) -> list[_Cells | _Numbers]:
    """Return the columns of a table, those that repeat together as one, and neighboring numbers as one."""
    groups: list[_Cells | _Numbers] = []
    for place in range(table.shape[1]):
        cells = _column(table.iloc[:, place])
        joined = groups[-1].joined(cells) if groups else None
        groups[-1:] = [joined] if joined is not None else [*groups[-1:], cells]
    return groups


def _lines(groups: Sequence[_Cells | _Rows], separator: str, missing: str) -> Iterator[str]:
    return map(separator.join, zip(*(one.rows(separator, missing) for one in groups), strict=True))


class _Numbers(NamedTuple):
    """Neighboring columns of numbers, of which few repeat: float64, and the format of each."""

    columns: list[NDArray[np.float64]]
    forms: list[str]

    def written(self) -> _Rows:
        """Return the columns as text."""
        form = "\t".join(self.forms)
        return _Rows("\n".join([form % row for row in zip(*(one.tolist() for one in self.columns), strict=True)]))

    def joined(self, other: _Cells | _Numbers) -> _Numbers | None:
        """Return both together, if the other are numbers, too."""
        if isinstance(other, _Cells):
            return None
        return _Numbers([*self.columns, *other.columns], [*self.forms, *other.forms])


class _Rows(NamedTuple):
    """Numbers as text, with tabs between cells, line breaks between rows, and nan for what is missing."""

    text: str

    def rows(self, separator: str, missing: str) -> list[str]:
        """Return the cells of each row."""
        return self.text.replace("\t", separator).replace("nan", _quoted(missing, separator)).split("\n")


class _Cells(NamedTuple):
    """Neighboring columns: for each row a code, and for each code the texts of the columns; None is missing.

    ``plain`` says that the texts are numbers, which need no care.
    """

    codes: NDArray[np.integer]
    texts: list[tuple[str | None, ...]]
    plain: bool

    def rows(self, separator: str, missing: str) -> list[str]:
        """Return the cells of each row."""
        import numpy as np

        if self.plain and len(self.texts[0]) == 1:
            written = [missing if text is None else text for (text,) in self.texts]
        else:
            written = [separator.join(_cell(text, separator, missing) for text in texts) for texts in self.texts]
        found: list[str] = np.array(written, dtype=object)[self.codes].tolist()
        return found

    def joined(self, other: _Cells | _Numbers) -> _Cells | None:
        """Return both together, if not many more different rows come of that."""
        import numpy as np
        import pandas as pd

        if isinstance(other, _Numbers) or max(len(self.texts), len(other.texts)) > _MOST_JOINED:
            return None
        codes, both = pd.factorize(self.codes.astype(np.int64) * len(other.texts) + other.codes)
        if len(both) > _MOST_JOINED:
            return None
        pairs = (divmod(int(one), len(other.texts)) for one in both)
        texts = [self.texts[left] + other.texts[right] for left, right in pairs]
        return _Cells(codes, texts, plain=False)


#: Different rows of neighboring columns up to which these are joined.
_MOST_JOINED = 4000


def _column(column: pd.Series) -> _Cells | _Numbers:
    """Return one column; numbers that follow each other by themselves as cells, others as numbers."""
    import numpy as np
    from pandas.api.types import is_bool_dtype, is_float_dtype, is_numeric_dtype

    if not is_numeric_dtype(column.dtype) or is_bool_dtype(column.dtype) or not len(column):
        return _cells_of(column)
    values, whole = column.to_numpy(np.float64, na_value=np.nan), not is_float_dtype(column.dtype)
    if whole and (np.abs(values) >= _MOST_EXACT).any():
        return _cells_of(column)
    form, missing = "%.0f" if whole else "%.7g", np.isnan(values)
    starts = np.flatnonzero(np.concatenate([[True], (values[1:] != values[:-1]) & ~(missing[1:] & missing[:-1])]))
    if len(starts) * _FEWEST_REPEATED > len(values):
        return _Numbers([values], [form])
    texts: list[tuple[str | None, ...]] = [
        (None if math.isnan(value) else form % value,) for value in values[starts].tolist()
    ]
    return _Cells(np.repeat(np.arange(len(starts)), np.diff([*starts, len(values)])), texts, plain=True)


#: Whole numbers below are exact as float64.
_MOST_EXACT = 2**53
#: How often a number must be repeated in the rows below it, on average, to be written once.
_FEWEST_REPEATED = 4


def _cells_of(column: pd.Series) -> _Cells:
    """Return the cells of a column, of which each text is there once."""
    import pandas as pd
    from pandas.api.types import infer_dtype, is_numeric_dtype, is_object_dtype

    if is_object_dtype(column.dtype) and infer_dtype(column, skipna=True) != "string":
        # Values of several types may be equal and have different texts.
        column = column.map(str, na_action="ignore")
    codes, values = pd.factorize(column, use_na_sentinel=True)
    texts: list[tuple[str | None, ...]] = [(str(value),) for value in values.tolist()]
    # The code -1, for what is missing, is the last one.
    return _Cells(codes % (len(texts) + 1), [*texts, (None,)], plain=is_numeric_dtype(column.dtype))


#: Control characters, line breaks, marks that change the direction of writing, and the byte order mark.
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]+")
#: What formulas begin with; spreadsheets in Japanese take the wide forms too (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def _cell(text: str | None, separator: str, missing: str) -> str:
    """Return a text as one cell that is harmless, in quotation marks where it would not be read as one."""
    if text is None:
        return _quoted(missing, separator)
    if text.isalnum():
        return text
    line = text if text.isprintable() else _NOT_TEXT.sub(" ", text)  # nearly all are printable, which is found fast
    return _quoted(_no_formula(line) if separator == "," else line, separator)


def _quoted(text: str, separator: str) -> str:
    return '"' + text.replace('"', '""') + '"' if separator in text or any(mark in text for mark in '"\r\n') else text


def _no_formula(value: str) -> str:
    """Put an apostrophe before a text that begins as a formula does; a negative number is none."""
    if not value.lstrip().startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def write_changed_table(table: pd.DataFrame, path: AnyPath, separator: str = "\t", missing: str = "n/a") -> Path:
    """Write a table as `table_text` gives it, part by part; a file that holds it already keeps its time."""
    path = Path(path)
    at_a_time = max(1, _MOST_CELLS // max(1, table.shape[1]))
    with complete_file(path) as partial:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for start in range(0, max(1, len(table)), at_a_time):
                part = table.iloc[start : start + at_a_time]
                file.writelines(table_texts(part, [(separator, missing)], header=not start))
        if path.is_file() and filecmp.cmp(partial, path, shallow=False):
            shutil.copystat(path, partial)
    return path


def write_tsv(table: pd.DataFrame, path: AnyPath) -> Path:
    """Write a table as BIDS wants it: tab-separated UTF-8, ``n/a`` for what is missing, floats with 7 digits."""
    return write_text(table_text(table), path)


def read_tsv(path: AnyPath, text_columns: Iterable[str] = (), *, everything_is_text: bool = False) -> pd.DataFrame:
    """Read a BIDS table; ``n/a`` becomes missing, and nothing else does.

    Columns named in ``text_columns`` stay text whatever they hold (participants called ``01``), or all columns; the
    types of others are found by pandas.

    Raises
    ------
    MissingInputError
        There is no such file.
    DamagedFileError
        The file is not a tab-separated table in UTF-8.
    """
    import pandas as pd

    path = Path(path)
    _check_there(path, "table")
    try:
        return pd.read_csv(
            path,
            sep="\t",
            na_values=["n/a"],
            keep_default_na=False,
            encoding="utf-8-sig",
            dtype="string" if everything_is_text else dict.fromkeys(text_columns, "string"),
            index_col=False,
        )
    except (ValueError, OSError) as exc:
        raise DamagedFileError(f"{path} is not a tab-separated table ({exc}); correct the file") from exc


def name_parts(path: Path) -> tuple[dict[str, str], str]:
    """Split a BIDS file name into its entities, in their order, and its suffix.

    Examples
    --------
    >>> name_parts(Path("sub-01_ses-a_trc-AV1451_pet.nii.gz"))
    ({'sub': '01', 'ses': 'a', 'trc': 'AV1451'}, 'pet')
    """
    *pairs, suffix = path.name.split(".", 1)[0].split("_")
    return dict(pair.split("-", 1) for pair in pairs if "-" in pair), suffix
