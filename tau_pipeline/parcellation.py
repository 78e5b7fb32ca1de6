"""Desikan-Killiany parcellation with FreeSurfer numbers, from a warped atlas and the tissue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.anat import resample_onto_data, working_grid
from tau_pipeline.volume import Volume, image_like, require_same_grid, to_ants

Labels = NDArray[np.int32]

#: Grey matter farther than this from any cortex of the warped atlas is not cortex, mm.
CORTEX_REACH_MM = 6.0
CEREBRAL_WHITE = (2, 41)


def labels_to_t1w(labels_path: Path, t1w: Volume, transforms: Sequence[Path]) -> Volume:
    """Any label volume on the T1w grid, int32, by nearest neighbour.

    Parameters
    ----------
    labels_path
        Labels in the space of the template, or any other that the transforms start from.
    t1w
        Gives the grid.
    transforms
        ITK files in the order of ``ants.apply_transforms``.
    """
    import ants

    warped = ants.apply_transforms(
        to_ants(t1w), ants.image_read(str(labels_path)), [str(p) for p in transforms], interpolator="nearestNeighbor"
    )
    return image_like(np.round(warped.numpy()).astype(np.int32), t1w)


def parcellate(
    t1w: Volume, mask: Volume, tissue: Volume, labels_path: Path, t1w_from_template: Sequence[Path]
) -> Volume:
    """Desikan-Killiany labels with FreeSurfer numbers, int16 on the T1w grid; 0 outside the mask.

    Parameters
    ----------
    t1w
        Bias-corrected T1w.
    mask
        Brain mask on the same grid.
    tissue
        Fractions of CSF, grey and white matter, ``(I, J, K, 3)``, on the same grid.
    labels_path
        aparc+aseg of the template.
    t1w_from_template
        ITK files from the template to the T1w.

    Raises
    ------
    GridMismatchError
        The images have different grids.
    """
    require_same_grid(t1w=t1w, mask=mask, tissue=tissue)
    grid = working_grid(mask)
    inside = resample_onto_data(mask, grid, order=0) > 0
    fractions = np.asanyarray(tissue.dataobj)
    parts = [resample_onto_data(image_like(fractions[..., k], t1w), grid) for k in range(3)]
    atlas = np.asanyarray(labels_to_t1w(labels_path, grid, t1w_from_template).dataobj)
    found = _by_tissue(atlas, np.argmax(parts, axis=0), inside)
    on_t1w = resample_onto_data(image_like(found, grid), t1w, order=0)
    on_t1w[np.asanyarray(mask.dataobj) == 0] = 0
    return image_like(np.round(on_t1w).astype(np.int16), t1w)


def _by_tissue(atlas: Labels, tissue: NDArray[np.intp], inside: NDArray[np.bool_]) -> Labels:
    """Give each grey-matter voxel the label of the nearest cortex of the warped atlas."""
    from scipy import ndimage

    cortex = (atlas > 1000) & (atlas % 1000 > 0) & (atlas % 1000 != 4)
    distance, nearest = ndimage.distance_transform_edt(~cortex, return_indices=True)
    other = (atlas > 0) & (atlas < 1000) & ~np.isin(atlas, CEREBRAL_WHITE)
    white_distance, nearest_white = ndimage.distance_transform_edt(~np.isin(atlas, CEREBRAL_WHITE), return_indices=True)
    found = np.where(other, atlas, 0)
    free = inside & ~other
    grey = free & (tissue == 1) & (distance < CORTEX_REACH_MM)
    white = free & (tissue == 2) & (white_distance < CORTEX_REACH_MM)
    found[grey] = atlas[tuple(nearest)][grey]
    found[white] = atlas[tuple(nearest_white)][white]
    return np.where(inside, found, 0)
