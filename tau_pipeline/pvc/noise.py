"""Standard errors of regional values, from what the regions leave unexplained.

The residual has a level that differs from place to place, and its voxels are correlated by reconstruction and
resampling: independent voxels would give standard errors that are several times too small. So the noise is taken as
white noise, blurred, times a local level, both read off the residual; a regional value is a sum over voxels with known
weights, which gives its variance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA
from tau_pipeline.pvc.methods import Estimate, least_squares
from tau_pipeline.pvc.model import Blurred, stacked

#: Width over which the level of the residual is averaged, FWHM in mm.
_LEVEL_FWHM_MM = 20.0


class Noise:
    """Noise of a PET, as its residual shows it.

    Parameters
    ----------
    blurred
        Regions, rows, and PET. The residual is that of the least-squares fit, of all regions that are seen at all.
    """

    def __init__(self, blurred: Blurred) -> None:
        self.blurred = blurred
        model = blurred.model
        residual = blurred.pet - blurred.columns @ np.nan_to_num(least_squares(blurred).values)
        sigma = _LEVEL_FWHM_MM / FWHM_PER_SIGMA / model.voxel_mm
        square, weight = np.zeros(model.shape, np.float32), blurred.rows.astype(np.float32)
        square[blurred.rows] = residual**2 * len(residual) / max(1, len(residual) - len(model.numbers))
        near = ndimage.gaussian_filter(weight, sigma)
        level = ndimage.gaussian_filter(square, sigma) / np.maximum(near, 1e-6)
        self.level = np.sqrt(level)[blurred.rows].astype(np.float64)
        self.grain = self._grain(residual)

    def _grain(self, residual: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the standard deviation, in voxels along each axis, of the Gaussian that white noise was blurred by.

        Such noise has the correlation ``exp(-1 / (4 s²))`` between neighbors.
        """
        image = np.zeros(self.blurred.model.shape, np.float64)
        inside = self.blurred.rows
        image[inside] = residual / np.maximum(self.level, 1e-12 + 1e-6 * self.level.max())
        found = []
        for axis in range(3):
            first, second = (_slice(axis, part) for part in (slice(None, -1), slice(1, None)))
            both = inside[first] & inside[second]
            one, other = image[first][both], image[second][both]
            correlation = float((one * other).mean() / max((one**2).mean(), 1e-30)) if both.any() else 0.0
            found.append(0.0 if correlation <= 0.01 else 1 / np.sqrt(-4 * np.log(min(correlation, 0.99))))
        return np.array(found)

    def covariance(self, estimate: Estimate) -> NDArray[np.float64]:
        """Return the covariance ``(regions, regions)`` of regional values; 0 for regions without a value."""
        weights = self._spread(estimate.weights.multiply(self.level[:, None]).tocsc())
        middle = (weights.T @ weights).toarray().astype(np.float64)
        some = np.isfinite(estimate.values) & (np.diag(estimate.solved) > 0)
        inverse = np.zeros_like(middle)
        scale = 1 / np.sqrt(np.diag(estimate.solved)[some])
        scaled = estimate.solved[np.ix_(some, some)] * scale[:, None] * scale
        inverse[np.ix_(some, some)] = scale[:, None] * np.linalg.inv(scaled) * scale
        return inverse @ middle @ inverse.T

    def _spread(self, weights: Any) -> Any:
        """Blur each column of weights ``(rows, regions)`` by the kernel of the noise, whose squares sum to 1."""
        places = np.flatnonzero(self.blurred.rows.ravel())
        size = np.prod([_height(one) for one in self.grain])
        boxes, parts = [], []
        for column in range(weights.shape[1]):
            entries = slice(weights.indptr[column], weights.indptr[column + 1])
            where = np.unravel_index(places[weights.indices[entries]], self.blurred.model.shape)
            low = [int(one.min()) if len(one) else 0 for one in where]
            part = np.zeros(
                [int(one.max()) - first + 1 if len(one) else 1 for one, first in zip(where, low, strict=True)]
            )
            part[tuple(one - first for one, first in zip(where, low, strict=True))] = weights.data[entries]
            i, j, k = (slice(first, first + length) for first, length in zip(low, part.shape, strict=True))
            boxes.append((i, j, k))
            parts.append((part / size).astype(np.float32))
        return stacked(boxes, parts, self.blurred.model.shape, self.grain)


def _height(sigma: float) -> float:
    """Return the root of the sum of the squares of a Gaussian kernel of ``sigma`` voxels, whose values sum to 1."""
    impulse = np.zeros(101)
    impulse[50] = 1.0
    return float(np.sqrt((ndimage.gaussian_filter1d(impulse, sigma) ** 2).sum())) if sigma > 0 else 1.0


def _slice(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if one == axis else slice(None) for one in range(3))
