"""Files that appear under their final name only when they are complete."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.errors import DamagedFileError, MissingInputError, OutputError

if TYPE_CHECKING:
    import pandas as pd

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
        The file is not UTF-8 JSON, or its top level is not an object.
    """
    path = Path(path)
    _check_there(path, "file")
    if path.stat().st_size > _LARGEST_JSON_BYTES:
        raise DamagedFileError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB; JSON files here have at most "
            f"{_LARGEST_JSON_BYTES / 1e6:.0f} MB; check what it is"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as exc:
        raise DamagedFileError(f"{path} is not usable JSON (nested too deeply); correct the file") from exc
    except (OSError, ValueError) as exc:
        raise DamagedFileError(f"{path} is not valid JSON ({exc}); correct the file") from exc
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path} holds a JSON {type(content).__name__}; expected: a JSON object {{...}}")
    return content


def table_text(table: pd.DataFrame, separator: str = "\t", missing: str = "n/a") -> str:
    """Return a table as text, with texts from elsewhere made harmless, and floats with 7 digits.

    In texts, tabs, line breaks, and other control characters become spaces, so that a row stays a row. Texts that a
    spreadsheet would take for a formula get an apostrophe before them in tables with commas (OWASP, CSV injection).
    """
    texts = {name: table[name].map(_one_line, na_action="ignore") for name in _text_columns(table)}
    if separator == ",":
        texts = {name: column.map(_no_formula, na_action="ignore") for name, column in texts.items()}
    safe = table.assign(**{str(name): column for name, column in texts.items()})
    return safe.to_csv(sep=separator, index=False, na_rep=missing, float_format="%.7g", lineterminator="\n")


def _text_columns(table: pd.DataFrame) -> list[str]:
    from pandas.api.types import is_numeric_dtype

    return [name for name in table.columns if not is_numeric_dtype(table[name])]


def _one_line(value: Any) -> Any:
    # Nearly all texts are printable, which is found out ten times as fast.
    if not isinstance(value, str) or value.isprintable():
        return value
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", value)


def _no_formula(value: Any) -> Any:
    """Put an apostrophe before a text that begins as a formula does; a negative number is none."""
    if not isinstance(value, str) or not value.lstrip().startswith(("=", "+", "-", "@")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


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
