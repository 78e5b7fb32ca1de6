"""The train level: from the derivatives of paired scans to one model folder."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tau_pipeline.cohort.demographics import read_demographics
from tau_pipeline.derivatives.dataset import check_output_dir, write_bidsignore
from tau_pipeline.errors import DivergenceError, MissingInputError, SettingError
from tau_pipeline.files import read_json
from tau_pipeline.pet.reference_region import parse_reference
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.participant import Selection
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.data.pairs import Pair, survey

DONE, SOME_FAILED, NOTHING_TO_DO = 0, 1, 3


def run_training(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    """Train one model, or go on with a training that was interrupted; returns the exit code.

    Under ``torchrun`` every process calls this; the first one writes and speaks.

    Parameters
    ----------
    bids_dir
        The raw dataset: ``participants.tsv`` tells the diagnosis, by which the splits are stratified.
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
    pairs = chosen_pairs(bids_dir, output_dir, config)
    settings = config.training
    if settings.cache_dir is None:
        settings = replace(settings, cache_dir=config.execution.work_dir.absolute() / "synthesis_cache")
    model_dir = (settings.model_dir or output_dir / "models" / settings.name).absolute()
    if config.execution.dry_run:
        people = len({pair.participant for pair in pairs})
        _say(f"would train {settings.network} with {settings.loss} on {len(pairs)} scans of {people} participants")
        _say(f"model: {model_dir}")
        return DONE
    write_bidsignore(output_dir)
    return _train(settings, pairs, model_dir, config, started)


def _train(settings: Training, pairs: Sequence[Pair], model_dir: Path, config: Configuration, started: float) -> int:
    # Only here, so that a wrong call is answered before torch is loaded.
    import torch

    from tau_pipeline.synthesis.training.data import Strangers
    from tau_pipeline.synthesis.training.loop import train
    from tau_pipeline.synthesis.training.results import is_finished

    if is_finished(model_dir, settings, pairs, config.settings.random_seed):
        _say(f"nothing to do: {model_dir} contains this model, fully trained")
        return NOTHING_TO_DO
    threads = config.execution.omp_nthreads or config.execution.nprocs
    if threads:
        torch.set_num_threads(threads)
    strangers = Strangers(config.group.min_participants, config.group.unknown_manufacturer)
    try:
        train(settings, pairs, model_dir, seed=config.settings.random_seed, strangers=strangers)
    except DivergenceError as exc:
        _say(str(exc))
        return SOME_FAILED
    _summarise(model_dir, time.monotonic() - started)
    return DONE


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"tau-pipeline: {text}\n")
        sys.stderr.flush()


def check_call(bids_dir: Path, output_dir: Path) -> None:
    """Refuse a call without a BIDS dataset, or without results of the participant level.

    Raises
    ------
    MissingInputError, OutputError
        The message says which.
    """
    if not bids_dir.is_dir():
        raise MissingInputError(f"{bids_dir} is not a folder; give the root of a BIDS dataset")
    if not (output_dir / "dataset_description.json").is_file():
        raise MissingInputError(f"{output_dir} holds no results of tau-pipeline yet; run the participant level first")
    check_output_dir(output_dir, bids_dir)


def chosen_pairs(bids_dir: Path, output_dir: Path, config: Configuration) -> list[Pair]:
    """The pairs that the options leave; what has no partner is said.

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
    demographics = read_demographics(bids_dir, config.group.diagnosis_column)
    diagnoses = {
        who: str(values["diagnosis"]) for who, values in demographics.of_participant.items() if "diagnosis" in values
    }
    found = survey(
        output_dir,
        tracer=chosen.tracer_label[0] if chosen.tracer_label else None,
        reference_region=parse_reference(config.settings.ref_region[0]),
        diagnoses=diagnoses,
    )
    for sentence in found.unpaired:
        _say(sentence)
    pairs = [pair for pair in found.pairs if _is_chosen(pair, chosen)]
    if not pairs:
        raise MissingInputError(f"no T1w-PET pair matches the selection options in {output_dir}")
    return pairs


def _is_chosen(pair: Pair, chosen: Selection) -> bool:
    of_participant = not chosen.participant_label or pair.participant in chosen.participant_label
    return of_participant and (not chosen.session_label or pair.session in chosen.session_label)


def _summarise(model_dir: Path, seconds: float) -> None:
    from tau_pipeline.synthesis.model.calibration import Calibration

    figures = read_json(model_dir / "model.json")["figures"]
    _say(f"trained {_counted(figures['epochs'], 'epoch')} in {seconds / 60:.1f} minutes")
    if figures["test_scans"]:
        _say(
            f"test split ({_counted(figures['test_scans'], 'scan')}): SSIM {figures['test_ssim']:.3f}, PSNR "
            f"{figures['test_psnr']:.1f} dB, regional error {figures['test_regional_error']:.3f} SUVR"
        )
    calibration = Calibration.load(model_dir)
    _say(calibration.in_words() if calibration else "no validation split: the uncertainty is not calibrated")
    _say(f"model: {model_dir}")


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
