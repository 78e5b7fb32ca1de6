"""Partial volume correction of one scan: regional values, their standard errors, and the columns of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import CEREBELLAR_CORTEX, composites, label_table, template_region_table
from tau_pipeline.derivatives.columns import pvc_columns
from tau_pipeline.errors import ReferenceRegionError
from tau_pipeline.pvc.methods import estimate
from tau_pipeline.pvc.model import Blurred, blur_regions
from tau_pipeline.pvc.noise import Noise
from tau_pipeline.pvc.psf import PointSpread
from tau_pipeline.pvc.regions import HOT_SPOTS, SULCAL_CSF, Floats, RegionModel
from tau_pipeline.settings.participant import PvcMethod

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Corrected:
    """Regional values of one scan by one method.

    Attributes
    ----------
    values
        In the order of the model's regions and the unit of the PET; NaN where there is none.
    covariance
        ``(regions, regions)``; its diagonal is the square of the standard errors.
    painted
        Values that the corrected map is made with.
    """

    values: NDArray[np.float64]
    covariance: NDArray[np.float64]
    painted: NDArray[np.float64]


@dataclass(frozen=True)
class Correction:
    """Partial volume correction of one scan.

    Attributes
    ----------
    model
        The regions.
    point_spread
        What was taken as the blur.
    by_method
        Results of each method.
    condition
        Condition number of ``BᵀB`` with columns of length 1: by how much an error may grow.
    """

    model: RegionModel
    point_spread: PointSpread
    by_method: Mapping[PvcMethod, Corrected]
    condition: float


def correct(
    model: RegionModel, pet: Floats, point_spread: PointSpread, methods: Sequence[PvcMethod], min_measured: float = 0.5
) -> Correction:
    """Correct the regional values of a PET for partial volume effects.

    Parameters
    ----------
    model
        The regions.
    pet
        PET on the part, as `RegionModel.cut` gives it: NaN where nothing is measured.
    point_spread
        The blur.
    methods
        At least one.
    min_measured
        Share of a region that must be measured for it to have a value.

    Raises
    ------
    ImageError
        No voxel of the head is measured.
    """
    blurred = blur_regions(model, pet, point_spread.fwhm_mm, min_measured)
    noise = Noise(blurred)
    found = {method: estimate(method, blurred) for method in methods}
    covariances: dict[int, NDArray[np.float64]] = {}
    by_method: dict[PvcMethod, Corrected] = {}
    for method, result in found.items():
        # Methods that share their weights share their noise.
        key = id(result.weights)
        if key not in covariances:
            covariances[key] = noise.covariance(result)
        by_method[method] = Corrected(
            result.values, covariances[key], result.values if result.painted is None else result.painted
        )
    return Correction(model, point_spread, by_method, _condition(blurred))


def _condition(blurred: Blurred) -> float:
    gram = (blurred.columns.T @ blurred.columns).toarray().astype(np.float64)
    seen = blurred.known & (np.diag(gram) > 0)
    scale = 1 / np.sqrt(np.diag(gram)[seen])
    return float(np.linalg.cond(gram[np.ix_(seen, seen)] * scale[:, None] * scale))


def map_values(correction: Correction, method: PvcMethod) -> dict[int, float]:
    """Return the values that the corrected map of a method is made with, by number; merged regions have one value."""
    model = correction.model
    found = dict(zip(model.numbers, correction.by_method[method].painted.tolist(), strict=True))
    return found | {small: found.get(into, np.nan) for small, into in model.merged.items()}


def add_columns(
    table: pd.DataFrame,
    correction: Correction,
    labels: NDArray[np.integer],
    references: Mapping[str, NDArray],
    parts: NDArray[np.integer] | None = None,
) -> pd.DataFrame:
    """Return a table of regions with the corrected columns of each method.

    Parameters
    ----------
    table
        From `tau_pipeline.measures.regions.regional_table`, of one or more reference regions.
    correction
        Of the same scan.
    labels
        Labels ``(I, J, K)`` on the T1w grid, FreeSurfer numbers.
    references
        Mask of each reference region on the same grid, by name. Its corrected value is the mean of the values of its
        regions, each weighted by the voxels that the mask has of it; parts with numbers of their own count equally.
        Regions without a value, of which too little was measured, are left out.
    parts
        The labels that the model was made of, if these are others: the cerebellar cortex in lobules. A cortex is then
        the mean of its lobules, weighted by volume.

    Raises
    ------
    ReferenceRegionError
        A reference region has no corrected value, or one that is not above 0.
    """
    table = table.copy()
    parts = labels if parts is None else parts
    of_parts = {name: reference_shares(correction.model, parts, mask) for name, mask in references.items()}
    shares: dict[str | int, NDArray[np.float64]] = {name: found.mean(axis=0) for name, found in of_parts.items()}
    shares |= {label: _shares(correction.model, parts[labels == label]) for label in CEREBELLAR_CORTEX}
    weights = np.stack([_row_weights(row, correction.model, shares) for row in table.to_dict("records")])
    for rank, (method, found) in enumerate(correction.by_method.items()):
        mean = np.full(len(table), np.nan)
        error = np.full(len(table), np.nan)
        for name in references:
            own = (table["reference_region"] == name).to_numpy()
            mean[own], error[own] = _ratios(found, weights[own], of_parts[name], name)
        for column, values in zip(pvc_columns(method, first=rank == 0), (mean, error), strict=True):
            table[column] = values
    return table


def reference_shares(model: RegionModel, labels: NDArray[np.integer], mask: NDArray) -> NDArray[np.float64]:
    """Return the share of each region of the model in each part of a reference region, ``(parts, regions)``.

    Parameters
    ----------
    model
        The regions.
    labels
        Labels ``(I, J, K)`` that the model was made of.
    mask
        Boolean, or the number of the part of each voxel, 0 outside; parts count equally.
    """
    numbers = np.unique(mask[mask > 0])
    return np.array([_shares(model, labels[mask == number]) for number in numbers]).reshape(-1, len(model.numbers))


def reference_value(correction: Correction, method: PvcMethod, shares: NDArray[np.float64]) -> float:
    """Return the corrected activity of a reference region with these `reference_shares`; NaN if a part has none."""
    values = correction.by_method[method].values
    known = _known(shares, values)
    return float(known @ np.nan_to_num(values)) if known.any() else np.nan


def _known(shares: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each region in the mean of the parts, by the regions with a value; 0 if a part has none."""
    known = np.where(np.isfinite(values), shares, 0.0)
    sums = known.sum(axis=1, keepdims=True)
    return (known / sums).mean(axis=0) if len(sums) and sums.min() > 0 else np.zeros(len(values))


def _shares(model: RegionModel, labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the share of each region of the model in voxels with these labels."""
    shares = np.zeros(len(model.numbers))
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        place = model.column(int(label))
        if place is not None:
            shares[place] += count
    return shares / max(shares.sum(), 1)


def _row_weights(
    row: Mapping, model: RegionModel, shares: Mapping[str | int, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the weight of each region of the model in a row of the table; zeros where it has none."""
    weights = np.zeros(len(model.numbers))
    if row["kind"] == "reference":
        return shares[row["reference_region"]]
    if row["kind"] != "composite" and row["index"] in shares:
        return shares[int(row["index"])]
    members = composites()[row["region"]][row["hemisphere"]] if row["kind"] == "composite" else (int(row["index"]),)
    places = [place for label in members if (place := model.column(label)) is not None]
    volume = model.volumes_mm3
    for place in set(places):
        weights[place] = volume[place]
    return weights / max(weights.sum(), 1e-9)


def _ratios(
    found: Corrected, weights: NDArray[np.float64], parts: NDArray[np.float64], name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ratio of each row to the reference region, and its standard error (first order)."""
    values = np.nan_to_num(found.values)
    part = _known(parts, found.values)
    below = float(part @ values)
    if not below > 0:
        raise ReferenceRegionError(
            f"reference region {name} has a corrected activity of {below:.4g}; expected: above 0; choose another "
            "reference region or method of partial volume correction"
        )
    unknown = (weights[:, np.isnan(found.values)] > 0).any(axis=1) | (weights.sum(axis=1) == 0)
    ratio = weights @ values / below
    slopes = (weights - ratio[:, None] * part) / below
    variance = np.einsum("ri,ij,rj->r", slopes, found.covariance, slopes)
    missing = np.where(unknown, np.nan, 0.0)
    return ratio + missing, np.sqrt(np.maximum(variance, 0.0)) + missing


def _hot_spots(correction: Correction, references: Mapping[PvcMethod, float]) -> list[dict[str, Any]]:
    """Return volume in mm³ and SUVR, by the first method, of each hot spot around the brain."""
    model, method = correction.model, next(iter(correction.by_method))
    values = correction.by_method[method].values / references[method]
    return [
        {"Volume": round(volume, 1), "SUVR": round(float(value), 3) if np.isfinite(value) else "n/a"}
        for number, volume, value in zip(model.numbers, model.volumes_mm3.tolist(), values, strict=True)
        if number >= HOT_SPOTS
    ]


#: Keys of the sidecar that `sidecar` gives.
PVC_KEYS = (
    "PVCConditionNumber",
    "PVCExtracerebralRegions",
    "PVCMergedRegions",
    "PVCMethods",
    "PVCPointSpreadAtBound",
    "PVCPointSpreadFWHM",
    "PVCPointSpreadSource",
    "PVCReferenceValue",
)


def sidecar(correction: Correction, shares: NDArray[np.float64]) -> dict[str, Any]:
    """Return what the sidecar of an SUVR map says about the correction.

    Parameters
    ----------
    correction
        Of the scan.
    shares
        `reference_shares` of the map's reference region.
    """
    spread = correction.point_spread
    values = {method: reference_value(correction, method, shares) for method in correction.by_method}
    names = {SULCAL_CSF: "CSF-ExtraCerebral"}
    for known in (label_table(), template_region_table()):
        names |= dict(zip(known["index"], known["region"], strict=True))
    return {
        "PVCMethods": list(correction.by_method),
        "PVCPointSpreadFWHM": [round(one, 3) for one in spread.fwhm_mm],
        "PVCPointSpreadSource": spread.source,
        "PVCPointSpreadAtBound": float(spread.at_bound),
        "PVCConditionNumber": round(correction.condition, 2),
        "PVCReferenceValue": values,
        "PVCExtracerebralRegions": _hot_spots(correction, values),
        "PVCMergedRegions": {
            str(names.get(small, small)): str(names.get(into, into)) for small, into in correction.model.merged.items()
        },
    }
