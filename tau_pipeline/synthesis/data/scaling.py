"""Scaling of SUVR to the values that a network is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tau_pipeline.cohort.standardize import (
    BACKGROUND,
    Standardization,
    participants_hash,
)
from tau_pipeline.errors import DamagedFileError, SettingError, shown
from tau_pipeline.files import read_tsv, write_tsv
from tau_pipeline.settings.cohort import Group, UnknownManufacturer


@dataclass(frozen=True)
class ByManufacturer:
    """SUVR standardized to mean 0 and SD 1 by manufacturer (`tau_pipeline.cohort.standardize`); the paper's choice."""

    standardization: Standardization
    #: Names the class in model cards.
    kind: ClassVar[str] = "manufacturer"
    FILE = "standardization.tsv"

    @property
    def background(self) -> float:
        """0, the mean of the brain."""
        return BACKGROUND

    @property
    def participants(self) -> tuple[str, ...]:
        """Participants that it was fitted on."""
        return self.standardization.participants

    def apply(self, suvr: NDArray, manufacturer: str | None, mask: NDArray | None = None) -> NDArray:
        """Standardize; see `Standardization.apply`, also for its errors."""
        return self.standardization.apply(suvr, manufacturer, mask)

    def invert(self, z: NDArray, manufacturer: str | None) -> NDArray:
        """Return SUVR from standardized values."""
        return self.standardization.invert(z, manufacturer)

    def save(self, folder: Path) -> Path:
        """Write ``standardization.tsv``."""
        self.standardization.save(Path(folder) / self.FILE)
        return Path(folder) / self.FILE

    @classmethod
    def load(
        cls, folder: Path, unknown_manufacturer: UnknownManufacturer = Group.unknown_manufacturer
    ) -> ByManufacturer:
        """Read ``standardization.tsv``; ``unknown_manufacturer`` says what is done with others than the fitted ones."""
        return cls(Standardization.load(Path(folder) / cls.FILE).with_unknown(unknown_manufacturer))


@dataclass(frozen=True)
class MinMax:
    """SUVR scaled so that ``low`` becomes -1 and ``high`` 1, for all manufacturers; nothing is clipped.

    ``low`` and ``high`` are the least and the largest SUVR in the brains of the training participants. The background
    is -1. The paper compares it with standardization by manufacturer, and finds it worse.

    Raises
    ------
    SettingError
        The range is empty or not finite.
    """

    low: float
    high: float
    participants: tuple[str, ...] = ()
    #: Names the class in model cards.
    kind: ClassVar[str] = "minmax"
    FILE = "minmax.tsv"

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise SettingError(f"SUVR from {self.low} to {self.high} is no range to scale; low < high is needed")

    @property
    def background(self) -> float:
        """-1, where the lowest SUVR goes."""
        return -1.0

    def apply(self, suvr: NDArray, manufacturer: str | None, mask: NDArray | None = None) -> NDArray:
        """Return scaled values; the manufacturer makes no difference."""
        scaled = (np.asarray(suvr, np.float64) - self.low) * (2 / (self.high - self.low)) - 1
        if mask is not None:
            scaled = np.where(np.asarray(mask) > 0, scaled, self.background)
        return scaled.astype(np.asarray(suvr).dtype)

    def invert(self, z: NDArray, manufacturer: str | None) -> NDArray:
        """Return SUVR from scaled values."""
        suvr = (np.asarray(z, np.float64) + 1) * ((self.high - self.low) / 2) + self.low
        return suvr.astype(np.asarray(z).dtype)

    def save(self, folder: Path) -> Path:
        """Write ``minmax.tsv``; numbers in full, so that `load` gives back the same to the last bit."""
        row = {
            "low": f"{self.low:.17g}",
            "high": f"{self.high:.17g}",
            "n_participants": len(self.participants),
            "participants_hash": participants_hash(self.participants),
            "participants": " ".join(self.participants),
        }
        return write_tsv(pd.DataFrame([row]), Path(folder) / self.FILE)

    @classmethod
    def load(cls, folder: Path) -> MinMax:
        """Read ``minmax.tsv``.

        Raises
        ------
        MissingInputError, DamagedFileError
            There is no such table, or it holds no range.
        """
        path = Path(folder) / cls.FILE
        try:
            row = read_tsv(path).astype({"low": float, "high": float, "participants": str}).iloc[0]
            return cls(float(row["low"]), float(row["high"]), tuple(row["participants"].split()))
        except (KeyError, IndexError, ValueError) as exc:
            raise DamagedFileError(
                f"{path} holds no range of SUVR ({exc}); low, high and participants are needed"
            ) from exc


#: Between SUVR and what a network predicts; both have ``kind``, ``background``, ``participants``, ``apply(suvr,
#: manufacturer, mask)``, ``invert(z, manufacturer)``, ``save(folder)`` and ``load(folder)``.
TargetScaling = ByManufacturer | MinMax


def load_target_scaling(
    folder: Path, kind: str, unknown_manufacturer: UnknownManufacturer = Group.unknown_manufacturer
) -> TargetScaling:
    """Read the target scaling of a model folder, by the kind that its card names.

    Raises
    ------
    SettingError
        The kind is not known.
    """
    if kind == "manufacturer":
        return ByManufacturer.load(folder, unknown_manufacturer)
    if kind == "minmax":
        return MinMax.load(folder)
    raise SettingError(f"there is no scaling of SUVR {shown(kind)}; manufacturer and minmax are known")
