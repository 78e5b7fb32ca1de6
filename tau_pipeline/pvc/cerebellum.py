"""The cerebellar cortex in lobules, so that off-target binding in the upper ones stays there.

Flortaucipir binds in the superior cerebellum (Baker et al. 2017, Data in Brief 15:648). With one value for a whole
side, that would be spread over all of it, and over the occipital and temporal cortex above.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.atlas import CEREBELLAR_CORTEX, label_array, labels_mask, template_region_table
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid, voxel_size_mm

#: A voxel farther than this from every warped lobule of its side keeps its label, mm; as for reference regions.
_FURTHEST_MM = 10.0


def with_lobules(dseg: Volume, template_regions: Volume) -> Volume:
    """Return labels in which the cerebellar cortex has the number of the nearest lobule of its side, or of the vermis.

    Parameters
    ----------
    dseg
        Labels ``(I, J, K)``, FreeSurfer numbers.
    template_regions
        What `tau_pipeline.atlas.template_regions` gives, warped to the grid of ``dseg``.

    Raises
    ------
    GridMismatchError
        The images are not on one grid.
    """
    require_same_grid(dseg=dseg, template_regions=template_regions)
    labels = label_array(dseg).astype(np.int16)
    lobules = label_array(template_regions)
    table = template_region_table()
    table = table[table["part"].isin(["inferior", "superior"])]
    found = ndimage.find_objects(labels_mask(labels, CEREBELLAR_CORTEX).astype(np.uint8))
    if not found:
        return image_like(labels, dseg)
    box = found[0]
    near, voxel_mm = labels[box], voxel_size_mm(dseg)
    for label, side in zip(CEREBELLAR_CORTEX, ("left", "right"), strict=True):
        own = table.loc[table["hemisphere"].isin([side, "midline"]), "index"]
        near[near == label] = _nearest(labels_mask(lobules[box], own), lobules[box], voxel_mm, label)[near == label]
    return image_like(labels, dseg)


def _nearest(
    wanted: NDArray[np.bool_], numbers: NDArray[np.integer], voxel_mm: NDArray[np.float64], otherwise: int
) -> NDArray[np.integer]:
    """Return the number of the nearest wanted voxel for each voxel; another where there is none near enough."""
    if not wanted.any():
        return np.full(wanted.shape, otherwise)
    distance, place = ndimage.distance_transform_edt(~wanted, sampling=voxel_mm, return_indices=True)
    return np.where(distance <= _FURTHEST_MM, numbers[tuple(place)], otherwise)
