"""JSON sidecars of raw images: inherited values, checked types, and what the job needs to know of a PET.

BIDS keeps a value once, as high in the tree as it is true, and lets deeper files override it (the inheritance
principle, BIDS 1.10, common principles). Values come back as a plain dictionary; the functions below read single
values out of it and refuse wrong types with one sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau_pipeline.errors import MetadataError
from tau_pipeline.files import read_json

#: No PET session lasts longer; larger "seconds" are milliseconds. Shorter totals of a dynamic scan are minutes.
LONGEST_S = 24 * 3600.0
SHORTEST_DYNAMIC_S = 60.0


def name_parts(path: Path) -> tuple[dict[str, str], str]:
    """The entities of a BIDS file name in their order (``{"sub": "01", "trc": "AV1451"}``), and its suffix.

    Examples
    --------
    >>> name_parts(Path("sub-01_ses-a_trc-AV1451_pet.nii.gz"))
    ({'sub': '01', 'ses': 'a', 'trc': 'AV1451'}, 'pet')
    """
    *pairs, suffix = path.name.split(".", 1)[0].split("_")
    return dict(pair.split("-", 1) for pair in pairs if "-" in pair), suffix


class SidecarIndex:
    """The JSON files of a dataset, found by folder, suffix and entities; each is read once.

    Parameters
    ----------
    root
        The dataset's folder.
    json_files
        Its JSON sidecars, with paths that start with ``root``.
    """

    def __init__(self, root: Path, json_files: Iterable[Path]) -> None:
        self.root = root
        self._by_place: dict[tuple[Path, str], list[tuple[dict[str, str], Path]]] = {}
        self._read: dict[Path, dict[str, Any]] = {}
        for path in json_files:
            entities, suffix = name_parts(path)
            self._by_place.setdefault((path.parent, suffix), []).append((entities, path))

    def files(self, image: Path) -> list[Path]:
        """The sidecars that apply to an image, the most general one first.

        A sidecar applies if it lies in the image's folder or above, has its suffix, and no entity that the image
        has not. Of several in one folder the one with more entities counts as the more specific.
        """
        entities, suffix = name_parts(image)
        above = [folder for folder in reversed(image.parents) if folder.is_relative_to(self.root)]
        found: list[Path] = []
        for folder in above:
            here = [
                (len(own), path)
                for own, path in self._by_place.get((folder, suffix), [])
                if own.items() <= entities.items()
            ]
            found.extend(path for _, path in sorted(here))
        return found

    def metadata(self, image: Path) -> dict[str, Any]:
        """The values that apply to an image; the more specific sidecar wins.

        Raises
        ------
        DamagedFileError
            One of the sidecars is not a JSON object.
        """
        values: dict[str, Any] = {}
        for path in self.files(image):
            if path not in self._read:
                self._read[path] = read_json(path)
            values |= self._read[path]
        return values


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in ("", "n/a"))


def text_value(metadata: Mapping[str, Any], key: str) -> str | None:
    """A text, stripped; None if absent or ``n/a``.

    Raises
    ------
    MetadataError
        The value is not a text.
    """
    value = metadata.get(key)
    if _missing(value):
        return None
    if not isinstance(value, str):
        raise MetadataError(f"{key} is {value!r}; a text is needed")
    return value.strip() or None


def bool_value(metadata: Mapping[str, Any], key: str) -> bool | None:
    """True or false; None if absent. Anything else, the text "true" too, raises MetadataError."""
    value = metadata.get(key)
    if _missing(value):
        return None
    if not isinstance(value, bool):
        raise MetadataError(f"{key} is {value!r}; true or false is needed (without quotation marks)")
    return value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number_value(metadata: Mapping[str, Any], key: str) -> float | None:
    """A finite number; None if absent or ``n/a``. Anything else raises MetadataError."""
    value = metadata.get(key)
    if _missing(value):
        return None
    if value is None or not _number(value):
        raise MetadataError(f"{key} is {value!r}; a number is needed")
    return float(value)


def number_list(metadata: Mapping[str, Any], key: str) -> tuple[float, ...] | None:
    """A list of finite numbers; None if absent, ``n/a`` or empty. Anything else raises MetadataError."""
    value = metadata.get(key)
    if _missing(value) or value == []:
        return None
    if not isinstance(value, list) or not all(_number(item) for item in value):
        raise MetadataError(f"{key} is {value!r}; a list of numbers is needed, one for each frame")
    return tuple(float(item) for item in value)


@dataclass(frozen=True)
class FrameTimes:
    """When each frame of a PET was taken.

    ``starts_s`` and ``durations_s`` are in seconds after injection, one for each frame, in the order of the image.
    ``assumptions`` are sentences on what the sidecar did not state.
    """

    starts_s: tuple[float, ...]
    durations_s: tuple[float, ...]
    assumptions: tuple[str, ...] = ()


STATIC_IS_LATE = "the PET has one frame and {why}; it was taken as the late image and used whole"


def frame_times(metadata: Mapping[str, Any], n_frames: int) -> tuple[FrameTimes | None, tuple[str, ...]]:
    """Frame times after injection, and the assumptions made; None for a static image of unknown time.

    ``FrameTimesStart`` counts from ``TimeZero``, as ``InjectionStart`` does (BIDS 1.10, PET); the difference is the
    time after injection.

    Raises
    ------
    MetadataError
        A dynamic PET has no times, or the times have the wrong type, number, unit or order.
    """
    starts, durations = number_list(metadata, "FrameTimesStart"), number_list(metadata, "FrameDuration")
    if starts is None or durations is None:
        absent = " and ".join(
            key for key, got in (("FrameTimesStart", starts), ("FrameDuration", durations)) if got is None
        )
        if n_frames > 1:
            raise MetadataError(f"the PET has {n_frames} frames but its sidecar has no {absent}; add the frames' times")
        return None, (STATIC_IS_LATE.format(why=f"its sidecar has no {absent}"),)
    for key, values in (("FrameTimesStart", starts), ("FrameDuration", durations)):
        if len(values) != n_frames:
            raise MetadataError(
                f"{key} has {len(values)} values but the PET has {n_frames} frames; one for each is needed"
            )
    durations, from_ends = _real_durations(starts, durations)
    starts, from_origin = _after_injection(metadata, starts)
    _check_times(starts, durations)
    assumptions = from_ends + from_origin
    if n_frames == 1 and starts[0] <= 0:
        return None, (*assumptions, STATIC_IS_LATE.format(why="its time starts at 0"))
    return FrameTimes(starts, durations, assumptions), assumptions


def _real_durations(
    starts: tuple[float, ...], durations: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Undo a common slip: the end times written as durations (three of the published BIDS examples have it)."""
    if len(starts) > 2 and durations[:-1] == starts[1:] and durations[-1] > starts[-1]:
        sentence = "FrameDuration holds the frames' end times; the durations were taken as end minus start"
        return tuple(end - start for start, end in zip(starts, durations, strict=True)), (sentence,)
    return durations, ()


def _after_injection(
    metadata: Mapping[str, Any], starts: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    injection = number_value(metadata, "InjectionStart")
    scan = number_value(metadata, "ScanStart")
    assumptions: tuple[str, ...] = ()
    if injection is None:
        assumptions = ("the sidecar has no InjectionStart; the injection was taken to be at time zero",)
    origin = 0.0
    if scan is not None and scan > 0 and starts[0] == 0:
        # No frame can begin before the scan does.
        origin = scan
        assumptions += (f"FrameTimesStart begins before ScanStart ({scan:g} s); it was counted from the scan's start",)
    return tuple(start + origin - (injection or 0.0) for start in starts), assumptions


def _check_times(starts: tuple[float, ...], durations: tuple[float, ...]) -> None:
    if min(durations) <= 0:
        raise MetadataError(f"FrameDuration has the value {min(durations):g}; durations in seconds above 0 are needed")
    ends = [start + duration for start, duration in zip(starts, durations, strict=True)]
    total = max(ends) - min(starts)
    if max(ends) > LONGEST_S:
        raise MetadataError(
            f"the last frame ends {max(ends):g} s after injection, more than a day; FrameTimesStart and FrameDuration "
            "must be in seconds (are these milliseconds?)"
        )
    if len(starts) > 1 and total < SHORTEST_DYNAMIC_S:
        raise MetadataError(
            f"the {len(starts)} frames last {total:g} s together; FrameTimesStart and FrameDuration must be in seconds "
            "(are these minutes?)"
        )
    for index, (end, following) in enumerate(zip(ends, starts[1:], strict=False)):
        # Half a second leaves room for times that were rounded.
        if following < end - 0.5:
            raise MetadataError(
                f"frame {index + 1} ends at {end:g} s but frame {index + 2} starts at {following:g} s; frames must not "
                "overlap: mend FrameTimesStart or FrameDuration"
            )
