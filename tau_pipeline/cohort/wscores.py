"""W-scores: regional SUVR minus what age and sex predict in a reference group, divided by the SD of its residuals.

After Jack et al. 1997 (Neurology 49:786) and La Joie et al. 2012 (J Neurosci 32:16265). The regression is by region,
tracer, and reference region. Each participant of the group counts once, by the means of the included measured scans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import SettingError
from tau_pipeline.words import counted

if TYPE_CHECKING:
    import pandas as pd

#: Participants beyond the columns of the design; with fewer, the SD of the residuals is not known well.
LEAST_FREEDOM = 10
#: Variance inflation beyond which two covariates cannot be told apart.
_MOST_INFLATION = 10.0
_KIND = ["tracer", "reference_region"]
_PLACE = [*_KIND, "region", "hemisphere", "kind"]
_SEXES = {"f": "female", "female": "female", "w": "female", "woman": "female", "m": "male", "male": "male"}


@dataclass(frozen=True)
class _Regression:
    """SUVR of a region by the covariates: effects and SD of the residuals, None where there are too few participants.

    ``n`` participants, of the ``sexes`` in their order.
    """

    n: int
    effects: NDArray[np.float64] | None
    sd: float
    sexes: tuple[str, ...]


@dataclass(frozen=True)
class WScores:
    """Regressions of all regions in a reference group.

    Attributes
    ----------
    covariates
        ``age``, ``sex``, or both.
    sentences
        Size and range of the group, and why scans of one kind have no scores.
    """

    covariates: tuple[str, ...]
    sentences: tuple[str, ...]
    _of_place: Mapping[tuple[str, ...], _Regression]

    def apply(self, long: pd.DataFrame) -> pd.DataFrame:
        """Return a long table with ``suvr_wscore`` and ``wscore_n``, the participants behind it.

        A scan without a covariate, or of a sex that the group does not have, has no score.
        """
        scores, counts = np.full(len(long), np.nan), np.zeros(len(long), int)
        table = _numeric(long)
        for place, rows in table.groupby(_PLACE, dropna=False, sort=False, observed=True):
            found = self._of_place.get(_key(place))
            counts[rows.index] = 0 if found is None else found.n
            if found is not None and found.effects is not None:
                predicted = _design(rows, self.covariates, found.sexes) @ found.effects
                scores[rows.index] = (rows["suvr_mean"].to_numpy(float) - predicted) / found.sd
        return long.assign(suvr_wscore=scores, wscore_n=counts)


def fit_wscores(group: pd.DataFrame, kinds: pd.DataFrame, covariates: Sequence[str]) -> WScores:
    """Fit the regressions of a reference group.

    Parameters
    ----------
    group
        As `tau_pipeline.cohort.reference_group.joined_rows` gives it: the participants that are fitted on.
    kinds
        ``tracer`` and ``reference_region`` of all scans that are to have scores.
    covariates
        ``age``, ``sex``, or both.

    Raises
    ------
    SettingError
        No tracer and reference region has a group that is large enough and in which the covariates can be told apart.
    """
    table, found = _numeric(group), dict[tuple[str, ...], _Regression]()
    sentences, refused = [], []
    of_kind = {_key(kind): own for kind, own in table.groupby(_KIND, dropna=False, observed=True)}
    for kind, _ in kinds.groupby(_KIND, dropna=False, sort=True):
        what, own = ", ".join(map(str, kind)), of_kind.get(_key(kind), table.iloc[:0])
        try:
            sentences.append(f"W-scores ({what}): {_check(own, covariates)}")
        except SettingError as exc:
            refused.append(f"no W-scores ({what}): {exc}")
            continue
        for place, rows in own.groupby(_PLACE, dropna=False, sort=False, observed=True):
            found[_key(place)] = _regression(_people(rows, covariates), covariates)
    if refused and not sentences:
        raise SettingError(refused[0])
    return WScores(tuple(covariates), (*sentences, *refused), found)


def _key(place: tuple[Any, ...]) -> tuple[str, ...]:
    """Return values as a key; missing ones, which are not equal to themselves, as empty texts."""
    import pandas as pd

    return tuple("" if pd.isna(one) else str(one) for one in place)


def _numeric(long: pd.DataFrame) -> pd.DataFrame:
    """Return rows with SUVR as float64, one word for each sex, and rows numbered from 0."""
    import pandas as pd

    suvr = pd.to_numeric(long["suvr_mean"], errors="coerce").to_numpy(float, na_value=np.nan)
    codes, stated = pd.factorize(long["sex"])
    words = [str(one).strip().lower() for one in stated]
    sexes = np.array([*(_SEXES.get(word, word) for word in words), None], dtype=object)[codes]
    return long.assign(sex=sexes, suvr_mean=suvr).reset_index(drop=True)


def _people(group: pd.DataFrame, covariates: Sequence[str]) -> pd.DataFrame:
    """Return one row per participant with all covariates: mean age, sex, and mean SUVR."""
    known = group.dropna(subset=[*covariates, "suvr_mean"])
    return known.groupby("participant_id", observed=True).agg({"age": "mean", "sex": "first", "suvr_mean": "mean"})


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
            f"the reference group has {counted(len(people), 'participant')} with {' and '.join(covariates)}, and "
            f"{needed} are needed; widen --reference-group"
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
    who = counted(len(people), "participant")
    return f"{who} of the reference group{span}; beyond their ages, scores are extrapolations"


def _design(people: pd.DataFrame, covariates: Sequence[str], sexes: Sequence[str]) -> NDArray[np.float64]:
    """Return the design ``(n, 1 + columns)``: constant, age, and an indicator of each sex but the first."""
    columns = [np.ones(len(people))]
    if "age" in covariates:
        columns.append(people["age"].to_numpy(float, na_value=np.nan))
    for sex in sexes[1:]:
        unknown = people["sex"].isna() | ~people["sex"].isin(sexes)
        columns.append(np.where(unknown, np.nan, (people["sex"] == sex).fillna(False).to_numpy(float)))
    return np.column_stack(columns)


def _regression(people: pd.DataFrame, covariates: Sequence[str]) -> _Regression:
    """Fit one region, of which each participant has a row."""
    sexes = sorted(set(people["sex"])) if "sex" in covariates else []
    design = _design(people, covariates, sexes)
    values = people["suvr_mean"].to_numpy(float)
    freedom = len(values) - design.shape[1]
    none = _Regression(len(values), None, np.nan, tuple(sexes))
    if freedom < LEAST_FREEDOM or len(sexes) == 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        return none
    effects = np.linalg.lstsq(design, values, rcond=None)[0]
    sd = float(np.sqrt(np.sum((values - design @ effects) ** 2) / freedom))
    return _Regression(len(values), effects, sd, tuple(sexes)) if sd > 0 else none
