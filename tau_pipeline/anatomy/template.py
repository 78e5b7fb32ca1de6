"""Anatomy: bias field, brain mask, registration to the template.

Every function takes and returns images on the T1w grid. Inside, the slow steps run on a working grid: canonical axes,
1 mm cubes, cropped to the brain. A T1w of 0.7 mm then costs what one of 1 mm costs, and one with 3 mm slices gets
cubes that distances can be measured in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import ImageError, RegistrationError
from tau_pipeline.files import complete_file
from tau_pipeline.imaging.volume import (
    Volume,
    finite,
    image_like,
    image_on,
    require_same_grid,
    to_ants,
    voxel_size_mm,
    voxel_volume_mm3,
)

if TYPE_CHECKING:
    import ants

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

#: Edge of a voxel of the working grid, mm. Cortex is 2 to 4 mm thick; the atlas has 1 mm voxels.
WORKING_MM = 1.0
#: Edge of a voxel in the registration to the template, mm. At 2 mm it costs more than twice the time, and the
#: cortical Dice rises by 0.002; with perfect grey matter, 1 mm is no better than 2 mm.
REGISTRATION_MM = 2.5
#: Room left around the brain on the working grid, mm.
MARGIN_MM = 6.0
#: Volumes that a whole human brain with its CSF can have, ml; a head with scalp and face has 2500 ml and more.
BRAIN_ML = (500.0, 2300.0)


@dataclass(frozen=True)
class TemplateRegistration:
    """Files of one registration, each tuple ready for ``ants.apply_transforms`` in its order.

    Attributes
    ----------
    t1w_from_template
        Resamples images of the template onto the T1w.
    template_from_t1w
        Resamples images on the T1w onto the template.
    """

    t1w_from_template: tuple[Path, ...]
    template_from_t1w: tuple[Path, ...]


def _foreground(t1w: Volume) -> Mask:
    """Largest connected object of an image with its holes filled, ``(I, J, K)``.

    Above 2 % of the 99th percentile of what is positive, gaps of up to 6 mm closed.
    """
    from scipy import ndimage

    data = finite(np.asanyarray(t1w.dataobj))
    positive = data[data > 0]
    if not positive.size:
        return np.zeros(data.shape, dtype=bool)
    labels, n = ndimage.label(data > 0.02 * np.percentile(positive, 99))
    if n == 0:
        return np.zeros(data.shape, dtype=bool)
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    reach = np.maximum(1, np.round(3.0 / voxel_size_mm(t1w))).astype(int)
    padded = np.pad(largest, [(r, r) for r in reach])
    for axis, r in enumerate(reach):
        padded = _close_along(padded, axis, int(r))
    inside = tuple(slice(r, -r) for r in reach)
    return ndimage.binary_fill_holes(padded)[inside]


def _close_along(mask: Mask, axis: int, reach: int) -> Mask:
    from scipy import ndimage

    size = 2 * reach + 1
    wide = ndimage.maximum_filter1d(mask.view(np.uint8), size, axis=axis, mode="constant")
    return ndimage.minimum_filter1d(wide, size, axis=axis, mode="constant", cval=1).astype(bool)


def is_skull_stripped(t1w: Volume) -> bool:
    """Whether skull and scalp have been taken away from a T1w.

    True when the object in the image is as large as a brain can be, a head is not, and stands free in a background
    of one value: it may touch no more than a twentieth of the faces of the field of view.
    """
    data = finite(np.asanyarray(t1w.dataobj))
    values, counts = np.unique(data[::2, ::2, ::2], return_counts=True)
    if counts.max() < 0.2 * counts.sum() or values[counts.argmax()] > 0.02 * np.percentile(data, 99.9):
        return False
    coarse = t1w.slicer[tuple(slice(None, None, max(1, int(2.0 / size))) for size in voxel_size_mm(t1w))]
    head = _foreground(coarse)
    volume_ml = head.sum() * voxel_volume_mm3(coarse) / 1000
    faces = [np.take(head, end, axis=axis) for axis in range(3) for end in (0, -1)]
    touching = sum(int(face.sum()) for face in faces) / sum(face.size for face in faces)
    return bool(BRAIN_ML[0] <= volume_ml <= BRAIN_ML[1] and touching < 0.05)


def extract_brain(t1w: Volume) -> Volume:
    """Brain mask of a head, uint8 on the T1w grid, by deepbet (Fisch et al. 2023, arXiv 2308.07003).

    The network sees the canonical orientation, and runs on the processor: its 6 s do not need an accelerator, and the
    result is the same everywhere. Its weights come with the package.

    Raises
    ------
    ImageError
        The network finds no brain.
    """
    from deepbet.bet import BrainExtraction

    canonical = nib.as_closest_canonical(t1w)
    network = BrainExtraction(no_gpu=True)
    try:
        probability = network.run_model(finite(np.asanyarray(canonical.dataobj)))
        found = network.postprocess(probability > 0.5)
    except (AssertionError, ValueError, RuntimeError) as exc:
        raise ImageError(
            f"no brain was found in the T1w ({exc}); check that it is one, or give a stripped one"
        ) from exc
    mask = _to_orientation_of(t1w, np.asarray(found) > 0)
    require_brain(image_like(mask, t1w))
    return image_like(mask, t1w)


def stripped_mask(t1w: Volume) -> Volume:
    """Brain mask of a T1w that has been stripped before, uint8: its object, closed and filled.

    Raises
    ------
    ImageError
        The object is too small or too large to be a brain.
    """
    mask = image_like(_foreground(t1w), t1w)
    require_brain(mask)
    return mask


def require_brain(mask: Volume) -> None:
    """Refuse a mask that cannot be a human brain.

    Raises
    ------
    ImageError
        The mask's volume is below 500 ml or above 2300 ml.
    """
    volume_ml = np.count_nonzero(np.asanyarray(mask.dataobj)) * voxel_volume_mm3(mask) / 1000
    if not BRAIN_ML[0] <= volume_ml <= BRAIN_ML[1]:
        raise ImageError(
            f"the brain mask has {volume_ml:.0f} ml, a human brain {BRAIN_ML[0]:.0f} to {BRAIN_ML[1]:.0f} ml; "
            "check the T1w, its voxel size, and whether --skull-strip-t1w says the right thing"
        )


def _to_orientation_of(t1w: Volume, canonical: NDArray) -> NDArray:
    """Undo `nibabel.as_closest_canonical` for an array ``(I, J, K)``."""
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.io_orientation(t1w.affine))
    return np.ascontiguousarray(nib.orientations.apply_orientation(canonical, back))


def correct_bias(t1w: Volume, mask: Volume) -> Volume:
    """T1w without its bias field, float32, full head, by N4 (Tustison et al., IEEE TMI 2010).

    The field is estimated inside the mask on a grid four times as coarse, and divided out of the full grid.

    Raises
    ------
    GridMismatchError
        Mask and T1w have different grids.
    """
    import ants

    require_same_grid(t1w=t1w, mask=mask)
    coarse = working_grid(mask, 4.0)
    small, inside = to_ants(resample_onto(t1w, coarse)), to_ants(resample_onto(mask, coarse, order=0))
    field = ants.n4_bias_field_correction(
        small,
        inside,
        shrink_factor=1,
        convergence={"iters": [20, 20, 20], "tol": 1e-7},
        return_bias_field=True,
    )
    log_field = image_like(np.log(np.clip(field.numpy(), 0.1, 10.0)), coarse)
    full = np.exp(resample_onto_data(log_field, t1w, mode="nearest"))
    return image_like(finite(np.asanyarray(t1w.dataobj)) / full, t1w)


def brain_box(mask: Volume) -> tuple[slice, slice, slice]:
    """The smallest box of voxels that holds a mask; what is done inside it costs less memory than on the whole head.

    Raises
    ------
    ImageError
        The mask is empty.
    """
    inside = np.asanyarray(mask.dataobj) > 0
    if not inside.any():
        raise ImageError("the brain mask is empty; check the T1w")
    ends = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    i, j, k = (slice(int(low), int(high) + 1) for low, high in ends)
    return i, j, k


def working_grid(mask: Volume, voxel_mm: float = WORKING_MM) -> Volume:
    """An empty grid of cubes around a mask: canonical axes of the mask's image, `MARGIN_MM` of room.

    Raises
    ------
    ImageError
        The mask is empty.
    """
    canonical = nib.as_closest_canonical(mask)
    box = brain_box(canonical)
    size = voxel_size_mm(canonical)
    low = np.array([s.start for s in box]) - np.ceil(MARGIN_MM / size)
    high = np.array([s.stop - 1 for s in box]) + np.ceil(MARGIN_MM / size)
    affine = canonical.affine.copy()
    affine[:3, :3] *= voxel_mm / size
    affine[:3, 3] += canonical.affine[:3, :3] @ low
    shape = tuple(int(n) for n in np.ceil((high - low) * size / voxel_mm) + 1)
    return image_on(np.zeros(shape, dtype=np.uint8), affine)


def resample_onto_data(img: Volume, like: Volume, order: int = 1, mode: str = "constant") -> Floats:
    """Values of a 3-D image at the voxels of another grid in the same world, float32 ``(I, J, K)``."""
    from scipy import ndimage

    # Rounded, or rounding errors would put the first and last planes outside the image.
    to_voxel = np.round(np.linalg.inv(img.affine) @ like.affine, 9)
    data = finite(np.asanyarray(img.dataobj))
    result: Floats = ndimage.affine_transform(
        data, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=like.shape[:3], order=order, mode=mode
    )
    return result


def resample_onto(img: Volume, like: Volume, order: int = 1) -> Volume:
    """A 3-D image on another grid in the same world: order 0 nearest neighbour, 1 linear; 0 outside."""
    return image_like(resample_onto_data(img, like, order), like)


def register_to_template(
    t1w: Volume, mask: Volume, template_brain: Path, out_dir: Path, seed: int = 0
) -> TemplateRegistration:
    """Affine, then SyN with cross-correlation (Avants et al., Medical Image Analysis 2008), at 2.5 mm.

    The metric is taken within three voxels of the brain; the rest of the box costs time and says nothing.

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
    seed
        Of the random sampling in the affine step; must not be 0 for ANTs, so that 1 is added.

    Raises
    ------
    RegistrationError
        ANTs could not register the two, or the affine scales the brain by more than a factor of two.
    """
    import ants

    moving = _for_registration(ants.image_read(str(template_brain)))
    fixed = _for_registration(to_ants(_normalised_brain(t1w, mask)))
    near_brain = ants.iMath(ants.get_mask(fixed, 1, 1e9, 0), "MD", 3)
    ants.config.set_ants_deterministic(on=False, seed_value=seed + 1)  # a seed, without forcing one thread on ITK
    try:
        affine = ants.registration(
            fixed,
            moving,
            type_of_transform="Affine",
            aff_iterations=(500, 200, 50, 0),
            aff_shrink_factors=(4, 2, 1, 1),
            aff_smoothing_sigmas=(2, 1, 0, 0),
        )
        warp = ants.registration(
            fixed,
            moving,
            type_of_transform="SyNOnly",
            initial_transform=affine["fwdtransforms"][0],
            syn_metric="CC",
            syn_sampling=2,
            reg_iterations=(80, 60, 12),
            mask=near_brain,
        )
    except (RuntimeError, ValueError) as exc:
        raise RegistrationError(f"the T1w could not be registered to the template ({exc})") from exc
    finally:
        ants.config.set_ants_deterministic(on=False, seed_value=None)
    Path(affine["fwdtransforms"][0]).unlink(missing_ok=True)
    return _save_registration(warp["fwdtransforms"], warp["invtransforms"], out_dir)


def _normalised_brain(t1w: Volume, mask: Volume) -> Volume:
    """Brain on the working grid, 0 outside; white matter near 100 and what is brighter cut off."""
    require_same_grid(t1w=t1w, mask=mask)
    grid = working_grid(mask)
    data = resample_onto_data(t1w, grid)
    data[resample_onto_data(mask, grid, order=0) == 0] = 0
    # The 80th percentile lies in white matter and, unlike a high one, is not moved by fat and vessels in the mask.
    top = 1.25 * np.percentile(data[data > 0], 80)
    return image_like(np.clip(data / top, 0, 1) * 100, grid)


def _for_registration(image: ants.ANTsImage) -> ants.ANTsImage:
    import ants

    blurred = ants.smooth_image(image, 0.4 * REGISTRATION_MM)
    return ants.resample_image(blurred, (REGISTRATION_MM,) * 3, use_voxels=False, interp_type=0)


def _save_registration(forward: list[str], inverse: list[str], out_dir: Path) -> TemplateRegistration:
    """Compose affine and warp into one ITK file a direction, and remove the temporary files."""
    import ants

    affine = ants.read_transform(next(p for p in forward if p.endswith(".mat")))
    determinant = float(np.linalg.det(np.reshape(affine.parameters[:9], (3, 3))))
    if not 0.3 < abs(determinant) < 3.0:
        raise RegistrationError(
            f"the affine to the template scales volumes by {determinant:.2f}; check the T1w and its brain mask"
        )
    onto_t1w = [_warp(forward), affine]
    onto_template = [affine.invert(), _warp(inverse)]
    files = []
    for name, parts in (("template_to_t1w.h5", onto_t1w), ("t1w_to_template.h5", onto_template)):
        with complete_file(Path(out_dir) / name) as partial:
            ants.write_transform(ants.compose_ants_transforms(parts), str(partial))
        files.append(Path(out_dir) / name)
    for path in {*forward, *inverse}:
        Path(path).unlink(missing_ok=True)
    return TemplateRegistration((files[0],), (files[1],))


def _warp(paths: list[str]) -> Any:
    import ants

    return ants.transform_from_displacement_field(ants.image_read(next(p for p in paths if p.endswith(".nii.gz"))))


def warp_labels(labels_path: Path, like: Volume, transforms: Sequence[Path]) -> NDArray[np.int32]:
    """Labels at the voxels of another grid, ``(I, J, K)``, by nearest neighbour.

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

    warped = ants.apply_transforms(
        to_ants(like), ants.image_read(str(labels_path)), [str(p) for p in transforms], interpolator="nearestNeighbor"
    )
    result: NDArray[np.int32] = np.round(warped.numpy()).astype(np.int32)
    return result
