"""Tau positivity by thresholds of regional SUVR, and Braak stages from them.

Thresholds are given, or found in the cohort: mean plus 2 SD of a reference group such as amyloid-negative unimpaired
participants (which worked best of eight ways in Weigand 2022, Alzheimer's & Dementia 18:1447), or where the two
components of a Gaussian mixture are equally likely. They hold for one tracer and one reference region. Each
participant counts once in a fit, by the mean of the included measured scans.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tau_pipeline.cohort.reference_group import FEWEST
from tau_pipeline.cohort.tables import WIDE_KEYS
from tau_pipeline.errors import SettingError
from tau_pipeline.words import counted

if TYPE_CHECKING:
    import pandas as pd

#: Fewer participants do not show two groups.
FEWEST_OF_MIXTURE = 20
#: Composites of the Braak stages that `braak` stands for, and the names of the stages.
STAGES = {"braak1": "I", "braak34": "III-IV", "braak56": "V-VI"}
Method = Literal["value", "2sd", "gmm"]


@dataclass(frozen=True)
class Request:
    """Threshold that was asked for: a column of the wide table, the method, and the value if it was given."""

    region: str
    method: Method
    value: float = math.nan


@dataclass(frozen=True)
class Mixture:
    """Two normal components of SUVR, the lower one first; ``threshold`` is where they are equally likely."""

    means: tuple[float, float]
    sds: tuple[float, float]
    weights: tuple[float, float]
    threshold: float

    def probability(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of the upper component, of the same shape; NaN stays NaN.

        Below the mean of the lower component it is that of the mean, since a wider upper component would be likely
        again there; above the mean of the upper component likewise.
        """
        held = np.clip(np.asarray(values, np.float64), *self.means)
        lower, upper = (
            weight * stats.norm.pdf(held, mean, sd)
            for weight, mean, sd in zip(self.weights, self.means, self.sds, strict=True)
        )
        return np.asarray(upper / (lower + upper), np.float64)


def parse_thresholds(texts: Sequence[str], columns: Collection[str]) -> list[Request]:
    """Return the thresholds that texts such as ``metatemporal=1.32`` or ``braak=2sd`` ask for.

    Parameters
    ----------
    texts
        As in the setting ``threshold``. Case and punctuation of a region do not matter; ``braak`` is all of `STAGES`.
    columns
        Regions: columns of the wide table.

    Raises
    ------
    SettingError
        A region is not there or is named twice.
    """
    known = {_plain(name): name for name in columns}
    found: dict[str, Request] = {}
    for text in texts:
        name, _, how = text.lower().rpartition("=")
        regions = list(STAGES) if _plain(name) == "braak" else [known.get(_plain(name), "")]
        if "" in regions:
            raise SettingError(
                f"threshold names the region {name!r}, which the tables do not have; use a column of "
                "group/suvr_rois_wide.csv, such as metatemporal, braak1, or ctx_lh_entorhinal, or braak for all stages"
            )
        for region in regions:
            if region in found:
                raise SettingError(f"threshold has {region} more than once; give one threshold for each region")
            method: Method = "2sd" if how == "2sd" else "gmm" if how == "gmm" else "value"
            found[region] = Request(region, method, float(how) if method == "value" else math.nan)
    return list(found.values())


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def fit_mixture(values: ArrayLike) -> Mixture:
    """Fit two normal components to SUVR by scikit-learn.

    Parameters
    ----------
    values
        ``(n,)``, finite, one of each participant.

    Raises
    ------
    SettingError
        There are fewer than `FEWEST_OF_MIXTURE`, two components fit no better than one by the Bayesian information
        criterion, or they are nowhere equally likely between their means.
    """
    from scipy.optimize import brentq
    from sklearn.mixture import GaussianMixture

    found = np.asarray(values, np.float64)[:, None]
    if len(found) < FEWEST_OF_MIXTURE:
        raise SettingError(f"a mixture needs {FEWEST_OF_MIXTURE} participants, and there are {len(found)}")
    one, two = (GaussianMixture(k, n_init=10, tol=1e-6, max_iter=1000, random_state=0).fit(found) for k in (1, 2))
    if two.bic(found) >= one.bic(found):
        raise SettingError(f"the {len(found)} participants show no two groups: one normal distribution fits as well")
    order = np.argsort(two.means_[:, 0])
    means, weights = two.means_[order, 0], two.weights_[order]
    sds = np.sqrt(two.covariances_[order, 0, 0])

    def lead(value: float) -> float:
        """Return by how much the upper component is likelier, as a logarithm."""
        logs = np.log(weights) + stats.norm.logpdf(value, means, sds)
        return float(logs[1] - logs[0])

    if lead(means[0]) >= 0 or lead(means[1]) <= 0:
        raise SettingError("one component of the mixture is the likelier one everywhere between their means")
    threshold = float(brentq(lead, means[0], means[1]))
    both = [(float(pair[0]), float(pair[1])) for pair in (means, sds, weights)]
    return Mixture(both[0], both[1], both[2], threshold)


def with_positivity(
    wide: pd.DataFrame,
    requests: Sequence[Request],
    reference: Collection[str],
    fit_on: Collection[str],
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Return a wide table with answers, the thresholds behind them, and sentences on those that could not be found.

    Parameters
    ----------
    wide
        As `tau_pipeline.cohort.tables.wide_table` gives it.
    requests
        Thresholds that were asked for.
    reference
        Participants of the reference group.
    fit_on
        Participants that fits are restricted to, such as a training split; empty: all.

    Returns
    -------
    wide
        With ``REGION_positive`` (yes or no), ``REGION_probability`` for mixtures, and, if all `STAGES` have thresholds,
        ``braak_stage`` and ``braak_order``. Scans that do not count (``included``) have no answers.
    thresholds
        One row per region, tracer, and reference region.
    sentences
        Reasons why a threshold is n/a for one tracer and reference region.

    Raises
    ------
    SettingError
        A threshold could be found for none of them, or a value is given for scans of several tracers.
    """
    import pandas as pd

    _refuse_several_tracers(wide, requests)
    result, rows, sentences = wide.copy(), [], []
    counted = (wide["included"] == "yes").fillna(False).to_numpy(bool)
    firsts = ~wide.duplicated(["scan", "source"]).to_numpy()
    for request in requests:
        positive = pd.Series(pd.NA, index=wide.index, dtype="string")
        probability = pd.Series(np.nan, index=wide.index)
        reasons = []
        for kind, own in wide.groupby(["tracer", "reference_region"], dropna=False, sort=True):
            used = own[counted[own.index] & (firsts[own.index] | (request.method != "value"))]
            try:
                row, mixture = _fit(request, used, reference, fit_on)
            except SettingError as exc:
                reasons.append(f"no threshold {request.method} for {request.region} ({_text(kind)}): {exc}")
                continue
            rows.append({"region": request.region, "tracer": kind[0], "reference_region": kind[1], **row})
            values = used[request.region].astype(float)
            known = values.index[values.notna()]
            positive[known] = np.where(values[known] >= row["threshold"], "yes", "no")
            if mixture is not None:
                probability[known] = mixture.probability(values[known])
        if reasons and positive.isna().all():
            raise SettingError(reasons[0])
        sentences += reasons
        result[f"{request.region}_positive"] = positive
        if request.method == "gmm":
            result[f"{request.region}_probability"] = probability
    if all(f"{region}_positive" in result for region in STAGES):
        result["braak_stage"], result["braak_order"] = _staged(result)
    thresholds = pd.DataFrame(rows, columns=list(THRESHOLD_COLUMNS)).astype({"n_participants": "Int64"})
    return result, thresholds, sentences


#: Columns of the table of thresholds, and what they mean.
THRESHOLD_COLUMNS: dict[str, Any] = {
    "region": {"Description": "Region, as in suvr_rois_wide.csv."},
    "tracer": {"Description": "Tracer, by its common name."},
    "reference_region": {"Description": "Reference region of the SUVR."},
    "method": {
        "Description": "value: given; 2sd: mean plus 2 SD of the reference group; gmm: where two normal components are "
        "equally likely."
    },
    "threshold": {"Description": "SUVR from which on the region is tau-positive.", "Units": "1"},
    "n_participants": {"Description": "Participants that the threshold was found on; n/a for a given one."},
    "mean": {"Description": "Mean of the reference group, or of the lower component.", "Units": "1"},
    "sd": {"Description": "Standard deviation (ddof 1) of the reference group, or of the lower component."},
    "upper_mean": {"Description": "Mean of the upper component; n/a without a mixture.", "Units": "1"},
    "upper_sd": {"Description": "Standard deviation of the upper component.", "Units": "1"},
    "upper_weight": {"Description": "Share of the upper component.", "Units": "1"},
}


def _text(kind: Any) -> str:
    return ", ".join(part if isinstance(part, str) else "not stated" for part in kind)


def _refuse_several_tracers(wide: pd.DataFrame, requests: Sequence[Request]) -> None:
    tracers = sorted(map(str, wide["tracer"].dropna().unique()))
    given = [request.region for request in requests if request.method == "value"]
    if given and len(tracers) > 1:
        raise SettingError(
            f"threshold gives a value for {given[0]}, and there are scans of {', '.join(tracers)}, whose SUVR differ; "
            "use 2sd or gmm, which are found for each tracer"
        )


def _fit(
    request: Request, rows: pd.DataFrame, reference: Collection[str], fit_on: Collection[str]
) -> tuple[dict[str, Any], Mixture | None]:
    """Return the row of a threshold for scans of one tracer and reference region, and the mixture if there is one."""
    if request.method == "value":
        return {"method": "value", "threshold": request.value}, None
    used = (rows["source"] == "measured") & rows[request.region].notna()
    if fit_on:
        used &= rows["participant_id"].isin(fit_on)
    if request.method == "2sd":
        used &= rows["participant_id"].isin(reference)
    own = rows[used].astype({request.region: float}).groupby("participant_id")[request.region].mean().to_numpy()
    if request.method == "gmm":
        mixture = fit_mixture(own)
        row = {
            **{"method": "gmm", "threshold": mixture.threshold, "n_participants": len(own)},
            **{"mean": mixture.means[0], "sd": mixture.sds[0]},
            **{"upper_mean": mixture.means[1], "upper_sd": mixture.sds[1], "upper_weight": mixture.weights[1]},
        }
        return row, mixture
    if len(own) < FEWEST:
        raise SettingError(
            f"the reference group has {counted(len(own), 'participant')} with a value, and {FEWEST} are needed"
        )
    mean, sd = float(own.mean()), float(own.std(ddof=1))
    return {"method": "2sd", "threshold": mean + 2 * sd, "n_participants": len(own), "mean": mean, "sd": sd}, None


def _staged(table: pd.DataFrame) -> tuple[list[str | None], list[str | None]]:
    """Return Braak stage and order of each row; None where a stage is not known.

    The stage is the highest positive one. The order is atypical if an earlier stage is negative.
    """
    stages: list[str | None] = []
    orders: list[str | None] = []
    for row in table[[f"{region}_positive" for region in STAGES]].to_numpy(object):
        known = [one if isinstance(one, str) else None for one in row]
        if None in known:
            stages.append(None)
            orders.append(None)
            continue
        reached = [place for place, one in enumerate(known) if one == "yes"]
        stages.append(list(STAGES.values())[reached[-1]] if reached else "0")
        orders.append("typical" if len(reached) == (reached[-1] + 1 if reached else 0) else "atypical")
    return stages, orders


def regions_of(wide: pd.DataFrame) -> list[str]:
    """Return the columns of a wide table that are mean SUVR of regions."""
    endings = ("_standardized", "_zscore", "_wscore", "_mean", "_se", "_sd", "_low", "_high", "_p90", "_extent")
    return [name for name in wide.columns if name not in (*WIDE_KEYS, "reference") and not name.endswith(endings)]
