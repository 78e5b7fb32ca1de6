"""Voxelwise comparison of SUVR maps in a standard space, by nilearn.

A linear model in every voxel of gray matter that all scans measured; p-values are corrected for the number of voxels by
permutations of threshold-free cluster enhancement (TFCE; Smith and Nichols 2009, NeuroImage 44:83).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import CEREBELLAR_CORTEX, label_array, label_table, region_numbers
from tau_pipeline.cohort.design import INTERCEPT
from tau_pipeline.errors import MissingInputError, SettingError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.smooth import smooth
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid

if TYPE_CHECKING:
    import pandas as pd

#: A voxel is compared if at least this share of the scans has gray matter there.
GRAY_SHARE = 0.2
#: Family-wise error rate.
ALPHA = 0.05
#: Voxels that a comparison needs at least.
_FEWEST_VOXELS = 50


@dataclass(frozen=True)
class ScanMap:
    """A scan to compare: its SUVR map and labels in one standard space, and the resolution of the map.

    Attributes
    ----------
    scan
        Name in the tables of the cohort.
    suvr_file, dseg_file
        Images on one grid, which all scans share.
    fwhm_mm
        Effective resolution; None if not known.
    """

    scan: str
    suvr_file: Path
    dseg_file: Path
    fwhm_mm: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Maps of one comparison.

    Attributes
    ----------
    maps
        By name: ``effect`` (difference of SUVR, or SUVR per unit), ``t``, ``z``, ``tfce``, ``logp`` (-log10 of the
        corrected p), ``thresholded`` (t where corrected p < 0.05, 0 elsewhere), and ``mask``.
    clusters
        One row per cluster and sign: number, peak in mm, t, corrected p, volume, region at the peak.
    n_permutations
        As they were made.
    """

    maps: Mapping[str, Volume]
    clusters: pd.DataFrame
    n_permutations: int
    notes: tuple[str, ...] = field(default=())

    @property
    def smallest_p(self) -> float:
        """Smallest corrected p-value."""
        return float(10 ** -np.asanyarray(self.maps["logp"].dataobj).max())


def smoothed(maps: Sequence[ScanMap], fwhm_mm: float) -> tuple[list[Volume], list[str]]:
    """Return each map smoothed to an effective resolution, and sentences on maps that are coarser than that already.

    Parameters
    ----------
    maps
        The scans. A map whose resolution is not known is smoothed by the whole of ``fwhm_mm``.
    fwhm_mm
        Resolution to reach, FWHM.

    Raises
    ------
    MissingInputError
        A map does not exist.
    GridMismatchError
        Two maps are not on one grid.
    """
    found: list[Volume] = []
    coarse = []
    for one in maps:
        if not one.suvr_file.is_file():
            raise MissingInputError(f"there is no map {one.suvr_file}; run the participant level with --output-spaces")
        own = one.fwhm_mm or 0.0
        if own > fwhm_mm:
            coarse.append(one.scan)
        image = load_volume(one.suvr_file, ndim=3)
        if found:
            require_same_grid(**{maps[0].scan: found[0], one.scan: image})
        found.append(smooth(image, math.sqrt(max(0.0, fwhm_mm**2 - own**2))))
    text = f"not smoothed, since coarser than {fwhm_mm:g} mm already: {', '.join(coarse)}"
    return found, [text] if coarse else []


def gray_matter(maps: Sequence[ScanMap], images: Sequence[Volume]) -> Volume:
    """Return the mask of the comparison: gray matter in `GRAY_SHARE` of the scans, measured in every one.

    The cerebellar cortex is left out: as the usual reference region, it is 1 by definition.

    Raises
    ------
    SettingError
        Next to nothing is left.
    """
    numbers = set(region_numbers("cortical", "subcortical")) - set(CEREBELLAR_CORTEX)
    share = np.zeros(images[0].shape, np.float32)
    measured = np.ones(images[0].shape, bool)
    for one, image in zip(maps, images, strict=True):
        if not one.dseg_file.is_file():
            raise MissingInputError(f"there is no {one.dseg_file}; run the participant level with --output-spaces")
        dseg = load_volume(one.dseg_file, ndim=3)
        require_same_grid(**{"SUVR map": image, "labels": dseg})
        share += np.isin(label_array(dseg), list(numbers))
        measured &= np.isfinite(np.asanyarray(image.dataobj))
    mask = (share >= GRAY_SHARE * len(maps)) & measured
    if mask.sum() < _FEWEST_VOXELS:
        raise SettingError(
            f"only {int(mask.sum())} voxels of gray matter were measured in all {len(maps)} scans; look for a scan "
            "that covers little of the brain, and leave it out with --exclude"
        )
    return image_like(mask, images[0])


def compare(
    images: Sequence[Volume], mask: Volume, design: pd.DataFrame, permutations: int, seed: int, processes: int = 1
) -> Comparison:
    """Fit the model in every voxel and test the first column of the design, two-sided.

    Parameters
    ----------
    images
        Smoothed SUVR maps on one grid, in the order of the rows of ``design``.
    mask
        Voxels to compare.
    design
        As `tau_pipeline.cohort.design.design_matrix` gives it.
    permutations, seed
        Number of permutations, and the seed that they are drawn with.
    processes
        Processes that share the permutations. Which ones are drawn depends on their number.

    Returns
    -------
    Comparison
        Without regions in the clusters; see `with_regions`.
    """
    from nilearn.glm.second_level import SecondLevelModel, non_parametric_inference

    inside = np.asanyarray(mask.dataobj) > 0
    # What was not measured lies outside of the mask, but nilearn wants numbers.
    whole = [image_like(np.nan_to_num(np.asanyarray(one.dataobj)).astype(np.float32), one) for one in images]
    matrix = design.reset_index(drop=True)
    contrast = np.eye(matrix.shape[1])[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SecondLevelModel(mask_img=mask, smoothing_fwhm=None, minimize_memory=True)
        fitted = model.fit(whole, design_matrix=matrix).compute_contrast(contrast, output_type="all")
        tested = non_parametric_inference(
            whole,
            design_matrix=matrix.drop(columns=INTERCEPT),
            second_level_contrast=contrast[:-1],
            mask=mask,
            model_intercept=True,
            n_perm=permutations,
            two_sided_test=True,
            random_state=seed,
            n_jobs=processes,
            tfce=True,
        )
    maps = {
        "effect": fitted["effect_size"],
        "t": fitted["stat"],
        "z": fitted["z_score"],
        "tfce": tested["tfce"],
        "logp": tested["logp_max_tfce"],
    }
    data = {name: np.where(inside, image.get_fdata(dtype=np.float32), 0) for name, image in maps.items()}
    significant = inside & (data["logp"] > -math.log10(ALPHA))
    data["thresholded"] = np.where(significant, data["t"], np.float32(0))
    found = {name: image_like(values.astype(np.float32), mask) for name, values in data.items()} | {"mask": mask}
    return Comparison(found, clusters_of(found), permutations)


def clusters_of(maps: Mapping[str, Volume]) -> pd.DataFrame:
    """Return one row per cluster of significant voxels that share a face and a sign, the largest first."""
    import pandas as pd
    from scipy import ndimage

    t, logp = (np.asanyarray(maps[name].dataobj) for name in ("thresholded", "logp"))
    affine = maps["thresholded"].affine
    rows: list[dict[str, Any]] = []
    for direction, signed in (("positive", t > 0), ("negative", t < 0)):
        numbers, count = ndimage.label(signed)
        for number in range(1, count + 1):
            own = np.argwhere(numbers == number)
            values = np.abs(t[tuple(own.T)])
            peak = own[int(values.argmax())]
            x, y, z = (affine @ [*peak, 1.0])[:3]
            volume = len(own) * abs(float(np.linalg.det(affine[:3, :3])))
            rows.append(
                {
                    "direction": direction,
                    "x_mm": float(x),
                    "y_mm": float(y),
                    "z_mm": float(z),
                    "t": float(t[tuple(peak)]),
                    "p_corrected": float(10 ** -logp[tuple(own.T)].max()),
                    "volume_mm3": volume,
                }
            )
    rows.sort(key=lambda row: -row["volume_mm3"])
    rows = [{"cluster": place, **row} for place, row in enumerate(rows, start=1)]
    return pd.DataFrame(rows, columns=[name for name in CLUSTER_COLUMNS if name != "region"])


#: Columns of the table of clusters, and what they mean.
CLUSTER_COLUMNS = {
    "cluster": "Number, the largest cluster first.",
    "direction": "positive: higher in the first group, or with a larger covariate; negative: lower.",
    "x_mm": "Peak, to the right.",
    "y_mm": "Peak, to the front.",
    "z_mm": "Peak, upward.",
    "t": "t of the peak.",
    "p_corrected": "Smallest p in the cluster, corrected for the number of voxels by permutations of TFCE.",
    "volume_mm3": "Volume of the cluster.",
    "region": "Label of most scans at the peak.",
}


def with_regions(clusters: pd.DataFrame, maps: Sequence[ScanMap]) -> pd.DataFrame:
    """Return the clusters with the label that most of the scans have at the peak."""
    names = dict(zip(label_table()["index"], label_table()["region"], strict=True))
    places = clusters[["x_mm", "y_mm", "z_mm"]].to_numpy(float)
    votes: list[NDArray[np.integer]] = []
    for one in maps if len(places) else ():
        dseg = load_volume(one.dseg_file, ndim=3)
        at = np.rint((places - dseg.affine[:3, 3]) @ np.linalg.inv(dseg.affine[:3, :3]).T).astype(int)
        votes.append(label_array(dseg)[tuple(at.T)])
    return clusters.assign(region=[_most(column, names) for column in np.array(votes).T])


def _most(votes: NDArray[np.integer], names: Mapping[int, str]) -> str:
    labels, counts = np.unique(votes[votes > 0], return_counts=True)
    return str(names.get(int(labels[counts.argmax()]), "unknown")) if len(labels) else "unknown"
