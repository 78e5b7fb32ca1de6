"""Axes of an image as the header of its NIfTI file states them, and contradictions in it.

NIfTI has two descriptions of the world, qform and sform, each with a code that is 0 where it is not valid. Readers
prefer the sform. Where both codes are 0, or where the two differ in handedness, one reading is the mirror image of the
other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.load import read_affine
from tau_pipeline.imaging.volume import Affine, Volume, image_on
from tau_pipeline.settings.participant import Orientation

#: qform and sform are the same if no corner moves by more; a quaternion in single precision moves it by micrometers.
_SAME_MM = 0.5
#: Voxel sizes of pixdim and sform differ by less in good headers, relatively.
_SAME_SIZE = 0.01
#: Fields of the qform that are 0 where a header never had one.
_QFORM_FIELDS = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
#: Codes of the sform or qform for Talairach and MNI space (nifti1.h), and grids of the usual templates in MNI space
#: (FSL; SPM and its PET templates; TemplateFlow; CAT12), with the size of their voxels in mm.
_TEMPLATE_CODES = {3: "Talairach", 4: "MNI"}
_TEMPLATE_GRIDS: dict[tuple[int, ...], float] = {
    (91, 109, 91): 2.0,
    (182, 218, 182): 1.0,
    (79, 95, 69): 2.0,
    (79, 95, 79): 2.0,
    (79, 95, 68): 2.0,
    (157, 189, 156): 1.0,
    (121, 145, 121): 1.5,
    (113, 137, 113): 1.5,
    (193, 229, 193): 1.0,
    (97, 115, 97): 2.0,
    (197, 233, 189): 1.0,
    (99, 117, 95): 2.0,
}
#: Corners of the field of view of a template in MNI space lie within these bounds, mm.
_TEMPLATE_LOW, _TEMPLATE_HIGH = (-100.0, -140.0, -80.0), (100.0, 105.0, 120.0)


@dataclass(frozen=True)
class Readings:
    """The world of an image as its header gives it.

    Attributes
    ----------
    affine
        ``(4, 4)``, the reading in use: voxels to world, RAS+ mm.
    other
        The other reading, if there is one that differs.
    mirrored
        Whether left and right differ between the two.
    reason
        What is contradictory or missing; empty if nothing is.
    used
        Name of the description that the reading in use is from.
    lost
        Whether the affine is the identity: neither the size, nor the direction, nor the place of the voxels is known.
    """

    affine: Affine
    other: Affine | None = None
    mirrored: bool = False
    reason: str = ""
    used: str = "sform"
    lost: bool = False

    @property
    def resized(self) -> bool:
        """Return whether voxels have other sizes in the other reading."""
        return self.other is not None and not _same_sizes(*(_edges(one) for one in (self.affine, self.other)))


def readings(path: str | os.PathLike[str], choice: Orientation = "auto") -> Readings:
    """Return what the header of an image says of its axes.

    Parameters
    ----------
    path
        NIfTI or MGH image; the latter has one description only.
    choice
        ``sform`` or ``qform`` takes that description, whatever its code is; ``auto`` the one that NIfTI prescribes
        (sform, qform, or the voxel sizes alone, in this order).

    Raises
    ------
    MissingInputError, DamagedFileError, ImageError
        As `load_volume`.
    ImageError
        The description that was asked for is singular.
    """
    standard = read_affine(path)
    img = nib.load(path)
    if not isinstance(img, nib.Nifti1Image):
        return Readings(standard)
    unit = float(np.linalg.norm(standard[:3, 0]) / np.linalg.norm(np.asarray(img.affine)[:3, 0]))
    stated = {"sform": _scaled(img.header.get_sform(), unit), "qform": _scaled(img.header.get_qform(), unit)}
    if choice != "auto":
        affine = stated[choice]
        if not _usable(affine):
            raise ImageError(
                f"{path} has no usable {choice}; take the other one (--orientation), or correct the header"
            )
        return Readings(affine)
    codes = int(img.header["sform_code"]), int(img.header["qform_code"])
    if not any(codes):
        return _without_codes(img, stated, standard)
    valid = {name: affine for (name, affine), code in zip(stated.items(), codes, strict=True) if code}
    if any(_is_identity(affine, unit) for affine in valid.values()):
        return _with_identity(valid, unit, img.shape)
    if all(codes) and _usable(stated["qform"]) and not _alike(stated["sform"], stated["qform"], img.shape):
        mirrored = bool(np.linalg.det(stated["sform"][:3, :3]) * np.linalg.det(stated["qform"][:3, :3]) < 0)
        what = (
            "left and right"
            if mirrored
            else f"the world by up to {_apart_mm(stated['sform'], stated['qform'], img.shape):.3g} mm"
        )
        return Readings(standard, stated["qform"], mirrored, f"its sform and qform differ in {what}")
    return _with_other_sizes(img, standard, unit)


def _is_identity(affine: Affine, unit: float) -> bool:
    return np.array_equal(affine, np.diag([unit, unit, unit, 1.0]))


def _with_identity(valid: dict[str, Affine], unit: float, shape: tuple[int, ...]) -> Readings:
    """Return the readings of a header in which a valid affine is the identity, as programs write it that have none."""
    known = {name: affine for name, affine in valid.items() if _usable(affine) and not _is_identity(affine, unit)}
    for name, affine in known.items():
        lost = next(other for other in valid if other != name)
        return Readings(affine, reason=f"its {lost} is the identity, as if the true one were not known", used=name)
    affine = next(affine for affine in valid.values() if _is_identity(affine, unit))
    reason = "its affine is the identity, as if size, direction, and place of the voxels were not known"
    return Readings(affine, mirror(affine, shape), True, reason, lost=True)


def _with_other_sizes(img: nib.Nifti1Image, affine: Affine, unit: float) -> Readings:
    """Return the readings of a header that may state other voxel sizes (pixdim) than its sform has."""
    sizes, edges = unit * np.abs(np.asarray(img.header["pixdim"][1:4], dtype=np.float64)), _edges(affine)
    if not (np.isfinite(sizes) & (sizes > 0)).all() or _same_sizes(sizes, edges):
        return Readings(affine)
    texts = [" x ".join(f"{edge:.3g}" for edge in one) for one in (edges, sizes)]
    reason = f"its voxels have {texts[0]} mm by the sform, but {texts[1]} mm by pixdim"
    other = affine @ np.diag([*(sizes / edges), 1.0])
    middle = (np.array(img.shape[:3]) - 1) / 2
    other[:3, 3] += affine[:3, :3] @ middle + affine[:3, 3] - (other[:3, :3] @ middle + other[:3, 3])
    return Readings(affine, other, reason=reason)


def _edges(affine: Affine) -> NDArray[np.float64]:
    edges: NDArray[np.float64] = np.linalg.norm(affine[:3, :3], axis=0)
    return edges


def _same_sizes(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return bool(np.allclose(one, other, rtol=_SAME_SIZE))


def _without_codes(img: nib.Nifti1Image, stated: dict[str, Affine], standard: Affine) -> Readings:
    """Return the readings of a header without valid codes: what is left in its fields, and the voxel sizes alone.

    Fields that were left without a code are more often right than the convention of Analyze, which takes the first
    axis for right to left. If there are none, the other reading is the mirror image.
    """
    reason = "neither its sform nor its qform is valid (both codes are 0), so that left and right are not certain"
    sides = np.sign(np.linalg.det(standard[:3, :3]))
    blank = not any(float(img.header[name]) for name in _QFORM_FIELDS)
    for affine in (stated["sform"], *(() if blank else (stated["qform"],))):
        if _usable(affine) and not _alike(affine, standard, img.shape):
            mirrored = bool(np.sign(np.linalg.det(affine[:3, :3])) != sides)
            return Readings(affine, mirror(standard, img.shape) if not mirrored else standard, True, reason)
    return Readings(standard, mirror(standard, img.shape), True, reason)


def _scaled(affine: Affine, unit: float) -> Affine:
    result = np.array(affine, dtype=np.float64)
    result[:3] *= unit
    return result


def _usable(affine: Affine) -> bool:
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-6)


def _apart_mm(a: Affine, b: Affine, shape: tuple[int, ...]) -> float:
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]])).reshape(3, -1)
    moved = (a - b)[:3, :3] @ corners + (a - b)[:3, 3:]
    return float(np.linalg.norm(moved, axis=0).max())


def _alike(a: Affine, b: Affine, shape: tuple[int, ...]) -> bool:
    return _apart_mm(a, b, shape) <= _SAME_MM


def mirror(affine: Affine, shape: tuple[int, ...]) -> Affine:
    """Return the affine with left and right exchanged about the middle of the image; heads stay upright.

    Examples
    --------
    >>> mirror(np.eye(4), (3, 3, 3))[0].tolist()
    [-1.0, 0.0, 0.0, 2.0]
    """
    middle = affine[:3, :3] @ ((np.array(shape[:3]) - 1) / 2) + affine[:3, 3]
    reflection = np.diag([-1.0, 1.0, 1.0, 1.0])
    reflection[0, 3] = 2 * middle[0]
    result: Affine = reflection @ affine
    return result


def with_affine(img: Volume, affine: Affine) -> Volume:
    """Put the voxels of an image ``(I, J, K[, T])`` on another affine."""
    return image_on(np.asanyarray(img.dataobj), affine)


def template_space(path: str | os.PathLike[str]) -> str:
    """Return why an image looks as if it were in template space and not in a scanner's; empty if it does not.

    Recognized by the code of the header, or by a grid of one of the usual templates with its corners where MNI space
    has them.

    Raises
    ------
    ImageError and others
        As `load_volume`.
    """
    img = nib.load(Path(path))
    if not isinstance(img, nib.Nifti1Image):
        return ""
    for name in ("sform", "qform"):
        code = int(img.header[f"{name}_code"])
        if code in _TEMPLATE_CODES:
            return f"the {name}_code of its header is {code} ({_TEMPLATE_CODES[code]} space)"
    shape: tuple[int, ...] = tuple(int(n) for n in img.shape[:3])
    affine = read_affine(path)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    size = _TEMPLATE_GRIDS.get(shape)
    ends = np.array([affine[:3, 3], affine[:3, :3] @ (np.array(shape) - 1) + affine[:3, 3]])
    inside = (ends.min(axis=0) >= _TEMPLATE_LOW).all() and (ends.max(axis=0) <= _TEMPLATE_HIGH).all()
    if size is not None and np.allclose(edges, size, rtol=0.01) and inside:
        return f"its grid of {' x '.join(map(str, shape))} voxels of {size:g} mm is that of a template in MNI space"
    return ""
