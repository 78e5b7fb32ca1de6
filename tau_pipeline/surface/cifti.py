"""CIFTI-2 files of values on both hemispheres and in subcortical voxels of a template.

The layout is that of the 91k grayordinates of the Human Connectome Project (Glasser et al. 2013, NeuroImage 80:105):
cortex on the surface, then ten subcortical structures in voxels of MNI152NLin6Asym, 2 mm. The voxels are those of the
installed atlas, the same for every participant; their number differs from that of the 91k standard.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import cifti2

from tau_pipeline.anatomy.spaces import template_grid
from tau_pipeline.atlas import atlas_files
from tau_pipeline.files import complete_file
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample
from tau_pipeline.settings.spaces import parse_space
from tau_pipeline.surface.mesh import SIDES, Side, Values

#: The template, and the size of its voxels.
SUBCORTICAL_SPACE = "MNI152NLin6Asym:res-2"
#: FreeSurfer number of each subcortical structure, by its name in CIFTI-2, in the order of the 91k standard.
_STRUCTURES = {
    **{"accumbens_left": 26, "accumbens_right": 58, "amygdala_left": 18, "amygdala_right": 54, "brain_stem": 16},
    **{"caudate_left": 11, "caudate_right": 50, "cerebellum_left": 8, "cerebellum_right": 47},
    **{"diencephalon_ventral_left": 28, "diencephalon_ventral_right": 60},
    **{"hippocampus_left": 17, "hippocampus_right": 53, "pallidum_left": 13, "pallidum_right": 52},
    **{"putamen_left": 12, "putamen_right": 51, "thalamus_left": 10, "thalamus_right": 49},
}


@cache
def subcortical_model() -> cifti2.BrainModelAxis:
    """Return the subcortical voxels of a CIFTI file: those of the atlas on the grid of `SUBCORTICAL_SPACE`.

    Returns
    -------
    BrainModelAxis
        ``voxel`` are indices in the grid, ``(N, 3)``, structure after structure.
    """
    grid = template_grid(parse_space(SUBCORTICAL_SPACE))
    atlas = load_volume(atlas_files().desikan_killiany, ndim=3)
    # Voxels of 2 mm are centered on voxels of the atlas, so that its labels are read as they are.
    labels = np.asanyarray(resample(atlas, grid, np.eye(4), "nearest").dataobj)
    models = [
        cifti2.BrainModelAxis.from_mask(labels == number, affine=grid.affine, name=name)
        for name, number in _STRUCTURES.items()
    ]
    return sum(models[1:], start=models[0])


def save_dscalar(values: Mapping[Side, Values], subcortex: Values, path: Path, name: str) -> Path:
    """Write one map of both hemispheres and the subcortical structures as ``.dscalar.nii``, float32.

    Parameters
    ----------
    values
        By side ``(V,)``; NaN is no cortex, or not measured.
    subcortex
        At the voxels of `subcortical_model`, ``(N,)``; NaN is not measured.
    path
        Of the file.
    name
        Of the map.
    """
    models = [
        cifti2.BrainModelAxis.from_mask(np.ones(len(values[side]), dtype=bool), name=f"cortex_{side}") for side in SIDES
    ]
    axes = (cifti2.ScalarAxis([name]), models[0] + models[1] + subcortical_model())
    data = np.concatenate([*(values[side] for side in SIDES), subcortex]).astype(np.float32)[None]
    image = cifti2.Cifti2Image(data, header=axes)
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS")
    with complete_file(path) as partial:
        nib.save(image, partial)
    return Path(path)
