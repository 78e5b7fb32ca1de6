"""Measure what a model may know of a participant beside the T1w: volumes of labels, where they lie, age, and sex."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import label_array
from tau_pipeline.cohort.demographics import Demographics
from tau_pipeline.imaging.volume import Volume, voxel_volume_mm3
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.placement import Placement, to_grid

#: Names of the covariates: age in years; 1 for women and 0 for men.
AGE, SEX = "age", "sex"


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
        Numbers by name (`AGE`, `SEX`); what is not known is not there.
    """

    labels: NDArray[np.integer]
    volumes: Mapping[int, float]
    covariates: Mapping[str, float]


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


def covariates_of(demographics: Demographics, participant_id: str, session_id: str | None) -> dict[str, float]:
    """Return age and sex of a scan as numbers; what is missing, or is neither female nor male, is left out.

    Parameters
    ----------
    demographics
        Of the dataset.
    participant_id, session_id
        With their prefixes; the session is None where there are none.
    """
    stated = demographics.of(participant_id, session_id)
    found = {}
    if isinstance(stated["age"], int | float) and math.isfinite(stated["age"]):
        found[AGE] = float(stated["age"])
    word = re.sub(r"[^a-z]", "", str(stated["sex"]).lower())
    if word in ("f", "female", "w", "woman", "m", "male", "man"):
        found[SEX] = float(word[0] in "fw")
    return found


def with_covariates(pairs: Sequence[Pair], demographics: Demographics) -> list[Pair]:
    """Return the pairs with age and sex as far as they are known."""
    return [
        replace(
            pair,
            covariates=covariates_of(
                demographics, pair.participant_id, f"ses-{pair.session}" if pair.session else None
            ),
        )
        for pair in pairs
    ]
