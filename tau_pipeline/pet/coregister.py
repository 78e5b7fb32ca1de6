"""PET to T1w, and how much of the brain the PET does not cover."""

from __future__ import annotations

import numpy as np

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.rigid import Rigid, register_rigid
from tau_pipeline.imaging.volume import (
    Affine,
    Volume,
)


def coregister(pet_static: Volume, t1w: Volume, mask: Volume | None) -> Rigid:
    """Find the rigid transform from PET world to T1w world.

    Parameters
    ----------
    pet_static
        3-D, from `static_image`; not skull-stripped.
    t1w
        3-D, full head or stripped.
    mask
        Brain mask on the T1w grid.
    """
    return register_rigid(pet_static, t1w, mask)


def brain_outside_pet(pet_img: Volume, pet2t1w_xfm: Affine, mask: Volume) -> float:
    """Share of the brain, 0 to 1, that lies outside the PET's field of view, where `pet_on_t1w` gives 0.

    Parameters
    ----------
    pet_img
        ``(I, J, K[, T])``; only its grid is used.
    pet2t1w_xfm
        ``(4, 4)``, PET world to T1w world.
    mask
        Brain mask on the T1w grid.
    """
    to_voxel = np.linalg.inv(pet_img.affine) @ np.linalg.inv(pet2t1w_xfm) @ mask.affine
    at = np.argwhere(np.asanyarray(mask.dataobj) > 0) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    if len(at) == 0:
        raise ImageError("the brain mask is empty; a mask with voxels is needed")
    outside = (at < -0.5) | (at > np.array(pet_img.shape[:3]) - 0.5)
    return float(outside.any(axis=1).mean())
