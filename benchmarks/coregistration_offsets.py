"""Twenty random rigid offsets put on the headers of PET scans whose true place is known: how many are found.

    python benchmarks/coregistration_offsets.py SHARED_DATA [--offsets 20] [--shift 40] [--turn 25]
                                                [--scans sub-01 template] [--json FILE]

SHARED_DATA holds ds-simtau and real_pet. An offset shifts by up to 40 mm and turns by up to 25 degrees (or what the
options give) about the center of the brain; the first ten are at that limit, the others anywhere below it. The error is
the mean distance, over points of the brain, between where the found and the true transform put them. The bar is 1 mm,
and 2 mm for the template.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.transforms import displacement_mm
from tau_pipeline.imaging.volume import Affine, Volume, image_on
from tau_pipeline.pet.coregister import coregister
from tau_pipeline.pet.frames import plan_frames
from tau_pipeline.pet.motion import correct_motion, static_image


@dataclass(frozen=True)
class Case:
    """A PET with its T1w, the true move from one to the other, and brain points in T1w world."""

    name: str
    pet: Volume
    t1w: Volume
    mask: Volume
    true: Affine
    points: np.ndarray
    bar_mm: float


def simulated(data: Path, sub: str) -> Case:
    """Return a scan of ds-simtau; moving frames are first brought to their reference frame."""
    dataset = data / "ds-simtau"
    truth = next(s for s in json.loads((dataset / "truth/scans.json").read_text()) if s["participant"] == sub)
    t1w = load_volume(dataset / sub / "anat" / f"{sub}_T1w.nii.gz", 3)
    mask = resample(load_volume(dataset / "truth" / f"{sub}_mask.nii.gz"), t1w, np.eye(4), "nearest")
    pet_file = next((dataset / sub / "pet").glob("*_pet.nii.gz"))
    pet = load_volume(pet_file)
    plan = plan_frames(pet.shape, json.loads(Path(str(pet_file).replace(".nii.gz", ".json")).read_text()))
    motion = correct_motion(pet, plan)
    return Case(
        sub,
        static_image(pet, plan, motion),
        t1w,
        mask,
        np.array(truth["frames"][motion.reference]),
        brain_points(mask),
        1.0,
    )


def template(data: Path) -> Case:
    """Return the averaged PET and T1w of SPM, with skull, in one space."""
    from tau_pipeline.anatomy.brain_mask import extract_brain

    t1w = load_volume(data / "real_pet/spm_avg152T1.nii.gz", 3)
    mask = extract_brain(t1w)
    pet = load_volume(data / "real_pet/spm_PET.nii.gz", 3)
    return Case("template", pet, t1w, mask, np.eye(4), brain_points(mask), 2.0)


def brain_points(mask: Volume) -> np.ndarray:
    """Return a few hundred points of a mask in world coordinates."""
    voxels = np.argwhere(np.asanyarray(mask.dataobj) > 0)
    return voxels[:: max(1, len(voxels) // 500)] @ mask.affine[:3, :3].T + mask.affine[:3, 3]


def offset(number: int, about: np.ndarray, shift_mm: float = 40.0, turn_deg: float = 25.0) -> Affine:
    """Return offset ``number`` of the series: a rotation about ``about`` and a translation."""
    rng = np.random.default_rng([20, number])
    axis, direction = rng.normal(size=3), rng.normal(size=3)
    share = (1.0, 1.0) if number < 10 else rng.random(2)
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.radians(turn_deg) * share[0]).as_matrix()
    move[:3, 3] = about - move[:3, :3] @ about + direction / np.linalg.norm(direction) * shift_mm * share[1]
    return move


def found_error(case: Case, number: int, *limits: float) -> dict[str, float | bool]:
    """Return the error of one offset, mm, with the metric and the CPU seconds."""
    inverse = np.linalg.inv(case.true)
    in_pet = case.points @ inverse[:3, :3].T + inverse[:3, 3]
    moved = offset(number, in_pet.mean(axis=0), *limits)
    pet = image_on(np.asanyarray(case.pet.dataobj), moved @ case.pet.affine)
    begin = time.process_time()
    rigid = coregister(pet, case.t1w, case.mask)
    seconds = time.process_time() - begin
    error = displacement_mm(rigid.matrix @ moved, case.true, in_pet)
    return {
        "mean_mm": float(error.mean()),
        "worst_mm": float(error.max()),
        "metric": rigid.metric,
        "plausible": rigid.plausible,
        "cpu_s": seconds,
    }


def main() -> int:
    """Print one line per offset and one per scan; 1 when an offset was not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--offsets", type=int, default=20)
    parser.add_argument("--shift", type=float, default=40.0, help="largest shift, mm (default 40)")
    parser.add_argument("--turn", type=float, default=25.0, help="largest rotation, degrees (default 25)")
    parser.add_argument("--scans", nargs="+", default=["sub-01", "sub-02", "sub-03", "template"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    everything: dict[str, list[dict[str, float | bool]]] = {}
    missed = 0
    for name in args.scans:
        case = template(args.data) if name == "template" else simulated(args.data, name)
        rows = everything[name] = []
        for number in range(args.offsets):
            row = found_error(case, number, args.shift, args.turn)
            rows.append(row)
            print(f"{name} {number:2d}", *(f"{key} {value:.3f}" for key, value in row.items()), flush=True)
        means = np.array([row["mean_mm"] for row in rows])
        missed += int((means > case.bar_mm).sum())
        print(
            f"{name}: {int((means <= case.bar_mm).sum())} of {len(rows)} within {case.bar_mm:g} mm; mean error: median "
            f"{np.median(means):.3f}, largest {means.max():.3f} mm; {np.mean([r['cpu_s'] for r in rows]):.1f} CPU s",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(everything, indent=1))
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
