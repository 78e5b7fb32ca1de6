"""Design matrix of a voxelwise comparison: names joined by +, and one contrast.

The first column is the tested one, so that its coefficient is the answer: the difference between two groups, or the
change per unit of a number. Then follow the other covariates (numbers with their mean subtracted, groups as indicators
against their first one) and the intercept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.diagnoses import is_control
from tau_pipeline.errors import SettingError
from tau_pipeline.words import counted

if TYPE_CHECKING:
    import pandas as pd

INTERCEPT = "intercept"
#: Scans beyond the number of columns that a test needs.
_FEWEST_BEYOND = 2
_NAME = re.compile(r"[\w.-]+")


def parse_terms(formula: str) -> list[str]:
    """Return the names that a formula joins by ``+``, each once.

    Raises
    ------
    SettingError
        It has something other than names and ``+``.

    Examples
    --------
    >>> parse_terms("diagnosis + age + sex")
    ['diagnosis', 'age', 'sex']
    """
    terms = [part.strip() for part in formula.split("+")]
    wrong = [term for term in terms if not _NAME.fullmatch(term)]
    if wrong:
        raise SettingError(
            f"voxelwise is {formula!r}; expected: names of covariates joined by +, such as 'diagnosis + age + sex'; "
            f"{wrong[0]!r} is not a name"
        )
    if len(set(terms)) < len(terms):
        raise SettingError(f"voxelwise is {formula!r}; expected: each covariate once")
    return terms


def design_matrix(covariates: pd.DataFrame, contrast: str | None = None) -> pd.DataFrame:
    """Return the design matrix, one row per scan; the first column is the tested one.

    Parameters
    ----------
    covariates
        One column per term of the formula, without missing values. A column of numbers is a numeric covariate; any
        other one is categorical.
    contrast
        ``A - B`` for two groups of a categorical covariate, or the name of a numeric one. None tests the first
        covariate, if that has an order or two groups (the first in the alphabet is subtracted, but controls, called
        CN, HC, or control, are subtracted always).

    Raises
    ------
    SettingError
        The contrast names no such groups, covariates cannot be told apart, or there are too few scans.
    """
    import pandas as pd

    tested, name, minus = _tested(covariates, contrast)
    columns: dict[str, NDArray[np.float64]] = {tested: _tested_column(covariates, name, tested, minus)}
    for other in covariates.columns:
        if other == name and minus is None:
            continue
        if is_numeric(covariates[other]):
            values = covariates[other].to_numpy(float)
            columns[other] = values - values.mean()
            continue
        groups = covariates[other].astype(str)
        levels = groups_of(groups)
        if len(levels) == 1:
            raise SettingError(f"{other} is {levels[0]} for all scans; leave it out")
        left_out = _pair(tested) if other == name else levels[:1]
        columns |= {f"{other}[{one}]": (groups == one).to_numpy(float) for one in levels if one not in left_out}
    columns[INTERCEPT] = np.ones(len(covariates))
    matrix = pd.DataFrame(columns, index=covariates.index)
    _require_answer(matrix)
    return matrix


def is_numeric(values: pd.Series) -> bool:
    """Return whether every value of a covariate is a number."""
    import pandas as pd

    return bool(pd.to_numeric(values, errors="coerce").notna().all())


def groups_of(values: pd.Series) -> list[str]:
    """Return the groups of a categorical covariate, controls first, then by the alphabet."""
    return sorted(set(values.astype(str)), key=lambda level: (not is_control(level), level))


def _pair(tested: str) -> list[str]:
    return [part.strip() for part in tested.split(" - ")]


def _tested(covariates: pd.DataFrame, contrast: str | None) -> tuple[str, str, str | None]:
    """Return the name of the tested column, its covariate, and the group that is subtracted (None for a number)."""
    categorical = [name for name in covariates.columns if not is_numeric(covariates[name])]
    if contrast is None:
        first = str(covariates.columns[0])
        if first not in categorical:
            return first, first, None
        groups = groups_of(covariates[first])
        if len(groups) != 2:
            raise SettingError(
                f"{first} has {counted(len(groups), 'group')} ({', '.join(groups)}); choose two with --contrast 'A - B'"
            )
        return f"{groups[1]} - {groups[0]}", first, groups[0]
    name = contrast.strip()
    if name in covariates.columns and name not in categorical:
        return name, name, None
    parts = _pair(re.sub(r"\s+-\s+", " - ", name))
    for covariate in categorical:
        if len(parts) == 2 and parts[0] != parts[1] and set(parts) <= set(groups_of(covariates[covariate])):
            return f"{parts[0]} - {parts[1]}", str(covariate), parts[1]
    choices = "; ".join(f"{one}: {', '.join(groups_of(covariates[one]))}" for one in categorical) or "none"
    numbers = ", ".join(str(one) for one in covariates.columns if one not in categorical) or "none"
    raise SettingError(
        f"contrast is {contrast!r}; expected: 'A - B' for two groups of one covariate ({choices}), or a numeric "
        f"covariate ({numbers})"
    )


def _tested_column(covariates: pd.DataFrame, name: str, tested: str, minus: str | None) -> NDArray[np.float64]:
    """Return a number without its mean, or one half in one group and minus one half in the other."""
    if minus is None:
        values = covariates[name].to_numpy(float)
        return values - values.mean()
    plus, _ = _pair(tested)
    groups = covariates[name].astype(str)
    return 0.5 * ((groups == plus).to_numpy(float) - (groups == minus).to_numpy(float))


def _require_answer(matrix: pd.DataFrame) -> None:
    """Refuse a matrix from which the tested coefficient cannot be estimated."""
    n_scans, n_columns = matrix.shape
    names = ", ".join(matrix.columns)
    if n_scans < n_columns + _FEWEST_BEYOND:
        raise SettingError(
            f"{n_scans} scans are too few for {n_columns} columns of the design ({names}); expected: at least "
            f"{n_columns + _FEWEST_BEYOND}. Use fewer covariates"
        )
    values = matrix.to_numpy(float)
    spread = np.linalg.norm(values, axis=0)
    if not spread.all():
        raise SettingError(f"{matrix.columns[int(np.argmin(spread))]} is the same for all scans; leave it out")
    if np.linalg.matrix_rank(values / spread) < n_columns:
        raise SettingError(f"the columns of the design ({names}) determine each other; leave one covariate out")


def with_all_covariates(table: pd.DataFrame, terms: Sequence[str]) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Return the rows that have every covariate, and the scans that lack each one.

    Parameters
    ----------
    table
        A column ``scan``, and the covariates.
    terms
        Names of covariates.

    Raises
    ------
    SettingError
        There is no such covariate.
    """
    for term in terms:
        if term not in table.columns:
            known = [name for name in table.columns if name not in ("scan", "participant_id", "session_id")]
            raise SettingError(f"voxelwise names {term!r}; known covariates are {', '.join(map(str, known))}")
    lacking = {term: [str(scan) for scan in table.loc[table[term].isna(), "scan"]] for term in terms}
    return table.dropna(subset=list(terms)), {term: scans for term, scans in lacking.items() if scans}
