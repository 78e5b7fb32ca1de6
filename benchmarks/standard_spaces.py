"""Compare regional means of SUVR maps in standard spaces with the table, plainly and weighted by the volume change.

    python benchmarks/standard_spaces.py DERIVATIVES PARTICIPANT [SPACE ...]

DERIVATIVES come from the participant level with --output-spaces. The table weighs each part of a region by its volume
in the T1w, and a mean over voxels of the template by its volume there: the same values, weighted differently. Weighted
by how much the warp shrinks each voxel, the mean over the template is one over the T1w.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tau_pipeline.anatomy.spaces import template_grid, transforms_to
from tau_pipeline.derivatives.index import find_maps
from tau_pipeline.files import read_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume
from tau_pipeline.imaging.warp import Points, points_through
from tau_pipeline.settings.spaces import parse_space


def volume_change(grid: Volume, points: Points) -> NDArray[np.float64]:
    """Return the volume in the T1w of a voxel of a grid over its volume on the grid, ``(I, J, K)``.

    Parameters
    ----------
    grid
        Of the template.
    points
        Where a transform takes its voxels in the T1w's world, ``(I, J, K, 3)``, mm.
    """
    steps = np.stack(np.gradient(points.astype(np.float64), axis=(0, 1, 2)), axis=-1)
    return np.abs(np.linalg.det(steps)) / abs(np.linalg.det(grid.affine[:3, :3]))


def regional_means(output_dir: Path, participant: str, text: str, work_dir: Path, at_least_mm3: float) -> pd.DataFrame:
    """Return the mean SUVR of each large region: of the table, of the map, and of the map weighted by volume change.

    ``volume`` is that in the T1w, and ``weighted_volume`` the sum of the weights: the same, but for the coarser labels.

    Parameters
    ----------
    output_dir, participant
        Derivatives, and label of a participant with one scan.
    text
        The space.
    work_dir
        Where the transform between the templates is kept.
    at_least_mm3
        Volume in the T1w from which on a region is large.
    """
    maps = [one for one in find_maps(output_dir) if one.participant_id == f"sub-{participant}"]
    scan = next(one for one in maps if not one.further_region)
    space = parse_space(text)
    suvr, dseg = (load_volume(file, ndim=3) for file in (scan.names.suvr_in(space), scan.anat.dseg_in(space)))
    grid = template_grid(space)
    weights = volume_change(grid, points_through(grid, transforms_to(space, scan.anat.to_template(), work_dir)))
    values, labels = np.asanyarray(suvr.dataobj).astype(np.float64), np.asanyarray(dseg.dataobj)
    voxel = abs(np.linalg.det(grid.affine[:3, :3]))
    table = read_tsv(scan.names.rois)
    own = table[(table["reference_region"] == scan.reference_region) & table["index"].notna()]
    rows = []
    for row in own[own["volume_mm3"] > at_least_mm3].to_dict("records"):
        inside = (labels == int(row["index"])) & np.isfinite(values)
        plain, weighted = values[inside].mean(), np.average(values[inside], weights=weights[inside])
        volumes = {"volume": row["volume_mm3"], "weighted_volume": weights[labels == int(row["index"])].sum() * voxel}
        rows.append(
            {"region": row["region"], "table": row["suvr_mean"], "plain": plain, "weighted": weighted, **volumes}
        )
    return pd.DataFrame(rows)


def main(output_dir: Path, participant: str, spaces: list[str]) -> None:
    """Print the largest and the median difference for each space."""
    for space in spaces or ["MNI152NLin6Asym"]:
        means = regional_means(output_dir, participant, space, output_dir / "work_templates", 10_000)
        for name in ("plain", "weighted"):
            difference = 100 * np.abs(means[name] / means["table"] - 1)
            print(
                f"{space}, {name}: {len(means)} regions above 10 ml, difference from the table: median "
                f"{difference.median():.2f} %, largest {difference.max():.2f} %"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
