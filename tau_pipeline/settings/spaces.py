"""Spaces that maps are written in, in the spelling of fMRIPrep: ``MNI152NLin6Asym:res-2``, ``fsaverage:den-10k``.

A new space is one row of `_KINDS` here; nothing else reads the spelling.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tau_pipeline.errors import SettingError

Kind = Literal["individual", "volume", "surface"]

#: Kind of each space, and the values of its modifier, the default first.
_KINDS: dict[str, tuple[Kind, str, tuple[str, ...]]] = {
    "T1w": ("individual", "", ()),
    "MNI152NLin6Asym": ("volume", "res", ("2", "1")),
    "MNI152NLin2009cAsym": ("volume", "res", ("2", "1")),
    "fsaverage": ("surface", "den", ("10k", "41k", "164k")),
    "fsLR": ("surface", "den", ("32k",)),
}


@dataclass(frozen=True)
class OutputSpace:
    """A space with its resolution.

    Attributes
    ----------
    name
        Label of the entity ``space``.
    kind
        ``individual`` for the participant's own T1w, ``volume`` for a template, ``surface`` for a template surface.
    modifier, value
        ``res`` and its label (1 or 2: edge of a voxel in mm), ``den`` and its label, or two empty texts.
    """

    name: str
    kind: Kind
    modifier: str = ""
    value: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.modifier}-{self.value}" if self.modifier else self.name

    @property
    def entities(self) -> dict[str, str]:
        """Entities of a file in this space."""
        return {"space": self.name} | ({self.modifier: self.value} if self.modifier else {})


def parse_space(text: str) -> OutputSpace:
    """Return the space that a text names.

    Without a modifier, templates have voxels of 2 mm, and fsaverage has a vertex every 4 mm (10k): no PET scanner
    resolves more, and files say so.

    Parameters
    ----------
    text
        ``NAME`` or ``NAME:MODIFIER-VALUE``. ``anat`` is ``T1w``, and ``res-02`` is ``res-2``.

    Raises
    ------
    SettingError
        There is no such space or modifier.

    Examples
    --------
    >>> str(parse_space("MNI152NLin2009cAsym:res-02"))
    'MNI152NLin2009cAsym:res-2'
    """
    name, *modifiers = text.split(":")
    name = {"anat": "T1w"}.get(name, name)
    if name not in _KINDS:
        raise SettingError(f"there is no output space {text!r}; known are {', '.join(_KINDS)}")
    kind, modifier, values = _KINDS[name]
    spellings = {f"{modifier}-{zeros}{value}": value for value in values for zeros in ("", "0")}
    if len(modifiers) > 1 or any(one not in spellings for one in modifiers):
        *others, last = [name, *(f"{name}:{modifier}-{value}" for value in values)]
        known = f"{', '.join(others)} or {last}" if others else last
        raise SettingError(f"there is no output space {text!r}; write {known}")
    return OutputSpace(name, kind, modifier, spellings[modifiers[0]] if modifiers else values[0] if values else "")


def template_spaces(texts: Iterable[str]) -> list[OutputSpace]:
    """Return the volumes among the named spaces, each once, in their order."""
    return [space for space in dict.fromkeys(map(parse_space, texts)) if space.kind == "volume"]


def surface_spaces(texts: Iterable[str]) -> list[OutputSpace]:
    """Return the surfaces among the named spaces, each once, in their order."""
    return [space for space in dict.fromkeys(map(parse_space, texts)) if space.kind == "surface"]
