"""Fields of a settings class: documented, checked, and converted to their declared type.

`tau_pipeline.settings.configuration` joins the sections that are made of such fields.
"""

from __future__ import annotations

import dataclasses
import math
import types
from pathlib import Path
from typing import Any, Literal, TypedDict, Union, Unpack, get_args, get_origin, get_type_hints

from tau_pipeline.errors import SettingError


class Bounds(TypedDict, total=False):
    """Bounds of a number; ``above`` and ``below`` exclude the bound itself."""

    above: float
    at_least: float
    below: float
    at_most: float


def documented(
    help_text: str,
    *,
    unit: str = "",
    source: str = "",
    flags: tuple[str, ...] = (),
    **bounds: Unpack[Bounds],
) -> dict[str, Any]:
    """Make the metadata of a field: what the help and the reference page say about it.

    Parameters
    ----------
    help_text
        Sentences.
    unit, source
        Unit of the value; where the number or spelling comes from.
    flags
        Spellings on the command line; by default the name with hyphens.
    **bounds
        Bounds of a number, which `Checked` enforces and the reference page shows.
    """
    return {"help": help_text, "unit": unit, "source": source, "flags": flags, "bounds": bounds}


def bounds_text(bounds: Bounds) -> str:
    """Return the range that bounds allow, as the messages and the reference page state it.

    Parameters
    ----------
    bounds
        Any of ``above``, ``at_least``, ``below`` and ``at_most``; empty for no bounds.

    Examples
    --------
    >>> bounds_text({"at_least": 0})
    '0 or more'
    >>> bounds_text({"above": 0, "at_most": 1})
    'above 0, at most 1'
    """
    words = {"above": "above {}", "at_least": "{} or more", "below": "below {}", "at_most": "at most {}"}
    given: dict[str, float] = {**bounds}  # type: ignore[dict-item]
    return ", ".join(form.format(given[name]) for name, form in words.items() if name in given)


class Checked:
    """Checks and converts every field when the object is made, so that no unchecked value goes further."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _converted(item.name, getattr(self, item.name), hints[item.name])
            bounds = item.metadata.get("bounds")
            if bounds and value is not None:
                kind, words = _type_text(without_none(hints[item.name])[0]), bounds_text(bounds)
                expected = f"{kind}, {words}" if words[0].isdigit() else f"{kind} {words}"
                require(_within(value, bounds), item.name, value, expected)
            object.__setattr__(self, item.name, value)


def require(condition: bool, name: str, found: object, expected: str) -> None:
    """Raise a SettingError that names the setting, the value found and what was expected, unless ``condition``."""
    if not condition:
        raise SettingError(f"{name} is {found!r}; expected: {expected}")


def without_none(hint: Any) -> tuple[Any, bool]:
    """Split ``X | None`` into ``X`` and True; any other type into itself and False."""
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = [arg for arg in get_args(hint) if arg is not type(None)]
        return inner, True
    return hint, False


def _within(value: float, bounds: Bounds) -> bool:
    """Return whether a number lies within the bounds."""
    return (
        value > bounds.get("above", -math.inf)
        and value >= bounds.get("at_least", -math.inf)
        and value < bounds.get("below", math.inf)
        and value <= bounds.get("at_most", math.inf)
    )


def _converted(name: str, value: Any, hint: Any) -> Any:
    """Convert a value to the declared type of the field, where TOML or the command line spell it otherwise."""
    inner, optional = without_none(hint)
    if value is None:
        require(optional, name, None, _type_text(inner))
        return None
    if get_origin(inner) is Literal:
        require(value in get_args(inner), name, value, f"one of {', '.join(get_args(inner))}")
        return value
    if get_origin(inner) is tuple:
        return _converted_tuple(name, value, inner)
    return _converted_scalar(name, value, inner)


def _converted_tuple(name: str, value: Any, hint: Any) -> tuple[Any, ...]:
    args = get_args(hint)
    require(isinstance(value, list | tuple), name, value, _type_text(hint))
    if Ellipsis not in args:
        require(len(value) == len(args), name, list(value), _type_text(hint))
    return tuple(_converted(name, item, args[0]) for item in value)


def _converted_scalar(name: str, value: Any, kind: type) -> Any:
    # bool is an int to Python; `random_seed = true` is a slip all the same.
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        require(math.isfinite(value), name, value, "a finite number")
        return float(value)
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value)
    require(type(value) is kind, name, value, _type_text(kind))
    return value


def _type_text(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is tuple:
        args = get_args(hint)
        if get_origin(args[0]) is Literal:
            return f"a list of some of {', '.join(get_args(args[0]))}"
        return f"a list of {words[args[0]].split(' ', 1)[1]}s" if Ellipsis in args else f"a list of {len(args)} numbers"
    return words[hint]
