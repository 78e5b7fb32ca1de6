"""Rigid registration by mutual information, from many starts; ITK transform files; resampling.

A rigid move is a 4x4 matrix that takes moving-world points to fixed-world points (RAS+, mm): it *moves the image*.
ITK files hold the opposite, the map that resampling needs: fixed points to moving points, in LPS+ mm.

The optimizer is ANTs' (Mattes mutual information; Avants et al. 2011, NeuroImage 54:2033). What is ours is where it
starts: a coarse scan of normalized mutual information (Studholme, Hill & Hawkes 1999, Pattern Recognit. 32:71) over
rotations and shifts, so that the optimizer begins inside its range of capture; and the check of where it ended.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.errors import ImageError, RegistrationError
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.transforms import Points, displacement_mm, load_itk, rotation_matrix, save_itk
from tau_pipeline.imaging.volume import (
    Affine,
    Volume,
    finite,
    image_like,
    image_on,
    require_same_grid,
    to_ants,
    voxel_size_mm,
)

Array = NDArray[np.float32]

#: Joint histograms have this many bins a side; 32 is the habit since Mattes et al. 2003, IEEE TMI 22:120.
_BINS = 32
#: Grid of the last step and of the metric that is stored; PET resolves 4 mm at best, so finer adds time only.
_FINE_MM = 2.0
_COARSE_MM = 6.0
#: How far around the brain the metric looks: the edge of the brain against air and scalp holds much of the information.
_RIM_MM = 10.0
_ANGLES_DEG = (-22.0, 0.0, 22.0)
_SHIFTS_MM = (-18.0, 0.0, 18.0)
#: PET and T1w of one head reach 1.08 or more in our trials, a PET turned by 90 or 180 degrees 1.02 to 1.037.
_LEAST_NMI = 1.04
#: Number of the best starts that are refined on the coarse grid, and of these again on the fine one.
_REFINED = 6


@dataclass(frozen=True)
class Rigid:
    """Result of a rigid registration.

    Parameters
    ----------
    matrix
        ``(4, 4)``, moving world to fixed world, RAS+ mm.
    metric
        Normalized mutual information ``(H(a) + H(b)) / H(a, b)`` after registration, on a 2 mm grid over the fixed
        mask and a rim of 10 mm: 1 when the images know nothing of each other, 2 when each is a function of the other.
    starts
        Number of starting poses that were tried.
    plausible
        False when the fit must not be trusted.
    reason
        Why not; empty when plausible.
    """

    matrix: Affine
    metric: float
    starts: int
    plausible: bool
    reason: str


@dataclass(frozen=True)
class _Pair:
    """Images as the search sees them: the fixed one on a 2 mm grid with its mask and the mask with a rim."""

    fixed: Volume
    mask: Volume
    rim: Volume
    moving: Volume


@dataclass(frozen=True)
class _Sampled:
    """Fixed points with their values, and the moving image that is looked up there."""

    points: Points
    values: NDArray[np.int64]
    inside: NDArray[np.bool_]
    moving: Array
    world_to_voxel: Affine
    top: float


def register_rigid(
    moving: Volume,
    fixed: Volume,
    fixed_mask: Volume | None = None,
    *,
    seed: int = 0,
    search: Literal["wide", "near"] = "wide",
) -> Rigid:
    """Find the rigid move that brings ``moving`` onto ``fixed``.

    Parameters
    ----------
    moving
        3-D image, e.g. PET. NaN and negative values count as 0.
    fixed
        3-D image, e.g. T1w.
    fixed_mask
        Brain mask on the grid of ``fixed``. Without it, the voxels above the image's mean.
    seed
        Seed of the optimiser's sampling; the same seed and one ITK thread give the same result to the last bit.
    search
        ``wide`` finds offsets of 40 mm and 25 degrees and more. ``near`` begins only where the headers put the
        images: for frames of one scan.

    Raises
    ------
    ImageError
        An image is not 3-D, or is constant; or the mask is empty.
    GridMismatchError
        The mask is not on the grid of ``fixed``.
    RegistrationError
        The optimizer itself failed. A bad fit is no error here but ``plausible=False`` with a reason.
    """
    mask = _mask_or_threshold(fixed, fixed_mask)
    pair = _Pair(*_fixed_for_search(fixed, mask), _moving_for_search(moving))
    fine = _sample(pair, _FINE_MM)
    if search == "near":
        starts = [np.eye(4)]
        matrix = _optimise(pair, starts[0], seed, "near")
    else:
        coarse = _sample(pair, _COARSE_MM)
        starts = _poses(pair.moving, coarse)
        scores = np.array([_nmi(coarse, pose) for pose in starts])
        best = _apart([starts[i] for i in np.argsort(-scores, kind="stable")], coarse.points, _REFINED)
        roughly = [_optimise(pair, pose, seed, "rough") for pose in best]
        matrix = _optimise(pair, max(roughly, key=lambda pose: _nmi(coarse, pose)), seed, "fine")
    metric = _nmi(fine, matrix)
    reason = _why_implausible(fine, matrix, metric)
    return Rigid(matrix, metric, len(starts), not reason, reason)


def _mask_or_threshold(fixed: Volume, fixed_mask: Volume | None) -> Volume:
    if len(fixed.shape) != 3:
        raise ImageError(f"the fixed image has shape {fixed.shape}; a 3-D image is needed")
    if fixed_mask is None:
        data = finite(np.asanyarray(fixed.dataobj))
        fixed_mask = image_like(data > data.mean(), fixed)
    require_same_grid(fixed=fixed, fixed_mask=fixed_mask)
    if not np.asanyarray(fixed_mask.dataobj).any():
        raise ImageError("the mask of the fixed image is empty; expected: a brain mask with voxels")
    return fixed_mask


def _fixed_for_search(fixed: Volume, mask: Volume) -> tuple[Volume, Volume, Volume]:
    """Return fixed image, mask and mask with rim, cropped to the rim and on an axis-aligned 2 mm grid."""
    voxels = np.argwhere(np.asanyarray(mask.dataobj) > 0)
    points = voxels @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    low = points.min(axis=0) - _RIM_MM - 2 * _FINE_MM
    high = points.max(axis=0) + _RIM_MM + 2 * _FINE_MM
    shape = np.ceil((high - low) / _FINE_MM).astype(int)
    affine = np.diag([_FINE_MM] * 3 + [1.0])
    affine[:3, 3] = low
    like = image_on(np.zeros(shape, np.uint8), affine)
    sharp = finite(np.asanyarray(fixed.dataobj))
    # half of the target voxel, so that sampling at 2 mm does not alias a 0.7 mm image
    blurred = ndimage.gaussian_filter(sharp, np.maximum(0.0, 0.5 * _FINE_MM / voxel_size_mm(fixed) - 0.4), truncate=3.0)
    inside = np.asanyarray(resample(mask, like, np.eye(4), "nearest").dataobj) > 0
    rim = ndimage.distance_transform_edt(~inside) * _FINE_MM <= _RIM_MM
    on_grid = np.asanyarray(resample(image_like(blurred, fixed), like, np.eye(4)).dataobj)
    if on_grid[rim].std() == 0:
        raise ImageError("the fixed image is constant inside its mask; there is nothing to register to")
    return image_like(on_grid * rim, like), image_like(inside, like), image_like(rim, like)


def _moving_for_search(moving: Volume) -> Volume:
    """Return the moving image, NaN and negative values 0, highest 0.1 % clipped, not finer than about 2 mm."""
    if len(moving.shape) != 3:
        raise ImageError(f"the moving image has shape {moving.shape}; a 3-D image is needed")
    data = np.maximum(finite(np.asanyarray(moving.dataobj)), 0)
    data = np.minimum(data, np.percentile(data, 99.9))
    if data.max() == 0:
        raise ImageError("the moving image has no positive values; there is nothing to register")
    img = image_like(data, moving)
    size = voxel_size_mm(moving)
    if size.min() > 0.75 * _FINE_MM:
        return img
    step = np.maximum(1.0, _FINE_MM / size)
    data = ndimage.gaussian_filter(data, 0.4 * (step - 1.0), truncate=3.0)
    affine = moving.affine @ np.diag([*step, 1.0])
    shape = np.maximum(1, np.floor((np.array(moving.shape) - 1) / step).astype(int) + 1)
    return resample(image_like(data, moving), image_on(np.zeros(shape, np.uint8), affine), np.eye(4))


def _sample(pair: _Pair, step_mm: float) -> _Sampled:
    """Return fixed points ``step_mm`` apart within the rim, with both images smoothed to match that step."""
    fixed, moving = pair.fixed, pair.moving
    stride = round(step_mm / _FINE_MM)
    grid = tuple(slice(stride // 2, None, stride) for _ in range(3))
    sigma_mm = 0.5 * step_mm
    smooth_fixed = ndimage.gaussian_filter(np.asanyarray(fixed.dataobj), sigma_mm / _FINE_MM if stride > 1 else 0)
    smooth_moving = ndimage.gaussian_filter(
        np.asanyarray(moving.dataobj).astype(np.float32), sigma_mm / voxel_size_mm(moving)
    )
    rim_data = np.asanyarray(pair.rim.dataobj) > 0
    keep = rim_data[grid]
    voxels = np.stack(
        np.meshgrid(*[np.arange(n)[g] for n, g in zip(fixed.shape, grid, strict=True)], indexing="ij"), -1
    )
    points = voxels[keep] @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    values = smooth_fixed[grid][keep]
    low, high = np.percentile(values, [0.5, 99.5])
    bins = np.clip((values - low) / max(high - low, 1e-12) * (_BINS - 1), 0, _BINS - 1).round().astype(np.int64)
    inside = (np.asanyarray(pair.mask.dataobj) > 0)[grid][keep]
    return _Sampled(points, bins, inside, smooth_moving, np.linalg.inv(moving.affine), float(smooth_moving.max()))


def _look_up(sampled: _Sampled, matrix: Affine) -> NDArray[np.float64]:
    """Return moving values at the fixed points; NaN outside the moving grid."""
    to_voxel = sampled.world_to_voxel @ np.linalg.inv(matrix)
    at = to_voxel[:3, :3] @ sampled.points.T + to_voxel[:3, 3:]
    return ndimage.map_coordinates(sampled.moving, at, np.float64, order=1, cval=np.nan)


def _nmi(sampled: _Sampled, matrix: Affine) -> float:
    """Return normalized mutual information over the fixed points; 1 if fewer than half lie in the moving image.

    The moving value is shared between its two nearest bins, so that the measure is smooth in the pose.
    """
    looked_up = _look_up(sampled, matrix)
    known = np.isfinite(looked_up)
    if known.mean() < 0.5:
        return 1.0
    position = looked_up[known] * ((_BINS - 1) / sampled.top)
    lower = np.minimum(position.astype(np.int64), _BINS - 2)
    share = position - lower
    cell = sampled.values[known] * _BINS + lower
    joint = np.bincount(cell, 1 - share, _BINS * _BINS) + np.bincount(cell + 1, share, _BINS * _BINS)
    joint = joint.reshape(_BINS, _BINS) / joint.sum()
    together = _entropy(joint)
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / together if together > 0 else 1.0


def _entropy(probability: NDArray[np.float64]) -> float:
    positive = probability[probability > 0]
    return float(-(positive * np.log(positive)).sum())


def _poses(moving: Volume, coarse: _Sampled) -> list[Affine]:
    """Return starting poses: as the headers say, and rotations with the moving image's center near the brain."""
    data = np.asanyarray(moving.dataobj)
    bright = data > 0.4 * np.percentile(data, 99)
    centre_moving = (moving.affine @ [*ndimage.center_of_mass(bright), 1.0])[:3]
    centre_fixed = coarse.points[coarse.inside].mean(axis=0)
    poses = [np.eye(4)]
    for angles in product(_ANGLES_DEG, repeat=3):
        rotation = rotation_matrix(*angles)
        for shift in product(_SHIFTS_MM, repeat=3):
            pose = np.eye(4)
            pose[:3, :3] = rotation
            pose[:3, 3] = centre_fixed + np.array(shift) - rotation @ centre_moving
            poses.append(pose)
    return poses


def _apart(poses: list[Affine], points: Points, count: int, least_mm: float = 8.0) -> list[Affine]:
    """Return the first ``count`` poses of a ranked list of which no two are alike."""
    some = points[:: max(1, len(points) // 200)]
    chosen: list[Affine] = []
    for pose in poses:
        if all(displacement_mm(pose, other, some).mean() > least_mm for other in chosen):
            chosen.append(pose)
        if len(chosen) == count:
            break
    return chosen


_Stage = Literal["rough", "near", "fine"]
#: Settings of ANTs' optimizer: shrink factors and smoothing of the 2 mm grid, iterations, share of voxels sampled.
#: The figures that chose them are in docs/decisions/coregistration.md.
_STAGES: dict[_Stage, dict[str, Any]] = {
    "rough": {
        "aff_iterations": 60, "aff_shrink_factors": 4, "aff_smoothing_sigmas": 2, "aff_random_sampling_rate": 1.0
    },
    "near": {
        "aff_iterations": 100, "aff_shrink_factors": 2, "aff_smoothing_sigmas": 1, "aff_random_sampling_rate": 0.5
    },
    "fine": {
        "aff_iterations": (60, 15),
        "aff_shrink_factors": (2, 1),
        "aff_smoothing_sigmas": (1, 0),
        "aff_random_sampling_rate": 0.25,
    },
}  # fmt: skip


def _optimise(pair: _Pair, start: Affine, seed: int, stage: _Stage) -> Affine:
    """Run ANTs' rigid optimizer once from ``start``; returns moving world to fixed world."""
    import ants

    with _seeded(seed), tempfile.TemporaryDirectory() as folder:
        before = save_itk(start, Path(folder) / "start.mat")
        try:
            found = ants.registration(
                to_ants(pair.fixed),
                to_ants(pair.moving),
                "Rigid",
                initial_transform=str(before),
                outprefix=f"{folder}/found",
                mask=to_ants(pair.rim),
                aff_sampling=_BINS,
                **_STAGES[stage],
            )
            return load_itk(found["fwdtransforms"][0])
        except (RuntimeError, IndexError) as exc:
            raise RegistrationError(f"ANTs could not register the images ({exc}); look at both images") from exc


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed ANTs for one call; numpy's and Python's own generators, which ANTs' switch also seeds, are left as found."""
    import ants

    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    ants.config.set_ants_deterministic(True, seed + 1)  # 0 means "by the clock" to ITK
    try:
        yield
    finally:
        ants.config.set_ants_deterministic(False, None)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def _why_implausible(fine: _Sampled, matrix: Affine, metric: float) -> str:
    """Return the reason not to trust a fit, or an empty string."""
    looked_up = _look_up(fine, matrix)
    seen = np.isfinite(looked_up)
    covered = float(seen[fine.inside].mean())
    if covered < 0.6:
        return f"only {covered:.0%} of the brain lies inside the moving image"
    if metric < _LEAST_NMI:
        return f"the images share almost no information (normalized mutual information {metric:.3f})"
    return ""
