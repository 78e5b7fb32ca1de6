"""Hot spots of uptake around the brain, in meninges and skull, as regions of their own.

The shells around the brain have one value each. Where the meninges bind much of the tracer, as with MK-6240, that is
wrong, and the cortex beside them is given what spills into it. Baker et al. 2017 (Data in Brief 15:648) therefore made
such spots regions of the model. Here they are found in what the brain does not explain: the PET minus the image of the
brain's regions, over the share of each voxel that is outside the brain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.pvc.methods import least_squares
from tau_pipeline.pvc.model import Blurred, blur_regions
from tau_pipeline.pvc.regions import HOT_SPOTS, SHELLS_MM, SMALLEST_MM3, Box, Floats, RegionModel

#: Spots are looked for up to this distance from the brain, mm.
_FURTHEST_MM = 6.0
#: A voxel belongs to a spot if its activity is above this multiple of the median around the brain.
_ABOVE_MEDIAN = 1.5
#: Share of a voxel's signal that must come from outside the brain for its activity there to be known.
_ENOUGH_OUTSIDE = 0.3
#: The largest spots are taken; more would leave too little for the shells.
_MOST_SPOTS = 30


def with_hot_spots(model: RegionModel, pet: Floats, fwhm_mm: Sequence[float]) -> RegionModel:
    """Return the regions with hot spots around the brain as further regions, taken from the shells.

    Parameters
    ----------
    model
        Regions without hot spots.
    pet
        PET on the part, as `RegionModel.cut` gives it.
    fwhm_mm
        Point spread along the three axes of the PET grid.

    Returns
    -------
    RegionModel
        Hot spots are connected voxels of at least `SMALLEST_MM3`; they have the numbers from `HOT_SPOTS` on, the
        largest first. The same regions if there is none.
    """
    outside = _activity_outside(blur_regions(model, pet, fwhm_mm), blur_regions(model, pet, fwhm_mm, reached=0.0))
    near = (model.distance_mm > 0) & (model.distance_mm <= _FURTHEST_MM) & np.isfinite(outside)
    usual = float(np.median(outside[near])) if near.any() else 0.0
    if not usual > 0:
        return model
    labels, _ = ndimage.label(near & (outside > _ABOVE_MEDIAN * usual), structure=np.ones((3, 3, 3)))
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    enough = counts * float(np.prod(model.voxel_mm)) >= SMALLEST_MM3
    largest = [int(one) for one in np.argsort(-counts, kind="stable") if enough[one]][:_MOST_SPOTS]
    return _taken_from_shells(model, labels, largest)


def _activity_outside(near: Blurred, blurred: Blurred) -> NDArray[np.float64]:
    """Return the activity outside the brain in each voxel of the part; NaN where too little of it is outside.

    The values of the brain are those of the voxels ``near`` it; ``blurred`` has all voxels.
    """
    brain = np.array([number < min(SHELLS_MM) for number in blurred.model.numbers])
    of_brain = blurred.columns[:, np.flatnonzero(brain)]
    values = np.nan_to_num(least_squares(near).values[brain])
    share = 1 - np.asarray(of_brain.sum(axis=1)).ravel()
    image = np.full(blurred.model.shape, np.nan)
    rest = blurred.pet - of_brain @ values
    image[blurred.rows] = np.where(share > _ENOUGH_OUTSIDE, rest / np.maximum(share, _ENOUGH_OUTSIDE), np.nan)
    return image


def _taken_from_shells(model: RegionModel, labels: NDArray[np.integer], chosen: list[int]) -> RegionModel:
    """Return the model in which the voxels of each chosen label are a region, and no longer of a shell."""
    if not chosen:
        return model
    found = ndimage.find_objects(labels)
    spots: list[tuple[int, Box, Floats]] = []
    shells = {number: model.fractions[model.numbers.index(number)].copy() for number in SHELLS_MM}
    for rank, label in enumerate(chosen):
        i, j, k = found[label - 1]
        own = labels[i, j, k] == label
        spots.append((HOT_SPOTS + rank, (i, j, k), np.where(own, sum(one[i, j, k] for one in shells.values()), 0.0)))
        for one in shells.values():
            one[i, j, k][own] = 0.0
    kept = (shells.get(number, own) for number, own in zip(model.numbers, model.fractions, strict=True))
    return replace(
        model,
        numbers=(*model.numbers, *(number for number, _, _ in spots)),
        boxes=(*model.boxes, *(box for _, box, _ in spots)),
        fractions=(*kept, *(fraction.astype(np.float32) for _, _, fraction in spots)),
    )
