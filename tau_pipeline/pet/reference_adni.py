"""Reference regions by the rules of UC Berkeley's processing for ADNI: blurred masks that are compared, no guard.

The rules are those of the group's processing for LEADS, which follows ADNI: a voxel of the cerebellar cortex belongs to
the inferior part if the lobules that are kept (SUIT numbers 6, 8 to 28, 33, and 34), blurred by 8 mm FWHM, outweigh
those that are not (1 to 5 and 7), blurred likewise; eroded white matter is where the mask of cerebral white matter,
blurred by 8 mm FWHM, is above 0.7. Here the lobules are AAL's.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.atlas import labels_mask, lobule_numbers
from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA

AdniRule = Literal["inferior", "eroded", "whole", "composite"]

_BLUR_FWHM_MM = 8.0
_ERODED_ABOVE = 0.7
_TRUNCATE = 4.0
#: The blur reaches this far, so masks must be cut with this margin at least, mm.
REACH_MM = _TRUNCATE * _BLUR_FWHM_MM / FWHM_PER_SIGMA + 1
#: SUIT's number 6 is vermis VI, which is kept, while the hemispheres of lobule VI (5 and 7) are not.
_VERMIS_6 = 9130
#: Parts of composite white matter: brainstem, whole cerebellum, and (eroded) cerebral white matter.
_BRAINSTEM, _CEREBELLUM, _WHITE = (16,), (7, 8, 46, 47), (2, 41)


def adni_parts(
    rule: AdniRule,
    labels: NDArray[np.integer],
    inside: NDArray[np.bool_],
    lobules: NDArray,
    voxel_mm: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """Return the voxels of a reference region by a rule of ADNI, as the number of the part that they belong to.

    Parameters
    ----------
    rule
        ``composite``: brainstem (1), eroded white matter (2), and whole cerebellum (3), whose means count equally; for
        all others see `adni_voxels`, and there is one part.
    labels
        FreeSurfer numbers ``(I, J, K)``, with `REACH_MM` around the region.
    inside, lobules, voxel_mm
        As for `adni_voxels`.
    """
    if rule != "composite":
        return adni_voxels(rule, inside, lobules, voxel_mm).astype(np.uint8)
    parts = np.where(adni_voxels("eroded", labels_mask(labels, _WHITE), lobules, voxel_mm), 2, 0).astype(np.uint8)
    parts[labels_mask(labels, _BRAINSTEM)] = 1
    parts[labels_mask(labels, _CEREBELLUM)] = 3
    return parts


def adni_voxels(
    rule: AdniRule, inside: NDArray[np.bool_], lobules: NDArray[np.integer], voxel_mm: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return the voxels of a reference region by a rule of ADNI.

    Parameters
    ----------
    rule
        ``inferior``: inferior cerebellar cortex; ``eroded``: eroded white matter, which may have a voxel of another
        label inside the white matter; ``whole``: all voxels.
    inside
        Boolean ``(I, J, K)``: the labels of the region, with `REACH_MM` around them.
    lobules
        AAL numbers on the same grid; read for ``inferior`` only.
    voxel_mm
        Edges of a voxel.
    """
    if rule == "whole":
        return inside
    if rule == "eroded":
        return _blurred(inside, voxel_mm) > _ERODED_ABOVE
    kept = (*lobule_numbers("inferior"), _VERMIS_6)
    left_out = [number for number in lobule_numbers("superior") if number != _VERMIS_6]
    outweighs = _blurred(labels_mask(lobules, kept), voxel_mm) > _blurred(labels_mask(lobules, left_out), voxel_mm)
    return inside & outweighs


def _blurred(mask: NDArray[np.bool_], voxel_mm: NDArray[np.float64]) -> NDArray[np.float32]:
    sigma = (_BLUR_FWHM_MM / FWHM_PER_SIGMA / voxel_mm).tolist()
    return ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="constant", truncate=_TRUNCATE)
