"""Gaussian smoothing in mm, with missing values."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tau_pipeline.errors import SettingError
from tau_pipeline.imaging.volume import Volume, image_like, voxel_size_mm

#: FWHM of a Gaussian of standard deviation 1.
FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


def smooth(img: Volume, fwhm_mm: float) -> Volume:
    """Smooth by a Gaussian of ``fwhm_mm`` in mm along the axes of a 3-D or 4-D image; time is left alone.

    NaN and infinities are left out and stay NaN: their neighbors take the weighted mean of what is known. Outside of
    the grid the edge value is repeated, so that a constant image stays constant. ``fwhm_mm`` 0 returns a copy.

    Raises
    ------
    SettingError
        The width is negative or not finite.
    """
    if not np.isfinite(fwhm_mm) or fwhm_mm < 0:
        raise SettingError(f"a smoothing width of {fwhm_mm} mm is not possible; give 0 or more")
    data = np.asanyarray(img.dataobj).astype(np.float32)
    if fwhm_mm == 0:
        return image_like(data, img)
    sigma = (fwhm_mm / FWHM_PER_SIGMA / voxel_size_mm(img)).tolist() + [0.0] * (data.ndim - 3)
    known = np.isfinite(data)
    if known.all():
        return image_like(ndimage.gaussian_filter(data, sigma, mode="nearest", truncate=5.0), img)
    weighted = ndimage.gaussian_filter(np.where(known, data, 0), sigma, mode="nearest", truncate=5.0)
    weight = ndimage.gaussian_filter(known.astype(np.float32), sigma, mode="nearest", truncate=5.0)
    return image_like(np.where(known, weighted / np.maximum(weight, 1e-6), np.nan).astype(np.float32), img)
