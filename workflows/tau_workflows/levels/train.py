"""The train level: from the derivatives of paired scans to one model folder."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tau_pipeline.cohort.provenance import refuse_mixtures
from tau_pipeline.derivatives.dataset import write_bidsignore
from tau_pipeline.errors import DivergenceError, MissingInputError, SettingError
from tau_pipeline.files import read_json
from tau_pipeline.pet.reference_region import parse_reference
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.participant import Selection
from tau_pipeline.settings.training import LEAST_FOR_NETWORK, Training
from tau_pipeline.synthesis.data.covariates import unread_text, with_covariates
from tau_pipeline.synthesis.data.pairs import Pair, search_pairs
from tau_pipeline.words import counted, form
from tau_workflows.levels.call import (
    DONE,
    NOTHING_TO_DO,
    SOME_FAILED,
    check_call,
    diagnoses_of,
    is_selected,
    read_people,
    say,
)


@dataclass(frozen=True)
class Chosen:
    """Pairs to train on, and the stems of the scans that are left out because their quality is ``fail``."""

    pairs: list[Pair]
    left_out: tuple[str, ...]


def run_training(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    """Train one model, or go on with a training that was interrupted; returns the exit code.

    Under ``torchrun`` every process calls this; the first one writes and speaks.

    Parameters
    ----------
    bids_dir
        The raw dataset: ``participants.tsv`` states the diagnosis, by which the splits are stratified.
    output_dir
        What the participant level wrote. The model goes to ``models/<name>`` there, unless ``model_dir`` says where.
    config
        Read here: ``training``; ``random_seed`` and the first of ``ref_region``; ``participant_label``,
        ``session_label`` and ``tracer_label``; ``min_participants``, ``unknown_manufacturer`` and
        ``diagnosis_column``; ``work_dir``, ``omp_nthreads``, ``nprocs`` and ``dry_run``.

    Raises
    ------
    TauPipelineError
        The call or the data are wrong; nothing was trained.
    """
    started = time.monotonic()
    bids_dir, output_dir = Path(bids_dir).absolute(), Path(output_dir).absolute()
    check_call(bids_dir, output_dir)
    chosen = chosen_pairs(bids_dir, output_dir, config)
    pairs = chosen.pairs
    settings = config.training.resolved(n_people := len({pair.participant for pair in pairs}))
    if settings.network != config.training.network:
        say(_choice(settings.network, n_people))
    if settings.cache_dir is None:
        settings = replace(settings, cache_dir=config.execution.work_dir.absolute() / "synthesis_cache")
    model_dir = (settings.model_dir or output_dir / "models" / settings.name).absolute()
    if model_dir.exists() and not model_dir.is_dir():
        raise SettingError(f"model_dir is {str(model_dir)!r}, a file; expected: a folder, which need not exist")
    if config.execution.dry_run:
        what = settings.network if settings.network == "regression" else f"{settings.network} with {settings.loss}"
        say(f"would train {what} on {counted(len(pairs), 'scan')} of {counted(n_people, 'participant')}")
        if settings.folds and settings.fold is None:
            say(f"{settings.folds} folds, whose models predict together")
        say(f"model: {model_dir}")
        return DONE
    write_bidsignore(output_dir)
    return _train(settings, chosen, model_dir, config, started)


def _choice(system: str, n_people: int) -> str:
    """Say what ``auto`` chose, and how to choose otherwise."""
    if system == "regression":
        return (
            f"network is auto: with {counted(n_people, 'participant')}, fewer than {LEAST_FOR_NETWORK}, a regional "
            "regression is fitted; --network unet trains a network instead"
        )
    return "network is auto: a U-Net is trained; --system regression fits a regional regression instead"


def _train(settings: Training, chosen: Chosen, model_dir: Path, config: Configuration, started: float) -> int:
    # Only here, so that a wrong call is answered before torch is loaded.
    import torch

    from tau_pipeline.synthesis.model.ensemble import FILE as ENSEMBLE
    from tau_pipeline.synthesis.model.ensemble import save_ensemble
    from tau_pipeline.synthesis.training.loop import train
    from tau_pipeline.synthesis.training.results import is_finished

    pairs, seed = chosen.pairs, config.settings.random_seed
    folds = _folds(settings, model_dir)
    unfinished = [own for own in folds if not is_finished(*own[::-1], pairs, seed)]
    _complete_pages(folder for own, folder in folds if (own, folder) not in unfinished)
    if not unfinished and (len(folds) == 1 or (model_dir / ENSEMBLE).is_file()):
        say(f"nothing to do: {model_dir} contains this model, fully trained")
        return NOTHING_TO_DO
    threads = config.execution.omp_nthreads or config.execution.nprocs
    if threads:
        torch.set_num_threads(threads)
    try:
        for own, folder in unfinished:
            train(own, pairs, folder, random_seed=seed, cohort=config.group, left_out=chosen.left_out)
            _summarize(folder, time.monotonic() - started)
    except DivergenceError as exc:
        say(str(exc))
        return SOME_FAILED
    if len(folds) > 1:
        save_ensemble(model_dir, [folder for _, folder in folds])
        say(f"ensemble of {len(folds)} folds: {model_dir}; give this folder to synthesize --model")
    return DONE


def _complete_pages(folders: Iterable[Path]) -> None:
    """Write the pages that are missing from finished folders: of a call that ended between the model and its page."""
    from tau_workflows.reports.model import PAGE, write_model_report

    for folder in folders:
        if not (folder / PAGE).is_file():
            say(f"report: {write_model_report(folder)}")


def _folds(settings: Training, model_dir: Path) -> list[tuple[Training, Path]]:
    """Return the trainings of a call, with their folders: one, or one per fold in subfolders."""
    if not settings.folds or settings.fold is not None:
        return [(settings, model_dir)]
    return [(replace(settings, fold=fold), model_dir / f"fold{fold}") for fold in range(settings.folds)]


def chosen_pairs(bids_dir: Path, output_dir: Path, config: Configuration) -> Chosen:
    """Return the selected pairs, and report images without a partner.

    Raises
    ------
    MissingInputError, SettingError, UnknownNameError
        None is left, or those that are left must not be mixed.
    """
    chosen = config.selection
    if len(chosen.tracer_label) > 1:
        raise SettingError(
            f"tracer_label is {list(chosen.tracer_label)}; expected: one, since SUVR of several must not be mixed"
        )
    people = read_people(bids_dir, config)
    # The regional regression, which every model is compared with, has age and sex.
    unread = unread_text(("age", "sex", *config.training.covariates), people)
    found = search_pairs(
        output_dir,
        tracer=chosen.tracer_label[0] if chosen.tracer_label else None,
        reference_region=parse_reference(config.settings.ref_region[0]),
        diagnoses=diagnoses_of(people),
        group=config.group,
        bids_dir=bids_dir,
    )
    refuse_mixtures(found.mixed, allowed=config.group.allow_mixed_settings)
    for sentence in (*unread, *found.unpaired, *found.mixed):
        say(sentence)
    if found.left_out:
        are = f"{counted(len(found.left_out), 'scan')} {form(len(found.left_out), 'is', 'are')}"
        say(f"{are} left out because of failed quality; see --include-failed-quality")
    pairs = [
        pair for pair in with_covariates(found.pairs, people) if is_selected(pair.participant, pair.session, chosen)
    ]
    if not pairs:
        raise MissingInputError(f"no T1w-PET pair matches the selection options in {output_dir}")
    return Chosen(pairs, tuple(stem for stem in found.left_out if _is_of(stem, chosen)))


def _is_of(stem: str, chosen: Selection) -> bool:
    """Return whether a selection leaves in a scan, by the stem of its files."""
    labels = dict(part.split("-", 1) for part in stem.split("_"))
    return is_selected(labels["sub"], labels.get("ses"), chosen)


def _summarize(model_dir: Path, seconds: float) -> None:
    from tau_pipeline.synthesis.model.baseline_scores import HeldOut
    from tau_pipeline.synthesis.model.calibration import Calibration
    from tau_pipeline.synthesis.training.source import limits_of_source
    from tau_workflows.reports.model import write_model_report

    card = read_json(model_dir / "model.json")
    figures, held_out = card["figures"], HeldOut.from_card(card["figures"])
    for sentence in limits_of_source(figures.get("started_from")):
        say(f"warning: {sentence}")
    how = figures.get("choice") or counted(figures["epochs"], "epoch")
    say(f"trained {card['network']} ({how}) in {seconds / 60:.1f} minutes")
    if held_out is None:
        say("no participant was held out, so it is not known how the model does beside simple predictors")
    else:
        say(f"{held_out.split} split ({counted(held_out.n_participants, 'participant')}), on the grid of the T1w:")
        for line in held_out.lines():
            say(f"  {line}")
        say(f"warning: {held_out.sentence}" if held_out.sentence else held_out.description)
    calibration = Calibration.load(model_dir)
    say(calibration.describe() if calibration else "no validation split: the uncertainty is not calibrated")
    report = write_model_report(model_dir)
    say(f"model: {model_dir}")
    say(f"report: {report}")
