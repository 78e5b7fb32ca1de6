"""Trainings that do not start from random weights, but from an earlier model or from pretrained weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tau_pipeline.errors import MissingInputError, SettingError
from tau_pipeline.settings.training import Training
from tau_pipeline.settings.training_inputs import channel_names
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.model.card import ModelCard, read_card
from tau_pipeline.synthesis.model.ensemble import load_ensemble, members_of
from tau_pipeline.synthesis.networks.pretrained import load_pretrained
from tau_pipeline.synthesis.networks.systems import System
from tau_pipeline.synthesis.training.data import TrainingData


def require_source(settings: Training) -> None:
    """Refuse a file of weights or a model folder that cannot be started from, before any image is read.

    Raises
    ------
    MissingInputError
        It is not there, or is no model folder; the message names the setting and the path.
    SettingError
        It is an ensemble, which has several weights to start from, or a model of another network, other inputs, or
        another target scaling.
    """
    for name in ("init_from", "encoder_weights_file"):
        path = getattr(settings, name)
        if path is not None and not Path(path).exists():
            raise MissingInputError(f"{name} is {str(path)!r}, and there is nothing of this name")
    if settings.init_from is not None and len(members := members_of(settings.init_from)) > 1:
        raise SettingError(
            f"init_from is {str(settings.init_from)!r}, an ensemble of {len(members)} models; expected: one of its "
            f"folders, such as {members[0].name}"
        )
    if settings.init_from is not None:
        _require_alike(settings, read_card(settings.init_from))


def start_from(system: System, settings: Training, data: TrainingData) -> dict[str, Any] | None:
    """Give a system the weights of the model, or of the file of pretrained weights, that the settings name.

    Parameters
    ----------
    system
        Changed in place.
    settings
        Read here: ``init_from``, ``encoder_weights_file``, and all that the architecture depends on.
    data
        Of the training: its grid must be that of the model.

    Returns
    -------
    dict or None
        For the card: ``folder`` and ``hash`` of the model and, if there are any, ``trained_on_held_out``, participants
        held out here whose names are among those that the model was trained on; or what
        `tau_pipeline.synthesis.networks.pretrained.load_pretrained` returns; None where none is named.

    Raises
    ------
    SettingError
        The model has another network, other inputs, another target scaling, or another grid; the message names the
        first difference. Or no tensor of the file fits.
    MissingInputError, DamagedFileError
        The folder is no model, or is damaged; or the file is.
    """
    if settings.encoder_weights_file is not None:
        return load_pretrained(system.generator, settings.encoder_weights_file)
    if settings.init_from is None:
        return None
    found = load_ensemble([settings.init_from])
    card = found.first.card
    _require_alike(settings, card, data.train.grid)
    system.load_state_dict(found.first.system.state_dict())
    held_out = {pair.participant_id for dataset in (data.validation, data.test) for pair in dataset.pairs}
    known = sorted(held_out & set(card.training_participants))
    started_from = {"folder": Path(settings.init_from).name, "hash": found.hash}
    return {**started_from, "trained_on_held_out": known} if known else started_from


def _require_alike(settings: Training, card: ModelCard, grid: Grid | None = None) -> None:
    """Refuse a model that differs from the training in what its weights depend on."""
    # The network first: the settings of a regression have nothing of the rest.
    theirs = {"network": card.network, "preset": card.preset, **_architecture(card.settings)}
    ours = {"network": settings.network, "preset": settings.network_preset, **_architecture(asdict(settings))}
    if grid is not None:
        theirs["grid"], ours["grid"] = card.grid.describe(), grid.describe()
    for name, wanted in theirs.items():
        if ours[name] != wanted:
            raise SettingError(
                f"init_from is {str(settings.init_from)!r}, a model with the {name} {wanted}, and this training has "
                f"the {name} {ours[name]}; expected: the same network, inputs, target scaling, and grid"
            )


def limits_of_source(started_from: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Say that the weights a training started from may know participants held out here; empty if they do not.

    Parameters
    ----------
    started_from
        As `start_from` returns it.
    """
    known = (started_from or {}).get("trained_on_held_out", [])
    if started_from is None or not known:
        return ()
    names = ", ".join(known[:3]) + (", …" if len(known) > 3 else "")
    return (
        f"The training started from the model {started_from['folder']}, which was trained on participants with the "
        f"names of {len(known)} of those held out here ({names}): unless these are other people, all figures of "
        "held-out participants are too good.",
    )


def _architecture(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the weights of a network depend on beside its name and size."""
    return {
        "norm_layer": settings.get("norm_layer", "instance"),
        "inputs": ", ".join(channel_names(settings)),
        "target_scaling": settings.get("target_scaling", Training.target_scaling),
    }
