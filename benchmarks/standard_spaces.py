"""Compare regional means of SUVR maps in standard spaces with the table, plainly and weighted by the volume change.

    python benchmarks/standard_spaces.py DERIVATIVES PARTICIPANT [SPACE ...]

DERIVATIVES come from the participant level with --output-spaces. The table weighs each part of a region by its volume
in the T1w, and a mean over voxels of the template by its volume there: the same values, weighted differently. Weighted
by the map of the volume change that is written beside them, the mean over the template is one over the T1w.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from tau_pipeline.derivatives.index import find_maps
from tau_pipeline.files import read_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import voxel_volume_mm3
from tau_pipeline.settings.spaces import parse_space


def regional_means(output_dir: Path, participant: str, text: str, at_least_mm3: float) -> pd.DataFrame:
    """Return the mean SUVR of each large region: of the table, of the map, and of the map weighted by volume change.

    ``volume`` is that in the T1w, and ``weighted_volume`` the sum of the weights: the same, but for the coarser labels.

    Parameters
    ----------
    output_dir, participant
        Derivatives, and label of a participant with one scan.
    text
        The space.
    at_least_mm3
        Volume in the T1w from which on a region is large.
    """
    maps = [one for one in find_maps(output_dir) if one.participant_id == f"sub-{participant}"]
    scan = next(one for one in maps if not one.further_region)
    space = parse_space(text)
    files = (scan.names.suvr_in(space), scan.anat.dseg_in(space), scan.anat.jacobian_in(space))
    suvr, dseg, jacobian = (load_volume(file, ndim=3) for file in files)
    values, weights = (np.asanyarray(one.dataobj).astype(np.float64) for one in (suvr, jacobian))
    labels, voxel = np.asanyarray(dseg.dataobj), voxel_volume_mm3(dseg)
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
        means = regional_means(output_dir, participant, space, 10_000)
        for name in ("plain", "weighted"):
            difference = 100 * np.abs(means[name] / means["table"] - 1)
            print(
                f"{space}, {name}: {len(means)} regions above 10 ml, {(difference <= 2).sum()} within 2 % of "
                f"the table; median {difference.median():.2f} %, largest {difference.max():.2f} %"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
