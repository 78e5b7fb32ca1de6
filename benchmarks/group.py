"""Time and memory of the group level over many scans: tables and sidecars alone, simulated, no images.

    python benchmarks/group.py [--scans 1000]

Prints one line: scans, wall time, peak memory of the process, size of the tables and of the page. The tables are drawn
at random around a cortical SUVR that differs by manufacturer and diagnosis; nothing in them comes from a person.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from tau_pipeline.derivatives.dataset import write_dataset_files
from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.derivatives.sidecars import bids_uri
from tau_pipeline.derivatives.status import ScanStatus, update_status
from tau_pipeline.files import write_json, write_tsv
from tau_pipeline.imaging.volume import image_on
from tau_pipeline.measures.regions import regional_table

MAKERS = {"SIEMENS": 1.0, "GE MEDICAL SYSTEMS": 0.9, "Philips": 1.1}
GROUPS = {"CN": 1.15, "MCI": 1.3, "AD": 1.6}


def simulated_results(root: Path, count: int, seed: int = 0) -> tuple[Path, Path]:
    """Write participants.tsv, and tables and sidecars of ``count`` scans, as the participant level does."""
    rng = np.random.default_rng(seed)
    bids, out = root / "bids", root / "out"
    bids.mkdir()
    write_json({"Name": "SIMULATED tables", "BIDSVersion": "1.10.0"}, bids / "dataset_description.json")
    write_dataset_files(out, bids)
    people = []
    for number in range(count):
        label, maker = f"{number:04d}", list(MAKERS)[number % 3]
        group = list(GROUPS)[(number // 3) % 3]
        level = MAKERS[maker] * GROUPS[group]
        names = PetNames(out, {"sub": label, "trc": "AV1451"})
        write_tsv(scan_rows(rng, f"sub-{label}", maker, level), names.rois)
        write_json(scan_sidecar(rng, out, label, maker, level), sidecar_path(names.suvr()))
        key = f"sub-{label}_trc-AV1451_pet"
        update_status(
            out, {key: ScanStatus(key, "done", "", key.removesuffix("_pet"), None, "AV1451", maker, None, 2.0)}
        )
        people.append({"participant_id": f"sub-{label}", "age": int(rng.integers(55, 90)), "sex": "F", "group": group})
    write_tsv(pd.DataFrame(people), bids / "participants.tsv")
    return bids, out


@cache
def _regions() -> pd.DataFrame:
    blank = image_on(np.ones((2, 2, 2), np.float32), np.eye(4))
    labels = image_on(np.full((2, 2, 2), 8, np.int32), np.eye(4))
    return regional_table(blank, labels, labels, "CerebellarGM", {"tracer": "AV1451", "source": "measured"})


def scan_rows(rng: np.random.Generator, participant: str, maker: str, level: float) -> pd.DataFrame:
    """Return the table of regions of a scan, with SUVR drawn around a level."""
    rows = _regions()
    mean = np.where(rows["kind"] == "reference", 1.0, level * rng.normal(1, 0.08, len(rows)))
    table = rows.assign(participant_id=participant, manufacturer=maker, suvr_mean=mean, suvr_median=mean)
    return table.assign(suvr_sd=rng.uniform(0.1, 0.2, len(rows)), n_voxels=500, volume_mm3=500.0)


def scan_sidecar(rng: np.random.Generator, out: Path, label: str, maker: str, level: float) -> dict[str, object]:
    """Return the sidecar of a scan's SUVR map."""
    return {
        "SpatialReference": bids_uri(AnatNames(out, {"sub": label}).t1w, out, ""),
        "ReferenceRegion": "CerebellarGM",
        "ReferenceValue": float(rng.normal(4000, 300)),
        "ReferenceRegionVolume": float(rng.normal(9e4, 5e3)),
        "TracerName": "AV1451",
        "Manufacturer": maker,
        "EffectiveFWHM": 6.0,
        "RegistrationMetric": float(rng.normal(1.2, 0.02)),
        "FrameMotion": [0.0],
        "Assumptions": [],
        "BrainVolume": float(rng.normal(1.4e6, 1e5)),
        "BrainVoxels": 1_400_000,
        "BrainMean": float(level * rng.normal(0.95, 0.03)),
        "BrainStandardDeviation": float(level * 0.2),
        "CorticalPercentiles": {str(p): float(level * f) for p, f in ((75, 1.1), (90, 1.25), (99, 1.5))},
        "Noise": float(rng.uniform(0.05, 0.12)),
    }


def main() -> None:
    """Simulate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=1000, help="how many (default 1000)")
    count = parser.parse_args().scans
    with tempfile.TemporaryDirectory() as folder:
        bids, out = simulated_results(Path(folder), count)
        command = [sys.executable, "-m", "tau_workflows.cli", str(bids), str(out), "group"]
        started = time.monotonic()
        code = subprocess.run(command, check=False, env={**os.environ, "NO_ET": "1", "NIPYPE_NO_ET": "1"}).returncode
        seconds = time.monotonic() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        sizes = {path.name: path.stat().st_size / 2**20 for path in sorted((out / "group").iterdir())}
    peak_mb, cpu = used.ru_maxrss / 1024, used.ru_utime
    print(f"{count} scans: exit {code}, {seconds:.1f} s ({cpu:.1f} s of CPU), peak {peak_mb:.0f} MB")
    print(", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
