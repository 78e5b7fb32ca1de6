"""Voxels that a PET measured: inside its field of view, and not filled by a scanner, defacing, or reconstruction.

A voxel that was not measured is NaN in every map, and counts in no mean (docs/decisions/field-of-view.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.volume import Affine, Volume, image_like, voxel_size_mm
from tau_pipeline.pet.frames import FramePlan

#: A voxel beside filled ones is bright above this part of the 99th percentile. The rim of air is far below it.
_BRIGHT = 0.1
#: Share of the voxels of a frame from which on its lowest value may be one that was filled in.
_COMMON = 0.002
#: SD of the Gaussian that weights the surroundings, by which filled voxels and air are distinguished, mm.
_SURROUNDINGS_MM = 8.0


def frame_of(pet_img: Volume, index: int) -> Volume:
    """Return one frame of a 3-D or 4-D PET image as a 3-D float32 image; what was not measured is NaN."""
    data = np.asanyarray(pet_img.dataobj)
    frame = (data if data.ndim == 3 else data[..., index]).astype(np.float32)
    frame[~measured_voxels(frame, voxel_size_mm(pet_img))] = np.nan
    return image_like(frame, pet_img)


def measured_voxels(frame: NDArray, size_mm: NDArray) -> NDArray[np.bool_]:
    """Return which voxels of a frame hold a measurement.

    NaN and infinities do not, nor do blocks of zeros that end sharply at bright voxels: they were filled. Zeros of the
    air do, since the blur of every scanner leads to them gradually. Some programs fill with another value, which is
    then the same in all of a block, and dark.

    Parameters
    ----------
    frame
        ``(I, J, K)`` on the grid of the PET, not smoothed.
    size_mm
        Lengths of the edges of a voxel.
    """
    known = np.isfinite(frame)
    measured = known.copy()
    for value in (0, *_other_fill(frame, known)):
        measured &= ~_filled(frame, known, value, size_mm)
    return measured


def _other_fill(frame: NDArray, known: NDArray[np.bool_]) -> list[float]:
    """Return the values other than 0 that parts of a frame may have been filled with: whole planes of one dark value.

    A value that is at least as common as `_COMMON` counts, too: filled parts of another shape.
    """
    found: set[float] = set()
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        low, high = frame.min(axis=others), frame.max(axis=others)
        found.update(low[low == high].tolist())
    values = frame if known.all() else frame[known]
    if values.size == 0:
        return []
    lowest = values.min()
    if lowest != 0 and np.count_nonzero(values == lowest) > _COMMON * frame.size:
        found.add(float(lowest))
    found -= {0.0}
    if not found or lowest == values.max():
        return []  # all of it is one value, beside which nothing was filled
    dark = _BRIGHT * np.percentile(values, 99)
    return sorted(value for value in found if value < dark)


def _filled(frame: NDArray, known: NDArray[np.bool_], value: float, size_mm: NDArray) -> NDArray[np.bool_]:
    """Return the blocks of one value that end sharply at bright voxels."""
    nowhere = np.zeros_like(known)
    fill = (frame == value) & known
    solid = _solid(fill)
    if not solid.any():
        return nowhere
    lit = known & ~fill
    if solid.all() or not lit.any():
        return solid
    bright = lit & (frame > _BRIGHT * np.percentile(frame[lit], 99))
    if not (ndimage.maximum_filter(solid, 3) & bright).any():
        return nowhere
    nearest = ndimage.distance_transform_edt(~lit, sampling=size_mm, return_distances=False, return_indices=True)
    sharp = solid & bright[tuple(nearest)]
    sigma = _SURROUNDINGS_MM / size_mm
    part, whole = (ndimage.gaussian_filter(one.astype(np.float32), sigma) for one in (sharp, solid))
    filled: NDArray[np.bool_] = solid & (part > 0.5 * whole)
    return filled


def _solid(fill: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return voxels of one value in blocks of 3 x 3 x 3 and their neighbors, and whole planes of them."""
    inside = ndimage.minimum_filter(fill, 3, mode="constant", cval=1)
    found = ndimage.maximum_filter(inside, 5) & fill
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found |= np.expand_dims(fill.all(axis=others), others)
    return found


def with_measured_frames(pet_img: Volume, plan: FramePlan) -> tuple[FramePlan, tuple[str, ...]]:
    """Leave out of a plan the frames that hold no measurement at all, and say so in a sentence.

    Parameters
    ----------
    pet_img
        ``(I, J, K[, T])``.
    plan
        From `tau_pipeline.pet.frames.plan_frames`.

    Raises
    ------
    ImageError
        No frame is left.
    """
    data = np.asanyarray(pet_img.dataobj)
    frames = [data if data.ndim == 3 else data[..., index] for index in plan.indices]
    kept = [place for place, frame in enumerate(frames) if np.any(np.isfinite(frame) & (frame != 0))]
    if len(kept) == len(frames):
        return plan, ()
    if not kept:
        raise ImageError("no PET frame of the window holds a value other than 0 or NaN; look at the image")
    weights = np.array([plan.weights[place] for place in kept])
    lost = ", ".join(str(plan.indices[place]) for place in range(len(frames)) if place not in kept)
    timed = [tuple(times[place] for place in kept) if times else () for times in (plan.starts_s, plan.durations_s)]
    left = replace(
        plan,
        indices=tuple(plan.indices[place] for place in kept),
        weights=tuple((weights / weights.sum()).tolist()),
        starts_s=timed[0],
        durations_s=timed[1],
    )
    return left, (f"PET frame {lost} (counted from 0) holds no measurement; the mean is that of the other frames.",)


def not_measured(
    brain: NDArray[np.bool_],
    measured: NDArray[np.bool_],
    affine: Affine,
    head_up: Sequence[float] = (0.0, 0.0, 1.0),
) -> dict[str, float]:
    """Return the shares of the brain that the PET did not measure, as they stand in the sidecar.

    Parameters
    ----------
    brain, measured
        ``(I, J, K)``, on one grid.
    affine
        ``(4, 4)`` to RAS+ mm.
    head_up
        Direction from the bottom to the top of the head in that world. It is the third axis if the header is right; the
        registration to the template gives it for any header.

    Returns
    -------
    dict
        ``BrainNotMeasuredTop`` and ``BrainNotMeasuredBottom``: share of the brain, 0 to 1, that lies above and below
        its middle and was not measured. Their sum is the share that was not measured.

    Raises
    ------
    ImageError
        The mask is empty.
    """
    at = np.argwhere(brain)
    if not len(at):
        raise ImageError("the brain mask is empty; a mask with voxels is needed")
    height = at @ (np.asarray(head_up) @ affine[:3, :3])
    top, lost = height > (height.min() + height.max()) / 2, ~measured[brain]
    return {
        "BrainNotMeasuredTop": float((lost & top).mean()),
        "BrainNotMeasuredBottom": float((lost & ~top).mean()),
    }
