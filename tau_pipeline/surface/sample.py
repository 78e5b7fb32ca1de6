"""Values of a volume at the middle of the cortex."""

from __future__ import annotations

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from tau_pipeline.imaging.volume import Volume
from tau_pipeline.surface.mesh import Mesh, Values


def at_vertices(volume: Volume, mesh: Mesh) -> Values:
    """Return the value of a 3-D image at each vertex ``(V,)``, linearly interpolated.

    With the central surface, this is the place of the cortex that is farthest from white matter and from fluid.

    Parameters
    ----------
    volume
        NaN is not measured.
    mesh
        In the world of the image.

    Returns
    -------
    Values
        NaN where one of the eight voxels around the vertex is not measured, and outside of the image.
    """
    voxels = apply_affine(np.linalg.inv(volume.affine), mesh.vertices)
    data = np.asanyarray(volume.dataobj).astype(np.float64)
    found: Values = ndimage.map_coordinates(data, voxels.T, order=1, mode="constant", cval=np.nan)
    return found
