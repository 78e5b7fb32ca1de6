"""A training of seconds: a small network, made-up scans in memory, and everything else as in a real one.

Run as a program it trains in a folder, and can be told to kill itself on the way:

    python tests/toy_training.py FOLDER '{"epochs": 4}' [EPOCH STEP]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.data import Dataset

from tau_pipeline.errors import ImageError
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.data.scaling import MinMax
from tau_pipeline.synthesis.training import loop as training
from tau_pipeline.synthesis.training.data import TrainingData
from tau_pipeline.synthesis.training.optimization import seed_everything, training_loss
from tau_pipeline.synthesis.training.processes import processes
from tau_pipeline.synthesis.training.run import Run
from tau_pipeline.synthesis.training.state import TrainingState

SIDE = 16
#: Small, on the CPU, with a cycle of two epochs a plane.
TOY: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 2,
    "first_cycle": 1,
    "perceptual_features": "random",
    "device": "cpu",
    "checkpoint_minutes": 0.0,
    "learning_rate": 0.01,
}


class ToySystem(nn.Module):
    """A generator of two convolutions and, if wanted, a discriminator of two; the interface of the real systems."""

    name, preset = "toy", "laptop"

    def __init__(self, dropout: float = 0.2, adversarial: bool = False) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Dropout(dropout), nn.Conv3d(4, 1, 3, padding=1)
        )
        self.phases: tuple[str, ...] = ("generator",)
        if adversarial:
            self.discriminator = nn.Sequential(nn.Conv3d(1, 2, 4, stride=4), nn.ReLU(), nn.Conv3d(2, 1, 1))
            self.phases = ("generator", "discriminator")

    def forward(self, t1w: Tensor) -> Tensor:
        predicted: Tensor = self.generator(t1w)
        return predicted

    def parameters_of(self, phase: str) -> list[nn.Parameter]:
        return list(getattr(self, phase).parameters())

    def step_loss(
        self,
        phase: str,
        t1w: Tensor,
        pet: Tensor,
        content_loss: Callable[[Tensor, Tensor], tuple[Tensor, dict]],
        mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        predicted = self.generator(t1w)
        if phase == "discriminator":
            value = (
                self.discriminator(predicted.detach()).square().mean() + (1 - self.discriminator(pet)).square().mean()
            )
            return value, {}
        value, parts = content_loss(predicted, pet)
        if "discriminator" in self.phases:
            value = value + 0.1 * (1 - self.discriminator(predicted)).square().mean()
        return value, parts


class ToyScans(Dataset):
    """Smooth random heads whose PET is a blurred function of the T1w; noise stands for augmentation."""

    def __init__(self, names: list[str], noise: float = 0.0, spoilt: str = "", lost: str = "") -> None:
        self.names, self.noise, self.spoilt, self.lost, self.epoch = names, noise, spoilt, lost, 0

    def __len__(self) -> int:
        return len(self.names)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = int(self.names[index])
        if self.names[index] == self.lost and self.epoch == 1:
            raise ImageError(f"sub-{self.lost} has gone")
        rng = np.random.default_rng(number)
        t1w = ndimage.gaussian_filter(rng.normal(size=(SIDE,) * 3), 2.0) * 8
        pet = ndimage.gaussian_filter(np.tanh(2 * t1w), 0.7)
        t1w += self.noise * np.random.default_rng([number, self.epoch]).normal(size=t1w.shape)
        mask = np.zeros(t1w.shape, bool)
        mask[2:-2, 2:-2, 2:-2] = True
        if self.names[index] == self.spoilt:
            pet[8, 8, 8] = np.nan
        arrays = {"t1w": t1w, "pet": np.where(mask, pet, -1.0)}
        item: dict[str, Any] = {key: torch.from_numpy(value.astype(np.float32))[None] for key, value in arrays.items()}
        labels = torch.from_numpy(np.where(mask, 1001 + np.indices(mask.shape)[0] // 4, 0).astype(np.int32))[None]
        names = {"participant": self.names[index], "scan": f"sub-{self.names[index]}", "manufacturer": "GE"}
        return {**item, "mask": torch.from_numpy(mask)[None], "labels": labels, "index": index, **names}


def toy_data(noise: float = 0.1, spoilt: str = "", n_train: int = 5, lost: str = "") -> TrainingData:
    """Five scans for training, two for validation, two for the test."""
    names = [f"{number:02}" for number in range(1, n_train + 5)]
    parts = names[:n_train], names[n_train : n_train + 2], names[n_train + 2 :]
    splits = pd.DataFrame({"participant_id": [f"sub-{name}" for name in names]})
    train, validation, test = (ToyScans(part, noise * (i == 0), spoilt, lost) for i, part in enumerate(parts))
    return TrainingData(train, validation, test, splits, MinMax(0.0, 3.0))  # type: ignore[arg-type]


def toy_run(folder: Path, options: dict[str, Any] | None = None, **made: Any) -> training.TrainingState:
    """Train from a checkpoint in ``folder``, if there is one, to the end; the state afterwards.

    ``made`` goes to `ToySystem` (dropout, adversarial) and `toy_data` (noise, spoilt, lost).
    """
    settings = Training(**{**TOY, **(options or {})})
    system_options = {key: made.pop(key) for key in ("dropout", "adversarial") if key in made}
    with processes("cpu") as group:
        seed_everything(1)
        system = ToySystem(**system_options)
        state = TrainingState(system, settings, group.device)  # type: ignore[arg-type]
        loss = training_loss(settings, group.device)
        run = Run(state, toy_data(**made), loss, settings, 1, folder, group)
        state.resume(folder / "checkpoints")
        training.fit(run)
    return state


def kill_at(epoch: int, step: int) -> None:
    """Let this process kill itself, as ``kill -9`` does, in the middle of that step."""
    original = training._optimizer_step

    def deadly(run: Run, *rest: Any) -> Any:
        found = original(run, *rest)
        if (run.state.progress.epoch, run.state.progress.step) == (epoch, step):
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    training._optimizer_step = deadly  # type: ignore[assignment]


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = json.loads(sys.argv[2])
    made_with = {key: given.pop(key) for key in ("dropout", "adversarial", "noise", "lost") if key in given}
    if len(sys.argv) > 3:
        kill_at(int(sys.argv[3]), int(sys.argv[4]))
    finished = toy_run(Path(sys.argv[1]), given, **made_with)
    if int(os.environ.get("RANK", "0")) == 0:
        torch.save(finished.system.state_dict(), Path(sys.argv[1]) / "final.pt")
