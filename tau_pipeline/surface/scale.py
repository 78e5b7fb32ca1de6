"""The image from which the surface of a hemisphere is made: one hemisphere alone, with all that is deep filled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.anatomy.grid import united
from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.resample import resample_array
from tau_pipeline.imaging.volume import Volume, image_on, require_same_grid, voxel_size_mm
from tau_pipeline.surface.mesh import Side

#: Edge of a voxel, mm. Finer than 1 mm, so that narrow sulci stay open.
_VOXEL_MM = 0.7
#: Room around the hemisphere, mm.
_ROOM_MM = 6.0
#: First number of the cortex, and numbers of what a surface of the cortex encloses beside white matter: ventricles with
#: choroid plexus, thalamus, basal ganglia, ventral diencephalon, hippocampus, amygdala, vessels within them.
_CORTEX: dict[Side, int] = {"left": 1000, "right": 2000}
_WHITE: dict[Side, int] = {"left": 2, "right": 41}
_FILLED: dict[Side, tuple[int, ...]] = {
    "left": (4, 5, 10, 11, 12, 13, 17, 18, 26, 28, 30, 31),
    "right": (43, 44, 49, 50, 51, 52, 53, 54, 58, 60, 62, 63),
}
#: Gray matter without a label is vessels, dura, or noise; here it becomes fluid with a little gray matter.
_UNLABELED = 1.4


def hemisphere_scale(tissue: Volume, dseg: Volume, side: Side) -> Volume:
    """Return one hemisphere with 1 for fluid, 2 for gray, and 3 for white matter, and values between for mixtures.

    Voxels belong to the hemisphere if their nearest label does. Everything that the surface of the cortex encloses is
    white matter here, gray spots in it too, as FreeSurfer fills it. The hippocampus and the amygdala are part of
    that, so that the surface passes below them, along the entorhinal and parahippocampal cortex.

    Parameters
    ----------
    tissue
        Fractions of CSF, gray, and white matter, ``(I, J, K, 3)``.
    dseg
        FreeSurfer numbers on the same grid.
    side
        Which hemisphere.

    Returns
    -------
    Volume
        float32, axes as those of the input, voxels of `_VOXEL_MM`, cut to the hemisphere.

    Raises
    ------
    GridMismatchError
        The two images have different grids.
    ImageError
        The labels hold no cortex on this side.
    """
    require_same_grid(tissue=tissue, dseg=dseg)
    labels = np.asanyarray(dseg.dataobj)
    first = _CORTEX[side]
    cortex = (labels > first) & (labels < first + 1000)
    if not cortex.any():
        raise ImageError(f"the labels hold no cortex on the {side}; check the T1w and its brain mask")
    filled = np.isin(labels, _FILLED[side])
    own = cortex | filled | (labels == _WHITE[side])
    room = int(np.ceil(_ROOM_MM / float(voxel_size_mm(dseg).min())))
    (found,) = ndimage.find_objects(own.astype(np.uint8))
    box = united([found], room)
    scale = _scale_in(np.asanyarray(tissue.dataobj)[box], labels[box], own[box], filled[box])
    offset = np.eye(4)
    offset[:3, 3] = [side_of_box.start for side_of_box in box]
    return _refined(image_on(scale, dseg.affine @ offset))


def _scale_in(
    fractions: NDArray[Any], labels: NDArray[Any], own: NDArray[np.bool_], filled: NDArray[np.bool_]
) -> NDArray[np.float32]:
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    scale = (1 + fractions[..., 1] + 2 * fractions[..., 2]).astype(np.float32)
    cortex = labels > 1000
    inner = own & ~cortex & ~filled & (labels > 0) & ~ndimage.binary_dilation(cortex)
    scale[filled | inner] = 3
    unlabeled = labels == 0
    scale[unlabeled] = np.minimum(scale[unlabeled], _UNLABELED)
    scale[~own[tuple(nearest)]] = 1
    return scale


def _refined(scale: Volume) -> Volume:
    """Return an image on voxels of `_VOXEL_MM`, linearly interpolated; fluid outside."""
    step = _VOXEL_MM / voxel_size_mm(scale)
    to_voxel = np.diag([*step, 1.0])
    shape = np.ceil((np.array(scale.shape) - 1) / step).astype(int) + 1
    data = resample_array(np.asanyarray(scale.dataobj), to_voxel, shape.tolist(), order=1, fill=1.0)
    return image_on(data, scale.affine @ to_voxel)
