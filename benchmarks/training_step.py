"""Time and memory of one training step of every system with every loss, and of the paper's U-Net at full size.

    python benchmarks/training_step.py VGG16_FILE [--size 64 64 64] [--threads 2] [--json FILE]
    python benchmarks/training_step.py VGG16_FILE --paper   # only the paper's U-Net at 160 x 192 x 160, batch 1
    python benchmarks/training_step.py VGG16_FILE --memory  # what tau_workflows/training_memory.py has of each system

A step is forward, loss, backward and Adam of every phase, in float32, batch 1. Each case runs in a separate process;
the time is that of the second step (the first one makes Adam's moments), the memory is the peak of the whole process
over both, with Python, torch and the weights. The 3-D perceptual loss uses the ResNet with 10 layers and random
weights: its cost does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from child_process import forget_peak, memory_mb, run_child

from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.losses.weighted import build_loss
from tau_pipeline.synthesis.networks.networks import NETWORKS
from tau_pipeline.synthesis.networks.systems import build_system

LOSSES = ("mse_ssim", "2.5d", "3d", "cyclic2.5d")
#: Of the paper's U-Net on the paper's grid, a step must stay below this, in GB (10**9 bytes).
PAPER_GB = 12.0
#: Grids by which memory is put into a line of fixed and growing part; every system takes both.
SMALL, LARGE = (64, 64, 64), (96, 96, 96)


def child(system_name: str, kind: str, preset: str, size: tuple[int, int, int], vgg16: Path) -> None:
    """Take two steps and print what the second cost as JSON."""
    import time

    features = "random" if kind == "3d" else "pretrained"
    loss = build_loss(Training(loss=kind, perceptual_features=features, perceptual_weights_file=vgg16))  # type: ignore[arg-type]
    system = build_system(system_name, preset, size)  # type: ignore[arg-type]
    optimizers = {phase: torch.optim.Adam(system.parameters_of(phase), lr=5e-4) for phase in system.phases}
    t1w, pet = torch.rand(2, 1, 1, *size)
    forget_peak()
    for _ in range(2):
        started = time.perf_counter()
        for phase, optimizer in optimizers.items():
            optimizer.zero_grad()
            value, _ = system.step_loss(phase, t1w, pet, lambda prediction, measured: loss(prediction, measured, 0))
            value.backward()
            optimizer.step()
        seconds = time.perf_counter() - started
    n_parameters = sum(parameter.numel() for parameter in system.parameters())
    print(json.dumps({"seconds": seconds, "peak_mb": memory_mb("VmHWM"), "parameters": n_parameters}))


def main() -> int:
    """Measure every case and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vgg16", type=Path)
    parser.add_argument("--size", type=int, nargs=3, default=(64, 64, 64))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--paper", action="store_true", help="only the paper's U-Net at 160 x 192 x 160")
    parser.add_argument("--memory", action="store_true", help="only memory, by system and preset, at two sizes")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        child(*args.child, tuple(args.size), args.vgg16)
        return 0
    if args.memory:
        print_memory(args)
        return 0
    costs = {}
    if not args.paper:
        sides = " x ".join(map(str, args.size))
        print(f"Preset laptop, {sides}, batch 1, {args.threads} threads: seconds a step, and peak GB of the process\n")
        print("| system | parameters |", " | ".join(LOSSES), "|")
        print("|---|---|" + "---|" * len(LOSSES))
        for name in NETWORKS:
            cases = [measure((name, kind, "laptop"), args.size, args) for kind in LOSSES]
            costs |= {f"{name}/{kind}": case for kind, case in zip(LOSSES, cases, strict=True)}
            cells = " | ".join(f"{case['seconds']:.1f} s, {gb(case):.1f}" for case in cases)
            print(f"| {name} | {cases[0]['parameters'] / 1e6:.1f} M | {cells} |", flush=True)
        print()
    for kind in ("mse_ssim", "cyclic2.5d"):
        case = costs[f"paper/{kind}"] = measure(("unet", kind, "paper"), (160, 192, 160), args)
        verdict = "met" if gb(case) < PAPER_GB else "MISSED"
        print(
            f"The paper's U-Net ({case['parameters'] / 1e6:.1f} M parameters), 160 x 192 x 160, {kind}: "
            f"{case['seconds']:.1f} s a step, {gb(case):.2f} GB at the peak; bar of {PAPER_GB:.0f} GB {verdict}.",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(costs, indent=2) + "\n")
    return 0


def print_memory(args: argparse.Namespace) -> None:
    """Print peak memory at two sizes with the cyclic loss, and the line through them."""
    print(
        "| system | preset | GB at 64^3 | GB at 96^3 | GB without an image | GB a million voxels |\n" + "|---" * 6 + "|"
    )
    million = [math.prod(size) / 1e6 for size in (SMALL, LARGE)]
    for preset in ("laptop", "paper"):
        for name in NETWORKS:
            small, large = (gb(measure((name, "cyclic2.5d", preset), size, args)) for size in (SMALL, LARGE))
            slope = (large - small) / (million[1] - million[0])
            fixed = small - slope * million[0]
            print(f"| {name} | {preset} | {small:.2f} | {large:.2f} | {fixed:.2f} | {slope:.2f} |", flush=True)


def measure(case: tuple[str, str, str], size: tuple[int, int, int], args: argparse.Namespace) -> dict:
    """Run one case in a separate process."""
    arguments = [str(args.vgg16), "--size", *map(str, size), "--threads", str(args.threads), "--child", *case]
    return run_child(__file__, arguments, args.threads)


def gb(case: dict) -> float:
    """Return peak memory in GB (10**9 bytes)."""
    return case["peak_mb"] * 2**20 / 1e9


if __name__ == "__main__":
    sys.exit(main())
