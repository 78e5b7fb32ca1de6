"""Error rates of the checks of PET against T1w: own heads, exchanged heads, mirrored and turned PET, wrong voxel sizes.

    python benchmarks/fit_verdict.py SHARED_DATA FOLDER [--simulated 6] [--seed 71] [--kinds KIND ...]

Heads are those of ds-simtau with PET, the template of real_pet, and simulated ones, all at 2 mm with their true brain
masks. Every PET is registered to its own T1w, and judged as it is, mirrored, turned by 180 degrees, moved by 60 mm, and
with voxels wrong by 25 %; and every PET is registered to the T1w of every other head. One line per scan, then a table
of kinds. FOLDER keeps the heads and the results (results.jsonl): started again, the program goes on where it ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from coregistration_offsets import simulated, template

from tau_pipeline.derivatives.quality_checks import judge, worst
from tau_pipeline.imaging.brain_grid import grid_about
from tau_pipeline.imaging.header_orientation import Readings
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.smooth import smooth
from tau_pipeline.imaging.volume import Affine, Volume, image_like, image_on
from tau_pipeline.measures.quality_figures import move
from tau_pipeline.pet.coregister import coregister_scan
from tau_pipeline.pet.frames import plan_frames
from tau_pipeline.pet.motion import correct_motion, static_image
from tau_pipeline.simulate.dataset import Simulation, draw_visits, plan_participant
from tau_pipeline.simulate.heads import make_head
from tau_pipeline.simulate.metadata import pet_sidecar
from tau_pipeline.simulate.pet import SCANNERS, make_pet
from tau_pipeline.simulate.template import load_template

#: PET, T1w and brain mask of one head.
Head = tuple[Volume, Volume, Volume]

#: Heads are kept at this voxel size, that of the registration.
_MM = 2.0
#: Kinds whose scans are good.
_GOOD = ("own",)


def heads(data: Path, folder: Path, count: int, seed: int) -> dict[str, Head]:
    """Return all heads by name, from the folder where they are there already."""
    names = ["sub-01", "sub-02", "sub-03", "template"]
    numbers = [one for one in range(1, count + 2) if one != 4][:count]
    makers = {name: lambda name=name: _shared(data, name) for name in names}
    makers |= {f"simulated-{number:02d}": lambda number=number: _simulated(number, seed) for number in numbers}
    found = {}
    for name, make in makers.items():
        paths = [folder / f"{name}_{part}.nii" for part in ("pet", "t1w", "mask")]
        if not all(path.exists() for path in paths):
            for img, path in zip(make(), paths, strict=True):
                nib.save(img, path)
        pet, t1w, mask = map(load_volume, paths)
        found[name] = pet, t1w, mask
    return found


def _shared(data: Path, name: str) -> Head:
    """Return a head of the shared data, its T1w and mask at 2 mm."""
    case = template(data) if name == "template" else simulated(data, name)
    grid = grid_about(case.mask, _MM, 24.0)
    t1w = resample(smooth(case.t1w, _MM / 2), grid, np.eye(4))
    return case.pet, t1w, resample(case.mask, grid, np.eye(4), "nearest")


def _simulated(number: int, seed: int) -> Head:
    """Return a head of tau-simulate at 2 mm."""
    plan = plan_participant(number, Simulation(number, seed, _MM))
    (visit,) = draw_visits(number, plan, seed)
    head = make_head(visit.head, load_template(), _MM)
    if visit.pet is None:
        raise ValueError(f"participant {number} has no PET; choose another number")
    pet = make_pet(visit.pet, head).pet
    frames = plan_frames(pet.shape, pet_sidecar(SCANNERS[plan.scanner], plan.frames))
    mask = image_like((np.asanyarray(head.labels.dataobj) > 0).astype(np.uint8), head.t1w)
    return static_image(pet, frames, correct_motion(pet, frames)), head.t1w, mask


def changed(pet: Volume, linear: np.ndarray, shift_mm: tuple[float, float, float] = (0, 0, 0)) -> Volume:
    """Return the PET with another header: its world changed about the middle of the image."""
    there: Affine = np.eye(4)
    middle = (pet.affine @ [*((np.array(pet.shape) - 1) / 2), 1])[:3]
    there[:3, :3] = linear
    there[:3, 3] = middle - linear @ middle + shift_mm
    return image_on(np.asanyarray(pet.dataobj), there @ pet.affine)


def kinds() -> dict[str, tuple[np.ndarray, tuple[float, float, float]]]:
    """Return what is done to the header of a PET, by kind: a linear map and a shift."""
    still = (0.0, 0.0, 0.0)
    found = {
        "own": (np.eye(3), still),
        "mirrored": (np.diag([-1.0, 1, 1]), still),
        "turned about z": (np.diag([-1.0, -1, 1]), still),
        "turned about x": (np.diag([1.0, -1, -1]), still),
        "turned about y": (np.diag([-1.0, 1, -1]), still),
    }
    sizes = [(1.25, 1.25, 1.25), (0.8, 0.8, 0.8), (1, 1, 1.25), (1, 1, 0.8)]
    found |= {f"voxels times {size}": (np.diag(np.array(size, float)), still) for size in sizes}
    return found | {"moved by 60 mm": (np.eye(3), (35.0, -35.0, 34.0))}


def jobs(found: dict[str, Head], wanted: list[str]) -> Iterator[tuple[str, str, str, Volume]]:
    """Yield kind, name of the PET, name of the T1w, and the PET, kind by kind."""
    for kind in wanted:
        if kind == "another head":
            pairs = [(one, other) for one, other in product(found, repeat=2) if one != other]
            yield from ((kind, one, other, found[one][0]) for one, other in pairs)
        else:
            yield from ((kind, name, name, changed(head[0], *kinds()[kind])) for name, head in found.items())


def judged(pet: Volume, t1w: Volume, mask: Volume) -> dict[str, object]:
    """Return the worst verdict on a PET, the checks that are not passed, and the figures."""
    found = coregister_scan(pet, t1w, mask, Readings(pet.affine))
    figures = {**found.figures, **move(found.move, mask), "RegistrationTrusted": float(found.rigid.plausible)}
    checks = [one for one in judge(figures) if one["Check"].startswith("coreg_")]
    doubts = {one["Check"]: one["Verdict"] for one in checks if one["Verdict"] in ("warn", "fail")}
    return {"verdict": worst(one["Verdict"] for one in checks), "doubts": doubts, **figures}


def main() -> int:
    """Print the verdicts, and how many there are of each for each kind; 1 if a good scan fails or a bad one passes."""
    every = [*[*kinds()][:3], "another head", *[*kinds()][3:]]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--simulated", type=int, default=6)
    parser.add_argument("--seed", type=int, default=71)
    parser.add_argument("--kinds", nargs="+", choices=every, default=every)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    results = args.folder / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(row["kind"], row["pet"], row["t1w"]) for row in rows}
    found = heads(args.data, args.folder, args.simulated, args.seed)
    for kind, name, other, pet in jobs(found, args.kinds):
        if (kind, name, other) in done:
            continue
        row = {"kind": kind, "pet": name, "t1w": other, **judged(pet, *found[other][1:])}
        rows.append(row)
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(kind, name, other, row["verdict"], row["doubts"], flush=True)
    table = pd.DataFrame(rows)
    counts = pd.crosstab(table["kind"], table["verdict"]).reindex(columns=["pass", "warn", "fail"], fill_value=0)
    print(counts.to_string())
    good = counts.index.isin(_GOOD)
    return int(counts["fail"][good].sum() + counts["pass"][~good].sum() > 0)


if __name__ == "__main__":
    sys.exit(main())
