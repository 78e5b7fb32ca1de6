"""The log of a training: one TSV row an epoch, and the same numbers for TensorBoard.

After an interruption training goes on from a checkpoint, which is older than the last rows. Those rows are dropped,
and TensorBoard discards their points, so that a log reads as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from tau_pipeline.files import read_tsv, write_json, write_tsv

Cell = float | int | str

#: What the columns mean; parts of the loss have separate columns, named after them.
COLUMNS = {
    "epoch": "Epoch, counted from 0",
    "plane": "Plane of the perceptual term; n/a for losses without one",
    "learning_rate": "Learning rate of the epoch",
    "train_loss": "Mean over the scans of the epoch of the loss that the network descends",
    "validation_loss": "Mean over the validation split, with the plane of the epoch and without adversarial terms",
    "validation_ssim": "Mean SSIM of SUVR within the brain over the validation split, on the model's grid",
    "validation_psnr": "Mean PSNR of SUVR within the brain over the validation split, on the model's grid, dB",
    "validation_mae": "Mean absolute error of SUVR within the brain over the validation split, on the model's grid",
    "validation_regional_error": "Mean absolute error of regional SUVR over the validation split, on the model's grid",
    **{
        f"validation_{measure}_of_{name}": f"The same of the {name.replace('_', ' ')}, which the model should beat"
        for measure in ("ssim", "psnr", "mae", "regional_error")
        for name in ("training_mean", "diagnosis_mean", "regional_regression")
    },
    "best": "1 where the validation was the best so far by the measure that select_by names",
    "seconds": "Wall time of the epoch, validation included",
}


class TrainLog:
    """Rows of numbers by epoch, in ``log.tsv`` (with a sidecar that explains the columns) and for TensorBoard.

    Parameters
    ----------
    folder
        Folder of the model.
    epoch
        The epoch with which training starts or goes on; older rows are kept, others dropped.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        self.path = Path(folder) / "log.tsv"
        self._rows: list[dict[str, Cell]] = read_rows(self.path, before=epoch)
        write_json(COLUMNS, self.path.with_suffix(".json"))
        self._write()
        # With purge_step, readers drop the points of that step and later ones that an earlier process wrote.
        self._board = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=epoch)

    def add(self, row: Mapping[str, Cell]) -> None:
        """Append the row of one epoch; it is on the disk, complete, when this returns."""
        self._rows.append(dict(row))
        self._write()
        epoch = int(row["epoch"])
        for name, value in row.items():
            if name != "epoch" and isinstance(value, int | float):
                self._board.add_scalar(name.replace("_", "/", 1), value, epoch)
        self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        self._board.close()

    def _write(self) -> None:
        if self._rows:
            # The whole table each time: a thousand epochs are 200 kB, and no row is ever half there.
            write_tsv(pd.DataFrame(self._rows), self.path)
        else:
            self.path.unlink(missing_ok=True)


def read_rows(path: Path, before: int | None = None) -> list[dict[str, Cell]]:
    """Read the rows of a ``log.tsv``; only epochs below ``before`` if given. A missing file has no rows."""
    if not Path(path).is_file():
        return []
    table = read_tsv(path)
    if before is not None:
        table = table[table["epoch"] < before]
    return [{str(k): v for k, v in row.items()} for row in table.astype(object).to_dict("records")]


class Timer:
    """Measure wall time in seconds, lap by lap."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return the time since the lap began."""
        return time.monotonic() - self._start

    def lap(self) -> float:
        """Return the time since the lap began, and begin the next one."""
        began, self._start = self._start, time.monotonic()
        return self._start - began
