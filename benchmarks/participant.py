"""One participant from raw data to table: time and memory of the pipeline, beside the obvious script of antspyx calls.

    python benchmarks/participant.py BIDS_DIR PARTICIPANT [--nprocs 2] [--runs 1] [--json FILE]

Each of the two runs in a new process with new folders, so that nothing is cached. Memory is the largest sum, over the
processes of a run, of what each holds alone plus its share of what it shares (PSS), looked at five times a second. The
obvious script does the same job as one would write it first: deepbet, N4, Atropos, SyN at full resolution, nearest
cortical label for each gray-matter voxel, rigid registration, mean of the cerebellar cortex; no figures, pages,
sidecars or checks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tau_pipeline.atlas import atlas_files
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import to_ants


@dataclass(frozen=True)
class Cost:
    """Cost of one run."""

    name: str
    seconds: float
    peak_mb: float
    steps_s: dict[str, float]


def measured(name: str, command: list[str], threads: int, times_file: Path) -> Cost:
    """Run a command to its end, and look at the memory of its processes on the way.

    Raises
    ------
    RuntimeError
        The command failed.
    """
    env = {**os.environ, "NO_ET": "1", "NIPYPE_NO_ET": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}
    started, peak = time.monotonic(), 0.0
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        peak = max(peak, memory_mb(process.pid))
        time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(f"{name} failed: {process.stderr.read().decode()[-2000:] if process.stderr else ''}")
    seconds = time.monotonic() - started
    return Cost(name, seconds, peak, json.loads(times_file.read_text())["steps_s"])


def memory_mb(pid: int) -> float:
    """Return the PSS of a process and all its children, in MB; 0 once it is gone."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:
        return total / 2**20
    return total / 2**20


def pipeline(bids: Path, participant: str, nprocs: int, folder: Path) -> Cost:
    """Run the command line as a user would."""
    command = [sys.executable, "-m", "tau_workflows.cli", str(bids), str(folder / "out"), "participant"]
    command += ["--participant-label", participant, "--work-dir", str(folder / "work"), "--nprocs", str(nprocs)]
    return measured("tau-pipeline", command, 1, folder / "work" / "times" / f"sub-{participant}.json")


def obvious(bids: Path, participant: str, nprocs: int, folder: Path) -> Cost:
    """Run the script below with as many ITK threads as the pipeline has processes."""
    command = [sys.executable, __file__, "--obvious", str(folder), str(bids), participant]
    return measured("plain antspyx calls", command, nprocs, folder / "times.json")


def obvious_script(bids: Path, participant: str, folder: Path) -> None:
    """Do the job in plain calls, for a static PET; writes the seconds of each step."""
    import ants
    import numpy as np
    import pandas as pd
    from deepbet.bet import BrainExtraction
    from scipy import ndimage

    steps: dict[str, float] = {}
    last = time.monotonic()

    def done(step: str) -> None:
        nonlocal last
        now = time.monotonic()
        steps[step], last = round(now - last, 1), now

    sub = bids / f"sub-{participant}"
    t1w_img, pet_img = (load_volume(next(sub.glob(name)), 3) for name in ("anat/*_T1w.nii.gz", "pet/*_pet.nii.gz"))
    t1w, pet = to_ants(t1w_img), to_ants(pet_img)
    mask_img = BrainExtraction(no_gpu=True).run(t1w_img)[1]
    mask = ants.resample_image_to_target(to_ants(mask_img), t1w, "nearestNeighbor")
    done("mask")
    t1w = ants.n4_bias_field_correction(t1w, mask=mask)
    done("N4")
    tissue = ants.atropos(a=t1w * mask, x=mask, i="kmeans[3]", m="[0.2,1x1x1]")["segmentation"]
    done("tissue (Atropos)")
    template, labels = (
        ants.image_read(str(path)) for path in (atlas_files().template_brain, atlas_files().desikan_killiany)
    )
    brain = t1w * mask
    found = ants.registration(brain, template, "antsRegistrationSyNQuick[s]")
    on_t1w = ants.apply_transforms(brain, labels, found["fwdtransforms"], interpolator="nearestNeighbor").numpy()
    cortex = on_t1w > 1000
    _, nearest = ndimage.distance_transform_edt(~cortex, return_indices=True)
    gray = (tissue.numpy() == 2) & ((on_t1w == 0) | cortex | np.isin(on_t1w, (2, 41)))
    dseg = np.where(gray, on_t1w[tuple(nearest)], np.where(cortex, 0, on_t1w))
    done("SyN and labels")
    moved = ants.registration(t1w, pet, "Rigid")
    activity = ants.apply_transforms(t1w, pet, moved["fwdtransforms"]).numpy()
    reference = activity[np.isin(dseg, (8, 47))].mean()
    means = {int(k): activity[dseg == k].mean() / reference for k in np.unique(dseg) if k}
    pd.Series(means, name="suvr_mean").to_csv(folder / "rois.tsv", sep="\t", index_label="index")
    done("coregistration, SUVR, table")
    (folder / "times.json").write_text(json.dumps({"steps_s": steps}))


def main() -> int:
    """Measure both, print a table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bids", type=Path)
    parser.add_argument("participant")
    parser.add_argument("--nprocs", type=int, default=2)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--obvious", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.obvious:
        obvious_script(args.bids, args.participant, args.obvious)
        return 0
    costs: list[Cost] = []
    for _ in range(args.runs):
        for run in (pipeline, obvious):
            with tempfile.TemporaryDirectory() as folder:
                costs.append(run(args.bids.absolute(), args.participant, args.nprocs, Path(folder)))
    for cost in costs:
        print(f"{cost.name:20s} {cost.seconds:6.1f} s   {cost.peak_mb / 1024:5.2f} GB")
        print("\n".join(f"    {step:40s} {seconds:6.1f} s" for step, seconds in cost.steps_s.items()))
    own, plain = costs[-2:]
    print(f"ratio, plain / pipeline: time {plain.seconds / own.seconds:.2f}, memory {plain.peak_mb / own.peak_mb:.2f}")
    if args.json:
        args.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
