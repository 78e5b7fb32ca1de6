"""Registration of a head to the template: orientation of the head, affine step, deformable step.

Every function takes and returns images on the T1w grid. The registration itself uses world coordinates with the origin
in the brain and the axes along those of the template, so that the origin and axes of the T1w's world do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.anatomy.orientation import HeadOrientation, head_orientation
from tau_pipeline.errors import RegistrationError
from tau_pipeline.files import complete_file
from tau_pipeline.imaging.brain_grid import grid_about
from tau_pipeline.imaging.foreground import box_around, closer_than
from tau_pipeline.imaging.greedy import Schedule, displacements, inverse_of, register_deformable, register_linear
from tau_pipeline.imaging.hdf5_times import clear_times
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.plain_paths import plain_paths
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.volume import (
    RAS_LPS,
    Affine,
    Volume,
    finite,
    image_like,
    image_on,
    require_same_grid,
    to_ants,
    voxel_size_mm,
)

if TYPE_CHECKING:
    import ants
    import SimpleITK

#: Edge of a voxel in the registration to the template, mm.
REGISTRATION_MM = 2.0
#: Around the brain, the metric looks this far, mm. A wider rim is 0 in both images, and correlation means
#: nothing there: with 6 mm the cortical Dice of one of two heads fell by 0.02.
_RIM_MM = 3.0
#: Room around the brain in the frame, mm, so that the field of displacements ends outside of it.
_ROOM_MM = 12.0
#: Normalized cross-correlation in windows of this radius, voxels; iterations at 4 and 2 times the voxel, and at it.
#: The figures that chose them are in docs/decisions/registration.md.
_DEFORMABLE = Schedule("NCC 2x2x2", (100, 60, 12), "1.5vox 0.5vox")
_AFFINE = Schedule("NMI", (100, 50, 10))
#: Labels are warped to this many voxels at a time: ITK holds several images of them.
_SLAB_VOXELS = 10_000_000
#: Exchanges left and right in the world of the template.
_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


@dataclass(frozen=True)
class TemplateRegistration:
    """Files of one registration, each tuple ready for ``ants.apply_transforms`` in its order.

    Attributes
    ----------
    t1w_from_template
        Resamples images of the template onto the T1w.
    template_from_t1w
        Resamples images on the T1w onto the template.
    upright
        ``(4, 4)``, the quarter turns that bring the axes of the T1w's world nearest to the template's.
    head_up
        Direction in the T1w's world from the bottom to the top of the head, ``(3,)``, of length 1.
    mirrored
        Whether the T1w was registered to the mirror image, so that labels arrive on the other side.
    """

    t1w_from_template: tuple[Path, ...]
    template_from_t1w: tuple[Path, ...]
    upright: Affine
    head_up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    mirrored: bool = False


def register_to_template(
    t1w: Volume, mask: Volume, template_brain: Path, out_dir: Path, threads: int = 1
) -> TemplateRegistration:
    """Register the brain to the template: an affine, then greedy's deformable step with cross-correlation, at 2 mm.

    The same call gives the same files, whatever the number of threads.

    Parameters
    ----------
    t1w
        Bias-corrected T1w.
    mask
        Brain mask on the same grid.
    template_brain
        Brain of the template without skull.
    out_dir
        Folder for the two ITK composite files.
    threads
        Threads of the deformable step.

    Raises
    ------
    RegistrationError
        The two could not be registered, or the affine scales the brain by more than a factor of two.
    """
    require_same_grid(t1w=t1w, mask=mask)
    template = load_volume(template_brain, ndim=3)
    found = _registered(t1w, mask, head_orientation(t1w, mask, template), template, threads)
    linear, frame = _linear(found.linear), found.frame
    onto_t1w = _saved([_field(found.warp, frame), linear], Path(out_dir) / "template_to_t1w.h5")
    back = [linear.invert(), _field(inverse_of(found.warp), frame)]
    onto_template = _saved(back, Path(out_dir) / "t1w_to_template.h5")
    return TemplateRegistration((onto_t1w,), (onto_template,), _turn_of(frame), _up_of(found.linear))


def register_to_mirror_image(
    t1w: Volume, mask: Volume, template_brain: Path, out_dir: Path, threads: int = 1
) -> TemplateRegistration:
    """Register the brain to the mirror image of the template, which is a second brain with known labels.

    The transform leads on to the template itself, to the same place on the other side: labels that it brings to the
    T1w are those of the other hemisphere (`tau_pipeline.anatomy.warped_atlas.exchange_sides`).

    Parameters and errors are those of `register_to_template`. There is no way back: ``template_from_t1w`` is empty.
    """
    require_same_grid(t1w=t1w, mask=mask)
    template = load_volume(template_brain, ndim=3)
    # By the template itself: both registrations must find the same orientation, since their labels share a grid.
    orientation = head_orientation(t1w, mask, template)
    found = _registered(t1w, mask, orientation, _mirror_image(template), threads)
    parts = [_field(found.warp, found.frame), _linear(_MIRROR @ found.linear)]
    onto_t1w = _saved(parts, Path(out_dir) / "mirror_image_to_t1w.h5")
    return TemplateRegistration((onto_t1w,), (), _turn_of(found.frame), _up_of(found.linear), mirrored=True)


@dataclass(frozen=True)
class _Found:
    """Transform from a T1w to a template: a displacement field in a frame of the head, then a linear transform.

    Attributes
    ----------
    warp
        Displacements, LPS+ mm, in the world of the frame.
    linear
        ``(4, 4)``, the T1w's world to the template's.
    frame
        ``(4, 4)``, the T1w's world to that of the frame.
    """

    warp: SimpleITK.Image
    linear: Affine
    frame: Affine


def _registered(t1w: Volume, mask: Volume, orientation: HeadOrientation, template: Volume, threads: int) -> _Found:
    fixed, near = _brain_in(orientation.frame, t1w, mask)
    moving = _coarse(template)
    affine = register_linear(
        moving, fixed, near, orientation.template_to_frame, degrees_of_freedom=12, schedule=_AFFINE
    )
    determinant = float(np.linalg.det(affine[:3, :3]))
    if not 0.3 < determinant < 3.0:
        raise RegistrationError(
            f"the affine to the template scales volumes by {determinant:.2f}; check the T1w and its brain mask"
        )
    warp = register_deformable(moving, fixed, near, affine, schedule=_DEFORMABLE, threads=threads)
    return _Found(warp, np.linalg.inv(affine) @ orientation.frame, orientation.frame)


def _turn_of(frame: Affine) -> Affine:
    """Return a frame without its shift."""
    turn: Affine = frame.copy()
    turn[:3, 3] = 0
    return turn


def _up_of(linear: Affine) -> tuple[float, float, float]:
    """Return the direction, in the world that a linear transform starts from, in which the template's height grows."""
    x, y, z = (linear[2, :3] / np.linalg.norm(linear[2, :3])).tolist()
    return x, y, z


def _mirror_image(template: Volume) -> Volume:
    """Template with left and right exchanged about the middle of its world, its first axis going the same way."""
    affine = _MIRROR @ template.affine
    # the first axis, reversed, begins where it ended
    affine[:3, 3] += affine[:3, 0] * (template.shape[0] - 1)
    affine[:3, 0] *= -1
    return image_on(np.ascontiguousarray(np.asanyarray(template.dataobj)[::-1]), affine)


def _brain_in(frame: Affine, t1w: Volume, mask: Volume) -> tuple[Volume, Volume]:
    """Brain in its frame with white matter near 100 and 0 outside, and the mask with its rim."""
    grid = grid_about(image_on(np.asanyarray(mask.dataobj), frame @ mask.affine), REGISTRATION_MM, _ROOM_MM)
    # Outside of the brain all is 0: a box with room for the blur holds what there is.
    box = box_around(np.asanyarray(mask.dataobj) > 0, 2 + 2 * REGISTRATION_MM / voxel_size_mm(t1w))
    t1w, mask = t1w.slicer[box], mask.slicer[box]
    here = image_on(np.asanyarray(mask.dataobj), frame @ mask.affine)
    sharp = finite(np.asanyarray(t1w.dataobj)) * (np.asanyarray(mask.dataobj) > 0)
    # The 80th percentile lies in white matter and, unlike a high one, is not moved by fat and vessels in the mask.
    top = 1.25 * np.percentile(sharp[sharp > 0], 80)
    data = np.clip(sharp / top, 0, 1) * 100
    sigma = np.maximum(0.0, 0.4 * REGISTRATION_MM / voxel_size_mm(t1w) - 0.4)
    blurred = image_on(ndimage.gaussian_filter(data.astype(np.float32), sigma), here.affine)
    inside = np.asanyarray(resample(here, grid, np.eye(4), "nearest").dataobj) > 0
    near = closer_than(inside, _RIM_MM / REGISTRATION_MM)
    return resample(blurred, grid, np.eye(4)), image_like(near, grid)


def _coarse(template: Volume) -> Volume:
    """Template on voxels of `REGISTRATION_MM`."""
    step = REGISTRATION_MM / voxel_size_mm(template)
    data = ndimage.gaussian_filter(finite(np.asanyarray(template.dataobj)), np.maximum(0.0, 0.4 * step - 0.4))
    shape = tuple(np.ceil(np.array(template.shape) / step).astype(int))
    return resample(
        image_like(data, template),
        image_on(np.zeros(shape, np.uint8), template.affine @ np.diag([*step, 1])),
        np.eye(4),
    )


def _saved(parts: Sequence[ants.ANTsTransform], path: Path) -> Path:
    """Compose transforms into one ITK file without the time at which it was made."""
    import ants

    with complete_file(path) as partial:
        ants.write_transform(ants.compose_ants_transforms(list(parts)), str(partial))
        clear_times(partial)
    return path


def _linear(ras: Affine) -> ants.ANTsTransform:
    import ants

    lps = RAS_LPS @ ras @ RAS_LPS
    transform = ants.create_ants_transform("AffineTransform", precision="float", dimension=3)
    transform.set_parameters([*lps[:3, :3].ravel(), *lps[:3, 3]])
    return transform


def _field(displacement: SimpleITK.Image, frame: Affine) -> ants.ANTsTransform:
    """Displacement field of the frame's world as one of the T1w's world: its grid moves and its vectors turn."""
    import ants

    back = RAS_LPS @ np.linalg.inv(frame) @ RAS_LPS
    vectors = displacements(displacement) @ back[:3, :3].T
    direction = back[:3, :3] @ np.reshape(displacement.GetDirection(), (3, 3))
    origin = back @ [*displacement.GetOrigin(), 1.0]
    field = ants.from_numpy(
        np.ascontiguousarray(vectors, dtype=np.float32),
        origin=origin[:3].tolist(),
        spacing=list(displacement.GetSpacing()),
        direction=direction,
        has_components=True,
    )
    return ants.transform_from_displacement_field(field)


def warp_labels(labels_path: Path, like: Volume, transforms: Sequence[Path]) -> NDArray[np.int32]:
    """Return labels at the voxels of another grid, ``(I, J, K)``, by nearest neighbor.

    Parameters
    ----------
    labels_path
        Label image in the space that the transforms start from.
    like
        Gives the grid.
    transforms
        ITK files in the order of ``ants.apply_transforms``.
    """
    import ants

    labels = ants.image_read(str(labels_path))
    result = np.empty(like.shape[:3], np.int32)
    count = max(1, _SLAB_VOXELS // math.prod(like.shape[:2]))
    with plain_paths(transforms) as files:
        for first in range(0, like.shape[2], count):
            slab = np.s_[:, :, first : first + count]
            warped = ants.apply_transforms(to_ants(like.slicer[slab]), labels, files, interpolator="nearestNeighbor")
            result[slab] = np.round(warped.view())
    return result


def template_in(mask: Volume, template_brain: Path, transforms: Sequence[Path]) -> Volume:
    """Return the template warped to a head, on a grid of `REGISTRATION_MM` around its brain.

    Parameters
    ----------
    mask
        Brain mask of the head.
    template_brain
        Brain of the template.
    transforms
        ``t1w_from_template`` of `TemplateRegistration`.
    """
    import ants

    grid = grid_about(mask, REGISTRATION_MM, _ROOM_MM)
    with plain_paths(transforms) as files:
        warped = ants.apply_transforms(
            to_ants(grid), ants.image_read(str(template_brain)), files, interpolator="linear"
        )
    return image_like(warped.numpy().astype(np.float32), grid)
