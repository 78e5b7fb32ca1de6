"""A cyclic-loss U-Net on a simulated cohort, against the mean of its training images.

    python benchmarks/synthesis_quality.py BIDS DERIVATIVES MODEL_DIR --vgg16 FILE [--epochs 36] [--seed 0]

The cohort is one whose tau follows atrophy (``tau-simulate BIDS``), after the participant level. Participants are split
by the seed; nothing about the test split is looked at before the end. Both predictors get the scale of the scan's
manufacturer, and are compared with the measured SUVR on the T1w's own grid. An interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pandas as pd
import torch

from tau_pipeline.cohort.demographics import read_demographics
from tau_pipeline.files import write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.data.pairs import Pair, find_pairs
from tau_pipeline.synthesis.evaluation.scores import (
    DIAGNOSIS_MEAN,
    MODEL,
    TRAINING_MEAN,
    baseline_maps,
    evaluate,
    score_scan,
)
from tau_pipeline.synthesis.model.baselines import TrainingStatistics, fit_training_statistics, regional_values
from tau_pipeline.synthesis.model.ensemble import load_ensemble
from tau_pipeline.synthesis.model.predict import on_t1w_grid, predict
from tau_pipeline.synthesis.training.log import read_rows
from tau_pipeline.synthesis.training.loop import train
from tau_pipeline.synthesis.training.results import is_finished

MEASURES = ("ssim", "psnr", "mae", "regional_mae")


def settings_of(options: argparse.Namespace) -> Training:
    """Return the settings of the paper's method in a size for two processor cores."""
    return Training(
        network="unet",
        network_preset="laptop",
        loss=options.loss,
        perceptual_weights_file=options.vgg16,
        first_cycle=3,
        epochs=options.epochs,
        batch_size=1,
        learning_rate=3e-3,
        learning_rate_schedule="cosine-once",
        warmup_epochs=1,
        clip_gradient_norm=1.0,
        early_stopping_patience=0,
        augmentation="off",
        grid_voxel=options.voxel,
        split_fractions=(0.7, 0.1, 0.2),
        cache_dir=options.cache,
        device=options.device,
        checkpoint_minutes=1.0,
    )


def main() -> None:
    """Train, or go on; evaluate on the test split; print and save the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bids", type=Path)
    parser.add_argument("derivatives", type=Path)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--vgg16", type=Path)
    parser.add_argument("--loss", default="cyclic2.5d")
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--voxel", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    people = read_demographics(options.bids).of_participant
    diagnoses = {who: str(values["diagnosis"]) for who, values in people.items() if "diagnosis" in values}
    pairs = find_pairs(options.derivatives, diagnoses=diagnoses)
    settings = settings_of(options)
    if not is_finished(options.model_dir, settings, pairs, options.seed):
        train(settings, pairs, options.model_dir, random_seed=options.seed)
    report(options, pairs)


def report(options: argparse.Namespace, pairs: list[Pair]) -> None:
    """Score the model and the mean of the training images on the test split."""
    started = time.monotonic()
    ensemble = load_ensemble([options.model_dir])
    model = ensemble.first
    training_statistics = TrainingStatistics.load(options.model_dir) or fit_training_statistics(
        model, pairs, options.cache
    )
    split_of = dict(zip(model.splits["participant_id"], model.splits["split"], strict=True))
    held_out = [pair for pair in pairs if split_of[pair.participant_id] == "test"]
    scores = []
    for pair in held_out:
        t1w, mask = load_volume(pair.t1w_file, ndim=3), load_volume(pair.mask_file, ndim=3)
        predicted = predict(ensemble, t1w, mask, pair.manufacturer, Synthesis(test_time_flips=False), options.device)
        maps = {MODEL: on_t1w_grid(predicted.mean, predicted.brain, predicted.placement, mask)}
        maps |= baseline_maps(training_statistics, model, mask, pair.manufacturer, pair.diagnosis)
        scores.append(score_scan(pair, maps))
    measured = pd.concat([regional_values(pair) for pair in held_out], ignore_index=True)
    found = evaluate(scores, measured, split_of, training_statistics.positivity)
    write_tsv(found.summary, options.model_dir / "evaluation_summary.tsv")
    write_tsv(found.regions, options.model_dir / "evaluation_regions.tsv")
    write_tsv(found.scans, options.model_dir / "evaluation_scans.tsv")

    rows = read_rows(options.model_dir / "log.tsv")
    print(f"{options.loss}, seed {options.seed}, voxels of {options.voxel} mm, {len(rows)} epochs in", end=" ")
    print(f"{sum(float(row['seconds']) for row in rows) / 60:.1f} min; evaluation {time.monotonic() - started:.0f} s")
    print("splits:", json.dumps(model.splits["split"].value_counts().to_dict()))
    means = found.scans.groupby("predictor")[list(MEASURES)].mean()
    cortical = found.regions[found.regions["kind"] == "cortical"]
    for name in ("pearson_r", "icc21"):
        means[f"cortical_{name}"] = cortical.groupby("predictor")[name].mean()
    print(
        means.loc[[name for name in (MODEL, TRAINING_MEAN, DIAGNOSIS_MEAN) if name in means.index]].round(4).to_string()
    )


if __name__ == "__main__":
    main()
