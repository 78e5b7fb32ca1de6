"""Time and memory of the synthesize level for one head, at the size of the paper's U-Net (160 x 192 x 160 at 1 mm).

The weights are not trained, which makes no difference to either. Derivatives of any resolution are brought to 1 mm.

    python benchmarks/synthesize.py --bids BIDS --derivatives OUT --participant 01 --network unet
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from tau_pipeline.derivatives.dataset import write_dataset_files
from tau_pipeline.files import read_json, write_json
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import image_on, save_volume


def to_one_mm(source: Path, target: Path) -> None:
    """Copy the T1w derivatives of a participant, resampled to 1 mm; labels by nearest neighbor."""
    from scipy import ndimage

    for path in sorted(source.glob("anat/*.nii.gz")):
        img = load_volume(path, ndim=3)
        zoom = np.sqrt((img.affine[:3, :3] ** 2).sum(axis=0))
        labels = not path.name.endswith("_T1w.nii.gz")
        values = ndimage.zoom(np.asarray(img.dataobj), zoom, order=0 if labels else 1, grid_mode=True, mode="nearest")
        scale = np.array(img.shape) / values.shape
        affine = img.affine @ np.diag([*scale, 1.0])
        affine[:3, 3] += img.affine[:3, :3] @ ((scale - 1) / 2)
        save_volume(image_on(values, affine), target / "anat" / path.name)
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        write_json(read_json(sidecar), target / "anat" / sidecar.name)


def write_model(folder: Path, network: str, preset: str, side: tuple[int, int, int]) -> None:
    """Write an untrained model folder."""
    import torch

    from tau_pipeline.cohort.standardize import ManufacturerFit, Standardization
    from tau_pipeline.synthesis.data.grid import Grid
    from tau_pipeline.synthesis.data.scaling import ByManufacturer
    from tau_pipeline.synthesis.model.card import ModelCard
    from tau_pipeline.synthesis.model.folder import save_model
    from tau_pipeline.synthesis.networks.systems import build_system

    torch.manual_seed(0)
    grid = Grid(side, (1.0, 1.0, 1.0))
    group = ManufacturerFit(1.1, 0.3, ("sub-someone",))
    fit = ByManufacturer(Standardization({"GE": group}, group, "error", "flortaucipir", "CerebellarGM"))
    row = {"participant_id": "sub-someone", "split": "train", "manufacturer": "GE", "diagnosis": "CN"}
    system = build_system(network, preset, image_size=grid.shape)
    save_model(folder, system, ModelCard(network, preset, grid, {}, 0), fit, pd.DataFrame([row]))


RUN = """
import sys
from pathlib import Path
from tau_pipeline.settings.configuration import configuration
from tau_workflows.levels.synthesize import run_synthesis
bids, out, model, work, threads, flips = sys.argv[1:]
options = {"model": (model,), "as_manufacturer": "GE", "work_dir": Path(work), "device": "cpu",
           "omp_nthreads": int(threads), "test_time_flips": flips == "1"}
sys.exit(run_synthesis(Path(bids), Path(out), configuration(None, options)))
"""


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bids", type=Path, required=True)
    parser.add_argument("--derivatives", type=Path, required=True)
    parser.add_argument("--participant", required=True)
    parser.add_argument("--network", default="unet")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", type=int, nargs=3, default=(160, 192, 160))
    parser.add_argument("--no-flips", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_dataset_files(root / "out", given.bids)
        to_one_mm(given.derivatives / f"sub-{given.participant}", root / "out" / f"sub-{given.participant}")
        write_model(root / "model", given.network, given.preset, tuple(given.side))
        started = time.monotonic()
        places = [str(root / part) for part in ("out", "model", "work")]
        how = [str(given.threads), "0" if given.no_flips else "1"]
        done = subprocess.run([sys.executable, "-c", RUN, str(given.bids), *places, *how], check=True)
        seconds = time.monotonic() - started
        table = next((root / "out").glob("sub-*/pet/*_desc-synthSUVR_rois.tsv"))
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"{given.network} ({given.preset}), {given.threads} threads, "
            f"{1 if given.no_flips else 2} passes: {seconds:.0f} s, {peak_mb:.0f} MB from T1w derivative to "
            f"{table.name}, exit code {done.returncode}"
        )


if __name__ == "__main__":
    main()
