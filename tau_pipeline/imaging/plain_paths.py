"""Paths for programs that take a command line apart themselves: ANTs at brackets, greedy at spaces."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tau_pipeline.errors import OutputError

#: Signs that a path may have.
_PLAIN = re.compile(r"[\w/.+=@%~^-]*")
#: Folders for temporary files whose names are plain, if that of the environment is not.
_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


@contextmanager
def plain_folder() -> Iterator[Path]:
    """Give a temporary folder whose path has no spaces, brackets, quotation marks, or the like.

    Raises
    ------
    OutputError
        There is none.
    """
    for place in (tempfile.gettempdir(), *_FOLDERS):
        if _PLAIN.fullmatch(place) and os.access(place, os.W_OK | os.X_OK):
            with tempfile.TemporaryDirectory(prefix="tau-pipeline-", dir=place) as folder:
                yield Path(folder)
            return
    raise OutputError(
        f"the path of the temporary folder {tempfile.gettempdir()} has spaces or brackets, which ANTs and greedy do "
        "not take; set TMPDIR to another folder"
    )


@contextmanager
def plain_paths(paths: Sequence[str | os.PathLike[str]]) -> Iterator[list[str]]:
    """Give paths of files that ANTs and greedy can take; those of other names are links while the block runs."""
    if all(_PLAIN.fullmatch(os.fspath(path)) for path in paths):
        yield [os.fspath(path) for path in paths]
        return
    with plain_folder() as folder:
        links = []
        for number, path in enumerate(paths):
            links.append(folder / f"{number}{Path(path).suffix}")
            links[-1].symlink_to(Path(path).absolute())
        yield [str(link) for link in links]
