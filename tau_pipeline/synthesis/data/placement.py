"""Each participant's place on the common grid: images are brought onto it and back.

T1w derivatives lie in each participant's own world: any orientation, any voxel size, oblique or not. A network needs
one shape, one voxel size and one direction of the axes for all. The common grid is RAS, with the middle of the brain
mask's box in its middle, or in the space of the template; docs/decisions/synthesis-grid.md says why. A `Placement` says
how the voxels of one participant's image and those of the common grid belong together, in both directions:

- where only axes are swapped or turned round and sides are cropped or padded, nothing is interpolated, and
  `from_grid` undoes `to_grid` to the last bit;
- otherwise there is one interpolation each way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.errors import DamagedFileError, GridMismatchError, ImageError, MissingInputError
from tau_pipeline.imaging.resample import resample_array
from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA
from tau_pipeline.imaging.volume import Affine, Volume, image_like, image_on, require_same_grid
from tau_pipeline.synthesis.data.grid import Grid, times
from tau_pipeline.synthesis.data.template_space import template_middle, to_template

#: Voxels of two grids count as the same where none of them is farther off than this part of a voxel.
_EXACT_VOXELS = 0.1

#: More of the brain's box than this may not stick out of the grid on any axis; up to it a sentence says so.
_MOST_CUT_MM = 10.0


@dataclass(frozen=True)
class Placement:
    """Correspondence between the voxels of one image and those of the common grid.

    Parameters
    ----------
    grid
        The common grid.
    source_shape, source_affine
        Of the participant's image.
    to_source
        4 x 4: takes voxel indices of the common grid to those of the image. Whole numbers, with a single 1 or -1 in
        each row and column, where ``exact``.
    exact
        Nothing is interpolated.
    brain_mm
        Edges of the brain mask's box along right, anterior, superior; in the space of the template, those of the
        smallest box about its middle.
    """

    grid: Grid
    source_shape: tuple[int, int, int]
    source_affine: tuple[tuple[float, ...], ...]
    to_source: tuple[tuple[float, ...], ...]
    exact: bool
    brain_mm: tuple[float, float, float]

    @property
    def affine(self) -> Affine:
        """Affine of the common grid in the world of this participant: for saving what lies on it as an image."""
        return np.array(self.source_affine) @ np.array(self.to_source)

    @property
    def cut_mm(self) -> NDArray[np.float64]:
        """Extent of the brain's box that does not fit, along right, anterior, superior; both ends together."""
        return np.maximum(np.array(self.brain_mm) - self.grid.size_mm, 0)

    def cut_sentence(self, name: str) -> str:
        """Return a sentence if part of the brain is cut, else an empty text."""
        if not self.cut_mm.max() > 1e-6:
            return ""
        parts = [
            f"{cut:.0f} mm of {brain:.0f} mm along {axis}"
            for cut, brain, axis in zip(self.cut_mm, self.brain_mm, _AXES, strict=True)
            if cut > 1e-6
        ]
        return (
            f"The brain of {name} is larger than the grid of {times(self.grid.size_mm.round(1).tolist())} mm: "
            f"{' and '.join(parts)} are cut."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "grid": self.grid.as_dict(),
            "source_shape": list(self.source_shape),
            "source_affine": [list(row) for row in self.source_affine],
            "to_source": [list(row) for row in self.to_source],
            "exact": self.exact,
            "brain_mm": list(self.brain_mm),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Placement:
        """Return the placement of a JSON form: the inverse of `as_dict`.

        Raises
        ------
        DamagedFileError
            A value is missing or has another form.
        """
        try:
            i, j, k = (int(n) for n in content["source_shape"])
            right, anterior, superior = (float(mm) for mm in content["brain_mm"])
            return cls(
                Grid.from_dict(content["grid"]),
                (i, j, k),
                _rows(np.array(content["source_affine"], dtype=np.float64).reshape(4, 4)),
                _rows(np.array(content["to_source"], dtype=np.float64).reshape(4, 4)),
                bool(content["exact"]),
                (right, anterior, superior),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise DamagedFileError(f"the placement of an image on the common grid is damaged ({exc})") from exc


_AXES = ("left-right", "posterior-anterior", "inferior-superior")


def _rows(matrix: NDArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)


def place(
    mask_img: Volume,
    grid: Grid,
    name: str = "the participant",
    most_cut_mm: float = _MOST_CUT_MM,
    dseg_img: Volume | None = None,
) -> Placement:
    """Put a participant's grid on the common one, the middle of the brain mask's box in its middle.

    In the space of the template, it is the middle of the template's brain that lies there, after an affine.

    Parameters
    ----------
    mask_img
        Brain mask ``(I, J, K)``, above 0 inside, on the grid of the T1w.
    grid
        The common grid.
    name
        Who this is, for messages.
    most_cut_mm
        How much of the brain may stick out along an axis. What is cut within it is said by `Placement.cut_sentence`.
    dseg_img
        Labels, which a grid in the space of the template needs.

    Raises
    ------
    ImageError
        The mask is empty or not 3-D, or the brain is much larger than the grid; or the labels are too few.
    MissingInputError
        The grid needs labels, and there are none.
    """
    inside = np.asanyarray(mask_img.dataobj) > 0
    if inside.ndim != 3 or not inside.any():
        found = "empty" if inside.ndim == 3 else f"of shape {inside.shape}"
        raise ImageError(f"the brain mask of {name} is {found}; a 3-D mask with a brain in it is needed")
    if grid.space == "template":
        if dseg_img is None:
            raise MissingInputError(
                f"the grid is in the space of the template, and the labels of {name} were not given; give dseg_img"
            )
        world = to_template(dseg_img, name) @ mask_img.affine
        low, high = _world_box(inside, world)
        middle = np.array(template_middle())
        extent = 2 * np.maximum(high - middle, middle - low)
    else:
        world = mask_img.affine
        low, high = _world_box(inside, world)
        middle, extent = (low + high) / 2, high - low
    to_source, exact = _grid_to_source(world, grid, middle)
    i, j, k = mask_img.shape[:3]
    right, anterior, superior = extent.tolist()
    placement = Placement(grid, (i, j, k), _rows(mask_img.affine), _rows(to_source), exact, (right, anterior, superior))
    if placement.cut_mm.max() > most_cut_mm:
        raise ImageError(
            f"{placement.cut_sentence(name)} At most {most_cut_mm:g} mm may be; look at the brain mask, or take a "
            "grid with a larger shape or larger voxels"
        )
    return placement


def _world_box(inside: NDArray[np.bool_], affine: Affine) -> tuple[NDArray, NDArray]:
    """Return the box around the mask's voxels along the world's axes, in mm; voxels count to their faces."""
    # Corners lie on the outermost voxels of each line along K, so that two voxels a line are enough.
    lines = inside.any(axis=2)
    i, j = np.nonzero(lines)
    first = inside.argmax(axis=2)[lines]
    last = inside.shape[2] - 1 - inside[:, :, ::-1].argmax(axis=2)[lines]
    voxels = np.vstack([np.concatenate([part, part]) for part in (i, j)] + [np.concatenate([first, last])])
    points = affine[:3, :3] @ voxels + affine[:3, 3:]
    half_voxel = np.abs(affine[:3, :3]).sum(axis=1) / 2
    return points.min(axis=1) - half_voxel, points.max(axis=1) + half_voxel


def _grid_to_source(affine: Affine, grid: Grid, center_mm: NDArray) -> tuple[NDArray[np.float64], bool]:
    """Return the map from grid voxels, centered at ``center_mm``, to those of the image, and if it is exact."""
    linear = np.linalg.inv(affine[:3, :3]) @ np.diag(grid.voxel_mm)
    center = np.linalg.inv(affine) @ [*center_mm, 1.0]
    whole = np.round(linear)
    one_each = (np.abs(whole).sum(axis=0) == 1).all() and (np.abs(whole).sum(axis=1) == 1).all()
    off = np.abs(linear - whole) @ (np.array(grid.shape) / 2)
    exact = bool(one_each and off.max() <= _EXACT_VOXELS)
    linear = whole if exact else linear
    start = center[:3] - linear @ grid.middle
    # A half is rounded to the right, front and top, whatever the image's own axes and the last bits are.
    start = np.round(start + linear @ np.full(3, 1e-6)) if exact else start
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, start
    return matrix, exact


def to_grid(img: Volume, placement: Placement, *, labels: bool = False, fill: float = 0.0) -> NDArray:
    """Bring an image of the participant onto the common grid.

    Parameters
    ----------
    img
        3-D image on the grid that was placed: T1w, mask, labels or SUVR.
    placement
        From `place`.
    labels
        The values are labels or a mask: nearest neighbor, the type is kept. Otherwise linear interpolation, after a
        Gaussian that makes voxels of the image as wide as those of the common grid where these are larger, so that
        nothing aliases (Cardoso et al. 2015, MICCAI, "Scale factor point spread function matching").
    fill
        The value outside of the image.

    Returns
    -------
    ndarray
        ``(I, J, K)`` of the common grid; float32, or the type of the labels.

    Raises
    ------
    GridMismatchError
        The image is not on the grid that was placed.
    """
    _require_source_grid(img, placement)
    values = np.asanyarray(img.dataobj)
    values = values if labels else values.astype(np.float32)
    if placement.exact:
        return _cut(values, placement, fill)
    return _resampled_to_grid(values, placement, labels, fill)


def from_grid(array: NDArray, placement: Placement, *, labels: bool = False, fill: float = 0.0) -> Volume:
    """Bring an array on the common grid back onto the participant's own.

    Parameters
    ----------
    array
        ``(I, J, K)`` of the common grid.
    placement
        From `place`.
    labels
        Nearest neighbor instead of linear interpolation.
    fill
        The value outside of the common grid. Give the background constant.

    Returns
    -------
    Volume
        On the grid of the participant's T1w. Where the placement is exact, ``from_grid(to_grid(img))`` is ``img``
        in every voxel inside the common grid.

    Raises
    ------
    GridMismatchError
        The array has another shape.
    """
    if array.shape != placement.grid.shape:
        raise GridMismatchError(f"an array of shape {array.shape} is not on the grid of shape {placement.grid.shape}")
    affine = np.array(placement.source_affine)
    if placement.exact:
        return image_on(_paste(array, placement, fill), affine)
    to_grid_voxels = np.linalg.inv(np.array(placement.to_source))
    back = _resampled(array, to_grid_voxels, placement.source_shape, labels, fill)
    return image_on(back, affine)


def _require_source_grid(img: Volume, placement: Placement) -> None:
    # A view of one byte that stands for an image of this shape: only its grid is looked at.
    placed = Volume(np.broadcast_to(np.uint8(0), placement.source_shape), np.array(placement.source_affine))
    require_same_grid(placed_mask=placed, image=img)


def _orientation(placement: Placement) -> tuple[list[int], list[int], NDArray[np.intp]]:
    """Return, for an exact placement, the image's axis along each of the grid's, the flipped ones, the first voxel."""
    matrix = np.array(placement.to_source).round().astype(int)
    order = [int(np.flatnonzero(matrix[:3, axis])[0]) for axis in range(3)]
    turned = [axis for axis in range(3) if matrix[order[axis], axis] < 0]
    start = np.array([matrix[source, 3] for source in order])
    for axis in turned:
        start[axis] = placement.source_shape[order[axis]] - 1 - start[axis]
    return order, turned, start


def _windows(start: NDArray[np.intp], grid_shape: Sequence[int], shape: Sequence[int]) -> tuple[Any, Any]:
    """Return the part that both have, as slices of the grid and of the reoriented image."""
    of_grid, of_image = [], []
    for first, n_grid, n_image in zip(start.tolist(), grid_shape, shape, strict=True):
        low, high = max(first, 0), min(first + n_grid, n_image)
        high = max(low, high)
        of_image.append(slice(low, high))
        of_grid.append(slice(low - first, high - first))
    return tuple(of_grid), tuple(of_image)


def _cut(values: NDArray, placement: Placement, fill: float) -> NDArray:
    order, turned, start = _orientation(placement)
    ras = np.flip(values.transpose(order), turned)
    out = np.full(placement.grid.shape, fill, dtype=values.dtype)
    of_grid, of_image = _windows(start, placement.grid.shape, ras.shape)
    out[of_grid] = ras[of_image]
    return out


def _paste(array: NDArray, placement: Placement, fill: float) -> NDArray:
    order, turned, start = _orientation(placement)
    ras = np.full([placement.source_shape[axis] for axis in order], fill, dtype=array.dtype)
    of_grid, of_image = _windows(start, placement.grid.shape, ras.shape)
    ras[of_image] = array[of_grid]
    return np.ascontiguousarray(np.flip(ras, turned).transpose(np.argsort(order)))


def _resampled_to_grid(values: NDArray, placement: Placement, labels: bool, fill: float) -> NDArray:
    if not labels:
        # How wide a voxel of the common grid is along each axis of the image, in voxels of the image.
        width = np.sqrt((np.array(placement.to_source)[:3, :3] ** 2).sum(axis=1))
        fwhm_voxels = np.sqrt(np.maximum(width**2 - 1, 0))
        values = ndimage.gaussian_filter(values, fwhm_voxels / FWHM_PER_SIGMA, mode="nearest", truncate=3.0)
    return _resampled(values, np.array(placement.to_source), placement.grid.shape, labels, fill)


def _resampled(values: NDArray, matrix: NDArray, shape: Sequence[int], labels: bool, fill: float) -> NDArray:
    """Return values at ``matrix @ voxel`` for every voxel of ``shape``, in the type of ``values``."""
    order = 0 if labels else 1
    # Booleans have no interpolation in scipy; one byte has the same values.
    typed = values.astype(np.uint8) if values.dtype == bool else values
    return resample_array(typed, matrix, shape, order=order, fill=fill).astype(values.dtype, copy=False)


def on_t1w_grid(array: NDArray, brain: NDArray, placement: Placement, mask_img: Volume) -> Volume:
    """Bring a map of SUVR or of its SD from the model's grid onto the T1w's: one linear interpolation.

    Values of the brain are first carried outward, so that the border of the brain does not mix with the background.

    Parameters
    ----------
    array, brain
        Map and brain mask, ``(I, J, K)`` on the model's grid.
    placement
        Where that grid lies on the T1w's.
    mask_img
        Brain mask on the T1w's grid.

    Returns
    -------
    Volume
        float32 on the T1w's grid; 0 outside the brain mask, NaN in the brain where the model's grid does not reach.
    """
    beside = ndimage.distance_transform_edt(np.asarray(brain) == 0, return_distances=False, return_indices=True)
    carried = np.asarray(array, np.float32)[tuple(beside)]
    moved = np.asanyarray(from_grid(carried, placement, fill=np.nan).dataobj)
    inside = np.asanyarray(mask_img.dataobj) > 0
    return image_like(np.where(inside, moved, np.float32(0)), mask_img)
