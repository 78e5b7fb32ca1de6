"""Motion between frames, and the static image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.foreground import largest_object
from tau_pipeline.imaging.resample import resample_measured
from tau_pipeline.imaging.rigid import register_rigid
from tau_pipeline.imaging.smooth import smooth
from tau_pipeline.imaging.transforms import displacement_mm
from tau_pipeline.imaging.volume import (
    Affine,
    Volume,
    finite,
    image_like,
)
from tau_pipeline.pet.field_of_view import frame_of
from tau_pipeline.pet.frames import FramePlan

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


def correct_motion(pet_img: Volume, plan: FramePlan, *, enabled: bool = True) -> Motion:
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
    """
    middle = len(plan.indices) // 2
    weights = np.array(plan.weights)
    at = min(np.flatnonzero(weights >= weights.max() - 1e-9), key=lambda i: abs(i - middle))
    still = np.eye(4)
    if len(plan.indices) == 1 or not enabled:
        return Motion((still,) * len(plan.indices), plan.indices[at], (0.0,) * len(plan.indices), ())
    measured = (frame_of(pet_img, index) for index in plan.indices)
    frames = [smooth(image_like(finite(frame.get_fdata()), frame), _MOTION_FWHM_MM) for frame in measured]
    head = _head(frames[at])
    points = np.argwhere(np.asanyarray(head.dataobj) > 0)[::50] @ head.affine[:3, :3].T + head.affine[:3, 3]
    moves, notes = [], []
    for i, frame in enumerate(frames):
        move = still
        if i != at:
            found = register_rigid(frame, frames[at], head, search="near")
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


def _head(frame: Volume) -> Volume:
    """Mask of a smoothed PET frame: above a third of its bright part, the largest piece."""
    data = np.asanyarray(frame.dataobj)
    head = largest_object(data, np.percentile(data, 99) / 3)
    if not head.any():
        raise ImageError("a PET frame is empty; look at the image")
    return image_like(ndimage.binary_fill_holes(head).astype(np.uint8), frame)


def static_image(pet_img: Volume, plan: FramePlan, motion: Motion) -> Volume:
    """Return the weighted mean of the frames, aligned with the reference frame, on the PET grid, for `coregister`.

    A voxel takes the mean of the frames that measured it, and 0 where none did. The SUVR image is not made from this,
    since that would interpolate twice.
    """
    total, known = np.zeros(pet_img.shape[:3], np.float32), np.zeros(pet_img.shape[:3], np.float32)
    for index, weight, move in zip(plan.indices, plan.weights, motion.frame_xfms, strict=True):
        frame = frame_of(pet_img, index)
        still = np.array_equal(move, np.eye(4))
        values = np.asanyarray((frame if still else resample_measured(frame, frame, move)).dataobj)
        total += weight * finite(values)
        known += weight * np.isfinite(values)
    return image_like(np.where(known > 0, total / np.maximum(known, 1e-6), 0).astype(np.float32), pet_img)
