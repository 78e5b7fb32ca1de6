"""One name for all spellings of a tracer."""

from __future__ import annotations

import re
from functools import lru_cache

#: Spellings, in small letters and digits only.
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
    "florzolotau": "florzolotau",
    "pmpbb3": "florzolotau",
    "apn1607": "florzolotau",
    "mni958": "florzolotau",
}

#: Tracers of other targets, so that one of them in a tau dataset is recognized as a contradiction and not as a filler.
_OTHER_TARGETS: dict[str, str] = {
    "fdg": "FDG",
    "fluorodeoxyglucose": "FDG",
    "fludeoxyglucose": "FDG",
    "pib": "PiB",
    "pittsburghcompoundb": "PiB",
    "florbetapir": "florbetapir",
    "av45": "florbetapir",
    "amyvid": "florbetapir",
    "florbetaben": "florbetaben",
    "neuraceq": "florbetaben",
    "flutemetamol": "flutemetamol",
    "vizamyl": "flutemetamol",
    "nav4694": "NAV4694",
    "flutafuranol": "NAV4694",
    "azd4694": "NAV4694",
    "fdopa": "FDOPA",
    "raclopride": "raclopride",
    "pk11195": "PK11195",
    "dpa714": "DPA-714",
    "ucbj": "UCB-J",
    "synvest1": "SynVesT-1",
}

#: Tau tracers that the program has no window for.
WITHOUT_WINDOW: dict[str, str] = {
    "pbb3": "PBB3",
    "thk523": "THK-523",
    "thk5117": "THK-5117",
    "thk5317": "THK-5317",
    "thk5351": "THK-5351",
    "jnj067": "JNJ-067",
    "jnj64326067": "JNJ-067",
    "snft1": "SNFT-1",
}

#: What stands before and behind a tracer's name without a mark between them: the isotope, of which people forget the
#: number (FAV1451), and what is imaged.
_AROUND = re.compile(
    r"^(tau)?(pet)?(18f|f18|11c|c11|fluorine18|carbon11|f(?=av|mk))?|(18f|f18|11c|c11)?(tau)?(pet)?(scan)?$"
)


@lru_cache(maxsize=1000)
def tracer_name(text: str | None) -> str | None:
    """Return the common name of a tau tracer for any spelling or text around it; None for any other tracer.

    A text that names two tracers names none.

    Examples
    --------
    >>> tracer_name("[18F]AV-1451"), tracer_name("18FMK6240"), tracer_name("18F-MK-6240 batch 7"), tracer_name("FDG")
    ('flortaucipir', 'MK-6240', 'MK-6240', None)
    """
    name = _named(text, ALIASES)
    return None if name is not None and _named(text, _OTHER_TARGETS) is not None else name


def other_tracer(text: str | None) -> str | None:
    """Return the common name of a known tracer of another target, or of tau without a window; None for other texts.

    Examples
    --------
    >>> other_tracer("Fluorodeoxyglucose"), other_tracer("11C-PiB"), other_tracer("THK5351"), other_tracer("Solution")
    ('FDG', 'PiB', 'THK-5351', None)
    """
    return _named(text, _OTHER_TARGETS | WITHOUT_WINDOW)


def _named(text: str | None, names: dict[str, str]) -> str | None:
    lower = (text or "").lower()
    plain = re.sub(r"[^a-z0-9]", "", lower)
    whole = names.get(plain) or names.get(_AROUND.sub("", plain))
    if whole:
        return whole
    found = {name for alias, name in names.items() if _pattern(alias).search(lower)}
    return found.pop() if len(found) == 1 else None


def _pattern(alias: str) -> re.Pattern[str]:
    """Match an alias as a whole word: ``mk6240`` also as ``MK-6240`` and ``mk 6240``, with or without the isotope.

    Letters and digits of an alias may be apart, letters among themselves and digits among themselves may not, but for
    PM-PBB3.
    """
    parts = re.findall(r"pm|[a-z]+|[0-9]+", alias)
    return re.compile(r"(?<![a-z0-9])(?:\[?(?:18f|f18|11c|c11)\]?)?" + r"[^a-z0-9]{0,2}".join(parts) + r"(?![a-z0-9])")
