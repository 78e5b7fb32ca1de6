"""Regional SUVR harmonized between manufacturers by ComBat, with what is known of the participants kept.

ComBat (Johnson, Li & Rabinovic 2007, Biostatistics 8:118; for imaging Fortin et al. 2018, NeuroImage 167:104) takes out
an additive and a multiplicative effect of the manufacturer from each region, both shrunk towards what the regions have
in common. The computation is neuroCombat's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tau_pipeline.bids.manufacturers import canonical_manufacturer
from tau_pipeline.errors import SettingError, UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

KEPT = ("age", "sex", "diagnosis")


def combat(wide: pd.DataFrame, regions: Sequence[str]) -> pd.DataFrame:
    """Harmonise regional SUVR of scans of one tracer, reference region and source.

    Parameters
    ----------
    wide
        One row per scan: ``manufacturer``, ``age``, ``sex``, ``diagnosis``, and a column for each region.
    regions
        The columns to harmonize. One with a missing value, or the same value everywhere, is left as it is: ComBat
        needs every region of every scan, and nothing is filled in.

    Returns
    -------
    DataFrame
        A copy with harmonized columns. Scans of one participant are taken as independent, which ComBat assumes.

    Raises
    ------
    SettingError
        Fewer than two manufacturers, a manufacturer with a single scan, or a scan without age, sex or diagnosis where
        others have it.
    UnknownNameError
        A manufacturer is not known.
    """
    from neuroCombat import neuroCombat

    manufacturers = [_manufacturer(row.manufacturer, row.participant_id) for row in wide.itertuples()]
    counts = {name: manufacturers.count(name) for name in sorted(set(manufacturers))}
    counted = ", ".join(f"{name} {count}" for name, count in counts.items())
    if len(counts) < 2 or min(counts.values()) < 2:
        raise SettingError(f"ComBat requires at least two manufacturers with two or more scans each; found: {counted}")
    covariates = _covariates(wide)
    usable = [name for name in regions if wide[name].notna().all() and wide[name].nunique() > 1]
    # neuroCombat prints its progress to standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        found = neuroCombat(
            dat=wide[usable].to_numpy(float).T,
            covars=covariates.assign(batch=manufacturers),
            batch_col="batch",
            categorical_cols=[name for name in covariates.columns if name != "age"],
            continuous_cols=[name for name in covariates.columns if name == "age"],
        )["data"]
    harmonized = wide.copy()
    harmonized[usable] = np.asarray(found).T
    return harmonized


def _manufacturer(manufacturer: str | None, participant: str) -> str:
    try:
        return canonical_manufacturer(manufacturer if isinstance(manufacturer, str) else None)
    except UnknownNameError as exc:
        raise UnknownNameError(f"ComBat cannot place the scan of {participant}: {exc}") from exc


def _covariates(wide: pd.DataFrame) -> pd.DataFrame:
    """Return the covariates to preserve: the columns of `KEPT` that are known and differ between scans."""
    import pandas as pd

    kept = {}
    for name in KEPT:
        values = wide[name]
        if values.isna().all() or values.nunique() < 2:
            continue
        if values.isna().any():
            absent = ", ".join(sorted(set(wide.loc[values.isna(), "participant_id"])))
            raise SettingError(f"ComBat keeps {name}, which is missing for {absent}; complete participants.tsv")
        kept[name] = values.to_numpy(float) if name == "age" else values.astype(str).to_numpy()
    return pd.DataFrame(kept, index=range(len(wide)))
