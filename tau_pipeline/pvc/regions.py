"""The regions that a PET image is explained by: they tile the head, on the grid of the PET.

A PET voxel sees its neighbors, so every source of signal within reach needs a region: those of the parcellation, the
fluid inside the brain mask, and what surrounds the brain, in shells. The PET is not resampled (as in Greve et al. 2016,
NeuroImage 132:334): each labeled voxel of the T1w gives its volume to the eight PET voxels around its center, so that
every region keeps its volume and its place exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.atlas import label_array, label_table, template_region_table
from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.foreground import distance_to
from tau_pipeline.imaging.volume import Affine, Volume, require_same_grid, voxel_size_mm, voxel_volume_mm3

Floats = NDArray[np.float32]
Box = tuple[slice, slice, slice]

#: Fluid inside the brain mask that has no label, in sulci and cisterns; the number is FreeSurfer's CSF-ExtraCerebral.
SULCAL_CSF = 257
#: Shells around the brain: outer distance in mm, by number. FreeSurfer has none for them.
SHELLS_MM = {9301: 4.0, 9302: 12.0, 9303: 25.0}
#: First number of the hot spots in the shells (`tau_pipeline.pvc.hot_spots`).
HOT_SPOTS = 9311
#: Regions below this volume are merged with a neighbor: they have too few voxels to be told apart.
SMALLEST_MM3 = 300.0
#: Labels that are one region for the model, by the number that stands for it: ventricles, corpus callosum, white
#: matter with its lesions, cortex without a name.
_JOINED = {
    4: (5, 14, 15, 43, 44, 72), 24: (), 251: (252, 253, 254, 255, 1004, 2004), 2: (77, 78), 41: (79,),
    3: (1000,), 42: (2000,),
}  # fmt: skip
#: Points are not spread quite evenly: inside the brain, fractions add up to 1 within this.
_RIPPLE = 0.02
#: Voxels of the T1w are divided until their edges are at most this share of the smallest edge of a PET voxel.
_FINE_ENOUGH = 0.75


@dataclass(frozen=True)
class RegionModel:
    """Regions on the part of a PET grid around the brain.

    Attributes
    ----------
    numbers
        FreeSurfer numbers, AAL numbers of lobules, `SULCAL_CSF`, `SHELLS_MM`, and hot spots; in this order everywhere.
    boxes, fractions
        For each region, its box within the part, and the fraction of each of the box's voxels that it fills, float32.
        A voxel takes from its neighbors what linear weights give it, so fractions are blurred by `variance_mm2`.
    shape, start
        Of the part; ``start`` is its first voxel on the PET grid, and may be outside of it.
    voxel_mm
        Edges of a voxel.
    variance_mm2
        Variance along each axis of the blur that is in the fractions already.
    merged
        Number of each region that was too small, and of the one that it was merged with.
    distance_mm
        Distance to the brain of each voxel of the part; 0 inside.
    """

    numbers: tuple[int, ...]
    boxes: tuple[Box, ...]
    fractions: tuple[Floats, ...]
    shape: tuple[int, int, int]
    start: tuple[int, int, int]
    voxel_mm: NDArray[np.float64]
    variance_mm2: NDArray[np.float64]
    merged: Mapping[int, int]
    distance_mm: Floats

    @cached_property
    def volumes_mm3(self) -> NDArray[np.float64]:
        """Volume of each region."""
        return np.array([one.sum(dtype=np.float64) for one in self.fractions]) * float(np.prod(self.voxel_mm))

    def column(self, label: int) -> int | None:
        """Return the place of the region that a label of the parcellation belongs to; None if it has none."""
        number = region_of(label)
        number = self.merged.get(number, number)
        return self.numbers.index(number) if number in self.numbers else None

    def painted(self, values: NDArray) -> Floats:
        """Return an image of the part in which each region has one value, mixed by the fractions."""
        image = np.zeros(self.shape, np.float32)
        for value, box, fraction in zip(values, self.boxes, self.fractions, strict=True):
            image[box] += np.float32(value) * fraction
        return image

    def cut(self, pet: NDArray) -> Floats:
        """Return the part of a PET array ``(I, J, K)``, NaN where it reaches beyond the grid."""
        part = np.full(self.shape, np.nan, np.float32)
        target, source = [], []
        for first, length, whole in zip(self.start, self.shape, pet.shape, strict=True):
            low, high = max(first, 0), min(first + length, whole)
            target.append(slice(low - first, max(high, low) - first))
            source.append(slice(low, max(high, low)))
        part[tuple(target)] = pet[tuple(source)]
        return part


def region_of(label: int) -> int:
    """Return the number of the region that a label belongs to.

    Examples
    --------
    >>> region_of(1006), region_of(254)
    (1006, 251)
    """
    return next((number for number, others in _JOINED.items() if label in others), label)


def region_model(pet: Volume, dseg: Volume, mask: Volume, pet2t1w_xfm: Affine) -> RegionModel:
    """Return the regions of a head on the grid of its PET.

    Parameters
    ----------
    pet
        3-D; gives the grid.
    dseg
        Labels ``(I, J, K)``, FreeSurfer numbers, on the T1w grid; the cerebellar cortex may be in lobules
        (`tau_pipeline.pvc.cerebellum.with_lobules`).
    mask
        Brain mask on the same grid.
    pet2t1w_xfm
        ``(4, 4)``, PET world to T1w world.

    Raises
    ------
    GridMismatchError
        Labels and mask are not on one grid.
    ImageError
        There is no label, or no voxel of the brain within the reach of the PET.
    """
    require_same_grid(dseg=dseg, mask=mask)
    labels, inside = label_array(dseg), np.asanyarray(mask.dataobj) > 0
    if not (labels > 0).any():
        raise ImageError("the parcellation is empty; partial volume correction needs its regions")
    box = ndimage.find_objects(((labels > 0) | inside).astype(np.uint8))[0]
    numbers = region_numbers_of(labels[box], inside[box])
    merged = _merge_small(numbers, voxel_volume_mm3(dseg))
    voxel_mm = voxel_size_mm(pet)
    to_pet = np.linalg.inv(pet.affine) @ np.linalg.inv(pet2t1w_xfm) @ dseg.affine
    to_pet[:3, 3] += to_pet[:3, :3] @ np.array([one.start for one in box])
    parts = np.maximum(1, np.ceil(voxel_size_mm(dseg) / _FINE_ENOUGH / voxel_mm.min() - 0.01))
    points = _Points(numbers, to_pet, parts)
    room = np.ceil(max(SHELLS_MM.values()) / voxel_mm).astype(int) + 1
    start, shape = points.part(room)
    found = list(points.fractions(start, shape, voxel_volume_mm3(dseg) / voxel_volume_mm3(pet)))
    outside = np.ones(shape, np.float32)
    for _, where, fraction in found:
        outside[where] -= fraction
    distance = distance_to(outside <= 0.5, voxel_mm)
    outside[np.abs(outside) < _RIPPLE] = 0
    found += _shells(outside, distance, float(voxel_mm.mean()))
    return RegionModel(
        numbers=tuple(number for number, _, _ in found),
        boxes=tuple(where for _, where, _ in found),
        fractions=tuple(fraction for _, _, fraction in found),
        shape=shape,
        start=start,
        voxel_mm=voxel_mm,
        variance_mm2=voxel_mm**2 / 6 - _variance_of_points(to_pet, parts, voxel_mm),
        merged=merged,
        distance_mm=distance,
    )


def _variance_of_points(
    to_pet: Affine, parts: NDArray[np.float64], voxel_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the variance along each axis of the PET, mm², that is lost since a part of a voxel counts as a point.

    An edge of a part, of length e along an axis of the PET, is a uniform distribution of variance e²/12.
    """
    edges = to_pet[:3, :3] * voxel_mm[:, None] / parts
    return np.asarray((edges**2).sum(axis=1) / 12)


def region_numbers_of(labels: NDArray[np.integer], inside: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Return the number of the region of each voxel of the T1w grid; 0 outside the brain."""
    number_of = np.arange(int(labels.max()) + 1, dtype=np.int16)
    for number, others in _JOINED.items():
        number_of[[one for one in others if one < len(number_of)]] = number
    numbers = np.empty(labels.shape, np.int16)
    for k in range(labels.shape[2]):  # slice by slice: an array of indices has eight bytes per voxel
        numbers[:, :, k] = number_of[np.maximum(labels[:, :, k], 0)]
    numbers[inside & (numbers == 0)] = SULCAL_CSF
    return numbers


class _Points:
    """Labeled voxels of the T1w as points among the voxels of the PET.

    Parameters
    ----------
    numbers
        Number of the region of each voxel.
    to_pet
        ``(4, 4)``, voxel indices of ``numbers`` to those of the PET.
    parts
        Into how many parts a voxel is divided along each axis.
    """

    def __init__(self, numbers: NDArray[np.int16], to_pet: Affine, parts: NDArray[np.float64]) -> None:
        where = np.flatnonzero(numbers).astype(np.int32)
        found = numbers.ravel()[where]
        order = np.argsort(found, kind="stable")
        self.numbers, first = np.unique(found[order], return_index=True)
        self._ends = [*first.tolist(), len(order)]
        where = where[order]
        place = np.empty((3, len(where)), np.float32)
        for axis in (2, 1, 0):
            where, place[axis] = np.divmod(where, np.int32(numbers.shape[axis]))
        self._at = to_pet[:3, :3].astype(np.float32) @ place + to_pet[:3, 3:].astype(np.float32)
        inner = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n - 0.5 for n in parts), indexing="ij"), axis=-1)
        self._offsets = (inner.reshape(-1, 3) @ to_pet[:3, :3].T).astype(np.float32)[:, :, None]

    def part(self, room: NDArray[np.intp]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Return first voxel and shape of the part of the PET grid around all points, with ``room`` voxels beside."""
        low = np.floor(self._at.min(axis=1)).astype(int) - room - 1
        high = np.ceil(self._at.max(axis=1)).astype(int) + room + 1
        (a, b, c), (i, j, k) = low.tolist(), (high - low + 1).tolist()
        return (a, b, c), (i, j, k)

    def fractions(
        self, start: tuple[int, int, int], shape: tuple[int, int, int], share: float
    ) -> Iterator[tuple[int, Box, Floats]]:
        """Yield number, box in the part, and fractions of each region; ``share`` is the volume of a point in voxels."""
        for rank, number in enumerate(self.numbers.tolist()):
            own = self._at[:, self._ends[rank] : self._ends[rank + 1]] - np.array(start, np.float32)[:, None]
            low = np.maximum(np.floor(own.min(axis=1)).astype(int) - 1, 0)
            high = np.minimum(np.ceil(own.max(axis=1)).astype(int) + 2, shape)
            size = (high - low).tolist()
            own -= low.astype(np.float32)[:, None]
            total = np.sum([_splat(own + offset, size) for offset in self._offsets], axis=0)
            i, j, k = (slice(first, last) for first, last in zip(low.tolist(), high.tolist(), strict=True))
            fraction = total.reshape(size) * (share / len(self._offsets))
            yield number, (i, j, k), fraction.astype(np.float32)


def _splat(points: Floats, size: Sequence[int]) -> NDArray[np.float64]:
    """Return how much of the points ``(3, N)`` each voxel of a raveled grid gets by linear weights."""
    corner = points.astype(np.int32)
    upper = points - corner
    weights = (1 - upper, upper)
    steps = (int(size[1] * size[2]), int(size[2]), 1)
    base = corner[0] * steps[0] + corner[1] * steps[1] + corner[2]
    total = np.zeros(int(np.prod(size)))
    for a, b in product((0, 1), repeat=2):
        face = weights[a][0] * weights[b][1]
        for c in (0, 1):
            place = base + (a * steps[0] + b * steps[1] + c)
            total += np.bincount(place, face * weights[c][2], len(total))
    return total


def _shells(outside: Floats, distance: Floats, edge_mm: float) -> Iterator[tuple[int, Box, Floats]]:
    """Yield number, box, and fractions of each shell; a voxel at a border is shared by two."""
    nearer = np.zeros_like(outside)
    for number, furthest in SHELLS_MM.items():
        within = outside * np.clip((furthest - distance) / edge_mm + 0.5, 0, 1)
        i, j, k = (slice(0, size) for size in outside.shape)
        yield number, (i, j, k), within - nearer
        nearer = within


def _merge_small(fine: NDArray[np.int16], voxel_mm3: float) -> dict[int, int]:
    """Merge regions that are too small with another, in place; return which went where.

    The other is the neighbor of the same kind with the longest border, else the same structure of the other side if
    both together are large enough, else the neighbor with the longest border.
    """
    kinds = dict(zip(label_table()["index"], label_table()["kind"], strict=True))
    kinds |= dict.fromkeys(template_region_table()["index"], "cerebellum")
    volumes = np.bincount(fine.ravel()) * voxel_mm3
    small = [one for one in np.flatnonzero(volumes).tolist() if one and volumes[one] < SMALLEST_MM3]
    merged: dict[int, int] = {}
    for number in sorted(small, key=lambda one: float(volumes[one])):
        if volumes[number] >= SMALLEST_MM3:  # others were merged with it
            continue
        own_places = np.nonzero(fine == number)
        near = tuple(slice(max(0, int(one.min()) - 1), int(one.max()) + 2) for one in own_places)
        own = fine[near] == number
        border = fine[near][ndimage.binary_dilation(own) & ~own]
        touching = np.bincount(border[border > 0], minlength=len(volumes))
        alike = [one for one in np.flatnonzero(touching).tolist() if kinds.get(one) == kinds.get(number)]
        other = _homologue(number)
        if alike:
            other = max(alike, key=lambda one: int(touching[one]))
        elif other is None or other >= len(volumes) or volumes[number] + volumes[other] < SMALLEST_MM3:
            other = int(touching.argmax())
        if other == 0:
            continue
        fine[own_places] = other
        volumes[other] += volumes[number]
        volumes[number] = 0
        merged = {one: other if into == number else into for one, into in merged.items()} | {number: other}
    return merged


@cache
def _names() -> dict[str, int]:
    return dict(zip(label_table()["region"], label_table()["index"].astype(int), strict=True))


def _homologue(number: int) -> int | None:
    """Return the number of the same structure on the other side."""
    name = next((one for one, found in _names().items() if found == number), "")
    for one, other in (("Left-", "Right-"), ("ctx-lh-", "ctx-rh-"), ("Right-", "Left-"), ("ctx-rh-", "ctx-lh-")):
        if name.startswith(one):
            return _names().get(other + name.removeprefix(one))
    return None
