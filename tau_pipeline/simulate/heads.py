"""One simulated person: a draw, and its application to the template.

A person is one `HeadDraw` (all that is random) applied to the `Template`: a smooth deformation, thinner cortex and
wider ventricles by level sets, an intensity for each tissue, a bias field and noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tau_pipeline.imaging.transforms import rotation
from tau_pipeline.imaging.volume import Affine, Volume, image_on
from tau_pipeline.simulate.template import (
    CSF,
    OUTSIDE,
    PERSON_BOX,
    VENTRICLE_FLUID,
    Array,
    Floats,
    Template,
    brain_box,
    grid,
    look_up,
)

#: Mean linear size: an average of 1.5 L inside the skull, where MNI152 has 1.9 L.
_MEAN_SIZE = 0.94
#: White matter (with the corpus callosum) and medial temporal gray matter give way to the lateral ventricles.
_GIVES_WAY = (2, 41, 251, 252, 253, 254, 255, 17, 18, 53, 54)

#: T1w intensity of each code, white matter = 1, as seen in MPRAGE at 3 T; cortex takes the value of 1000.
_T1W_INTENSITY = {
    2: 1.0, 41: 1.0, 251: 1.02, 252: 1.02, 253: 1.02, 254: 1.02, 255: 1.02, 7: 0.97, 46: 0.97, 16: 0.93,
    28: 0.90, 60: 0.90, 10: 0.84, 49: 0.84, 13: 0.92, 52: 0.92, 12: 0.76, 51: 0.76, 11: 0.71, 50: 0.71,
    26: 0.71, 58: 0.71, 17: 0.67, 53: 0.67, 18: 0.67, 54: 0.67, 8: 0.65, 47: 0.65, 1000: 0.66, 85: 0.90,
    4: 0.20, 43: 0.20, 5: 0.20, 44: 0.20, 14: 0.20, 15: 0.20, 24: 0.20, 31: 0.38, 63: 0.38,
    3001: 0.20, 3002: 0.06, 3003: 0.42, 3004: 0.45, 3005: 1.15, 3006: 0.55, 3007: 0.18, 3008: 0.85, 3009: 0.34,
}  # fmt: skip
_CORTEX = tuple(side + number for side in (1000, 2000) for number in range(1, 36) if number != 4)


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
    position
        4 x 4, rigid, moves points of the world of this image to that of the person's first image; None for the first.
    blur_mm
        Standard deviation by which motion during the scan blurs the tissue.
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
    position: Affine | None = None
    blur_mm: float = 0.0


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


def intensity(code: int) -> float:
    """Return the T1w intensity of a code without contrast of a person, white matter = 1."""
    return _T1W_INTENSITY[1000 if code in _CORTEX else code]


def spline_field(knots: Array, shape: tuple[int, int, int]) -> Floats:
    """Return a smooth field ``(I, J, K)`` from values at evenly spaced knots ``(a, b, c)``: cubic B-splines.

    The values are spline coefficients: the field stays within their range.
    """
    field = knots.astype(np.float32)
    for axis, size in enumerate(shape):
        field = np.moveaxis(np.tensordot(field, _spline_basis(knots.shape[axis], size), axes=(axis, 1)), -1, axis)
    return np.ascontiguousarray(field)


def _spline_basis(n_knots: int, size: int) -> Floats:
    """Return weights ``(size, n_knots)`` of uniform cubic B-splines; the outermost knots lie outside the grid."""
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
    zoom = rng.normal(_MEAN_SIZE, 0.03) * rng.normal(1, 0.015, 3)
    shift = rng.normal(0, 3, 3).clip(-7, 7)
    to_template = np.eye(4)
    to_template[:3, :3] = rotation(angles) / zoom
    to_template[:3, 3] = shift
    bends = (rng.normal(0, 3.5, (3, 7, 8, 8)).clip(-8, 8), rng.normal(0, 1.2, (3, 12, 14, 13)).clip(-3, 3))
    general = float(rng.uniform(0, 0.2))
    names = [*_T1W_INTENSITY, *_CORTEX]
    contrast = dict(zip(names, rng.normal(1, 0.012, len(names)).tolist(), strict=True))
    gray, fluid, fat = rng.normal(1, 0.03), rng.uniform(0.8, 1.3), rng.uniform(0.8, 1.15)
    for code in names:
        contrast[code] *= gray if code in _CORTEX or code in (8, 47, 17, 53, 18, 54) else 1.0
    for code in (4, 43, 14, 15, 24, 3001):
        contrast[code] *= fluid
    contrast[3005] *= fat
    return HeadDraw(
        to_template,
        bends,
        dict.fromkeys(_CORTEX, general),
        float(rng.uniform(0, 0.8)),
        contrast,
        rng.normal(0, 0.16, (5, 5, 5)),
        float(rng.uniform(0.018, 0.032)),
        float(rng.uniform(350, 900)),
        int(rng.integers(2**31)),
    )


def template_coordinates(draw: HeadDraw, template: Template, affine: Affine, shape: tuple[int, int, int]) -> Floats:
    """Return the template voxel ``(3, I, J, K)`` from which each voxel of a person's grid takes its tissue."""
    if draw.position is not None:
        return _moved_coordinates(draw, draw.position, template, affine, shape)
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


def _moved_coordinates(
    draw: HeadDraw, position: Affine, template: Template, affine: Affine, shape: tuple[int, int, int]
) -> Floats:
    """Return `template_coordinates` of a head that was moved as a whole, its own deformation with it."""
    from scipy import ndimage

    back = np.linalg.inv(affine) @ position @ affine
    voxels = np.indices(shape, np.float32).reshape(3, -1)
    first = (back[:3, :3].astype(np.float32) @ voxels + back[:3, 3:].astype(np.float32)).reshape(3, *shape)
    to_voxel = np.linalg.inv(template.affine)
    linear = (to_voxel @ draw.to_template @ affine).astype(np.float32)
    out = np.tensordot(linear[:3, :3], first, axes=1) + linear[:3, 3][:, None, None, None]
    for bend in draw.bends:
        # The place among the knots that `_spline_basis` gives; the values at the knots are coefficients already.
        steps = [(knots - 3) / max(size - 1, 1) for knots, size in zip(bend.shape[1:], shape, strict=True)]
        at = 1 + first * np.array(steps, np.float32)[:, None, None, None]
        for axis in range(3):
            moved = ndimage.map_coordinates(bend[axis], at, np.float32, order=3, mode="nearest", prefilter=False)
            out[axis] += to_voxel[axis, axis] * moved
    return out


def make_head(draw: HeadDraw, template: Template, voxel_mm: float = 1.0) -> Head:
    """Apply a draw: labels, T1w image and surroundings of one person on an individual grid, RAS+.

    Cortex ends where the depth below the tissue surface is less than its thinning; the lateral ventricles end
    ``ventricles_mm`` outside the template's. Mixed voxels get the mean of their tissues by the distance to the border.
    """
    from scipy import ndimage

    affine, shape = grid(*PERSON_BOX, voxel_mm)
    at = template_coordinates(draw, template, affine, shape)
    codes = ndimage.map_coordinates(template.codes, at, order=0, mode="nearest")
    tissue = ndimage.map_coordinates(_painted(draw, template, voxel_mm), at, order=1, mode="nearest")
    brain = brain_box((codes > 0) & (codes < min(OUTSIDE.values())), margin=2)
    inner, where = codes[brain], at[(slice(None), *brain)]
    depth = ndimage.map_coordinates(template.depth, where, order=1) - look_up(draw.thinning, inner)
    ventricle = ndimage.map_coordinates(template.ventricle, where, order=1)
    texture = ndimage.map_coordinates(template.texture, where, order=1)
    growth = draw.ventricles_mm
    in_brain = (inner > 0) & (inner < min(OUTSIDE.values()))
    opens = np.isin(inner, (*_GIVES_WAY, *VENTRICLE_FLUID))
    full = np.clip(0.5 + depth / voxel_mm, 0, 1)
    wet = np.where(opens, np.clip(0.5 + (ventricle + growth) / voxel_mm, 0, 1), 0)
    fluid = _T1W_INTENSITY[CSF] * draw.contrast[CSF]
    mixed = (full * (tissue[brain] + texture) + (1 - full) * fluid) * (1 - wet) + wet * fluid
    tissue[brain] = np.where(in_brain, mixed, tissue[brain])
    labels = np.zeros(shape, np.int16)
    labels[brain] = np.where(in_brain, _label(inner, depth, wet >= 0.5), 0)
    if draw.blur_mm:
        tissue = ndimage.gaussian_filter(tissue, draw.blur_mm / voxel_mm)
    t1w = _scanned(tissue, draw)
    return Head(image_on(t1w, affine), image_on(labels, affine), image_on(np.where(labels > 0, 0, codes), affine))


def _label(codes: Array, depth: Array, wet: Array) -> Array:
    """Return FreeSurfer numbers after thinning and ventricular growth."""
    right = np.isin(codes, (41, 53, 54, 43, 44))
    out = np.where(depth > 0, codes, CSF)
    return np.where(wet & ~np.isin(codes, VENTRICLE_FLUID), np.where(right, 43, 4), out)


def _painted(draw: HeadDraw, template: Template, voxel_mm: float) -> Floats:
    """Paint tissue intensities on the template grid, blurred to the width of a voxel."""
    from scipy import ndimage

    cortex = {code: _T1W_INTENSITY[1000] for code in draw.contrast if 1000 < code < 2036}
    values = {code: value * draw.contrast[code] for code, value in (_T1W_INTENSITY | cortex).items()}
    return ndimage.gaussian_filter(look_up(values, template.codes), 0.5 * max(voxel_mm, 1.0))


def _scanned(tissue: Floats, draw: HeadDraw) -> Floats:
    """Return the magnitude image: coil gain, and noise in two channels (Gudbjartsson and Patz, MRM 34, 1995)."""
    rng = np.random.default_rng(draw.noise_seed)
    i, j, k = tissue.shape
    signal = tissue * np.exp(spline_field(draw.bias, (i, j, k)))
    first, second = (rng.standard_normal(tissue.shape, dtype=np.float32) * draw.noise for _ in range(2))
    return np.sqrt((signal + first) ** 2 + second**2) * np.float32(draw.gain)
