"""Sidecars of a whole cohort in little memory: as dictionaries, those of ten thousand scans take a gigabyte."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

#: Parts of a quality check that the tables of the cohort use beside its value; those that describe it are the same in
#: every sidecar.
_OF_CHECK = ("Check", "Verdict", "Excluded", "DecidedBy", "Why", "ComputedVerdict")
_CHECKS = "QualityChecks"
#: Longer texts and lists are hardly the same in two sidecars.
_LONGEST_SHARED = 300


class Compact(Mapping[str, Any]):
    """A sidecar whose checks have only what the cohort uses.

    Names of keys and values that are the same in many sidecars are shared, so values must not be changed. Checks are
    made anew each time they are asked for.

    Parameters
    ----------
    sidecar
        Content of the file.
    values
        Whether values of checks are kept; they are used of the first reference region of a scan.
    """

    __slots__ = ("_places", "_values")

    def __init__(self, sidecar: Mapping[str, Any], *, values: bool) -> None:
        self._places = _places(tuple(sidecar))
        self._values = tuple(
            _packed(value, values=values) if name == _CHECKS and isinstance(value, list) else _shared(value)
            for name, value in sidecar.items()
        )

    def __getitem__(self, name: str) -> Any:
        value = self._values[self._places[name]]
        return value.unpacked() if isinstance(value, _Checks) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value, or the default where there is none."""
        return self[name] if name in self._places else default


@lru_cache(maxsize=1000)
def _places(names: tuple[str, ...]) -> dict[str, int]:
    return {sys.intern(name): place for place, name in enumerate(names)}


def _shared(value: Any) -> Any:
    """Return a value that is equal, the same for all sidecars if it is likely to be in many."""
    if isinstance(value, str):
        return sys.intern(value) if len(value) <= _LONGEST_SHARED else value
    if isinstance(value, list) and len(text := repr(value)) <= _LONGEST_SHARED:
        if len(_LISTS) >= _MOST_LISTS:
            _LISTS.clear()
        return _LISTS.setdefault(text, value)
    return value


#: Lists that were met last, by their text.
_LISTS: dict[str, list[Any]] = {}
_MOST_LISTS = 4000


class _Checks(NamedTuple):
    """Quality checks: what is the same in many sidecars, and the values, nan where there is none."""

    parts: tuple[Mapping[str, Any], ...]
    values: array[float]

    def unpacked(self) -> list[dict[str, Any]]:
        return [
            dict(part) if math.isnan(value) else {**part, "Value": value}
            for part, value in zip(self.parts, self.values, strict=True)
        ]


def _packed(checks: Sequence[Mapping[str, Any]], *, values: bool) -> _Checks:
    stated = tuple([tuple(map(check.get, _OF_CHECK)) for check in checks])
    try:
        parts = _parts(stated)
    except TypeError:
        # A list or an object, which no check has: such a value counts as none.
        parts = _parts(tuple([tuple([one if isinstance(one, _PLAIN) else None for one in own]) for own in stated]))
    numbers = [check.get("Value") for check in checks] if values else [None] * len(checks)
    return _Checks(parts, array("d", map(_number, numbers)))


_PLAIN = (str, bool, int, float)


def _number(value: Any) -> float:
    # A whole number in JSON may have any length; one that no float holds is none here.
    return float(value) if isinstance(value, (int, float)) and abs(value) <= sys.float_info.max else math.nan


@lru_cache(maxsize=2000)
def _parts(checks: tuple[tuple[Any, ...], ...]) -> tuple[Mapping[str, Any], ...]:
    return tuple(map(_part, checks))


@lru_cache(maxsize=10_000)
def _part(check: tuple[Any, ...]) -> Mapping[str, Any]:
    return {name: value for name, value in zip(_OF_CHECK, check, strict=True) if value is not None}
