"""PET: frames to a static image, motion, coregistration with the T1w, one interpolation, SUVR.

The order of work: `plan_frames` says which frames count; `correct_motion` finds the rigid move of each onto one of
them; `static_image` averages them for `coregister` only; `pet_on_t1w` then goes back to the raw frames and brings each
to the T1w grid in one interpolation through the joined moves; `suvr` divides.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.errors import ImageError, ReferenceRegionError, RegistrationError
from tau_pipeline.imaging.rigid import Interpolation, Rigid, displacement_mm, register_rigid, resample
from tau_pipeline.imaging.volume import (
    Affine,
    Volume,
    finite,
    image_like,
    image_on,
    load_volume,
    require_same_grid,
    same_grid,
    voxel_size_mm,
)
from tau_pipeline.pet.frames import FramePlan, Window, default_window, frame_weights, plan_frames, tracer_name
from tau_pipeline.pet.resolution import smooth

__all__ = [
    "FramePlan",
    "Motion",
    "OnT1w",
    "Window",
    "brain_outside_pet",
    "coregister",
    "correct_motion",
    "default_window",
    "frame_weights",
    "labels_from_freesurfer",
    "pet_on_t1w",
    "plan_frames",
    "reference_value",
    "static_image",
    "suvr",
    "tracer_name",
]

#: Frames are smoothed by this much, in mm, to find motion; a five-minute frame is too noisy otherwise.
_MOTION_FWHM_MM = 6.0
#: Motion beyond this, in mm on average over the head, is flagged: attenuation correction no longer fits.
_LARGE_MOTION_MM = 5.0


@dataclass(frozen=True)
class Motion:
    """Rigid moves of the frames used.

    Parameters
    ----------
    frame_xfms
        One ``(4, 4)`` for each frame of the plan: frame's world to reference frame's world, RAS+ mm.
    reference
        Index, in the 4-D image, of the frame that the others were brought to.
    displacement_mm
        Mean displacement over the head for each frame of the plan, mm.
    assumptions
        Sentences on frames whose motion is large or could not be found; empty when all is well.
    """

    frame_xfms: tuple[Affine, ...]
    reference: int
    displacement_mm: tuple[float, ...]
    assumptions: tuple[str, ...]


@dataclass(frozen=True)
class OnT1w:
    """FreeSurfer's labels and brain mask on the T1w grid, and the move that brought them there."""

    dseg: Volume
    mask: Volume
    rigid: Rigid


def frame_of(pet_img: Volume, index: int) -> Volume:
    """One frame of a 3-D or 4-D PET image as a 3-D float32 image; NaN is kept."""
    data = np.asanyarray(pet_img.dataobj)
    frame = data if data.ndim == 3 else data[..., index]
    return image_like(frame.astype(np.float32), pet_img)


def correct_motion(pet_img: Volume, plan: FramePlan, *, enabled: bool = True, seed: int = 0) -> Motion:
    """Find the rigid motion between the frames that a plan uses.

    The reference is the frame that lasts longest, of equals the one nearest to the middle: it has most counts, and the
    others are nearest to it in time. It keeps its place, so that the coregistration is that of a real frame.

    Parameters
    ----------
    pet_img
        ``(I, J, K[, T])``.
    plan
        From `plan_frames`.
    enabled
        False, or one frame: every move is the identity.
    seed
        See `tau_pipeline.imaging.rigid.register_rigid`.
    """
    middle = len(plan.indices) // 2
    weights = np.array(plan.weights)
    at = min(np.flatnonzero(weights >= weights.max() - 1e-9), key=lambda i: abs(i - middle))
    still = np.eye(4)
    if len(plan.indices) == 1 or not enabled:
        return Motion((still,) * len(plan.indices), plan.indices[at], (0.0,) * len(plan.indices), ())
    frames = [smooth(image_like(finite(f.get_fdata()), f), _MOTION_FWHM_MM) for f in _frames(pet_img, plan)]
    head = _head(frames[at])
    points = np.argwhere(np.asanyarray(head.dataobj) > 0)[::50] @ head.affine[:3, :3].T + head.affine[:3, 3]
    moves, notes = [], []
    for i, frame in enumerate(frames):
        move = still
        if i != at:
            found = register_rigid(frame, frames[at], head, seed=seed, search="near")
            move = found.matrix if found.plausible else still
            if not found.plausible:
                notes.append(
                    f"The motion of frame {plan.indices[i]} was not found and was taken as none: {found.reason}."
                )
        moves.append(move)
    distances = [float(displacement_mm(move, still, points).mean()) for move in moves]
    if max(distances) > _LARGE_MOTION_MM:
        worst = plan.indices[int(np.argmax(distances))]
        notes.append(
            f"The head moved by {max(distances):.1f} mm in frame {worst}; attenuation correction may not fit it."
        )
    return Motion(tuple(moves), plan.indices[at], tuple(distances), tuple(notes))


def _frames(pet_img: Volume, plan: FramePlan) -> list[Volume]:
    return [frame_of(pet_img, index) for index in plan.indices]


def _head(frame: Volume) -> Volume:
    """Mask of a smoothed PET frame: above a third of its bright part, the largest piece."""
    data = np.asanyarray(frame.dataobj)
    bright = data > np.percentile(data, 99) / 3
    pieces, count = ndimage.label(bright)
    if count == 0:
        raise ImageError("a PET frame is empty; look at the image")
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return image_like(ndimage.binary_fill_holes(pieces == largest).astype(np.uint8), frame)


def static_image(pet_img: Volume, plan: FramePlan, motion: Motion) -> Volume:
    """Weighted mean of the frames in the reference frame's place, on the PET grid, for `coregister`.

    NaN counts as 0. The SUVR image is not made from this, since that would interpolate twice.
    """
    total = np.zeros(pet_img.shape[:3], np.float32)
    for index, weight, move in zip(plan.indices, plan.weights, motion.frame_xfms, strict=True):
        frame = frame_of(pet_img, index)
        still = np.array_equal(move, np.eye(4))
        total += weight * finite(np.asanyarray((frame if still else resample(frame, frame, move)).dataobj))
    return image_like(total, pet_img)


def coregister(pet_static: Volume, t1w: Volume, mask: Volume | None, *, seed: int = 0) -> Rigid:
    """Find the rigid move from PET world to T1w world.

    Parameters
    ----------
    pet_static
        3-D, from `static_image`; not skull-stripped.
    t1w
        3-D, full head or stripped.
    mask
        Brain mask on the T1w grid.
    seed
        See `tau_pipeline.imaging.rigid.register_rigid`, which also tells what is raised.
    """
    return register_rigid(pet_static, t1w, mask, seed=seed)


def pet_on_t1w(
    pet_img: Volume,
    plan: FramePlan,
    frame_xfms: Sequence[Affine],
    pet2t1w_xfm: Affine,
    t1w: Volume,
    fwhm_mm: float = 0.0,
    interpolation: Interpolation = "linear",
) -> Volume:
    """Mean activity in the window on the T1w grid; every frame is interpolated once, from its own grid.

    Smoothing is done before, on the PET grid: a Gaussian and a rigid move commute, the grid is a tenth of the size, and
    a smooth image loses less in the interpolation.

    Parameters
    ----------
    pet_img
        ``(I, J, K[, T])``, raw. NaN and infinities count as 0, or as their neighbours when smoothing; negative values
        are kept, since cutting them would bias means.
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
        See `tau_pipeline.imaging.rigid.resample`.

    Returns
    -------
    Volume
        float32 on the T1w grid, in the unit of ``pet_img``; 0 outside the PET's field of view.
    """
    if len(frame_xfms) != len(plan.indices):
        raise ImageError(f"{len(frame_xfms)} frame moves were given for {len(plan.indices)} frames; one each is needed")
    total = np.zeros(t1w.shape[:3], np.float32)
    for index, weight, move in zip(plan.indices, plan.weights, frame_xfms, strict=True):
        frame = smooth(frame_of(pet_img, index), fwhm_mm) if fwhm_mm else frame_of(pet_img, index)
        total += np.float32(weight) * np.asanyarray(resample(frame, t1w, pet2t1w_xfm @ move, interpolation).dataobj)
    return image_like(total, t1w)


def brain_outside_pet(pet_img: Volume, pet2t1w_xfm: Affine, mask: Volume) -> float:
    """Share of the brain, 0 to 1, that lies outside the PET's field of view, where `pet_on_t1w` gives 0.

    Parameters
    ----------
    pet_img
        ``(I, J, K[, T])``; only its grid is used.
    pet2t1w_xfm
        ``(4, 4)``, PET world to T1w world.
    mask
        Brain mask on the T1w grid.
    """
    to_voxel = np.linalg.inv(pet_img.affine) @ np.linalg.inv(pet2t1w_xfm) @ mask.affine
    at = np.argwhere(np.asanyarray(mask.dataobj) > 0) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    if len(at) == 0:
        raise ImageError("the brain mask is empty; a mask with voxels is needed")
    outside = (at < -0.5) | (at > np.array(pet_img.shape[:3]) - 0.5)
    return float(outside.any(axis=1).mean())


def reference_value(activity: NDArray, reference_region: NDArray) -> float:
    """Mean activity in a reference region.

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


def suvr(activity: NDArray, reference_region: NDArray) -> NDArray[np.float32]:
    """Standardised uptake value ratio: activity divided by its mean in a reference region.

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


def labels_from_freesurfer(
    labels_file: str | os.PathLike[str],
    brain_file: str | os.PathLike[str] | None,
    t1w: Volume,
    t1w_mask: Volume | None = None,
    *,
    mask_file: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> OnT1w:
    """Bring FreeSurfer's or FastSurfer's labels of a head onto the grid of its T1w.

    FreeSurfer keeps scanner coordinates, so that the headers alone usually place them; a registration checks that, and
    replaces it where it is wrong.

    Parameters
    ----------
    labels_file
        ``aparc+aseg`` or alike, ``.mgz`` or NIfTI.
    brain_file
        ``brain.mgz``: skull-stripped T1w on the grid of the labels. Without it an image is made from the labels.
        An image with skull will do where ``mask_file`` is given.
    t1w
        3-D, full head or stripped.
    t1w_mask
        Brain mask on the T1w grid, where there is one; the labels must overlap it.
    mask_file
        Above 0 inside the brain, on the grid of ``brain_file``: FastSurfer's ``mask.mgz``.
    seed
        See `tau_pipeline.imaging.rigid.register_rigid`.

    Raises
    ------
    RegistrationError
        The labels do not fit this T1w: another head, or a failed registration.
    GridMismatchError
        ``mask_file`` is not on the grid of ``brain_file``.
    """
    labels = load_volume(labels_file, 3)
    numbers = np.asanyarray(labels.dataobj)
    if not (numbers > 0).any():
        raise ImageError(f"{labels_file} holds no labels")
    brain = load_volume(brain_file, 3) if brain_file is not None else _brain_from_labels(labels)
    if mask_file is not None:
        brain = _stripped(brain, load_volume(mask_file, 3))
    rigid = _labels_to_t1w(brain, t1w, seed)
    if not rigid.plausible:
        raise RegistrationError(f"{labels_file} does not fit the T1w: {rigid.reason}; is it of the same participant?")
    as_int = image_on(np.rint(numbers).astype(np.int32), labels.affine)
    dseg = as_int if same_grid(labels, t1w) and _is_still(rigid) else resample(as_int, t1w, rigid.matrix, "nearest")
    inside = image_on((np.asanyarray(brain.dataobj) > 0).astype(np.uint8), brain.affine)
    covered = np.asanyarray(resample(inside, t1w, rigid.matrix, "nearest").dataobj) > 0
    mask = _filled(covered | (np.asanyarray(dseg.dataobj) > 0), voxel_size_mm(t1w))
    _require_overlap(mask, t1w_mask, labels_file)
    return OnT1w(image_like(np.asanyarray(dseg.dataobj), t1w), image_like(mask.astype(np.uint8), t1w), rigid)


def _stripped(brain: Volume, mask: Volume) -> Volume:
    require_same_grid(brain=brain, mask=mask)
    return image_like(np.where(np.asanyarray(mask.dataobj) > 0, np.asanyarray(brain.dataobj), 0), brain)


def _is_still(rigid: Rigid) -> bool:
    return np.array_equal(rigid.matrix, np.eye(4))


def _brain_from_labels(labels: Volume) -> Volume:
    """Crude T1w from FreeSurfer numbers: white matter bright, grey matter darker, ventricles dark."""
    numbers = np.asanyarray(labels.dataobj)
    image = np.where(numbers > 0, 70, 0).astype(np.uint8)
    image[np.isin(numbers, (2, 41, 7, 46, 16, 77, 85, 28, 60)) | ((numbers >= 251) & (numbers <= 255))] = 110
    image[np.isin(numbers, (4, 43, 5, 44, 14, 15, 24, 31, 63))] = 30
    return image_on(image, labels.affine)


def _labels_to_t1w(brain: Volume, t1w: Volume, seed: int) -> Rigid:
    """Move from the labels' world to the T1w's; the identity where a registration finds nothing better."""
    mask = image_on((np.asanyarray(brain.dataobj) > 0).astype(np.uint8), brain.affine)
    voxels = np.argwhere(np.asanyarray(mask.dataobj) > 0)[::997]
    points = voxels @ brain.affine[:3, :3].T + brain.affine[:3, 3]
    # the stripped image is the fixed one: its mask is known, and the T1w may have a skull
    found = register_rigid(t1w, brain, mask, seed=seed, search="near")
    if not found.plausible or found.metric < _SAME_HEAD_NMI:
        found = register_rigid(t1w, brain, mask, seed=seed)
    matrix = np.linalg.inv(found.matrix).astype(np.float64)
    if displacement_mm(matrix, np.eye(4), points).mean() < 0.5 * float(voxel_size_mm(brain).min()):
        matrix = np.eye(4)
    reason = found.reason
    if not reason and found.metric < _SAME_HEAD_NMI:
        reason = f"the normalised mutual information is {found.metric:.3f}, and one head gives {_SAME_HEAD_NMI} or more"
    return Rigid(matrix, found.metric, found.starts, not reason, reason)


#: Two T1w-like images of one head share more than this, those of two heads less: in our trials 1.20 and more, with the
#: crude image made from labels too, and 1.064 and 1.095.
_SAME_HEAD_NMI = 1.15


def _filled(mask: NDArray[np.bool_], voxel_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask without holes and without clefts narrower than about 4 mm."""
    steps = max(1, round(2.0 / float(voxel_mm.min())))
    padded = np.pad(mask, steps)
    closed = ndimage.binary_closing(padded, iterations=steps)
    inner = tuple(slice(steps, -steps) for _ in range(3))
    return ndimage.binary_fill_holes(closed)[inner]


def _require_overlap(mask: NDArray[np.bool_], t1w_mask: Volume | None, labels_file: str | os.PathLike[str]) -> None:
    if t1w_mask is None:
        return
    own = np.asanyarray(t1w_mask.dataobj) > 0
    dice = 2 * float((mask & own).sum()) / max(1, int(mask.sum() + own.sum()))
    if dice < 0.8:
        raise RegistrationError(
            f"the brain of {labels_file} and that of the T1w overlap with a Dice of {dice:.2f} only; 0.8 is needed: "
            "is it of the same participant?"
        )
