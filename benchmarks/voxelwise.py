"""Measure how often the voxelwise comparison finds a difference: in cohorts with none, and with a planted one.

Usage: python benchmarks/voxelwise.py [--cohorts 20] [--seed 0] [--scans 24] [--permutations 99] [--voxel-mm 8]
       [--planted 0 0.15]

Each cohort has smooth noise around an SUVR of 1.2 (SD 0.1, correlated over neighboring voxels) in the shape of the
gray matter of the installed atlas. The planted difference is 0.15 SUVR in the left temporal lobe of half of the scans.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import pandas as pd
from scipy import ndimage, stats

from tau_pipeline.atlas import atlas_files, label_array
from tau_pipeline.cohort.design import design_matrix
from tau_pipeline.cohort.voxelwise import ALPHA, compare
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume, image_on

#: Left inferior and middle temporal, fusiform, and entorhinal.
_PLANTED = (1009, 1015, 1007, 1006)


def gray(voxel_mm: float) -> tuple[Volume, np.ndarray]:
    """Return the mask of gray matter on a coarse grid, and where the difference is planted."""
    atlas = load_volume(atlas_files().desikan_killiany, ndim=3)
    step = max(1, round(voxel_mm))
    labels = label_array(atlas)
    parts = [
        ndimage.uniform_filter(wanted.astype(np.float32), step)[::step, ::step, ::step] > 0.3
        for wanted in (labels >= 1000, np.isin(labels, _PLANTED))
    ]
    return image_on(parts[0].astype(np.uint8), atlas.affine @ np.diag([step] * 3 + [1])), parts[0] & parts[1]


def cohort(rng: np.random.Generator, count: int, mask: Volume) -> tuple[list[np.ndarray], pd.DataFrame]:
    """Return maps and covariates of a cohort without a difference."""
    maps = []
    for _ in range(count):
        noise = ndimage.gaussian_filter(rng.normal(0, 1, mask.shape), 1.0)
        maps.append((1.2 + 0.1 * noise / noise.std()).astype(np.float32))
    diagnosis = np.resize(["AD", "CN"], count)
    return maps, pd.DataFrame({"diagnosis": diagnosis, "age": rng.normal(70, 8, count)})


def main() -> None:
    """Print one line per kind of cohort."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort; each further one has the next")
    parser.add_argument("--scans", type=int, default=24)
    parser.add_argument("--permutations", type=int, default=99)
    parser.add_argument("--voxel-mm", type=float, default=8.0)
    parser.add_argument("--planted", type=float, nargs="+", default=[0.0, 0.15], help="differences to plant, SUVR")
    given = parser.parse_args()
    mask, where = gray(given.voxel_mm)
    for planted in given.planted:
        found, inside, outside, started = 0, [], [], time.perf_counter()
        for seed in range(given.seed, given.seed + given.cohorts):
            maps, covariates = cohort(np.random.default_rng(seed), given.scans, mask)
            sick = (covariates["diagnosis"] == "AD").to_numpy()
            images = [
                image_on(one + np.float32(planted) * (where & who), mask.affine)
                for one, who in zip(maps, sick, strict=True)
            ]
            result = compare(images, mask, design_matrix(covariates), given.permutations, seed)
            significant = np.asanyarray(result.maps["thresholded"].dataobj) != 0
            found += result.smallest_p < ALPHA
            inside.append(significant[where].mean())
            outside.append(significant[(np.asanyarray(mask.dataobj) > 0) & ~where].mean())
        seconds = (time.perf_counter() - started) / given.cohorts
        print(
            f"planted {planted:.2f}: corrected p < {ALPHA} in {found} of {given.cohorts} cohorts of {given.scans}; "
            f"significant {np.mean(inside):.0%} of the planted voxels and {np.mean(outside):.1%} of the others; "
            f"{seconds:.1f} s each, {int(np.asanyarray(mask.dataobj).sum())} voxels, "
            f"as many or more at a rate of {ALPHA}: p {stats.binom.sf(found - 1, given.cohorts, ALPHA):.2f}; "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
        )


if __name__ == "__main__":
    main()
