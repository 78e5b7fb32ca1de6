"""Left and right of each region side by side: bilateral mean and asymmetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the scan, of the region, and of its values.
BILATERAL_COLUMNS = (
    *("participant_id", "session_id", "scan", "tracer", "manufacturer", "source", "reference_region"),
    *("quality", "included", "region", "kind", "volume_mm3", "suvr_left", "suvr_right", "suvr_mean"),
    "asymmetry_index",
)
_SIDES = r"^(ctx-)(?:lh|rh)-|^(?:Left|Right)-"


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
    named = long.assign(region=long["region"].str.replace(_SIDES, r"\1", regex=True))
    sided = {
        side: named[named["hemisphere"] == side].set_index([*keys])[["volume_mm3", "suvr_mean"]].astype(float)
        for side in ("left", "right", "both")
    }
    found = sided["left"].add_suffix("_left").join(sided["right"].add_suffix("_right"), how="inner")
    found = found.join(sided["both"].rename(columns={"suvr_mean": "of_both"})["of_both"])
    left, right = found["suvr_mean_left"], found["suvr_mean_right"]
    volume = found["volume_mm3_left"] + found["volume_mm3_right"]
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = (left * found["volume_mm3_left"] + right * found["volume_mm3_right"]) / volume
        asymmetry = (left - right) / ((left + right) / 2)
    composite = found.index.get_level_values("kind") == "composite"
    table = found.assign(
        volume_mm3=volume,
        suvr_left=left,
        suvr_right=right,
        suvr_mean=np.where(composite, found["of_both"], pooled),
        asymmetry_index=asymmetry,
    )
    return table.reset_index()[list(BILATERAL_COLUMNS)]
