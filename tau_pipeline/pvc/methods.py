"""Regional values by each method of partial volume correction.

``y`` is the PET, ``Fᵢ`` the fraction of region i in a voxel, ``Bᵢ`` the same after the blur, ``bᵢ`` the value sought.
Noise goes into the values of each method as it goes into the ``b`` that solves ``M b = Wᵀ y``, so that one rule for
standard errors holds for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import region_numbers
from tau_pipeline.pvc.model import Blurred
from tau_pipeline.pvc.regions import SHELLS_MM, SULCAL_CSF
from tau_pipeline.settings.participant import PvcMethod

#: Iterations of the iterative Yang method, and share of gray matter or tissue in a voxel that MG and Meltzer need.
_ITERATIONS, ENOUGH_TISSUE = 10, 0.5
_STEM = (16, 28, 60)


@dataclass(frozen=True)
class Estimate:
    """Regional values by one method.

    Attributes
    ----------
    values
        In the order of the model's regions and the unit of the PET; NaN where the method gives none.
    solved
        ``M``, ``(regions, regions)``.
    weights
        ``W``, sparse ``(rows, regions)``.
    painted
        Values that the corrected map is made with, where they are others.
    """

    values: NDArray[np.float64]
    solved: NDArray[np.float64]
    weights: Any
    painted: NDArray[np.float64] | None = None


def estimate(method: PvcMethod, blurred: Blurred) -> Estimate:
    """Return regional values by a method.

    Parameters
    ----------
    method
        Its name.
    blurred
        Regions, point spread, and PET.
    """
    found = _METHODS[method](blurred)
    painted = found.values if found.painted is None else found.painted
    known = (np.where(blurred.known, one, np.nan) for one in (found.values, painted))
    return replace(found, **dict(zip(("values", "painted"), known, strict=True)))


def least_squares(blurred: Blurred) -> Estimate:
    """Least squares, ``BᵀB b = Bᵀ y``: Sattarivand et al. 2012, Phys Med Biol 57:7101."""
    return _solved(blurred.columns, blurred.columns, blurred)


def _gtm(blurred: Blurred) -> Estimate:
    """Means of the regions, ``FᵀB b = Fᵀ y``: Rousset et al. 1998, J Nucl Med 39:904."""
    return _solved(blurred.fractions, blurred.columns, blurred)


def _rbv(blurred: Blurred) -> Estimate:
    """Correct once by region-based voxelwise correction with the values of GTM.

    Thomas et al. 2011, Eur J Nucl Med Mol Imaging 38:1104. Its regional values are those of which the corrected image
    is a mixture; noise is that of GTM.
    """
    start = _gtm(blurred)
    return replace(start, values=_unmixed(blurred, start.values), painted=start.values)


def _iterative_yang(blurred: Blurred) -> Estimate:
    """Correct each voxel by the regional values of the corrected image, ten times.

    Yang et al. 1996, IEEE Trans Nucl Sci 43:3320, as iterated by Erlandsson et al. 2012, Phys Med Biol 57:R119. It
    tends to the values of GTM, whose noise it is given.
    """
    values = _solved(blurred.fractions, blurred.fractions, blurred).values
    for _ in range(_ITERATIONS):
        values = _unmixed(blurred, values)
    return replace(_gtm(blurred), values=values)


def _mueller_gaertner(blurred: Blurred) -> Estimate:
    """Return gray matter without the spill-over from white matter, with fluid taken as 0.

    Müller-Gärtner et al. 1992, J Cereb Blood Flow Metab 12:571; the value of white matter is that of least squares, as
    in PETSurfer (Greve et al. 2016).
    """
    gray, white = tissue_regions(blurred)
    fitted = least_squares(blurred).values
    rest = blurred.pet - blurred.columns[:, white] @ fitted[white]
    share = np.asarray(blurred.columns[:, gray].sum(axis=1)).ravel()
    found = _averaged(blurred, rest, share)
    values = np.where(np.isin(np.arange(len(fitted)), gray), found.values, np.nan)
    values[white] = fitted[white]
    return Estimate(values, found.solved, found.weights)


def _meltzer(blurred: Blurred) -> Estimate:
    """Activity over the share of brain tissue, fluid taken as 0: Meltzer et al. 1990, J Comput Assist Tomogr 14:561."""
    tissue = np.concatenate(tissue_regions(blurred))
    share = np.asarray(blurred.columns[:, tissue].sum(axis=1)).ravel()
    found = _averaged(blurred, blurred.pet, share)
    values = np.where(np.isin(np.arange(len(found.values)), tissue), found.values, np.nan)
    return Estimate(values, found.solved, found.weights)


_METHODS: dict[PvcMethod, Callable[[Blurred], Estimate]] = {
    "sgtm": least_squares,
    "gtm": _gtm,
    "rbv": _rbv,
    "iy": _iterative_yang,
    "mg": _mueller_gaertner,
    "meltzer": _meltzer,
}


def tissue_regions(blurred: Blurred) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the places of gray matter, and of white matter with the brainstem, among the regions."""
    numbers = np.array(blurred.model.numbers)
    gray, white = (np.flatnonzero(np.isin(numbers, one)) for one in tissue_numbers(numbers))
    return gray, white


def tissue_numbers(numbers: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return those numbers of regions that are gray matter, and those that are white matter or brainstem."""
    white = np.isin(numbers, [*region_numbers("white"), *_STEM])
    fluid = np.isin(numbers, [*region_numbers("csf"), SULCAL_CSF]) | (numbers >= min(SHELLS_MM))
    return numbers[~white & ~fluid], numbers[white]


def _solved(weights: Any, columns: Any, blurred: Blurred) -> Estimate:
    """Solve ``Wᵀ C b = Wᵀ y`` for the regions of which enough is measured; the others are NaN."""
    matrix = (weights.T @ columns).toarray().astype(np.float64)
    some = np.diag(matrix) > 0
    values = np.full(len(matrix), np.nan)
    scale = 1 / np.sqrt(np.diag(matrix)[some])
    scaled = matrix[np.ix_(some, some)] * scale[:, None] * scale
    values[some] = scale * np.linalg.solve(scaled, scale * (weights.T @ blurred.pet)[some])
    return Estimate(values, matrix, weights)


def _unmixed(blurred: Blurred, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correct each voxel by the ratio of the regions' image before and after the blur; return the regional values."""
    paint = blurred.model.painted(np.nan_to_num(np.maximum(values, 0)))
    after = blurred.spread(paint)
    ratio = np.divide(paint[blurred.rows], after, out=np.ones_like(after), where=after > 1e-6 * paint.max())
    return _solved(blurred.fractions, blurred.fractions, replace(blurred, pet=blurred.pet * ratio)).values


def _averaged(blurred: Blurred, image: NDArray[np.float64], share: NDArray[np.float64]) -> Estimate:
    """Average an image over a tissue's share where it is large enough, weighted by the fractions."""
    enough = share > ENOUGH_TISSUE
    divided = np.divide(1.0, share, out=np.zeros_like(share), where=enough)
    weights = blurred.fractions.multiply(divided[:, None]).tocsr()
    volume = np.asarray(blurred.fractions[enough].sum(axis=0), float).ravel()
    values = np.divide(weights.T @ image, volume, out=np.full(len(volume), np.nan), where=volume > 0)
    return Estimate(values, np.diag(volume), weights)
