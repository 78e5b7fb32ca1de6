"""Files of a raw BIDS dataset, as far as the job looks at them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathspec import GitIgnoreSpec

from tau_pipeline.bids.entities import folder_labels
from tau_pipeline.bids.misnamed import folder_like, image_like, participant_like
from tau_pipeline.errors import DamagedFileError, InvalidDatasetError, MissingInputError, SettingError
from tau_pipeline.files import is_folder, read_json, require_file
from tau_pipeline.words import form

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

IMAGE_ENDINGS = (".nii.gz", ".nii")

#: Suffixes of the images, and the folders that hold them.
KINDS = ("T1w", "pet")
_DATATYPES = ("anat", "pet")

#: Images in formats that are not read, by the ending of their names in small letters, and what converts them.
OTHER_FORMATS = {
    **dict.fromkeys((".v", ".i", ".a"), ("an ECAT file", "with PET2BIDS")),
    **dict.fromkeys((".mgz", ".mgh"), ("a FreeSurfer file", "with mri_convert")),
    **dict.fromkeys((".dcm", ".ima", ".dcm.gz"), ("a DICOM file", "with dcm2niix")),
    **dict.fromkeys((".img", ".hdr", ".img.gz", ".hdr.gz"), ("one of two files of an image", "into one file")),
    **dict.fromkeys((".mnc", ".mnc.gz"), ("a MINC file", "with mnc2nii")),
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd"), ("an image of ITK", "with ITK")),
    **dict.fromkeys((".par", ".rec"), ("a Philips file", "with dcm2niix")),
    **dict.fromkeys((".nii.bz2", ".nii.xz", ".nii.zst", ".nii.zip", ".nii.gz.gz"), ("packed in another way", "")),
    **dict.fromkeys(IMAGE_ENDINGS, ("named in capitals", "")),
}

#: Folders with other names (sub-01_old) are no participants', and the validator says so.
PARTICIPANT_FOLDER = re.compile(r"sub-[0-9A-Za-z+]+")


@dataclass(frozen=True)
class RawFiles:
    """Files of a dataset that the job looks at, sorted: T1w and PET images, and the JSON sidecars of either.

    ``others`` are T1w and PET images in formats that are not read, and images in folders of PET with other names.
    ``dated`` are the participants with a ``scans.tsv``, without ``sub-``; None if that is not known.
    ``closed`` are sentences on folders that cannot be read, by the label of their participant. ``misnamed`` are images
    and folders (with ``/`` at the end) in the folders of participants whose names are nearly those of BIDS.
    """

    t1w: list[str]
    pet: list[str]
    sidecars: list[str]
    others: list[str]
    dated: frozenset[str] | None = None
    closed: Mapping[str, str] = field(default_factory=dict)
    misnamed: Sequence[str] = ()


def participant_labels(bids_dir: Path) -> tuple[str, ...]:
    """Return the labels of all participants, sorted.

    Raises
    ------
    MissingInputError
        There is no such folder, no ``dataset_description.json`` in it, or no participant.
    DamagedFileError
        ``dataset_description.json`` is not a JSON object.
    """
    bids_dir = Path(bids_dir)
    if not bids_dir.is_dir():
        raise MissingInputError(f"{bids_dir} is not a folder; give the root of a BIDS dataset")
    described = bids_dir / "dataset_description.json"
    if not (described.is_file() or described.is_symlink()):
        raise MissingInputError(f"{bids_dir} has no dataset_description.json; give the root of a BIDS dataset")
    read_json(described)
    with os.scandir(bids_dir) as entries:
        named = [one for one in entries if PARTICIPANT_FOLDER.fullmatch(one.name)]
    # A link that leads nowhere is a participant, too: its content was not fetched.
    labels = sorted(one.name[4:] for one in named if is_folder(one) or _is_broken_link(one))
    if not labels:
        odd = [name.rstrip("/") for name in misnamed_participants(bids_dir)]
        hint = f"; {', '.join(odd[:3])} {form(len(odd), 'is', 'are')} not named so" if odd else ""
        raise MissingInputError(f"{bids_dir} has no sub-… folder, so there are no participants{hint}")
    return tuple(labels)


#: Number of participants that an error lists.
_MOST_KNOWN = 10


def meant_participant(label: str, known: Sequence[str]) -> str:
    """Return the participant that was probably meant, or else the first ones."""
    alike = [one for one in known if one.lower().lstrip("0") == label.lower().lstrip("0")]
    alike = alike or get_close_matches(label, known, n=1, cutoff=0.8)
    more = f" and {len(known) - _MOST_KNOWN} more" if len(known) > _MOST_KNOWN else ""
    return f"did you mean {alike[0]}?" if alike else f"known: {', '.join(known[:_MOST_KNOWN])}{more}"


def misnamed_participants(bids_dir: Path) -> list[str]:
    """Return the folders that look like those of participants, and are not named as BIDS has it, with ``/``; sorted.

    Those that ``.bidsignore`` names are left out.
    """
    with os.scandir(bids_dir) as entries:
        found = [one for one in entries if not PARTICIPANT_FOLDER.fullmatch(one.name) and is_folder(one)]
    paths = sorted(f"{bids_dir}/{one.name}/" for one in found if participant_like(one.name))
    return [f"{Path(path).name}/" for path in without_ignored(bids_dir, paths)]


def _is_broken_link(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link to what is not there; a link to itself is none."""
    try:
        entry.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def find_files(
    bids_dir: Path, labels: Sequence[str], filters: Mapping[str, Mapping[str, Any]], *, everybody: bool
) -> RawFiles:
    """Return the files in the anat and pet folders of participants, and the sidecars above them.

    The folders are walked once. Only where there is a filter, pybids builds its database, whose queries filters are.
    Metadata are read later, file by file: reading them here would let one damaged JSON file stop the whole dataset.

    Parameters
    ----------
    bids_dir
        Root of the dataset, an absolute path.
    labels
        Participants to look at, without ``sub-``.
    filters
        As `tau_pipeline.bids.filters.read_filters` gives them.
    everybody
        Whether these are all participants.

    Raises
    ------
    InvalidDatasetError
        The name of a file or folder is not in UTF-8.
    SettingError
        A filter cannot be used.
    """
    closed: dict[str, str] = {}
    found: dict[tuple[str, bool], list[str]] = {(kind, image): [] for kind in KINDS for image in (False, True)}
    others: list[str] = []
    misnamed: list[str] = []
    dated = set()
    for path in sorted(_walked(str(bids_dir), labels, closed)):
        stem, _, ending = path.rpartition("/")[2].partition(".")
        kind, image = stem.rpartition("_")[2], f".{ending}" in IMAGE_ENDINGS
        if path.endswith("/"):
            misnamed.append(path)
        elif kind in KINDS and (image or ending == "json"):
            found[kind, image].append(path)
        elif f".{ending.lower()}" in OTHER_FORMATS and (kind in KINDS or "/pet/" in path):
            others.append(path)
        elif kind == "scans" and ending == "tsv":
            dated.add(stem.partition("_")[0].removeprefix("sub-"))
        elif (image and image_like(kind)) or _is_misnamed_sidecar(kind, ending):
            misnamed.append(path)
    t1w, pet = KINDS
    sidecars = sorted(found[t1w, False] + found[pet, False])
    files = RawFiles(found[t1w, True], found[pet, True], sidecars, others, frozenset(dated), closed, misnamed)
    if not (filters["t1w"] or filters["pet"]):
        return files
    open_ones = [label for label in labels if label not in closed]
    layout = _pybids_layout(bids_dir, open_ones, everybody=everybody and not closed)
    return replace(
        files,
        t1w=_query(layout, "T1w", IMAGE_ENDINGS, filters["t1w"]),
        pet=_query(layout, "pet", IMAGE_ENDINGS, filters["pet"]),
        others=_query(layout, ["T1w", "pet"], OTHER_FORMATS.keys() - {*IMAGE_ENDINGS}, {}),
    )


def _is_misnamed_sidecar(kind: str, ending: str) -> bool:
    """Return whether a file is named ``_pet.JSON`` or ``_pet.nii.json``, so that no image has it as a sidecar."""
    return image_like(kind) and ending != "json" and ending.lower() in ("json", "nii.json", "nii.gz.json")


def _walked(bids_dir: str, labels: Iterable[str], closed: dict[str, str]) -> Iterator[str]:
    """Yield the files at the root, in the folders of participants and sessions, and in and below anat and pet.

    Folders whose names are nearly those of BIDS are yielded, too, with ``/`` at the end, and not walked. Of a
    participant with a folder that cannot be read, ``closed`` gets a sentence on it.
    """
    _, files = _listed(bids_dir)
    yield from files
    for label in labels:
        if not Path(f"{bids_dir}/sub-{label}").is_dir():
            continue  # a broken link, of which nothing is known
        try:
            yield from _walked_participant(f"{bids_dir}/sub-{label}")
        except MissingInputError as exc:
            # What the folder holds could be the T1w of other sessions, so none of them is processed.
            closed[label] = f"{exc}; nothing of this participant is processed"


def _walked_participant(participant_dir: str) -> Iterator[str]:
    below: list[str] = []
    folders, files = _listed(participant_dir)
    yield from files
    for folder in folders:
        name = folder.rpartition("/")[2]
        if name in _DATATYPES:
            below.append(folder)
        elif name.startswith("ses-"):
            in_session, files = _listed(folder)
            yield from files
            below += [one for one in in_session if one.rpartition("/")[2] in _DATATYPES]
            yield from _nearly(one for one in in_session if one.rpartition("/")[2] not in _DATATYPES)
        else:
            yield from _nearly([folder])
    while below:
        folders, files = _listed(below.pop())
        yield from files
        # Folders in the place of files are refused with them.
        yield from (folder for folder in folders if folder.endswith((*IMAGE_ENDINGS, ".json")))
        below += folders


def _nearly(folders: Iterable[str]) -> Iterator[str]:
    """Yield the folders whose names are nearly those of BIDS, with ``/`` at the end."""
    return (f"{folder}/" for folder in folders if folder_like(folder.rpartition("/")[2]))


def _listed(folder: str) -> tuple[list[str], list[str]]:
    """Return the folders and the files in a folder; hidden ones do not count.

    Raises
    ------
    InvalidDatasetError
        A name is not in UTF-8.
    MissingInputError
        The folder cannot be read.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        Path(folder, "..").stat()  # fails where names may be listed, but files not opened
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = f"{folder}/{entry.name}"
                if not entry.name.isascii():
                    _check_utf8(path)
                (folders if is_folder(entry) else files).append(path)
    except OSError as exc:
        raise MissingInputError(f"cannot read the folder {folder}: {exc.strerror or exc}") from exc
    return folders, files


def _check_utf8(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as exc:
        raise _no_utf8(path) from exc


def _no_utf8(path: str) -> InvalidDatasetError:
    """Return the error of a path whose bytes are no UTF-8; they are shown by their codes."""
    found = os.fsencode(path).decode("utf-8", "backslashreplace")
    return InvalidDatasetError(
        f"the path {found} is not in UTF-8, as every name in a BIDS dataset must be; rename that file or folder"
    )


def _pybids_layout(bids_dir: Path, labels: Sequence[str], *, everybody: bool) -> BIDSLayout:
    """Return a pybids layout of the anat and pet folders only, without metadata."""
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
        raise _no_utf8(exc.object) from exc


def _query(
    layout: BIDSLayout, suffix: str | list[str], endings: Iterable[str], filters: Mapping[str, Any]
) -> list[str]:
    """Return the files of a suffix and ending that the filters leave, sorted; SettingError for a wrong filter."""
    asked = {"suffix": suffix, "extension": list(endings), **filters}
    try:
        return sorted(layout.get(return_type="filename", **asked))
    except (ValueError, TypeError, re.error) as exc:
        why = str(exc).partition(" If you're sure")[0]  # what follows is about calls of pybids
        raise SettingError(f"the filter {dict(filters)} cannot be used: {why}") from exc


def by_participant(files: Iterable[str]) -> dict[str, list[Path]]:
    """Return image files by participant, of those with one name only that nearest to the root, and ``x.nii.gz`` first.

    BIDS has no folders in ``anat`` and ``pet``; what lies deeper was put aside.
    """

    def rank(path: Path) -> tuple[int, bool]:
        return len(path.parts), not path.name.endswith(".gz")

    found: dict[str, dict[str, Path]] = {}
    for path in map(Path, files):
        label = folder_labels(path).get("sub")
        if label is None:
            continue  # beside the participants' folders, where BIDS has no images
        own = found.setdefault(label, {})
        # A name without its session is that of another image, which is refused later.
        stem = f"{folder_labels(path).get('ses', '')}/{path.name.split('.', 1)[0]}"
        if stem not in own or rank(path) < rank(own[stem]):
            own[stem] = path
    return {label: list(own.values()) for label, own in found.items()}


def without_ignored(bids_dir: Path, files: Iterable[str]) -> list[str]:
    """Leave out the files that ``.bidsignore`` names; its patterns are those of ``.gitignore``.

    Raises
    ------
    DamagedFileError
        ``.bidsignore`` cannot be read.
    MissingInputError
        It only points to its content, which was not fetched.
    """
    listed = bids_dir / ".bidsignore"
    if not listed.is_symlink() and not listed.is_file():
        return list(files)
    require_file(listed, "file")
    try:
        ignored = GitIgnoreSpec.from_lines(listed.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, ValueError) as exc:
        raise DamagedFileError(f"{listed} cannot be read ({exc}); correct the file") from exc

    def inside(file: str) -> str:
        return Path(file).relative_to(bids_dir).as_posix() + "/" * file.endswith("/")

    return [file for file in files if not ignored.match_file(inside(file))]
