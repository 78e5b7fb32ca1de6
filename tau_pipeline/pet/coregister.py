"""PET to T1w by the readings of the PET's header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from tau_pipeline.derivatives.quality_checks import BY_NAME
from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.header_orientation import Readings, with_affine
from tau_pipeline.imaging.rigid import Rigid, register_rigid
from tau_pipeline.imaging.volume import Affine, Volume, voxel_volume_mm3
from tau_pipeline.pet.field_of_view import frame_of
from tau_pipeline.pet.fit import Fit, assess_fit

#: Left and right are known if the unexplained variance of a PET and of its mirror image differ by at least this much
#: (natural logarithm of their ratio; see docs/decisions/fit-verdict.md).
SURE_MIRROR = 0.15

#: Axes whose sizes differ by less (natural logarithm of the factor) have one and the same error.
_SAME_SIZE = 0.1

#: In T1w of coarse voxels (cube root of the volume), the cortex is blurred, so that a deformation gains more and the
#: figure is lower: by so much per mm above the first size. Beyond the second size, heads cannot be told apart.
_FINE_T1W_MM, _LOWER_PER_MM, _COARSEST_T1W_MM = 2.0, 0.15, 4.2

#: Of two sizes of the voxels, the other one is right if the head's size is so much nearer to that of the T1w by it
#: (natural logarithm of the factor).
_SURE_SIZE = 0.05

#: Contradictions in a header: none, one that moves or scales the image, one between left and right.
_CERTAIN, _MOVED, _SIDES_DECIDED, _SIDES_UNKNOWN = 0.0, 1.0, 1.0, 2.0


@dataclass(frozen=True)
class Coregistration:
    """PET on T1w, and what tells whether to trust it.

    Attributes
    ----------
    rigid
        The registration; its ``matrix`` takes the world of the PET as `load_volume` reads it to the T1w's world, and
        holds a reflection if another reading of the header was chosen.
    move
        ``(4, 4)``, the same from the reading of the header that was chosen, without a reflection.
    figures
        Figures of quality checks, by their key in the sidecar.
    notes
        What was decided about the header, in words.
    """

    rigid: Rigid
    move: Affine
    figures: Mapping[str, float]
    notes: tuple[str, ...]


def coregister_scan(
    pet_static: Volume, t1w: Volume, mask: Volume, header: Readings, *, template_space: str = ""
) -> Coregistration:
    """Register a PET to its T1w, and judge the fit.

    If left and right differ between two readings of the header, both are registered, and the one that fits the
    asymmetry of the head better is taken, unless the difference is too small to tell.

    Parameters
    ----------
    pet_static
        3-D, from `static_image`; not skull-stripped; in the world that `load_volume` gives.
    t1w
        3-D, full head or stripped.
    mask
        Brain mask on the T1w grid.
    header
        Readings of the header of the raw PET.
    template_space
        Why the PET looks as if it were in template space, from `header_orientation.template_space`; empty if not.

    Raises
    ------
    ImageError
        The affine of the PET is the identity, and by it the head does not fit.
    """
    rigid, fit = _fitted(pet_static, header.affine, t1w, mask)
    used, doubt, notes = header.affine, _CERTAIN, list[str]()
    if header.reason:
        sized = header.other if header.resized and not header.mirrored else None
        other = None if sized is None else _fitted(pet_static, sized, t1w, mask)
        used, doubt, note = _decided(header, fit) if other is None else _by_size(header, fit, other[1])
        notes.append(note)
        if used is header.other:
            rigid, fit = other or _fitted(pet_static, used, t1w, mask)
    if template_space:
        notes.append(
            f"The PET may be in template space, not in the scanner's ({template_space}); it then has the shape of the "
            "template's head and not of this one."
        )
    fit = replace(fit, belongs=_at_voxel_size(fit.belongs, float(np.cbrt(voxel_volume_mm3(t1w)))))
    wrong_size = _sizes_text(fit)
    if header.lost and (wrong_size or not rigid.plausible):
        raise ImageError(
            f"the PET does not fit the T1w: {header.reason}. It was read with voxels of 1 mm; convert it again, or "
            "correct its sform or qform"
        )
    notes += wrong_size
    figures = _figures(fit) | {
        "PetOrientationDoubt": doubt,
        "PetInTemplateSpace": float(bool(template_space)),
    }
    to_used = used @ np.linalg.inv(pet_static.affine)
    return Coregistration(
        replace(rigid, matrix=rigid.matrix @ to_used), rigid.matrix, MappingProxyType(figures), tuple(notes)
    )


def _fitted(pet_static: Volume, affine: Affine, t1w: Volume, mask: Volume) -> tuple[Rigid, Fit]:
    """Register a PET by a reading of its header; parts that were filled and not measured do not count in the fit."""
    rigid = coregister(with_affine(pet_static, affine), t1w, mask)
    return rigid, assess_fit(with_affine(frame_of(pet_static, 0), affine), t1w, mask, rigid.matrix)


_CHOOSE = "choose with --orientation sform or qform, or correct the header"


def _by_size(header: Readings, fit: Fit, other: Fit) -> tuple[Affine, float, str]:
    """Return the affine in which the head has the size of the T1w's, how doubtful it is, and a sentence."""
    chosen, one = header.affine, "the sform"
    if header.other is not None and _size_error(other) < _size_error(fit) - _SURE_SIZE:
        chosen, one = header.other, "the other reading"
    note = f"The size of the PET is not certain: {header.reason}; by the size of the head, {one} was taken."
    return chosen, _MOVED, f"{note} To be sure, {_CHOOSE}."


def _size_error(fit: Fit) -> float:
    """Return how far the size of the head is from that of the T1w, along the worst axis; infinite if not known."""
    errors = [abs(math.log(one)) for one in fit.scale]
    return math.inf if any(map(math.isnan, errors)) else max(errors)


def _decided(header: Readings, fit: Fit) -> tuple[Affine, float, str]:
    """Return the affine to use of a header with a contradiction, how doubtful it is, and a sentence."""
    start = f"The orientation of the PET is not certain: {header.reason}"
    choose = _CHOOSE
    if not header.mirrored or header.other is None:
        return header.affine, _MOVED, f"{start}; the {header.used} was taken. To decide otherwise, {choose}."
    if math.isnan(fit.mirror) or abs(fit.mirror) < SURE_MIRROR:
        return (
            header.affine,
            _SIDES_UNKNOWN,
            (f"{start}, and the head is too symmetric to tell; left and right may be exchanged: {choose}."),
        )
    one = "as it was read first" if fit.mirror > 0 else "mirrored against the first reading"
    chosen = header.affine if fit.mirror > 0 else header.other
    return chosen, _SIDES_DECIDED, f"{start}; by the asymmetry of the head, it was taken {one}. To be sure, {choose}."


def _at_voxel_size(belongs: float, size_mm: float) -> float:
    """Return the figure as it would be for a T1w of fine voxels; NaN if they are too coarse to tell."""
    if size_mm > _COARSEST_T1W_MM:
        return math.nan
    return belongs + _LOWER_PER_MM * max(0.0, size_mm - _FINE_T1W_MM)


def _sizes_text(fit: Fit) -> list[str]:
    """Return a sentence if the head has another size in the PET than in the T1w; otherwise nothing."""
    check = BY_NAME["coreg_scale"]
    if check.judge(check.value(_figures(fit))) not in ("warn", "fail"):
        return []
    axes = zip(fit.scale, ("left to right", "back to front", "bottom to top"), strict=True)
    factor, axis = max(axes, key=lambda one: abs(math.log(one[0])))
    every = all(abs(math.log(one / factor)) < _SAME_SIZE for one in fit.scale)
    return [
        f"The voxel size in the header of the PET looks wrong by a factor of {max(factor, 1 / factor):.2f} "
        f"{'along all axes' if every else f'from {axis}'}: the head is {'smaller' if factor > 1 else 'larger'} in the "
        "PET than in the T1w. Check the voxel sizes of both headers."
    ]


#: What a check that fails means, in a sentence.
_DOUBTS = {
    "coreg_fit": "The PET fits the T1w hardly better than the PET of another head would: check that both are of the "
    "same person, and their headers.",
    "coreg_mirror": "The PET fits the T1w better as its mirror image: an axis of the PET or of the T1w seems to be "
    "flipped. Check the orientation in the headers, or choose with --orientation.",
    "coreg_angle_deg": "The PET was turned by {value:.0f}° to fit: by its header, the head lies upside down or on its "
    "side. Check the orientation in the headers of PET and T1w.",
}


def doubts_text(figures: Mapping[str, float]) -> list[str]:
    """Return a sentence for each check of the fit that fails.

    Parameters
    ----------
    figures
        By their key in the sidecar.
    """
    values = {name: BY_NAME[name].value(figures) for name in _DOUBTS}
    return [
        sentence.format(value=values[name])
        for name, sentence in _DOUBTS.items()
        if BY_NAME[name].judge(values[name]) == "fail"
    ]


def _figures(fit: Fit) -> dict[str, float]:
    """Return figures of quality checks; those that could not be found are left out."""
    figures = {
        "RegistrationExplained": fit.explained,
        "RegistrationBelongs": fit.belongs,
        "RegistrationScale": max((*fit.scale, *(1 / one for one in fit.scale))),
    }
    if abs(fit.mirror) >= SURE_MIRROR:
        figures["RegistrationMirror"] = fit.mirror
    return {key: value for key, value in figures.items() if math.isfinite(value)}


def coregister(pet_static: Volume, t1w: Volume, mask: Volume | None) -> Rigid:
    """Find the rigid transform from PET world to T1w world.

    Parameters
    ----------
    pet_static
        3-D, from `static_image`; not skull-stripped.
    t1w
        3-D, full head or stripped.
    mask
        Brain mask on the T1w grid.
    """
    return register_rigid(pet_static, t1w, mask)
