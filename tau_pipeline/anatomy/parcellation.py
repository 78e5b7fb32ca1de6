"""Desikan-Killiany parcellation with FreeSurfer numbers, from a warped atlas and the tissue of the head itself.

The atlas says which region, the tissue says where the gray matter is: a warped template's cortex alone overlaps
FreeSurfer's with a Dice coefficient of 0.50, the same labels on the head's own cortex with 0.74.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.anatomy.deep import refine_deep
from tau_pipeline.anatomy.grid import brain_box, united
from tau_pipeline.anatomy.template import warp_labels
from tau_pipeline.imaging.foreground import closer_than
from tau_pipeline.imaging.resample import Floats, resample_onto_data
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid

Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

_CEREBRAL_WHITE = (2, 41)
CEREBELLAR_CORTEX = (8, 47)
_CEREBELLAR_WHITE = (7, 46)
_LATERAL_VENTRICLES = (4, 43)
#: Dark spots in the white matter of the template are not those of another head.
_HYPOINTENSITIES = (77, 78, 79, 80, 81, 82)
#: White matter from which cortex is not reached: brainstem, ventral diencephalon.
_NOT_UNDER_CORTEX = (4, 43, 14, 15, 7, 46, 8, 47, 16, 28, 60)
#: Gray matter farther than this from any cortex of the warped atlas is not cortex, mm.
_CORTEX_REACH_MM = 6.0
#: Steps of 1 mm from white matter within which cortex lies: it is 2 to 4.5 mm thick (Fischl and Dale, PNAS 2000),
#: and a step more for a boundary that falls within a voxel.
_CORTEX_STEPS = 6
#: Gray matter up to this far outside the atlas's cerebellum belongs to it, mm.
CEREBELLUM_REACH_MM = 2.1
#: Blur of the outline that several atlases agree on, SD in mm: less than the grooves between the folia are deep.
_OUTLINE_SD_MM = 1.0
#: Width of the kernel in which the atlas's labels vote, SD in mm: less than the thickness of the cortex.
_VOTE_SD_MM = 1.7
#: Weight of the mean over a voxel's column against its own votes.
_COLUMN_WEIGHT = 0.5


def labels_to_t1w(labels_path: Path, t1w: Volume, transforms: Sequence[Path]) -> Volume:
    """Resample a label volume to the T1w grid, int32, by nearest neighbor.

    Parameters
    ----------
    labels_path
        Labels in the space of the template, or any other that the transforms start from.
    t1w
        Gives the grid.
    transforms
        ITK files in the order of ``ants.apply_transforms``.
    """
    return image_like(warp_labels(labels_path, t1w, transforms), t1w)


def parcellate(t1w: Volume, mask: Volume, tissue: Volume, atlases: Sequence[Volume]) -> Volume:
    """Return Desikan-Killiany labels with FreeSurfer numbers, int16 on the T1w grid; 0 outside the mask.

    Parameters
    ----------
    t1w
        Bias-corrected T1w.
    mask
        Brain mask on the same grid.
    tissue
        Fractions of CSF, gray and white matter, ``(I, J, K, 3)``, on the same grid.
    atlases
        aparc+aseg of one template or several, warped to the head, on its working grid; from `warped_atlas`. Structures
        that all of them have are where they have them on average; for the rest, the first one counts.

    Raises
    ------
    GridMismatchError
        The images have different grids.
    """
    require_same_grid(t1w=t1w, mask=mask, tissue=tissue)
    grid = atlases[0]
    require_same_grid(**{f"atlas {place}": one for place, one in enumerate(atlases, start=1)})
    inside = resample_onto_data(mask, grid, order=0) > 0
    fractions = np.asanyarray(tissue.dataobj)
    box = brain_box(mask)
    near = mask.slicer[box]
    gray, white = (resample_onto_data(image_like(fractions[box][..., k], near), grid) for k in (1, 2))
    # With the last axis fastest, as what was resampled: to combine arrays of two orders takes three times as long.
    first, *others = (np.ascontiguousarray(one.dataobj, dtype=np.int32) for one in atlases)
    refined = refine_deep(first, gray + 2 * white, inside, others)
    found = label_tissue(refined, (gray > 0.5) & inside, (white > 0.5) & inside, inside, others)
    dseg = np.zeros(mask.shape[:3], dtype=np.int16)
    dseg[box] = np.round(resample_onto_data(image_like(found, grid), near, order=0))
    dseg[np.asanyarray(mask.dataobj) == 0] = 0
    return image_like(dseg, t1w)


def label_tissue(atlas: Labels, gray: Mask, white: Mask, inside: Mask, others: Sequence[Labels] = ()) -> Labels:
    """Put the labels of a warped atlas on a head's own tissue; all arrays ``(I, J, K)`` of 1 mm voxels.

    ``others`` are further atlases, which vote on the labels of the cortex and on the outline of the cerebellum.

    - Deep structures, ventricles and brainstem stay where ``atlas`` has them.
    - Cerebellum keeps its outline, grows by `CEREBELLUM_REACH_MM` where there is gray matter, and is split into cortex
      and white matter by the tissue.
    - Cortex is gray matter that white matter reaches within the thickness of cortex; dura, sinuses and what lies
      behind fluid are not reached. Its label is that with most votes of the atlas nearby, shared along columns
      through the cortex, so that the two banks of a sulcus keep their own.
    - White matter is what remains of it, and gray spots that the atlas has in white matter; its side is the nearest.
    """
    from scipy import ndimage

    atlas = _with_joint_cerebellum(np.where(np.isin(atlas, _HYPOINTENSITIES), 0, atlas), others)
    is_cortex = _is_cortex(atlas)
    is_cerebral_white = np.isin(atlas, _CEREBRAL_WHITE)
    fixed = (atlas > 0) & (atlas < 1000) & ~is_cerebral_white
    found = np.where(fixed, atlas, 0)
    near = inside & ~fixed & closer_than(is_cortex, _CORTEX_REACH_MM)
    ventricles = ndimage.binary_dilation(np.isin(atlas, _LATERAL_VENTRICLES), iterations=2)
    cortex = near & reached_cortex(gray & inside, white & ~np.isin(atlas, _NOT_UNDER_CORTEX)) & ~ventricles
    columns = nearest_white(cortex, white & ~np.isin(atlas, _NOT_UNDER_CORTEX))
    voted = vote([np.where(_is_cortex(one), one, 0) for one in (atlas, *others)], cortex, _VOTE_SD_MM, columns)
    found[cortex] = voted[cortex]
    _fill_from_nearest(found, cortex & (voted == 0), atlas, is_cortex)
    rest = inside & (found == 0) & (white | (is_cerebral_white & gray))
    _fill_from_nearest(found, rest, atlas, is_cerebral_white)
    _split_cerebellum(found, atlas, gray, white)
    return np.where(inside, found, 0)


def _is_cortex(labels: Labels) -> Mask:
    return (labels > 1000) & ~np.isin(labels % 1000, (0, 4))


def _fill_from_nearest(found: Labels, where: Mask, atlas: Labels, source: Mask) -> None:
    """Give each voxel of ``where`` the label that the atlas has at the nearest voxel of ``source``, in place."""
    from scipy import ndimage

    if where.any():
        nearest = ndimage.distance_transform_edt(~source, return_distances=False, return_indices=True)
        found[where] = atlas[tuple(axis[where] for axis in nearest)]


def _with_joint_cerebellum(atlas: Labels, others: Sequence[Labels]) -> Labels:
    """Return an atlas whose cerebellum is where it and others have it on average, blurred by `_OUTLINE_SD_MM`.

    A voxel gets its label from the first atlas that agrees with the others on average whether it is cerebellum.
    """
    from scipy import ndimage

    atlases = (atlas, *others)
    members = [np.isin(one, CEREBELLAR_CORTEX + _CEREBELLAR_WHITE) for one in atlases]
    boxes = [box for member in members for box in ndimage.find_objects(member.astype(np.uint8))]
    if not others or not boxes:
        return atlas
    wide = united(boxes, int(np.ceil(4 * _OUTLINE_SD_MM)))
    share = np.mean([member[wide] for member in members], axis=0, dtype=np.float32)
    joint = ndimage.gaussian_filter(share, _OUTLINE_SD_MM) > 0.5
    found = atlas.copy()
    # from the last atlas to the first, so that the first that agrees has the last word
    for one, member in zip(reversed(atlases), reversed(members), strict=True):
        agrees = member[wide] == joint
        found[wide][agrees] = one[wide][agrees]
    return found


def reached_cortex(gray: Mask, white: Mask, steps: int = _CORTEX_STEPS) -> Mask:
    """Return the gray voxels that can be reached from white matter through gray matter in a number of steps.

    Steps go to 6 and 18 neighbors in turn, so that their reach is nearly the same in all directions. Pieces of
    white matter below 2000 voxels do not count: bright spots of fat and vessels.
    """
    from scipy import ndimage

    pieces, _ = ndimage.label(white)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    large = (sizes >= min(2000, sizes.max(initial=0)))[pieces] & white
    reached = large
    for step in range(steps):
        neighbors = ndimage.generate_binary_structure(3, 1 + step % 2)
        reached = ndimage.binary_dilation(reached, neighbors, mask=gray | large)
    return reached & gray


def nearest_white(cortex: Mask, white: Mask) -> NDArray[np.int32]:
    """Return the column of each voxel of the cortex, numbered from 0 in ``(I, J, K)`` order; -1 elsewhere.

    A column holds the voxels that have the same nearest voxel of white matter. FreeSurfer labels a surface, so that its
    labels are the same from the inner to the outer boundary of the cortex.
    """
    from scipy import ndimage

    columns = np.full(cortex.shape, -1, dtype=np.int32)
    if white.any():
        nearest = ndimage.distance_transform_edt(~white, return_distances=False, return_indices=True)
        roots = np.ravel_multi_index(tuple(axis[cortex] for axis in nearest), cortex.shape)
        columns[cortex] = np.unique(roots, return_inverse=True)[1]
    else:
        columns[cortex] = np.arange(np.count_nonzero(cortex))
    return columns


def vote(atlases: Sequence[Labels], where: Mask, sd_mm: float, columns: NDArray[np.int32] | None = None) -> Labels:
    """Return, at each voxel of ``where``, the label with the largest sum of Gaussian weights; 0 if none is within 3 SD.

    Parameters
    ----------
    atlases
        Labels that vote, ``(I, J, K)`` of 1 mm voxels, 0 for none.
    where
        Voxels to label.
    sd_mm
        Standard deviation of the weights.
    columns
        From `nearest_white`. The sum of a voxel is then averaged with the mean of the sums in its column.
    """
    from scipy import ndimage

    most, winner = np.zeros(where.shape, dtype=np.float32), np.zeros(where.shape, dtype=np.int32)
    room = int(np.ceil(3 * sd_mm)) + 1
    sizes = None if columns is None else np.bincount(columns[where])
    highest = max(int(labels.max(initial=0)) for labels in atlases)
    boxes = zip(*(ndimage.find_objects(labels, highest) for labels in atlases), strict=True)
    for number, of_number in enumerate(boxes, start=1):
        found = [box for box in of_number if box is not None]
        if not found:
            continue
        wide = united(found, room)
        voters = np.sum([labels[wide] == number for labels in atlases], axis=0, dtype=np.float32)
        votes = ndimage.gaussian_filter(voters, sd_mm, truncate=3)
        if columns is not None and sizes is not None:
            votes = _shared(votes, columns[wide], sizes)
        better = (votes > most[wide]) & where[wide]
        most[wide][better] = votes[better]
        winner[wide][better] = number
    return winner


def _shared(votes: Floats, columns: NDArray[np.int32], sizes: NDArray[np.int64]) -> Floats:
    """Average the votes of each voxel with the mean over its column; a voxel outside the box has none."""
    held = columns >= 0
    mean = np.bincount(columns[held], weights=votes[held], minlength=sizes.size) / np.maximum(sizes, 1)
    shared = votes.copy()
    shared[held] = (1 - _COLUMN_WEIGHT) * votes[held] + _COLUMN_WEIGHT * mean[columns[held]]
    return shared


def _split_cerebellum(found: Labels, atlas: Labels, gray: Mask, white: Mask) -> None:
    """Split cerebellar cortex and white matter by tissue, in place; fluid in the fissures stays with the cortex."""
    from scipy import ndimage

    cerebellum = np.isin(atlas, CEREBELLAR_CORTEX + _CEREBELLAR_WHITE)
    if not cerebellum.any():
        return
    wide = united(ndimage.find_objects(cerebellum.astype(np.uint8)), int(np.ceil(CEREBELLUM_REACH_MM)))
    found, atlas = found[wide], atlas[wide]
    gray, white, cerebellum = gray[wide], white[wide], cerebellum[wide]
    distance, nearest = ndimage.distance_transform_edt(~cerebellum, return_indices=True)
    side = atlas[tuple(nearest)]
    left = np.isin(side, (_CEREBELLAR_WHITE[0], CEREBELLAR_CORTEX[0]))
    outer = (atlas == 0) & (found == 0) & gray & (distance <= CEREBELLUM_REACH_MM)
    found[cerebellum | outer] = np.where(left, *CEREBELLAR_CORTEX)[cerebellum | outer]
    inner = cerebellum & white
    found[inner] = np.where(left, *_CEREBELLAR_WHITE)[inner]
