"""Rigid registration by mutual information, from many starts.

A rigid transform is a 4x4 matrix that takes moving-world points to fixed-world points (RAS+, mm): it *moves the image*.

The optimizer is greedy's (see `tau_pipeline.imaging.greedy`). What is ours is where it starts: a coarse scan of
normalized mutual information (Studholme, Hill & Hawkes 1999, Pattern Recognit. 32:71) over rotations and shifts, so
that the optimizer begins inside its range of capture; and the check of where it ended.

Nothing here depends on where the origin of either world is, or on which way its axes point: grids and starting poses
are laid about the centers of the brain and of the bright part of the moving image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.brain_grid import grid_about, step_beside
from tau_pipeline.imaging.foreground import box_around
from tau_pipeline.imaging.greedy import Schedule, register_linear
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.transforms import Points, Rotation3, cube, displacement_mm, quarter_turns, tilts
from tau_pipeline.imaging.volume import (
    Affine,
    Volume,
    finite,
    image_like,
    image_on,
    require_same_grid,
    voxel_size_mm,
)

#: Joint histograms have this many bins per side; 32 is the habit since Mattes et al. 2003, IEEE TMI 22:120.
_BINS = 32
#: Grid of the last step and of the metric that is stored; PET resolves 4 mm at best, so finer adds time only. The step
#: is up to a tenth smaller where points of the grid would else lie as the moving voxels do.
_FINE_MM = 2.0
_COARSE_MM = 8.0
#: How far around the brain the metric looks: the edge of the brain against air and scalp holds much of the information.
_RIM_MM = 10.0
_ANGLES_DEG = (25.0, 45.0)
_SHIFT_MM = 18.0
#: PET and T1w of one head reach 1.08 or more in our trials, a PET turned by 90 or 180 degrees 1.02 to 1.037.
_LEAST_NMI = 1.04
#: Below this, the axes of one of the headers may be wrong, and quarter turns are tried too.
_SURE_NMI = 1.08
#: Number of the best starts that are refined on coarse levels; the best of these is refined on all.
_REFINED = 8


@dataclass(frozen=True)
class Rigid:
    """Result of a rigid registration.

    Parameters
    ----------
    matrix
        ``(4, 4)``, moving world to fixed world, RAS+ mm.
    metric
        Normalized mutual information ``(H(a) + H(b)) / H(a, b)`` after registration, on a grid of about 2 mm over the
        fixed mask and a rim of 10 mm: 1 for independent images, 2 when each is a function of the other.
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


def register_rigid(
    moving: Volume,
    fixed: Volume,
    fixed_mask: Volume | None = None,
    *,
    search: Literal["wide", "near"] = "wide",
    contrast: Literal["other", "same", "same, refined"] = "other",
) -> Rigid:
    """Find the rigid transform that brings ``moving`` onto ``fixed``.

    Equal calls give equal results, to the last bit. An image whose world is moved or turned by quarter turns gives the
    same fit to some micrometers.

    Parameters
    ----------
    moving
        3-D image, e.g. PET. NaN and negative values count as 0.
    fixed
        3-D image, e.g. T1w.
    fixed_mask
        Brain mask on the grid of ``fixed``. Without it, the voxels above the image's mean.
    search
        ``wide`` finds offsets of 80 mm and 45 degrees and more, and quarter turns. ``near`` begins only where the
        headers put the images: for frames of one scan.
    contrast
        ``same`` for images of one kind, as two T1w are; their grid has steps of 2 mm whatever the voxel sizes, which is
        nearer to the truth for them. With ``same, refined``, the fit is then refined by local correlation in the mask,
        which ends 0.02 mm from the truth where mutual information ends 0.9 mm from it; see
        docs/decisions/registration.md.

    Raises
    ------
    ImageError
        An image is not 3-D, or is constant; or the mask is empty.
    GridMismatchError
        The mask is not on the grid of ``fixed``.
    RegistrationError
        The optimizer itself failed. A bad fit is no error here but ``plausible=False`` with a reason.
    """
    pair = _Pair.of(moving, fixed, _mask_or_threshold(fixed, fixed_mask), beside=contrast == "other")
    fine = Similarity(pair, _FINE_MM)
    if search == "near":
        start, starts = np.eye(4), 1
        iterations: tuple[int, ...] = (60, 40, 20)
    else:
        (start, starts), iterations = _best_start(pair), (40, 20)
    found = _refined(pair, start, iterations)
    # Where the optimum is flat, the optimizer stops early; begun again, it comes to the same place from everywhere.
    found = _refined(pair, found, (20,))
    if contrast == "same, refined":
        found = max(found, _correlated(pair, found), key=fine)
    # Images that have nothing in common lead it astray.
    matrix = max(found, start, key=fine)
    metric = fine(matrix)
    reason = _why_implausible(fine, matrix, metric)
    return Rigid(matrix, metric, starts, not reason, reason)


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


@dataclass(frozen=True)
class _Pair:
    """Images as the search sees them: the fixed one on a grid of about 2 mm with its mask and the mask with a rim."""

    fixed: Volume
    mask: Volume
    rim: Volume
    moving: Volume

    @classmethod
    def of(cls, moving: Volume, fixed: Volume, mask: Volume, *, beside: bool = True) -> _Pair:
        """Prepare two images for the search."""
        moving = _ready(moving)
        step = step_beside(voxel_size_mm(moving), _FINE_MM) if beside else _FINE_MM
        grid = grid_about(mask, step, _RIM_MM + 2 * _FINE_MM)
        size = voxel_size_mm(fixed)
        # half of the target voxel, so that sampling at 2 mm does not alias a 0.7 mm image
        sigma = np.maximum(0.0, 0.5 * _FINE_MM / size - 0.4)
        # What lies farther from the brain than the rim, its rounding to the grid, and the blur is never looked at.
        box = box_around(np.asanyarray(mask.dataobj) > 0, (_RIM_MM + 2 * _FINE_MM) / size + 3 * sigma + 2)
        fixed, mask = fixed.slicer[box], mask.slicer[box]
        sharp = finite(np.asanyarray(fixed.dataobj))
        blurred = image_like(ndimage.gaussian_filter(sharp, sigma, truncate=3.0), fixed)
        inside = np.asanyarray(resample(mask, grid, np.eye(4), "nearest").dataobj) > 0
        rim = ndimage.distance_transform_edt(~inside) * step <= _RIM_MM
        on_grid = np.asanyarray(resample(blurred, grid, np.eye(4)).dataobj)
        if on_grid[rim].std() == 0:
            raise ImageError("the fixed image is constant inside its mask; there is nothing to register to")
        return cls(image_like(on_grid * rim, grid), image_like(inside, grid), image_like(rim, grid), moving)

    @cached_property
    def coarse(self) -> _Pair:
        """Both images on voxels of `_COARSE_MM`, where a pose is refined in a tenth of the time."""
        fixed, mask, rim, moving = (
            _coarsened(one, _COARSE_MM) for one in (self.fixed, self.mask, self.rim, self.moving)
        )
        inside, near = (image_like(np.asanyarray(one.dataobj) > 0.5, one) for one in (mask, rim))
        return _Pair(fixed, inside, near, moving)


def _ready(moving: Volume) -> Volume:
    """Return the moving image without NaN and negative values, its highest 0.1 % clipped, on about 2 mm voxels."""
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
    return _coarsened(img, _FINE_MM)


def _coarsened(img: Volume, voxel_mm: float) -> Volume:
    """Return an image on voxels of ``voxel_mm``, blurred to match; where its own are larger, they stay."""
    step = np.maximum(1.0, voxel_mm / voxel_size_mm(img))
    blurred = ndimage.gaussian_filter(np.asanyarray(img.dataobj).astype(np.float32), 0.4 * (step - 1.0), truncate=3.0)
    shape = np.maximum(1, np.floor((np.array(img.shape) - 1) / step).astype(int) + 1)
    affine = img.affine @ np.diag([*step, 1.0])
    # the grid's middle is the image's middle, whichever way the axes run
    affine[:3, 3] += img.affine[:3, :3] @ (((np.array(img.shape) - 1) - (shape - 1) * step) / 2)
    return resample(image_like(blurred, img), image_on(np.zeros(shape, np.uint8), affine), np.eye(4))


class Similarity:
    """Normalized mutual information of two images at any rigid transform between their worlds.

    The measure is taken at points of the fixed image ``step_mm`` apart, within the brain and its rim; both images are
    smoothed to match that step. It is 1 when fewer than half of the points lie in the moving image. The moving value is
    shared between its two nearest bins, so that the measure is smooth in the pose.

    Attributes
    ----------
    points
        ``(N, 3)``, in the fixed world, mm.
    inside
        ``(N,)``, whether a point lies in the brain and not in its rim.
    """

    def __init__(self, pair: _Pair, step_mm: float) -> None:
        fixed, moving = pair.fixed, pair.moving
        stride = max(1, round(step_mm / voxel_size_mm(fixed)[0]))
        # counted from the center of the grid, which is that of the brain
        grid = tuple(slice((n // 2) % stride, None, stride) for n in fixed.shape)
        smooth = ndimage.gaussian_filter(np.asanyarray(fixed.dataobj), 0.5 * stride if stride > 1 else 0)
        keep = np.asanyarray(pair.rim.dataobj)[grid] > 0
        voxels = np.argwhere(keep) * stride + [one.start for one in grid]
        self.points: Points = voxels @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
        self.inside: NDArray[np.bool_] = np.asanyarray(pair.mask.dataobj)[grid][keep] > 0
        values = smooth[grid][keep]
        low, high = np.percentile(values, [0.5, 99.5])
        scaled = (values - low) / max(high - low, 1e-12) * (_BINS - 1)
        self._bins = np.clip(scaled, 0, _BINS - 1).round().astype(np.int64)
        self._moving = ndimage.gaussian_filter(
            np.asanyarray(moving.dataobj).astype(np.float32), 0.5 * step_mm / voxel_size_mm(moving)
        )
        self._to_voxel = np.linalg.inv(moving.affine)

    def __call__(self, pose: Affine) -> float:
        """Return the measure at a transform ``(4, 4)``, moving world to fixed world."""
        found = self.values(pose)
        known = np.isfinite(found)
        if known.mean() < 0.5:
            return 1.0
        position = found[known] * ((_BINS - 1) / self._top)
        lower = np.minimum(position.astype(np.int64), _BINS - 2)
        share = position - lower
        cell = self._bins[known] * _BINS + lower
        joint = np.bincount(cell, 1 - share, _BINS * _BINS) + np.bincount(cell + 1, share, _BINS * _BINS)
        joint = joint.reshape(_BINS, _BINS) / joint.sum()
        together = _entropy(joint)
        return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / together if together > 0 else 1.0

    def values(self, pose: Affine) -> NDArray[np.float64]:
        """Return the moving image's values at the points, NaN outside of its grid."""
        to_voxel = self._to_voxel @ np.linalg.inv(pose)
        at = to_voxel[:3, :3] @ self.points.T + to_voxel[:3, 3:]
        return ndimage.map_coordinates(self._moving, at, np.float64, order=1, cval=np.nan)

    @cached_property
    def _top(self) -> float:
        return float(self._moving.max())


def _entropy(probability: NDArray[np.float64]) -> float:
    positive = probability[probability > 0]
    return float(-(positive * np.log(positive)).sum())


def _best_start(pair: _Pair) -> tuple[Affine, int]:
    """Return the best starting pose, refined on coarse levels, and the number of poses that were tried.

    The axes of one of the headers may be wrong: quarter turns are tried as well where one of them, with the centers
    put on each other, is as good as the best of the other poses, or where these are in doubt.
    """
    coarse = Similarity(pair, _COARSE_MM)
    centers = coarse.points[coarse.inside].mean(axis=0), _bright_center(pair.moving)
    near = _measured(coarse, [np.eye(4), *_poses(*centers, tilts(*_ANGLES_DEG), cube(_SHIFT_MM))])
    turns = [tilt @ turn for turn in quarter_turns()[1:] for tilt in tilts(_ANGLES_DEG[0])]
    centered = _measured(coarse, list(_poses(*centers, turns, [np.zeros(3)])))
    found = _refined_best(pair, coarse, near)
    n_poses = len(near) + len(centered)
    if coarse(found) < _SURE_NMI or centered[0][0] >= near[0][0]:
        turned = _measured(coarse, list(_poses(*centers, turns, cube(_SHIFT_MM)[::2])))
        found = max(found, _refined_best(pair, coarse, turned), key=coarse)
        n_poses += len(turned)
    return found, n_poses


def _measured(coarse: Similarity, poses: Sequence[Affine]) -> list[tuple[float, Affine]]:
    """Return poses with their similarity, the best one first."""
    return sorted(((coarse(pose), pose) for pose in poses), key=lambda one: -one[0])


def _refined_best(pair: _Pair, coarse: Similarity, ranked: Sequence[tuple[float, Affine]]) -> Affine:
    """Refine the best poses on coarse levels and return the best of the results."""
    some = _apart([pose for _, pose in ranked], coarse.points, _REFINED)
    return max((_refined(pair.coarse, pose, (60,)) for pose in some), key=coarse)


def _poses(
    center_fixed: Points, center_moving: Points, rotations: Sequence[Rotation3], shifts: Sequence[Points]
) -> Iterator[Affine]:
    """Yield a pose for each rotation about the moving image's center, with that center put near the fixed one."""
    for rotation, shift in product(rotations, shifts):
        pose = np.eye(4)
        pose[:3, :3] = rotation
        pose[:3, 3] = center_fixed + shift - rotation @ center_moving
        yield pose


def _bright_center(moving: Volume) -> Points:
    data = np.asanyarray(moving.dataobj)
    bright = data > 0.4 * np.percentile(data, 99)
    center: Points = (moving.affine @ [*ndimage.center_of_mass(bright), 1.0])[:3]
    return center


def _apart(poses: Sequence[Affine], points: Points, count: int, least_mm: float = 8.0) -> list[Affine]:
    """Return the first ``count`` poses of a ranked list of which no two are alike."""
    some = points[:: max(1, len(points) // 200)]
    chosen: list[tuple[Affine, Affine]] = []
    for pose in poses:
        # Distances are of fixed points that go back to the moving image, so that a far origin does not count.
        back: Affine = np.linalg.inv(pose).astype(np.float64)
        if all(displacement_mm(back, other, some).mean() > least_mm for _, other in chosen):
            chosen.append((pose, back))
        if len(chosen) == count:
            break
    return [pose for pose, _ in chosen]


def _refined(pair: _Pair, start: Affine, iterations: Sequence[int]) -> Affine:
    """Run greedy's rigid optimizer from a pose; the last of the iterations are on the voxels of the pair."""
    return register_linear(
        pair.moving, pair.fixed, pair.rim, start, degrees_of_freedom=6, schedule=Schedule("NMI", iterations)
    )


def _correlated(pair: _Pair, start: Affine) -> Affine:
    """Run greedy's rigid optimizer from a pose with correlation in windows of 5 voxels, inside the mask."""
    correlation = Schedule("NCC 2x2x2", (40, 20))
    return register_linear(pair.moving, pair.fixed, pair.mask, start, degrees_of_freedom=6, schedule=correlation)


def _why_implausible(fine: Similarity, matrix: Affine, metric: float) -> str:
    """Return the reason not to trust a fit, or an empty string."""
    covered = float(np.isfinite(fine.values(matrix))[fine.inside].mean())
    if covered < 0.6:
        return f"only {covered:.0%} of the brain lies inside the moving image"
    if metric < _LEAST_NMI:
        return f"the images share almost no information (normalized mutual information {metric:.3f})"
    return ""
