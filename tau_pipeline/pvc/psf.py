"""The point spread of a PET, found as the one with which the regions explain the image best.

The residual of the fit is least at the true blur. Regional values are solved for at each step, and the variances of the
Gaussian, across and along the axis of the scanner, are improved by the Gauss-Newton step of separable least squares
(Kaufman 1975, BIT 15:49): three to five steps, where a search without derivatives needs some thirty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.foreground import distance_to
from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA
from tau_pipeline.imaging.volume import Affine, Volume
from tau_pipeline.pvc.model import Blurred, blur, blur_regions, sigma_voxels
from tau_pipeline.pvc.regions import Floats, RegionModel, region_model

#: The search starts here and stays within these bounds, FWHM in mm.
_START_MM, BOUNDS_MM = 6.0, (2.5, 12.0)
_MOST_STEPS, _CLOSE_ENOUGH_MM = 8, 0.03
#: Depth in the brain from which voxels count, mm: what is outside hardly reaches them, and labels err most at the
#: surface, which looks like blur.
_DEPTH_MM = 8.0
#: Change of variance over which the derivative is taken, mm².
_CHANGE_MM2 = 0.25


@dataclass(frozen=True)
class PointSpread:
    """FWHM along the axes of the PET grid in mm, and in words where it comes from.

    Attributes
    ----------
    fwhm_mm
        Along I, J, and K.
    source
        A sentence.
    at_bound
        The estimate is at the end of the range of search: it must not be trusted.
    """

    fwhm_mm: tuple[float, float, float]
    source: str
    at_bound: bool = False


def given_point_spread(fwhm_mm: tuple[float, ...], source: str) -> PointSpread:
    """Return a point spread of one value, or of one for each axis."""
    i, j, k = fwhm_mm * 3 if len(fwhm_mm) == 1 else fwhm_mm
    return PointSpread((i, j, k), source)


def estimate_point_spread(model: RegionModel, pet: Floats) -> PointSpread:
    """Estimate the point spread from a PET and its regions.

    Parameters
    ----------
    model
        The regions.
    pet
        PET on the part, as `RegionModel.cut` gives it. Axes I and J share one value, K has its own.

    Raises
    ------
    ImageError
        No voxel counts.
    """
    deep = distance_to(model.distance_mm > 0, model.voxel_mm) > _DEPTH_MM
    inner = np.where(deep, pet, np.float32(np.nan))
    low, high = (np.array(BOUNDS_MM) / FWHM_PER_SIGMA) ** 2
    variance = np.full(2, (_START_MM / FWHM_PER_SIGMA) ** 2)
    for _ in range(_MOST_STEPS):
        new = np.clip(variance + _step(model, inner, variance), low, high)
        change = FWHM_PER_SIGMA * np.abs(np.sqrt(new) - np.sqrt(variance)).max()
        variance = new
        if change < _CLOSE_ENOUGH_MM:
            break
    at_bound = bool(np.isclose(variance, low).any() or np.isclose(variance, high).any())
    across, along = (FWHM_PER_SIGMA * np.sqrt(variance)).tolist()
    text = (
        f"The point spread was estimated from the PET and its regions: {across:.2f} mm FWHM across and {along:.2f} mm "
        "along the axis of the scanner."
    )
    if at_bound:
        text += f" This is at the end of the range of search ({BOUNDS_MM[0]:g} to {BOUNDS_MM[1]:g} mm): state --psf."
    return PointSpread((across, across, along), text, at_bound)


def resolution_by_regions(pet: Volume, dseg: Volume, mask: Volume, pet2t1w_xfm: Affine) -> float | None:
    """Return the resolution of a PET as one number, FWHM in mm, by its regions; None if it cannot be estimated so.

    Parameters
    ----------
    pet
        3-D, on its own grid; 0 where nothing is measured.
    dseg, mask
        Labels (FreeSurfer numbers) and brain mask on the T1w grid.
    pet2t1w_xfm
        ``(4, 4)``, PET world to T1w world.

    Returns
    -------
    float or None
        FWHM of the isotropic Gaussian with the volume of the estimated point spread.
    """
    values = np.asanyarray(pet.dataobj)
    try:
        model = region_model(pet, dseg, mask, pet2t1w_xfm)
        found = estimate_point_spread(model, model.cut(np.where(values == 0, np.nan, values)))
    except ImageError:
        return None
    return None if found.at_bound else float(np.cbrt(np.prod(found.fwhm_mm)))


def _step(model: RegionModel, pet: Floats, variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the change of both variances, mm², that takes the residual down most."""
    across, along = (FWHM_PER_SIGMA * np.sqrt(variance)).tolist()
    blurred = blur_regions(model, pet, (across, across, along))
    project = _projection(blurred)
    values = project(blurred.pet[:, None])[:, 0]
    paint = model.painted(values)
    derivative = np.stack([_derivative(blurred, paint, variance, place) for place in range(2)], axis=1)
    own = derivative - blurred.columns @ project(derivative)
    return np.linalg.lstsq(own, blurred.pet - blurred.columns @ values, rcond=None)[0]


def _projection(blurred: Blurred) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return a function that solves for the regional values of images ``(rows, images)``."""
    gram = (blurred.columns.T @ blurred.columns).toarray().astype(np.float64)
    seen = np.diag(gram) > 1e-6 * np.diag(gram).max()
    if not seen.any():
        raise ImageError("no region of the brain is deep enough for the point spread to be estimated; state --psf")
    scale = np.where(seen, 1 / np.sqrt(np.where(seen, np.diag(gram), 1.0)), 0.0)
    inverse = np.linalg.pinv(gram * scale[:, None] * scale, rcond=1e-9, hermitian=True)
    solve = scale[:, None] * inverse * scale
    return lambda images: solve @ (blurred.columns.T @ images)


def _derivative(blurred: Blurred, paint: Floats, variance: NDArray[np.float64], place: int) -> NDArray[np.float64]:
    """Return the derivative of the explained image by one of the variances, at the rows."""
    ends = []
    for change in (_CHANGE_MM2, -_CHANGE_MM2):
        moved = variance.copy()
        moved[place] = max(moved[place] + change, 0.0)
        across, along = (FWHM_PER_SIGMA * np.sqrt(moved)).tolist()
        sigma = sigma_voxels(blurred.model, (across, across, along))
        ends.append(blur(paint, sigma)[blurred.rows].astype(np.float64))
    return (ends[0] - ends[1]) / (2 * _CHANGE_MM2)
