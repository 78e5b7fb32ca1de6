"""Alignment of a head to the template by the centers of its labels: an affine without a registration.

The participant's Desikan-Killiany labels name some eighty places of the brain, and the template has the same. The
affine that takes the centers of the ones to those of the others, by least squares, removes differences in pose and in
overall size and shape; it is as good as the labels are, takes a fraction of a second, and needs no further file.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.atlas import atlas_files, label_array, region_numbers
from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Affine, Volume

#: Twelve numbers are fitted; from fewer places than this the fit would follow the errors of single labels.
_LEAST_LABELS = 24


def to_template(dseg_img: Volume, name: str = "the participant") -> Affine:
    """Return the affine, 4 x 4, that takes the participant's world to that of the template, in mm.

    Parameters
    ----------
    dseg_img
        Desikan-Killiany labels with FreeSurfer's numbers.
    name
        Who this is, for messages.

    Raises
    ------
    ImageError
        Too few cortical and subcortical regions are labeled.
    MissingInputError
        The template is not installed.
    """
    template = dict(zip(*_template_centers(), strict=True))
    own = dict(zip(*_centers(dseg_img), strict=True))
    shared = sorted(set(own) & set(template))
    if len(shared) < _LEAST_LABELS:
        raise ImageError(
            f"the labels of {name} have {len(shared)} of the template's {len(template)} cortical and subcortical "
            f"regions; grid_space template needs {_LEAST_LABELS} to align the head; grid_space own needs none"
        )
    here = np.array([[*own[number], 1.0] for number in shared])
    there = np.array([template[number] for number in shared])
    # About the middle of the head: a far world origin would make the equations ill-conditioned.
    middle = here[:, :3].mean(axis=0)
    here[:, :3] -= middle
    solution, *_ = np.linalg.lstsq(here, there, rcond=None)
    affine = np.eye(4)
    affine[:3] = solution.T
    affine[:3, 3] -= affine[:3, :3] @ middle
    return affine


@cache
def template_middle() -> tuple[float, float, float]:
    """Return the middle of the box around the template's brain, in mm of its world."""
    brain = load_volume(atlas_files().template_brain, ndim=3)
    inside = np.argwhere(np.asanyarray(brain.dataobj) > 0)
    corners = np.vstack([inside.min(axis=0), inside.max(axis=0)]) @ brain.affine[:3, :3].T + brain.affine[:3, 3]
    x, y, z = corners.mean(axis=0)
    return float(x), float(y), float(z)


@cache
def _template_centers() -> tuple[tuple[int, ...], tuple[tuple[float, ...], ...]]:
    numbers, centers = _centers(load_volume(atlas_files().desikan_killiany, ndim=3))
    return numbers, tuple(tuple(row) for row in centers.tolist())


def _centers(dseg_img: Volume) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Return the labels of gray matter that an image has, and the center of each in mm, ``(N, 3)``."""
    labels = label_array(dseg_img)
    present = np.unique(labels)
    numbers = [int(n) for n in present if int(n) in region_numbers("cortical", "subcortical")]
    voxels = np.array(ndimage.center_of_mass(np.ones(labels.shape, np.uint8), labels, numbers)).reshape(-1, 3)
    return tuple(numbers), voxels @ dseg_img.affine[:3, :3].T + dseg_img.affine[:3, 3]
