"""Quality measures of an SUVR map, and the values that the group level needs, without reading its voxels again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import labels_mask, region_numbers
from tau_pipeline.errors import ImageError

#: Of the cortical SUVR, as Moon et al. plot them by manufacturer and diagnosis (arXiv 2406.12632).
PERCENTILES = (75, 90, 99)


def map_quality(suvr: NDArray, brain: NDArray, dseg: NDArray, reference: NDArray, voxel_mm3: float) -> dict[str, Any]:
    """Return quality measures of one SUVR map, under the names that they have in its sidecar.

    Parameters
    ----------
    suvr
        ``(I, J, K)``. Voxels that are not finite do not count, nor those that are exactly 0: outside of the PET's
        field of view.
    brain, reference
        Masks of the brain and of the reference region, above 0 inside; same shape.
    dseg
        FreeSurfer labels, same shape.
    voxel_mm3
        Volume of a voxel.

    Returns
    -------
    dict
        ``BrainVolume`` (mm3, of the mask), ``BrainVoxels`` (with a value), ``BrainMean`` and
        ``BrainStandardDeviation`` of SUVR over them (ddof 0), ``CorticalPercentiles`` (of the SUVR of the 68 cortical
        regions, by percent; None without cortex), ``Noise`` (standard deviation of SUVR in the reference region,
        whose mean is 1: a coefficient of variation).

    Raises
    ------
    ImageError
        The shapes differ, or no voxel of the brain has a value.
    """
    shapes = {np.shape(array) for array in (suvr, brain, dseg, reference)}
    if len(shapes) > 1:
        raise ImageError(f"the images have shapes {', '.join(map(str, sorted(shapes)))}; one grid is needed")
    known, inside = np.isfinite(suvr) & (np.asarray(suvr) != 0), np.asarray(brain) > 0
    values = np.asarray(suvr)[inside & known].astype(np.float64)
    if not values.size:
        raise ImageError("no voxel of the brain mask has an SUVR")
    cortex = np.asarray(suvr)[labels_mask(dseg, region_numbers("cortical")) & known]
    in_reference = np.asarray(suvr)[(np.asarray(reference) > 0) & known].astype(np.float64)
    percentiles = np.percentile(cortex.astype(np.float64), PERCENTILES) if cortex.size else [None] * len(PERCENTILES)
    return {
        "BrainVolume": float(inside.sum() * voxel_mm3),
        "BrainVoxels": int(values.size),
        "BrainMean": float(values.mean()),
        "BrainStandardDeviation": float(values.std()),
        "CorticalPercentiles": {
            str(percent): None if value is None else float(value)
            for percent, value in zip(PERCENTILES, percentiles, strict=True)
        },
        "Noise": float(in_reference.std()) if in_reference.size else None,
    }
