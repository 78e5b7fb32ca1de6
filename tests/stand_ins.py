"""Replace what takes time in a program that a test starts; light to import."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure


def blank(*_: Any, **__: Any) -> Figure:
    """A figure of one inch without content: drawing takes half of the time of a small head."""
    return Figure(figsize=(1, 1), dpi=20)


def replace(module: Any, **values: Any) -> None:
    """Set names of a module, each of which must exist: a step whose name has changed would be slow again unseen."""
    for name, value in values.items():
        if not hasattr(module, name):
            raise AttributeError(f"{module.__name__} has no {name}; give its stand-in the new name")
        setattr(module, name, value)
