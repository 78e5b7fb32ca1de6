"""Augmentation: draw, then apply.

All randomness is in `draw_augmentation`, whose result is a small dictionary that can be written down; what
`apply_augmentation` does with it is always the same. T1w, PET, mask and labels share one geometry and are interpolated
once: elastic field, affine and flips are composed before anything is sampled.

The defaults are those of Moon et al. (arXiv 2406.12632): elastic and affine deformation and a flip of all three axes,
each with probability one half, and noise on the T1w.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import AffineGrid, Resample
from monai.transforms.utils import create_grid
from monai.utils import convert_to_tensor
from scipy import ndimage

from tau_pipeline.errors import SettingError

#: Names of the axes I, J, K.
AXES = ("left-right", "posterior-anterior", "inferior-superior")


@dataclass(frozen=True)
class AugmentationSettings:
    """Ranges of the random augmentation. The defaults are the paper's.

    Parameters
    ----------
    elastic_probability
        Of an elastic deformation: white noise, uniform from -1 to 1 in each voxel and direction, smoothed by a Gaussian
        and multiplied by a magnitude.
    elastic_sigma, elastic_magnitude
        Ranges, in voxels, from which the Gaussian's standard deviation and the magnitude are drawn. The smoothing takes
        most of the magnitude away: sigma 5.5 and magnitude 75 move a voxel by about half a voxel.
    affine_probability
        Of a rotation and scaling about the middle.
    rotation_deg
        Largest angle about each axis.
    scaling
        Largest relative change along each axis.
    flip_probability, flip_axes, flip_together
        Of a flip along ``flip_axes``: of all of them at once, or drawn for each axis. A flip of all three axes turns
        the brain upside down; ``flip_axes=("left-right",)`` gives only heads that could exist.
    noise_probability, noise_sd
        Of Gaussian noise on the T1w, and its largest standard deviation on the scale of -1 to 1; drawn uniformly from
        0. The noise stays inside the brain mask.

    Raises
    ------
    SettingError
        A value is out of its range.
    """

    elastic_probability: float = 0.5
    elastic_sigma: tuple[float, float] = (4.0, 7.0)
    elastic_magnitude: tuple[float, float] = (50.0, 100.0)
    affine_probability: float = 0.5
    rotation_deg: float = 15.0
    scaling: float = 0.10
    flip_probability: float = 0.5
    flip_axes: tuple[str, ...] = AXES
    flip_together: bool = True
    noise_probability: float = 1.0
    noise_sd: float = 0.1

    def __post_init__(self) -> None:
        for name in ("elastic_probability", "affine_probability", "flip_probability", "noise_probability"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a probability from 0 to 1")
        for name in ("elastic_sigma", "elastic_magnitude"):
            low, high = getattr(self, name)
            _require(0 <= low <= high, name, [low, high], "two numbers, 0 <= low <= high")
        _require(0 <= self.rotation_deg <= 180, "rotation_deg", self.rotation_deg, "an angle from 0 to 180")
        _require(0 <= self.scaling < 1, "scaling", self.scaling, "a part from 0 to below 1")
        _require(self.noise_sd >= 0, "noise_sd", self.noise_sd, "0 or more")
        unknown = [name for name in self.flip_axes if name not in AXES]
        _require(not unknown, "flip_axes", unknown, f"some of {', '.join(AXES)}")


def _require(fine: bool, name: str, value: object, wanted: str) -> None:
    if not fine:
        raise SettingError(f"{name} is {value!r}; {wanted} is needed")


def draw_augmentation(rng: np.random.Generator, settings: AugmentationSettings) -> dict[str, Any]:
    """Draw everything that is random.

    Parameters
    ----------
    rng
        The only source of randomness.
    settings
        How much.

    Returns
    -------
    dict
        Plain numbers, fit for JSON: ``elastic`` (seed of the field, sigma and magnitude in voxels) or None; ``affine``
        (rotation in degrees and scale factor, three each) or None; ``flip``, the names of axes; ``noise`` (seed and
        SD) or None. The stream of random numbers is used up alike whatever is drawn, so that to switch one part off
        leaves the others as they were.
    """
    chance = rng.uniform(size=6)
    seeds = rng.integers(2**31, size=2)
    sigma = rng.uniform(*settings.elastic_sigma)
    magnitude = rng.uniform(*settings.elastic_magnitude)
    rotation = rng.uniform(-1, 1, 3) * settings.rotation_deg
    scale = 1 + rng.uniform(-1, 1, 3) * settings.scaling
    noise_sd = rng.uniform() * settings.noise_sd
    flip_chance = [chance[2]] * 3 if settings.flip_together else chance[2:5]
    elastic = {"seed": int(seeds[0]), "sigma": float(sigma), "magnitude": float(magnitude)}
    affine = {"rotation_deg": rotation.tolist(), "scale": scale.tolist()}
    return {
        "elastic": elastic if chance[0] < settings.elastic_probability else None,
        "affine": affine if chance[1] < settings.affine_probability else None,
        "flip": [
            axis
            for axis, drawn in zip(AXES, flip_chance, strict=True)
            if axis in settings.flip_axes and drawn < settings.flip_probability
        ],
        "noise": {"seed": int(seeds[1]), "sd": float(noise_sd)} if chance[5] < settings.noise_probability else None,
    }


def apply_augmentation(
    drawn: Mapping[str, Any],
    t1w: torch.Tensor,
    pet: torch.Tensor,
    mask: torch.Tensor,
    labels: torch.Tensor | None = None,
    brain: torch.Tensor | None = None,
    backgrounds: tuple[float, float] = (-1.0, 0.0),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Apply what was drawn.

    Parameters
    ----------
    drawn
        From `draw_augmentation`.
    t1w, pet
        ``(1, I, J, K)`` float; linear interpolation.
    mask, labels
        ``(1, I, J, K)`` boolean and integers; nearest neighbour, so that no value appears that was not there.
    brain
        Boolean like ``mask``: the whole brain, where ``mask`` is less because the PET does not cover it.
    backgrounds
        Values of T1w outside ``brain`` and of PET outside ``mask``; they hold there afterwards too, exactly.

    Returns
    -------
    tuple of Tensor
        T1w, PET, mask and labels, of the same shapes and types. The inputs are unchanged.
    """
    sampling = _sampling_grid(drawn, t1w.shape[1:])
    flipped = [1 + AXES.index(axis) for axis in drawn["flip"]]

    def moved(image: torch.Tensor, background: float = 0, nearest: bool = True) -> torch.Tensor:
        return torch.flip(_sampled(image, sampling, background, nearest), flipped)

    t1w_background, pet_background = backgrounds
    new_mask = moved(mask)
    new_brain = new_mask if brain is None else moved(brain)
    new_t1w = moved(t1w, t1w_background, nearest=False)
    if drawn["noise"] is not None:
        new_t1w = new_t1w + _noise(drawn["noise"], new_t1w)
    new_t1w = new_t1w.masked_fill(~new_brain, t1w_background)
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
    """A tensor without MONAI's record of what was done to it, which the collation of batches would carry along."""
    return convert_to_tensor(tensor, track_meta=False)


def displacement(elastic: Mapping[str, Any], shape: tuple[int, ...]) -> torch.Tensor:
    """Return the elastic field ``(3, I, J, K)`` in voxels: smoothed white noise times the magnitude.

    Scipy's filter is six times as fast on a processor as MONAI's, with the same result.
    """
    white = np.random.default_rng(elastic["seed"]).uniform(-1, 1, (3, *shape)).astype(np.float32)
    sigma = (0, *[elastic["sigma"]] * 3)
    return torch.from_numpy(ndimage.gaussian_filter(white, sigma, mode="constant", truncate=3.0) * elastic["magnitude"])


def _sampled(image: torch.Tensor, grid: torch.Tensor | None, background: float, nearest: bool = False) -> torch.Tensor:
    if grid is None:
        return image
    # Zeros come from outside, so that the background is brought to zero first; labels up to 2**24 are exact floats.
    shifted = image.to(torch.float32) - background
    sampled = Resample(mode="nearest" if nearest else "bilinear", padding_mode="zeros")(shifted, grid)
    moved = _plain(sampled) + background
    return moved.round().to(image.dtype) if nearest else moved.to(image.dtype)


def _noise(noise: Mapping[str, Any], like: torch.Tensor) -> torch.Tensor:
    rng = np.random.default_rng(noise["seed"])
    return torch.from_numpy(noise["sd"] * rng.standard_normal(tuple(like.shape))).to(like.dtype)
