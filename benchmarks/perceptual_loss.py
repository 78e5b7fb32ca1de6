"""The perceptual loss of one plane, value and gradient: time and memory beside the obvious loop and MONAI's loss.

    python benchmarks/perceptual_loss.py VGG16_FILE [--size 96 112 96] [--threads 2] [--repeats 3] [--json FILE]

Each contender runs in a separate process, on the same volumes, batch 1, axial plane; the time is the shortest of the
repeats. Extra memory is the peak of a call minus what the process held just before it. Weights and volumes are there
already, and so is what libraries keep for themselves (code, buffers of threads): a twin of each contender has been
called once before, on a volume of 16 x 16 x 16. The twin is thrown away and the contender built anew, so that what it
makes in its first call and keeps for later ones does count. "Full" volumes have contrast in every slice; in "brain"
volumes the brain is as large as an adult's at 2 mm and the rest is air, which the default setting skips.

The floor is what three passes (prediction, target, gradient) through all convolutions would take at the rate that torch
reaches here on the best of them, if nothing else took time. Winograd's method needs fewer operations, so ours may lie
below it.

MONAI's ``PerceptualLoss`` needs the packages lpips and torchvision for its network "vgg". Where they are missing, its
own code runs (all slices of the three planes, one batch a plane) with the network taken from VGG16_FILE: the first four
of the five layers that LPIPS compares, with equal weights for all channels. Its time is given for one plane, a third.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from child_process import cost_of, run_child
from scipy import ndimage
from torch import Tensor, nn

from tau_pipeline.synthesis.losses.features import load_vgg16_features
from tau_pipeline.synthesis.losses.weighted import PlanePerceptualLoss

#: Layers after which LPIPS compares the responses of VGG-16, by their number: relu1_2, relu2_2, relu3_3, relu4_3.
LPIPS_LAYERS = (3, 8, 15, 22)
#: An adult brain, from side to side, from front to back, from top to bottom (ICBM 152), in mm.
BRAIN_MM = (140.0, 175.0, 130.0)


def volumes(kind: str, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return a target, and a prediction that is a blurred and noisy copy, ``(1, 1, I, J, K)``; air is exactly 0."""
    rng = np.random.default_rng(0)
    target = ndimage.gaussian_filter(rng.standard_normal(size), 2.0)
    target = 1.0 + target / target.std()
    prediction = ndimage.gaussian_filter(target, 1.0) + 0.1 * rng.standard_normal(size)
    if kind == "brain":
        axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size), indexing="ij")
        inside = sum((axis / (mm / 4)) ** 2 for axis, mm in zip(axes, BRAIN_MM, strict=True)) <= 1
        target, prediction = target * inside, prediction * inside
    return tuple(torch.from_numpy(volume.astype(np.float32))[None, None] for volume in (prediction, target))


def obvious_loop(features: nn.Module, prediction: Tensor, target: Tensor) -> Tensor:
    """Call the network once per slice, with three channels; autograd keeps every response until the end."""
    total = torch.zeros(())
    for k in range(prediction.shape[4]):
        one, other = (
            ((image - image.min()) / (image.max() - image.min() + 1e-8)).repeat(1, 3, 1, 1)
            for image in (prediction[..., k], target[..., k])
        )
        total = total + nn.functional.mse_loss(features(one), features(other))
    return total / prediction.shape[4]


class LpipsStandIn(nn.Module):
    """Replacement for ``LPIPS(net="vgg")`` in MONAI: squared differences of unit-length responses of four layers."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def responses(self, images: Tensor) -> list[Tensor]:
        """Return unit-length responses of the layers to gray images ``(N, 1, H, W)``."""
        found, x = [], images.repeat(1, 3, 1, 1)
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in LPIPS_LAYERS:
                found.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the distance of each pair of images."""
        pairs = zip(self.responses(one), self.responses(other), strict=True)
        return sum((a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs)


def monai_loss(features: nn.Module) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """Return MONAI's own loss, and a note on what replaces missing weights."""
    from monai.losses import perceptual

    try:
        import lpips  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as exc:
        perceptual.LPIPS = lambda **_: LpipsStandIn(features)
        note = f"its network 'vgg' cannot be built ({exc}); replaced by LPIPS's first four layers from the same weights"
    else:
        # Their weights would be downloaded; random ones cost the same.
        note = "with lpips and torchvision, random weights"
    loss = perceptual.PerceptualLoss(3, "vgg", is_fake_3d=True, fake_3d_ratio=1.0, pretrained=False)
    loss.requires_grad_(False)
    return loss, note


def built(contender: str, features: nn.Module) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """Build a contender from its name, and return it with a note."""
    if contender == "loop":
        return (lambda prediction, target: obvious_loop(features, prediction, target)), ""
    if contender == "monai":
        return monai_loss(features)
    ours = PlanePerceptualLoss(features, empty_slices="skip" if contender == "skip" else "paper")
    return (lambda prediction, target: ours(prediction, target, "axial")), ""


def child(name: str, vgg16: Path, size: tuple[int, int, int], repeats: int, result: Path) -> None:
    """Measure one contender, print its cost as JSON, and save value and gradient."""
    contender, _, kind = name.partition("/")
    prediction, target = volumes(kind, size)
    features = load_vgg16_features(vgg16)
    small = torch.rand(2, 1, 1, 16, 16, 16)
    twin, _ = built(contender, features)
    twin(small[0].requires_grad_(), small[1]).backward()
    del twin
    loss, note = built(contender, features)
    leaf = prediction.requires_grad_()
    values = []

    def call() -> None:
        leaf.grad = None
        value = loss(leaf, target)
        value.backward()
        values.append(value.detach())

    cost = cost_of(call, repeats)
    torch.save({"value": values[-1], "gradient": leaf.grad}, result)
    print(json.dumps({**cost, "note": note}))


def floor_seconds(size: tuple[int, int, int]) -> tuple[float, float, float]:
    """Return the operations of three passes (10**12), the best convolution's rate (10**12/s), and their quotient."""
    operations, rate = 0.0, 0.0
    height, width, n_slices = size
    channels, level = 3, 0
    for width_out in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512):
        if width_out == 0:
            level += 1
            continue
        h, w = height >> level, width >> level
        layer = 2.0 * 9 * channels * width_out * h * w
        operations += 3 * n_slices * layer
        convolution = nn.Conv2d(channels, width_out, 3, padding=1).requires_grad_(False)
        images = torch.rand(4, channels, h, w).to(memory_format=torch.channels_last)
        convolution.to(memory_format=torch.channels_last)
        rate = max(rate, 4 * layer / cost_of(lambda c=convolution, x=images: c(x), 8)["seconds"])
        channels = width_out
    return operations / 1e12, rate / 1e12, operations / rate


def main() -> int:
    """Measure all contenders, print the table, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vgg16", type=Path)
    parser.add_argument("--size", type=int, nargs=3, default=(96, 112, 96))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = tuple(args.size)
    torch.set_num_threads(args.threads)
    if args.child:
        child(args.child, args.vgg16, size, args.repeats, args.result)
        return 0
    costs, results = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("loop/full", "skip/full", "loop/brain", "skip/brain", "paper/brain", "monai/full"):
            result = Path(folder) / f"{name.replace('/', '-')}.pt"
            arguments = [str(args.vgg16), "--size", *map(str, size), "--child", name, "--result", str(result)]
            repeats = 1 if name.startswith("monai") else args.repeats
            options = ["--threads", str(args.threads), "--repeats", str(repeats)]
            costs[name] = run_child(__file__, arguments + options, args.threads)
            results[name] = torch.load(result, weights_only=True)
            cost = costs[name]
            print(f"{name:12} {cost['seconds']:8.2f} s {cost['cpu_seconds']:8.2f} s of processor time "
                  f"{cost['extra_mb']:8.0f} MB", flush=True)  # fmt: skip
    for time in ("seconds", "cpu_seconds"):
        costs["monai/full"][time] /= 3
    report(costs, results, floor_seconds(size))
    if args.json:
        args.json.write_text(json.dumps(costs, indent=2) + "\n")
    return 0


def report(costs: dict[str, dict], results: dict[str, dict], floor: tuple[float, float, float]) -> None:
    """Print the table as Markdown, and what was compared."""
    operations, rate, seconds = floor
    columns = (("seconds", 2, 2), ("cpu_seconds", 2, 2), ("extra_mb", 0, 1))
    rows = {
        "loop/full": "obvious loop, full volume",
        "skip/full": "ours, full volume",
        "monai/full": "MONAI PerceptualLoss, full volume, for one plane of three",
        "loop/brain": "obvious loop, brain with air around",
        "paper/brain": 'ours, brain with air around, empty_slices="paper"',
        "skip/brain": "ours, brain with air around (default)",
    }
    print("\n| | time, s | times as fast | processor time, s | times as little | extra memory, MB | times as little |")
    print("|---|---|---|---|---|---|---|")
    for name, words in rows.items():
        loop, cost = costs[f"loop/{name.split('/')[1]}"], costs[name]
        cells = (f"{cost[key]:.{d}f} | {loop[key] / cost[key]:.{e}f}" for key, d, e in columns)
        print(f"| {words} | {' | '.join(cells)} |")
    print(f"\nFloor: {operations:.2f} TFLOP at {rate * 1000:.0f} GFLOP/s take {seconds:.2f} s (direct convolution).")
    print(f"MONAI: {costs['monai/full']['note']}.")
    for ours, loop in (("skip/full", "loop/full"), ("paper/brain", "loop/brain")):
        one, other = results[ours], results[loop]
        value = abs(one["value"] / other["value"] - 1).item()
        gradient = ((one["gradient"] - other["gradient"]).norm() / other["gradient"].norm()).item()
        print(f"{ours} and {loop}: value differs by {value:.1e}, gradient by {gradient:.1e} of its length.")
    fast = costs["loop/full"]["seconds"] >= 1.4 * costs["skip/full"]["seconds"]
    small = costs["loop/full"]["extra_mb"] >= 15 * costs["skip/full"]["extra_mb"]
    print(f"Bars on the full volume: 1.4 times as fast: {'met' if fast else 'MISSED'}; "
          f"a fifteenth of the memory: {'met' if small else 'MISSED'}.")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
