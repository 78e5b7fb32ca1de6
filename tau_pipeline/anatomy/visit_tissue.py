"""Tissue of one visit of several, from the difference between its T1w and the median of all visits.

If each visit is segmented by itself, the noise, contrast, and bias field of its scan shift the boundaries. The halfway
image has less of all three. So the tissue of the halfway image is the starting point, and only the difference of the
visit is measured: first the difference in intensity in pure gray and white matter, which is removed (as in differential
bias correction, Lewis and Fox 2004, NeuroImage 23:75), then the distance by which each boundary has moved, averaged
over some millimeters (as in the boundary shift integral, Freeborough and Fox 1997, IEEE Trans Med Imaging 16:623).
"""

from __future__ import annotations

import numpy as np

from tau_pipeline.anatomy.tissue import fractions_on, tissue_scale
from tau_pipeline.imaging.resample import Floats, Mask, resample_onto_data
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid

#: Pure gray and white matter on the scale of `tissue_scale`, and a difference that is not one of intensity.
_PURE_GRAY, _PURE_WHITE = (0.8, 1.3), 1.8
_OTHER_TISSUE = 0.5
#: Kernels, SD in mm: for bias field and contrast, which vary slowly, and for the shift of a boundary.
_INTENSITY_SD_MM, _SHIFT_SD_MM = 10.0, 4.0
#: Steepness, per mm, below which there is no boundary, and blur of the image it is measured on, SD in mm.
_LEAST_SLOPE, _SLOPE_SD_MM = 0.01, 0.5


def segment_visit(t1w: Volume, halfway: Volume, mask: Volume, atlas: Volume) -> Volume:
    """Return fractions of CSF, gray and white matter of a visit, float32 ``(I, J, K, 3)`` on its grid; 0 outside.

    Parameters
    ----------
    t1w
        Bias-corrected T1w of the visit.
    halfway
        Median of all visits, on the same grid.
    mask
        Brain mask on the same grid.
    atlas
        aparc+aseg of the template, warped to the halfway image, in the world of the visit.

    Raises
    ------
    GridMismatchError
        The images have different grids.
    ImageError
        An image has no contrast between gray and white matter.
    """
    require_same_grid(t1w=t1w, halfway=halfway, mask=mask)
    inside = resample_onto_data(mask, atlas, order=0) > 0
    labels = np.ascontiguousarray(atlas.dataobj)
    own, median = (tissue_scale(resample_onto_data(one, atlas), inside, labels) for one in (t1w, halfway))
    return fractions_on(image_like(visit_scale(own, median, inside), atlas), mask)


def visit_scale(own: Floats, median: Floats, inside: Mask) -> Floats:
    """Return the scale of the median, 0 to 2, ``(I, J, K)``, with its boundaries where they are in the visit.

    Parameters
    ----------
    own, median
        `tissue_scale` of the visit and of the median of all visits, ``(I, J, K)`` of 1 mm voxels.
    inside
        Brain mask, ``(I, J, K)``.
    """
    from scipy import ndimage

    difference = own - median
    difference -= _of_intensity(difference, median, inside)
    gradient = np.gradient(ndimage.gaussian_filter(median, _SLOPE_SD_MM))
    slope = np.sqrt(sum(np.square(axis) for axis in gradient)).astype(np.float32)
    moved = median.copy()
    # The outer boundary of gray matter, and that to white matter.
    for boundary in (median < 1, median >= 1):
        of_boundary = inside & boundary & (slope > _LEAST_SLOPE)
        # The shift along the gradient that explains the difference nearby, by weighted least squares.
        explained = np.maximum(_smooth(slope * slope, of_boundary), _LEAST_SLOPE**2)
        shift = _smooth(difference * slope, of_boundary) / explained
        moved[of_boundary] += (shift * slope)[of_boundary]
    return np.clip(moved, 0, 2)


def _of_intensity(difference: Floats, median: Floats, inside: Mask) -> Floats:
    """Return the part of a difference that is of bias field and contrast, from pure gray and white matter nearby."""
    alike = inside & (np.abs(difference - np.median(difference[inside])) < _OTHER_TISSUE)
    low, high = _PURE_GRAY
    gray, white = (
        _mean_near(difference, alike & pure, _INTENSITY_SD_MM)
        for pure in ((median > low) & (median < high), median > _PURE_WHITE)
    )
    part_white = np.clip(median - 1, 0, 1)
    found: Floats = (gray * (1 - part_white) + white * part_white) * np.clip(median, 0, 1)
    return found


def _mean_near(values: Floats, where: Mask, sd_mm: float) -> Floats:
    """Return the mean of values over a mask, with Gaussian weights by distance; 0 far from it."""
    from scipy import ndimage

    weight = ndimage.gaussian_filter(where.astype(np.float32), sd_mm)
    return ndimage.gaussian_filter(values * where, sd_mm) / np.maximum(weight, 1e-3)


def _smooth(values: Floats, where: Mask) -> Floats:
    from scipy import ndimage

    return ndimage.gaussian_filter(values * where, _SHIFT_SD_MM)
