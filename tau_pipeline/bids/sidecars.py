"""JSON sidecars of raw images: inherited values and checked types.

BIDS keeps a value once, as high in the tree as it is true, and lets deeper files override it (the inheritance
principle, BIDS 1.10, common principles). Values come back as a plain dictionary; the functions below read single
values out of it and refuse wrong types with one sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tau_pipeline.errors import MetadataError, shown
from tau_pipeline.files import name_parts, read_json


class SidecarIndex:
    """The JSON files of a dataset, found by folder, suffix and entities.

    Parameters
    ----------
    root
        The dataset's folder.
    json_files
        Its JSON sidecars, with paths that start with ``root``.
    """

    def __init__(self, root: Path, json_files: Iterable[Path]) -> None:
        self.root = root
        self._by_place: dict[tuple[tuple[str, ...], str], list[tuple[dict[str, str], Path]]] = {}
        self._shared: dict[Path, dict[str, Any]] = {}
        for path in json_files:
            entities, suffix = name_parts(path)
            self._by_place.setdefault((path.parts[:-1], suffix), []).append((entities, path))

    def files(self, image: Path) -> list[Path]:
        """Return the sidecars that apply to an image, the most general one first.

        A sidecar applies if it lies in the image's folder or above, has its suffix, and no entity that the image
        has not. Of several in one folder the one with more entities counts as the more specific.
        """
        entities, suffix = name_parts(image)
        own_folder, root = image.parts[:-1], self.root.parts
        above = range(len(root), len(own_folder) + 1) if own_folder[: len(root)] == root else ()
        found: list[Path] = []
        for depth in above:
            here = [
                (len(own), path)
                for own, path in self._by_place.get((own_folder[:depth], suffix), [])
                if own.items() <= entities.items()
            ]
            found.extend(path for _, path in sorted(here))
        return found

    def metadata(self, image: Path) -> dict[str, Any]:
        """Return the values that apply to an image; the more specific sidecar wins.

        Raises
        ------
        DamagedFileError
            One of the sidecars is not a JSON object.
        """
        values: dict[str, Any] = {}
        for path in self.files(image):
            # Those beside an image hardly ever apply to another; kept, they would take as much memory as all scans.
            if path.parent == image.parent:
                values |= read_json(path)
                continue
            if path not in self._shared:
                self._shared[path] = read_json(path)
            values |= self._shared[path]
        return values


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", "n/a"))


def text_value(metadata: Mapping[str, Any], key: str) -> str | None:
    """Return a text, stripped; None if absent or ``n/a``.

    Raises
    ------
    MetadataError
        The value is not a text.
    """
    value = metadata.get(key)
    if _missing(value):
        return None
    if not isinstance(value, str):
        raise MetadataError(f"{key} is {shown(value)}; expected: text")
    return value.strip() or None


def bool_value(metadata: Mapping[str, Any], key: str) -> bool | None:
    """Return true or false; None if absent. Anything else, including the text "true", raises MetadataError."""
    value = metadata.get(key)
    if _missing(value):
        return None
    if not isinstance(value, bool):
        raise MetadataError(f"{key} is {shown(value)}; expected: true or false (without quotation marks)")
    return value


def sentences(value: Any) -> list[str]:
    """Return the sentences of a list such as ``Assumptions``; a single text is a list of one, other types are empty.

    Examples
    --------
    >>> sentences(["a", "b"]), sentences("a"), sentences(None)
    (['a', 'b'], ['a'], [])
    """
    return [str(one) for one in value] if isinstance(value, list) else [value] if isinstance(value, str) else []


def _number(value: Any) -> bool:
    # A whole number in JSON may have any length; one that no float holds is none here.
    limit = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -limit <= value <= limit


def number_value(metadata: Mapping[str, Any], key: str) -> float | None:
    """Return a finite number; None if absent or ``n/a``. Anything else raises MetadataError."""
    value = metadata.get(key)
    if _missing(value):
        return None
    if value is None or not _number(value):
        raise MetadataError(f"{key} is {shown(value)}; expected: a number")
    return float(value)


def number_list(metadata: Mapping[str, Any], key: str) -> tuple[float, ...] | None:
    """Return a list of finite numbers; None if absent, ``n/a`` or empty. Anything else raises MetadataError.

    A single number stands for a list of one, as static scans often have it.
    """
    value = metadata.get(key)
    if _missing(value) or value == []:
        return None
    value = [value] if _number(value) else value
    if not isinstance(value, list) or not all(_number(item) for item in value):
        raise MetadataError(f"{key} is {shown(value)}; expected: a list of numbers, one per frame")
    return tuple(float(item) for item in value)
