"""Synthetic against measured tau PET, with trivial baselines beside the model.

Everything is SUVR, after the standardization has been inverted, on the grid of the T1w, inside the brain mask where the
PET has a value. Images with good metrics can miss suprathreshold clusters and differences between participants, so all
of these are reported, each with an interval from a bootstrap over participants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid, voxel_volume_mm3
from tau_pipeline.measures.agreement import (
    BraakThresholds,
    Interval,
    bootstrap_interval,
    braak_stage,
    mean_interval,
    paired_regions,
    regional_agreement,
    roc_auc,
    weighted_kappa,
)
from tau_pipeline.measures.images import image_agreement, slice_agreement, suprathreshold_agreement
from tau_pipeline.measures.regions import regional_table
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.synthesis.data.pairs import Pair

#: The mask in words, for the tables.
MASK = "brain mask where the PET has a value"
#: Measures of a scan that are averaged over participants, without those of suprathreshold clusters.
MEASURES = ("ssim", "psnr", "mae", "rmse", "ssim_axial", "psnr_axial", "mae_axial", "regional_mae", "regional_bias")


@dataclass(frozen=True)
class ScanScores:
    """Scores of each predictor on one scan.

    Attributes
    ----------
    scans
        One row per predictor.
    slices
        A row an axial slice of each predictor.
    regions
        The regional tables of the predictors, with the columns ``predictor`` and ``scan``.
    """

    scans: pd.DataFrame
    slices: pd.DataFrame
    regions: pd.DataFrame


def score_scan(pair: Pair, predicted: Mapping[str, Volume], settings: Synthesis | None = None) -> ScanScores:
    """Compare predicted SUVR maps with a measured one.

    Parameters
    ----------
    pair
        The measured scan.
    predicted
        Maps on the T1w's grid, by predictor; 0 outside the brain, NaN where nothing was predicted. What the PET did
        not measure is left out of every comparison.
    settings
        Read here: ``suvr_range``, ``hot_suvr`` and ``lesion_volume``.

    Raises
    ------
    GridMismatchError
        A map is not on the T1w's grid.
    TauPipelineError
        A file of the pair cannot be used.
    """
    settings = settings or Synthesis()
    measured_img, mask_img, dseg = (load_volume(p, ndim=3) for p in (pair.suvr_file, pair.mask_file, pair.dseg_file))
    reference = load_volume(pair.reference_mask_file, ndim=3)
    measured = canonical(measured_img)
    # Earlier versions of the participant level wrote 0 where it now writes NaN.
    covered = np.isfinite(measured_img.dataobj) & (np.asanyarray(measured_img.dataobj) != 0)
    mask = canonical(image_like(covered & (np.asanyarray(mask_img.dataobj) > 0), mask_img)) > 0
    scans, slices, regions = [], [], []
    for name, img in predicted.items():
        require_same_grid(measured=measured_img, predicted=img)
        who = {**_identity(pair), "predictor": name}
        synthetic = canonical(img)
        by_slice = slice_agreement(synthetic, measured, mask, settings.suvr_range)
        slices.append(by_slice.assign(**who, mask=MASK))
        # Regions are compared over the voxels that the PET measured.
        compared = image_like(np.where(covered, np.asanyarray(img.dataobj), np.float32(np.nan)), img)
        regions.append(
            regional_table(compared, dseg, reference, pair.reference_region, {**_identity(pair), "source": "synthetic"})
            .assign(predictor=name, scan=pair.scan)
            .astype({"suvr_mean": float})
        )
        voxel_ml = voxel_volume_mm3(img) / 1000
        scans.append({**who, **_image_row(synthetic, measured, mask, voxel_ml, settings), **_slice_means(by_slice)})
    return ScanScores(pd.DataFrame(scans), pd.concat(slices), pd.concat(regions))


def canonical(img: Volume) -> NDArray:
    """Return the array with its axes nearest to right, anterior, superior; axial slices lie along the last one."""
    return np.asanyarray(nib.as_closest_canonical(img).dataobj)


def _identity(pair: Pair) -> dict[str, Any]:
    return {
        "participant_id": pair.participant_id,
        "session_id": f"ses-{pair.session}" if pair.session else None,
        "scan": pair.scan,
        "tracer": pair.tracer,
        "manufacturer": pair.manufacturer,
        "diagnosis": pair.diagnosis,
        "reference_region": pair.reference_region,
    }


def _image_row(
    synthetic: NDArray, measured: NDArray, mask: NDArray, voxel_ml: float, settings: Synthesis
) -> dict[str, Any]:
    whole = image_agreement(synthetic, measured, mask, settings.suvr_range, MASK)
    row: dict[str, Any] = {name: getattr(whole, name) for name in ("ssim", "psnr", "mae", "rmse", "n_voxels")}
    row |= {"data_range": whole.data_range, "mask": whole.mask}
    least = max(1, round(settings.lesion_volume / voxel_ml))
    for threshold in settings.hot_suvr:
        found = suprathreshold_agreement(synthetic, measured, mask, threshold, least)
        row |= {
            f"dice_{threshold:g}": found.dice,
            f"lesion_sensitivity_{threshold:g}": found.sensitivity,
            f"lesion_precision_{threshold:g}": found.precision,
            f"n_lesions_{threshold:g}": found.n_clusters,
        }
    return row


def _slice_means(by_slice: pd.DataFrame) -> dict[str, float]:
    """Average over axial slices, weighted by voxels in the mask; a slice without any error has no PSNR."""
    means = {}
    for name in ("ssim", "psnr", "mae"):
        known = by_slice[np.isfinite(by_slice[name])]
        weights = known["n_voxels"]
        means[f"{name}_axial"] = float((known[name] * weights).sum() / weights.sum()) if len(known) else float("nan")
    return means


@dataclass(frozen=True)
class Report:
    """Tables of an evaluation.

    Attributes
    ----------
    scans
        One row per scan and predictor.
    slices
        A row an axial slice.
    regions
        One row per region, predictor, and split: agreement across participants and accuracy of tau positivity.
    summary
        One row per measure, predictor, and split, with its bootstrap interval over participants.
    """

    scans: pd.DataFrame
    slices: pd.DataFrame
    regions: pd.DataFrame
    summary: pd.DataFrame


def evaluate(
    scores: Iterable[ScanScores],
    measured: pd.DataFrame,
    splits: Mapping[str, str],
    positivity: Mapping[str, float] | None = None,
    settings: Synthesis | None = None,
    random_seed: int = 0,
    n_resamples: int = 2000,
) -> Report:
    """Put the scores of scans together.

    Parameters
    ----------
    scores
        From `score_scan`.
    measured
        Measured regional tables, stacked, with a column ``scan``.
    splits
        Split of each participant (``train``, ``validation``, ``test``, ``none``), by ``participant_id``. Figures of
        different splits are never mixed: those of the training split say nothing about other participants.
    positivity
        SUVR thresholds by ``region|hemisphere`` (`tau_pipeline.synthesis.model.baselines.positivity_thresholds`).
    settings
        Read here: ``suvr_range``, which is a column of the summary.
    random_seed, n_resamples
        Of the bootstrap.
    """
    settings, positivity = settings or Synthesis(), positivity or {}
    found = list(scores)
    scans = pd.concat([each.scans for each in found], ignore_index=True)
    regions = pd.concat([each.regions for each in found], ignore_index=True)
    slices = pd.concat([each.slices for each in found], ignore_index=True)
    pairs = _paired(regions, measured)
    per_scan = _regional_rows(pairs, positivity)
    scans = scans.merge(per_scan, on=["scan", "predictor"], how="left")
    scans.insert(4, "split", [splits.get(who, "none") for who in scans["participant_id"]])
    of_regions = [
        _region_rows(
            own[own["participant_id"].map(lambda who: splits.get(who, "none")) == split],
            positivity,
            random_seed,
            n_resamples,
        ).assign(predictor=name, split=split)
        for name, own in pairs.items()
        for split in scans["split"].unique()
    ]
    summary = _summary(scans, random_seed, n_resamples)
    summary = summary.assign(data_range=settings.suvr_range, mask=MASK, n_resamples=n_resamples)
    return Report(scans, slices, pd.concat(of_regions, ignore_index=True), summary)


def with_regional_errors(scores: ScanScores, measured: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of a scan, one row per predictor, with the error and bias of its regional means.

    Parameters
    ----------
    scores
        Of one scan.
    measured
        Its measured regional table, with a column ``scan``.
    """
    rows = _regional_rows(_paired(scores.regions, measured), {})
    columns = ["scan", "predictor", "regional_mae", "regional_bias"]
    return scores.scans.merge(rows[columns], on=["scan", "predictor"], how="left")


def _paired(regions: pd.DataFrame, measured: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the regional values of each predictor beside the measured ones."""
    return {
        str(name): paired_regions(own.drop(columns="predictor"), measured)
        for name, own in regions.groupby("predictor", sort=False)
    }


def _regional_rows(pairs: Mapping[str, pd.DataFrame], positivity: Mapping[str, float]) -> pd.DataFrame:
    """Return one row per scan and predictor: error of cortical and subcortical regions, and Braak stages."""
    rows = []
    for name, table in pairs.items():
        for scan, own in table.groupby("scan", sort=False):
            single = own[own["kind"].isin(["cortical", "subcortical"])]
            rows.append(
                {
                    "scan": scan,
                    "predictor": name,
                    "regional_mae": float(single["absolute_error"].mean()),
                    "regional_bias": float(single["error"].mean()),
                    "braak_measured": _stage(own, "measured", positivity),
                    "braak_predicted": _stage(own, "synthetic", positivity),
                }
            )
    columns = ["scan", "predictor", "regional_mae", "regional_bias", "braak_measured", "braak_predicted"]
    return pd.DataFrame(rows, columns=columns)


def _stage(own: pd.DataFrame, column: str, positivity: Mapping[str, float]) -> float:
    """Return the Braak stage from composites of both hemispheres; NaN if a composite or its threshold is missing."""
    names = ("braak1", "braak34", "braak56")
    cuts = [positivity.get(f"{name}|both", np.nan) for name in names]
    both = own[own["hemisphere"] == "both"].set_index("region")[column]
    values = [float(both.get(name, np.nan)) for name in names]
    if not np.isfinite(cuts).all():
        return float("nan")
    return float(braak_stage(values[0], values[1], values[2], BraakThresholds(*cuts)))


def _region_rows(
    pairs: pd.DataFrame, positivity: Mapping[str, float], random_seed: int, n_resamples: int
) -> pd.DataFrame:
    """Return agreement across participants of each region, with the area under the ROC curve for tau positivity."""
    if pairs.empty:
        return pd.DataFrame()
    table = regional_agreement(pairs, seed=random_seed, n_resamples=n_resamples)
    cuts, areas, counts = [], [], []
    for row in table.itertuples():
        cut = positivity.get(f"{row.region}|{row.hemisphere}", np.nan)
        own = pairs[(pairs["region"] == row.region) & (pairs["hemisphere"] == row.hemisphere)]
        means = own.groupby("participant_id")[["synthetic", "measured"]].mean()
        positive = means["measured"].to_numpy() >= cut
        cuts.append(cut)
        counts.append(int(positive.sum()) if np.isfinite(cut) else None)
        areas.append(_area(means["synthetic"].to_numpy(), positive, cut, random_seed, n_resamples))
    return table.assign(
        positive_suvr=cuts,
        n_positive=pd.array(counts, dtype="Int64"),
        auc=[each.estimate for each in areas],
        auc_low=[each.low for each in areas],
        auc_high=[each.high for each in areas],
    )


def _area(scores: NDArray, positive: NDArray[np.bool_], cut: float, random_seed: int, n_resamples: int) -> Interval:
    if not np.isfinite(cut):
        return Interval(np.nan, np.nan, np.nan, len(scores), 0.95)
    return bootstrap_interval(roc_auc, scores, positive, seed=random_seed, n_resamples=n_resamples)


def _summary(scans: pd.DataFrame, random_seed: int, n_resamples: int) -> pd.DataFrame:
    """Return means over participants (several scans of one count as their mean), and agreement in Braak stage."""
    hot = [name for name in scans if name.startswith(("dice_", "lesion_"))]
    rows = []
    for (split, predictor), own in scans.groupby(["split", "predictor"], sort=False):
        for measure in (*MEASURES, *hot):
            means = own.groupby("participant_id")[measure].mean()
            found = mean_interval(means, seed=random_seed, n_resamples=n_resamples)
            rows.append(_summary_row(split, predictor, measure, found))
        rows.append(
            _summary_row(split, predictor, "braak_kappa", _kappa(own, weighted_kappa, random_seed, n_resamples))
        )
        rows.append(
            _summary_row(
                split, predictor, "braak_same", _kappa(own, lambda a, b: (a == b).mean(-1), random_seed, n_resamples)
            )
        )
    return pd.DataFrame(rows)


def _kappa(own: pd.DataFrame, statistic: Callable[..., Any], random_seed: int, n_resamples: int) -> Interval:
    """Return agreement in stage over the participants' first scans that have one on both sides."""
    staged = own.dropna(subset=["braak_measured", "braak_predicted"]).groupby("participant_id").first()
    samples: Sequence[NDArray] = [staged[f"braak_{name}"].to_numpy(float) for name in ("predicted", "measured")]
    return bootstrap_interval(statistic, *samples, seed=random_seed, n_resamples=n_resamples)


def _summary_row(split: Any, predictor: Any, measure: str, found: Interval) -> dict[str, Any]:
    return {
        "split": split,
        "predictor": predictor,
        "measure": measure,
        "n_participants": found.n,
        "estimate": found.estimate,
        "low": found.low,
        "high": found.high,
        "confidence": found.confidence,
    }
