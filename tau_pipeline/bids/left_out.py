"""Images of a raw dataset that are no scans, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tau_pipeline.bids.entities import folder_labels
from tau_pipeline.bids.layout import (
    IMAGE_ENDINGS,
    KINDS,
    OTHER_FORMATS,
    by_participant,
    misnamed_participants,
    without_ignored,
)
from tau_pipeline.files import name_parts

_ENDS = tuple(f"_{kind}" for kind in KINDS)
#: Entities of images that were made from others.
_DERIVED = ("space", "res", "den", "desc")


#: Number of misnamed images and folders of a participant that are named one by one.
_MOST_NAMED = 20


def passed_over(bids_dir: Path, misnamed: Sequence[str], counted: Sequence[Sequence[str]]) -> dict[str, dict[str, str]]:
    """Return why images and folders of participants are not used, by label and their paths in the dataset.

    Parameters
    ----------
    bids_dir
        Root of the dataset.
    misnamed
        Images and folders with names that are nearly those of BIDS.
    counted
        Paths of T1w, PET and other images.
    """
    t1w, pet, others = map(by_participant, counted)
    used = {label: [*t1w.get(label, ()), *pet.get(label, ())] for label in t1w.keys() | pet.keys() | others.keys()}
    odd: dict[str, list[str]] = {}
    for path in without_ignored(bids_dir, misnamed):
        odd.setdefault(Path(path).relative_to(bids_dir).parts[0].removeprefix("sub-"), []).append(path)
    for label in others.keys() & pet.keys():
        strange = map(str, strangers(others[label], used[label]))
        odd.setdefault(label, []).extend(path for path in strange if path.lower().endswith(IMAGE_ENDINGS))
    unread: dict[str, list[Path]] = {}
    for image in map(Path, (*counted[0], *counted[1])):
        label = folder_labels(image).get("sub", "")
        if label in used and image not in used[label]:
            unread.setdefault(label, []).append(image)
    return {
        label: _passed_over(bids_dir, odd.get(label, ()), unread.get(label, ()), used.get(label, ()))
        for label in odd.keys() | unread.keys()
    }


def _passed_over(root: Path, misnamed: Iterable[str], unread: Iterable[Path], taken: Iterable[Path]) -> dict[str, str]:
    """Say of images and folders of a participant that would be missed without a word why they are not used.

    Parameters
    ----------
    root
        The dataset's folder.
    misnamed
        Images and folders with names that are nearly those of BIDS; folders end in ``/``.
    unread
        Images with the name of another one, in another format or in a folder below.
    taken
        The images that are used.

    Returns
    -------
    reasons
        By path relative to the dataset; of many the last one stands for all others.
    """
    by_stem = {_stem(path): path for path in taken}
    found = {f"{Path(path).relative_to(root)}{'/' * path.endswith('/')}": _why_misnamed(path) for path in misnamed}
    for path in unread:
        used = by_stem[_stem(path)]
        place = "beside it" if used.parent == path.parent else f"in {used.parent.name}"
        found[str(path.relative_to(root))] = f"left out: {used.name} {place} is used"
    paths = sorted(found)
    if len(paths) > _MOST_NAMED:
        more = len(paths) - _MOST_NAMED
        found[paths[_MOST_NAMED - 1]] += f"; {more} more images and folders are left out, too"
    return {path: found[path] for path in paths[:_MOST_NAMED]}


def _why_misnamed(path: str) -> str:
    if path.endswith("/"):
        return "left out: BIDS has no folder of this name; expected: anat, pet, or ses-LABEL"
    if path.lower().endswith(".json"):
        return "left out: it is not named as a sidecar; expected: the name of the image with the ending .json"
    if "/pet/" in path:
        return "left out: it is not named as a PET; expected: a name that ends in _pet.nii.gz"
    return "left out: it is not named as a T1w; expected: a name that ends in _T1w.nii.gz"


def passed_over_folders(bids_dir: Path) -> dict[str, str]:
    """Say of folders that look like those of participants why they are not used, by their names with ``/``."""
    why = "left out: BIDS names the folder of a participant sub-LABEL, with letters and digits; rename the folder"
    return dict.fromkeys(misnamed_participants(bids_dir), why)


def why_derived(image: Path, images: Iterable[Path]) -> str:
    """Say of which other image one was made by its name; empty if it is none of a pair."""
    entities, _ = name_parts(image)
    own = {name: label for name, label in entities.items() if name not in _DERIVED}
    original = next((one for one in images if len(own) < len(entities) and name_parts(one)[0] == own), None)
    return "" if original is None else f"left out: by its name it was made from {original.name}, which is taken"


def why_same(entities: Mapping[Path, Mapping[str, str]]) -> dict[Path, str]:
    """Say of images whose names differ only in the order of entities that they would have the same outputs."""
    found: dict[Path, str] = {}
    for path, own in entities.items():
        other = next((one for one, labels in entities.items() if one != path and labels == own), None)
        if other is not None:
            found[path] = f"{path.name} and {other.name} have the same entities in another order; keep one"
    return found


def why_nothing(folder: Path) -> str:
    """Say of a participant's folder without images what is wrong with it."""
    if not folder.is_dir():
        return "no T1w or PET image found: its folder is a broken link; fetch its content (datalad get, git annex get)"
    if not any(folder.iterdir()):
        return "no T1w or PET image found: its folder is empty; if it is a subdataset of DataLad, get it (datalad get)"
    return "no T1w or PET image found"


def not_read(others: Iterable[Path], t1w: Sequence[Path], pet: Sequence[Path]) -> list[tuple[str, str]]:
    """Return the keys of images that are not read, and what to do about them; of T1w only if there is no other one.

    Of images that are not named as PET, the first one stands for all, and only where there is no PET.

    Parameters
    ----------
    others
        Of one participant, as `find_files` gives them.
    t1w, pet
        The images of the participant that are read.
    """
    read = set(map(_stem, (*t1w, *pet)))
    wanted = [(stem, path) for path in others if (stem := _stem(path)) not in read]
    named = [(stem, _why_not_read(path)) for stem, path in wanted if stem.endswith("_pet" if t1w else _ENDS)]
    strange = strangers(others, (*t1w, *pet))
    if named or pet or not strange:
        return named
    expected = f"{_example(strange[0])} and .json"
    return [
        (
            f"sub-{folder_labels(strange[0])['sub']}",
            f"{strange[0]} is in a folder of PET, but not named as one is; expected: {expected}",
        )
    ]


def strangers(others: Iterable[Path], read: Iterable[Path]) -> list[Path]:
    """Return the images in folders of PET that are not named as PET, nor as an image that is read."""
    known = set(map(_stem, read))
    return [path for path in others if _stem(path) not in known and not _stem(path).endswith(_ENDS)]


def _stem(path: Path) -> str:
    return path.name.split(".", 1)[0]


def _why_not_read(path: Path) -> str:
    """Say of an image in a format that is not read which one it is, and what to do."""
    stem, _, ending = path.name.partition(".")
    what, how = OTHER_FORMATS[f".{ending.lower()}"]
    convert = f"convert it {how} to" if how else "pack or name it again as"
    return f"{path} is {what}, which is not read; {convert} {stem}.nii.gz, and keep its JSON sidecar beside it"


def _example(path: Path) -> str:
    """Return a name that a PET in the folder of a file could have."""
    labels = folder_labels(path)
    session = f"_ses-{labels['ses']}" if "ses" in labels else ""
    return f"sub-{labels['sub']}{session}_pet.nii.gz"
