"""Desikan-Killiany labels of fsaverage by the folds of the template, where no annotation of FreeSurfer is at hand.

The atlas of the volume is one of the template's own cortex. So the template gets surfaces like any other head, each
vertex takes the label of the nearest voxel, and the registration of the folds carries the labels to fsaverage.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from scipy.spatial import cKDTree

import tau_pipeline
from tau_pipeline.anatomy.tissue import segment_tissue
from tau_pipeline.atlas import CORTICAL_NUMBERS, AtlasFiles, atlas_files, label_array
from tau_pipeline.files import complete_file
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample_onto
from tau_pipeline.imaging.volume import Volume, image_like
from tau_pipeline.surface.average import fsaverage
from tau_pipeline.surface.cat import central_surface, register_sphere, to_sphere
from tau_pipeline.surface.mesh import Labels, Mesh, Side
from tau_pipeline.surface.scale import hemisphere_scale
from tau_pipeline.surface.spheres import labels_on

#: A vertex farther than this from any voxel of the cortex is not on it, mm.
_REACH_MM = 3.0
_FIRST_NUMBER: dict[Side, int] = {"left": 1000, "right": 2000}


def folded_labels(side: Side, cache: Path) -> Labels:
    """Return the numbers of the vertices of `tau_pipeline.surface.average.fsaverage`, ``(10242,)``; 0 for no cortex.

    Parameters
    ----------
    side
        Which hemisphere.
    cache
        Folder in which the labels are kept, since they take as long as a head. Calls side by side may both compute
        them; the file is written whole.
    """
    file = Path(cache) / f"fsaverage5_{side}_{tau_pipeline.__version__}.npy"
    if not file.is_file():
        found = _computed(side, atlas_files())
        with complete_file(file) as partial, partial.open("wb") as out:
            np.save(out, found)
    labels: Labels = np.load(file, allow_pickle=False)
    return labels


def _computed(side: Side, files: AtlasFiles) -> Labels:
    dseg = load_volume(files.desikan_killiany, ndim=3)
    brain = resample_onto(load_volume(files.template_brain, ndim=3), dseg)
    mask = image_like((np.asanyarray(brain.dataobj) > 0).astype(np.uint8), brain)
    scale = hemisphere_scale(segment_tissue(brain, mask, dseg), dseg, side)
    mesh = central_surface(scale).mesh
    average = fsaverage(side)
    registered = register_sphere(mesh, to_sphere(mesh), average.mesh, average.sphere)
    return labels_on(average.sphere, registered, nearest_labels(dseg, mesh, side))


def nearest_labels(dseg: Volume, mesh: Mesh, side: Side) -> Labels:
    """Return at each vertex the label of the nearest voxel of the cortex of its side; 0 beyond `_REACH_MM`."""
    labels = label_array(dseg)
    cortex = np.isin(labels, np.add(CORTICAL_NUMBERS, _FIRST_NUMBER[side]))
    points = apply_affine(dseg.affine, np.argwhere(cortex))
    distance, nearest = cKDTree(points).query(mesh.vertices)
    found: Labels = np.where(distance <= _REACH_MM, labels[cortex][nearest], 0).astype(np.int32)
    return found
