"""What a field of a settings class is: documented, checked, and converted to its declared type.

`tau_pipeline.settings.configuration` joins the sections that are made of such fields.
"""

from __future__ import annotations

import dataclasses
import math
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tau_pipeline.errors import SettingError


def documented(help_text: str, *, unit: str = "", source: str = "", flags: tuple[str, ...] = ()) -> dict[str, Any]:
    """Make the metadata of a field: what the help and the reference page say about it.

    Parameters
    ----------
    help_text
        Sentences.
    unit, source
        Unit of the value; where the number or spelling comes from.
    flags
        Spellings on the command line; by default the name with hyphens.
    """
    return {"help": help_text, "unit": unit, "source": source, "flags": flags}


class Checked:
    """Checks and converts every field when the object is made, so that no unchecked value goes further."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _converted(item.name, getattr(self, item.name), hints[item.name])
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


def _converted(name: str, value: Any, hint: Any) -> Any:
    """The value as the type that the field declares, where TOML or the command line spell it otherwise."""
    inner, optional = without_none(hint)
    if value is None:
        require(optional, name, None, _type_in_words(inner))
        return None
    if get_origin(inner) is Literal:
        require(value in get_args(inner), name, value, f"one of {', '.join(get_args(inner))}")
        return value
    if get_origin(inner) is tuple:
        return _converted_tuple(name, value, inner)
    return _converted_scalar(name, value, inner)


def _converted_tuple(name: str, value: Any, hint: Any) -> tuple[Any, ...]:
    args = get_args(hint)
    require(isinstance(value, list | tuple), name, value, _type_in_words(hint))
    if Ellipsis not in args:
        require(len(value) == len(args), name, list(value), _type_in_words(hint))
    return tuple(_converted(name, item, args[0]) for item in value)


def _converted_scalar(name: str, value: Any, kind: type) -> Any:
    # bool is an int to Python; `random_seed = true` is a slip all the same.
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        require(math.isfinite(value), name, value, "a finite number")
        return float(value)
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value)
    require(type(value) is kind, name, value, _type_in_words(kind))
    return value


def _type_in_words(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is tuple:
        args = get_args(hint)
        if get_origin(args[0]) is Literal:
            return f"a list of some of {', '.join(get_args(args[0]))}"
        return f"a list of {words[args[0]].split(' ', 1)[1]}s" if Ellipsis in args else f"a list of {len(args)} numbers"
    return words[hint]
