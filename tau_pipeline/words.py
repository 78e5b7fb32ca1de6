"""Numbers of things in sentences."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number and a noun that agrees with it; the plural is given where it has another ending than ``s``.

    Examples
    --------
    >>> counted(1, "PET scan"), counted(0, "PET scan"), counted(2, "analysis", "analyses")
    ('1 PET scan', '0 PET scans', '2 analyses')
    """
    return f"{number} {form(number, noun, plural or f'{noun}s')}"


def form(number: int, one: str, many: str) -> str:
    """Return the form of a word that agrees with a number.

    Examples
    --------
    >>> form(1, "has", "have"), form(3, "has", "have")
    ('has', 'have')
    """
    return one if number == 1 else many
