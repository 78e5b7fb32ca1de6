"""Values and labels from the vertices of one sphere to those of another in the same space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tau_pipeline.surface.mesh import Labels, Mesh, Points, Values


def labels_on(target: Mesh, source: Mesh, labels: Labels) -> Labels:
    """Return at each vertex of the target sphere the label of the nearest vertex of the source sphere.

    Parameters
    ----------
    target, source
        Spheres in one space, of any radius.
    labels
        ``(V,)`` of the source.
    """
    _, nearest = cKDTree(_unit(source.vertices)).query(_unit(target.vertices))
    found: Labels = labels[nearest]
    return found


def values_on(target: Points, source: Points, values: Values) -> Values:
    """Return the mean, at each vertex of the target sphere, of the source's values that belong to it.

    To a vertex belong the nearest vertex of the source, and all those of the source to which no other vertex of the
    target is nearer. So no vertex of the finer sphere is lost, and none of the coarser one is empty: the
    nearest neighbor forward and back of FreeSurfer's ``mri_surf2surf``.

    Parameters
    ----------
    target, source
        Vertices of spheres in one space, of any radius, ``(V, 3)``.
    values
        ``(V,)`` of the source; NaN counts nowhere.

    Returns
    -------
    Values
        NaN where none of the values is known.
    """
    from_points, to_points = _unit(source), _unit(target)
    _, forward = cKDTree(from_points).query(to_points)
    _, back = cKDTree(to_points).query(from_points)
    owner = np.concatenate([np.arange(len(to_points)), back])
    held = np.concatenate([values[forward], values])
    known = np.isfinite(held)
    number = np.bincount(owner[known], minlength=len(to_points))
    total = np.bincount(owner[known], weights=held[known], minlength=len(to_points))
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _unit(points: Points) -> NDArray[Any]:
    return points / np.linalg.norm(points, axis=1, keepdims=True)
