"""Rigid transforms: ITK files, rotation matrices, and displacements in mm."""

from __future__ import annotations

import os
from itertools import permutations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tau_pipeline.errors import DamagedFileError, MissingInputError, memory_shortage
from tau_pipeline.files import complete_file
from tau_pipeline.imaging.volume import (
    RAS_LPS,
    Affine,
)

Points = NDArray[np.float64]
#: Rotation matrix ``(3, 3)``.
Rotation3 = NDArray[np.float64]


def rotation(angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ``(3, 3)`` rotation about the x axis, then y, then z (RAS+), by three angles in radians.

    SciPy's ``Rotation.from_euler("xyz", angles_rad)`` is the same but for the last bit, which would change results.
    """
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles_rad), np.cos(angles_rad)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def rotation_matrix(x_deg: float, y_deg: float, z_deg: float) -> NDArray[np.float64]:
    """Return the ``(3, 3)`` rotation about the x axis, then y, then z (RAS+), in degrees.

    >>> rotation_matrix(0, 0, 90).round(12) @ [1, 0, 0]
    array([0., 1., 0.])
    """
    return rotation(np.radians([x_deg, y_deg, z_deg]))


def cube(edge: float) -> list[Points]:
    """Return the center, faces, edges, and corners of a cube about 0 as 27 points that a quarter turn only permutes."""
    points = [np.array(point) for point in product((-edge, 0.0, edge), repeat=3)]
    return sorted(points, key=lambda point: float(np.abs(point).sum()))


def tilts(*angles_deg: float) -> list[Rotation3]:
    """Return rotations ``(3, 3)``: none first, then by each angle about the 13 axes of a cube, both ways."""
    directions = [axis / np.linalg.norm(axis) for axis in cube(1.0)[1:]]
    turned = [Rotation.from_rotvec(np.radians(angle) * axis) for angle in angles_deg for axis in directions]
    return [np.eye(3), *(rotation.as_matrix() for rotation in turned)]


def quarter_turns() -> list[Rotation3]:
    """Return the 24 rotations ``(3, 3)`` that take the axes of a cube onto each other, the identity first."""
    found = []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        matrix = np.zeros((3, 3))
        matrix[range(3), order] = signs
        if np.linalg.det(matrix) > 0:
            found.append(matrix)
    return found


def displacement_mm(a: Affine, b: Affine, points: Points) -> NDArray[np.float64]:
    """Return the distance in mm between where two ``(4, 4)`` transforms put each of the points ``(N, 3)``."""
    difference = (a - b)[:3]
    return np.linalg.norm(points @ difference[:, :3].T + difference[:, 3], axis=1)


def save_itk(moving_to_fixed: Affine, path: str | os.PathLike[str]) -> Path:
    """Write a transform as an ITK file (``.mat``, ``.txt`` or ``.tfm``), the way that resampling needs it.

    The file maps fixed points to moving points in LPS+ mm, so that ``antsApplyTransforms -t FILE`` with it brings the
    moving image onto the fixed one.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    import ants

    lps = RAS_LPS @ np.linalg.inv(moving_to_fixed) @ RAS_LPS
    transform = ants.create_ants_transform("AffineTransform", precision="double", dimension=3)
    transform.set_parameters([*lps[:3, :3].ravel(), *lps[:3, 3]])
    with complete_file(path) as partial:
        ants.write_transform(transform, str(partial))
    return Path(path)


def load_itk(path: str | os.PathLike[str]) -> Affine:
    """Read a linear ITK file; returns moving world to fixed world ``(4, 4)``, RAS+ mm, the inverse of what it holds.

    Raises
    ------
    MissingInputError
        There is no such file.
    DamagedFileError
        It is no linear transform.
    """
    import ants

    if not Path(path).is_file():
        raise MissingInputError(f"there is no transform {path}")
    try:
        transform = ants.read_transform(str(path), precision="double")
        # ANTs gives points in single precision; over 1 m, what that rounds off does not turn the axes.
        ends = [
            [np.array(transform.apply_to_point((end * axis).tolist())) for end in (1e3, -1e3)] for axis in np.eye(3)
        ]
        lps = np.eye(4)
        lps[:3, :3] = np.stack([(there - back) / 2e3 for there, back in ends], axis=1)
        lps[:3, 3] = np.mean(ends, axis=(0, 1))
        return RAS_LPS @ np.linalg.inv(lps) @ RAS_LPS
    except (RuntimeError, ValueError, TypeError, MemoryError, np.linalg.LinAlgError) as exc:
        if (shortage := memory_shortage(exc)) is not None:
            raise shortage from exc
        raise DamagedFileError(f"{path} is not a linear ITK transform ({exc})") from exc
