"""Tables of regions of a whole cohort as columns, read many at a time.

One table takes pandas longer to begin than to read. Tables of one form are therefore joined as text and read together;
where anything in them is not as it should be, each is read alone, which finds the fault and names it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.derivatives.columns import COLUMNS, FURTHER_COLUMNS, column_name
from tau_pipeline.derivatives.read import COUNTS, KEYS, MOST, NUMBERS, TEXTS, read_regions

if TYPE_CHECKING:
    import pandas as pd

#: Tables that are read at a time.
_AT_A_TIME = 50
_REGION = ("region", "hemisphere", "kind")
#: Columns of a stack, if any table has them.
STACKED = tuple(dict.fromkeys((*COLUMNS, *FURTHER_COLUMNS)))


@dataclass(frozen=True)
class Coded:
    """Column of texts: for each row the place of its text in ``texts``, -1 where it has none."""

    codes: NDArray[np.integer]
    texts: list[str]


@dataclass(frozen=True)
class Stack:
    """Rows of many tables, by column; numbers are of the shortest type that holds each of them exactly.

    Attributes
    ----------
    columns
        All of one length.
    places
        First row of each table, and the row after its last, by a name of the table.
    """

    columns: dict[str, Coded | NDArray[np.floating]] = field(default_factory=dict)
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, rows: NDArray[np.integer] | slice) -> pd.DataFrame:
        """Return some rows as a table, texts of pandas' type string and numbers float64."""
        import pandas as pd

        found: dict[str, Any] = {}
        for name, column in self.columns.items():
            if isinstance(column, Coded):
                texts = np.array([*column.texts, None], dtype=object)
                found[name] = pd.array(texts[column.codes[rows]], dtype="string")
            else:
                found[name] = column[rows].astype(np.float64)
        return pd.DataFrame(found)

    def texts(self, name: str, column: str) -> set[str]:
        """Return the different texts of a column in the rows of a table."""
        start, end = self.places[name]
        found = self.columns[column]
        if not isinstance(found, Coded):
            raise TypeError(f"{column} is no column of texts")
        return {found.texts[code] for code in np.unique(found.codes[start:end]).tolist() if code >= 0}

    def blocks(self, name: str) -> Iterator[tuple[str, NDArray[np.integer]]]:
        """Yield each reference region of a table, in their order, with its rows."""
        start, end = self.places[name]
        regions = self.columns["reference_region"]
        if not isinstance(regions, Coded):
            raise TypeError("reference regions are texts")
        codes = regions.codes[start:end]
        for code in dict.fromkeys(codes.tolist()):
            yield regions.texts[code], (np.flatnonzero(codes == code) + start).astype(np.int32)


def stack_tables(paths: Mapping[str, Path], before: Stack) -> Stack:
    """Return a stack of tables: those that ``before`` has are taken from it, the others read.

    Parameters
    ----------
    paths
        Tables by their names, in the order of the rows.
    before
        Stack whose tables have not changed since. It is used up: ten thousand tables are held once, not twice.

    Raises
    ------
    MissingInputError, DamagedFileError
        A table cannot be used; the message names it.
    """
    new = [name for name in paths if name not in before.places]
    if not new and list(before.places) == list(paths):
        return before
    builder = _Builder()
    if before.places:
        builder.add(before.columns)
    places, end = dict(before.places), builder.length
    for at in range(0, len(new), _AT_A_TIME):
        names = new[at : at + _AT_A_TIME]
        for frame, counts in _read([paths[name] for name in names]):
            builder.reserve((len(new) - at) * max(counts))
            builder.add(_columns_of(frame))
            for name, count in zip(names[: len(counts)], counts, strict=True):
                places[name], end = (end, end + count), end + count
            names = names[len(counts) :]
    return _in_order(builder.stack(), places, list(paths))


def _in_order(stack: Stack, places: Mapping[str, tuple[int, int]], names: Sequence[str]) -> Stack:
    """Return the tables that are named, in that order."""
    lengths = [places[name][1] - places[name][0] for name in names]
    ends = np.cumsum([0, *lengths]).tolist()
    wanted = {name: (ends[k], ends[k + 1]) for k, name in enumerate(names)}
    if all(places[name] == wanted[name] for name in names) and ends[-1] == max(end for _, end in places.values()):
        return Stack(stack.columns, wanted)
    rows = np.concatenate([np.arange(*places[name]) for name in names]) if names else np.empty(0, np.int64)
    columns: dict[str, Coded | NDArray[np.floating]] = {}
    for name in list(stack.columns):
        column = stack.columns.pop(name)
        columns[name] = Coded(column.codes[rows], column.texts) if isinstance(column, Coded) else column[rows]
    return Stack(columns, wanted)


class _Builder:
    """Columns that grow; one that a table lacks is missing there.

    Rows are copied into arrays that are reserved for all: many small arrays between the temporary ones of reading would
    leave memory that cannot be used again.
    """

    def __init__(self) -> None:
        self.length = 0
        self._reserved = 0
        self._codes: dict[str, dict[str, int]] = {}
        self._columns: dict[str, NDArray[Any]] = {}

    def reserve(self, count: int) -> None:
        """Make room for that many further rows, if there is less."""
        self._reserved = max(self._reserved, self.length + count)

    def add(self, columns: dict[str, Coded | NDArray[np.floating]]) -> None:
        """Add rows, which are taken out of ``columns``."""
        count = max((_length(column) for column in columns.values()), default=0)
        for name in STACKED:
            if name in columns and name not in self._columns:
                self._columns[name] = self._nothing(name, self.length)
            if name in self._columns:
                part = columns.pop(name, None)
                part = self._nothing(name, count) if part is None else self._coded(name, part)
                self._columns[name] = self._longer(self._columns[name], part)
        self.length += count

    def _longer(self, column: NDArray[Any], part: NDArray[Any]) -> NDArray[Any]:
        """Return a column with further rows, of the type that holds all."""
        end, dtype = self.length + len(part), np.promote_types(column.dtype, part.dtype)
        if end > len(column) or dtype != column.dtype:
            before = column[: self.length]
            column = np.empty(max(end, self._reserved, len(column)), dtype)
            column[: self.length] = before
        column[self.length : end] = part
        return column

    def _nothing(self, name: str, count: int) -> NDArray[Any]:
        return np.full(count, -1, np.int8) if name in TEXTS else np.full(count, np.nan, np.float16)

    def _coded(self, name: str, column: Coded | NDArray[np.floating]) -> NDArray[Any]:
        if not isinstance(column, Coded):
            return column
        known = self._codes.setdefault(name, {})
        places = np.array([*(known.setdefault(text, len(known)) for text in column.texts), -1], np.int32)
        return places[column.codes].astype(_smallest(len(known)))

    def stack(self) -> Stack:
        """Return the columns; the builder is empty afterwards."""
        columns: dict[str, Coded | NDArray[np.floating]] = {}
        for name in list(self._columns):
            column = self._columns.pop(name)[: self.length]
            columns[name] = Coded(column, list(self._codes.get(name, ()))) if name in TEXTS else column
        return Stack(columns)


def _length(column: Coded | NDArray[np.floating]) -> int:
    return len(column.codes) if isinstance(column, Coded) else len(column)


def _smallest(count: int) -> type[np.signedinteger[Any]]:
    return np.int8 if count < 2**7 else np.int16 if count < 2**15 else np.int32


def _columns_of(frame: pd.DataFrame) -> dict[str, Coded | NDArray[np.floating]]:
    found: dict[str, Coded | NDArray[np.floating]] = {}
    for name in (name for name in STACKED if name in frame.columns):
        if name in TEXTS:
            texts = frame[name].astype("category").cat
            found[name] = Coded(texts.codes.to_numpy(), [str(text) for text in texts.categories])
        else:
            found[name] = _shortest(frame[name].to_numpy(np.float64))
    return found


_SHORT: tuple[type[np.floating[Any]], ...] = (np.float16, np.float32)


def _shortest(values: NDArray[np.float64]) -> NDArray[np.floating]:
    """Return numbers as the shortest type that holds all of them exactly."""
    for dtype in _SHORT:
        # Those that are too large become infinite, and so are not equal.
        with np.errstate(over="ignore"):
            short = values.astype(dtype)
        if np.array_equal(short, values, equal_nan=True):
            return short
    return values


def _read(paths: Sequence[Path]) -> Iterator[tuple[pd.DataFrame, list[int]]]:
    """Yield the rows of tables, together if they can be read so, and the number of rows of each."""
    together = _read_together(paths)
    if together is not None:
        yield together
        return
    for path in paths:
        alone = read_regions(path)
        yield alone, [len(alone)]


def _read_together(paths: Sequence[Path]) -> tuple[pd.DataFrame, list[int]] | None:
    """Return the rows of tables that have one form and no fault, and how many each has; None for others."""
    import pandas as pd

    try:
        texts = [path.read_bytes() for path in paths]
    except OSError:
        return None
    head = texts[0].partition(b"\n")[0] + b"\n"
    if not all(text.startswith(head) and text.endswith(b"\n") for text in texts) or not head.isascii():
        return None
    if any(odd in text for text in texts for odd in (b'"', b"\r", b"\n\n")):
        return None
    counts = [text.count(b"\n") - 1 for text in texts]
    joined = io.BytesIO(head + b"".join(text[len(head) :] for text in texts))
    kinds: Any = dict.fromkeys(TEXTS, "category")
    try:
        frame = pd.read_csv(
            joined, sep="\t", na_values=["n/a"], keep_default_na=False, dtype=kinds, low_memory=False, index_col=False
        )
    except (ValueError, OSError):
        return None
    return (frame, counts) if len(frame) == sum(counts) and not _has_fault(frame, counts) else None


def _has_fault(frame: pd.DataFrame, counts: Sequence[int]) -> bool:
    """Return whether `read_regions` might refuse one of these tables."""
    if any(name not in frame.columns for name in COLUMNS) or frame[list(KEYS)].isna().to_numpy().any():
        return True
    numbers = [*COUNTS, *NUMBERS, *(name for name in FURTHER_COLUMNS if name in frame.columns)]
    if not all(_are_numbers(frame[name], whole=name in COUNTS) for name in numbers):
        return True
    if not all(re.fullmatch("[0-9A-Za-z]+", str(one)) for one in frame["reference_region"].cat.categories):
        return True
    regions = frame[list(_REGION)].drop_duplicates()
    names = {column_name(*map(str, row)) for row in regions.itertuples(index=False, name=None)}
    again = frame[list(KEYS)].assign(table=np.repeat(np.arange(len(counts)), counts)).duplicated()
    return len(names) < len(regions) or bool(again.any())


def _are_numbers(column: pd.Series, *, whole: bool) -> bool:
    if column.dtype.kind not in "iuf":
        return False
    values = column.to_numpy(np.float64)
    known = values[~np.isnan(values)]
    return bool(np.isfinite(known).all() and not (whole and ((known != np.rint(known)) | (abs(known) >= MOST)).any()))
