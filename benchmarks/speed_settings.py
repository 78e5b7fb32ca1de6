"""Seconds per training step under the settings of speed, one at a time, beside the defaults.

    python benchmarks/speed_settings.py [--size 32 40 32] [--threads 1] [--device cuda]

U-Net laptop with group normalization, MSE + SSIM, batch 1: the settings change the network, not the perceptual loss.
Each case runs in a separate process: the first step, which pays for what is prepared, and the median of those after
the third; on a CPU, in seconds of processor time, which other work on the machine changes less. How images are loaded
(workers, pinned memory) is not measured here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from child_process import run_child

from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.losses.weighted import build_loss
from tau_pipeline.synthesis.networks.systems import Options, build_system
from tau_pipeline.synthesis.training.optimization import autocast, prepare_network

CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "channels_last": {"channels_last": True},
    "compile_network": {"compile_network": True},
    "mixed_precision bf16": {"mixed_precision": "bf16"},
    "without cudnn_benchmark": {"cudnn_benchmark": False},
}
_STEPS, _WARM_UP = 13, 3


def child(name: str, size: tuple[int, int, int], device: torch.device) -> None:
    """Take some steps and print what they cost as JSON."""
    settings = Training(loss="mse_ssim", ssim_window=7, norm_layer="group", **CASES[name])
    system = build_system("unet", "laptop", size, Options(norm_layer="group")).to(device)
    prepare_network(system.generator, settings, device)
    loss, optimizer = build_loss(settings), torch.optim.Adam(system.parameters(), lr=5e-4)
    t1w, pet = torch.rand(2, 1, 1, *size, device=device)
    if settings.channels_last:
        t1w = t1w.to(memory_format=torch.channels_last_3d)
    seconds, clock = [], time.process_time if device.type == "cpu" else time.perf_counter
    for _ in range(_STEPS):
        started = clock()
        optimizer.zero_grad()
        with autocast(settings, device):
            value, _ = system.step_loss(
                "generator", t1w, pet, lambda prediction, measured: loss(prediction, measured, 0)
            )
        value.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - started)
    print(json.dumps({"first": seconds[0], "median": float(np.median(seconds[_WARM_UP:]))}))


def main() -> int:
    """Measure every case and print a line of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, default=(32, 40, 32))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        child(args.child, tuple(args.size), torch.device(args.device))
        return 0
    arguments = ["--size", *map(str, args.size), "--threads", str(args.threads), "--device", args.device]
    for name in CASES if args.device != "cpu" else [case for case in CASES if "cudnn" not in case]:
        found = run_child(__file__, [*arguments, "--child", name], args.threads)
        print(f"{name}: {found['median']:.3f} s a step, {found['first']:.1f} s the first", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
