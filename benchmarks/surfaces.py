"""Compare labels by surface with those of the volume against true labels: DATA DERIVATIVES PARTICIPANT.

DERIVATIVES come from the participant level with --surfaces, and --cortex-labels volume. Prints the Dice coefficient of
the 68 cortical regions, their mean, and the thickness.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tau_pipeline.atlas import label_table
from tau_pipeline.derivatives.names import AnatNames
from tau_pipeline.files import read_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample
from tau_pipeline.surface import labels, mesh


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return twice the overlap of two masks over the sum of their volumes."""
    return 2 * float((a & b).sum()) / max(1, int(a.sum() + b.sum()))


def main(data: Path, derivatives: Path, participant: str) -> None:
    """Print one row per region, and the means."""
    names = AnatNames(derivatives, {"sub": participant})
    dseg = load_volume(names.dseg, ndim=3)
    truth_file = data / "truth" / f"sub-{participant}_labels.nii.gz"
    truth = np.asanyarray(resample(load_volume(truth_file, ndim=3), dseg, np.eye(4), "nearest").dataobj)
    surfaces = {}
    for side in mesh.SIDES:
        of_vertex = mesh.read_values(names.surface(side, "labels")).astype(np.int32)
        surfaces[side] = (mesh.read_mesh(names.surface(side, "midthickness")), of_vertex)
        print(f"{side}: {len(of_vertex)} vertices, Euler number {surfaces[side][0].euler_number}")
    by_volume, hybrid = (np.asanyarray(one.dataobj) for one in (dseg, labels.hybrid_labels(dseg, surfaces)))
    table = label_table().set_index("index")
    numbers = table.index[table["kind"] == "cortical"]
    scores = np.array([[dice(one == k, truth == k) for one in (by_volume, hybrid)] for k in numbers])
    for number, (volume, surface) in zip(numbers, scores, strict=True):
        print(f"{table.loc[number, 'region']:40s} volume {volume:.2f} hybrid {surface:.2f}")
    print(f"mean of {len(numbers)}: volume {scores[:, 0].mean():.3f}, hybrid {scores[:, 1].mean():.3f}")
    thickness = read_tsv(names.thickness_table).set_index(["region", "hemisphere"])
    print(f"mean thickness of the cortex: {thickness.loc[('cortex', 'both'), 'thickness_mean']:.2f} mm")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
