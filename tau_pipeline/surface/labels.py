"""Desikan-Killiany labels by folding: on the surface of a head, and from there on the cortex of its volume."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from nibabel.affines import apply_affine
from scipy.spatial import cKDTree

from tau_pipeline.imaging.volume import Volume, image_like
from tau_pipeline.surface.mesh import Labels, Mesh, Side

#: Regions whose labels stay those of the volume. Medial temporal lobe and its neighbors: entorhinal, parahippocampal,
#: isthmus of the cingulate, temporal pole, insula. Medial side: cuneus, lingual, pericalcarine, precuneus, paracentral,
#: cingulate, medial orbitofrontal, frontal pole. There the surface passes the place where the hemispheres are cut
#: apart, or its folds are hidden.
VOLUME_REGIONS = (6, 10, 16, 33, 35, 5, 13, 21, 25, 17, 2, 23, 26, 14, 32)
_FIRST_NUMBER: dict[Side, int] = {"left": 1000, "right": 2000}


def hybrid_labels(dseg: Volume, surfaces: Mapping[Side, tuple[Mesh, Labels]]) -> Volume:
    """Name the cortex of a volume by the surface, except for the regions in `VOLUME_REGIONS`.

    Which voxels are cortex does not change. A voxel takes the label of the nearest vertex that has one of another
    region than `VOLUME_REGIONS`; a voxel that the volume has in one of those regions keeps its label.

    Parameters
    ----------
    dseg
        FreeSurfer numbers of the volume.
    surfaces
        By side: central surface, and FreeSurfer numbers of its vertices, 0 for no cortex.
    """
    labels = np.array(np.asanyarray(dseg.dataobj))
    for side, (mesh, of_vertex) in surfaces.items():
        first = _FIRST_NUMBER[side]
        kept = np.add(VOLUME_REGIONS, first)
        named = (labels > first) & (labels < first + 1000) & ~np.isin(labels, kept)
        usable = (of_vertex > 0) & ~np.isin(of_vertex, kept)
        points = apply_affine(dseg.affine, np.argwhere(named))
        _, nearest = cKDTree(mesh.vertices[usable]).query(points)
        labels[named] = of_vertex[usable][nearest]
    return image_like(labels, dseg)
