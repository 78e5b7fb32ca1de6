"""W-scores: regional SUVR minus what age and sex predict in a reference group, divided by the SD of its residuals.

After Jack et al. 1997 (Neurology 49:786) and La Joie et al. 2012 (J Neurosci 32:16265). The regression is by region,
tracer, and reference region. Each participant of the group counts once, by the means of the included measured scans.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import SettingError

if TYPE_CHECKING:
    import pandas as pd

#: Participants beyond the columns of the design; with fewer, the SD of the residuals is not known well.
LEAST_FREEDOM = 10
#: Variance inflation beyond which two covariates cannot be told apart.
_MOST_INFLATION = 10.0
_SEXES = {"f": "female", "female": "female", "w": "female", "woman": "female", "m": "male", "male": "male"}


def with_wscores(
    long: pd.DataFrame, participants: Collection[str], covariates: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Return a long table with ``suvr_wscore`` and ``wscore_n``, the participants behind it, and sentences.

    Parameters
    ----------
    long
        As `tau_pipeline.cohort.tables.long_table` gives it.
    participants
        Of the reference group, or those of them that the regression may be fitted on.
    covariates
        ``age``, ``sex``, or both.

    Returns
    -------
    long
        A scan without a covariate, or of a sex that the group does not have, has no score.
    sentences
        Size and range of the group, and why scans of one kind have no scores.

    Raises
    ------
    SettingError
        No tracer and reference region has a group that is large enough and in which the covariates can be told apart.
    """
    import pandas as pd

    scores, counts = np.full(len(long), np.nan), np.zeros(len(long), int)
    sentences, refused = [], []
    sexes = long["sex"].astype("string").str.strip().str.lower().map(lambda text: _SEXES.get(text, text)).to_numpy()
    table = long.assign(
        sex=sexes, suvr_mean=pd.to_numeric(long["suvr_mean"], errors="coerce").to_numpy(float, na_value=np.nan)
    ).reset_index(drop=True)
    counted = (
        (table["source"] == "measured") & (table["included"] == "yes") & table["participant_id"].isin(participants)
    )
    for kind, own in table.groupby(["tracer", "reference_region"], dropna=False, sort=True):
        what = ", ".join(map(str, kind))
        group = own[counted[own.index].fillna(False).to_numpy(bool)]
        try:
            sentences.append(f"W-scores ({what}): {_check(group, covariates)}")
        except SettingError as exc:
            refused.append(f"no W-scores ({what}): {exc}")
            continue
        for _, rows in own.groupby(["region", "hemisphere", "kind"], dropna=False, sort=False):
            scores[rows.index], counts[rows.index] = _scores(rows, group, covariates)
    if refused and not sentences:
        raise SettingError(refused[0])
    return long.assign(suvr_wscore=scores, wscore_n=counts), [*sentences, *refused]


def _people(group: pd.DataFrame, covariates: Sequence[str]) -> pd.DataFrame:
    """Return one row per participant with all covariates: mean age, sex, and mean SUVR."""
    known = group.dropna(subset=[*covariates, "suvr_mean"])
    return known.groupby("participant_id").agg({"age": "mean", "sex": "first", "suvr_mean": "mean"})


def _check(group: pd.DataFrame, covariates: Sequence[str]) -> str:
    """Describe the group of one tracer and reference region.

    Raises
    ------
    SettingError
        It is too small, or its covariates cannot be told apart.
    """
    people = group.dropna(subset=list(covariates)).drop_duplicates("participant_id")
    sexes = sorted(set(people["sex"])) if "sex" in covariates else []
    columns = 1 + ("age" in covariates) + max(len(sexes) - 1, 0)
    needed = columns + LEAST_FREEDOM
    if len(people) < needed:
        raise SettingError(
            f"the reference group has {len(people)} participants with {' and '.join(covariates)}, and {needed} are "
            "needed; widen --reference-group"
        )
    if "sex" in covariates and len(sexes) < 2:
        raise SettingError(
            f"all {len(people)} participants of the reference group have the sex {sexes[0]}, so its effect is not "
            "known; use --w-scores age"
        )
    design = _design(people, covariates, sexes)
    spread = design[:, 1:] - design[:, 1:].mean(axis=0)
    if np.linalg.matrix_rank(spread) < spread.shape[1]:
        raise SettingError("age or sex of the reference group does not vary, or one follows from the other")
    inflation = float(np.diag(np.linalg.inv(np.corrcoef(spread.T).reshape(spread.shape[1], -1))).max())
    if inflation > _MOST_INFLATION:
        raise SettingError(
            f"age and sex go together in the reference group (variance inflation {inflation:.0f}), so their effects "
            "cannot be told apart; use --w-scores age or --w-scores sex"
        )
    span = f", {people['age'].min():.0f} to {people['age'].max():.0f} years" if "age" in covariates else ""
    return f"{len(people)} participants of the reference group{span}; beyond their ages, scores are extrapolations"


def _design(people: pd.DataFrame, covariates: Sequence[str], sexes: Sequence[str]) -> NDArray[np.float64]:
    """Return the design ``(n, 1 + columns)``: constant, age, and an indicator of each sex but the first."""
    columns = [np.ones(len(people))]
    if "age" in covariates:
        columns.append(people["age"].to_numpy(float, na_value=np.nan))
    for sex in sexes[1:]:
        unknown = people["sex"].isna() | ~people["sex"].isin(sexes)
        columns.append(np.where(unknown, np.nan, (people["sex"] == sex).fillna(False).to_numpy(float)))
    return np.column_stack(columns)


def _scores(rows: pd.DataFrame, group: pd.DataFrame, covariates: Sequence[str]) -> tuple[NDArray[np.float64], int]:
    """Return the scores of the rows of one region, and how many participants they are by; NaN if these are too few."""
    people = _people(group.loc[group.index.intersection(rows.index)], covariates)
    sexes = sorted(set(people["sex"])) if "sex" in covariates else []
    design = _design(people, covariates, sexes)
    values = people["suvr_mean"].to_numpy(float)
    freedom = len(values) - design.shape[1]
    if freedom < LEAST_FREEDOM or len(sexes) == 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        return np.full(len(rows), np.nan), len(values)
    effects = np.linalg.lstsq(design, values, rcond=None)[0]
    sd = float(np.sqrt(np.sum((values - design @ effects) ** 2) / freedom))
    if sd <= 0:
        return np.full(len(rows), np.nan), len(values)
    predicted = _design(rows, covariates, sexes) @ effects
    return (rows["suvr_mean"].to_numpy(float) - predicted) / sd, len(values)
