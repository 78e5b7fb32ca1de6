"""Tissue of a head: fractions of CSF, gray and white matter from the intensities that are typical for this head."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.anatomy.grid import brain_box
from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.foreground import closer_than
from tau_pipeline.imaging.resample import Floats, Mask, resample_onto_data
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid

#: FreeSurfer numbers of the two tissues in cerebrum and cerebellum, where their intensities are measured. Thalamus,
#: pallidum and brainstem lie between gray and white and are left out.
_CEREBRUM = {"gray": (11, 50, 12, 51, 17, 53, 18, 54, 26, 58), "white": (2, 41, 251, 252, 253, 254, 255)}
_CEREBELLUM = {"gray": (8, 47), "white": (7, 46)}
_VENTRICLES = (4, 43, 14, 15)
#: Where between the intensities of gray (0) and white matter (1) the white surface of the cerebral cortex lies. The
#: deep layers are myelinated, and so the surface lies a little on the gray side of the middle.
_WHITE_SURFACE = 0.45
#: How far from the atlas's gray matter an intensity still counts when the typical ones are measured, mm.
_NEAR_GRAY_MM = 4.0
CEREBELLUM_REACH_MM = 3.0


def segment_tissue(t1w: Volume, mask: Volume, atlas: Volume) -> Volume:
    """Return fractions of CSF, gray and white matter, float32 ``(I, J, K, 3)`` on the T1w grid; 0 outside.

    The typical intensity of each tissue is a median over voxels where the warped atlas expects that tissue, so that
    bright fat, vessels or dura in the mask do not count; cerebellum and cerebrum have their own. The fluid is that in
    the sulci, not the darker one in the ventricles. Noise is taken out by Wiener's filter in 3 x 3 x 3 voxels (Lim,
    1990), which leaves an image without noise unchanged. Between two typical intensities the fractions change
    linearly, as they do when two tissues share a voxel; `_WHITE_SURFACE` is where gray and white are equal.

    Parameters
    ----------
    t1w
        Bias-corrected T1w.
    mask
        Brain mask on the same grid.
    atlas
        aparc+aseg of the template, warped to the head, on its working grid; from `warped_atlas`.

    Raises
    ------
    GridMismatchError
        Mask and T1w have different grids.
    ImageError
        The image has no contrast between gray and white matter.
    """
    require_same_grid(t1w=t1w, mask=mask)
    intensity = resample_onto_data(t1w, atlas)
    inside = resample_onto_data(mask, atlas, order=0) > 0
    # As what was resampled, with the last axis fastest: combining arrays of two orders takes three times as long.
    scale = tissue_scale(intensity, inside, np.ascontiguousarray(atlas.dataobj))
    return fractions_on(image_like(scale, atlas), mask)


def fractions_on(scale: Volume, mask: Volume) -> Volume:
    """Return fractions of CSF, gray and white matter, float32 ``(I, J, K, 3)`` on the grid of a mask; 0 outside.

    ``scale`` is from `tissue_scale`, on its own grid.
    """
    box = brain_box(mask)
    # As in a file: each tissue in one piece.
    fractions = np.zeros((*mask.shape[:3], 3), dtype=np.float32, order="F")
    keep = np.asanyarray(mask.dataobj)[box] > 0
    on_mask = resample_onto_data(scale, mask.slicer[box])
    fractions[box][..., 0] = np.clip(1 - on_mask, 0, 1) * keep
    fractions[box][..., 2] = np.clip(on_mask - 1, 0, 1) * keep
    fractions[box][..., 1] = keep - fractions[box][..., 0] - fractions[box][..., 2]
    return image_like(fractions, mask)


def tissue_scale(intensity: Floats, inside: Mask, atlas: NDArray[np.int32]) -> Floats:
    """Scale intensities ``(I, J, K)`` of 1 mm voxels: 0 fluid, 1 gray, 2 white matter; halves are boundaries.

    ``atlas`` holds the warped FreeSurfer numbers. Cerebrum and cerebellum are scaled each by their own tissues.

    Raises
    ------
    ImageError
        The image has no contrast between gray and white matter.
    """
    from scipy import ndimage

    in_cerebellum = np.isin(atlas, _CEREBELLUM["gray"] + _CEREBELLUM["white"])
    near_cerebellum = closer_than(in_cerebellum, CEREBELLUM_REACH_MM)
    gray = ((atlas > 1000) | np.isin(atlas, _CEREBRUM["gray"])) & inside
    white = np.isin(atlas, _CEREBRUM["white"]) & inside
    smooth = _without_noise(intensity, ndimage.binary_erosion(white, iterations=2))
    near = closer_than(atlas > 1000, _NEAR_GRAY_MM) & inside
    centers = _typical(smooth, near & ~np.isin(atlas, _VENTRICLES) & ~in_cerebellum, gray, white)
    scale = _piecewise(smooth, centers, _WHITE_SURFACE)
    gray, white = (np.isin(atlas, _CEREBELLUM[name]) & inside for name in ("gray", "white"))
    if min(gray.sum(), white.sum()) > 2000:
        centers = _typical(smooth, near_cerebellum & inside, gray, white)
        scale[near_cerebellum] = _piecewise(smooth[near_cerebellum], centers, 0.5)
    return scale


def _without_noise(intensity: Floats, white_core: Mask) -> Floats:
    """Apply Wiener's filter in 3 x 3 x 3 voxels; the noise is measured in white matter, where there is little else."""
    from scipy import ndimage

    mean = ndimage.uniform_filter(intensity, 3)
    residual = (intensity - mean)[white_core]
    if not residual.size:
        return intensity.copy()
    # 1.4826 turns a median absolute deviation into a Gaussian's SD; the mean of 27 holds 1/27 of the voxel itself.
    noise = 1.4826**2 * np.median(np.abs(residual)) ** 2 * 27 / 26
    variance = np.maximum(ndimage.uniform_filter(intensity**2, 3) - mean**2, 1e-6 * float(mean.max()) ** 2)
    return mean + (intensity - mean) * np.clip(1 - noise / variance, 0, 1)


def _typical(intensity: Floats, near: Mask, gray: Mask, white: Mask) -> tuple[float, float, float]:
    """Return the typical intensity of sulcal fluid, gray and white matter.

    Starts from the medians where the atlas expects gray and white matter, and alternates between boundaries half way
    and medians between boundaries, as k-medians does, each median in the place where its tissue is expected.
    """
    if not (gray.any() and white.any()):
        raise ImageError("the atlas does not overlap the brain mask; the registration to the template has failed")
    around, bright = intensity[near], intensity[white]
    g, w = float(np.median(intensity[gray])), float(np.median(bright))
    f = 0.3 * w
    for _ in range(10):
        low, high = (f + g) / 2, (g + w) / 2
        fluid = around[(around < low) & (around > 0.05 * w)]
        f = float(np.median(fluid)) if fluid.size else f
        low = (f + g) / 2
        between, above = around[(around > low) & (around < high)], bright[bright > high]
        if not (between.size and above.size):
            break
        g, w = float(np.median(between)), float(np.median(above))
    if not f < g < 0.97 * w:
        raise ImageError(
            f"typical intensities of CSF, gray and white matter are {f:.3g}, {g:.3g} and {w:.3g}; "
            "in a T1w image each must be brighter than the one before: check the image and its brain mask"
        )
    return f, g, w


def _piecewise(intensity: Floats, centers: tuple[float, float, float], surface: float) -> Floats:
    fluid, gray, white = centers
    knots = [fluid, (fluid + gray) / 2, gray, gray + surface * (white - gray), white]
    return np.interp(intensity, knots, [0.0, 0.5, 1.0, 1.5, 2.0]).astype(np.float32)
