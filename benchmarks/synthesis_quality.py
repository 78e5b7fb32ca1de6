"""A model of each kind on a simulated cohort, beside all baselines, on held-out participants.

    python benchmarks/synthesis_quality.py BIDS DERIVATIVES DIR [--train 8 20 60] [--systems regression unet ...]
        [--variants 10:instance:2e-3:40 10:group:2e-3:40]

The cohort is one whose tau follows atrophy (``tau-simulate BIDS``), after the participant level or
``true_derivatives.py``. The seed draws the held-out participants, who are the same for every size of the training
split; smaller training splits are parts of the larger ones. Every predictor gets the scale of the scan's manufacturer,
and is compared with the measured SUVR on the T1w's own grid. "measured, through the grid" is the measured map on the
grid of the network and back: no model on this grid can do better. An interrupted run goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tau_pipeline.cohort.demographics import read_demographics
from tau_pipeline.files import write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.data.covariates import with_covariates
from tau_pipeline.synthesis.data.pairs import Pair, find_pairs
from tau_pipeline.synthesis.data.placement import on_t1w_grid
from tau_pipeline.synthesis.data.prepare import prepare
from tau_pipeline.synthesis.data.splits import save_splits
from tau_pipeline.synthesis.model.baseline_scores import MEASURES, baseline_maps
from tau_pipeline.synthesis.model.baselines import TrainingStatistics
from tau_pipeline.synthesis.model.correction import on_t1w
from tau_pipeline.synthesis.model.ensemble import known_or_pooled, load_ensemble
from tau_pipeline.synthesis.model.map_scores import figures_of, score_maps
from tau_pipeline.synthesis.model.predict import predict_pair
from tau_pipeline.synthesis.model.regression import REGRESSION
from tau_pipeline.synthesis.training.loop import train
from tau_pipeline.synthesis.training.results import is_finished

CEILING = "measured, through the grid"


def settings_of(options: argparse.Namespace, system: str) -> Training:
    """Return settings in a size for two processor cores."""
    common = Training(
        network=system,  # type: ignore[arg-type]
        target_scaling=options.target_scaling,
        cache_dir=options.cache or options.dir / "cache",
        device=options.device,
    )
    if system == REGRESSION:
        return common
    return replace(
        common,
        network_preset="laptop",
        norm_layer=options.norm_layer,
        loss=options.loss,
        perceptual_weights_file=options.vgg16,
        first_cycle=3,
        epochs=options.epochs,
        batch_size=1,
        learning_rate=options.learning_rate,
        learning_rate_schedule="cosine-once",
        warmup_epochs=1,
        clip_gradient_norm=1.0,
        early_stopping_patience=0,
        ssim_window=7,
        augmentation="off",
        grid_voxel=options.voxel,
        checkpoint_minutes=1.0,
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bids", type=Path)
    parser.add_argument("derivatives", type=Path)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--train", type=int, nargs="+", default=[60], help="participants for training")
    parser.add_argument("--held-out", type=int, default=35)
    parser.add_argument("--systems", nargs="+", default=[REGRESSION, "unet"])
    parser.add_argument("--variants", nargs="*", default=[], metavar="VOXEL:NORM:RATE:EPOCHS", help="further U-Nets")
    parser.add_argument("--target-scaling", default="by-manufacturer")
    parser.add_argument("--norm-layer", default="group")
    parser.add_argument("--loss", default="mse_ssim")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--vgg16", type=Path)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--voxel", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Train each system on each number of participants, or go on; score, print, and save one table."""
    options = arguments()
    torch.set_num_threads(options.threads)
    demographics = read_demographics(options.bids)
    diagnoses = {who: str(v["diagnosis"]) for who, v in demographics.of_participant.items() if "diagnosis" in v}
    pairs = with_covariates(find_pairs(options.derivatives, diagnoses=diagnoses), demographics)
    people = sorted({pair.participant_id for pair in pairs})
    order = [people[n] for n in np.random.default_rng(options.seed).permutation(len(people))]
    tables = []
    for n_train in options.train:
        used = order[: options.held_out + n_train]
        own = [pair for pair in pairs if pair.participant_id in used]
        splits = splits_of(own, set(order[: options.held_out]))
        file = save_splits(splits, options.dir / f"splits_{n_train}_seed{options.seed}.tsv")
        for name, system, of_system in [*((one, one, options) for one in options.systems), *variants(options)]:
            folder = options.dir / f"{name}_{n_train}_seed{options.seed}"
            settings = replace(settings_of(of_system, system), split_file=file)
            if not is_finished(folder, settings, own, options.seed):
                train(settings, own, folder, random_seed=options.seed, cohort=Group(unknown_manufacturer="pooled"))
            table = report(folder, system, own, options)
            if of_system is not options:
                # The baselines on another grid are other ones.
                table["predictor"] = [name if one == system else f"{one} beside {name}" for one in table["predictor"]]
            tables.append(table.assign(n_train=n_train))
    # Baselines of the same training split are the same whatever model they stand beside.
    table = pd.concat(tables).drop_duplicates(["predictor", "n_train"], keep="last")
    table = table.sort_values(["n_train", "ssim"])[["n_train", "predictor", *MEASURES]]
    write_tsv(table, options.dir / f"quality_seed{options.seed}.tsv")
    print(table.round(4).to_string(index=False))


def variants(options: argparse.Namespace) -> list[tuple[str, str, argparse.Namespace]]:
    """Return further U-Nets: a name, the system, and its options."""
    found = []
    for text in options.variants:
        voxel, norm, rate, epochs = text.split(":")
        own = {"voxel": float(voxel), "norm_layer": norm, "learning_rate": float(rate), "epochs": int(epochs)}
        found.append((f"unet_{voxel}mm_{norm}", "unet", argparse.Namespace(**{**vars(options), **own})))
    return found


def splits_of(pairs: Sequence[Pair], held_out: set[str]) -> pd.DataFrame:
    """Return a table of splits with a test and a training split only."""
    rows = {
        pair.participant_id: {
            "participant_id": pair.participant_id,
            "split": "test" if pair.participant_id in held_out else "train",
            "manufacturer": pair.manufacturer,
            "diagnosis": pair.diagnosis,
        }
        for pair in pairs
    }
    return pd.DataFrame(list(rows.values()))


def report(folder: Path, system: str, pairs: Sequence[Pair], options: argparse.Namespace) -> pd.DataFrame:
    """Score a model and everything beside it on the test split; one row per predictor."""
    ensemble, statistics = load_ensemble([folder]), TrainingStatistics.load(folder)
    if statistics is None:
        raise SystemExit(f"{folder} holds no baselines; remove it and run again")
    rows: dict[str, list] = {}
    for pair in pairs:
        if ensemble.split_of(pair.participant_id) == "test":
            mask, dseg = (load_volume(path, ndim=3) for path in (pair.mask_file, pair.dseg_file))
            maker = known_or_pooled(ensemble, pair.manufacturer)
            predicted = predict_pair(ensemble, pair, maker, Synthesis(test_time_flips=False), options.device)
            known = prepare(pair, ensemble.grid, options.cache or options.dir / "cache")
            through = on_t1w_grid(known.suvr, known.known, known.placement, mask)
            maps = {system: on_t1w(ensemble, predicted, mask, pair.subject, maker)}
            maps |= baseline_maps(statistics, ensemble.first, mask, maker, pair.diagnosis, dseg, pair.covariates)
            maps[f"{CEILING}, {ensemble.grid.voxel_mm[0]:g} mm"] = through
            for name, row in score_maps(pair, maps, mask, dseg).items():
                rows.setdefault(name, []).append(row)
    return pd.DataFrame([{"predictor": name, **figures_of(own)} for name, own in rows.items()])


if __name__ == "__main__":
    main()
