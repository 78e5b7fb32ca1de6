"""Results of a training: the folder's owner, the figures, and the model folder with its card."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import tau_pipeline
from tau_pipeline.errors import SettingError
from tau_pipeline.figures.sheet import save_figure
from tau_pipeline.figures.training import Sample, learning_curves_figure, samples_figure
from tau_pipeline.files import read_json, write_json
from tau_pipeline.settings.training import Device, Training
from tau_pipeline.synthesis.data.covariates import unused_text
from tau_pipeline.synthesis.data.pairs import UNKNOWN, Pair
from tau_pipeline.synthesis.model.baseline_scores import KEY as HELD_OUT
from tau_pipeline.synthesis.model.baseline_scores import MODEL, score_held_out
from tau_pipeline.synthesis.model.baselines import FILE as TRAINING_STATISTICS
from tau_pipeline.synthesis.model.baselines import fit_training_statistics
from tau_pipeline.synthesis.model.calibration import FILE as UNCERTAINTY
from tau_pipeline.synthesis.model.calibration import calibrate
from tau_pipeline.synthesis.model.card import CARD, ModelCard
from tau_pipeline.synthesis.model.correction import fit_level_weight
from tau_pipeline.synthesis.model.ensemble import Ensemble, load_ensemble
from tau_pipeline.synthesis.model.folder import save_model
from tau_pipeline.synthesis.model.regression import REGRESSION
from tau_pipeline.synthesis.training.checkpoints import find_checkpoints, remove_partial_files
from tau_pipeline.synthesis.training.data import SPLITS_FILE
from tau_pipeline.synthesis.training.log import read_rows
from tau_pipeline.synthesis.training.processes import Processes
from tau_pipeline.synthesis.training.source import limits_of_source
from tau_pipeline.synthesis.training.validation import SUVR_RANGE, ScanScores, mean_scores, regional_correlation
from tau_pipeline.synthesis.training.weight_average import averaged_weights

if TYPE_CHECKING:
    from tau_pipeline.synthesis.training.data import TrainingData
    from tau_pipeline.synthesis.training.run import Run

#: Folder of the checkpoints in the model's folder.
CHECKPOINTS = "checkpoints"
#: Says which training a folder belongs to, from its first minute.
_TRAINING_FILE = "training.json"
#: Scans of the test split that are drawn.
_DRAWN = 3

_log = logging.getLogger(__name__)


def claim_folder(folder: Path, settings: Training, pairs: Sequence[Pair], random_seed: int, group: Processes) -> None:
    """Make a folder this training's, or see that it is.

    A training that ended before its first checkpoint leaves nothing that could be lost: its folder is free.

    Raises
    ------
    SettingError
        It holds a training with other settings, another seed or other scans; the message names the first difference.
    """
    ours = _identity(settings, pairs, random_seed)
    path = Path(folder) / _TRAINING_FILE
    begun = _has_begun(Path(folder))
    if begun and path.is_file():
        _require_same(read_json(path), ours, Path(folder))
    group.wait()
    with group.together():
        if group.writes:
            if not begun:
                # Of other settings or scans, perhaps.
                (Path(folder) / SPLITS_FILE).unlink(missing_ok=True)
            write_json(ours, path)
            remove_partial_files(Path(folder) / CHECKPOINTS)


def _has_begun(folder: Path) -> bool:
    return (folder / CARD).is_file() or bool(find_checkpoints(folder / CHECKPOINTS))


def _identity(settings: Training, pairs: Sequence[Pair], random_seed: int) -> dict[str, Any]:
    """Return everything that distinguishes this training from others."""
    scans = sorted(pair.scan for pair in pairs)
    return {
        "settings": settings.resume_fields(),
        "seed": random_seed,
        "scans": scans,
        "version": tau_pipeline.__version__,
    }


def _require_same(theirs: dict[str, Any], ours: dict[str, Any], folder: Path) -> None:
    # A setting that the earlier version did not have had its default.
    old, new = {**Training().resume_fields(), **theirs.get("settings", {})}, ours["settings"]
    # Through lists, as JSON has them.
    differing = [name for name in new if _plain(old.get(name)) != _plain(new[name])]
    hint = "give another model_name, or remove the folder to start anew"
    if differing:
        name = differing[0]
        raise SettingError(
            f"{folder} holds a training with {name} {old.get(name)!r}, and now {name} is {new[name]!r}; {hint}"
        )
    if theirs.get("seed") != ours["seed"]:
        raise SettingError(f"{folder} holds a training with seed {theirs.get('seed')}, not {ours['seed']}; {hint}")
    if theirs.get("scans") != ours["scans"]:
        changed = sorted(set(theirs.get("scans", ())) ^ set(ours["scans"]))
        raise SettingError(f"{folder} holds a training on other scans (first difference: {changed[0]}); {hint}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def is_finished(folder: Path, settings: Training, pairs: Sequence[Pair], random_seed: int) -> bool:
    """Return whether the folder holds this training's model, with all its epochs.

    Raises
    ------
    SettingError
        The folder holds another training.
    """
    folder, settings = Path(folder), settings.resolved(len({pair.participant_id for pair in pairs}))
    # The training statistics come after the card: without them the end of the training was cut off, and is made again.
    if not all((folder / name).is_file() for name in (CARD, _TRAINING_FILE, TRAINING_STATISTICS)):
        return False
    _require_same(read_json(folder / _TRAINING_FILE), _identity(settings, pairs, random_seed), folder)
    if settings.network == REGRESSION:
        return True
    figures = read_json(folder / CARD).get("figures", {})
    return bool(figures.get("stopped_early")) or figures.get("epochs", 0) >= settings.epochs


def save_results(run: Run, scores: Sequence[ScanScores]) -> None:
    """Write figures, test results and the model folder.

    Parameters
    ----------
    run
        The finished training, its system with the weights that were tested.
    scores
        Of the test split.
    """
    state, settings, data = run.state, run.settings, run.data
    rows = read_rows(run.folder / "log.tsv")
    save_figure(learning_curves_figure(rows), run.folder / "figures" / "learning_curves.png")
    average = state.average if state.best_weights is None else None
    with averaged_weights(state.system.generator, average):
        samples = _samples(run, scores[:_DRAWN])
    if samples:
        save_figure(samples_figure(samples), run.folder / "figures" / "test_samples.png")
    first = data.train.pairs[0]
    card = ModelCard(
        network=settings.network,
        preset=settings.network_preset,
        grid=data.train.grid,
        settings={**settings.resume_fields(), "epochs": settings.epochs},
        seed=run.random_seed,
        random_features=settings.perceptual_features == "random" and settings.needs_features,
        figures=_measures(run, scores),
        limits=(
            *limits_of_source(run.started_from),
            *unused_text(settings.covariates, {pair.participant_id: pair.covariates for pair in data.train.pairs}),
            *ModelCard.limits,
        ),
        tracer="" if first.tracer == UNKNOWN else first.tracer,
        reference_region="" if first.reference_region == UNKNOWN else first.reference_region,
    )
    weights = average.weights if average is not None else None
    save_model(run.folder, state.system, card, data.target_scaling, data.splits, weights, data.channels)
    save_measures(run.folder, data, settings.device)


def save_measures(folder: Path, data: TrainingData, device: Device) -> None:
    """Save what is found by applying the model: figures beside the baselines, calibration, training statistics.

    Parameters
    ----------
    folder
        Model folder. Its card gets the figures of the held-out participants.
    data
        Scans of the splits.
    device
        Where to predict.
    """
    held_out = [*data.validation.pairs, *data.test.pairs]
    ensemble = _with_level_weight(folder, held_out, device)
    (folder / UNCERTAINTY).unlink(missing_ok=True)
    statistics = fit_training_statistics(ensemble.first, data.train.pairs, data.train.cache_dir)
    scored = score_held_out(ensemble, statistics, held_out, device)
    if scored is not None:
        card = ensemble.first.card
        figures = {**card.figures, HELD_OUT: scored.as_dict()}
        # What is wrong comes first: that the figures are too good, then what they say.
        n = len(limits_of_source(card.figures.get("started_from")))
        limits = tuple(filter(None, (*card.limits[:n], scored.sentence, *card.limits[n:])))
        card = replace(card, figures=figures, limits=limits)
        write_json(card.as_dict(), folder / CARD)
        if scored.tables is not None:
            scored.tables.save(folder)
        # The hash of the card names the model in the calibration.
        ensemble = load_ensemble([folder])
    found = calibrate(ensemble, held_out, data.train.cache_dir, device=device)
    if found is not None:
        found.save(folder)
    statistics.save(folder)


def _with_level_weight(folder: Path, held_out: Sequence[Pair], device: Device) -> Ensemble:
    """Return the model of a folder; the card of one that corrects a regression gets its ``level_weight``."""
    ensemble = load_ensemble([folder])
    if ensemble.first.channels.prior is None:
        return ensemble
    weight = round(fit_level_weight(ensemble, held_out, device), 4)
    _log.info(
        "%.0f %% of the network's correction of regional means is used (fitted on the validation split)", 100 * weight
    )
    write_json(replace(ensemble.first.card, level_weight=weight).as_dict(), folder / CARD)
    return load_ensemble([folder])


def _measures(run: Run, scores: Sequence[ScanScores]) -> dict[str, Any]:
    """Return metrics for the card: means over the scans of the test split."""
    progress = run.state.progress
    return {
        "epochs": progress.epoch,
        "stopped_early": progress.stopped and progress.epoch < run.settings.epochs,
        "tested_weights": run.settings.tested_weights,
        "averaged": run.state.average is not None,
        "test_scans": len(scores),
        "on_model_grid": _on_model_grid(run, scores),
        "scans_left_out_for_quality": list(run.left_out),
        **({"started_from": dict(run.started_from)} if run.started_from else {}),
    }


def _on_model_grid(run: Run, scores: Sequence[ScanScores]) -> dict[str, Any]:
    """Return the figures of the test split on the model's grid, with those of the baselines."""
    own = {**mean_scores(scores), "regional_correlation": regional_correlation(scores)}
    others = run.baselines.scores(run.data, "test") if run.baselines is not None else {}
    return {
        "suvr_range": SUVR_RANGE,
        "mask": "brain mask where the PET is known, on the model's grid",
        "figures": {
            predictor: {name: round(value, 6) if np.isfinite(value) else None for name, value in each.items()}
            for predictor, each in {MODEL: own, **others}.items()
        },
    }


def _samples(run: Run, scores: Sequence[ScanScores]) -> list[Sample]:
    """Return the first scans of the test split as arrays."""
    found = []
    generator = run.state.system.generator.eval()
    for index, score in enumerate(scores):
        item = run.data.test[index]
        with torch.no_grad():
            z = generator(item["t1w"][None].to(run.group.device))[0, 0].float().cpu().numpy()
        mask, manufacturer = item["mask"][0].numpy(), item["manufacturer"]
        synthetic, measured = (
            np.where(mask, run.data.target_scaling.invert(array, manufacturer), 0.0)
            for array in (z, item["pet"][0].numpy())
        )
        title = f"sub-{score.participant} ({manufacturer})"
        found.append(Sample(item["t1w"][0].numpy(), measured, synthetic, title))
    return found
