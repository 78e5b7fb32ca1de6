"""PET: frames to a static image, motion, coregistration with the T1w, one interpolation, SUVR.

Order of processing: `plan_frames` selects the frames; `correct_motion` finds the rigid transform of each to one of
them; `static_image` averages them for `coregister` only; `pet_on_t1w` then resamples each raw frame to the T1w grid in
one interpolation through the composed transforms; `suvr` divides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import ImageError, ReferenceRegionError
from tau_pipeline.imaging.resample import Interpolation, resample_measured
from tau_pipeline.imaging.smooth import smooth
from tau_pipeline.imaging.volume import (
    Affine,
    Volume,
    image_like,
)
from tau_pipeline.imaging.warp import Points, sample_measured
from tau_pipeline.pet.field_of_view import frame_of
from tau_pipeline.pet.frames import FramePlan


def pet_on_t1w(
    pet_img: Volume,
    plan: FramePlan,
    frame_xfms: Sequence[Affine],
    pet2t1w_xfm: Affine,
    t1w: Volume,
    fwhm_mm: float = 0.0,
    interpolation: Interpolation = "linear",
) -> Volume:
    """Return mean activity in the window on the T1w grid; each frame is interpolated once, from its own grid.

    Smoothing is done before, on the PET grid: a Gaussian and a rigid transform commute, the grid is a tenth of the
    size, and a smooth image loses less in the interpolation.

    Parameters
    ----------
    pet_img
        ``(I, J, K[, T])``, raw. What `tau_pipeline.pet.field_of_view.measured_voxels` excludes enters neither the
        interpolation nor the smoothing; negative values are kept, since clipping them would bias means.
    plan
        Frames and weights.
    frame_xfms
        One ``(4, 4)`` for each frame of the plan, to the reference frame.
    pet2t1w_xfm
        ``(4, 4)``, reference frame's world to T1w world.
    t1w
        Gives the grid.
    fwhm_mm
        Gaussian to smooth by; 0 for none.
    interpolation
        See `tau_pipeline.imaging.resample.resample`.

    Returns
    -------
    Volume
        float32 on the T1w grid, in the unit of ``pet_img``; NaN where a frame of the plan measured nothing, since the
        mean over the window is not known there.
    """
    total = np.zeros(t1w.shape[:3], np.float32)
    for frame, weight, frame_xfm in weighted_frames(pet_img, plan, frame_xfms, fwhm_mm):
        on_t1w = resample_measured(frame, t1w, pet2t1w_xfm @ frame_xfm, interpolation)
        total += np.float32(weight) * np.asanyarray(on_t1w.dataobj)
    return image_like(total, t1w)


def pet_at(
    pet_img: Volume,
    plan: FramePlan,
    frame_xfms: Sequence[Affine],
    pet2t1w_xfm: Affine,
    points: Points,
    fwhm_mm: float = 0.0,
) -> NDArray[np.float32]:
    """Return mean activity in the window at points of the T1w's world; each frame is interpolated once, linearly.

    This is `pet_on_t1w` for grids that a nonlinear transform leads to, such as that of a template.

    Parameters
    ----------
    pet_img, plan, frame_xfms, pet2t1w_xfm, fwhm_mm
        As there.
    points
        ``(I, J, K, 3)``, mm, RAS+, from `tau_pipeline.imaging.warp.points_through`.

    Returns
    -------
    ndarray
        ``(I, J, K)``, NaN where a frame of the plan measured nothing.
    """
    total = np.zeros(points.shape[:3], np.float32)
    for frame, weight, frame_xfm in weighted_frames(pet_img, plan, frame_xfms, fwhm_mm):
        total += np.float32(weight) * sample_measured(frame, points, pet2t1w_xfm @ frame_xfm)
    return total


def weighted_frames(
    pet_img: Volume, plan: FramePlan, frame_xfms: Sequence[Affine], fwhm_mm: float
) -> Iterator[tuple[Volume, float, Affine]]:
    """Return each frame of a plan, smoothed, with its weight and its transform; the arguments are `pet_on_t1w`'s."""
    if len(frame_xfms) != len(plan.indices):
        raise ImageError(
            f"{len(frame_xfms)} frame transforms were given for {len(plan.indices)} frames; expected: one per frame"
        )
    for index, weight, frame_xfm in zip(plan.indices, plan.weights, frame_xfms, strict=True):
        frame = frame_of(pet_img, index)
        yield smooth(frame, fwhm_mm) if fwhm_mm else frame, weight, frame_xfm


def reference_value(activity: NDArray, reference_region: NDArray) -> float:
    """Return the mean activity in a reference region.

    Parameters
    ----------
    activity
        ``(I, J, K)``, any unit.
    reference_region
        ``(I, J, K)``, boolean or 0 and 1, on the same grid.

    Raises
    ------
    ReferenceRegionError
        The shapes differ; the region is empty or holds values other than 0 and 1; the activity in it is not finite, or
        its mean is not positive.
    """
    activity, region = np.asarray(activity), np.asarray(reference_region)
    if activity.shape != region.shape:
        raise ReferenceRegionError(
            f"the reference region has shape {region.shape} and the activity {activity.shape}; both must be on one grid"
        )
    if region.dtype != bool and not np.isin(np.unique(region), (0, 1)).all():
        raise ReferenceRegionError("the reference region holds values other than 0 and 1; a mask is needed")
    values = activity[region.astype(bool)].astype(np.float64)
    if values.size == 0:
        raise ReferenceRegionError("the reference region is empty; choose another one or check the labels")
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ReferenceRegionError(f"{count} of {values.size} voxels of the reference region hold NaN or infinity")
    mean = float(values.mean())
    if mean <= 0:
        raise ReferenceRegionError(f"the mean activity in the reference region is {mean:g}; a positive one is needed")
    return mean


def mean_of_parts(activity: NDArray, parts: NDArray[np.integer]) -> float:
    """Return the mean activity in a reference region whose parts count equally: the mean of their means.

    Parameters
    ----------
    activity
        ``(I, J, K)``.
    parts
        ``(I, J, K)``: number of the part of each voxel, 0 outside the region. With one part it is `reference_value`.

    Raises
    ------
    ReferenceRegionError
        See `reference_value`.

    >>> mean_of_parts(np.array([[[1.0, 1.0, 4.0]]]), np.array([[[1, 1, 2]]]))
    2.5
    """
    numbers = np.unique(parts[parts > 0]).tolist() or [1]
    return float(np.mean([reference_value(activity, parts == number) for number in numbers]))


def suvr(activity: NDArray, reference_region: NDArray) -> NDArray[np.float32]:
    """Return the standardized uptake value ratio: activity divided by its mean in a reference region.

    Parameters
    ----------
    activity
        ``(I, J, K)``, any unit; it is not changed. NaN outside the region stays NaN.
    reference_region
        ``(I, J, K)``, boolean.

    Raises
    ------
    ReferenceRegionError
        See `reference_value`.

    >>> suvr(np.array([[[1.0, 2.0, 4.0]]]), np.array([[[False, True, False]]]))
    array([[[0.5, 1. , 2. ]]], dtype=float32)
    """
    return (np.asarray(activity) / reference_value(activity, reference_region)).astype(np.float32)
