"""Halfway space of the T1w images of one participant: a rigid space and a median image that favor no visit.

Each pair of visits is registered in both directions. The move of a visit to the halfway space is the mean of its moves
to all visits, itself among them, by matrix logarithm (Alexa 2002, ACM Trans Graph 21:380; Reuter et al. 2012,
NeuroImage 61:1402, use the same idea). Then every visit is registered to the median of the others a few times, and the
mean of these corrections is taken out each time, so that the space stays halfway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import ImageError, RegistrationError
from tau_pipeline.files import complete_file
from tau_pipeline.imaging.foreground import center_of
from tau_pipeline.imaging.hdf5_times import clear_times
from tau_pipeline.imaging.resample import Floats, resample, resample_array
from tau_pipeline.imaging.rigid import register_rigid
from tau_pipeline.imaging.transforms import displacement_mm
from tau_pipeline.imaging.volume import RAS_LPS, Affine, Volume, finite, image_like, image_on, voxel_size_mm

if TYPE_CHECKING:
    import SimpleITK

#: Room around the brains in the halfway image, mm: the head, for the eye that checks it.
_ROOM_MM = 30.0
#: Registrations to the median of the others, and the mean correction, in mm, below which no further one is made.
_PASSES = 5
_SMALL_MM = 0.02


@dataclass(frozen=True)
class Halfway:
    """Halfway space of several T1w images.

    Attributes
    ----------
    image
        Median over the visits, float32, white matter near 100, on cubes of the finest voxel size of the visits.
    mask
        Brain mask by majority on the same grid, uint8.
    to_halfway
        ``(4, 4)`` for each visit: its world to the halfway world, RAS+ mm, rigid.
    disagreement_mm
        For each visit, mean distance over the brain by which the last pass corrected its place: an estimate of the
        error of the registration.
    """

    image: Volume
    mask: Volume
    to_halfway: tuple[Affine, ...]
    disagreement_mm: tuple[float, ...]


def halfway_space(t1ws: Sequence[Volume], masks: Sequence[Volume], names: Sequence[str]) -> Halfway:
    """Find the halfway space of T1w images of one head.

    Parameters
    ----------
    t1ws
        Bias-corrected, 3-D, two or more; their worlds may be far apart.
    masks
        A brain mask on the grid of each.
    names
        For messages.

    Raises
    ------
    ImageError
        There are fewer than two images.
    RegistrationError
        Two images could not be registered; the message names them.
    """
    if len(t1ws) < 2:
        raise ImageError(f"a halfway space is of two T1w images or more; {len(t1ws)} was given")
    # Every brain with its center at the origin, so that rotations about far origins do not become shifts.
    shifts = [_to_center(mask) for mask in masks]
    images = [_moved(_scaled(t1w, mask), shift) for t1w, mask, shift in zip(t1ws, masks, shifts, strict=True)]
    inside = [_moved(mask, shift) for mask, shift in zip(masks, shifts, strict=True)]
    moves = _pairwise_means(images, inside, names)
    grid = _grid(inside, moves, min(float(np.prod(voxel_size_mm(one)) ** (1 / 3)) for one in t1ws))
    disagreement = [0.0] * len(images)
    for _ in range(_PASSES):
        moves, disagreement, largest = _corrected(images, moves, grid, _majority(inside, moves, grid), names)
        if largest < _SMALL_MM:
            break
    found = tuple(move @ shift for move, shift in zip(moves, shifts, strict=True))
    return Halfway(
        _median(_on_grid(images, moves, grid), grid), _majority(inside, moves, grid), found, tuple(disagreement)
    )


def mean_rigid(matrices: Sequence[Affine]) -> Affine:
    """Return the mean of rigid transforms by matrix logarithm, again rigid.

    Parameters
    ----------
    matrices
        ``(4, 4)`` each, rotations by less than half a turn.

    Examples
    --------
    >>> turn = np.diag([1.0, 1.0, 1.0, 1.0])
    >>> turn[:3, 3] = [2.0, 0.0, 4.0]
    >>> mean_rigid([np.eye(4), turn])[:3, 3].round(6)
    array([1., 0., 2.])
    """
    from scipy.linalg import expm, logm

    total = np.mean([np.real(logm(matrix)) for matrix in matrices], axis=0)
    # What rounding leaves of a symmetric part would scale and shear.
    total[:3, :3] = (total[:3, :3] - total[:3, :3].T) / 2
    total[3] = 0
    mean: Affine = np.real(expm(total))
    return mean


def _inverse(matrix: Affine) -> Affine:
    return np.linalg.inv(matrix).astype(np.float64)


def _to_center(mask: Volume) -> Affine:
    shift = np.eye(4)
    shift[:3, 3] = -center_of(np.asanyarray(mask.dataobj) > 0, mask.affine)
    return shift


def _moved(img: Volume, move: Affine) -> Volume:
    """Return an image with its world moved; the voxels stay."""
    return image_on(np.asanyarray(img.dataobj), move @ img.affine)


def _scaled(t1w: Volume, mask: Volume) -> Volume:
    """Return a T1w with white matter near 100, so that visits count equally in a median."""
    data = np.maximum(finite(np.asanyarray(t1w.dataobj)), 0).astype(np.float32)
    inside = data[np.asanyarray(mask.dataobj) > 0]
    if not inside.any():
        raise ImageError("the brain mask of a T1w is empty, or the T1w is 0 in it; check the T1w")
    return image_like(data * np.float32(100 / (1.25 * np.percentile(inside[inside > 0], 80))), t1w)


def _pairwise_means(images: Sequence[Volume], masks: Sequence[Volume], names: Sequence[str]) -> list[Affine]:
    """Return the mean of the moves of each image to all, from registrations of each pair in both directions."""
    moves: dict[tuple[int, int], Affine] = {(place, place): np.eye(4) for place in range(len(images))}
    for one, other in combinations(range(len(images)), 2):
        there = _registered(images[one], images[other], masks[other], (names[one], names[other]), search="wide")
        start = _inverse(there)
        back = _registered(_moved(images[other], start), images[one], masks[one], (names[other], names[one])) @ start
        # Neither direction is favored.
        mean = there @ mean_rigid([np.eye(4), _inverse(back @ there)])
        moves[one, other], moves[other, one] = mean, _inverse(mean)
    return [mean_rigid([moves[one, other] for other in range(len(images))]) for one in range(len(images))]


def _registered(
    moving: Volume,
    fixed: Volume,
    mask: Volume,
    names: tuple[str, str],
    *,
    search: Literal["wide", "near"] = "near",
    by_correlation: bool = False,
) -> Affine:
    """Register two T1w images; by mutual information alone it ends some tenths of a mm from the truth."""
    contrast: Literal["same", "same, refined"] = "same, refined" if by_correlation else "same"
    found = register_rigid(moving, fixed, mask, search=search, contrast=contrast)
    if not found.plausible:
        raise RegistrationError(
            f"the T1w images {names[0]} and {names[1]} could not be registered to each other ({found.reason}); look at "
            "both, leave one out (--session-label, --bids-filter-file), or run without --longitudinal"
        )
    return found.matrix


def _corrected(
    images: Sequence[Volume], moves: Sequence[Affine], grid: Volume, mask: Volume, names: Sequence[str]
) -> tuple[list[Affine], list[float], float]:
    """Register each visit to the median of the others; returns the new moves, and how far each was corrected.

    In a median of all, a visit would find its own noise, which holds it where it is. The others lie beyond the middle
    of all by one part in their number, so that corrections are shortened by it. Their mean is taken out: it would carry
    the space toward some of the visits.
    """
    stack = _on_grid(images, moves, grid)
    corrections = []
    for place, (one, move, name) in enumerate(zip(images, moves, names, strict=True)):
        others = _median([*stack[:place], *stack[place + 1 :]], grid)
        found = _registered(_moved(one, move), others, mask, (name, "the median of the others"), by_correlation=True)
        corrections.append(mean_rigid([np.eye(4), *[found] * (len(images) - 1)]))
    drift = _inverse(mean_rigid(corrections))
    kept = [drift @ correction for correction in corrections]
    points = _points(mask)
    distances = [float(displacement_mm(one, np.eye(4), points).mean()) for one in kept]
    return [one @ move for one, move in zip(kept, moves, strict=True)], distances, max(distances)


def _points(mask: Volume) -> NDArray[np.float64]:
    """Return the world coordinates of some thousand points of a mask, ``(N, 3)``."""
    voxels = np.argwhere(np.asanyarray(mask.dataobj) > 0)
    voxels = voxels[:: max(1, len(voxels) // 5000)]
    return voxels @ mask.affine[:3, :3].T + mask.affine[:3, 3]


def _grid(masks: Sequence[Volume], moves: Sequence[Affine], edge_mm: float) -> Volume:
    """Return an empty RAS+ grid of cubes around all brains and their heads, in the halfway world."""
    points = np.concatenate([_points(_moved(mask, move)) for mask, move in zip(masks, moves, strict=True)])
    low, high = points.min(axis=0) - _ROOM_MM, points.max(axis=0) + _ROOM_MM
    shape = np.ceil((high - low) / edge_mm).astype(int) + 1
    affine = np.diag([edge_mm] * 3 + [1.0])
    affine[:3, 3] = (low + high) / 2 - (shape - 1) * edge_mm / 2
    return image_on(np.zeros(tuple(shape.tolist()), np.uint8), affine)


def _on_grid(images: Sequence[Volume], moves: Sequence[Affine], grid: Volume) -> list[Floats]:
    """Return the visits on the halfway grid, each interpolated once, by cubic splines."""
    pairs = zip(images, moves, strict=True)
    return [np.asanyarray(resample(image, grid, move, "cubic").dataobj) for image, move in pairs]


def _median(stack: Sequence[Floats], grid: Volume) -> Volume:
    """Return the median of visits on the halfway grid."""
    return image_like(np.maximum(np.median(stack, axis=0), 0).astype(np.float32), grid)


def _majority(masks: Sequence[Volume], moves: Sequence[Affine], grid: Volume) -> Volume:
    """Return where at least half of the masks are, by linear interpolation."""
    total = np.zeros(grid.shape, np.float32)
    for mask, move in zip(masks, moves, strict=True):
        inside = (np.asanyarray(mask.dataobj) > 0).astype(np.float32)
        to_voxel = np.linalg.inv(move @ mask.affine) @ grid.affine
        total += resample_array(inside, to_voxel, grid.shape, order=1)
    return image_like((total / len(masks) >= 0.5).astype(np.uint8), grid)


def carried_back(img: Volume, to_halfway: Affine) -> Volume:
    """Return an image of the halfway space in the world of a visit: its grid is moved, its voxels stay as they are."""
    return _moved(img, _inverse(to_halfway))


def template_transforms(
    t1w_from_template: Path, template_from_t1w: Path, to_halfway: Affine, out_dir: Path
) -> tuple[Path, Path]:
    """Compose the transforms between the halfway image and the template with the move of a visit.

    Parameters
    ----------
    t1w_from_template, template_from_t1w
        ITK files of `tau_pipeline.anatomy.template.TemplateRegistration` of the halfway image.
    to_halfway
        ``(4, 4)``, the visit's world to the halfway world.
    out_dir
        Folder for the two files of the visit, of the same kinds; nothing is interpolated.
    """
    there, back = (_linear(matrix) for matrix in (to_halfway, _inverse(to_halfway)))
    # The last transform of a composite takes points first.
    onto_t1w = _composed([_read(t1w_from_template), there], Path(out_dir) / "template_to_t1w.h5")
    onto_template = _composed([back, _read(template_from_t1w)], Path(out_dir) / "t1w_to_template.h5")
    return onto_t1w, onto_template


def _linear(ras: Affine) -> SimpleITK.Transform:
    import SimpleITK

    lps = RAS_LPS @ ras @ RAS_LPS
    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def _read(path: Path) -> SimpleITK.Transform:
    import SimpleITK

    return SimpleITK.ReadTransform(str(path))


def _composed(parts: Sequence[SimpleITK.Transform], path: Path) -> Path:
    import SimpleITK

    composite = SimpleITK.CompositeTransform(list(parts))
    composite.FlattenTransform()
    with complete_file(path) as partial:
        SimpleITK.WriteTransform(composite, str(partial))
        clear_times(partial)
    return path
