"""Files that appear under their final name only when they are complete."""

from __future__ import annotations

import csv
import filecmp
import json
import math
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.errors import DamagedFileError, MissingInputError, OutputError
from tau_pipeline.table_text import rows_at_a_time, table_text, table_texts

if TYPE_CHECKING:
    import pandas as pd

AnyPath = str | os.PathLike[str]
#: Reads a JSON object, with the errors of `read_json`.
JsonReader = Callable[[Path], Mapping[str, Any]]

#: Larger files are no sidecars, records, or cards; parsing one could take many times its size in memory.
_LARGEST_JSON_BYTES = 20_000_000
#: Tables of people are smaller; in larger ones, which programs wrote, quotation marks are not looked at.
_LARGEST_CHECKED_BYTES = 20_000_000


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
        folder = path.parent
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".partial-{secrets.token_hex(8)}{ending}"
        # The file gets the permissions that the user's umask leaves, and never follows a link.
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield partial
        partial.replace(path)
        partial = None
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
    """Write a JSON object with an indent of 2, complete or not at all; numbers that JSON has not become ``n/a``."""
    return write_text(json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n", path)


def _finite(value: Any) -> Any:
    """Return a value of JSON without NaN and infinity, which readers of JSON refuse."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return "n/a" if isinstance(value, float) and not math.isfinite(value) else value


def require_file(path: Path, what: str) -> None:
    """Refuse a path without a file, a broken link, a file that points to its content, and one not to be read.

    Raises
    ------
    MissingInputError
        With the command that fetches the content, where there is one.
    """
    link = False
    try:
        there, why = path.is_file(), ""
        link = path.is_symlink()
    except OSError as exc:
        # A name that no file system takes, or a folder that may not be looked into.
        there, why = False, f": {exc.strerror}"
    if not there and link:
        raise MissingInputError(f"the {what} {path} is a broken link; fetch its content (datalad get, git annex get)")
    if not there and not why and os.path.lexists(path):
        raise MissingInputError(f"{path} is a folder or a special file (such as a pipe); expected: a {what}")
    if not there:
        raise MissingInputError(f"there is no {what} {path}{why}")
    if command := fetched_by(path):
        raise MissingInputError(f"the {what} {path} only points to its content; fetch it ({command})")
    if not os.access(path, os.R_OK):
        raise MissingInputError(f"no permission to read the {what} {path}; change its permissions")


#: Beginnings of the small files that stand in the place of content, and what fetches it.
_POINTERS = {b"/annex/objects/": "datalad get, git annex get", b"version https://git-lfs": "git lfs pull"}


def fetched_by(path: Path) -> str:
    """Return the commands that fetch the content of a file that is only a pointer to it; empty for any other file."""
    try:
        with path.open("rb") as file:
            return fetched_by_start(file.read(32))
    except OSError:
        return ""


def fetched_by_start(start: bytes) -> str:
    """Return what `fetched_by` returns, from the first bytes of the file, at least 32."""
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
    text = _small_content(path)
    try:
        content = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_without_contradiction)
    except UnicodeDecodeError as exc:
        raise DamagedFileError(f"{path} is not in UTF-8 ({exc.reason} at byte {exc.start}); save it in UTF-8") from exc
    except (ValueError, RecursionError) as exc:
        why = "nested too deeply" if isinstance(exc, RecursionError) else exc
        raise DamagedFileError(f"{path} is not valid JSON ({why}); correct the file") from exc
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path} holds a JSON {type(content).__name__}; expected: a JSON object {{...}}")
    return content


def _small_content(path: Path) -> bytes:
    """Return the content of a file that is no pointer to it, after as few questions to the file system as can be."""
    content, size, why = b"", 0, "no such file"
    try:
        if path.is_file():
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                content, why = file.read(32 if size > _LARGEST_JSON_BYTES else -1), ""
    except OSError as exc:
        why = exc.strerror or str(exc)
    if why:
        require_file(path, "file")
        raise DamagedFileError(f"{path} cannot be read ({why}); copy it again")
    if fetched_by_start(content):
        require_file(path, "file")
    if size > _LARGEST_JSON_BYTES:
        raise DamagedFileError(
            f"{path} has {size / 1e6:.0f} MB; JSON files here have at most "
            f"{_LARGEST_JSON_BYTES / 1e6:.0f} MB; check what it is"
        )
    return content


def _without_contradiction(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; ValueError if a key has two values, of which readers take one or the other."""
    content = dict(pairs)
    if len(content) < len(pairs) and (again := [key for key, value in pairs if repr(content[key]) != repr(value)]):
        raise ValueError(f"{again[0]!r} is there twice with different values")
    return content


def write_changed_table(table: pd.DataFrame, path: AnyPath, separator: str = "\t", missing: str = "n/a") -> Path:
    """Write a table as `table_text` gives it, part by part; a file that holds it already keeps its time."""
    path = Path(path)
    at_a_time = rows_at_a_time(table)
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
    types of others are found by pandas. A quotation mark that is not closed in its cell is one like any other sign.

    Raises
    ------
    MissingInputError
        There is no such file.
    DamagedFileError
        The file is not a tab-separated table in UTF-8, or a row has more cells than the header.
    """
    import pandas as pd

    path = Path(path)
    require_file(path, "table")
    try:
        plain = _has_plain_marks(path)
        with warnings.catch_warnings():
            # Tabs at the end of rows; cells behind the last column were refused above.
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep="\t",
                na_values=["n/a"],
                keep_default_na=False,
                encoding="utf-8-sig",
                dtype="string" if everything_is_text else dict.fromkeys(text_columns, "string"),
                index_col=False,
                quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
            )
    except UnicodeDecodeError as exc:
        raise DamagedFileError(f"{path} is not in UTF-8 ({exc.reason} at byte {exc.start}); save it in UTF-8") from exc
    except (ValueError, OSError) as exc:
        why = " ".join(str(exc).split())
        raise DamagedFileError(f"{path} is not a tab-separated table ({why}); correct the file") from exc
    return _without_marks(table) if plain else table


def _has_plain_marks(path: Path) -> bool:
    """Return whether quotation marks in a table are signs like others: not each cell that begins with one ends with it.

    Readers would take all up to the next one as one cell, and lose the rows between.

    Raises
    ------
    ValueError
        A row has more cells than the header; or a quotation mark is open over lines, which may be rows.
    """
    if path.stat().st_size > _LARGEST_CHECKED_BYTES:
        return False
    lines = path.read_bytes().splitlines()
    if any(b"\0" in line for line in lines[:2]):
        raise ValueError("it holds zero bytes; save it as UTF-8")
    tabs = [line.count(b"\t") for line in lines]
    if not any(b'"' in line for line in lines):
        longer = (number for number, line in enumerate(lines, 1) if line.rstrip().count(b"\t") > tabs[0])
        if (number := next(longer, 0)) > 0:
            raise ValueError(f"line {number} has more cells than the first line")
        return False
    if all(map(_is_closed, lines)):
        return False
    if all(count == tabs[0] for count, line in zip(tabs, lines, strict=True) if line.strip()):
        return True
    _refuse_open_mark(lines, tabs)
    return False


def _refuse_open_mark(lines: Sequence[bytes], tabs: Sequence[int]) -> None:
    """Refuse a quotation mark that is open where a whole row begins; the parts of a cell of several lines are none."""
    opened = 0
    for number, (line, count) in enumerate(zip(lines, tabs, strict=True), 1):
        if opened and tabs[0] and count == tabs[0]:
            raise ValueError(f"a quotation mark in line {opened} is not closed")
        if line.count(b'"') % 2:
            opened = 0 if opened else number


def _is_closed(line: bytes) -> bool:
    """Return whether each cell of a line that begins with a quotation mark ends with its partner."""
    cells = (cell for cell in line.split(b"\t") if cell.startswith(b'"'))
    return all(len(cell) > 1 and cell.endswith(b'"') and cell.count(b'"') % 2 == 0 for cell in cells)


def _without_marks(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the pairs of quotation marks around whole cells."""

    def bare(value: Any) -> Any:
        marked = isinstance(value, str) and _is_closed(value.encode()) and value.startswith('"')
        return value[1:-1].replace('""', '"') if marked else value

    return table.rename(columns=bare).map(bare)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is a folder; a link to itself is none, and no error."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def name_parts(path: Path) -> tuple[dict[str, str], str]:
    """Split a BIDS file name into its entities, in their order, and its suffix.

    Examples
    --------
    >>> name_parts(Path("sub-01_ses-a_trc-AV1451_pet.nii.gz"))
    ({'sub': '01', 'ses': 'a', 'trc': 'AV1451'}, 'pet')
    """
    *pairs, suffix = path.name.split(".", 1)[0].split("_")
    return dict(pair.split("-", 1) for pair in pairs if "-" in pair), suffix
