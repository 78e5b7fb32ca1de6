"""Left and right of each region side by side: bilateral mean and asymmetry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from tau_pipeline.table_text import coded, numbered_rows

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the scan, of the region, and of its values.
BILATERAL_COLUMNS = (
    *("participant_id", "session_id", "scan", "tracer", "manufacturer", "source", "reference_region"),
    *("quality", "included", "region", "kind", "volume_mm3", "suvr_left", "suvr_right", "suvr_mean"),
    "asymmetry_index",
)
#: What both sides of a structure share in a scan.
_PAIR = ("scan", "source", "reference_region", "region", "kind")
_SIDES = re.compile(r"^(ctx-)(?:lh|rh)-|^(?:Left|Right)-")


def bilateral_table(long: pd.DataFrame) -> pd.DataFrame:
    """Return one row per scan, reference region, and structure with a left and a right side.

    Parameters
    ----------
    long
        As `tau_pipeline.cohort.tables.long_table` gives it.

    Returns
    -------
    DataFrame
        The columns `BILATERAL_COLUMNS`. ``region`` has no side (``ctx-entorhinal``, ``Hippocampus``, ``braak34``).
        ``volume_mm3`` is that of both sides. ``suvr_mean`` of a single structure is the mean of both sides, weighted by
        their measured volumes; that of a composite is its own value for both sides. ``asymmetry_index`` is
        ``(L - R) / ((L + R) / 2)``: positive where the left side has more. Values are missing if a side has none.
    """
    import pandas as pd

    keys = [name for name in BILATERAL_COLUMNS if name in long.columns and name not in ("volume_mm3", "suvr_mean")]
    if long.empty:
        return pd.DataFrame(columns=list(BILATERAL_COLUMNS))
    codes, regions = coded(long["region"])
    plain = [re.sub(_SIDES, r"\1", str(region)) for region in regions]
    named = long.assign(region=np.array(plain, dtype=object)[codes])
    # Rows are matched by numbers: comparing all the texts that tell them apart takes most of the time of a cohort.
    rows = named[[*keys, "volume_mm3", "suvr_mean"]].assign(pair=numbered_rows(named, _PAIR))
    rows[["volume_mm3", "suvr_mean"]] = rows[["volume_mm3", "suvr_mean"]].astype(float)
    sided = {side: rows[(named["hemisphere"] == side).to_numpy(bool)] for side in ("left", "right", "both")}
    values = ["pair", "volume_mm3", "suvr_mean"]
    found = sided["left"].merge(sided["right"][values], on="pair", suffixes=("_left", "_right"))
    of_both = sided["both"][["pair", "suvr_mean"]].rename(columns={"suvr_mean": "of_both"})
    found = found.merge(of_both, on="pair", how="left")
    left, right = found["suvr_mean_left"], found["suvr_mean_right"]
    volume = found["volume_mm3_left"] + found["volume_mm3_right"]
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = (left * found["volume_mm3_left"] + right * found["volume_mm3_right"]) / volume
        asymmetry = (left - right) / ((left + right) / 2)
    composite = (found["kind"] == "composite").to_numpy(bool)
    table = found.assign(
        volume_mm3=volume,
        suvr_left=left,
        suvr_right=right,
        suvr_mean=np.where(composite, found["of_both"], pooled),
        asymmetry_index=asymmetry,
    )
    return table[list(BILATERAL_COLUMNS)]
