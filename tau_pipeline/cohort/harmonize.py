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
from numpy.typing import NDArray

from tau_pipeline.bids.manufacturers import canonical_manufacturer
from tau_pipeline.errors import SettingError, UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

KEPT = ("age", "sex", "diagnosis")
#: Scans beyond the columns of the design, without which means and variances of manufacturers are those of a few scans.
_LEAST_FREEDOM = 10
#: A harmonized value may lie outside the range of a region by this part of the range: shifts of manufacturers.
_BEYOND_RANGE = 0.5


def combat(wide: pd.DataFrame, regions: Sequence[str]) -> pd.DataFrame:
    """Harmonize regional SUVR of scans of one tracer, reference region and source.

    Parameters
    ----------
    wide
        One row per scan: ``manufacturer``, ``age``, ``sex``, ``diagnosis``, and a column for each region.
    regions
        The columns to harmonize. One that some scans lack is harmonized among the others, if these suffice; else it has
        no values, since values that are not harmonized must not stand beside those that are. One with the same
        value everywhere is left as it is.

    Returns
    -------
    DataFrame
        A copy with harmonized columns. Scans of one participant are taken as independent, which ComBat assumes.

    Raises
    ------
    SettingError
        Fewer than two manufacturers, a manufacturer with a single scan, too few scans for the number of manufacturers
        and covariates, a covariate that cannot be told from the manufacturer, a scan without age, sex or diagnosis
        where others have it, or a result that no SUVR can be.
    UnknownNameError
        A manufacturer is not known.
    """
    manufacturers = [_manufacturer(row.manufacturer, row.participant_id) for row in wide.itertuples()]
    covariates = _covariates(wide)
    _check_design(manufacturers, covariates)
    values = wide[list(regions)].astype(float)
    varies = [name for name in regions if values[name].nunique() > 1]
    harmonized = wide.copy()
    for known, names in _by_scans(values[varies]):
        try:
            found = _harmonized(values[known], manufacturers, covariates, known)
        except SettingError:
            if known.all():
                raise
            found = values[known] * np.nan
        harmonized[names] = found[names].reindex(wide.index)
    return harmonized


def _by_scans(values: pd.DataFrame) -> list[tuple[NDArray[np.bool_], list[str]]]:
    """Return the regions by the scans that have them, first those that all scans have."""
    groups: dict[bytes, list[str]] = {}
    for name in values.columns:
        groups.setdefault(values[name].notna().to_numpy().tobytes(), []).append(name)
    found = [(np.frombuffer(key, bool), names) for key, names in groups.items()]
    return sorted(found, key=lambda one: -int(one[0].sum()))


def _harmonized(
    values: pd.DataFrame, manufacturers: Sequence[str], covariates: pd.DataFrame, known: NDArray[np.bool_]
) -> pd.DataFrame:
    """Harmonize the regions that all these scans have, and refuse a result that no SUVR can be."""
    import pandas as pd
    from neuroCombat import neuroCombat

    batch = [name for name, there in zip(manufacturers, known, strict=True) if there]
    covars = covariates[known].reset_index(drop=True)
    covars = covars[[name for name in covars.columns if covars[name].nunique() > 1]]
    if not known.all():
        _check_design(batch, covars)
    usable = [name for name in values.columns if values[name].notna().all() and values[name].nunique() > 1]
    try:
        # neuroCombat prints its progress to standard output.
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            result = neuroCombat(
                dat=values[usable].to_numpy(float).T,
                covars=covars.assign(batch=batch),
                batch_col="batch",
                categorical_cols=[name for name in covars.columns if name != "age"],
                continuous_cols=[name for name in covars.columns if name == "age"],
            )["data"]
    except np.linalg.LinAlgError as exc:
        raise SettingError(
            f"ComBat cannot tell the manufacturers from {_listed(covars)}: its equations have no single solution; "
            "harmonize a cohort in which they are mixed"
        ) from exc
    found = pd.DataFrame(np.asarray(result).T, values.index, usable)
    _check_range(values[usable], found)
    return found


def _listed(covariates: pd.DataFrame) -> str:
    return ", ".join(covariates.columns) or "chance"


def _check_design(manufacturers: Sequence[str], covariates: pd.DataFrame) -> None:
    """Refuse scans from which the effects of the manufacturers cannot be estimated.

    Raises
    ------
    SettingError
        With the numbers of scans, or the covariates that go along with the manufacturer.
    """
    import pandas as pd

    counts = {name: manufacturers.count(name) for name in sorted(set(manufacturers))}
    counted = ", ".join(f"{name} {count}" for name, count in counts.items())
    if len(counts) < 2 or min(counts.values()) < 2:
        raise SettingError(f"ComBat requires at least two manufacturers with two or more scans each; found: {counted}")
    blocks = {"manufacturer": pd.get_dummies(pd.Series(manufacturers)).to_numpy(float)}
    for name in covariates.columns:
        column = pd.Series(covariates[name].to_numpy())
        one_value = column.to_numpy(float)[:, None] if name == "age" else pd.get_dummies(column).to_numpy(float)[:, 1:]
        blocks[name] = one_value - one_value.mean(axis=0)
    needed = sum(block.shape[1] for block in blocks.values()) + _LEAST_FREEDOM
    if len(manufacturers) < needed:
        raise SettingError(
            f"ComBat needs {needed} scans for {len(counts)} manufacturers and the covariates "
            f"{_listed(covariates)}, and there are {len(manufacturers)} ({counted}); SUVR standardized by "
            "manufacturer needs fewer"
        )
    design = blocks["manufacturer"]
    for name, block in list(blocks.items())[1:]:
        wider = np.hstack([design, block])
        if np.linalg.matrix_rank(wider) < wider.shape[1]:
            raise SettingError(
                f"ComBat cannot tell the manufacturers from {name}, since {name} and manufacturer go together in these "
                f"{len(manufacturers)} scans ({counted}); harmonize a cohort in which they are mixed"
            )
        design = wider


def _check_range(before: pd.DataFrame, after: pd.DataFrame) -> None:
    """Refuse harmonized values that are not finite, not above 0, or far outside those of their region.

    Raises
    ------
    SettingError
        With the region and the values.
    """
    low, high = before.min(), before.max()
    slack = _BEYOND_RANGE * (high - low)
    wrong = ~np.isfinite(after) | (after <= 0) & (low > 0) | (after < low - slack) | (after > high + slack)
    if wrong.to_numpy().any():
        name = wrong.any().idxmax()
        raise SettingError(
            f"ComBat gives SUVR of {after[name].min():.2f} to {after[name].max():.2f} in {name}, where the scans have "
            f"{low[name]:.2f} to {high[name]:.2f}; such values are wrong, and nothing was written: harmonize more "
            "scans, or without --harmonize"
        )


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
