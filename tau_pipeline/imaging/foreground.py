"""Find the head in an image by its brightness."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.imaging.resample import Mask


def largest_object(data: NDArray, level: float | np.floating[Any]) -> Mask:
    """Return the largest connected piece ``(I, J, K)`` of what is brighter than a level; empty if nothing is.

    Pieces are connected by faces of voxels.
    """
    from scipy import ndimage

    pieces, count = ndimage.label(data > level)
    if count == 0:
        return np.zeros(data.shape, dtype=bool)
    largest: Mask = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return largest
