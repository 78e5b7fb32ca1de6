"""Slices on planes of the world, whatever the grid of the image.

A view is a rectangle on an axial, coronal or sagittal plane of the world (RAS+, mm). Sampling an image on a view gives
the same picture for every order, direction and obliqueness of the image's axes, and a millimeter is as long in every
direction, thick slices included. Only the pixels of the view are computed; the image is neither copied nor reordered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.volume import Volume

#: World axis (0 = left-right, 1 = posterior-anterior, 2 = inferior-superior) across, up and through each plane.
PLANES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
#: Letters at the low and high end of each world axis.
ENDS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True)
class View:
    """A rectangle on a world plane: where it lies, and the mm positions of its pixels across and up."""

    plane: str
    position_mm: float
    across_mm: NDArray[np.float64]
    up_mm: NDArray[np.float64]
    note: str = ""

    @property
    def caption(self) -> str:
        """Say where the slice lies: ``z = 12 mm``, with the side for sagittal slices."""
        through = PLANES[self.plane][2]
        side = f" ({ENDS[0][int(self.position_mm > 0)]})" if through == 0 and self.position_mm != 0 else ""
        return f"{'xyz'[through]} = {self.position_mm:.0f} mm{side}" + (f", {self.note}" if self.note else "")

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Return left, right, bottom and top edge in mm."""
        half = (self.across_mm[1] - self.across_mm[0]) / 2
        across, up = self.across_mm, self.up_mm
        return float(across[0] - half), float(across[-1] + half), float(up[0] - half), float(up[-1] + half)


def world_box(mask: Volume) -> NDArray[np.float64]:
    """Return the bounding box ``(3, 2)`` of a mask: lowest and highest voxel center along the world axes, mm.

    Exact for oblique grids: the extremes of a linear function over a set of voxels lie at the ends of its columns.

    Raises
    ------
    ImageError
        The mask is empty.
    """
    # Transposed to K J I: images come from files with the first axis fastest, and columns along it are read at once.
    inside = np.asanyarray(mask.dataobj).T > 0
    k, j = np.nonzero(inside.any(axis=2))
    if not k.size:
        raise ImageError("the mask is empty: there is nothing to draw; look at the step that made the mask")
    columns = inside[k, j]
    low = columns.argmax(axis=1)
    high = inside.shape[2] - 1 - columns[:, ::-1].argmax(axis=1)
    voxels = np.stack([np.concatenate([low, high]), np.tile(j, 2), np.tile(k, 2)])
    world = mask.affine[:3, :3] @ voxels + mask.affine[:3, 3:]
    return np.stack([world.min(axis=1), world.max(axis=1)], axis=1)


def spread_views(
    box: NDArray[np.float64], plane: str, count: int, margin_mm: float = 16.0, step_mm: float = 1.0
) -> list[View]:
    """Spread ``count`` slices of one plane evenly inside a world box, at whole millimeters.

    Parameters
    ----------
    box
        ``(3, 2)``: lowest and highest world coordinate along each axis in mm.
    plane
        ``axial``, ``coronal`` or ``sagittal``.
    count
        Number of slices; the outermost ones lie half an interval inside the box.
    margin_mm
        What is shown around the box within the plane.
    step_mm
        Pixel size.
    """
    across, up, through = PLANES[plane]
    fractions = (np.arange(count) + 0.5) / count
    # Adding 0.0 below turns -0.0 into 0.0.
    positions = np.round(box[through, 0] + fractions * (box[through, 1] - box[through, 0]))
    shown = [
        np.arange(np.floor(box[axis, 0] - margin_mm), np.ceil(box[axis, 1] + margin_mm) + step_mm / 2, step_mm)
        for axis in (across, up)
    ]
    return [View(plane, float(position) + 0.0, shown[0], shown[1]) for position in positions]


def sample(img: Volume, view: View, order: int = 1, outside: float = np.nan) -> NDArray[np.float32]:
    """Return values of a 3-D image on a view: ``(up, across)``, the first row lowest.

    Parameters
    ----------
    img
        A 3-D image on any grid.
    view
        The rectangle to sample.
    order
        1 for linear interpolation, 0 for labels (nearest voxel).
    outside
        Value of pixels outside the grid.
    """
    from scipy.ndimage import map_coordinates

    if len(img.shape) != 3:
        raise ImageError(f"an image of shape {img.shape} cannot be drawn; a 3-D image is needed")
    data, inverse = np.asanyarray(img.dataobj), np.linalg.inv(img.affine)
    # Halfway between two voxels, the choice must not depend on the direction of the image's axes.
    inverse[:3, 3] += inverse[:3, :3].sum(axis=1) * (1e-4 if order == 0 else 0.0)
    along = np.abs(inverse[:3, :3]) > 1e-6 * np.abs(inverse[:3, :3]).max(axis=1, keepdims=True)
    if (along.sum(axis=1) == 1).all():
        return _sample_along_axes(data, inverse, along.argmax(axis=1), view, (order, outside))
    across, up, through = PLANES[view.plane]
    world = np.empty((3, view.up_mm.size, view.across_mm.size))
    world[across], world[up], world[through] = view.across_mm, view.up_mm[:, None], view.position_mm
    voxels = np.einsum("ij,jvh->ivh", inverse[:3, :3], world) + inverse[:3, 3, None, None]
    return map_coordinates(data, voxels, order=order, output=np.float32, mode="constant", cval=outside, prefilter=False)


def _sample_along_axes(
    data: NDArray, inverse: NDArray[np.float64], axes: NDArray[np.int64], view: View, how: tuple[int, float]
) -> NDArray[np.float32]:
    """Sample an image whose axes are those of the world: one axis after the other, a fifth of the time.

    Parameters
    ----------
    data
        ``(I, J, K)``.
    inverse
        From the world to voxels, ``(4, 4)``.
    axes
        World axis of each axis of the image.
    view
        The rectangle to sample.
    how
        Order of the interpolation, and value outside the grid, as in `sample`.
    """
    order, outside = how
    across, up, through = PLANES[view.plane]
    mm = {across: view.across_mm, up: view.up_mm, through: np.array([view.position_mm])}
    found, beyond = data.transpose(np.argsort(axes)), np.zeros((1, 1, 1), bool)
    for world_axis in (through, up, across):
        axis = int(np.flatnonzero(axes == world_axis)[0])
        voxels = inverse[axis, world_axis] * mm[world_axis] + inverse[axis, 3]
        found = _along(found, voxels, world_axis, order)
        last = data.shape[axis] - 1
        beyond = beyond | np.expand_dims((voxels < 0) | (voxels > last), [k for k in range(3) if k != world_axis])
    picture = np.where(beyond, outside, found).astype(np.float32).squeeze(axis=through)
    return picture if up < across else np.ascontiguousarray(picture.T)


def _along(data: NDArray, voxels: NDArray[np.float64], axis: int, order: int) -> NDArray:
    """Interpolate along one axis at places ``(N,)`` in voxels; beyond the ends, the outermost voxels are continued."""
    last = data.shape[axis] - 1
    if order == 0:
        return _planes(data, np.clip(np.floor(voxels + 0.5), 0, last).astype(np.int64), axis)
    below = np.clip(np.floor(voxels), 0, last).astype(np.int64)
    weight = np.expand_dims(np.clip(voxels - below, 0, 1), [k for k in range(3) if k != axis])
    above: NDArray = _planes(data, np.minimum(below + 1, last), axis) * weight
    return above + _planes(data, below, axis) * (1 - weight)


def _planes(data: NDArray, places: NDArray[np.int64], axis: int) -> NDArray:
    """Return the planes of an array at places ``(N,)`` along an axis.

    A single plane is a view: `numpy.ndarray.take` copies an image that comes from a file as a whole first.
    """
    if places.size == 1:
        first = int(places[0])
        return data[(slice(None),) * axis + (slice(first, first + 1),)]
    return data.take(places, axis)
