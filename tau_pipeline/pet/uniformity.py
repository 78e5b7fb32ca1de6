"""Checks of the values of a PET: air is 0, and all slices have one scale.

A converter that loses the intercept of the DICOM image raises the whole image by a constant, and every ratio moves
towards 1. One that loses the slopes of slices, or a scan stitched from two bed positions of different scale, leaves
steps along the axis of the scanner. Neither changes the fit of PET and T1w much (docs/decisions/values-of-the-pet.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.derivatives.quality_checks import BY_NAME
from tau_pipeline.imaging.resample import Floats, Mask, resample_array
from tau_pipeline.imaging.smooth import smooth
from tau_pipeline.imaging.volume import Affine, Volume, finite, image_like, voxel_size_mm

#: Skull, scalp, and the blur of the scanner end above the brain within this distance of the brain, mm.
_AIR_MM = 25.0
#: Fewer voxels of air tell nothing; air of which less than the second part holds a value is 0.
_LEAST_AIR, _FILLED = 100, 0.05
#: Number of voxels that is enough for a precise median.
_ENOUGH = 200_000
#: Resolution to which the T1w is smoothed, FWHM in mm.
_T1W_FWHM_MM = 6.0
#: Voxels of neighboring slices are of one tissue if the T1w differs by less than this part of its spread in the brain.
_SAME_TISSUE = 0.15
#: Area of one tissue that two slices must share, and area in which a PET has about one independent value, mm².
_LEAST_AREA_MM2, _AREA_PER_VALUE_MM2 = 400.0, 40.0
#: Distance from the edge of the brain within which the blur of the scanner and an inexact mask lower the values, mm.
_EDGE_MM = 6.0
#: Extent along the axis over which anatomy and tracer change smoothly, and over which resampling spreads a step, mm.
_SMOOTH_MM, _STEP_MM = 20.0, 4.5
#: What stands beyond the ends of a row of slices, in SciPy's names.
_Border = Literal["nearest", "mirror"]
#: Slices whose maximum is this close to the largest have the same; those below the second part of it hold no head.
_SAME_MAXIMUM, _HEAD = 1e-3, 0.02
#: A median absolute deviation times this is the standard deviation of a normal distribution.
_SD_PER_MAD = 1.4826


def value_figures(pet: Volume, t1w: Volume, mask: Volume, pet2t1w: Affine, *, fits: bool = True) -> dict[str, float]:
    """Return the figures of the checks of a PET's values: ``AirActivity`` and ``SliceStep``.

    Parameters
    ----------
    pet
        ``(I, J, K)``, on its own grid, not smoothed; NaN and 0 where nothing was measured.
    t1w, mask
        ``(I, J, K)``, T1w and brain mask on one grid.
    pet2t1w
        ``(4, 4)``, PET world to T1w world.
    fits
        Whether the transform can be trusted. If not, slices are compared where the PET itself is bright, and air is not
        looked for.

    Returns
    -------
    dict
        ``AirActivity``: median of the air on the side of the head where it is nearest to 0, as a share of the mean of
        the brain. ``SliceStep``: largest change of scale from one slice to the next, as a share of the scale. What
        cannot be measured is left out.
    """
    if not fits:
        step = _largest_step(pet, _bright(pet), np.zeros(pet.shape[:3], np.float32), ("nearest",))
        return {"SliceStep": step} if math.isfinite(step) else {}
    brain = _on_pet(mask, pet, pet2t1w) > 0.5
    figures = {
        "AirActivity": _air(pet, brain, pet2t1w, _not_beyond(mask, pet, pet2t1w)),
        "SliceStep": _largest_step(
            pet,
            _on_pet(_depth_mm(mask), pet, pet2t1w) > _EDGE_MM,
            _on_pet(smooth(t1w, _T1W_FWHM_MM), pet, pet2t1w),
            ("nearest", "mirror"),
        ),
    }
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def same_maximum(pet: Volume, frames: Sequence[int]) -> dict[str, float]:
    """Return the largest share, 0 to 1, of slices of a frame whose maximum is that of the frame.

    DICOM PET is stored slice by slice in integers, and each slice is scaled to its own maximum. If the slopes are lost,
    all slices have one maximum; of a PET with its scale, only one slice has.

    Parameters
    ----------
    pet
        ``(I, J, K[, T])``, as it was read.
    frames
        Which frames are looked at, counted from 0.

    Returns
    -------
    dict
        ``SlicesOfOneMaximum``, of the slices that hold anything; empty if there are fewer than five of them.
    """
    data = np.asanyarray(pet.dataobj)
    axis = _axis_of_scanner(pet.affine)
    found = [_share_of_maximum(finite(data if data.ndim == 3 else data[..., index]), axis) for index in frames]
    known = [share for share in found if math.isfinite(share)]
    return {"SlicesOfOneMaximum": max(known)} if known else {}


def describe(figures: Mapping[str, float]) -> list[str]:
    """Return a sentence for each figure beyond its limits."""
    air, step, same = (
        BY_NAME[name].judge(BY_NAME[name].value(figures)) in ("warn", "fail")
        for name in ("air_percent", "slice_step_percent", "slice_same_maximum_percent")
    )
    found = []
    if air:
        found.append(
            f"The background is not zero: air outside the head has {figures['AirActivity']:.0%} of the mean of the "
            "brain. The whole PET seems to have an offset (the intercept was lost in the conversion), so that ratios "
            "are wrong; convert it again, or subtract the offset."
        )
    if step:
        found.append(
            f"The PET changes its scale by {figures['SliceStep']:.0%} from one slice to the next, where the tissue of "
            "the T1w does not change: the scale of a bed position, or the slope of slices, seems to be wrong. Convert "
            "or stitch it again."
        )
    if same:
        found.append(
            f"{figures['SlicesOfOneMaximum']:.0%} of the slices of the PET have the same maximum: the scale (slope) of "
            "each slice seems to have been lost in the conversion. Convert it again."
        )
    return found


def _on_pet(img: Volume, pet: Volume, pet2t1w: Affine) -> Floats:
    """Return an image of the T1w's world at the voxels of the PET, linearly interpolated."""
    to_voxel = np.linalg.inv(img.affine) @ pet2t1w @ pet.affine
    return resample_array(finite(np.asanyarray(img.dataobj)).astype(np.float32), to_voxel, pet.shape, order=1)


def _depth_mm(mask: Volume) -> Volume:
    """Return the distance of the voxels of a mask from the nearest voxel outside of it, mm; 0 outside.

    What lies beyond the image is not known, and does not count as outside.
    """
    inside = np.asanyarray(mask.dataobj) > 0
    depth = np.zeros(inside.shape, np.float32)
    # Around the brain only, which takes a third of the time.
    for box in ndimage.find_objects(ndimage.binary_dilation(inside).astype(np.uint8)):
        depth[box] = ndimage.distance_transform_edt(inside[box], sampling=voxel_size_mm(mask))
    return image_like(depth, mask)


def _not_beyond(mask: Volume, pet: Volume, pet2t1w: Affine) -> Mask:
    """Return the voxels of the PET that are certainly no brain where the mask has none.

    Where the mask reaches the end of the T1w, the brain may go on beyond it.
    """
    inside = np.asanyarray(mask.dataobj) > 0
    ends = [np.moveaxis(inside, axis, 0)[end] for axis in range(3) for end in (0, -1)]
    if not any(end.any() for end in ends):
        return np.ones(pet.shape[:3], bool)
    certain: Mask = _on_pet(image_like(np.ones(inside.shape, np.uint8), mask), pet, pet2t1w) > 0.5
    return certain


def _air(pet: Volume, brain: Mask, pet2t1w: Affine, certain: Mask) -> float:
    """Return the median of air as a share of the mean of the brain; NaN if there is too little of either.

    Air outside of ``certain`` does not count.

    Above the middle of the brain, nothing is warm more than 25 mm from it; below are face and neck. Which half is above
    is not known if the header is wrong: of both halves along each axis, the one nearest to 0 counts. An offset raises
    all of them. Zeros do not count, since scanners fill what is outside of their circle with them; where nearly all of
    the air is 0, so is its level.
    """
    data = finite(np.asanyarray(pet.dataobj))
    known = brain & (data != 0)
    if not known.any():
        return math.nan
    outside = (ndimage.distance_transform_edt(~brain, sampling=voxel_size_mm(pet)) > _AIR_MM) & certain
    mean = float(data[known].mean(dtype=np.float64))
    if mean <= 0:
        return math.nan
    turn = (pet2t1w @ pet.affine)[:3, :3]
    at = _some_voxels(outside)
    of_brain, of_air = (np.stack(one, axis=1) @ turn.T for one in (_some_voxels(brain), at))
    above = of_air > (of_brain.min(axis=0) + of_brain.max(axis=0)) / 2
    halves = [data[at][half] for half in (*above.T, *~above.T)]
    levels = [_level(air) / mean for air in halves if air.size >= _LEAST_AIR]
    return min(levels, key=abs) if levels else math.nan


def _some_voxels(where: Mask) -> tuple[NDArray[np.intp], ...]:
    """Return the indices of voxels, one array for each axis, evenly thinned out to some `_ENOUGH`."""
    found = np.flatnonzero(where)
    return np.unravel_index(found[:: max(1, len(found) // _ENOUGH)], where.shape)


def _level(air: Floats) -> float:
    """Return the median of what is not 0; 0 if nearly all is."""
    held = air[air != 0]
    return float(np.median(held)) if held.size > _FILLED * air.size else 0.0


def _bright(pet: Volume) -> Mask:
    """Return the voxels that are at least half as bright as the brightest of their slice, as those of a brain are.

    Each slice has its own scale, which may be wrong. Slices with few of them are left out: there the head ends.
    """
    axis = _axis_of_scanner(pet.affine)
    data = ndimage.uniform_filter(finite(np.asanyarray(pet.dataobj)), [1 if one == axis else 3 for one in range(3)])
    others = tuple(other for other in range(3) if other != axis)
    bright: Mask = data > np.maximum(0.5 * np.percentile(data, 99, axis=others, keepdims=True), 0)
    area = bright.sum(axis=others, keepdims=True)
    return bright & (area > 0.5 * area.max())


def _largest_step(pet: Volume, brain: Mask, t1w: Floats, borders: Sequence[_Border]) -> float:
    """Return the largest change of scale between slices that chance and anatomy do not explain; NaN if not known.

    Voxels of neighboring slices at one place are compared where the T1w has one tissue in both. Their ratio changes
    smoothly along the axis, by anatomy and tracer; what exceeds the running median is a step.

    At its ends the running median needs values beyond: that of the last slice, repeated, hides a step there, the
    mirrored ones show it, so the larger step of both ``borders`` counts. Where the brain is not known, what is mirrored
    gives false alarms.
    """
    axis = _axis_of_scanner(pet.affine)
    data = finite(np.asanyarray(pet.dataobj))
    step_mm = float(voxel_size_mm(pet)[axis])
    area_mm2 = float(np.prod(voxel_size_mm(pet))) / step_mm
    first = (axis, 0)
    ratios = _log_ratios(np.moveaxis(data, *first), np.moveaxis(t1w, *first), np.moveaxis(brain, *first), area_mm2)
    wide = 2 * max(1, round(_SMOOTH_MM / step_mm / 2)) + 1
    if len(ratios) < wide:
        return math.nan
    steps = []
    for mode in borders:
        sudden = ratios[:, 0] - ndimage.median_filter(ratios[:, 0], wide, mode=mode)
        for count in range(1, max(1, int(_STEP_MM / step_mm)) + 1):
            summed = np.convolve(sudden, np.ones(count), "valid")
            error = np.sqrt(np.convolve(ratios[:, 1] ** 2, np.ones(count), "valid"))
            steps.append(float(np.maximum(np.abs(summed) - 2 * error, 0).max()))
    return math.expm1(max(steps))


def _log_ratios(pet: Floats, t1w: Floats, brain: Mask, area_mm2: float) -> NDArray[np.float64]:
    """Return log ratios of slices to the ones before, and their standard errors, ``(N, 2)``; of slices that have any.

    Parameters
    ----------
    pet, t1w, brain
        ``(K, I, J)``, slices first.
    area_mm2
        Of a voxel, within a slice.
    """
    limit = _SAME_TISSUE * float(t1w[brain].std()) if brain.any() else 0.0
    limit = limit or math.inf
    found = []
    for k in range(len(pet) - 1):
        pair = brain[k] & brain[k + 1] & (pet[k] > 0) & (pet[k + 1] > 0) & (np.abs(t1w[k + 1] - t1w[k]) < limit)
        shared_mm2 = pair.sum() * area_mm2
        if shared_mm2 >= _LEAST_AREA_MM2:
            ratio = np.log(pet[k + 1][pair] / pet[k][pair])
            middle = float(np.median(ratio))
            spread = _SD_PER_MAD * float(np.median(np.abs(ratio - middle)))
            found.append((middle, spread / math.sqrt(shared_mm2 / _AREA_PER_VALUE_MM2)))
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _share_of_maximum(frame: Floats, axis: int) -> float:
    others = tuple(other for other in range(3) if other != axis)
    highest = frame.max(axis=others)
    holding = highest[highest > _HEAD * highest.max()]
    return float((holding > (1 - _SAME_MAXIMUM) * holding.max()).mean()) if len(holding) >= 5 else math.nan


def _axis_of_scanner(affine: Affine) -> int:
    """Return the axis of a grid that is nearest to the scanner's, which is the third of the world."""
    return int(np.argmax(np.abs(affine[2, :3]) / np.linalg.norm(affine[:3, :3], axis=0)))
