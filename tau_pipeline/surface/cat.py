"""The steps that cat-surf computes. Only this module imports it, and only when one of these functions is called.

cat-surf is the C library of CAT12 (Dahnke, Yotter and Gaser 2013, NeuroImage 65:336). It is under the GNU General
Public License and not a requirement of this package: it comes with the extra ``tau-pipeline[surface]``.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tau_pipeline.errors import ImageError, MissingInputError
from tau_pipeline.imaging.volume import Volume, voxel_size_mm
from tau_pipeline.surface.mesh import Mesh, Values

if TYPE_CHECKING:
    import types

#: Where the central surface lies on the way from white matter (1) to fluid (0).
_CENTRAL = 0.5
#: Blur of the position before the surface is taken from it, FWHM in mm; how strongly narrow sulci are opened (0 to 1).
_BLUR_FWHM, _OPEN_SULCI = 1.0, 1.0
#: Added to the distances between the boundaries, mm: what they lack on folded sheets of known thickness. The default of
#: cat-surf (0.25 mm) is for segmentations whose gray matter is too thin.
_CORRECTION_MM = 0.07
#: Factor by which the number of triangles is reduced, and the least number that is kept.
_KEPT, _FEWEST = 4, 80_000
#: Thickness is the mean of points up to this far from the central surface, mm.
_AROUND_MM, _POINTS = 0.4, 5
#: Stage up to which a surface is inflated to a sphere, the last that reduces distances.
_SPHERE_STAGE = 6


@dataclass(frozen=True)
class Central:
    """The surface in the middle of the cortex, and the thickness of the cortex at its vertices ``(V,)``, mm."""

    mesh: Mesh
    thickness: Values


def require_cat_surf() -> None:
    """Say in one sentence how to install cat-surf, if it is not there; it is not imported.

    Raises
    ------
    MissingInputError
        It is not installed.
    """
    if importlib.util.find_spec("cat_surf") is None:
        raise MissingInputError(
            "--surfaces needs the package cat-surf, which is not installed; run: pip install 'tau-pipeline[surface]'"
        )


def central_surface(scale: Volume) -> Central:
    """Find the surface in the middle of the cortex, and the thickness of the cortex by projection.

    Each voxel of gray matter has a distance to white matter and one to fluid. Thickness is carried from the inner to
    the outer boundary, so that it is known in sulci whose fluid cannot be seen; half of it is the central surface.

    Parameters
    ----------
    scale
        From `tau_pipeline.surface.scale.hemisphere_scale`: 1 fluid, 2 gray, 3 white matter.

    Raises
    ------
    MissingInputError
        cat-surf is not installed.
    ImageError
        The surface is not a sphere in its topology: the image is not that of a hemisphere.
    """
    cat = _cat_surf()
    data = np.asfortranarray(np.asanyarray(scale.dataobj), dtype=np.float32)
    thickness, position, *_ = cat.vol_thickness_pbt(data, voxel_size_mm(scale), correct_thickness=_CORRECTION_MM)
    placed = (np.asfortranarray(position), scale.affine)
    points, faces = cat.vol_marching_cubes(placed, threshold=_CENTRAL, pre_fwhm=_BLUR_FWHM, strength_sulci=_OPEN_SULCI)
    points, faces = cat.reduce_mesh(points, faces, target_faces=max(_FEWEST, len(faces) // _KEPT))
    points, faces = cat.surf_deform(
        points, faces, placed, w1=0.1, w2=0.1, w3=1.0, isovalue=_CENTRAL, iterations=75, remove_intersect=True
    )
    mesh = _outward(points, faces)
    if mesh.euler_number != 2:
        raise ImageError(
            f"the surface of the cortex has an Euler number of {mesh.euler_number}, and a closed surface without holes "
            "has 2; look at the brain mask and at the figure of the tissue"
        )
    at = (np.asfortranarray(thickness), scale.affine)
    values, _ = cat.vol2surf(
        at, points, faces, grid_start=-_AROUND_MM, grid_end=_AROUND_MM, grid_steps=_POINTS, map_func="mean"
    )
    return Central(mesh, np.asarray(values, dtype=np.float64))


def white_and_pial(central: Central, scale: Volume) -> tuple[Mesh, Mesh]:
    """Return the inner and the outer surface of the cortex, with the vertices of the central one."""
    data = np.asfortranarray(np.asanyarray(scale.dataobj), dtype=np.float32)
    mesh = central.mesh
    pial, _, white, _ = _cat_surf().surf_to_pial_white(
        mesh.vertices, mesh.faces, central.thickness, (data, scale.affine)
    )
    return mesh.moved(white), mesh.moved(pial)


def to_sphere(mesh: Mesh) -> Mesh:
    """Inflate a closed surface to a sphere with the same vertices."""
    points, _ = _cat_surf().surf_to_sphere(mesh.vertices, mesh.faces, stop_at=_SPHERE_STAGE)
    return mesh.moved(points)


def register_sphere(mesh: Mesh, sphere: Mesh, target: Mesh, target_sphere: Mesh) -> Mesh:
    """Move the vertices of a sphere to where the folds of a target are like those of the surface.

    The method is Spherical Demons (Yeo et al. 2010, IEEE Trans Med Imaging 29:650) on depth potentials.

    Parameters
    ----------
    mesh, sphere
        Surface of the head and its sphere.
    target, target_sphere
        Surface of the average head and its sphere.

    Returns
    -------
    Mesh
        The sphere of the head in the space of the target's sphere.
    """
    pairs = [(one.vertices, one.faces) for one in (mesh, sphere, target, target_sphere)]
    points, _ = _cat_surf().spherical_demon(*pairs)
    return sphere.moved(points)


def _outward(points: Any, faces: Any) -> Mesh:
    """Return a closed surface whose triangles are anticlockwise seen from outside."""
    mesh = Mesh(np.asarray(points, dtype=np.float64), np.asarray(faces, dtype=np.int32))
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    if float(np.einsum("ij,ij->", a, np.cross(b, c))) < 0:
        return Mesh(mesh.vertices, np.ascontiguousarray(mesh.faces[:, ::-1]))
    return mesh


def _cat_surf() -> types.ModuleType:
    require_cat_surf()
    import cat_surf

    return cat_surf
