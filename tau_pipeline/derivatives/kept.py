"""Contents of the tables and sidecars of a cohort, kept beside its tables, so that the next run reads only what is new.

A file counts as unchanged if its name, size, and time of change are the same. What is kept is an archive of plain
arrays, so that nothing in it is executed; one that cannot be read, or is of another version, counts as none.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tau_pipeline
from tau_pipeline.derivatives.stack import STACKED, Coded, Stack
from tau_pipeline.errors import OutputError
from tau_pipeline.files import complete_file

#: Version of the form of the archive.
_FORM = f"2 {tau_pipeline.__version__}"
#: What NumPy and the Zip library raise where bytes of an archive are not what they were.
_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, ArithmeticError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)

#: Size and time of change, ns, of a file.
Mark = tuple[int, int]


class Contents:
    """Contents of many small files, by name, one behind the other: as objects of their own they leave gaps in memory.

    Parameters
    ----------
    lengths
        Of the files, by name, in their order.
    content
        Of all files.
    """

    def __init__(self, lengths: Mapping[str, int] | None = None, content: bytes | memoryview = b"") -> None:
        self._content = bytearray(content)
        ends = np.cumsum([0, *(lengths or {}).values()]).tolist()
        self._places = dict(zip(lengths or {}, pairwise(ends), strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> bytes:
        start, end = self._places[name]
        return bytes(self._content[start:end])

    def add(self, name: str, content: bytes) -> None:
        """Add a file, or replace its content."""
        self._places[name] = len(self._content), len(self._content) + len(content)
        self._content += content

    def keep(self, names: Container[str]) -> None:
        """Forget the files that are not named."""
        self._places = {name: place for name, place in self._places.items() if name in names}

    def joined(self) -> tuple[dict[str, int], memoryview]:
        """Return the lengths of all files, by name, and their content; nothing can be added afterwards."""
        self._places = dict(sorted(self._places.items(), key=lambda item: item[1]))
        lengths = {name: end - start for name, (start, end) in self._places.items()}
        content = memoryview(self._content)
        if sum(lengths.values()) == len(content):
            return lengths, content
        return lengths, memoryview(b"".join(content[start:end] for start, end in self._places.values()))


@dataclass
class Kept:
    """Contents of files as they were read.

    Attributes
    ----------
    marks
        Of each table and sidecar, by its path in the output folder.
    stack
        Rows of the tables.
    sidecars
        JSON of the sidecars, which is read when it is needed: as objects, all of them would take several times as much.
    """

    marks: dict[str, Mark] = field(default_factory=dict)
    stack: Stack = field(default_factory=Stack)
    sidecars: Contents = field(default_factory=Contents)

    def sidecar(self, name: str) -> dict[str, Any] | None:
        """Return the content of a sidecar; None if it is not known."""
        try:
            return dict(json.loads(self.sidecars[name]))
        except (KeyError, ValueError, TypeError, RecursionError):
            return None

    def without_changed(self, marks: Mapping[str, Mark]) -> Kept:
        """Return what is kept of the files that are still the same; what is kept here is used up."""
        same = {name for name, mark in self.marks.items() if marks.get(name) == mark}
        places = {name: place for name, place in self.stack.places.items() if name in same}
        self.sidecars.keep(same)
        return Kept(
            {name: mark for name, mark in self.marks.items() if name in same},
            Stack(self.stack.columns, places) if places else Stack(),
            self.sidecars,
        )


def mark_of(path: Path) -> Mark:
    """Return size and time of change of a file; zeros if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def read_kept(file: Path) -> Kept:
    """Return what an earlier run has kept; nothing if the archive is missing, damaged, or of another version."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            if str(archive["form"]) != _FORM:
                return Kept()
            return _checked(_unpacked(archive))
    except _UNREADABLE:
        return Kept()


def write_kept(kept: Kept, file: Path) -> None:
    """Keep what was read; where that cannot be written, the next run reads all files again."""
    try:
        with complete_file(file) as partial, partial.open("wb") as opened:
            np.savez(opened, **_packed(kept))
    except OutputError:
        return


def _packed(kept: Kept) -> dict[str, Any]:
    names = list(kept.marks)
    columns: dict[str, NDArray[Any]] = {}
    for name, column in kept.stack.columns.items():
        if isinstance(column, Coded):
            columns |= {f"codes {name}": column.codes, f"texts {name}": _joined(column.texts)}
        else:
            columns[f"values {name}"] = column
    lengths, contents = kept.sidecars.joined()
    return {
        "form": np.array(_FORM),
        "names": _joined(names),
        "marks": np.array([kept.marks[name] for name in names], np.int64).reshape(-1, 2),
        "tables": _joined(list(kept.stack.places)),
        "places": np.array(list(kept.stack.places.values()), np.int64).reshape(-1, 2),
        "sidecars": _joined(lengths),
        "contents": np.frombuffer(contents, np.uint8),
        "lengths": np.array(list(lengths.values()), np.int64),
        **columns,
    }


def _joined(texts: Iterable[str]) -> NDArray[np.uint8]:
    """Return texts as bytes of one JSON list, which no text can break."""
    return np.frombuffer(json.dumps(list(texts)).encode(), np.uint8)


def _texts(archive: Mapping[str, Any], name: str) -> list[str]:
    return [str(one) for one in json.loads(archive[name].tobytes())]


def _unpacked(archive: Mapping[str, Any]) -> Kept:
    names = _texts(archive, "names")
    columns: dict[str, Coded | NDArray[np.floating]] = {}
    for name in STACKED:
        if f"codes {name}" in archive:
            columns[name] = Coded(archive[f"codes {name}"], _texts(archive, f"texts {name}"))
        elif f"values {name}" in archive:
            columns[name] = archive[f"values {name}"]
    marks = {name: (int(size), int(time)) for name, (size, time) in zip(names, archive["marks"], strict=True)}
    tables = zip(_texts(archive, "tables"), archive["places"].tolist(), strict=True)
    places = {name: (int(start), int(end)) for name, (start, end) in tables}
    lengths = dict(zip(_texts(archive, "sidecars"), archive["lengths"].tolist(), strict=True))
    return Kept(marks, Stack(columns, places), Contents(lengths, archive["contents"].data))


def _checked(kept: Kept) -> Kept:
    """Return what was unpacked, if its parts fit together.

    Raises
    ------
    ValueError
        They do not.
    """
    lengths = set()
    for column in kept.stack.columns.values():
        codes = column.codes if isinstance(column, Coded) else column
        lengths.add(codes.shape)
        if codes.dtype.kind != ("i" if isinstance(column, Coded) else "f"):
            raise ValueError("a column has another type")
        if isinstance(column, Coded) and codes.size and not -1 <= codes.min() <= codes.max() < len(column.texts):
            raise ValueError("a code stands for no text")
    rows = max((end for _, end in kept.stack.places.values()), default=0)
    if len(lengths) > 1 or (kept.stack.columns and lengths != {(rows,)}):
        raise ValueError("columns differ in length")
    if not {*kept.stack.places, *kept.sidecars} <= kept.marks.keys():
        raise ValueError("a file has no mark")
    return kept
