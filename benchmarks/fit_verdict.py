"""Error rates of the checks of PET against T1w: own heads, exchanged heads, mirrored and turned PET, wrong voxel sizes.

    python benchmarks/fit_verdict.py SHARED_DATA [--simulated 8] [--seed 71] [--pairs 60] [--json FILE]

Heads are those of ds-simtau with PET, the template of real_pet, and simulated ones at 2 mm. Every PET is registered to
its own T1w, and judged as it is, mirrored, turned by 180 degrees about each axis, moved by 60 mm, and with voxels wrong
by 25 %; then the first ``--pairs`` pairs of a PET and the T1w of another head. One line per scan, one per kind.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from coregistration_offsets import simulated, template

from tau_pipeline.derivatives.quality_checks import judge, worst
from tau_pipeline.imaging.header_orientation import Readings
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


def heads(data: Path, count: int, seed: int) -> dict[str, Head]:
    """Return all heads by name."""
    cases = [*(simulated(data, name) for name in ("sub-01", "sub-02", "sub-03")), template(data)]
    found = {case.name: (case.pet, case.t1w, case.mask) for case in cases}
    settings, model = Simulation(count + 1, seed, 2.0), load_template()
    for number in (one for one in range(1, count + 2) if one != 4):
        plan = plan_participant(number, settings)
        (visit,) = draw_visits(number, plan, seed)
        head = make_head(visit.head, model, 2.0)
        assert visit.pet is not None
        pet = make_pet(visit.pet, head).pet
        frames = plan_frames(pet.shape, pet_sidecar(SCANNERS[plan.scanner], plan.frames))
        static = static_image(pet, frames, correct_motion(pet, frames))
        mask = image_like(np.asanyarray(head.labels.dataobj) > 0, head.t1w)
        found[f"simulated-{number:02d}"] = static, head.t1w, mask
    return found


def changed(pet: Volume, linear: np.ndarray, shift_mm: tuple[float, float, float] = (0, 0, 0)) -> Volume:
    """Return the PET with another header: its world changed about the middle of the image."""
    move: Affine = np.eye(4)
    middle = (pet.affine @ [*((np.array(pet.shape) - 1) / 2), 1])[:3]
    move[:3, :3] = linear
    move[:3, 3] = middle - linear @ middle + shift_mm
    return image_on(np.asanyarray(pet.dataobj), move @ pet.affine)


def variants(pet: Volume) -> Iterator[tuple[str, Volume]]:
    """Yield a PET as it is and with planted faults, by kind."""
    yield "own", pet
    yield "mirrored", changed(pet, np.diag([-1.0, 1, 1]))
    for axis, signs in (("x", (1, -1, -1)), ("y", (-1, 1, -1)), ("z", (-1, -1, 1))):
        yield f"turned about {axis}", changed(pet, np.diag(np.array(signs, float)))
    yield "moved by 60 mm", changed(pet, np.eye(3), (35, -35, 34))
    for size in ((1.25, 1.25, 1.25), (0.8, 0.8, 0.8), (1, 1, 1.25), (1, 1, 0.8)):
        yield f"voxels times {size}", changed(pet, np.diag(np.array(size, float)))


def judged(pet: Volume, t1w: Volume, mask: Volume) -> dict[str, object]:
    """Return the worst verdict on a PET, the checks that are not passed, and the figures."""
    found = coregister_scan(pet, t1w, mask, Readings(pet.affine))
    figures = {**found.figures, **move(found.move, mask), "RegistrationTrusted": float(found.rigid.plausible)}
    checks = [one for one in judge(figures) if one["Check"].startswith("coreg_")]
    doubts = {one["Check"]: one["Verdict"] for one in checks if one["Verdict"] in ("warn", "fail")}
    return {"verdict": worst(one["Verdict"] for one in checks), "doubts": doubts, **figures}


def main() -> int:
    """Print the verdicts, and how many there are of each for each kind; 1 if a good scan fails or a bad one passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--simulated", type=int, default=8)
    parser.add_argument("--seed", type=int, default=71)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = heads(args.data, args.simulated, args.seed)
    names = list(found)
    jobs = [(kind, name, name, pet) for name in names for kind, pet in variants(found[name][0])]
    shifted = [(names[i], names[(i + k) % len(names)]) for k in range(1, len(names)) for i in range(len(names))]
    jobs += [("another head", one, other, found[one][0]) for one, other in shifted[: args.pairs]]
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    rows = []
    for kind, name, other, pet in jobs:
        row = judged(pet, *found[other][1:])
        counts[kind][str(row["verdict"])] += 1
        rows.append({"kind": kind, "pet": name, "t1w": other, **row})
        print(kind, name, other, row["verdict"], row["doubts"], flush=True)
    for kind, verdicts in counts.items():
        print(f"{kind}: {dict(verdicts)}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    wrong = counts["own"]["fail"] + sum(verdicts["pass"] for kind, verdicts in counts.items() if kind != "own")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
