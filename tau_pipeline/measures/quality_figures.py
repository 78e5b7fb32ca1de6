"""Figures of quality checks from images, under the names that they have in the sidecar of the SUVR map.

The checks and their limits are in `tau_pipeline.derivatives.quality_checks`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.foreground import box_around
from tau_pipeline.imaging.transforms import displacement_mm
from tau_pipeline.imaging.volume import Affine, Volume, voxel_size_mm

#: Shell around the brain in which meningeal uptake shows, mm from the mask.
_SHELL_MM = (2.0, 6.0)
#: A brain that ends within this distance of the end of the image is cut, mm: masks leave out a voxel there.
_AT_END_MM = 2.0
#: A voxel of a reference region is a hot spot if its uptake is above this multiple of the median of the region.
_HOT = 1.75
#: Slices of a distance transform at a time.
_SLAB = 40
#: Radius of a head, mm, by which rotations count as motion (Power et al. 2012, NeuroImage 59:2142).
_HEAD_RADIUS_MM = 50.0


def move(pet2t1w_xfm: Affine, mask: Volume) -> dict[str, float]:
    """Return by how much the coregistration moved the PET: ``RegistrationShift`` (mm) and ``RegistrationRotation`` (°).

    Parameters
    ----------
    pet2t1w_xfm
        ``(4, 4)``, PET world to T1w world, RAS+ mm.
    mask
        Brain mask on the T1w grid. The shift is that of its center, so that a turn of the head does not count twice.
    """
    center = _brain_points(mask).mean(axis=0, keepdims=True)
    shift = float(displacement_mm(_inverse(pet2t1w_xfm), np.eye(4), center)[0])
    cosine = (np.trace(pet2t1w_xfm[:3, :3]) - 1) / 2
    return {"RegistrationShift": shift, "RegistrationRotation": float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))}


def _inverse(xfm: Affine) -> Affine:
    return np.linalg.inv(xfm).astype(np.float64)


def _brain_points(mask: Volume) -> NDArray[np.float64]:
    """Return world coordinates of some thousand voxels of a mask ``(N, 3)``."""
    at = np.argwhere(np.asanyarray(mask.dataobj) > 0)
    if len(at) == 0:
        raise ImageError("the brain mask is empty; a mask with voxels is needed")
    at = at[:: max(1, len(at) // 20000)]
    return at @ mask.affine[:3, :3].T + mask.affine[:3, 3]


def motion_between(frame_xfms: Sequence[Affine], center: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return the motion from each frame to the next, ``FrameMotionBetween``, in mm.

    Parameters
    ----------
    frame_xfms
        One ``(4, 4)`` for each frame, in order of time: its world to that of the reference frame.
    center
        World coordinates of the center of the head, ``(3,)``.

    Returns
    -------
    dict
        Mean displacement of six points at 50 mm from the center, one number for each pair of frames.
    """
    points = center + _HEAD_RADIUS_MM * np.vstack([np.eye(3), -np.eye(3)])
    backward = [_inverse(xfm) for xfm in frame_xfms]
    pairs = itertools.pairwise(backward)
    return {"FrameMotionBetween": [float(displacement_mm(one, other, points).mean()) for one, other in pairs]}


def center_of(img: Volume) -> NDArray[np.float64]:
    """Return the world coordinates of an image's center of mass ``(3,)``; not finite and negative values count as 0."""
    data = np.nan_to_num(np.asanyarray(img.dataobj, dtype=np.float32), posinf=0, neginf=0).clip(0)
    return np.asarray(nib.affines.apply_affine(img.affine, ndimage.center_of_mass(data)))


def noise(pet_img: Volume, pet2t1w_xfm: Affine, mask: Volume) -> dict[str, float]:
    """Return the noise of a PET between neighboring voxels, ``NeighborNoise``, as a share of the brain's mean.

    The second difference along each axis removes the mean and the slope of the activity; of independent noise of
    standard deviation s it has the standard deviation s times the root of 6. The median of its absolute value is not
    affected by edges, which few voxels have (as Donoho and Johnstone 1994, Biometrika 81:425). Noise that the
    reconstruction has smoothed is underestimated.

    Parameters
    ----------
    pet_img
        3-D, on its own grid.
    pet2t1w_xfm
        ``(4, 4)``, PET world to T1w world.
    mask
        Brain mask on the T1w grid.
    """
    points = _brain_points(mask)
    to_voxel = np.linalg.inv(pet_img.affine) @ np.linalg.inv(pet2t1w_xfm)
    at = np.unique(np.rint(points @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int), axis=0)
    at = at[((at >= 1) & (at < np.array(pet_img.shape[:3]) - 1)).all(axis=1)]
    data = np.nan_to_num(np.asanyarray(pet_img.dataobj, dtype=np.float64))
    mean = float(data[tuple(at.T)].mean()) if len(at) else 0.0
    if mean <= 0:
        return {}
    steps = np.eye(3, dtype=int)
    second = [data[tuple((at + s).T)] - 2 * data[tuple(at.T)] + data[tuple((at - s).T)] for s in steps]
    sd = np.median(np.abs(np.concatenate(second))) / 0.6745 / np.sqrt(6)
    return {"NeighborNoise": float(sd / mean)}


def tissue_contrast(t1w: NDArray, tissue: NDArray) -> dict[str, float]:
    """Return the contrast of gray and white matter, ``CoefficientOfJointVariation`` (cjv of MRIQC).

    The sum of the standard deviations of white and gray matter over the difference of their means (Ganzetti et al.
    2016, Front Neuroinform 10:10); smaller is better.

    Parameters
    ----------
    t1w
        ``(I, J, K)``, bias-corrected.
    tissue
        Fractions of CSF, gray and white matter ``(I, J, K, 3)``; voxels of over 0.9 count.
    """
    gray, white = (np.asarray(t1w)[tissue[..., kind] > 0.9].astype(np.float64) for kind in (1, 2))
    if gray.size < 100 or white.size < 100 or gray.mean() == white.mean():
        return {}
    difference = abs(float(white.mean() - gray.mean()))
    return {"CoefficientOfJointVariation": float((white.std() + gray.std()) / difference)}


def cut_area(mask: Volume, measured: NDArray[np.bool_]) -> dict[str, float]:
    """Return the area over which a brain ends where its image ends, ``BrainCutArea``, in mm².

    Of the six sides, the one with the largest area counts: an image that was cropped to the brain touches it at all.

    Parameters
    ----------
    mask
        Brain mask on the T1w grid.
    measured
        ``(I, J, K)``, False where the image is filled.
    """
    brain, size = np.asanyarray(mask.dataobj) > 0, voxel_size_mm(mask)
    areas = []
    for axis in range(3):
        reach = max(1, round(_AT_END_MM / float(size[axis])))
        inside, beyond = np.moveaxis(brain, axis, 0), np.moveaxis(~measured, axis, 0)
        for side in (slice(None), slice(None, None, -1)):
            ends = np.concatenate([beyond[side], np.ones((reach, *beyond.shape[1:]), bool)])
            near = np.any([ends[step : step + len(inside)] for step in range(1, reach + 1)], axis=0)
            columns = np.count_nonzero((inside[side] & near).any(axis=0))
            areas.append(columns * float(np.prod(size)) / float(size[axis]))
    return {"BrainCutArea": float(max(areas))}


def hot_share(suvr: NDArray, reference: NDArray) -> dict[str, float]:
    """Return the share of a reference region that is hot, ``ReferenceRegionHot``.

    Hot is uptake of over 1.75 times the median of the region, which a spot in it hardly moves, as it moves the mean.

    Parameters
    ----------
    suvr
        ``(I, J, K)``; voxels that are not finite do not count.
    reference
        Boolean mask, same shape.
    """
    values = np.asarray(suvr)[reference]
    values = values[np.isfinite(values)].astype(np.float64)
    return {"ReferenceRegionHot": float((values > _HOT * np.median(values)).mean())} if values.size else {}


def shell_uptake(suvr: NDArray, brain: NDArray, img: Volume) -> dict[str, float]:
    """Return the mean SUVR 2 to 6 mm outside the brain mask, ``MeningealSUVR``: meninges, CSF, and skull.

    Parameters
    ----------
    suvr
        ``(I, J, K)``; voxels that are not finite or exactly 0 do not count.
    brain
        Brain mask, same shape.
    img
        Gives the size of the voxels.
    """
    size, inside, values = voxel_size_mm(img), np.asarray(brain) > 0, np.asarray(suvr)
    if not inside.any():
        return {}
    margin = np.ceil(_SHELL_MM[1] / size).astype(int) + 1
    box = box_around(inside, margin)
    inside, values = inside[box], values[box]
    parts = []
    # In slabs that see as far as the shell reaches: a distance transform takes 60 bytes per voxel.
    for first in range(0, inside.shape[2], _SLAB):
        below = min(first, int(margin[2]))
        seen = inside[:, :, first - below : first + _SLAB + margin[2]]
        if seen.any():
            away = ndimage.distance_transform_edt(~seen, sampling=size)[:, :, below : below + _SLAB]
            parts.append(values[:, :, first : first + _SLAB][(away >= _SHELL_MM[0]) & (away <= _SHELL_MM[1])])
    shell = np.concatenate(parts)
    shell = shell[np.isfinite(shell) & (shell != 0)]
    return {"MeningealSUVR": float(shell.mean(dtype=np.float64))} if shell.size else {}
