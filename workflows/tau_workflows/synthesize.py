"""The synthesize level: synthetic SUVR for T1w derivatives, its tables, and agreement with measured PET."""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tau_pipeline.config import Configuration, Selection
from tau_pipeline.derivatives import check_output_dir, error_path, write_bidsignore
from tau_pipeline.errors import MissingInputError, SettingError, TauPipelineError
from tau_pipeline.files import write_json, write_tsv
from tau_pipeline.group import read_demographics

if TYPE_CHECKING:
    from tau_pipeline.synthesis.evaluate import Report, ScanScores
    from tau_pipeline.synthesis.outputs import Recipe
    from tau_pipeline.synthesis.pairs import Pair
    from tau_pipeline.synthesis.predict import Ensemble, Inference
    from tau_pipeline.synthesis.targets import Target
    from tau_pipeline.synthesis.uncertainty import Calibration
    from tau_pipeline.synthesis.yardsticks import Yardsticks

DONE, SOME_FAILED, NOTHING_TO_DO = 0, 1, 3


def run_synthesis(bids_dir: Path, output_dir: Path, config: Configuration) -> int:
    """Make synthetic SUVR for everybody who was asked for; returns the exit code.

    Parameters
    ----------
    bids_dir
        The raw dataset: ``participants.tsv`` tells the diagnosis, for the baseline of the same diagnosis.
    output_dir
        What the participant level wrote; the synthetic maps go there too.
    config
        Read here: ``synthesis``; ``device`` of ``training``; ``participant_label`` and ``session_label``;
        ``unknown_manufacturer``, ``diagnosis_column``; ``random_seed``; ``work_dir``, ``mem_mb``, ``omp_nthreads``,
        ``nprocs``, ``stop_on_first_crash`` and ``dry_run``.

    Raises
    ------
    TauPipelineError
        The call or the model is wrong; nothing was written.
    """
    started = time.monotonic()
    bids_dir, output_dir = Path(bids_dir).absolute(), Path(output_dir).absolute()
    _check_call(bids_dir, output_dir, config)
    # Only here, so that a wrong call is answered before torch is loaded.
    import torch

    from tau_pipeline.synthesis.predict import load_ensemble
    from tau_pipeline.synthesis.targets import Wanted, find_targets, measured_pairs

    threads = config.execution.omp_nthreads or config.execution.nprocs
    if threads:
        torch.set_num_threads(threads)
    ensemble = load_ensemble([Path(folder).absolute() for folder in config.synthesis.model])
    wanted = Wanted(ensemble.first.card.tracer, ensemble.first.card.reference_region)
    diagnoses = _diagnoses(bids_dir, config)
    pairs = measured_pairs(output_dir, wanted, diagnoses)
    found = find_targets(output_dir, pairs, wanted, config.synthesis.synthesize, diagnoses)
    targets = [target for target in found if _is_chosen(target, config.selection)]
    if not targets:
        _say("nothing to do: no T1w is without PET, or the options leave none; --synthesize all takes those with PET")
        return NOTHING_TO_DO
    recipe = _recipe(ensemble, output_dir, config)
    _check_manufacturers(targets, recipe)
    if config.execution.dry_run:
        for target in targets:
            _say(f"would make {target.names.suvr}")
        return DONE
    write_bidsignore(output_dir)
    recipe = _with_yardsticks(recipe, pairs, config.execution.work_dir.absolute() / "synthesis_cache")
    return _run(targets, recipe, config, started)


def _say(text: str) -> None:
    sys.stderr.write(f"tau-pipeline: {text}\n")
    sys.stderr.flush()


def _check_call(bids_dir: Path, output_dir: Path, config: Configuration) -> None:
    if not bids_dir.is_dir():
        raise MissingInputError(f"{bids_dir} is not a folder; give the root of a BIDS dataset")
    if not (output_dir / "dataset_description.json").is_file():
        raise MissingInputError(f"{output_dir} holds no results of tau-pipeline yet; run the participant level first")
    check_output_dir(output_dir, bids_dir)
    if not config.synthesis.model:
        raise SettingError("model is not given; expected: a model folder that the level train wrote (--model DIR)")


def _diagnoses(bids_dir: Path, config: Configuration) -> dict[str, str]:
    demographics = read_demographics(bids_dir, config.group.diagnosis_column)
    return {who: str(own["diagnosis"]) for who, own in demographics.of_participant.items() if "diagnosis" in own}


def _is_chosen(target: Target, chosen: Selection) -> bool:
    of_participant = not chosen.participant_label or target.names.entities["sub"] in chosen.participant_label
    return of_participant and (not chosen.session_label or target.session in chosen.session_label)


def _recipe(ensemble: Ensemble, output_dir: Path, config: Configuration) -> Recipe:
    from tau_pipeline.synthesis.evaluate import Evaluation
    from tau_pipeline.synthesis.outputs import Recipe
    from tau_pipeline.synthesis.predict import Inference

    given = config.synthesis
    inference = Inference(
        flips=given.test_time_flips,
        memory=given.prediction_memory,
        window=given.window_side,
        overlap=given.window_overlap,
        device=config.training.device,
        available_mb=config.execution.mem_mb,
    )
    evaluation = Evaluation(
        data_range=given.suvr_range,
        hot_suvr=given.hot_suvr,
        lesion_ml=given.lesion_volume,
        seed=config.settings.random_seed,
    )
    return Recipe(
        ensemble=ensemble,
        output_dir=output_dir,
        settings_hash=config.settings.hash(),
        as_manufacturer=given.as_manufacturer,
        unknown=config.group.unknown_manufacturer,
        refuse_unlike=given.unlike_training == "refuse",
        inference=inference,
        evaluation=evaluation,
    )


def _check_manufacturers(targets: Sequence[Target], recipe: Recipe) -> None:
    """Refuse a call with which no scan at all can be made: no manufacturer, or one that the model does not know."""
    from tau_pipeline.synthesis.outputs import manufacturer_of

    problems: list[TauPipelineError] = []
    for target in targets:
        try:
            manufacturer_of(target, recipe)
        except TauPipelineError as exc:
            problems.append(exc)
    if len(problems) == len(targets):
        raise problems[0]


def _with_yardsticks(recipe: Recipe, pairs: Sequence[Pair], cache_dir: Path) -> Recipe:
    """Add calibration and yardsticks: of the model folder, or found on the measured scans of these derivatives."""
    calibration = _calibration(recipe.ensemble, pairs, cache_dir, recipe.inference)
    if calibration is None:
        _say("the uncertainty is not calibrated: there is no measured scan of the model's validation split")
    else:
        _say(
            f"90 % intervals hold {calibration.coverage_voxels:.0%} of the voxels and "
            f"{calibration.coverage_regions:.0%} of the regions of the {calibration.coverage_on} "
            f"({calibration.n_coverage} participants)"
        )
    return replace(recipe, calibration=calibration, yardsticks=_yardsticks(recipe.ensemble, pairs, cache_dir))


def _calibration(
    ensemble: Ensemble, pairs: Sequence[Pair], cache_dir: Path, inference: Inference
) -> Calibration | None:
    from tau_pipeline.synthesis.uncertainty import Calibration, calibrate

    if len(ensemble.folders) == 1 and inference.flips:
        stored = Calibration.load(ensemble.folders[0])
        if stored is not None:
            return stored
    return calibrate(ensemble, pairs, cache_dir, inference)


def _yardsticks(ensemble: Ensemble, pairs: Sequence[Pair], cache_dir: Path) -> Yardsticks | None:
    from tau_pipeline.synthesis.yardsticks import Yardsticks, fit_yardsticks

    stored = Yardsticks.load(ensemble.folders[0])
    if stored is not None:
        return stored
    train = set(ensemble.first.card.training_participants)
    if not any(pair.participant_id in train for pair in pairs):
        _say("no baselines: neither the model folder nor these derivatives hold the model's training images")
        return None
    return fit_yardsticks(ensemble.first, pairs, cache_dir)


def _run(targets: Sequence[Target], recipe: Recipe, config: Configuration, started: float) -> int:
    from tqdm import tqdm

    from tau_pipeline.synthesis.outputs import make_synthetic

    scores: list[ScanScores] = []
    measured: list[Pair] = []
    failed: dict[str, str] = {}
    for target in tqdm(targets, desc="synthetic scans", unit="scan", disable=not sys.stderr.isatty()):
        key = target.names.key
        error_path(recipe.output_dir, key).unlink(missing_ok=True)
        try:
            scores += make_synthetic(target, recipe)
            measured += target.measured
        except Exception as exc:
            # Whatever it is, this scan is not done, the others can be, and the reason must reach the user.
            failed[key] = _record(recipe.output_dir, key, exc)
            if config.execution.stop_on_first_crash:
                break
    if scores:
        _write_report(_evaluated(scores, measured, recipe), recipe)
    done = len(targets) - len(failed)
    _say(f"{done} of {len(targets)} synthetic scans made in {(time.monotonic() - started) / 60:.1f} minutes")
    for key, message in failed.items():
        _say(f"FAILED {key}: {message} (logs/errors/{key}.json)")
    _say(f"tables: {recipe.output_dir}/sub-*/**/pet/*_desc-synthSUVR_rois.tsv; the group level joins them")
    return SOME_FAILED if failed else DONE


def _record(output_dir: Path, key: str, exc: Exception) -> str:
    message = str(exc) or type(exc).__name__
    content = {"scan": key, "step": "synthesis", "error": type(exc).__name__, "message": message}
    if not isinstance(exc, TauPipelineError):
        content["traceback"] = traceback.format_exc()
    write_json(content, error_path(output_dir, key))
    return message


def _evaluated(scores: Sequence[ScanScores], measured: Sequence[Pair], recipe: Recipe) -> Report:
    import pandas as pd

    from tau_pipeline.synthesis.evaluate import evaluate
    from tau_pipeline.synthesis.yardsticks import regional_values

    tables = [regional_values(pair) for pair in measured if pair.rois_file is not None]
    splits = {pair.participant_id: recipe.ensemble.split_of(pair.participant_id) for pair in measured}
    positivity: Mapping[str, float] = recipe.yardsticks.positivity if recipe.yardsticks else {}
    return evaluate(scores, pd.concat(tables, ignore_index=True), splits, positivity, recipe.evaluation)


def _write_report(report: Report, recipe: Recipe) -> None:
    folder = recipe.output_dir / "group"
    for name in ("scans", "slices", "regions", "summary"):
        write_tsv(getattr(report, name), folder / f"synthSUVR_{name}.tsv")
    if recipe.calibration is not None:
        write_json(recipe.calibration.as_dict(), folder / "synthSUVR_uncertainty.json")
    table = report.summary
    for row in table[table["measure"].isin(["ssim", "psnr", "regional_mae"])].itertuples():
        known = f"{row.low:.3f} to {row.high:.3f}, " if math.isfinite(row.low) else ""
        people = f"{row.n_participants} participant{'s' * (row.n_participants != 1)}"
        _say(f"{row.split} split, {row.predictor}: {row.measure} {row.estimate:.3f} ({known}{people})")
    _say(f"agreement with measured PET: {folder}/synthSUVR_*.tsv")
