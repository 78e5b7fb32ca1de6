"""One name for all spellings of a scanner manufacturer."""

from __future__ import annotations

import difflib
import re

from tau_pipeline.atlas import manufacturer_aliases
from tau_pipeline.errors import UnknownNameError, shown


def canonical_manufacturer(name: str | None) -> str:
    """Return the canonical name of a manufacturer, for any spelling of it (``atlases/manufacturers.tsv``).

    Case, spaces and punctuation do not count.

    Raises
    ------
    UnknownNameError
        No name was given, or none that is in the table; the message lists the known manufacturers.

    Examples
    --------
    >>> canonical_manufacturer("SIEMENS"), canonical_manufacturer("GE MEDICAL SYSTEMS"), canonical_manufacturer("CPS")
    ('Siemens', 'GE', 'Siemens')
    """
    aliases = manufacturer_aliases()
    key = re.sub(r"[^a-z0-9]", "", (name or "").lower())
    if key in aliases:
        return aliases[key]
    known = ", ".join(dict.fromkeys(aliases.values()))
    close = difflib.get_close_matches(key, aliases, n=1, cutoff=0.75)
    hint = f"did you mean {aliases[close[0]]!r}? Known are {known}" if close else f"known are {known}"
    found = f"the manufacturer {shown(name)} is not known" if key else "the manufacturer of the scanner is not stated"
    raise UnknownNameError(f"{found}; {hint}")


def common_name(manufacturer: str | None) -> str | None:
    """Return the canonical name of a manufacturer; an unknown name is returned unchanged, None as None."""
    try:
        return canonical_manufacturer(manufacturer)
    except UnknownNameError:
        return manufacturer
