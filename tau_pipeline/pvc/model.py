"""The image that the regions would give: each one's fractions, blurred by the scanner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA
from tau_pipeline.pvc.regions import SHELLS_MM, Box, Floats, RegionModel

#: Kernels end at this many standard deviations.
_TRUNCATE = 4.0
#: The regions must explain this share of a voxel for it to count: nothing unknown reaches it.
_COVERED = 0.99
#: The brain must give this share of a voxel's signal for it to count. What is farther says nothing about the brain, and
#: would pull the shells, which have one value each, away from what spills into it.
_REACHED = 0.05


@dataclass(frozen=True)
class Blurred:
    """Regions blurred by a point spread, at the rows: the voxels of the part that count.

    Attributes
    ----------
    model
        The regions.
    fwhm_mm
        Point spread along the three axes of the PET grid.
    usable
        Boolean, of the part: voxels that the regions explain and that the brain reaches.
    rows
        Boolean, of the part: those of them that are measured.
    columns
        Sparse ``(rows, regions)``, ``Bᵢ``: each region's share of a voxel's signal.
    pet
        The PET at the rows, float64.
    min_measured
        A region of which less than this share of the usable voxels is measured has no value.
    """

    model: RegionModel
    fwhm_mm: tuple[float, float, float]
    usable: NDArray[np.bool_]
    rows: NDArray[np.bool_]
    columns: Any
    pet: NDArray[np.float64]
    min_measured: float

    @cached_property
    def fractions(self) -> Any:
        """Sparse ``(rows, regions)``, ``Fᵢ``: the regions before the blur."""
        return stacked(self.model.boxes, self.model.fractions, self.model.shape, np.zeros(3))[
            np.flatnonzero(self.rows.ravel())
        ]

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Regions of which enough is measured."""
        usable = (self.usable[box] for box in self.model.boxes)
        volume = np.array(
            [one[own].sum(dtype=np.float64) for one, own in zip(self.model.fractions, usable, strict=True)]
        )
        measured = np.asarray(self.fractions.sum(axis=0)).ravel()
        return (measured > 0) & (measured >= self.min_measured * volume * (1 - 1e-6))

    def spread(self, paint: Floats) -> NDArray[np.float64]:
        """Return an image of the part, blurred by the point spread, at the rows."""
        return blur(paint, sigma_voxels(self.model, self.fwhm_mm))[self.rows].astype(np.float64)


def sigma_voxels(model: RegionModel, fwhm_mm: Sequence[float]) -> NDArray[np.float64]:
    """Return the standard deviation, in voxels, that blurs the fractions to a resolution along each axis of the PET.

    The blur that is in the fractions already is taken off.
    """
    variance = (np.asarray(fwhm_mm, float) / FWHM_PER_SIGMA) ** 2 - model.variance_mm2
    return np.sqrt(np.maximum(variance, 0.0)) / model.voxel_mm


def blur(image: Floats, sigma: NDArray[np.float64]) -> Floats:
    """Return an array blurred by a Gaussian of ``sigma`` voxels along each axis; zeros are around it."""
    return ndimage.gaussian_filter(image, sigma.tolist(), mode="constant", truncate=_TRUNCATE)


def blur_regions(
    model: RegionModel,
    pet: Floats,
    fwhm_mm: Sequence[float],
    min_measured: float = 0.5,
    reached: float = _REACHED,
) -> Blurred:
    """Blur the fractions of each region.

    Parameters
    ----------
    model
        The regions.
    pet
        PET on the part, as `RegionModel.cut` gives it; voxels that are not finite are not measured.
    fwhm_mm
        Point spread along the three axes of the PET grid.
    min_measured
        Share of a region that must be measured.
    reached
        Share of a voxel's signal that must come from the brain or a hot spot beside it.

    Raises
    ------
    ImageError
        No voxel counts.
    """
    whole = stacked(model.boxes, model.fractions, model.shape, sigma_voxels(model, fwhm_mm))
    shells = np.isin(model.numbers, list(SHELLS_MM))
    near = np.asarray(whole[:, np.flatnonzero(~shells)].sum(axis=1)).ravel() >= reached
    usable = (near & (np.asarray(whole.sum(axis=1)).ravel() > _COVERED)).reshape(model.shape)
    rows = usable & np.isfinite(pet)
    if not rows.any():
        raise ImageError(
            "no voxel of the head has a PET value, so that partial volume correction is not possible; check the "
            "coregistration of PET and T1w"
        )
    along_i, along_j, along_k = map(float, fwhm_mm)
    columns = whole[np.flatnonzero(rows.ravel())]
    return Blurred(
        model, (along_i, along_j, along_k), usable, rows, columns, pet[rows].astype(np.float64), min_measured
    )


def stacked(
    boxes: Sequence[Box], images: Sequence[Floats], shape: tuple[int, int, int], sigma: NDArray[np.float64]
) -> Any:
    """Return images in boxes of the part, blurred by ``sigma`` voxels, as columns of a sparse matrix, by rows.

    The matrix has a row for each voxel of the part and a column for each image.
    """
    values, places, starts = [], [], [0]
    for box, image in zip(boxes, images, strict=True):
        found, place = _blurred_region(box, image, shape, sigma)
        values.append(found)
        places.append(place)
        starts.append(starts[-1] + len(found))
    size = (int(np.prod(shape)), len(images))
    return sparse.csc_matrix((np.concatenate(values), np.concatenate(places), np.array(starts)), shape=size).tocsr()


def _blurred_region(
    box: Box, fraction: Floats, shape: tuple[int, int, int], sigma: NDArray[np.float64]
) -> tuple[Floats, NDArray[np.int32]]:
    """Return the values above zero of a blurred region, and their places in the raveled part."""
    reach = np.ceil(_TRUNCATE * sigma).astype(int).tolist()
    low = [max(0, one.start - room) for one, room in zip(box, reach, strict=True)]
    high = [min(size, one.stop + room) for one, room, size in zip(box, reach, shape, strict=True)]
    room = [(one.start - a, b - one.stop) for one, a, b in zip(box, low, high, strict=True)]
    wide = blur(np.pad(fraction, room), sigma) if sigma.any() else fraction
    inner = np.nonzero(np.abs(wide) > 1e-6 * np.abs(wide).max(initial=0))
    start = low if sigma.any() else [one.start for one in box]
    place = np.ravel_multi_index(tuple(one + a for one, a in zip(inner, start, strict=True)), shape)
    return wide[inner], place.astype(np.int32)
