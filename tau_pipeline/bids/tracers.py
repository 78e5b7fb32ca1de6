"""One name for all spellings of a tracer."""

from __future__ import annotations

import re

#: Spellings, in small letters and digits only, after a leading [18F] is taken off.
ALIASES: dict[str, str] = {
    "flortaucipir": "flortaucipir",
    "ftp": "flortaucipir",
    "av1451": "flortaucipir",
    "t807": "flortaucipir",
    "tauvid": "flortaucipir",
    "ly3191748": "flortaucipir",
    "mk6240": "MK-6240",
    "florquinitau": "MK-6240",
    "pi2620": "PI-2620",
    "ro948": "RO-948",
    "ro6958948": "RO-948",
    "gtp1": "GTP1",
    "genentechtauprobe1": "GTP1",
}


def tracer_name(text: str | None) -> str | None:
    """Return the common name of a tau tracer for any spelling; None for a tracer without a default window.

    >>> tracer_name("[18F]AV-1451"), tracer_name("18FMK6240"), tracer_name("FDG")
    ('flortaucipir', 'MK-6240', None)
    """
    plain = re.sub(r"[^a-z0-9]", "", (text or "").lower())
    return ALIASES.get(plain) or ALIASES.get(re.sub(r"^(18f|f18)|(18f|f18)$", "", plain))
