"""The training loop: the same result however it was cut up, and one sentence where it cannot go on."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from free_ports import free_ports
from torch import distributed, nn
from toy_training import ToySystem, kill_at, toy_run

from tau_pipeline.errors import DivergenceError, ImageError, SettingError
from tau_pipeline.measures import images
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.losses.schedule import may_stop, plane_at
from tau_pipeline.synthesis.losses.weighted import WeightedLoss
from tau_pipeline.synthesis.networks.recompute import checkpoint_activations
from tau_pipeline.synthesis.training import agreement, run
from tau_pipeline.synthesis.training import loop as training
from tau_pipeline.synthesis.training.checkpoints import find_checkpoints, newest_checkpoint, write_checkpoint
from tau_pipeline.synthesis.training.log import read_rows
from tau_pipeline.synthesis.training.optimization import autocast, batches, in_pieces, learning_rate_at, seed_everything
from tau_pipeline.synthesis.training.processes import Processes, processes
from tau_pipeline.synthesis.training.state import Progress, weighted_mean
from tau_pipeline.synthesis.training.validation import loss_voxels, regions
from tau_pipeline.synthesis.training.weight_average import WeightAverage, averaged_weights

TOY_PROGRAM = Path(__file__).with_name("toy_training.py")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(state: training.TrainingState) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.system.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=tolerance, atol=tolerance, msg=name)


def program(folder: Path, options: dict[str, Any], *kill: int, prefix: tuple[str, ...] = ()) -> int:
    command = [sys.executable, *prefix, str(TOY_PROGRAM), str(folder), json.dumps(options), *map(str, kill)]
    environment = {**os.environ, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=False, env=environment, capture_output=True, timeout=120).returncode


def forked(folder: Path, options: dict[str, Any], *kill: int) -> int:
    """Do what `program` does in a fork of this process, which has imported everything already."""
    made = {key: value for key, value in options.items() if key == "adversarial"}
    rest = {key: value for key, value in options.items() if key != "adversarial"}

    def train() -> None:
        kill_at(*kill)
        toy_run(folder, rest, **made)

    child = multiprocessing.get_context("fork").Process(target=train)
    child.start()
    child.join(timeout=120)
    code = child.exitcode
    child.kill()
    child.join()
    assert code is not None, "the training hangs"
    return code


def finals(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / "final.pt", weights_only=True)
    return found


# --- going on after an interruption -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX")
@pytest.mark.parametrize(
    ("minutes", "killed"),
    [(0.0, program), (10.0, forked)],
    ids=["checkpoint inside the epoch", "checkpoint before the epoch"],
)
def test_kill_9_in_the_middle_of_an_epoch_changes_nothing(
    tmp_path: Path, minutes: float, killed: Callable[..., int]
) -> None:
    options = {"checkpoint_minutes": minutes, "ema_decay": 0.9, "tested_weights": "best"}
    whole = toy_run(tmp_path / "whole", options, adversarial=True)
    assert killed(tmp_path / "cut", {**options, "adversarial": True}, 1, 1) == -signal.SIGKILL
    left = find_checkpoints(tmp_path / "cut" / "checkpoints")[-1].name
    assert left == ("checkpoint-000001-000001.pt" if minutes == 0 else "checkpoint-000001-000000.pt")
    assert killed(tmp_path / "cut", {**options, "adversarial": True}, 3, 0) == -signal.SIGKILL
    resumed = toy_run(tmp_path / "cut", options, adversarial=True)
    assert_equal(weights(resumed), weights(whole))
    rows = [[{**row, "seconds": 0} for row in read_rows(tmp_path / name / "log.tsv")] for name in ("cut", "whole")]
    assert rows[0] == rows[1]
    assert [row["epoch"] for row in rows[0]] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_training_that_is_taken_up_again_gives_the_same_weights_log_and_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = toy_run(tmp_path / "whole", {"ema_decay": 0.9, "tested_weights": "best"})

    class CutError(Exception):
        pass

    original = training._optimizer_step
    calls = iter(range(100))

    def cut(*given: Any) -> Any:
        if next(calls) == 7:
            raise CutError
        return original(*given)

    monkeypatch.setattr(training, "_optimizer_step", cut)
    with pytest.raises(CutError):
        toy_run(tmp_path / "cut", {"ema_decay": 0.9, "tested_weights": "best"})
    monkeypatch.undo()
    resumed = toy_run(tmp_path / "cut", {"ema_decay": 0.9, "tested_weights": "best"})
    assert_equal(weights(resumed), weights(whole))
    assert resumed.average is not None
    assert whole.average is not None
    assert_equal(resumed.average.weights, whole.average.weights)
    assert resumed.best_weights is not None
    assert whole.best_weights is not None
    assert_equal(resumed.best_weights, whole.best_weights)
    assert resumed.progress == whole.progress
    rows = [[{**row, "seconds": 0} for row in read_rows(tmp_path / name / "log.tsv")] for name in ("cut", "whole")]
    assert rows[0] == rows[1]


def test_more_epochs_go_on_from_a_finished_training(tmp_path: Path) -> None:
    toy_run(tmp_path / "a", {"epochs": 1})
    assert_equal(weights(toy_run(tmp_path / "a", {"epochs": 2})), weights(toy_run(tmp_path / "b", {"epochs": 2})))


def test_a_checkpoint_with_the_first_spelling_of_optimizers_is_gone_on_from(tmp_path: Path) -> None:
    toy_run(tmp_path / "new", {"epochs": 1})
    content = newest_checkpoint(tmp_path / "new/checkpoints")
    assert content is not None
    content["optimisers"] = content.pop("optimizers")
    write_checkpoint(tmp_path / "old/checkpoints", content, 1, 0)
    assert_equal(*(weights(toy_run(tmp_path / name, {"epochs": 2})) for name in ("new", "old")))


@pytest.mark.slow
def test_ctrl_c_ends_after_a_step_with_a_checkpoint_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, handler = training._optimizer_step, signal.getsignal(signal.SIGINT)

    def interrupted(run: run.Run, *rest: Any) -> Any:
        if (run.state.progress.epoch, run.state.progress.step) == (1, 1):
            os.kill(os.getpid(), signal.SIGINT)
        return original(run, *rest)

    monkeypatch.setattr(training, "_optimizer_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path / "cut", {"checkpoint_minutes": 10.0})
    monkeypatch.undo()
    assert find_checkpoints(tmp_path / "cut" / "checkpoints")[-1].name == "checkpoint-000001-000002.pt"
    # Put back: the default, or what a shell gives to jobs in its background, which ignore Ctrl-C.
    assert signal.getsignal(signal.SIGINT) is handler
    assert_equal(weights(toy_run(tmp_path / "cut")), weights(toy_run(tmp_path / "whole")))


def test_training_works_in_a_thread_where_signals_cannot_be_caught(tmp_path: Path) -> None:
    done: list[training.TrainingState] = []
    thread = threading.Thread(target=lambda: done.append(toy_run(tmp_path, {"epochs": 1})))
    thread.start()
    thread.join()
    assert done[0].progress.epoch == 1


# --- what is computed -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_loss_falls_and_every_epoch_has_its_row(tmp_path: Path) -> None:
    toy_run(tmp_path, {"epochs": 9, "loss": "cyclic2.5d", "checkpoint_minutes": 10.0})
    rows = read_rows(tmp_path / "log.tsv")
    assert [row["plane"] for row in rows] == [plane_at(epoch, 1, 2 / 3) for epoch in range(9)]
    for name in ("train_mse", "validation_mae", "validation_regional_error"):
        assert float(rows[-1][name]) < 0.8 * float(rows[0][name])
    expected = sum(w * float(rows[3][f"train_{part}"]) for part, w in (("mse", 1), ("ssim", 1), ("perceptual", 0.5)))
    assert float(rows[3]["train_loss"]) == pytest.approx(expected, rel=1e-5)


def test_the_progress_bar_tells_time_left_loss_parts_and_validation(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(training, "tqdm", partial(training.tqdm, mininterval=0, ncols=300))
    toy_run(tmp_path, {"epochs": 2})
    lines = capfd.readouterr().err.replace("\r", "\n").splitlines()
    row = read_rows(tmp_path / "log.tsv")[0]
    # Three steps an epoch; after four of six, what is left is an estimate, and the first validation is over.
    shown = next(line for line in lines if "4/6" in line)
    left = re.search(r"\[[\d:]+<([\d:?]+), ", shown)
    assert left is not None
    assert "?" not in left[1]
    assert re.search(r"epoch 1 coronal generator \d+\.\d{3} mse \d+\.\d{3} ssim \d+\.\d{3} perceptual \d", shown)
    assert f"on the model's grid: SSIM {row['validation_ssim']:.3f} PSNR {row['validation_psnr']:.1f} dB" in shown
    assert f"regional error {row['validation_regional_error']:.3f}" in shown


def test_gradients_accumulated_over_pieces_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    options = {"batch_size": 3, "epochs": 2, "clip_gradient_norm": 0.5}
    whole = toy_run(tmp_path / "a", options, dropout=0.0)
    pieces = toy_run(tmp_path / "b", {**options, "micro_batch_size": 1}, dropout=0.0)
    assert_equal(weights(pieces), weights(whole), 2e-5)


@pytest.mark.slow
def test_two_processes_under_torchrun_give_the_weights_of_one(tmp_path: Path) -> None:
    # The last batch of five scans has one, so that one process has none.
    options = {"batch_size": 4, "ema_decay": 0.9}
    made = {"dropout": 0.0, "adversarial": True}
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_ports(1)[0]))
    assert program(tmp_path / "two", {**options, **made}, prefix=torchrun) == 0
    one_process = toy_run(tmp_path / "one", options, **made)
    assert_equal(finals(tmp_path / "two"), weights(one_process), 2e-5)
    one, two = (read_rows(tmp_path / name / "log.tsv") for name in ("one", "two"))
    for ours, theirs in zip(two, one, strict=True):
        assert ours["plane"] == theirs["plane"]
        for name in ("train_loss", "train_discriminator", "validation_loss", "validation_ssim"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4)


@pytest.mark.slow
def test_a_scan_that_one_process_cannot_read_ends_all_in_its_words(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_ports(1)[0]), str(TOY_PROGRAM), str(tmp_path), json.dumps({"lost": "03"})]
    environment = {**os.environ, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert ended.stderr.count("ImageError: sub-03 has gone") == 2


def test_processes_wait_for_hours_while_the_first_one_tests_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(distributed, "init_process_group", lambda _kind, **options: asked.update(options))
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with processes("cpu") as group:
        assert group.size == 2
    # Ten minutes is what torch gives processes on GPUs.
    assert asked["timeout"] >= timedelta(hours=12)


def test_an_error_of_one_process_ends_all_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[Any] = [None, (ImageError, "sub-07 is damaged")]
    group = Processes(0, 2, torch.device("cpu"))
    monkeypatch.setattr(group, "gathered", lambda value: [value, others[-1]])
    with pytest.raises(ImageError, match="sub-07 is damaged"), group.together():
        pass
    with pytest.raises(SettingError, match="mine"), group.together():
        raise SettingError("mine")
    others.append(None)
    with group.together():
        pass


def test_the_discriminator_has_a_learning_rate_and_adam_a_decay_of_its_own(tmp_path: Path) -> None:
    options = {"learning_rate": 1e-3, "discriminator_learning_rate": 4e-3, "adam_beta1": 0.5, "epochs": 1}
    state = toy_run(tmp_path, {**options, "loss": "mse_ssim"}, adversarial=True)
    groups = {phase: optimizer.param_groups[0] for phase, optimizer in state.optimizers.items()}
    assert {phase: group["lr"] for phase, group in groups.items()} == {"generator": 1e-3, "discriminator": 4e-3}
    assert {group["betas"] for group in groups.values()} == {(0.5, 0.999)}


def test_absolute_errors_are_those_of_a_loop_over_the_voxels_of_brain_and_regions() -> None:
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 2, 1, 8, 8, 8))
    mask = rng.random((2, 1, 8, 8, 8)) < 0.6
    labels = rng.choice([0, 2, 1006, 18], size=mask.shape)
    settings = Training(loss="mse_ssim", mse_weight=0, ssim_weight=0, mae_weight=1.0, region_mae_weight=2.0)
    within = loss_voxels(torch.from_numpy(mask), torch.from_numpy(labels))
    value, parts = WeightedLoss(settings, None)(torch.from_numpy(prediction), torch.from_numpy(target), 0, within)
    for name, inside in (("mae", mask), ("region_mae", mask & np.isin(labels, (1006, 18)))):
        means = [np.abs(a - b)[m].mean() for a, b, m in zip(prediction, target, inside, strict=True)]
        assert parts[name] == pytest.approx(np.mean(means), rel=1e-5)
    assert float(value) == pytest.approx(parts["mae"] + 2 * parts["region_mae"])


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    """With Adam the length of a step hides the gradient's; the first moment after one step shows it: 0.1 x gradient."""
    state = toy_run(tmp_path, {"epochs": 1, "batch_size": 5, "clip_gradient_norm": 1e-3})
    moments = [entry["exp_avg"] for entry in state.optimizers["generator"].state.values()]
    norm = math.sqrt(sum(float(moment.square().sum()) for moment in moments))
    assert norm == pytest.approx(0.1 * 1e-3, rel=1e-3)


@pytest.mark.slow
def test_mixed_precision_trains_to_about_the_same_loss(tmp_path: Path) -> None:
    single = toy_run(tmp_path / "a", {"epochs": 3}, dropout=0.0)
    mixed = toy_run(tmp_path / "b", {"epochs": 3, "mixed_precision": "bf16"}, dropout=0.0)
    losses = [float(read_rows(tmp_path / name / "log.tsv")[-1]["validation_loss"]) for name in ("a", "b")]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert any((a != b).any() for a, b in zip(weights(single).values(), weights(mixed).values(), strict=True))


def test_half_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(SettingError, match="bf16 or off"):
        autocast(Training(mixed_precision="fp16"), torch.device("cpu"))


def test_the_cosine_is_that_of_torch_and_never_restarts() -> None:
    settings = Training(learning_rate=5e-4, learning_rate_period=60)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60)
    for epoch in range(300):
        assert learning_rate_at(epoch, settings) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_warm_up_rises_to_the_highest_rate_and_cosine_once_ends_near_zero() -> None:
    settings = Training(warmup_epochs=4, learning_rate_schedule="cosine-once", epochs=50, learning_rate=1.0)
    rates = [learning_rate_at(epoch, settings) for epoch in range(50)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(after < before for before, after in pairwise(rates[4:]))
    assert rates[-1] < 0.01


def test_every_scan_is_used_once_an_epoch_in_an_order_of_its_own() -> None:
    orders = [[scan for batch in batches(7, 3, random_seed=5, epoch=epoch) for scan in batch] for epoch in range(6)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert batches(7, 3, random_seed=5, epoch=2) == batches(7, 3, random_seed=5, epoch=2)
    assert [len(batch) for batch in batches(7, 3, 0, 0)] == [3, 3, 1]
    assert in_pieces([4, 5, 6], 2) == [[4, 5], [6]]
    assert in_pieces([4, 5, 6], None) == [[4, 5, 6]]
    assert in_pieces([], None) == []


def test_the_same_numbers_give_the_same_random_stream_and_others_do_not() -> None:
    def drawn(*numbers: int) -> float:
        seed_everything(*numbers)
        return float(torch.rand(())) + float(np.random.rand())  # noqa: NPY002

    assert drawn(1, 2, 3, 0) == drawn(1, 2, 3, 0)
    assert len({drawn(1, 2, 3, 0), drawn(1, 2, 4, 0), drawn(1, 3, 3, 0), drawn(1, 2, 3, 1)}) == 4


def test_the_average_of_the_weights_is_the_slow_sum() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = WeightAverage(network, ema_decay=0.5)
    expected = float(network.weight.detach())
    for step in range(1, 6):
        with torch.no_grad():
            network.weight.fill_(float(step))
        average.update(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert float(average.weights["weight"]) == pytest.approx(expected)
    with averaged_weights(network, average):
        assert float(network.weight.detach()) == pytest.approx(expected)
    assert float(network.weight.detach()) == 5.0


def test_recomputed_activations_give_the_same_gradient_from_less_memory() -> None:
    from monai.networks.nets import UNet

    kept: list[int] = []

    def gradient(recompute: bool) -> dict[str, torch.Tensor]:
        seed_everything(3)
        network = UNet(3, 1, 1, channels=(4, 8, 16), strides=(2, 2), num_res_units=2, dropout=0.2)
        names = list(network.state_dict())
        assert checkpoint_activations(network) >= 5 if recompute else True
        assert list(network.state_dict()) == names
        seed_everything(4)
        saved = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            value = network(torch.ones(1, 1, 16, 16, 16)).square().sum()
        kept.append(saved)
        value.backward()
        return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}

    assert_equal(gradient(True), gradient(False), 1e-6)
    assert kept[0] < kept[1] / 2


# --- best weights and early stopping ----------------------------------------------------------------------------------


def slow_best_and_stop(losses: list[float], settings: Training) -> tuple[list[bool], int | None]:
    """Return the epochs that are the best of their plane so far, and the one after which training stops."""
    better, stop = [], None
    for epoch, loss in enumerate(losses):
        plane = plane_at(epoch, settings.first_cycle, settings.cycle_factor)
        turn = []
        for earlier in range(epoch - 1, -1, -1):
            if plane_at(earlier, settings.first_cycle, settings.cycle_factor) != plane:
                break
            turn.append(losses[earlier])
        better.append(not turn or loss < min(turn))
        last_best = max(i for i, flag in enumerate(better) if flag)
        waited = [
            e for e in range(last_best + 1, epoch + 1) if may_stop(e, settings.first_cycle, settings.cycle_factor)
        ]
        if stop is None and len(waited) >= settings.early_stopping_patience > 0:
            stop = epoch
    return better, stop


@pytest.mark.parametrize("seed", range(6))
def test_best_is_of_the_plane_in_turn_and_stopping_waits_for_the_third_round(seed: int) -> None:
    settings = Training(first_cycle=8, cycle_factor=1.0, early_stopping_patience=4, select_by="loss")
    losses = np.random.default_rng(seed).normal(size=120).tolist()
    better, stop = slow_best_and_stop(losses, settings)
    assert stop is not None
    assert stop > 2 * 3 * 8
    progress, found = Progress(), []
    for epoch, loss in enumerate(losses):
        found.append(progress.take_validation({"loss": loss}, plane_at(epoch, 8, 1.0), settings))
        if progress.stopped:
            break
        progress.next_epoch()
    assert epoch == stop
    assert found == better[: stop + 1]


def test_a_loss_without_planes_may_stop_at_once_and_patience_0_never_does() -> None:
    def stopped(**options: Any) -> bool:
        progress, settings = Progress(), Training(loss="mse_ssim", select_by="loss", **options)
        for loss in (1.0, 2.0, 2.0):
            progress.take_validation({"loss": loss}, "n/a", settings)
        return progress.stopped

    assert stopped(early_stopping_patience=2)
    assert not stopped(early_stopping_patience=0)
    assert not stopped(early_stopping_patience=3)


def test_without_a_mask_the_loss_compares_whole_volumes_in_training_and_in_validation(tmp_path: Path) -> None:
    rows = {}
    for mask in ("brain", "none"):
        toy_run(tmp_path / mask, {"loss": "mse_ssim", "epochs": 1, "loss_mask": mask, "learning_rate": 1e-9})
        (rows[mask],) = read_rows(tmp_path / mask / "log.tsv")
    # The network predicts about 0 where the target has its background of -1: two thirds of the volume.
    for name in ("train_mse", "validation_loss"):
        assert rows["none"][name] > 1.3 * rows["brain"][name], name
    for name in ("validation_ssim", "validation_mae"):
        assert rows["none"][name] == rows["brain"][name]


@pytest.mark.parametrize("first_cycle", [3, 20, 40])
@pytest.mark.parametrize("every", [1, 4])
def test_the_best_of_all_planes_is_kept_and_stopping_waits_for_one_round_only(first_cycle: int, every: int) -> None:
    settings = Training(first_cycle=first_cycle, early_stopping_patience=30, validate_every=every)
    progress, best = Progress(), []
    for epoch in range(1000):
        # Agreement rises until epoch 7 and then falls; the loss jumps with the plane and falls all the time.
        quality = 0.8 - 0.001 * abs(epoch - 7)
        loss = {"axial": 3.0, "coronal": 1.0, "sagittal": 2.0}[plane := plane_at(epoch, first_cycle)] - 0.001 * epoch
        scores = {"loss": loss, "ssim": quality, "regional_error": 0.1}
        if training.validates_after(epoch, settings) and progress.take_validation(scores, plane, settings):
            best.append(epoch)
        if progress.stopped:
            break
        progress.next_epoch()
    assert best[-1] == 7
    assert max(7 + 30, 3 * first_cycle - 1) <= epoch <= max(7 + 30, 3 * first_cycle - 1) + every


def test_a_training_validates_every_so_many_epochs_and_after_the_last(tmp_path: Path) -> None:
    toy_run(tmp_path, {"loss": "mse_ssim", "epochs": 5, "validate_every": 3, "checkpoint_minutes": 10.0})
    found = [float(row["validation_ssim"]) for row in read_rows(tmp_path / "log.tsv")]
    assert [math.isfinite(value) for value in found] == [False, False, True, False, True]


def test_training_stops_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    options = {"loss": "mse_ssim", "epochs": 40, "early_stopping_patience": 2, "tested_weights": "best"}
    options |= {"select_by": "loss"}
    state = toy_run(tmp_path, {**options, "learning_rate": 0.1, "checkpoint_minutes": 10.0})
    rows = read_rows(tmp_path / "log.tsv")
    assert state.progress.stopped
    assert len(rows) < 40
    losses = [float(row["validation_loss"]) for row in rows]
    assert [row["best"] for row in rows][-3:] == [1, 0, 0]
    assert losses.index(min(losses)) == len(rows) - 3
    assert state.best_weights is not None
    assert any((state.best_weights[k] != v).any() for k, v in state.system.generator.state_dict().items())


def test_means_over_parts_weigh_by_their_scans() -> None:
    assert weighted_mean([({"a": 1.0, "b": 4.0}, 1), ({"a": 2.0}, 3)]) == {"a": 1.75, "b": 4.0}


# --- what stops a training --------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_epoch_batch_and_participants(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError) as caught:
        toy_run(tmp_path, {"batch_size": 1, "loss": "mse_ssim"}, spoilt="03")
    order = batches(5, 1, random_seed=1, epoch=0)
    assert f"at epoch 0, batch {order.index([2])}, of participants sub-03:" in str(caught.value)
    assert "learning_rate" in str(caught.value)


def test_a_measured_image_with_nan_names_epoch_batch_and_participants_under_the_perceptual_loss(tmp_path: Path) -> None:
    order = batches(5, 1, random_seed=1, epoch=0)
    with pytest.raises(
        ImageError, match=f"epoch 0, batch {order.index([2])}, of participants sub-03: the target holds"
    ):
        toy_run(tmp_path, {"batch_size": 1}, spoilt="03")


def test_a_validation_loss_that_is_not_finite_names_the_participants(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match="at epoch 0: on the validation scans of sub-06 the loss is not finite"):
        toy_run(tmp_path, {"loss": "mse_ssim"}, spoilt="06")


def test_a_loss_far_above_the_first_one_is_divergence(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match="has diverged at epoch"):
        toy_run(tmp_path, {"loss": "mse_ssim", "learning_rate": 1e4, "epochs": 30, "ssim_weight": 0.0})


def test_the_weights_of_a_training_that_diverged_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError):
        toy_run(tmp_path, {"batch_size": 5, "loss": "mse_ssim"}, spoilt="03")
    assert not (tmp_path / "checkpoints").exists()


# --- figures of validation --------------------------------------------------------------------------------------------


def test_agreement_on_the_device_is_that_of_the_arrays_and_of_a_loop_over_regions() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 2, 1001, 1007, 2035], size=(12, 14, 13))
    mask = rng.random(labels.shape) < 0.7
    one, other = (np.where(mask, rng.uniform(0, 3, labels.shape), 0.0) for _ in range(2))
    tensors = [torch.from_numpy(array.astype(np.float32)) for array in (one, other)]
    inside = torch.from_numpy(mask)
    for on_device, on_arrays in ((agreement.ssim, images.ssim), (agreement.psnr, images.psnr)):
        assert on_device(*tensors, inside, 3.0) == pytest.approx(on_arrays(one, other, mask, 3.0), rel=1e-4)
    assert agreement.mae(*tensors, inside) == pytest.approx(images.mae(one, other, mask), rel=1e-5)
    found = agreement.label_means(tensors[0], torch.from_numpy(labels), inside, regions())
    for number, mean in zip(regions(), found, strict=True):
        part = mask & (labels == number)
        assert (not part.any() and math.isnan(mean)) or mean == pytest.approx(one[part].mean(), rel=1e-5)


def test_the_toy_has_the_interface_of_the_real_systems() -> None:
    from tau_pipeline.synthesis.networks.systems import build_system

    real = build_system("unet", "laptop", image_size=(16, 16, 16))
    for name in ("name", "preset", "phases", "generator", "parameters_of", "step_loss"):
        assert hasattr(real, name)
        assert hasattr(ToySystem(), name)
