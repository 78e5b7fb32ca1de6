"""Fit of a coregistered PET: of this head or another, mirrored, or with wrong voxel sizes in its header.

From the T1w follows what the PET should look like: each T1w intensity stands for a mixture of tissues, each tissue has
an uptake that changes slowly over the brain, and the scanner blurs the whole. Nothing is assumed of the tracer:
uptakes are found by linear regression, as in the estimation of tissue uptake for partial volume correction (Rousset et
al. 1998, J Nucl Med 39:904). What remains unexplained is compared with what remains of alternatives with the same
voxel values: the mirrored PET, registered again, and the PET deformed to match. A PET of this head is far from its
mirror image, and gains little by a deformation; that of another head is about as far from this head as its mirror
image is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from tau_pipeline.errors import ImageError, RegistrationError
from tau_pipeline.imaging.brain_grid import grid_about
from tau_pipeline.imaging.greedy import Schedule, displacements, register_deformable, register_linear
from tau_pipeline.imaging.resample import Floats, Mask, resample, resample_array
from tau_pipeline.imaging.transforms import Rotation3, rotation
from tau_pipeline.imaging.volume import Affine, Volume, finite, image_like, image_on, voxel_size_mm

#: Points of the comparison lie so far apart; both images are smoothed to about the resolution of a PET scanner.
_STEP_MM = 4.0
_T1W_FWHM_MM = 6.0
_PET_FWHM_MM = 3.0
#: Around the brain, where its edge against the air, the skull and the scalp shows.
_RIM_MM = 10.0
#: Classes of T1w intensity inside and outside the brain; neighbors overlap by half.
_CLASSES_INSIDE, _CLASSES_OUTSIDE = 6, 4
_FWHM_PER_SD = 2.355
#: Trial scales of the PET along each axis, and the range within which the best one is searched.
_TRIAL_SCALES = (0.8, 1.0, 1.25)
_SCALES = (0.7, 1.45)
#: With less of the brain in the field of view, nothing can be said.
_LEAST_SEEN = 0.2
#: Planes of symmetry are tried at these tilts against the axes.
_MIRROR_TILTS_DEG = (-24.0, -12.0, 0.0, 12.0, 24.0)


@dataclass(frozen=True)
class Fit:
    """Figures of the fit of a PET to the T1w onto which it was registered.

    Attributes
    ----------
    explained
        Share, at most 1, of the variance of the PET in the brain and a rim of 10 mm that the T1w explains.
    belongs
        Natural logarithm of the product of what the T1w leaves unexplained of the mirrored PET and of the PET deformed
        to match, over the square of what it leaves of the PET as it is. A PET of this head is nearer to the best that a
        deformation can reach than to its mirror image: about 0 and above. NaN if it could not be found.
    mirror
        Natural logarithm of what the T1w leaves unexplained of the mirrored PET, over that of the PET as it is:
        above 0 if the PET as it is fits better. NaN if it could not be found.
    scale
        Factors along the three axes of the T1w's world by which the PET would have to be scaled to fit best.
    """

    explained: float
    belongs: float
    mirror: float
    scale: tuple[float, float, float]


def assess_fit(pet: Volume, t1w: Volume, mask: Volume, pet2t1w: Affine) -> Fit:
    """Return how well a PET fits a T1w at a transform.

    Parameters
    ----------
    pet
        ``(I, J, K)``, static, not skull-stripped. NaN and negative values count as 0.
    t1w
        ``(I, J, K)``, full head or stripped.
    mask
        Brain mask on the grid of ``t1w``.
    pet2t1w
        ``(4, 4)``, PET world to T1w world.

    Returns
    -------
    Fit
        All NaN if less than a fifth of the brain is in the PET.

    Raises
    ------
    ImageError
        The mask is empty.
    """
    if not np.asanyarray(mask.dataobj).any():
        raise ImageError("the brain mask is empty; a mask with voxels is needed")
    head = _Head.of(t1w, mask)
    moving = _moving(pet)
    seen = head.seen(moving, pet2t1w)
    explained, expected = head.explain(seen)
    if math.isnan(explained):
        return Fit(math.nan, math.nan, math.nan, (math.nan, math.nan, math.nan))
    mirrored, deformed = _mirrored(head, moving, pet2t1w), _deformed(head, seen, expected)
    rest, of_mirrored, of_deformed = (math.log(max(1 - one, 1e-6)) for one in (explained, mirrored, deformed))
    return Fit(
        explained,
        of_mirrored + of_deformed - 2 * rest,
        of_mirrored - rest,
        _scale(head, moving, pet2t1w),
    )


@dataclass(frozen=True)
class _Head:
    """T1w and its mask, sampled on points `_STEP_MM` apart.

    Attributes
    ----------
    t1w, brain, rim
        Image; brain; brain and its rim.
    classes
        ``(I, J, K, C)``, share of each class of intensity, blurred; the ones in the brain also times polynomials of
        second order in the coordinates, by which the uptake of a tissue changes over the brain.
    """

    t1w: Volume
    brain: Mask
    rim: Mask
    classes: Floats

    @classmethod
    def of(cls, t1w: Volume, mask: Volume) -> _Head:
        grid = grid_about(mask, _STEP_MM, _RIM_MM + 2 * _STEP_MM)
        fine = grid_about(mask, _STEP_MM / 2, _RIM_MM + 4 * _STEP_MM)
        sharp = finite(np.asanyarray(t1w.dataobj))
        sigma = np.maximum(0.0, 0.25 * _STEP_MM / voxel_size_mm(t1w) - 0.4)
        on_fine = resample(image_like(ndimage.gaussian_filter(sharp, sigma, truncate=3.0), t1w), fine, np.eye(4))
        inside = np.asanyarray(resample(mask, fine, np.eye(4), "nearest").dataobj) > 0
        sd = _T1W_FWHM_MM / _FWHM_PER_SD / voxel_size_mm(fine)
        classes = [
            np.asanyarray(
                resample(image_like(ndimage.gaussian_filter(one, sd, truncate=3.0), fine), grid, np.eye(4)).dataobj
            )
            for one in _classes(np.asanyarray(on_fine.dataobj), inside)
        ]
        brain = np.asanyarray(resample(mask, grid, np.eye(4), "nearest").dataobj) > 0
        rim = ndimage.distance_transform_edt(~brain) * _STEP_MM <= _RIM_MM
        image = np.asanyarray(resample(on_fine, grid, np.eye(4)).dataobj)
        changing = [one * by for one in classes[:_CLASSES_INSIDE] for by in _polynomials(brain)]
        return cls(image_like(image * rim, grid), brain, rim, np.stack([*changing, *classes[_CLASSES_INSIDE:]], -1))

    def seen(self, moving: Volume, pose: Affine) -> Floats:
        """Return the PET at the points, NaN outside of its field of view."""
        to_voxel = np.linalg.inv(moving.affine) @ np.linalg.inv(pose) @ self.t1w.affine
        data = np.asanyarray(moving.dataobj)
        return resample_array(data, to_voxel, self.t1w.shape, order=1, fill=math.nan)

    def explain(self, seen: Floats) -> tuple[float, Floats]:
        """Return the share of variance that the classes explain, and what they expect at all points.

        The share is NaN if too little of the brain is in the field of view.
        """
        known = self.rim & np.isfinite(seen)
        if (known & self.brain).sum() < _LEAST_SEEN * self.brain.sum():
            return math.nan, np.zeros(seen.shape, np.float32)
        given, wanted = self.classes[known].astype(np.float64), seen[known].astype(np.float64)
        # a small ridge, for classes that this head does not have
        normal = given.T @ given + 1e-6 * len(wanted) * np.eye(given.shape[1])
        weights = np.linalg.solve(normal, given.T @ wanted)
        spread = wanted.var()
        share = 1 - float((wanted - given @ weights).var() / spread) if spread > 0 else 0.0
        return share, (self.classes @ weights).astype(np.float32)


def _classes(t1w: Floats, inside: Mask) -> list[Floats]:
    """Return the share of each class of intensity in each voxel, those in the brain first."""
    low, high = np.percentile(t1w[inside], [2, 98])
    result = []
    for where, lowest, count in ((inside, low, _CLASSES_INSIDE), (~inside, 0.0, _CLASSES_OUTSIDE)):
        knots = np.linspace(lowest, max(high, lowest + 1e-6), count)
        result += [(np.interp(t1w, knots, one) * where).astype(np.float32) for one in np.eye(count)]
    return result


def _polynomials(brain: Mask) -> list[Floats]:
    """Return 1 and the coordinates, squares and products of coordinates, over the extent of the brain."""
    at = np.argwhere(brain)
    axes = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in brain.shape], indexing="ij")
    x, y, z = ((axis - a.mean()) / (2 * a.std()) for axis, a in zip(axes, at.T, strict=True))
    return [np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z]


def _moving(pet: Volume) -> Volume:
    """Return the PET smoothed, its highest 0.1 % clipped, on voxels of about 3 mm if its own are finer."""
    raw = np.asanyarray(pet.dataobj)
    data = np.maximum(finite(raw), 0)
    data = np.minimum(data, np.percentile(data, 99.9)).astype(np.float32)
    size = voxel_size_mm(pet)
    data = ndimage.gaussian_filter(data, _PET_FWHM_MM / _FWHM_PER_SD / size, truncate=3.0)
    data[ndimage.binary_dilation(~np.isfinite(raw))] = np.nan
    i, j, k = np.maximum(1, np.round(0.75 * _STEP_MM / size)).astype(int).tolist()
    return image_on(np.ascontiguousarray(data[::i, ::j, ::k]), pet.affine @ np.diag([i, j, k, 1.0]))


def _deformed(head: _Head, seen: Floats, expected: Floats) -> float:
    """Return the share of variance that the T1w explains of the PET, deformed onto what is expected."""
    known = head.rim & np.isfinite(seen)
    pet = np.nan_to_num(seen)
    unit = 100 / max(float(np.percentile(pet[known], 95)), 1e-12)
    center = np.eye(4)
    center[:3, 3] = -head.t1w.affine[:3, 3]
    affine = center @ head.t1w.affine
    moving, fixed, where = (image_on(one, affine) for one in (pet * unit, expected * unit, known))
    try:
        field = register_deformable(moving, fixed, where, np.eye(4), schedule=Schedule("SSD", (20, 10), "3vox 1vox"))
    except RegistrationError:
        return head.explain(seen)[0]
    shift = (displacements(field) * np.array([-1, -1, 1])) @ (affine[:3, :3] / _STEP_MM) / _STEP_MM
    there = np.indices(pet.shape) + np.moveaxis(shift, -1, 0)
    found = ndimage.map_coordinates(pet, there, order=1).astype(np.float32)
    return head.explain(np.where(known, found, np.float32(math.nan)))[0]


def _mirrored(head: _Head, moving: Volume, pose: Affine) -> float:
    """Return the share of variance that the T1w explains of the mirrored PET, registered anew; NaN if that failed."""
    reflected = _reflection(head) @ pose
    measured = image_on(np.asanyarray(moving.dataobj), reflected @ moving.affine)
    image = image_like(finite(np.asanyarray(moving.dataobj)), measured)
    try:
        found = register_linear(
            image, head.t1w, image_like(head.rim, head.t1w), np.eye(4),
            degrees_of_freedom=6, schedule=Schedule("NMI", (60, 40)),
        )  # fmt: skip
        return head.explain(head.seen(measured, found))[0]
    except RegistrationError:
        return math.nan


def _reflection(head: _Head) -> Affine:
    """Return the reflection ``(4, 4)`` of the T1w's world that brings the brain best onto itself.

    Tried are planes through the center of the brain near those at right angles to the axes: a head nods and turns.
    """
    affine = head.t1w.affine
    sharp = np.asanyarray(head.t1w.dataobj)
    data = ndimage.gaussian_filter(np.where(head.brain, sharp, 0), 1.0)
    at = np.argwhere(head.brain)[::5]
    center = affine[:3, :3] @ np.argwhere(head.brain).mean(axis=0) + affine[:3, 3]
    points = at @ affine[:3, :3].T + affine[:3, 3]
    values = data[tuple(at.T)]
    to_voxel = np.linalg.inv(affine)
    best, found = -2.0, np.eye(4)
    for axis, (one, other) in product(range(3), product(_MIRROR_TILTS_DEG, repeat=2)):
        angles = np.insert(np.radians([one, other]), axis, 0.0)
        normal = rotation(angles)[:, axis]
        there = np.eye(4)
        there[:3, :3] -= 2 * np.outer(normal, normal)
        there[:3, 3] = center - there[:3, :3] @ center
        voxels = (to_voxel @ there)[:3, :3] @ points.T + (to_voxel @ there)[:3, 3:]
        alike = float(np.corrcoef(values, ndimage.map_coordinates(data, voxels, order=1))[0, 1])
        if alike > best + 1e-6:
            best, found = alike, there
    return found


def _scale(head: _Head, moving: Volume, pose: Affine) -> tuple[float, float, float]:
    """Return the factors along the T1w's axes by which the PET fits best, with a shift and a rotation.

    The search begins where the PET was registered; or with the centers on each other, turned as registered or as the
    headers say, since a wrong size leads the registration astray.
    """
    measure = _Measure(head, moving)
    centered, upright, middle = pose.copy(), np.eye(4), _bright_center(moving)
    centered[:3, 3] += measure.center - (pose @ [*middle, 1.0])[:3]
    upright[:3, 3] = measure.center - middle
    still = np.zeros(3)
    trials = [
        (begin, np.array(scale)) for begin in (pose, centered, upright) for scale in product(_TRIAL_SCALES, repeat=3)
    ]
    begun, start = max(trials, key=lambda one: measure(_scaling(measure.center, still, still, one[1]) @ one[0]))

    def cost(x: NDArray[np.float64]) -> float:
        return -measure(_scaling(measure.center, 10 * x[:3], 0.2 * x[3:6], np.exp(x[6:])) @ begun)

    limits = [(-2.0, 2.0)] * 6 + [(math.log(_SCALES[0]), math.log(_SCALES[1]))] * 3
    begin = np.concatenate([still, still, np.log(start)])
    best = optimize.minimize(
        cost, begin, method="Powell", bounds=limits, options={"xtol": 0.01, "ftol": 1e-5, "maxiter": 4}
    )
    i, j, k = np.exp(best.x[6:]).tolist()
    return i, j, k


def _bright_center(moving: Volume) -> NDArray[np.float64]:
    data = finite(np.asanyarray(moving.dataobj))
    center = ndimage.center_of_mass(data > 0.4 * np.percentile(data, 99))
    place: NDArray[np.float64] = (moving.affine @ [*center, 1.0])[:3]
    return place


def _scaling(center: NDArray[np.float64], shift: NDArray, turn: NDArray, scale: NDArray) -> Affine:
    """Return the transform that scales and turns about a point and then shifts."""
    turned: Rotation3 = rotation(turn)
    result = np.eye(4)
    result[:3, :3] = turned @ np.diag(scale)
    result[:3, 3] = center + shift - result[:3, :3] @ center
    return result


class _Measure:
    """Correlation ratio of the PET given the T1w, at points 8 mm apart in the brain and its rim."""

    def __init__(self, head: _Head, moving: Volume) -> None:
        keep = np.zeros_like(head.rim)
        keep[::2, ::2, ::2] = head.rim[::2, ::2, ::2]
        at = np.argwhere(keep)
        affine = head.t1w.affine
        self.center: NDArray[np.float64] = affine[:3, :3] @ np.argwhere(head.brain).mean(axis=0) + affine[:3, 3]
        self._points = at @ affine[:3, :3].T + affine[:3, 3]
        smooth = ndimage.gaussian_filter(np.asanyarray(head.t1w.dataobj), 1.0)[keep]
        ranks = np.searchsorted(np.quantile(smooth, np.linspace(0, 1, 17)[1:-1]), smooth)
        self._classes = np.eye(16)[ranks]
        raw, sd = np.asanyarray(moving.dataobj), _STEP_MM / voxel_size_mm(moving)
        self._data = ndimage.gaussian_filter(finite(raw), sd)
        self._measured: Floats | None = None
        if not np.isfinite(raw).all():
            self._measured = np.isfinite(raw).astype(np.float32)
            self._data /= np.maximum(ndimage.gaussian_filter(self._measured, sd), 1e-3)
        self._to_voxel = np.linalg.inv(moving.affine)
        self._most = 0

    def __call__(self, pose: Affine) -> float:
        """Return the share of the PET's variance between 16 classes of T1w intensity (correlation ratio).

        Points that were not measured do not count; a pose at which fewer count than at another one is worth less.
        """
        back = self._to_voxel @ np.linalg.inv(pose)
        there = back[:3, :3] @ self._points.T + back[:3, 3:]
        values, classes, share = ndimage.map_coordinates(self._data, there, order=1), self._classes, 1.0
        if self._measured is not None:
            known = ndimage.map_coordinates(self._measured, there, order=0, cval=1) > 0
            values, classes = values[known], classes[known]
            self._most = max(self._most, len(values))
            share = len(values) / max(self._most, 1)
        means = classes.T @ values / np.maximum(classes.sum(axis=0), 1)
        spread = values.var() if values.size else 0.0
        return share * (1 - float((values - classes @ means).var() / spread)) if spread > 0 else 0.0
