"""The model folder: everything that is needed to use a model, and to judge whether to.

```
model.json                    the card: what was trained, on whom, how well it does, what it is for
weights.safetensors           all networks of the system
average.safetensors           averaged weights of the generator, where training kept an average; prediction uses them
standardization.tsv           or minmax.tsv: between SUVR and what the network predicts
splits.tsv                    who was for training, validation and test
```

and whatever else was put beside them (log, figures, checkpoints). The card is written last, so that a folder that has
one is whole; it holds the SHA-256 of every file that `load_model` reads, which rebuilds the system without guessing.
What is found by applying the finished model comes after the card: ``uncertainty.json``
(`tau_pipeline.synthesis.model.calibration`) and ``baselines.npz`` (`tau_pipeline.synthesis.model.baselines`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tau_pipeline
from tau_pipeline.cohort.standardize import participants_hash
from tau_pipeline.errors import (
    DamagedFileError,
    MissingInputError,
    OutputError,
    SettingError,
    TauPipelineError,
)
from tau_pipeline.files import write_json
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.prepare import PlacedT1w
from tau_pipeline.synthesis.data.scaling import ByManufacturer, MinMax, TargetScaling, load_target_scaling
from tau_pipeline.synthesis.data.splits import load_splits, save_splits
from tau_pipeline.synthesis.model.card import CARD, RANDOM_FEATURES_LIMIT, ModelCard, read_card
from tau_pipeline.synthesis.model.channels import InputChannels
from tau_pipeline.synthesis.model.probe import check_probe, probe
from tau_pipeline.synthesis.model.regression import REGRESSION, RegionalRegression
from tau_pipeline.synthesis.model.tensor_file import read_tensors, write_tensors
from tau_pipeline.synthesis.networks.systems import Options, System, build_system

WEIGHTS = "weights.safetensors"
AVERAGE = "average.safetensors"
_SPLITS_TABLE = "splits.tsv"

#: Networks, or the regression that has their interface.
AnySystem = System | RegionalRegression


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to be used: the system is in evaluation mode, on the CPU."""

    system: AnySystem
    card: ModelCard
    target_scaling: TargetScaling
    splits: pd.DataFrame
    channels: InputChannels = field(default_factory=InputChannels)

    def inputs(self, placed: PlacedT1w) -> NDArray[np.float32]:
        """Return what the network sees of a participant, ``(C, I, J, K)``.

        Parameters
        ----------
        placed
            T1w on the model's grid, with the subject's labels and covariates if the model uses them.

        Raises
        ------
        SettingError
            The model uses labels, and they were not given.
        """
        return self.channels.stacked(placed)

    @property
    def grid(self) -> Grid:
        """The common grid that it takes T1w images on."""
        return self.card.grid

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """Names of the covariates that it uses; where one is not known, it takes the average."""
        regression = self.system if isinstance(self.system, RegionalRegression) else self.channels.prior
        of_regression = regression.covariate_names if regression is not None else ()
        return tuple(dict.fromkeys((*self.channels.covariates.names, *of_regression)))


def save_model(
    folder: Path,
    system: AnySystem,
    card: ModelCard,
    target_scaling: TargetScaling,
    splits: pd.DataFrame,
    average: Mapping[str, Tensor] | None = None,
    channels: InputChannels | None = None,
) -> Path:
    """Write a model folder. Whatever ends the process, a folder that holds a card is whole.

    Parameters
    ----------
    folder
        Where. Other files in it stay; a model in it is replaced.
    system
        All networks.
    card
        What the caller knows; what can be seen from the other arguments is filled in.
    target_scaling
        As it was fitted.
    splits
        Table of `tau_pipeline.synthesis.data.splits`.
    average
        Averaged weights: a state dict of the system or of its generator.
    channels
        Of the input; None for the T1w alone.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    SettingError
        Target scaling or network saw someone who is not in the training split, or the card names another network than
        the system.
    OutputError
        The folder cannot be written to.
    """
    folder = Path(folder)
    _check_matches(system, card, target_scaling, splits)
    with _card_last(folder) as partial:
        needed = [write_tensors(system.state_dict(), partial / WEIGHTS)]
        probes = {WEIGHTS: probe(system.generator, card)}
        if average is not None:
            own = _of_generator(system, average)
            needed.append(write_tensors(own, partial / AVERAGE))
            probes[AVERAGE] = probe(system.generator, card, own)
        needed += [target_scaling.save(partial), save_splits(splits, partial / _SPLITS_TABLE)]
        needed += (channels or InputChannels()).save(partial)
        card = dataclasses.replace(card, files={file.name: _sha256(file) for file in needed}, probes=probes)
        write_json(_completed(card, system, target_scaling, splits).as_dict(), partial / CARD)
    return folder


def _check_matches(system: AnySystem, card: ModelCard, target_scaling: TargetScaling, splits: pd.DataFrame) -> None:
    if (system.name, system.preset) != (card.network, card.preset):
        raise SettingError(
            f"the card says {card.network} ({card.preset}), and the system is {system.name} ({system.preset})"
        )
    train = set(splits.loc[splits["split"] == "train", "participant_id"])
    for what, used in (("target scaling", target_scaling.participants), ("network", card.training_participants)):
        if leaked := sorted(set(used) - train):
            raise SettingError(
                f"the {what} saw {', '.join(leaked)}, not in the training split; fit it on training participants only"
            )


def _completed(card: ModelCard, system: AnySystem, target_scaling: TargetScaling, splits: pd.DataFrame) -> ModelCard:
    split = splits.loc[splits["split"] == "train", "participant_id"]
    train = tuple(sorted(card.training_participants or split))
    seen: dict[str, Any] = {"target_scaling": target_scaling.kind}
    if isinstance(target_scaling, ByManufacturer):
        fit = target_scaling.standardization
        seen["manufacturers"] = fit.known
        seen["unknown_manufacturer"] = fit.unknown
        seen["tracer"] = card.tracer or fit.tracer
        seen["reference_region"] = card.reference_region or fit.reference_region
    if card.random_features and RANDOM_FEATURES_LIMIT not in card.limits:
        seen["limits"] = (*card.limits, RANDOM_FEATURES_LIMIT)
    return dataclasses.replace(
        card,
        **seen,
        training_participants=train,
        training_participants_hash=participants_hash(train),
        n_parameters=_n_numbers(system),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _n_numbers(system: AnySystem) -> int:
    if isinstance(system, RegionalRegression):
        return system.n_numbers
    return sum(parameter.numel() for parameter in system.parameters())


def _of_generator(system: AnySystem, average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return averaged weights by their names in the generator; they may come with their names in the system."""
    wanted = set(system.generator.state_dict())
    own = dict(average)
    if set(own) == set(system.state_dict()):
        own = {name.removeprefix("generator."): value for name, value in own.items() if name.startswith("generator.")}
    if set(own) != wanted:
        raise SettingError(
            f"the averaged weights do not fit the generator of {system.name}: {sorted(set(own) ^ wanted)[0]} is "
            "only in one of them"
        )
    return own


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _card_last(folder: Path) -> Iterator[Path]:
    """Give a partial folder to write to; when the block ends without an error its files go into ``folder``.

    Without a card a folder is no model: an old one goes before the first file changes, the new one comes last.
    """
    partial = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_behind in folder.glob(".partial-*/"):
            # Of a process that was killed while it wrote.
            shutil.rmtree(left_behind, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
        yield partial
        (folder / CARD).unlink(missing_ok=True)
        files = [path for path in sorted(partial.rglob("*")) if path.is_file()]
        written = {file: folder / file.relative_to(partial) for file in files if file != partial / CARD}
        for file, place in written.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
        for name in (AVERAGE, ByManufacturer.FILE, MinMax.FILE):
            if folder / name not in written.values():
                (folder / name).unlink(missing_ok=True)
        (partial / CARD).replace(folder / CARD)
    except TauPipelineError:
        raise
    except OSError as exc:
        raise OutputError(f"cannot write the model folder {folder}: {exc.strerror or exc}") from exc
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def load_model(folder: Path, *, use_average: bool | None = None) -> LoadedModel:
    """Rebuild a model from its folder.

    Parameters
    ----------
    folder
        From `save_model`.
    use_average
        Whether the generator gets the averaged weights. None: if there are any.

    Raises
    ------
    MissingInputError
        There is no such folder, or a file is missing.
    DamagedFileError
        A file is not the one that was written, or does not fit the network that the card names.
    SettingError
        The card is from a newer program, or averaged weights were requested and there are none.
    UnknownNameError
        The card names a network that does not exist.
    """
    folder = Path(folder)
    card = read_card(folder)
    if absent := [name for name in (WEIGHTS, _SPLITS_TABLE) if name not in card.files]:
        raise DamagedFileError(f"{folder / CARD} does not name {absent[0]}; copy the model folder again")
    for name, digest in card.files.items():
        _check_file(folder / name, digest)
    if use_average and AVERAGE not in card.files:
        raise SettingError(f"{folder} holds no averaged weights; training kept none")
    system = _built(card, folder / WEIGHTS)
    if card.network != REGRESSION:
        _load_weights(system, folder / WEIGHTS, card)
    used = WEIGHTS
    if use_average or (use_average is None and AVERAGE in card.files):
        _load_weights(system.generator, folder / AVERAGE, card)
        used = AVERAGE
    check_probe(system.generator, card, used)
    target_scaling = load_target_scaling(folder, card.target_scaling, card.unknown_manufacturer)
    # A regression reads its features itself, whatever the settings say of networks.
    channels = InputChannels() if card.network == REGRESSION else InputChannels.load(folder, card.settings)
    return LoadedModel(system.eval(), card, target_scaling, load_splits(folder / _SPLITS_TABLE), channels)


def _built(card: ModelCard, weights: Path) -> AnySystem:
    """Return the system of a card, whose weights are not loaded yet; a regression is made of its weights."""
    if card.network == REGRESSION:
        return RegionalRegression(read_tensors(weights), card.preset)
    # The first weights are drawn and thrown away; what a script has seeded must not feel that.
    with torch.random.fork_rng(devices=[]):
        return build_system(card.network, card.preset, card.grid.shape, Options.of(card.settings))  # type: ignore[arg-type]


def _check_file(path: Path, digest: str) -> None:
    """Refuse a file that is not the one that the card names."""
    if not path.is_file():
        raise MissingInputError(f"the model folder lacks {path}; copy it again")
    if _sha256(path) != digest:
        raise DamagedFileError(
            f"{path} is not the file that was written with the model (its SHA-256 is not the one in {CARD}): it was "
            "cut short or changed; copy the model folder again"
        )


def _load_weights(network: nn.Module, path: Path, card: ModelCard) -> None:
    found = read_tensors(path)
    wanted = network.state_dict()
    odd = [
        *(f"{name} is missing" for name in wanted if name not in found),
        *(f"{name} is unknown" for name in found if name not in wanted),
        *(
            f"{name} has shape {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted
            if name in found and found[name].shape != wanted[name].shape
        ),
    ]
    if odd:
        raise DamagedFileError(
            f"{path} does not fit the network {card.network} ({card.preset}) of this version: {odd[0]}"
            f"{f', and {len(odd) - 1} more' if len(odd) > 1 else ''}; the model was written by version "
            f"{card.code_version}, this is {tau_pipeline.__version__}"
        )
    network.load_state_dict(found)
