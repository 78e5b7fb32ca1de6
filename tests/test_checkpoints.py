"""Checkpoints: whole or passed over, whatever happens to the process or the file."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tau_pipeline.errors import DamagedFileError, OutputError
from tau_pipeline.synthesis.model.tensor_file import write_tensors
from tau_pipeline.synthesis.training.checkpoints import (
    find_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    remove_partial_files,
    write_checkpoint,
)
from tau_pipeline.synthesis.training.log import TrainLog, read_rows


def state(number: int) -> dict[str, object]:
    return {"weights": {"a": torch.arange(5.0) * number}, "epoch": number, "best": None, "rows": [{"x": 0.1}]}


def test_what_is_written_is_read_to_the_last_bit(tmp_path: Path) -> None:
    found = read_checkpoint(write_checkpoint(tmp_path, state(3), 3, 0))
    assert torch.equal(found["weights"]["a"], torch.arange(5.0) * 3)
    assert {key: found[key] for key in ("epoch", "best", "rows")} == {"epoch": 3, "best": None, "rows": [{"x": 0.1}]}


def test_the_last_two_are_kept_in_the_order_of_epoch_and_step(tmp_path: Path) -> None:
    for epoch, step in ((0, 9), (0, 10), (1, 0), (10, 2)):
        write_checkpoint(tmp_path, state(epoch), epoch, step)
    assert [path.name for path in find_checkpoints(tmp_path)] == [
        "checkpoint-000001-000000.pt",
        "checkpoint-000010-000002.pt",
    ]
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest["epoch"] == 10


@pytest.mark.parametrize("damage", ["cut", "flipped bit", "empty", "other file"])
def test_a_damaged_checkpoint_is_recognised_and_the_one_before_is_used(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path, state(1), 1, 0)
    path = write_checkpoint(tmp_path, state(2), 2, 0)
    content = bytearray(path.read_bytes())
    if damage == "flipped bit":
        content[-200] ^= 1
    damaged = {"cut": content[:-7], "flipped bit": content, "empty": b"", "other file": b"x" * 400}[damage]
    path.write_bytes(damaged)
    with pytest.raises(DamagedFileError, match=path.name):
        read_checkpoint(path)
    with caplog.at_level(logging.WARNING):
        found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found["epoch"] == 1
    assert path.name in caplog.text


def test_an_empty_or_absent_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "absent") is None


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, {"code": Bomb(tmp_path / "exploded")}, 0, 0)
    with pytest.raises(DamagedFileError, match="cannot be read as a torch file of weights alone"):
        read_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_what_torch_stumbles_over_is_told_as_damage_though_the_digest_fits(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, {"step": 1}, 0, 0)
    first, content = path.read_bytes().split(b"\n", 1)[0], b"a\tb\n1\n"
    path.write_bytes(first + b"\n" + hashlib.sha256(content).hexdigest().encode() + content)
    with pytest.raises(DamagedFileError, match=r"the checkpoint .* cannot be read as a torch file"):
        read_checkpoint(path)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.path), "w"))


def test_the_bomb_of_the_test_above_is_live(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded"))).close()
    assert (tmp_path / "exploded").exists()


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import torch
from tau_pipeline.synthesis.training import checkpoints
folder = Path(sys.argv[1])
state = {"epoch": 1, "w": torch.ones(100_000)}
checkpoints.write_checkpoint(folder, state, 1, 0)
class Deadly(checkpoints._HashingWriter):
    def write(self, data):
        done = super().write(data)
        if self._file.tell() > 200_000:
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return done
checkpoints._HashingWriter = Deadly
checkpoints.write_checkpoint(folder, {**state, "epoch": 2}, 2, 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX")
def test_kill_9_in_the_middle_of_writing_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (partial,) = tmp_path.glob(".partial-*")
    assert partial.stat().st_size > 200_000
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found["epoch"] == 1
    remove_partial_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000001-000000.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, state(1), 1, 0)
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args: opened(Path("/dev/full"), *args))
    with pytest.raises(OutputError, match="No space left"):
        write_checkpoint(tmp_path, state(2), 2, 0)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000001-000000.pt"]


def test_a_disk_that_is_full_in_the_middle_of_a_file_is_one_sentence(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, state(1), 1, 0)
    tensors = {f"t{n}": torch.zeros(20_000) for n in range(20)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*checkpoint-000002"):
            write_checkpoint(tmp_path, tensors, 2, 0)
        with pytest.raises(OutputError, match=r"cannot write .*weights\.safetensors"):
            write_tensors(tensors, tmp_path / "weights.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000001-000000.pt"]


def row(epoch: int, loss: float) -> dict[str, float | int | str]:
    return {"epoch": epoch, "plane": "axial", "train_loss": loss}


def test_rows_past_the_checkpoint_are_dropped_when_training_goes_on(tmp_path: Path) -> None:
    log = TrainLog(tmp_path, epoch=0)
    for epoch in range(4):
        log.add(row(epoch, 10.0))
    log.close()
    again = TrainLog(tmp_path, epoch=2)
    for epoch in (2, 3, 4):
        again.add(row(epoch, 20.0))
    again.close()
    expected = [(0, 10.0), (1, 10.0), (2, 20.0), (3, 20.0), (4, 20.0)]
    assert [(r["epoch"], r["train_loss"]) for r in read_rows(tmp_path / "log.tsv")] == expected
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == expected


def test_a_training_that_starts_anew_has_no_old_rows(tmp_path: Path) -> None:
    log = TrainLog(tmp_path, epoch=0)
    log.add(row(0, 1.0))
    log.close()
    TrainLog(tmp_path, epoch=0).close()
    assert read_rows(tmp_path / "log.tsv") == []


def test_the_log_on_disk_is_complete_after_each_epoch(tmp_path: Path) -> None:
    log = TrainLog(tmp_path, epoch=0)
    for epoch in range(3):
        log.add(row(epoch, epoch / 3))
        assert len((tmp_path / "log.tsv").read_text().splitlines()) == epoch + 2
    log.close()
