"""Units of activity: what a ratio can be taken of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from tau_pipeline.bids.sidecars import text_value
from tau_pipeline.errors import MetadataError

#: A ratio is the same in each of these; in small letters, without spaces, "unitless" for a ratio already taken. Those
#: without a slash are DICOM's terms (C.8.9.1: BQML, GML, CM2ML).
_UNITS = re.compile(
    r"((10\^?[36]|1e[36]|1000)[*x]?)?"
    r"(([kmg]|kilo|mega|giga)?(bq|becquerels?)|[munp]?ci|(milli|micro|nano)?curies?|(%|percent)id)(/|per|\*?)"
    r"(ml|ccm?|cm3|cm\^3|mm3|mm\^3|dm3|dm\^3|ul|l|milliliters?|millilitres?|k?g)(\^?-1)?"
    r"|(suv-?(r|bw|bsa|lbm|sul)?|sul)(g/?ml)?|standardi[sz]eduptakevalue(ratio)?"
    r"|(kg|g|cm2|cm\^2|m\^2|m2)/?(ml|ccm?|cm3|cm\^3)(\^?-1)?|unitless|arbitrary(units?)?|au|1"
)


def units_note(metadata: Mapping[str, Any]) -> list[str]:
    """Return sentences on the unit of activity; SUVR is a ratio, so a constant factor does not matter.

    Raises
    ------
    MetadataError
        The unit is none of activity.
    """
    units = text_value(metadata, "Units")
    if units is None:
        return ["The sidecar has no Units; the PET image was taken as proportional to activity concentration."]
    plain = unicodedata.normalize("NFKC", units).lower().replace("μ", "u").replace("\N{MINUS SIGN}", "-")
    plain = re.sub(r"[\s\x00·⋅_{}]|\.(?!\d)", "", plain).replace("\\", "/")
    if plain in ("none", "unknown", "unknownunits"):
        return [
            f"The sidecar's Units are {units!r}; the PET image was taken as proportional to activity concentration."
        ]
    # Brackets hold the unit itself, another word for it, or a remark, as what follows a comma is: "(Bq/mL)",
    # "SUVbw (g/mL)", "Bq/mL (corrected)", "Bq/mL, corrected".
    readings = (re.sub(r"[()\[\]]", "", plain), re.sub(r"[(\[].*[)\]]$|[,;@].*$", "", plain))
    if any(_UNITS.fullmatch(one) for one in readings):
        return []
    if re.search(r"count|cps|propcp|cnt", plain):
        return [f"The PET image is in {units!r}; it was taken as proportional to activity concentration."]
    raise MetadataError(
        f"the sidecar's Units are {units!r}, which is not an activity concentration or SUV; Bq/mL, kBq/mL or g/mL "
        "is needed"
    )
