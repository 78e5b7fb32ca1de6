"""Tables as text, with tabs or commas: safe for spreadsheets, and written several times as fast as by pandas."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


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
    at_a_time = rows_at_a_time(table)
    for start in range(0, len(table), at_a_time):
        groups = [
            one.written() if isinstance(one, _Numbers) else one
            for one in _groups(table.iloc[start : start + at_a_time])
        ]
        for lines, (separator, missing) in zip(found, forms, strict=True):
            lines.extend(_lines(groups, separator, missing))
    if table.shape[1] < 2:
        # A line of nothing would be no row.
        found = [[line or '""' for line in lines] for lines in found]
    return ["\n".join([*lines, ""]) for lines in found]


def rows_at_a_time(table: pd.DataFrame) -> int:
    """Return the number of rows whose cells are held as text at a time."""
    return max(1, _MOST_CELLS // max(1, table.shape[1]))


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
        import numpy as np

        form = "\n".join(["\t".join(self.forms)] * len(self.columns[0]))
        return _Rows(form % tuple(np.column_stack(self.columns).ravel().tolist()))

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
    if whole and (numbered := _numbered(values)) is not None:
        return numbered
    form, missing = "%.0f" if whole else "%.7g", np.isnan(values)
    starts = np.flatnonzero(np.concatenate([[True], (values[1:] != values[:-1]) & ~(missing[1:] & missing[:-1])]))
    if len(starts) * _FEWEST_REPEATED > len(values):
        return _Numbers([values], [form])
    texts: list[tuple[str | None, ...]] = [
        (None if math.isnan(value) else form % value,) for value in values[starts].tolist()
    ]
    return _Cells(np.repeat(np.arange(len(starts)), np.diff([*starts, len(values)])), texts, plain=True)


def _numbered(values: NDArray[np.float64]) -> _Cells | None:
    """Return whole numbers as cells if few are different, such as those of regions, which go with their names."""
    import pandas as pd

    codes, different = pd.factorize(values)
    if len(different) > _MOST_DIFFERENT or len(different) * _FEWEST_REPEATED > len(values):
        return None
    texts: list[tuple[str | None, ...]] = [(f"{value:.0f}",) for value in different.tolist()]
    return _Cells(codes % (len(texts) + 1), [*texts, (None,)], plain=True)


#: Different whole numbers of a column up to which each is written once.
_MOST_DIFFERENT = 500
#: Whole numbers below are exact as float64.
_MOST_EXACT = 2**53
#: How often a number must be repeated in the rows below it, on average, to be written once.
_FEWEST_REPEATED = 4


def _cells_of(column: pd.Series) -> _Cells:
    """Return the cells of a column, of which each text is there once."""
    from pandas.api.types import infer_dtype, is_numeric_dtype, is_object_dtype

    if is_object_dtype(column.dtype) and infer_dtype(column, skipna=True) != "string":
        # Values of several types may be equal and have different texts.
        column = column.map(str, na_action="ignore")
    codes, values = coded(column)
    texts: list[tuple[str | None, ...]] = [(str(value),) for value in values]
    # The code -1, for what is missing, is the last one.
    return _Cells(codes % (len(texts) + 1), [*texts, (None,)], plain=is_numeric_dtype(column.dtype))


def coded(column: pd.Series) -> tuple[NDArray[np.integer], list[Any]]:
    """Return what `pandas.factorize` does: a code for each value, -1 for a missing one, and the value of each code.

    In tables of many scans, most texts are those of the row above, and comparing is several times as fast as looking
    them up.
    """
    import numpy as np
    import pandas as pd
    from pandas.api.types import is_object_dtype

    if not (is_object_dtype(column.dtype) or isinstance(column.dtype, pd.StringDtype)):
        codes, values = pd.factorize(column)
        return codes, values.tolist()
    texts = column.to_numpy(object, na_value=None)
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(texts)), bool), texts[1:] != texts[:-1]]))
    if len(starts) * _FEWEST_REPEATED > len(texts):
        codes, values = pd.factorize(texts)
        return codes, values.tolist()
    codes, values = pd.factorize(texts[starts])
    return np.repeat(codes, np.diff([*starts, len(texts)])), values.tolist()


def numbered_rows(table: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """Return a number for each row that rows with the same values in some columns share, and no others."""
    import numpy as np

    numbers = np.zeros(len(table), np.int64)
    for name in columns:
        codes, values = coded(table[name])
        numbers = numbers * (len(values) + 1) + codes + 1
    return numbers


#: Control characters, line breaks, marks that change the direction of writing, signs without width, and the byte order
#: mark. Those that join letters (Persian, Hindi) are part of words.
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff]+")
#: What formulas begin with; spreadsheets in Japanese take the wide forms too (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@lru_cache(maxsize=20_000)
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
