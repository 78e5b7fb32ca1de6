"""Sample an image at the points that nonlinear transforms lead to, in one interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.errors import DamagedFileError, MissingInputError, memory_shortage
from tau_pipeline.imaging.greedy import displacements
from tau_pipeline.imaging.resample import filled
from tau_pipeline.imaging.volume import RAS_LPS, Affine, Volume

#: World coordinates, mm, RAS+, ``(I, J, K, 3)``.
Points = NDArray[np.float32]


def points_through(grid: Volume, transforms: Sequence[Path]) -> Points:
    """Return where ITK transforms take the voxel centers of a grid, ``(I, J, K, 3)`` in mm, RAS+.

    Nothing is interpolated but the displacement fields themselves. Images that the transforms resample onto the grid
    (`tau_pipeline.anatomy.template.TemplateRegistration`) are to be sampled at these points.

    Parameters
    ----------
    grid
        3-D image; its values are not read.
    transforms
        ITK files in the order of ``ants.apply_transforms``: the last takes the points of the grid first.

    Raises
    ------
    MissingInputError, DamagedFileError
        A file does not exist or is not a transform.
    """
    import SimpleITK

    composite = SimpleITK.CompositeTransform(3)
    for path in transforms:
        if not Path(path).is_file():
            raise MissingInputError(f"there is no transform {path}")
        try:
            composite.AddTransform(SimpleITK.ReadTransform(str(path)))
        except RuntimeError as exc:
            if (shortage := memory_shortage(exc)) is not None:
                raise shortage from exc
            raise DamagedFileError(f"{path} is not an ITK transform ({exc})") from exc
    lps = RAS_LPS @ grid.affine
    size = np.linalg.norm(lps[:3, :3], axis=0)
    field = SimpleITK.TransformToDisplacementField(
        composite,
        SimpleITK.sitkVectorFloat32,
        grid.shape[:3],
        lps[:3, 3].tolist(),
        size.tolist(),
        (lps[:3, :3] / size).ravel().tolist(),
    )
    i, j, k = np.ogrid[tuple(slice(0, n) for n in grid.shape[:3])]
    points = displacements(field).astype(np.float32) * np.diag(RAS_LPS)[:3].astype(np.float32)
    for axis in range(3):
        row = grid.affine[axis]
        points[..., axis] += (row[0] * i + row[1] * j + row[2] * k + row[3]).astype(np.float32)
    return points


def volume_change(grid: Volume, points: Points) -> NDArray[np.float32]:
    """Return the volume of what each voxel of a grid shows over the volume of the voxel, ``(I, J, K)``.

    A mean over the grid with these weights is the mean over the space that the points lie in; a plain one weighs each
    part by its volume on the grid. It is the determinant of the Jacobian, by differences between neighbors.

    Parameters
    ----------
    grid
        3-D image; its values are not read.
    points
        From `points_through`.
    """
    along = [np.gradient(points, axis=axis) for axis in range(3)]
    found = np.abs(np.einsum("...i,...i->...", np.cross(along[0], along[1]), along[2]))
    return (found / abs(np.linalg.det(grid.affine[:3, :3]))).astype(np.float32)


def sample(img: Volume, points: Points, order: int) -> NDArray:
    """Return the values of a 3-D image at points of its world, ``(I, J, K)``; 0 outside of the image.

    Parameters
    ----------
    img
        3-D image without NaN.
    points
        ``(I, J, K, 3)``, mm, RAS+.
    order
        0 for the nearest voxel, as for labels, in the type of the image; 1 for linear interpolation, in float32.
    """
    data = np.asanyarray(img.dataobj)
    data = data if order == 0 else data.astype(np.float32)
    return _at(data, img.affine, points, order=order, mode="grid-constant")


def sample_measured(img: Volume, points: Points, moving_to_points: Affine) -> NDArray[np.float32]:
    """Return the values of an image in which NaN is not measured at points of another world, by linear interpolation.

    This is `tau_pipeline.imaging.resample.resample_measured` for points instead of a grid.

    Parameters
    ----------
    img
        3-D image.
    points
        ``(I, J, K, 3)``, mm, RAS+.
    moving_to_points
        ``(4, 4)``: world of ``img`` to that of the points, RAS+ mm.

    Returns
    -------
    ndarray
        ``(I, J, K)``, float32; NaN where the nearest voxel of the image has no value, and outside of the image.

    Raises
    ------
    ImageError
        The image is not 3-D, or holds no value at all.
    """
    data, known = filled(img)
    affine = moving_to_points @ img.affine
    found = _at(data, affine, points, order=1, mode="nearest")
    covered = _at(known.astype(np.uint8), affine, points, order=0, mode="grid-constant")
    found[covered == 0] = np.nan
    return found


def _at(data: NDArray, affine: Affine, points: Points, *, order: int, mode: str) -> NDArray:
    """Return the values of an array at points of the world to which an affine takes its voxel indices."""
    to_voxel = np.linalg.inv(affine)
    voxels = np.moveaxis(points @ to_voxel[:3, :3].T.astype(np.float32), -1, 0)
    voxels += to_voxel[:3, 3].astype(np.float32)[:, None, None, None]
    return ndimage.map_coordinates(data, voxels, order=order, output=data.dtype, mode=mode)
