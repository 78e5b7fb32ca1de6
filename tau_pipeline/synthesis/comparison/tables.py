"""Tables of a comparison: means and SD over held-out participants, paired tests, and agreement of regions.

Every participant is held out in exactly one fold, so that each setting (system, loss, scaling) has one value a
participant and measure, and two settings are compared on the same participants. docs/decisions/comparison.md says what
the tests can and cannot show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tau_pipeline.measures.agreement import pearson
from tau_pipeline.synthesis.comparison.runs import BASELINES, BY_MANUFACTURER, CYCLIC, NO_LOSS, TRAINING_MEAN

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Key = tuple[str, str, str]

#: What a setting is; a row of the tables has these columns.
KEYS = ("system", "loss", "target_scaling")
#: Measures of a scan: heading, unit, and whether more is better.
MEASURES = {
    "ssim": ("SSIM", "", True),
    "psnr": ("PSNR", "dB", True),
    "ssim_axial": ("SSIM, axial slices", "", True),
    "psnr_axial": ("PSNR, axial slices", "dB", True),
    "mae": ("Mean absolute error", "SUVR", False),
    "rmse": ("Root mean squared error", "SUVR", False),
    "regional_mae": ("Regional mean absolute error", "SUVR", False),
}
#: Measures of suprathreshold voxels and clusters have an SUVR in their name.
_HOT_MEASURES = {
    "dice_": "Dice of voxels above SUVR {}",
    "lesion_sensitivity_": "Fraction of clusters above SUVR {} that are detected",
    "lesion_precision_": "Fraction of synthetic clusters above SUVR {} that are correct",
}
#: Measures over participants, one value per region.
_REGIONAL_R, _REGIONAL_R_WITHIN = "regional_r", "regional_r_within"
REGIONAL = {
    _REGIONAL_R: "Correlation of regional SUVR over participants",
    _REGIONAL_R_WITHIN: "The same within manufacturers",
}
#: Measures by which a system is judged beside its baselines.
JUDGED = ("ssim", "mae", "regional_mae", _REGIONAL_R)


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon's signed-rank test of paired differences.

    ``n`` pairs, ``mean`` and ``sd`` (ddof 1) of the differences, ``statistic`` and two-sided ``p``; NaN where there is
    nothing to test.
    """

    n: int
    mean: float
    sd: float
    statistic: float
    p: float


def paired_test(values: ArrayLike, reference: ArrayLike) -> PairedTest:
    """Test whether the differences ``values - reference`` lie about 0 (Wilcoxon 1945, Biometrics Bulletin 1:80).

    Parameters
    ----------
    values, reference
        One value per participant, in the same order; pairs of which one is not finite are left out.

    Notes
    -----
    Differences of 0 are left out of the ranks. Up to 50 pairs without ties, p is exact (scipy). Pairs that are all
    equal have p 1; a single pair has none.
    """
    from scipy import stats

    difference = np.asarray(values, np.float64) - np.asarray(reference, np.float64)
    difference = difference[np.isfinite(difference)]
    if difference.size < 2:
        mean = float(difference.mean()) if difference.size else float("nan")
        return PairedTest(int(difference.size), mean, float("nan"), float("nan"), float("nan"))
    mean, sd = float(difference.mean()), float(difference.std(ddof=1))
    if not difference.any():
        return PairedTest(int(difference.size), mean, sd, 0.0, 1.0)
    found = stats.wilcoxon(difference)
    return PairedTest(int(difference.size), mean, sd, float(found.statistic), float(found.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979, Scand J Stat 6:65); NaN stays, and does not count.

    >>> holm([0.01, 0.04, float("nan"), 0.03])
    [0.03, 0.06, nan, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    corrected = np.full(p.shape, np.nan)
    stepped = p[order] * np.arange(order.size, 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(value) for value in corrected]


def measures_of(scans: pd.DataFrame) -> dict[str, str]:
    """List the measures that a table of scans has, in order, with their headings."""
    hot = [name for name in map(str, scans.columns) if name.startswith(tuple(_HOT_MEASURES))]
    found = {name: f"{heading} ({unit})" if unit else heading for name, (heading, unit, _) in MEASURES.items()}
    for name in hot:
        stem = next(stem for stem in _HOT_MEASURES if name.startswith(stem))
        found[name] = _HOT_MEASURES[stem].format(name.removeprefix(stem))
    return {name: heading for name, heading in found.items() if name in scans}


def more_is_better(measure: str) -> bool:
    """Return whether larger values of a measure are better."""
    return MEASURES[measure][2] if measure in MEASURES else True


def by_participant(scans: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return one row per participant and one column per setting `KEYS`: the mean over the participant's scans."""
    finite = scans.assign(**{measure: scans[measure].where(np.isfinite(scans[measure].astype(float)))})
    return finite.groupby(["participant_id", *KEYS], sort=False)[measure].mean().unstack(list(KEYS))


def summary_table(scans: pd.DataFrame, regions: pd.DataFrame) -> pd.DataFrame:
    """Compute mean and SD of each measure and setting.

    Parameters
    ----------
    scans
        One row per held-out scan and setting: `KEYS`, ``fold``, ``participant_id``, measures.
    regions
        One row per region of it: `KEYS`, ``participant_id``, ``manufacturer``, ``region``, ``kind``, ``measured``,
        ``synthetic``.

    Returns
    -------
    DataFrame
        `KEYS`, ``measure``, ``n_participants``, ``mean``, ``sd`` (over participants), ``sd_folds`` (of the folds'
        means). The correlations (`REGIONAL`) are means over cortical regions, and their ``sd`` is over regions.
    """
    import pandas as pd

    rows = []
    for measure in measures_of(scans):
        values = by_participant(scans, measure)
        of_folds = scans.groupby(["fold", *KEYS], sort=False)[measure].mean().unstack(list(KEYS))
        for key in settings_in(scans):
            own = values[key].dropna()
            rows.append(
                {
                    **dict(zip(KEYS, key, strict=True)),
                    "measure": measure,
                    "n_participants": len(own),
                    "mean": own.mean(),
                    "sd": own.std(ddof=1),
                    "sd_folds": of_folds[key].std(ddof=1),
                }
            )
    agreement = region_table(regions)
    for key, own in agreement[agreement["kind"] == "cortical"].groupby(list(KEYS), sort=False):
        for measure in REGIONAL:
            rows.append(
                {
                    **dict(zip(KEYS, key, strict=True)),
                    "measure": measure,
                    "n_participants": int(own["n_participants"].max()),
                    "mean": own[measure].mean(),
                    "sd": own[measure].std(ddof=1),
                    "sd_folds": np.nan,
                }
            )
    return pd.DataFrame(rows)


def settings_in(scans: pd.DataFrame) -> list[Key]:
    """List the settings of a table, each once, in the table's order."""
    return [(str(a), str(b), str(c)) for a, b, c in scans[list(KEYS)].drop_duplicates().itertuples(index=False)]


def paired_test_table(scans: pd.DataFrame) -> pd.DataFrame:
    """Run paired tests over held-out participants.

    Parameters
    ----------
    scans
        As in `summary_table`.

    Returns
    -------
    DataFrame
        One row per test: ``contrast`` (``loss``: against the cyclic loss, of one system and scaling;
        ``target_scaling``: min-max against by-manufacturer, of one system and loss; ``baseline``: against the mean of
        the training images, of one scaling), ``measure``, `KEYS`, the same with ``reference_`` in front,
        ``n_participants``, ``mean_difference`` and ``sd_difference`` (setting minus reference), ``statistic``, ``p``,
        ``p_holm`` (corrected over all tests of one contrast and measure).
    """
    import pandas as pd

    present = settings_in(scans)
    rows = []
    for measure in measures_of(scans):
        values = by_participant(scans, measure)
        for contrast in ("loss", "target_scaling", "baseline"):
            own = [_test_row(values, measure, contrast, pair) for pair in _pairs(contrast, present)]
            corrected = holm([row["p"] for row in own])
            rows += [{**row, "p_holm": p} for row, p in zip(own, corrected, strict=True)]
    references = [f"reference_{key}" for key in KEYS]
    columns = ["contrast", "measure", *KEYS, *references, "n_participants", "mean_difference", "sd_difference"]
    return pd.DataFrame(rows, columns=[*columns, "statistic", "p", "p_holm"])


def _pairs(contrast: str, present: Sequence[Key]) -> Iterator[tuple[Key, Key]]:
    """Pair each setting with the one that it is tested against, where both are there."""
    for system, loss, target_scaling in present:
        if loss == NO_LOSS:
            continue
        reference = {
            "loss": (system, CYCLIC, target_scaling),
            "target_scaling": (system, loss, BY_MANUFACTURER),
            "baseline": (TRAINING_MEAN, NO_LOSS, target_scaling),
        }[contrast]
        if reference in present and reference != (system, loss, target_scaling):
            yield (system, loss, target_scaling), reference


def _test_row(values: pd.DataFrame, measure: str, contrast: str, pair: tuple[Key, Key]) -> dict[str, Any]:
    setting, reference = pair
    found = paired_test(values[setting], values[reference])
    return {
        "contrast": contrast,
        "measure": measure,
        **dict(zip(KEYS, setting, strict=True)),
        **{f"reference_{key}": value for key, value in zip(KEYS, reference, strict=True)},
        "n_participants": found.n,
        "mean_difference": found.mean,
        "sd_difference": found.sd,
        "statistic": found.statistic,
        "p": found.p,
    }


def region_table(regions: pd.DataFrame) -> pd.DataFrame:
    """Compute the agreement of each region over the held-out participants of all folds, for each setting.

    Parameters
    ----------
    regions
        As in `summary_table`, with ``index`` and ``hemisphere``.

    Returns
    -------
    DataFrame
        `KEYS`, ``region index hemisphere kind n_participants``, ``regional_r`` (Pearson), ``regional_r_within`` (after
        the mean of each manufacturer's participants was taken from both sides), ``mae``, ``bias`` (mean of synthetic
        minus measured).
    """
    import pandas as pd

    place = ["region", "index", "hemisphere", "kind"]
    means = regions.groupby([*KEYS, *place, "manufacturer", "participant_id"], sort=False, dropna=False)[
        ["measured", "synthetic"]
    ].mean()
    # Cells without values, which groupby makes for settings that lack a participant, are none.
    table = means.dropna().reset_index()
    by_manufacturer = [*KEYS, *place, "manufacturer"]
    centered = table[["measured", "synthetic"]] - table.groupby(by_manufacturer, sort=False, dropna=False)[
        ["measured", "synthetic"]
    ].transform("mean")
    table = table.assign(measured_within=centered["measured"], synthetic_within=centered["synthetic"])
    rows = []
    for key, own in table.groupby([*KEYS, *place], sort=False, dropna=False):
        error = own["synthetic"] - own["measured"]
        rows.append(
            {
                **dict(zip((*KEYS, *place), key, strict=True)),
                "n_participants": len(own),
                _REGIONAL_R: float(pearson(own["synthetic"], own["measured"])),
                _REGIONAL_R_WITHIN: float(pearson(own["synthetic_within"], own["measured_within"])),
                "mae": float(error.abs().mean()),
                "bias": float(error.mean()),
            }
        )
    return pd.DataFrame(rows)


def wide_table(summary: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """Return one row per setting: mean and SD of each measure, and p (Holm) of its test against the cyclic loss.

    Parameters
    ----------
    summary, tests
        From `summary_table` and `paired_test_table`.
    """
    import pandas as pd

    against = tests[tests["contrast"] == "loss"]
    rows = []
    for key, own in summary.groupby(list(KEYS), sort=False):
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True))
        row["n_participants"] = int(own["n_participants"].max())
        mine = against[(against[list(KEYS)] == list(key)).all(axis=1)].set_index("measure")
        for found in own.itertuples():
            row |= {f"{found.measure}_mean": found.mean, f"{found.measure}_sd": found.sd}
            if found.measure in mine.index:
                row[f"{found.measure}_p_holm"] = mine.loc[found.measure, "p_holm"]
        rows.append(row)
    return pd.DataFrame(rows)


def is_baseline(system: str) -> bool:
    """Return whether a row is that of a trivial predictor."""
    return system in BASELINES


def not_beaten(settings: pd.DataFrame) -> dict[Key, list[str]]:
    """Return the baselines that each setting of a model does not beat in every one of `JUDGED`, by setting.

    Parameters
    ----------
    settings
        From `wide_table`. A measure counts where both rows have it.
    """
    found: dict[Key, list[str]] = {}
    simple = {
        (row["system"], row["target_scaling"]): row for row in settings.to_dict("records") if row["loss"] == NO_LOSS
    }
    for own in settings[settings["loss"] != NO_LOSS].to_dict("records"):
        others = {
            name: simple[name, own["target_scaling"]] for name in BASELINES if (name, own["target_scaling"]) in simple
        }
        worse = [name for name, other in others.items() if any(_is_not_better(own, other, one) for one in JUDGED)]
        if worse:
            found[str(own["system"]), str(own["loss"]), str(own["target_scaling"])] = worse
    return found


def _is_not_better(own: dict[Any, Any], other: dict[Any, Any], measure: str) -> bool:
    a, b = (row.get(f"{measure}_mean", np.nan) for row in (own, other))
    return bool(a <= b) if more_is_better(measure) else bool(a >= b)
