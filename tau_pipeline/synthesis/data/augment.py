"""Augmentation: draw, then apply.

All randomness is in `draw_augmentation`, whose result is a small dictionary that can be written down; what
`apply_augmentation` does with it is always the same. T1w, PET, mask and labels share one geometry and are interpolated
once: elastic field, affine and flips are composed before anything is sampled.

The ranges are those of Moon et al. (arXiv 2406.12632): elastic and affine deformation and a flip of all three axes,
each with probability one half, and noise on the T1w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import AffineGrid, Resample
from monai.transforms.utils import create_grid
from monai.utils import convert_to_tensor
from scipy import ndimage

from tau_pipeline.settings.training import Augmentation

#: Names of the axes I, J, K.
AXES = ("left-right", "posterior-anterior", "inferior-superior")


#: Probabilities of an elastic deformation, an affine one, and a flip (Moon et al.); noise is always added.
_PROBABILITY = 0.5
#: Ranges of the elastic deformation in voxels: of the SD of the Gaussian that smooths white noise (uniform from -1 to 1
#: in each voxel and direction), and of the magnitude that it is then multiplied by. The smoothing takes most of the
#: magnitude away: SD 5.5 and magnitude 75 displace a voxel by about half a voxel.
_ELASTIC_SIGMA, _ELASTIC_MAGNITUDE = (4.0, 7.0), (50.0, 100.0)
#: Largest rotation about each axis in degrees, and largest relative change of size along each axis.
_ROTATION_DEG, _SCALING = 15.0, 0.10
#: Largest SD of the noise on the T1w, on the scale of -1 to 1. It stays inside the brain mask.
_NOISE_SD = 0.1


def draw_augmentation(rng: np.random.Generator, augmentation: Augmentation) -> dict[str, Any] | None:
    """Draw everything that is random.

    Parameters
    ----------
    rng
        The only source of randomness.
    augmentation
        ``paper`` flips all three axes together, which turns the brain upside down; ``paper-strict`` also leaves the
        background as it comes; ``upright`` flips left-right only, which gives heads that could exist; ``off`` draws
        nothing.

    Returns
    -------
    dict or None
        Plain numbers, fit for JSON: ``elastic`` (seed of the field, sigma and magnitude in voxels) or None; ``affine``
        (rotation in degrees and scale factor, three each) or None; ``flip``, the names of axes; ``noise`` (seed and
        SD); ``background``: ``constant`` outside the brain, or ``mirrored`` at the border of the grid. The stream of
        random numbers is used up alike whatever is drawn.
    """
    if augmentation == "off":
        return None
    chance = rng.uniform(size=6)
    seeds = rng.integers(2**31, size=2)
    sigma = rng.uniform(*_ELASTIC_SIGMA)
    magnitude = rng.uniform(*_ELASTIC_MAGNITUDE)
    rotation = rng.uniform(-1, 1, 3) * _ROTATION_DEG
    scale = 1 + rng.uniform(-1, 1, 3) * _SCALING
    noise_sd = rng.uniform() * _NOISE_SD
    flipped = AXES[:1] if augmentation == "upright" else AXES
    elastic = {"seed": int(seeds[0]), "sigma": float(sigma), "magnitude": float(magnitude)}
    affine = {"rotation_deg": rotation.tolist(), "scale": scale.tolist()}
    return {
        "elastic": elastic if chance[0] < _PROBABILITY else None,
        "affine": affine if chance[1] < _PROBABILITY else None,
        "flip": list(flipped) if chance[2] < _PROBABILITY else [],
        "noise": {"seed": int(seeds[1]), "sd": float(noise_sd)},
        "background": "mirrored" if augmentation == "paper-strict" else "constant",
    }


def apply_augmentation(
    drawn: Mapping[str, Any],
    t1w: torch.Tensor,
    pet: torch.Tensor,
    mask: torch.Tensor,
    labels: torch.Tensor | None = None,
    brain: torch.Tensor | None = None,
    backgrounds: tuple[float | Sequence[float], float] = (-1.0, 0.0),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Apply what was drawn.

    Parameters
    ----------
    drawn
        From `draw_augmentation`.
    t1w, pet
        ``(C, I, J, K)`` with the T1w first, and ``(1, I, J, K)``, float; linear interpolation.
    mask, labels
        ``(1, I, J, K)`` boolean and integers; nearest neighbor, so that no value appears that was not there.
    brain
        Boolean like ``mask``: the whole brain, where ``mask`` is less because the PET does not cover it.
    backgrounds
        Values of T1w (one, or one per channel) outside ``brain`` and of PET outside ``mask``; they hold there
        afterwards too, exactly, unless ``background`` was drawn as ``mirrored``.

    Returns
    -------
    tuple of Tensor
        T1w, PET, mask and labels, of the same shapes and types. The inputs are unchanged.
    """
    sampling = _sampling_grid(drawn, t1w.shape[1:])
    mirrored = drawn.get("background") == "mirrored"
    flipped = [1 + AXES.index(axis) for axis in drawn["flip"]]

    def moved(image: torch.Tensor, background: float | torch.Tensor = 0, nearest: bool = True) -> torch.Tensor:
        return torch.flip(_sampled(image, sampling, background, nearest, mirrored), flipped)

    pet_background = backgrounds[1]
    t1w_background = torch.as_tensor(backgrounds[0], dtype=t1w.dtype).reshape(-1, 1, 1, 1)
    new_mask = moved(mask)
    new_brain = new_mask if brain is None else moved(brain)
    new_t1w = moved(t1w, t1w_background, nearest=False)
    if drawn["noise"] is not None:
        noisy = new_t1w[:1] + _noise(drawn["noise"], new_t1w[:1])
        new_t1w = torch.cat([noisy, new_t1w[1:]])
    if mirrored:
        return new_t1w, moved(pet, pet_background, nearest=False), new_mask, None if labels is None else moved(labels)
    new_t1w = torch.where(new_brain, new_t1w, t1w_background)
    new_pet = moved(pet, pet_background, nearest=False).masked_fill(~new_mask, pet_background)
    return new_t1w, new_pet, new_mask, None if labels is None else moved(labels)


def _sampling_grid(drawn: Mapping[str, Any], shape: torch.Size) -> torch.Tensor | None:
    """Return where each voxel takes its value from: ``(4, I, J, K)`` in voxels from the middle; None if from itself."""
    if drawn["elastic"] is None and drawn["affine"] is None:
        return None
    grid = _plain(create_grid(tuple(shape), backend="torch", dtype=torch.float32))
    if drawn["elastic"] is not None:
        grid[:3] += displacement(drawn["elastic"], shape)
    if drawn["affine"] is not None:
        angles = np.deg2rad(drawn["affine"]["rotation_deg"]).tolist()
        moved, _ = AffineGrid(rotate_params=angles, scale_params=drawn["affine"]["scale"])(grid=grid)
        grid = _plain(moved)
    return grid


def _plain(tensor: Any) -> torch.Tensor:
    """Return a tensor without MONAI's record of its history, which the collation of batches would carry along."""
    return convert_to_tensor(tensor, track_meta=False)


def displacement(elastic: Mapping[str, Any], shape: tuple[int, ...]) -> torch.Tensor:
    """Return the elastic field ``(3, I, J, K)`` in voxels: smoothed white noise times the magnitude.

    Scipy's filter is six times as fast on a processor as MONAI's, with the same result.
    """
    white = np.random.default_rng(elastic["seed"]).uniform(-1, 1, (3, *shape)).astype(np.float32)
    sigma = (0, *[elastic["sigma"]] * 3)
    return torch.from_numpy(ndimage.gaussian_filter(white, sigma, mode="constant", truncate=3.0) * elastic["magnitude"])


def _sampled(
    image: torch.Tensor,
    grid: torch.Tensor | None,
    background: float | torch.Tensor,
    nearest: bool = False,
    mirrored: bool = False,
) -> torch.Tensor:
    if grid is None:
        return image
    # Zeros come from outside, so that the background is brought to zero first; labels up to 2**24 are exact floats.
    shifted = image.to(torch.float32) - background
    padding = "reflection" if mirrored else "zeros"
    sampled = Resample(mode="nearest" if nearest else "bilinear", padding_mode=padding)(shifted, grid)
    moved = _plain(sampled) + background
    return moved.round().to(image.dtype) if nearest else moved.to(image.dtype)


def _noise(noise: Mapping[str, Any], like: torch.Tensor) -> torch.Tensor:
    rng = np.random.default_rng(noise["seed"])
    return torch.from_numpy(noise["sd"] * rng.standard_normal(tuple(like.shape))).to(like.dtype)
