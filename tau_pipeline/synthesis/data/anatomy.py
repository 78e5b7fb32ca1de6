"""Measure what a model may know of a participant beside the T1w: volumes of labels, where they lie, age, and sex."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import label_array
from tau_pipeline.imaging.volume import Volume, voxel_volume_mm3
from tau_pipeline.synthesis.data.placement import Placement, to_grid

#: Names of the covariates: age in years; 1 for women and 0 for men.
AGE, SEX = "age", "sex"
_THICKNESS = "thickness_"


@dataclass(frozen=True)
class Anatomy:
    """Labels and covariates of one participant.

    Attributes
    ----------
    labels
        ``(I, J, K)`` FreeSurfer numbers on a model's grid.
    volumes
        mm3 of each label inside the brain mask, on the T1w's own grid; 0 is brain without a label.
    covariates
        Numbers by name (`AGE`, `SEX`, `thickness_name`); what is not known is not there.
    """

    labels: NDArray[np.integer]
    volumes: Mapping[int, float]
    covariates: Mapping[str, float]


def thickness_name(label: int) -> str:
    """Return the name of the covariate that is the thickness of the cortex in a region, in mm."""
    return f"{_THICKNESS}{label}"


def thickness_labels(covariates: Iterable[str]) -> list[int]:
    """Return the regions whose thickness is among covariates, by their names."""
    return [int(name.removeprefix(_THICKNESS)) for name in covariates if name.startswith(_THICKNESS)]


def anatomy_of(
    dseg_img: Volume, mask_img: Volume, placement: Placement, covariates: Mapping[str, float] | None = None
) -> Anatomy:
    """Measure the labels of a participant, and bring them onto a model's grid.

    Parameters
    ----------
    dseg_img, mask_img
        Labels and brain mask on the T1w's grid.
    placement
        Where the model's grid lies on it.
    covariates
        As in `Anatomy`.
    """
    labels = to_grid(Volume(label_array(dseg_img), dseg_img.affine), placement, labels=True)
    return Anatomy(labels, label_volumes(dseg_img, mask_img), dict(covariates or {}))


def label_volumes(dseg_img: Volume, mask_img: Volume) -> dict[int, float]:
    """Return the volume in mm3 of each label inside the brain mask; 0 is brain without a label."""
    inside = np.asanyarray(mask_img.dataobj) > 0
    numbers, counts = np.unique(label_array(dseg_img)[inside], return_counts=True)
    voxel = voxel_volume_mm3(mask_img)
    return {int(number): float(count * voxel) for number, count in zip(numbers, counts, strict=True)}


def label_means(values: NDArray, labels: NDArray[np.integer], inside: NDArray[np.bool_]) -> dict[int, float]:
    """Return the mean of each label over the voxels ``inside``; arrays ``(I, J, K)``, 0 is brain without a label."""
    numbers, place = np.unique(labels[inside], return_inverse=True)
    counts = np.bincount(place.ravel(), minlength=len(numbers))
    sums = np.bincount(place.ravel(), values[inside].astype(np.float64), minlength=len(numbers))
    return {int(number): float(total / n) for number, total, n in zip(numbers, sums, counts, strict=True)}
