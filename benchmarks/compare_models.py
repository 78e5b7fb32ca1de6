"""Models of the same splits, compared scan by scan on their held-out participants, with intervals.

    python benchmarks/compare_models.py BIDS DERIVATIVES NAME=FOLDER[,FOLDER ...] NAME=FOLDER[,FOLDER ...] ...

The first model is the reference. The folders of a model are its trainings, one per seed, in the same order for every
model: the n-th folders of all models must have been trained and tested on the same splits. Scores are computed on the
grid of the T1w unless the folder has them already. Each participant has one difference per measure, the mean over the
seeds in whose test split they are; the interval (95 %) is that of a bootstrap over participants, and p is that of
Wilcoxon's signed-rank test. r over participants is recomputed for each sample of the bootstrap, within seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tau_pipeline.cohort.demographics import read_demographics
from tau_pipeline.measures.agreement import pearson
from tau_pipeline.synthesis.comparison.tables import paired_test
from tau_pipeline.synthesis.data.covariates import with_covariates
from tau_pipeline.synthesis.data.pairs import Pair, find_pairs
from tau_pipeline.synthesis.model.baseline_scores import MODEL, score_held_out
from tau_pipeline.synthesis.model.baselines import TrainingStatistics
from tau_pipeline.synthesis.model.ensemble import load_ensemble
from tau_pipeline.synthesis.model.map_scores import HeldOutTables

#: Samples of the bootstrap, and its seed.
_SAMPLES, _SEED = 2000, 0
_MEASURES = ("ssim", "mae", "regional_mae")


def main() -> None:
    """Score what has no scores, and print the table of differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bids", type=Path)
    parser.add_argument("derivatives", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER[,FOLDER ...]")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    people = read_demographics(options.bids)
    diagnoses = {who: str(v["diagnosis"]) for who, v in people.of_participant.items() if "diagnosis" in v}
    pairs = with_covariates(find_pairs(options.derivatives, diagnoses=diagnoses), people)
    folders = {
        name: [Path(one) for one in rest.split(",")] for name, _, rest in (m.partition("=") for m in options.models)
    }
    scores = {name: [scored(folder, pairs) for folder in own] for name, own in folders.items()}
    reference = next(iter(scores))
    rows = [row for name in scores for row in compared(reference, name, scores)]
    print(pd.DataFrame(rows).round(4).to_string(index=False))


def scored(folder: Path, pairs: Sequence[Pair]) -> HeldOutTables:
    """Return the scores of the held-out scans of a model folder; made and saved where they are missing."""
    known = HeldOutTables.load(folder)
    if known is not None:
        return known
    statistics = TrainingStatistics.load(folder)
    if statistics is None:
        raise SystemExit(f"{folder} holds no finished model")
    found = score_held_out(load_ensemble([folder]), statistics, pairs)
    if found is None or found.tables is None:
        raise SystemExit(f"{folder}: none of the participants is held out")
    found.tables.save(folder)
    return found.tables


def compared(reference: str, name: str, scores: dict[str, list[HeldOutTables]]) -> list[dict[str, object]]:
    """Return one row per measure: means, difference from the reference, interval, and p."""
    seeds = range(len(scores[name]))
    own, other = (
        pd.concat([model[n].scans.pipe(of_model).assign(seed=n) for n in seeds])
        for model in (scores[name], scores[reference])
    )
    both = own.merge(other, on=["seed", "participant_id", "scan"], suffixes=("", "_reference"), validate="1:1")
    if not len(both) == len(own) == len(other):
        raise SystemExit(f"{name} and {reference} were not tested on the same scans")
    rows: list[dict[str, object]] = []
    for measure in _MEASURES:
        difference = (both[measure] - both[f"{measure}_reference"]).groupby(both["participant_id"]).mean()
        rng = np.random.default_rng(_SEED)
        drawn = rng.choice(difference.to_numpy(), (_SAMPLES, len(difference))).mean(axis=1)
        by_seed = (both[measure] - both[f"{measure}_reference"]).groupby(both["seed"]).mean()
        rows.append(
            {
                "model": name,
                "measure": measure,
                "mean": both[measure].mean(),
                "minus_reference": difference.mean(),
                **interval(drawn),
                "p": paired_test(difference.to_numpy(), np.zeros(len(difference))).p,
                "participants": len(difference),
                "by_seed": " ".join(f"{value:+.4f}" for value in by_seed),
            }
        )
    return [*rows, correlation(reference, name, scores)]


def correlation(reference: str, name: str, scores: dict[str, list[HeldOutTables]]) -> dict[str, object]:
    """Return the row of the correlation over participants, the mean over cortical regions and seeds."""
    values = {model: [cortex(tables) for tables in scores[model]] for model in (name, reference)}
    by_seed = np.array([r_of(a) - r_of(b) for a, b in zip(values[name], values[reference], strict=True)])
    rng, drawn = np.random.default_rng(_SEED), []
    for _ in range(_SAMPLES // 4):
        differences = []
        for a, b in zip(values[name], values[reference], strict=True):
            who = rng.integers(0, a.shape[1], a.shape[1])
            differences.append(r_of(a[:, who]) - r_of(b[:, who]))
        drawn.append(np.mean(differences))
    return {
        "model": name,
        "measure": "r",
        "mean": np.mean([r_of(a) for a in values[name]]),
        "minus_reference": by_seed.mean(),
        **interval(np.array(drawn)),
        "p": np.nan,
        "participants": sum(a.shape[1] for a in values[name]),
        "by_seed": " ".join(f"{value:+.4f}" for value in by_seed),
    }


def cortex(tables: HeldOutTables) -> np.ndarray:
    """Return synthetic and measured values ``(2, scans, regions)`` of the cortical regions that all scans have."""
    own = of_model(tables.regions).query("kind == 'cortical'")
    arrays = np.array(
        [own.pivot(index="scan", columns="index", values=k).to_numpy() for k in ("synthetic", "measured")]
    )
    return arrays[:, :, np.isfinite(arrays).all(axis=(0, 1))]


def r_of(values: np.ndarray) -> float:
    """Return the mean over regions of the correlation over scans."""
    return float(np.nanmean(pearson(values[0].T, values[1].T)))


def of_model(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the model itself, without those of the baselines."""
    return table[table["predictor"] == MODEL]


def interval(drawn: np.ndarray) -> dict[str, float]:
    """Return the ends of the 95 % interval of a bootstrap."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"low": float(low), "high": float(high)}


if __name__ == "__main__":
    main()
