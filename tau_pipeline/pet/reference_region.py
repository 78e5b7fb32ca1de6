"""Reference regions: the voxels whose mean activity is 1 in an SUVR map, guarded against spill-in.

A PET voxel sees some 6 mm around itself. Cerebellar voxels beside occipital and temporal cortex see tau there, those
at the outer surface see CSF, meninges and bone; both would shift every SUVR of the scan. So the labels are blurred
as a scanner blurs, which gives each voxel's share of signal from cerebral gray matter and from outside, and a voxel
is left out where one of them is above the limit in `REGIONS`.

Regions whose names begin with ADNI follow the rules of UC Berkeley's processing for ADNI instead
(`tau_pipeline.pet.reference_adni`), so that values can be compared with ADNI's.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tau_pipeline.atlas import (
    CEREBELLAR_CORTEX,
    PONS,
    label_array,
    labels_mask,
    lobule_numbers,
    region_numbers,
)
from tau_pipeline.errors import ReferenceRegionError, UnknownNameError
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid, voxel_size_mm, voxel_volume_mm3
from tau_pipeline.pet.reference_adni import REACH_MM, AdniRule, adni_parts

#: Cerebral cortex that has no region name: aseg's own, and aparc's "unknown".
_UNNAMED_CORTEX = (3, 42, 1000, 2000)
#: Vessels and choroid plexus: off-target binding, so they count as outside.
_OUTSIDE_TISSUE = (30, 62, 31, 63)
#: Resolution (FWHM, mm) that the guard assumes: that of a clinical scanner's late tau image.
_GUARD_FWHM_MM = 6.0
#: Probability of CSF above which a labeled voxel is not the region. Not 0.5: that would take the folia's partial
#: volume away and leave a region that is too much white matter.
_SURELY_CSF = 0.9
#: A cerebellar voxel further than this from every warped lobule is not taken to be in one.
_FURTHEST_LOBULE_MM = 10.0


@dataclass(frozen=True)
class Definition:
    """Composition and guard of a reference region."""

    name: str
    labels: tuple[int, ...]
    """FreeSurfer numbers."""
    description: str
    gray_share: float
    """Most of a voxel's signal, as a share, that may come from cerebral gray matter."""
    outside_share: float
    """Most of a voxel's signal, as a share, that may come from CSF, vessels or what has no label."""
    minimum_mm3: float
    """Less than this cannot be right. Both limits are doubled, then dropped, before a region falls below it."""
    rule: AdniRule | None = None
    """Rule of ADNI in place of the guard."""


@dataclass(frozen=True)
class ReferenceRegion:
    """A reference region found in one head."""

    name: str
    labels: tuple[int, ...]
    mask: Volume
    """uint8, on the grid of the dseg; parts whose means count equally are numbered from 1."""
    volume_mm3: float
    gray_share: float
    """Limit that was kept; above the definition's where the region would have become too small."""
    outside_share: float
    """Likewise."""
    spill_in: float
    """Mean share of signal from cerebral gray matter that the region's voxels get."""

    @property
    def relaxed(self) -> bool:
        """True if the guard was loosened to leave enough voxels; listed among the assumptions."""
        wanted = definition(self.name)
        return self.gray_share > wanted.gray_share or self.outside_share > wanted.outside_share

    @property
    def description(self) -> str:
        """Description of the region, for a sidecar or a report."""
        wanted = definition(self.name)
        if wanted.rule is not None:
            return f"{self.name}: {wanted.description}, {self.volume_mm3 / 1000:.1f} cm³"
        return (
            f"{self.name}: FreeSurfer labels {'+'.join(map(str, self.labels))}, voxels that get at most "
            f"{self.gray_share:.0%} of their signal from cerebral gray matter and {self.outside_share:.0%} from CSF "
            f"and background at {_GUARD_FWHM_MM:g} mm resolution, {self.volume_mm3 / 1000:.1f} cm³"
        )


#: The default comes first. The choice of the limits is explained in docs/decisions/reference-guard.md.
REGIONS = {
    region.name: region
    for region in (
        Definition("CerebellarGM", CEREBELLAR_CORTEX, "cerebellar cortex", 0.1, 0.45, 5000.0),
        Definition(
            "InferiorCerebellarGM",
            CEREBELLAR_CORTEX,
            "cerebellar cortex whose nearest AAL lobule is crus I or below (superior lobules: off-target binding)",
            0.1,
            0.45,
            3000.0,
        ),
        Definition("WholeCerebellum", (7, 8, 46, 47), "cerebellar cortex and white matter", 0.1, 0.45, 8000.0),
        Definition("Pons", (16,), "the brainstem inside the template's pons", 0.05, 0.1, 1000.0),
        Definition("ErodedWM", (2, 41), "cerebral white matter away from gray matter and CSF", 0.05, 0.02, 5000.0),
        Definition(
            "ADNIInferiorCerebellarGM",
            CEREBELLAR_CORTEX,
            "by ADNI's rule: cerebellar cortex where vermis VI, crus I, and all lobules below, blurred by 8 mm FWHM, "
            "outweigh lobules I to VI, blurred likewise; AAL lobules in place of SUIT's",
            *(1.0, 1.0, 3000.0),
            "inferior",
        ),
        Definition(
            "ADNIErodedWM",
            (2, 41),
            "by ADNI's rule: cerebral white matter blurred by 8 mm FWHM, above 0.7",
            *(1.0, 1.0, 5000.0),
            "eroded",
        ),
        Definition(
            "ADNIWholeCerebellum",
            (7, 8, 46, 47),
            "by ADNI's rule: all cerebellar cortex and white matter",
            *(1.0, 1.0, 8000.0),
            "whole",
        ),
        Definition(
            "ADNIBrainstem",
            (16,),
            "by ADNI's rule: the whole brainstem, which ADNI's tables have in place of the pons",
            *(1.0, 1.0, 3000.0),
            "whole",
        ),
        Definition(
            "ADNICompositeWM",
            (2, 7, 8, 16, 41, 46, 47),
            "by ADNI's rule: mean of the means of brainstem, eroded white matter as in ADNIErodedWM, and whole "
            "cerebellum, each with the same weight",
            *(1.0, 1.0, 15000.0),
            "composite",
        ),
    )
}

#: Regions that need the template's lobules and pons.
NEED_TEMPLATE = ("InferiorCerebellarGM", "Pons", "ADNIInferiorCerebellarGM")


def parse_reference(text: str) -> str:
    """Find the reference region that somebody means.

    Parameters
    ----------
    text
        A name, in any case and with or without hyphens, underscores and spaces, or label numbers joined by ``+`` or
        commas (``"8+47"``); the name made from numbers (``"Labels8x47"``) is understood too.

    Returns
    -------
    str
        A name that is valid in a BIDS file name: ``CerebellarGM``, or ``Labels8x47`` for numbers.

    Raises
    ------
    UnknownNameError
        No region has that name.

    Examples
    --------
    >>> parse_reference("cerebellar-gm"), parse_reference("47+8")
    ('CerebellarGM', 'Labels8x47')
    """
    plain = re.sub(r"[\s_-]", "", text).lower()
    if re.fullmatch(r"(labels[_-]?)?\d+([+,x]\d+)*", re.sub(r"\s", "", text).lower()):
        numbers = sorted({int(number) for number in re.findall(r"\d+", plain)})
        if numbers[0] > 0:
            return "Labels" + "x".join(map(str, numbers))
        raise UnknownNameError(f"reference region {text!r} names label 0, which is background; give labels above 0")
    by_plain = {name.lower(): name for name in REGIONS}
    if plain in by_plain:
        return by_plain[plain]
    near = difflib.get_close_matches(plain, by_plain, n=1)
    hint = f"did you mean {by_plain[near[0]]}? " if near else ""
    raise UnknownNameError(
        f"there is no reference region {text!r}; {hint}Known are {', '.join(REGIONS)}, and label numbers like 8+47"
    )


def definition(name: str) -> Definition:
    """Return the definition of a named region, or of one made of label numbers; ``name`` as in `parse_reference`.

    A region of the user's own numbers gets the cerebellum's guard; one that is itself cerebral gray matter
    has no limit on signal from gray matter.

    Raises
    ------
    UnknownNameError
        No region has that name.
    """
    name = parse_reference(name)
    if name in REGIONS:
        return REGIONS[name]
    labels = tuple(int(number) for number in re.findall(r"\d+", name))
    own_gray = not set(labels).isdisjoint(_cerebral_gray())
    text = "labels given by the user"
    return Definition(name, labels, text, gray_share=1.0 if own_gray else 0.1, outside_share=0.45, minimum_mm3=100.0)


def find_reference(
    name: str, dseg: Volume, template_regions: Volume | None = None, tissue: Volume | None = None
) -> ReferenceRegion:
    """Find a reference region in one head, guarded against spill-in from cortex and from outside.

    Parameters
    ----------
    name
        As in `parse_reference`.
    dseg
        Labels ``(I, J, K)``, FreeSurfer numbers.
    template_regions
        What `tau_pipeline.atlas.template_regions` gives, warped to the grid of ``dseg`` by nearest neighbor; needed
        by the regions in `NEED_TEMPLATE`.
    tissue
        Probabilities ``(I, J, K, 3)`` of CSF, gray and white matter; where given, voxels that are CSF with a
        probability over 0.9 are left out.

    Raises
    ------
    UnknownNameError
        No region has that name.
    GridMismatchError
        The images are not on one grid.
    ReferenceRegionError
        The region is empty or smaller than its definition allows even without its guard, or the template regions
        that it needs were not given.
    """
    region = definition(name)
    given = {"dseg": dseg, "template_regions": template_regions, "tissue": tissue}
    require_same_grid(**{key: img for key, img in given.items() if img is not None})
    labels = label_array(dseg)
    whole = labels_mask(labels, region.labels)
    if not whole.any():
        numbers = " or ".join(map(str, region.labels))
        raise ReferenceRegionError(
            f"reference region {region.name} is empty: no voxel has label {numbers}; check the parcellation"
        )
    own = () if region.name in REGIONS else region.labels
    if lost := [str(number) for number in own if not (labels == number).any()]:
        raise ReferenceRegionError(
            f"no voxel has label {' or '.join(lost)} of reference region {region.name}; check the numbers and the "
            "parcellation"
        )
    margin_mm = _FURTHEST_LOBULE_MM if region.rule is None else REACH_MM
    box = _box(whole, voxel_size_mm(dseg), margin_mm)
    inside, size, parts = whole[box], voxel_size_mm(dseg), labels[box]
    if region.name in NEED_TEMPLATE:
        parts = _template_parts(region, template_regions, box)
    codes = inside.astype(np.uint8)
    if region.rule is not None:
        codes = adni_parts(region.rule, labels[box], inside, parts, size)
        inside = codes > 0
    elif region.name in NEED_TEMPLATE:
        inside = _within_template_region(region, inside, parts, size)
    if tissue is not None and region.rule is None:
        inside = inside & ~(np.asarray(tissue.dataobj[box])[..., 0] > _SURELY_CSF)
    kept, spill_in, region = _guard(region, inside, labels[box], size, voxel_volume_mm3(dseg))
    mask = np.zeros(labels.shape, dtype=np.uint8)
    mask[box] = np.where(kept, codes, 0)
    volume = float(kept.sum() * voxel_volume_mm3(dseg))
    return ReferenceRegion(
        region.name, region.labels, image_like(mask, dseg), volume, region.gray_share, region.outside_share, spill_in
    )


def _guard(
    region: Definition, inside: NDArray[np.bool_], labels: NDArray, size: NDArray, voxel_mm3: float
) -> tuple[NDArray[np.bool_], float, Definition]:
    """Keep the voxels that see little of gray matter and outside; allow more if the region gets too small.

    Returns the voxels, the mean share of signal that they get from gray matter, and the definition with the limits
    that were kept.
    """
    gray = labels_mask(labels, set(_cerebral_gray()) - set(region.labels))
    outside = labels_mask(labels, {0, *region_numbers("csf"), *_OUTSIDE_TISSUE} - set(region.labels))
    from_gray, from_outside = _blurred(gray, size), _blurred(outside, size)
    for gray_share, outside_share in (
        (region.gray_share, region.outside_share),
        (min(1.0, 2 * region.gray_share), min(1.0, 2 * region.outside_share)),
        (1.0, 1.0),
    ):
        kept = inside & (from_gray <= gray_share) & (from_outside <= outside_share)
        if kept.sum() * voxel_mm3 >= region.minimum_mm3:
            spill_in = float(from_gray[kept].mean(dtype=np.float64))
            return kept, spill_in, replace(region, gray_share=gray_share, outside_share=outside_share)
    raise ReferenceRegionError(
        f"reference region {region.name} has {inside.sum() * voxel_mm3 / 1000:.2f} cm³; at least "
        f"{region.minimum_mm3 / 1000:g} cm³ are expected; check the parcellation"
    )


def _template_parts(region: Definition, template_regions: Volume | None, box: tuple[slice, ...]) -> NDArray[np.integer]:
    """Return the template's lobules and pons in the box, of which a region is made."""
    if template_regions is None:
        raise ReferenceRegionError(
            f"reference region {region.name} needs the template's lobules and pons on the T1w grid, and there are "
            "none; register the T1w to the template, or take CerebellarGM"
        )
    return label_array(template_regions)[box]


def _within_template_region(
    region: Definition, inside: NDArray[np.bool_], parts: NDArray[np.integer], size: NDArray
) -> NDArray[np.bool_]:
    """Restrict to the pons, or to the voxels whose nearest lobule is an inferior one."""
    if region.name == "Pons":
        return inside & (parts == PONS)
    # Growing the lobules to the cortex's voxels closes the gaps that a warped 2 mm atlas leaves.
    lobules = labels_mask(parts, lobule_numbers("inferior") + lobule_numbers("superior"))
    if not lobules.any():
        return np.zeros_like(inside)
    distance, nearest = ndimage.distance_transform_edt(~lobules, sampling=size, return_indices=True)
    inferior = labels_mask(parts, lobule_numbers("inferior"))[tuple(nearest)]
    return inside & inferior & (distance <= _FURTHEST_LOBULE_MM)


def _cerebral_gray() -> tuple[int, ...]:
    gray = set(region_numbers("cortical", "subcortical")) | set(_UNNAMED_CORTEX)
    return tuple(sorted(gray - set(CEREBELLAR_CORTEX)))


def _blurred(tissue: NDArray[np.bool_], size: NDArray) -> NDArray[np.float32]:
    """Share of each voxel's signal that comes from a tissue, at the resolution `_GUARD_FWHM_MM`."""
    sigma = _GUARD_FWHM_MM / np.sqrt(8 * np.log(2)) / size
    share = ndimage.gaussian_filter(tissue.astype(np.float32), sigma, mode="nearest")
    return np.clip(share, 0.0, 1.0)


def _box(mask: NDArray[np.bool_], size: NDArray, margin_mm: float) -> tuple[slice, ...]:
    """Return the smallest box around a mask, wider by a margin: distances are needed nowhere else."""
    found = []
    for axis, edge in enumerate(size):
        others = tuple(other for other in range(3) if other != axis)
        where = np.flatnonzero(mask.any(axis=others))
        extra = int(np.ceil(margin_mm / edge))
        found.append(slice(max(0, where[0] - extra), where[-1] + 1 + extra))
    return tuple(found)
