"""A small head with regions, and its PET with the blur of a scanner: everything at once is done on a fine grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA
from tau_pipeline.imaging.transforms import rotation
from tau_pipeline.imaging.volume import Affine, Volume, image_on

FINE_MM = 1.0
#: Cortex in four sectors for each side, white matter, cerebellum, brainstem, ventricle; what surrounds the brain is 0.
UPTAKE = {
    1001: 2.0, 1002: 1.2, 1003: 1.5, 1006: 2.4, 2001: 1.7, 2002: 1.3, 2003: 1.1, 2006: 1.9, 2: 1.1, 41: 1.15,
    8: 1.0, 47: 1.02, 16: 1.25, 4: 0.5, 257: 0.6, 0: 0.4,
}  # fmt: skip


#: Label of the hot patch outside the mask.
HOT = 300


@dataclass(frozen=True)
class PetPhantom:
    """Labels and mask on the T1w grid, PET on its own, rotated grid, and the transform between the worlds."""

    pet: Volume
    dseg: Volume
    mask: Volume
    pet2t1w: Affine


def labels() -> tuple[np.ndarray, np.ndarray]:
    """Labels and mask on the fine grid, 110 mm wide; fluid in the mask has no label."""
    n = round(110 / FINE_MM)
    x, y, z = (np.indices((n, n, n)) - (n - 1) / 2) * FINE_MM
    radius = np.sqrt((x / 34) ** 2 + (y / 38) ** 2 + (z / 32) ** 2)
    left = x < 0
    sector = np.digitize(np.arctan2(z, y), (-1.5, 0.0, 1.5))
    cortex = np.array([1, 2, 3, 6])[sector] + np.where(left, 1000, 2000)
    found = np.where(radius < 0.93, cortex, 0)
    found = np.where(radius < 0.76, np.where(left, 2, 41), found)
    cerebellum = (z < -8) & (y < -4) & (radius < 0.93)
    found = np.where(cerebellum, np.where(left, 8, 47), found)
    found = np.where((np.hypot(x, y) < 6) & (z < 0) & (radius < 0.93), 16, found)
    found = np.where((np.hypot(x, z - 8) < 7) & (np.abs(y) < 14), 4, found)
    return found.astype(np.int16), radius < 1


def affine_about_center(size: int, voxel_mm: np.ndarray) -> Affine:
    """An affine whose world has its origin in the middle of the grid."""
    affine = np.diag([*voxel_mm, 1.0])
    affine[:3, 3] = -(size - 1) / 2 * voxel_mm
    return affine


def phantom(
    fwhm_mm: tuple[float, float, float] = (6.0, 6.0, 6.0),
    voxel_mm: tuple[float, float, float] = (2.5, 2.5, 3.0),
    uptake: dict[int, float] = UPTAKE,
    size: int = 44,
    hot: bool = False,
) -> PetPhantom:
    """Paint the labels with uptake, blur along the axes of the PET, and sample at the voxels of the PET.

    With ``hot``, a patch around the left side of the head, just outside the mask and 3 mm thick, is label `HOT`.
    """
    dseg, inside = labels()
    own = affine_about_center(dseg.shape[0], np.full(3, FINE_MM))
    voxel = np.array(voxel_mm)
    grid = affine_about_center(size, voxel)
    pet2t1w = np.eye(4)
    pet2t1w[:3, :3] = rotation(np.radians([4.0, -6.0, 8.0]))
    pet2t1w[:3, 3] = (2.0, -1.0, 3.0)
    code = np.where(inside & (dseg == 0), 257, dseg)
    if hot:
        x, y, z = np.indices(code.shape) - (code.shape[0] - 1) / 2
        near = ndimage.distance_transform_edt(~inside) * FINE_MM
        code[(near > 0) & (near <= 3) & (x < 0) & (np.hypot(y, z) * FINE_MM < 20)] = HOT
    # The truth turned to the axes of the PET, four samples for each axis of a voxel of the fine grid's size.
    n = round(110 / (FINE_MM / 2))
    turned = affine_about_center(n, np.full(3, FINE_MM / 2))
    to_fine = np.linalg.inv(own) @ pet2t1w @ turned
    on_axes = ndimage.affine_transform(code, to_fine[:3, :3], to_fine[:3, 3], (n, n, n), order=0)
    value = np.zeros(int(code.max()) + 1, np.float32)
    value[list(uptake)] = list(uptake.values())
    sigma = np.array(fwhm_mm) / FWHM_PER_SIGMA / (FINE_MM / 2)
    blurred = ndimage.gaussian_filter(value[on_axes], sigma, mode="nearest")
    to_turned = np.linalg.inv(turned) @ grid
    pet = ndimage.affine_transform(
        blurred, to_turned[:3, :3], to_turned[:3, 3], (size, size, size), order=3, mode="nearest"
    )
    return PetPhantom(image_on(pet, grid), image_on(dseg, own), image_on(inside, own), pet2t1w)
