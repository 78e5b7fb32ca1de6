"""JSON files of the results, of which the next run of the group level reads only those that are new or have changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tau_pipeline.derivatives.kept import Kept, Mark, mark_of, read_kept, write_kept
from tau_pipeline.files import read_json


class KeptJson:
    """Reads JSON files of the results; those that have not changed since the last run come from an archive of it.

    Parameters
    ----------
    output_dir
        Root of the derivatives, in which the files lie.
    archive
        Archive of `tau_pipeline.derivatives.kept`; None if there is none.
    """

    def __init__(self, output_dir: Path, archive: Path | None = None) -> None:
        self._root = f"{output_dir}/"
        self._kept = Kept() if archive is None else read_kept(archive)
        self._before, self._asked = dict(self._kept.marks), dict[str, Mark]()

    def read(self, path: Path) -> dict[str, Any]:
        """Return the content of a file, as `tau_pipeline.files.read_json` does, with the same errors."""
        # Before the file is read: one that is changed meanwhile is read again by the next run.
        name, mark = str(path).removeprefix(self._root), mark_of(path)
        content = self._kept.sidecar(name) if self._kept.marks.get(name) == mark else None
        if content is None:
            content = read_json(path)
            self._kept.sidecars.add(name, json.dumps(content).encode())
        self._asked[name] = self._kept.marks[name] = mark
        return content

    def note(self, path: Path, content: Mapping[str, Any]) -> None:
        """Keep the content of a file that was just written, so that the next run does not read it."""
        name = str(path).removeprefix(self._root)
        self._kept.sidecars.add(name, json.dumps(content).encode())
        self._asked[name] = self._kept.marks[name] = mark_of(path)

    def write(self, archive: Path) -> None:
        """Keep for the next run what this one has asked for, if anything of it is new."""
        if self._asked != self._before:
            self._kept.sidecars.keep(self._asked)
            write_kept(Kept(self._asked, sidecars=self._kept.sidecars), archive)
