"""Tau PET with known truth: uptake of each region, three scanners, and a patient who lies otherwise than in the MRI.

A scan is one `PetDraw` (all that is random) applied to a head: paint the uptake, blur it, divide by the cerebellar
cortex (the true SUVR), move it to the scanner, add noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.transforms import rotation
from tau_pipeline.imaging.volume import Affine, Volume, image_on
from tau_pipeline.simulate.heads import Head
from tau_pipeline.simulate.template import CEREBELLAR_CORTEX, Array, Floats, look_up

Group = Literal["CN", "MCI", "AD"]

#: Braak stage of each Desikan-Killiany region (last two digits of the FreeSurfer number), as in Schöll et al.,
#: Neuron 89, 2016, table S1; the temporal pole with stage 4.
BRAAK_STAGE = {
    1: (6,),
    3: (7, 13, 16),
    4: (2, 9, 10, 15, 23, 26, 33, 35),
    5: (1, 3, 8, 11, 12, 14, 18, 19, 20, 25, 27, 28, 29, 30, 31, 32, 34),
    6: (5, 17, 21, 22, 24),
}
#: For each stage, the burden at which half of its tau is there, and the uptake that it adds at the end.
_STAGE_ONSET = {1: 0.15, 3: 0.3, 4: 0.45, 5: 0.6, 6: 0.9}
_STAGE_UPTAKE = {1: 0.9, 3: 1.0, 4: 1.2, 5: 1.1, 6: 0.7}
#: Share of its stage's uptake in regions that fall behind it, lingual cortex.
_LATE = {13: 0.4}
#: Range of the burden, 0 to 1, in cognitively normal, mildly impaired and demented participants.
BURDEN = {"CN": (0.0, 0.25), "MCI": (0.3, 0.6), "AD": (0.6, 1.0)}

#: Uptake without disease, cerebellar cortex = 1: gray matter near 1.1 and off-target binding in the basal ganglia and
#: choroid plexus as flortaucipir shows it (Lowe et al., Acta Neuropathologica Communications 4:58, 2016).
_BASE_UPTAKE = {
    2: 1.1, 41: 1.1, 251: 1.05, 252: 1.05, 253: 1.05, 254: 1.05, 255: 1.05, 7: 1.05, 46: 1.05, 8: 1.0, 47: 1.0,
    16: 1.1, 28: 1.25, 60: 1.25, 10: 1.2, 49: 1.2, 11: 1.3, 50: 1.3, 12: 1.45, 51: 1.45, 13: 1.55, 52: 1.55,
    26: 1.3, 58: 1.3, 17: 1.15, 53: 1.15, 18: 1.15, 54: 1.15, 31: 1.5, 63: 1.5, 4: 0.55, 43: 0.55, 5: 0.6, 44: 0.6,
    14: 0.6, 15: 0.6, 24: 0.6, 3001: 0.45, 3002: 0.35, 3003: 0.5, 3004: 0.35, 3005: 0.2, 3006: 0.35, 3007: 0.3,
    3008: 0.9, 3009: 0.6,
}  # fmt: skip
_CORTEX_BASE = 1.1
_BASAL_GANGLIA = (11, 12, 13, 26, 50, 51, 52, 58)
_CHOROID_PLEXUS = (31, 63)
_MENINGES = 3009
#: Cerebellum and brain stem.
_POSTERIOR_FOSSA = (7, 8, 16, 46, 47)


@dataclass(frozen=True)
class Scanner:
    """A PET scanner: its names in sidecars, its grid, and what it does to the image.

    ``fwhm_mm`` is the effective resolution with the usual reconstruction; ``gain`` the error of its calibration;
    ``noise`` the standard deviation of a 20-minute image at SUVR 1; ``fossa`` how far, and to which side, its
    attenuation and scatter correction errs in the posterior fossa, as a share of `PetDraw.bias`.
    """

    manufacturer: str
    model: str
    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    fwhm_mm: float
    gain: float
    noise: float
    fossa: float


SCANNERS = (
    Scanner("SIEMENS", "Biograph mCT", (128, 128, 110), (2.036, 2.036, 2.027), 5.5, 1.0, 0.03, 0.0),
    Scanner("GE MEDICAL SYSTEMS", "Discovery 690", (128, 128, 72), (2.0, 2.0, 3.27), 6.5, 1.07, 0.035, 1.0),
    Scanner("Philips", "Ingenuity TF", (128, 128, 110), (2.0, 2.0, 2.0), 7.5, 0.93, 0.04, -1.0),
)


@dataclass(frozen=True)
class PetDraw:
    """All that is random in a scan.

    Attributes
    ----------
    uptake
        Of each code of a head, cerebellar cortex = 1.
    scanner
        Where it is done.
    ref_bqml
        Activity at SUVR 1, Bq/mL.
    offset_mm, turn_rad
        Position of the head in the scanner: shift and rotation from PET to T1w, about the center of the brain.
    jitter_mm
        Shift of the field of view.
    motion
        For each frame, the shift in mm and the rotation in radians against the first, ``(F, 6)``.
    noise_seed
        Starts the noise.
    bias
        Size of the error of attenuation and scatter correction in the posterior fossa, a share of the activity; 0 for
        none. It moves the reference region and with it every SUVR of a scanner: a gain that does not cancel.
    """

    uptake: Mapping[int, float]
    scanner: Scanner
    ref_bqml: float
    offset_mm: Array
    turn_rad: Array
    jitter_mm: Array
    motion: Array
    noise_seed: int
    bias: float = 0.0


@dataclass(frozen=True)
class Pet:
    """A simulated scan and its truth.

    Attributes
    ----------
    pet
        float32, Bq/mL, ``(I, J, K)`` or ``(I, J, K, F)``.
    suvr
        float32 on the grid of the head: uptake after the scanner's blur over its mean in the cerebellar cortex.
    frames
        For each frame, 4 x 4, moves points of the PET world to the T1w world, RAS, mm.
    """

    pet: Volume
    suvr: Volume
    frames: tuple[Affine, ...]


def draw_uptake(rng: np.random.Generator, burden: float) -> dict[int, float]:
    """Draw the uptake of each code at a tau burden between 0 (none) and 1 (all Braak stages).

    Regions of a stage fill along a sigmoid of the burden; persons differ in each region (15 %), in asymmetry, and in
    off-target binding: basal ganglia, choroid plexus, and in one of three the meninges.
    """
    uptake = {code: value * float(rng.normal(1, 0.015)) for code, value in _BASE_UPTAKE.items()}
    striatal, plexus = rng.normal(1, 0.08), rng.uniform(0.8, 1.4)
    uptake |= {code: uptake[code] * float(striatal) for code in _BASAL_GANGLIA}
    uptake |= {code: uptake[code] * float(plexus) for code in _CHOROID_PLEXUS}
    uptake[_MENINGES] = float(rng.choice([0.6, 0.6, 1.5])) * float(rng.uniform(0.9, 1.1))
    asymmetry = rng.normal(0, 0.1)
    for stage, regions in BRAAK_STAGE.items():
        filled = 1 / (1 + np.exp(-(burden - _STAGE_ONSET[stage]) / 0.08))
        for region in regions:
            personal, amount = rng.lognormal(0, 0.15), _STAGE_UPTAKE[stage] * _LATE.get(region, 1.0)
            for hemisphere, side in ((1000, 1 + asymmetry), (2000, 1 - asymmetry)):
                tau = amount * filled * personal * side * rng.lognormal(0, 0.05)
                uptake[hemisphere + region] = float(_CORTEX_BASE * rng.normal(1, 0.015) + tau)
    medial = 0.5 / (1 + np.exp(-(burden - 0.3) / 0.08))
    uptake |= {code: uptake[code] + float(medial * rng.lognormal(0, 0.1)) for code in (17, 53, 18, 54)}
    return uptake | dict.fromkeys(CEREBELLAR_CORTEX, 1.0)


def tau_load(uptake: Mapping[int, float]) -> dict[int, float]:
    """Return the uptake of each cortical label above that of a cortex without tau."""
    return {code: max(0.0, value - _CORTEX_BASE) for code, value in uptake.items() if 1000 < code < 2036}


def draw_pet(rng: np.random.Generator, uptake: Mapping[int, float], scanner: Scanner, motion: Array) -> PetDraw:
    """Draw a scan: an offset of 5 to 25 mm and 3 to 15 degrees, a dose, a field of view."""
    offset, axis = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    return PetDraw(
        uptake,
        scanner,
        float(3500 * scanner.gain * rng.lognormal(0, 0.15)),
        offset * rng.uniform(5, 25),
        axis * np.deg2rad(rng.uniform(3, 15)),
        rng.uniform(-6, 6, 3),
        motion,
        int(rng.integers(2**31)),
    )


def draw_motion(rng: np.random.Generator, n_frames: int, moves: bool) -> Array:
    """Draw positions ``(F, 6)`` (mm, radians) of frames relative to the first: up to 3 mm and 2 degrees, or none."""
    limits = np.array([1.7] * 3 + [np.deg2rad(1.15)] * 3)
    motion = rng.uniform(-limits, limits, (n_frames, 6)) * moves
    motion[0] = 0
    return motion


def rigid_about(center: Array, shift: Array, turn: Array) -> Affine:
    """Return the 4 x 4 transform that rotates by ``turn`` (radians about x, y, z) about a point, then shifts (mm)."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(turn)
    matrix[:3, 3] = center + shift - matrix[:3, :3] @ center
    return matrix


def true_suvr(head: Head, uptake: Mapping[int, float], fwhm_mm: float) -> Floats:
    """Return the uptake of a head at this scanner's resolution, over its mean in the cerebellar cortex.

    Raises
    ------
    ImageError
        The head has no cerebellar cortex.
    """
    from scipy import ndimage

    labels = np.asanyarray(head.labels.dataobj)
    painted = look_up(uptake, np.where(labels > 0, labels, np.asanyarray(head.outside.dataobj)))
    sigma = fwhm_mm / np.sqrt(8 * np.log(2)) / head.labels.affine[0, 0]
    blurred = ndimage.gaussian_filter(painted, sigma)
    cerebellum = np.isin(labels, CEREBELLAR_CORTEX)
    if not cerebellum.any():
        raise ImageError("the head has no cerebellar cortex (labels 8 and 47); use smaller voxels")
    return blurred / blurred[cerebellum].mean(dtype=np.float64).astype(np.float32)


def make_pet(draw: PetDraw, head: Head) -> Pet:
    """Apply a draw: the scan of a head, in Bq/mL on the scanner's own grid (LAS, coarser when the head's is)."""
    from scipy import ndimage

    suvr = true_suvr(head, draw.uptake, draw.scanner.fwhm_mm)
    voxel_mm = float(head.t1w.affine[0, 0])
    labels = np.asanyarray(head.labels.dataobj)
    center = head.t1w.affine[:3, :3] @ np.array(ndimage.center_of_mass(labels > 0)) + head.t1w.affine[:3, 3]
    pet2t1 = rigid_about(center, draw.offset_mm, draw.turn_rad)
    seen = suvr * fossa_gain(head, draw.scanner.fossa * draw.bias) if draw.bias else suvr
    in_pet = np.linalg.inv(pet2t1)[:3, :3] @ center + np.linalg.inv(pet2t1)[:3, 3]
    affine, shape = _pet_grid(draw.scanner, in_pet + draw.jitter_mm, voxel_mm)
    frames = tuple(pet2t1 @ rigid_about(in_pet, m[:3], m[3:]) for m in draw.motion)
    # linear is exact enough on 1 mm; on coarse grids it would blur the scan more than the scanner does
    order = 1 if voxel_mm <= 1.25 else 3
    images = []
    for frame in frames:
        vox = np.linalg.inv(head.t1w.affine) @ frame @ affine
        images.append(ndimage.affine_transform(seen, vox[:3, :3], vox[:3, 3], output_shape=shape, order=order))
    noisy = _counted(np.stack(images, axis=-1).clip(0), draw, float(np.abs(affine[0, 0])))
    data = noisy[..., 0] if len(frames) == 1 else noisy
    return Pet(image_on(data * np.float32(draw.ref_bqml), affine), image_on(suvr, head.t1w.affine), frames)


def fossa_gain(head: Head, gain: float) -> Floats:
    """Return the factor on activity: 1 + ``gain`` in cerebellum and brain stem, 1 away from them.

    The border is as soft as scatter is wide, a Gaussian of 8 mm standard deviation.
    """
    from scipy import ndimage

    labels = np.asanyarray(head.labels.dataobj)
    fossa = np.isin(labels, _POSTERIOR_FOSSA).astype(np.float32)
    return 1 + np.float32(gain) * ndimage.gaussian_filter(fossa, 8.0 / head.labels.affine[0, 0])


def _pet_grid(scanner: Scanner, center: Array, voxel_mm: float) -> tuple[Affine, tuple[int, int, int]]:
    """Return the scanner's LAS grid around a point; voxels are enlarged where the head's are over 2 mm."""
    coarser = max(1.0, voxel_mm / 2)
    voxel = np.array(scanner.voxel_mm) * coarser
    i, j, k = np.ceil(np.array(scanner.shape) / coarser).astype(int).tolist()
    affine = np.diag([-voxel[0], voxel[1], voxel[2], 1.0])
    affine[:3, 3] = center - affine[:3, :3] @ ((np.array([i, j, k]) - 1) / 2)
    return affine, (i, j, k)


def _counted(suvr: Floats, draw: PetDraw, voxel_mm: float) -> Floats:
    """Draw noise ``(I, J, K, F)`` that grows with the root of the activity and has the grain of the reconstruction."""
    from scipy import ndimage

    rng = np.random.default_rng(draw.noise_seed)
    grain = 0.6 * draw.scanner.fwhm_mm / np.sqrt(8 * np.log(2)) / voxel_mm
    out = np.empty_like(suvr)
    for frame in range(suvr.shape[-1]):
        white = rng.standard_normal(suvr.shape[:3], dtype=np.float32)
        noise = ndimage.gaussian_filter(white, grain)
        noise *= draw.scanner.noise * np.sqrt(suvr.shape[-1]) / noise.std()
        out[..., frame] = suvr[..., frame] + noise * np.sqrt(suvr[..., frame])
    return out.clip(0)
