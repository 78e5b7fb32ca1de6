"""Images of a raw dataset that are no scans, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tau_pipeline.bids.entities import folder_labels
from tau_pipeline.bids.layout import KINDS, OTHER_FORMATS
from tau_pipeline.files import name_parts

_ENDS = tuple(f"_{kind}" for kind in KINDS)
#: Entities of images that were made from others.
_DERIVED = ("space", "res", "den", "desc")


def why_derived(image: Path, images: Iterable[Path]) -> str:
    """Say of which other image one was made by its name; empty if it is none of a pair."""
    entities, _ = name_parts(image)
    own = {name: label for name, label in entities.items() if name not in _DERIVED}
    original = next((one for one in images if len(own) < len(entities) and name_parts(one)[0] == own), None)
    return "" if original is None else f"left out: by its name it was made from {original.name}, which is taken"


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
    read = {path.name.split(".", 1)[0] for path in (*t1w, *pet)}
    wanted = [(stem, path) for path in others if (stem := path.name.split(".", 1)[0]) not in read]
    named = [(stem, _why_not_read(path)) for stem, path in wanted if stem.endswith("_pet" if t1w else _ENDS)]
    strange = [path for stem, path in wanted if not stem.endswith(_ENDS)]
    if named or pet or not strange:
        return named
    expected = f"{_example(strange[0])} and .json"
    return [
        (
            f"sub-{folder_labels(strange[0])['sub']}",
            f"{strange[0]} is in a folder of PET, but not named as one is; expected: {expected}",
        )
    ]


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
