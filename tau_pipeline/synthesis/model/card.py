"""The card of a model: what it was trained on, how, and what it is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import monai
import torch

import tau_pipeline
from tau_pipeline.errors import (
    DamagedFileError,
    MissingInputError,
    SettingError,
    shown,
)
from tau_pipeline.files import read_json
from tau_pipeline.settings.cohort import Group, UnknownManufacturer
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.prepare import T1W_PERCENTILES

CARD = "model.json"


#: Goes up when an older program could not read a new folder.
_CARD_FORMAT = 3


_INTENDED_USE = (
    "Research on synthetic tau PET: how well T1w MRI predicts the distribution of tau in groups of people. Not for "
    "diagnosis, prognosis, or choice of treatment."
)


_LIMITS = (
    "The maps are synthetic: they are predicted from structure by a model, do not measure tau, and must be labeled "
    "as synthetic wherever they are shown.",
    "A good SSIM or PSNR does not mean that regions with high SUVR are correct: check regional values and upper "
    "percentiles.",
    "Valid for T1w images, scanners, tracer, reference region, and ages similar to those of the training participants.",
)


RANDOM_FEATURES_LIMIT = (
    "The perceptual loss used a feature network with random weights, as set by the user: not the method of the paper."
)


@dataclass(frozen=True)
class ModelCard:
    """Content of ``model.json``.

    The caller of `save_model` gives the fields up to ``figures``; the others have their values, or are filled in when
    the folder is written: ``training_participants`` with the whole training split, unless the caller names fewer.

    Attributes
    ----------
    network, preset
        Names that `tau_pipeline.synthesis.networks.systems.build_system` knows.
    grid
        The common grid; its shape is the image size of the system.
    settings
        All settings of the training, as JSON has them.
    seed
        Of the training.
    random_features
        Whether the perceptual loss used random weights.
    figures
        Of the test split, by name.
    intended_use, limits
        In words.
    tracer, reference_region, manufacturers
        Of the SUVR that the model learned; manufacturers with a separate standardization.
    target_scaling, unknown_manufacturer
        Kind of target scaling, and treatment of unknown manufacturers.
    t1w_percentiles
        Percentiles of the T1w in the brain that become -1 and 1.
    training_participants, training_participants_hash
        Who the weights were trained on.
    level_weight
        Of a network that corrects a regression, the part of its correction of regional means that is used
        (`tau_pipeline.synthesis.model.correction`); cards of format 1 have none, and stand for 1.
    n_parameters
        Numbers in ``weights.safetensors``.
    files
        SHA-256 of each file that `load_model` reads.
    probes
        For each file of weights, what the generator makes of a fixed input (`probe`). A network that was rebuilt by
        other code and does not compute the same shows here.
    code_version, torch_version, monai_version, created
        What wrote the folder, and when (UTC).
    """

    network: str
    preset: str
    grid: Grid
    settings: Mapping[str, Any]
    seed: int
    random_features: bool = False
    figures: Mapping[str, Any] = field(default_factory=dict)
    intended_use: str = _INTENDED_USE
    limits: tuple[str, ...] = _LIMITS
    tracer: str = ""
    reference_region: str = ""
    manufacturers: tuple[str, ...] = ()
    target_scaling: str = "manufacturer"
    unknown_manufacturer: UnknownManufacturer = Group.unknown_manufacturer
    t1w_percentiles: tuple[float, float] = T1W_PERCENTILES
    training_participants: tuple[str, ...] = ()
    training_participants_hash: str = ""
    level_weight: float = 1.0
    n_parameters: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    probes: Mapping[str, Any] = field(default_factory=dict)
    code_version: str = tau_pipeline.__version__
    torch_version: str = torch.__version__
    monai_version: str = monai.__version__
    created: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form; its format number comes first."""
        content = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {"format": _CARD_FORMAT, "software": "tau-pipeline", **content, "grid": self.grid.as_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = CARD) -> ModelCard:
        """Return the card of a JSON form: the inverse of `as_dict`.

        Raises
        ------
        SettingError
            The card is from a newer program.
        DamagedFileError
            A value is missing or has another type.
        """
        written = content.get("format")
        if not isinstance(written, int):
            raise DamagedFileError(f"{source} has no format number, so it is no card of a model")
        if written > _CARD_FORMAT:
            raise SettingError(
                f"{source} has format {written}, from tau-pipeline {content.get('code_version')}; this is version "
                f"{tau_pipeline.__version__}, which reads up to format {_CARD_FORMAT}: install a newer one"
            )
        if written <= 2 and "normalisation" in content:
            content = {**content, "target_scaling": content["normalisation"]}
        values = {}
        for item in dataclasses.fields(cls):
            if item.name == "level_weight" and written == 1:
                continue
            if item.name not in content:
                raise DamagedFileError(f"{source} has no {item.name!r}; copy the model folder again")
            values[item.name] = _from_json(item.name, content[item.name], source)
        if elsewhere := [name for name in values["files"] if Path(name).name != name]:
            raise DamagedFileError(f"{source} names a file outside of the model folder: {elsewhere[0]}")
        return cls(**values)


_TYPES: dict[str, type] = {
    **dict.fromkeys(("settings", "figures", "files", "probes", "grid"), dict),
    **dict.fromkeys(("limits", "manufacturers", "t1w_percentiles", "training_participants"), list),
    **dict.fromkeys(("seed", "n_parameters"), int),
    "level_weight": float,
    "random_features": bool,
}


def _from_json(name: str, value: Any, source: str) -> Any:
    wanted = _TYPES.get(name, str)
    fits = isinstance(value, wanted)
    if not fits:
        raise DamagedFileError(f"{source}: {name} is {shown(value)}, and a JSON {wanted.__name__} is needed")
    if name == "level_weight" and not 0 <= value <= 1:
        raise DamagedFileError(f"{source}: {name} is {value}, and a number from 0 to 1 is needed")
    if name == "grid":
        return Grid.from_dict(value)
    return tuple(value) if isinstance(value, list) else value


def read_card(folder: Path) -> ModelCard:
    """Read the card alone, without the weights.

    Raises
    ------
    MissingInputError
        There is no such folder, or no card in it.
    SettingError, DamagedFileError
        The card is from a newer program, or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingInputError(f"there is no model folder {folder}")
    if not (folder / CARD).is_file():
        raise MissingInputError(f"{folder} is no model folder: it holds no {CARD}; give the folder that `train` wrote")
    return ModelCard.from_dict(read_json(folder / CARD), str(folder / CARD))
