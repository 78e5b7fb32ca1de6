"""Files of a raw BIDS dataset, as far as the job looks at them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathspec import GitIgnoreSpec

from tau_pipeline.bids.entities import folder_labels
from tau_pipeline.errors import DamagedFileError, InvalidDatasetError, SettingError

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

IMAGE_ENDINGS = (".nii.gz", ".nii")

#: Folders with other names (sub-01_old) are no participants', and the validator says so.
PARTICIPANT_FOLDER = re.compile(r"sub-[0-9A-Za-z+]+")


def index_files(bids_dir: Path, labels: list[str], *, everybody: bool) -> BIDSLayout:
    """Return a pybids layout of the anat and pet folders only; metadata are read later, file by file.

    Reading them here would let one damaged JSON file stop the whole dataset.
    """
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    folders = [path.name for path in bids_dir.iterdir() if path.is_dir()]
    others = [name for name in folders if not PARTICIPANT_FOLDER.fullmatch(name)]
    ignore = [
        re.compile(r"/\."),
        re.compile(r"^/sub-[^/]+(/ses-[^/]+)?/(?!(anat|pet|ses-[^/]+)(/|$))[^/.]+(/|$)"),
    ]
    if others:
        ignore.append(re.compile(rf"^/({'|'.join(map(re.escape, others))})(/|$)"))
    if not everybody:
        ignore.append(re.compile(rf"^/sub-(?!({'|'.join(map(re.escape, labels))})(/|$))"))
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
    try:
        return BIDSLayout(bids_dir, validate=False, indexer=indexer)
    except UnicodeEncodeError as exc:
        # Its database holds texts: bytes of a name that are no UTF-8 are shown as \xff.
        found = os.fsencode(exc.object).decode("utf-8", "backslashreplace")
        raise InvalidDatasetError(
            f"the path {found} is not in UTF-8, as every name in a BIDS dataset must be; rename that file or folder"
        ) from exc


def query(layout: BIDSLayout, suffix: str | list[str], endings: Iterable[str], filters: Mapping[str, Any]) -> list[str]:
    """Return the files of a suffix and ending that the filters leave, sorted; SettingError for a wrong filter."""
    asked = {"suffix": suffix, "extension": list(endings), **filters}
    try:
        return sorted(layout.get(return_type="filename", **asked))
    except (ValueError, TypeError, re.error) as exc:
        raise SettingError(f"the filter {dict(filters)} cannot be used: {exc}") from exc


def by_participant(files: Iterable[str]) -> dict[str, list[Path]]:
    """Return image files by participant; of ``x.nii.gz`` and ``x.nii`` only the first."""
    found: dict[str, dict[str, Path]] = {}
    for path in map(Path, files):
        label = folder_labels(path).get("sub")
        if label is None:
            continue  # beside the participants' folders, where BIDS has no images
        own = found.setdefault(label, {})
        stem = path.name.split(".", 1)[0]
        if stem not in own or path.name.endswith(".gz"):
            own[stem] = path
    return {label: list(own.values()) for label, own in found.items()}


def without_ignored(bids_dir: Path, files: Iterable[str]) -> list[str]:
    """Leave out the files that ``.bidsignore`` names; its patterns are those of ``.gitignore``.

    Raises
    ------
    DamagedFileError
        ``.bidsignore`` cannot be read.
    """
    listed = bids_dir / ".bidsignore"
    if not listed.is_file():
        return list(files)
    try:
        ignored = GitIgnoreSpec.from_lines(listed.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, ValueError) as exc:
        raise DamagedFileError(f"{listed} cannot be read ({exc}); correct the file") from exc
    return [file for file in files if not ignored.match_file(Path(file).relative_to(bids_dir).as_posix())]
