"""Corrected maps on the grid of the T1w, for looking at and for voxelwise work.

The values of the regions come from the PET's own grid; here they are painted on the labels of the T1w, blurred as the
PET is on this grid, and compared with it. Regional values in tables come from the regions themselves: the mean of a map
over a region is still a mean of mixed voxels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.atlas import label_array
from tau_pipeline.imaging.foreground import distance_to
from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA
from tau_pipeline.imaging.volume import Affine, Volume, image_like, require_same_grid, voxel_size_mm
from tau_pipeline.pvc.methods import ENOUGH_TISSUE, tissue_numbers
from tau_pipeline.pvc.regions import SHELLS_MM, Box, Floats, region_numbers_of
from tau_pipeline.settings.participant import PvcMethod

METHODS_WITH_MAPS: frozenset[PvcMethod] = frozenset({"rbv", "iy", "mg", "meltzer"})
#: The part of the T1w grid that is worked on ends this far from the brain, mm: what is farther does not reach it.
ROOM_MM = 15.0
#: A shell is painted where its values reach; the outermost one is nowhere near.
_SMALLEST = 1e-6
#: Number of slices of the T1w grid for which shells are computed at a time.
_SLAB = 96


class CorrectedMaps:
    """Maps of one scan.

    Parameters
    ----------
    activity
        PET on the T1w grid ``(I, J, K)``, NaN where nothing is measured.
    dseg, mask
        Labels (FreeSurfer numbers) and brain mask on the same grid.
    covariance_mm2
        ``(3, 3)``: blur of ``activity`` in the world of the T1w, from `blur_on_t1w`.

    Raises
    ------
    GridMismatchError
        The images are not on one grid.
    """

    def __init__(self, activity: Volume, dseg: Volume, mask: Volume, covariance_mm2: NDArray[np.float64]) -> None:
        require_same_grid(activity=activity, dseg=dseg, mask=mask)
        labels, inside = label_array(dseg), np.asanyarray(mask.dataobj) > 0
        voxel_mm = voxel_size_mm(dseg)
        self._like = dseg
        self._box = _box((labels > 0) | inside, np.ceil(ROOM_MM / voxel_mm).astype(int).tolist())
        self._numbers = _with_shells(region_numbers_of(labels[self._box], inside[self._box]), voxel_mm)
        self._brain = self._numbers < min(SHELLS_MM)
        self._activity = np.asarray(activity.dataobj[self._box], np.float32)
        axes = dseg.affine[:3, :3] / voxel_mm
        self._sigma = np.sqrt(np.diag(axes.T @ covariance_mm2 @ axes)) / voxel_mm

    def make(self, method: PvcMethod, values: Mapping[int, float], reference: float) -> Volume:
        """Return the corrected SUVR map, float32 on the T1w grid, NaN where the method has no value.

        Parameters
        ----------
        method
            One of `METHODS_WITH_MAPS`.
        values
            Of each region by its number, in the unit of the activity; NaN where there is none.
        reference
            Corrected activity of the reference region.
        """
        return self._made(self._activity, method, values, reference)

    def weights(self, method: PvcMethod, values: Mapping[int, float], reference: float) -> tuple[Volume, Volume]:
        """Return offset and slope of a map, float32 on the T1w grid: `make` gives offset + slope * activity.

        They come from labels and point spread alone, so that a map in another space needs the PET once. The arguments
        are those of `make`.
        """
        offset = self._made(np.zeros_like(self._activity), method, values, reference)
        at_one = self._made(np.ones_like(self._activity), method, values, reference)
        slope = np.asanyarray(at_one.dataobj) - np.asanyarray(offset.dataobj)
        return offset, image_like(slope, self._like)

    def _made(self, activity: Floats, method: PvcMethod, values: Mapping[int, float], reference: float) -> Volume:
        """Return the map of `make` for an activity in the box around the brain; it is linear in the activity."""
        if method in ("rbv", "iy"):
            before = self._painted(values)
            after = self._blurred(np.nan_to_num(before))
            np.maximum(after, _SMALLEST * max(float(np.nanmax(before)), 1e-30), out=after)
            np.multiply(activity, before, out=before)
            found = np.divide(before, after, out=after)
        else:
            gray, white = (np.isin(self._numbers, one) for one in tissue_numbers(np.unique(self._numbers)))
            target = gray if method == "mg" else gray | white
            rest = activity
            if method == "mg":
                of_white = self._painted(values)
                of_white[~white | np.isnan(of_white)] = 0
                rest = rest - self._blurred(of_white)
                del of_white
            found = self._blurred(target.astype(np.float32))
            target &= found > ENOUGH_TISSUE
            np.divide(rest, np.maximum(found, ENOUGH_TISSUE, out=found), out=found)
            found[~target] = np.nan
        whole = np.full(self._like.shape[:3], np.nan, np.float32)
        np.divide(found, np.float32(reference), out=whole[self._box], where=self._brain)
        return image_like(whole, self._like)

    def _painted(self, values: Mapping[int, float]) -> Floats:
        table = np.full(int(self._numbers.max()) + 1, np.nan, np.float32)
        for number, value in values.items():
            if number < len(table):
                table[number] = value
        return table[self._numbers]

    def _blurred(self, image: Floats) -> Floats:
        return ndimage.gaussian_filter(image, self._sigma.tolist(), mode="nearest", truncate=4.0)


def blur_on_t1w(
    fwhm_mm: tuple[float, float, float], pet: Volume, pet2t1w_xfm: Affine, smoothing_fwhm_mm: float = 0.0
) -> NDArray[np.float64]:
    """Return the blur of a PET on the T1w grid as a covariance matrix ``(3, 3)`` in the world of the T1w, mm².

    Parameters
    ----------
    fwhm_mm
        Point spread along the axes of the PET, mm.
    pet
        Gives these axes, and the edges h of its voxels: linear interpolation adds h²/6 along each.
    pet2t1w_xfm
        ``(4, 4)``, PET world to T1w world.
    smoothing_fwhm_mm
        Of the filter that was applied besides.
    """
    voxel_mm = voxel_size_mm(pet)
    axes = pet2t1w_xfm[:3, :3] @ pet.affine[:3, :3] / voxel_mm
    variance = (np.array(fwhm_mm) / FWHM_PER_SIGMA) ** 2 + voxel_mm**2 / 6 + (smoothing_fwhm_mm / FWHM_PER_SIGMA) ** 2
    return axes @ np.diag(variance) @ axes.T


def _box(inside: NDArray[np.bool_], room: list[int]) -> Box:
    (found,) = ndimage.find_objects(inside.astype(np.uint8))
    i, j, k = (
        slice(max(0, one.start - extra), min(size, one.stop + extra))
        for one, extra, size in zip(found, room, inside.shape, strict=True)
    )
    return i, j, k


def _with_shells(numbers: NDArray[np.int16], voxel_mm: NDArray[np.float64]) -> NDArray[np.int16]:
    """Give the voxels around the brain the number of their shell, in place, and return all numbers."""
    *shells, (last, _) = sorted(SHELLS_MM.items())
    room = int(np.ceil(shells[-1][1] / voxel_mm[2])) + 1
    outside = numbers == 0
    # In slabs that see as far as the shells reach: a distance transform takes 20 bytes per voxel.
    for first in range(0, numbers.shape[2], _SLAB):
        below = min(first, room)
        seen = outside[:, :, first - below : first + _SLAB + room]
        if seen.all():
            continue
        distance = distance_to(~seen, voxel_mm)[:, :, below : below + _SLAB]
        own = numbers[:, :, first : first + _SLAB]
        for number, furthest in shells:
            own[(own == 0) & (distance <= furthest)] = number
    numbers[numbers == 0] = last
    return numbers
