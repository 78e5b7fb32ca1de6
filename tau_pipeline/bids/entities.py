"""Entities of a file's name and folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tau_pipeline.errors import (
    MetadataError,
)
from tau_pipeline.files import name_parts

if TYPE_CHECKING:
    pass


#: What BIDS allows as the label of an entity.
LABEL = re.compile(r"[0-9A-Za-z+]+")


def folder_labels(path: Path) -> dict[str, str]:
    """Return the participant and session that a file's folders name; folders above the dataset do not count."""
    labels: dict[str, str] = {}
    for folder in reversed(path.parts[:-1]):
        name, _, label = folder.partition("-")
        if name in ("sub", "ses"):
            labels[name] = label
        if name == "sub":
            break
    return labels


def entities_of(path: Path) -> dict[str, str]:
    """Return the entities of an image's name, which must agree with its folder.

    Raises
    ------
    MetadataError
        Name and folder are of different participants or sessions: one of them is wrong, and the user must correct it.
        Or a label holds what BIDS does not allow in one, so that no output could be named after it, or a part of the
        name is no pair of an entity and a label.
    """
    entities, _ = name_parts(path)
    *pairs, _ = stem(path).split("_")
    if len(pairs) != len(entities):
        # Read over, another image could have the same entities, and the same outputs.
        odd = [pair for pair in pairs if "-" not in pair]
        what = f"{odd[0]!r} in its name" if odd else "an entity twice in its name"
        raise MetadataError(f"{path} has {what}; expected: pairs such as trc-AV1451, each once; rename the file")
    for name, label in entities.items():
        if not LABEL.fullmatch(label):
            raise MetadataError(
                f"{path} has the label {label!r} for {name}; expected: letters and digits; rename the file"
            )
    for name, label in folder_labels(path).items():
        if entities.get(name) != label:
            raise MetadataError(
                f"{path} is in a folder of {name}-{label} but its name says otherwise; rename one of them"
            )
    return entities


def stem(path: Path) -> str:
    """Return the name of a file without its endings."""
    return path.name.split(".", 1)[0]
