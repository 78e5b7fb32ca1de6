"""Tables with one row per region of every scan: written in parts, so that a large cohort is never held as a whole.

The parts go to a folder beside the results. Only when all tables of the cohort have been made are the files put in
their places, and only those whose content has changed. Parquet files need pyarrow, which is optional.
"""

from __future__ import annotations

import filecmp
import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tau_pipeline.derivatives.index import DoneScan
from tau_pipeline.errors import OutputError
from tau_pipeline.table_text import table_texts

if TYPE_CHECKING:
    import pandas as pd

#: Scans whose rows are held at a time, about; those of a participant stay together.
_AT_A_TIME = 600
#: Beginning of the name of the folder of parts.
_PARTS = ".tau-pipeline-tables"
#: What separates and what stands for a missing value, by the ending of the file.
_FORMS = {"tsv": ("\t", "n/a"), "csv": (",", "")}


def parts_of(scans: Sequence[DoneScan]) -> Iterator[list[DoneScan]]:
    """Yield scans in parts of some hundreds, in their order; those of a participant come together."""
    part: list[DoneScan] = []
    for scan in scans:
        if len(part) >= _AT_A_TIME and scan.participant_id != part[-1].participant_id:
            yield part
            part = []
        part.append(scan)
    if part:
        yield part


def has_parquet() -> bool:
    """Return whether Parquet files can be written."""
    return importlib.util.find_spec("pyarrow") is not None


@contextmanager
def parts_folder(output_dir: Path) -> Iterator[Path]:
    """Make a folder for parts in the output folder, which is removed when the block ends.

    Raises
    ------
    OutputError
        It cannot be made.
    """
    folder = output_dir / _PARTS
    # One that a killed run has left.
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError as exc:
        raise OutputError(f"cannot make the folder {folder}: {exc.strerror or exc}") from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class LongTable:
    """A long table as TSV, CSV, and, with pyarrow, Parquet.

    Parameters
    ----------
    name
        Of the files, without ending.
    folder
        For the parts; None if nothing is to be written.
    """

    def __init__(self, name: str, folder: Path | None) -> None:
        self.name, self.folder = name, folder
        #: The columns, without rows.
        self.head: pd.DataFrame | None = None
        self._files: dict[str, TextIO] = {}
        self._parquet: Any = None
        self._open = ExitStack()

    def add(self, part: pd.DataFrame) -> None:
        """Write further rows; their columns are those of the first part."""
        first = self.head is None
        self.head = part.iloc[:0] if first else self.head
        if self.folder is None:
            return
        try:
            self._write(part, self.folder, first=first)
        except OSError as exc:
            raise OutputError(f"cannot write to {self.folder}: {exc.strerror or exc}") from exc

    def _write(self, part: pd.DataFrame, folder: Path, *, first: bool) -> None:
        for ending in _FORMS if first else ():
            opened = (folder / f"{self.name}.{ending}").open("w", encoding="utf-8", newline="\n")
            self._files[ending] = self._open.enter_context(opened)
        for ending, text in zip(_FORMS, table_texts(part, list(_FORMS.values()), header=first), strict=True):
            self._files[ending].write(text)
        if has_parquet():
            self._add_parquet(part, folder / f"{self.name}.parquet")

    def _add_parquet(self, part: pd.DataFrame, path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.Table.from_pandas(for_parquet(part), preserve_index=False)
        if self._parquet is None:
            self._parquet = self._open.enter_context(parquet.ParquetWriter(path, table.schema, compression="zstd"))
        self._parquet.write_table(table.cast(self._parquet.schema))

    def close(self) -> None:
        """End the parts; no rows can be added after that."""
        self._open.close()

    def place(self, group: Path) -> None:
        """Put the files into the folder of the group level, where their content has changed.

        Raises
        ------
        OutputError
            A file cannot be written.
        """
        self.close()
        if self.folder is None:
            return
        try:
            group.mkdir(exist_ok=True)
            for ending in (*_FORMS, "parquet"):
                new, old = self.folder / f"{self.name}.{ending}", group / f"{self.name}.{ending}"
                if not new.is_file():
                    # Of an earlier run, with other rows.
                    old.unlink(missing_ok=True)
                elif not (old.is_file() and filecmp.cmp(new, old, shallow=False)):
                    new.replace(old)
        except OSError as exc:
            raise OutputError(f"cannot write to {group}: {exc.strerror or exc}") from exc


def for_parquet(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns have one type whatever is in them: numbers stay, all others are text."""
    from pandas.api.types import is_numeric_dtype

    return table.astype({name: "string" for name in table.columns if not is_numeric_dtype(table[name])})
