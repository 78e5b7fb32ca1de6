"""Deep structures and ventricles of a head by its own intensities, from where a warped atlas expects them.

A warped template alone makes the hippocampus of an old brain too large, with fluid in it. Here each voxel near a deep
structure takes the label that is most probable given its intensity and the labels that the atlas has around it, as in
Fischl et al. 2002, Neuron 33:341, without their model of neighboring labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.anatomy.grid import united
from tau_pipeline.imaging.resample import Floats, Mask

Labels = NDArray[np.int32]

#: FreeSurfer numbers: thalamus, caudate, putamen, pallidum, hippocampus, amygdala, accumbens; left, then right.
STRUCTURES = (10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58)
#: Lateral ventricles with their inferior horns and choroid plexus.
VENTRICLES = (4, 5, 31, 43, 44, 63)
_WHITE = (2, 41)
#: Ventral diencephalon. It has no visible boundary, so it only changes where a neighboring structure does.
_NEIGHBORS = (28, 60)
#: How uncertain the place of the atlas's edges is, SD in mm.
_EDGE_SD_MM = 1.2
#: Spread of an intensity about what is typical for its label, on the scale of tissue (0 fluid, 1 gray, 2 white matter).
#: It weighs intensity against place: 0.2 and 0.3 were worse in all of three heads.
_SPREAD = 0.4
#: Fluid this far from where the atlas has the ventricle can belong to it, mm.
_VENTRICLE_REACH_MM = 12.0


def refine_deep(atlas: Labels, scale: Floats, inside: Mask, others: Sequence[Labels] = ()) -> Labels:
    """Return the labels of a warped atlas with deep structures and ventricles put where the intensities have them.

    Parameters
    ----------
    atlas
        FreeSurfer numbers, ``(I, J, K)`` of 1 mm voxels.
    scale
        Intensity with 0 for fluid, 1 for gray, and 2 for white matter, on the same voxels.
    inside
        Brain mask.
    others
        Labels of further atlases, which count as much as ``atlas`` in how probable a label is.
    """
    # All of it happens in the box around the deep structures and what surrounds them.
    (box,) = ndimage.find_objects(np.isin(atlas, STRUCTURES + VENTRICLES).astype(np.uint8)) or [None]
    if box is None:
        return atlas
    room = int(_VENTRICLE_REACH_MM) + 2
    wide = united([box], room)
    refined = atlas.copy()
    refined[wide] = _most_probable([one[wide] for one in (atlas, *others)], scale[wide], inside[wide])
    return refined


def _most_probable(atlases: Sequence[Labels], scale: Floats, inside: Mask) -> Labels:
    atlas = atlases[0]
    near = ndimage.binary_dilation(np.isin(atlas, STRUCTURES + VENTRICLES), iterations=3) & inside
    best = np.full(atlas.shape, -np.inf, dtype=np.float32)
    refined = np.where(near, 0, atlas)
    for number, prior, box in _priors(atlases):
        typical = _typical(scale[box], atlas[box], number)
        log = np.log(np.maximum(prior, 1e-9)) - 0.5 * ((scale[box] - typical) / _SPREAD) ** 2
        better = (prior > 1e-3) & (log > best[box]) & near[box]
        best[box][better] = log[better]
        refined[box][better] = number
    # Cortex and what else has no name here stays as the atlas has it; a gray structure holds no fluid.
    unnamed = near & (refined == 0) & ~np.isin(atlas, STRUCTURES + VENTRICLES)
    refined[unnamed] = atlas[unnamed]
    refined[np.isin(refined, STRUCTURES) & (scale < 0.5)] = 0
    _widen_ventricles(refined, atlas, scale, inside)
    return refined


def _priors(atlases: Sequence[Labels]) -> Iterator[tuple[int, Floats, tuple[slice, ...]]]:
    """Yield each label of the first atlas, its probability by all of them with uncertain edges, and its box.

    0 stands for the rest.
    """
    room = int(np.ceil(4 * _EDGE_SD_MM))
    named = STRUCTURES + VENTRICLES + _WHITE + _NEIGHBORS
    known = [np.where(np.isin(one, named), one, 0) for one in atlases]
    boxes = [ndimage.find_objects(one, max(named)) for one in known]
    for number in named:
        found = [of_one[number - 1] for of_one in boxes if of_one[number - 1] is not None]
        if boxes[0][number - 1] is None:
            continue
        wide = united(found, room)
        yield number, _mean_blurred([one[wide] == number for one in known]), wide
    yield 0, _mean_blurred([one == 0 for one in known]), tuple(slice(0, n) for n in atlases[0].shape)


def _mean_blurred(masks: Sequence[Mask]) -> Floats:
    """Return the mean of masks with edges that are uncertain by `_EDGE_SD_MM`."""
    mean = np.mean(masks, axis=0, dtype=np.float32)
    blurred: Floats = ndimage.gaussian_filter(mean, _EDGE_SD_MM)
    return blurred


def _typical(scale: Floats, atlas: Labels, number: int) -> float:
    """Median over the inner voxels of a label; what has no label here is gray matter, and ventricles hold fluid."""
    if number == 0 or number in VENTRICLES:
        return float(number == 0)
    where = atlas == number
    core = ndimage.binary_erosion(where)
    return float(np.median(scale[core if core.sum() > 50 else where]))


def _widen_ventricles(refined: Labels, atlas: Labels, scale: Floats, inside: Mask) -> None:
    """Give fluid that a lateral ventricle reaches through fluid to that ventricle, in place."""
    ventricle = np.isin(refined, VENTRICLES)
    cerebral = np.isin(atlas, STRUCTURES + VENTRICLES + _WHITE) & inside
    distance, nearest = ndimage.distance_transform_edt(~ventricle, return_indices=True)
    room = cerebral & (scale < 0.5) & (distance < _VENTRICLE_REACH_MM)
    reached = ndimage.binary_propagation(ventricle & (scale < 0.5), mask=room) & ~ventricle
    refined[reached] = refined[tuple(nearest)][reached]
