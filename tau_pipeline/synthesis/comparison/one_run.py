"""One run of a comparison: train a model on all folds but one, and score it on that fold, as SUVR on the T1w's grid.

A run leaves a folder: the model, the scores of its test scans (``scans.tsv``), their regions (``regions.tsv``), the
synthetic maps of the scans that are drawn, and last, complete or not at all, its row (``row.json``). A row that was
made with the same settings, seed and scans is not made again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import tau_pipeline
from tau_pipeline.atlas import label_array
from tau_pipeline.cohort.standardize import POOLED
from tau_pipeline.errors import MissingInputError, TauPipelineError, UnknownNameError
from tau_pipeline.files import read_json, write_json, write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume, save_volume, voxel_volume_mm3
from tau_pipeline.measures.agreement import paired_regions
from tau_pipeline.measures.quality import PERCENTILES, map_quality
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.settings.training import Device, Training
from tau_pipeline.synthesis.comparison.runs import Run
from tau_pipeline.synthesis.comparison.tables import measures_of
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.splits import load_splits, pairs_of_split
from tau_pipeline.synthesis.evaluation.scores import score_scan
from tau_pipeline.synthesis.model.baseline_scores import MODEL, baseline_maps
from tau_pipeline.synthesis.model.baselines import TrainingStatistics, regional_values
from tau_pipeline.synthesis.model.correction import on_t1w
from tau_pipeline.synthesis.model.ensemble import Ensemble, load_ensemble, require_manufacturer
from tau_pipeline.synthesis.model.predict import predict_pair
from tau_pipeline.synthesis.training.loop import train

_ROW, _SCANS, REGIONS, _MAPS, MODEL_DIR = "row.json", "scans.tsv", "regions.tsv", "maps", "model"
#: Columns that identify the run, in the tables of its scans and regions.
_RUN_COLUMNS = ("system", "loss", "target_scaling", "fold")
#: Columns of the table of regions.
_REGION_COLUMNS = ("participant_id", "session_id", "scan", "manufacturer", "diagnosis", "region", "index", "hemisphere")

#: Maps on the T1w's grid by predictor.
Maps = dict[str, Volume]


@dataclass(frozen=True)
class ComparisonContext:
    """Everything that all runs of a comparison share.

    Attributes
    ----------
    folder
        Of the comparison.
    pairs
        All scans.
    random_seed
        Of every training.
    cohort
        Read here: ``min_participants`` and ``unknown_manufacturer``.
    synthesis
        Read here: ``suvr_range``, ``hot_suvr`` and ``lesion_volume``, on which the scores depend.
    drawn
        Scans whose synthetic maps are kept.
    device
        Where to predict.
    """

    folder: Path
    pairs: tuple[Pair, ...]
    random_seed: int
    cohort: Group
    synthesis: Synthesis
    drawn: tuple[str, ...] = ()
    device: Device = Training.device

    def run_dir(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / run.name


def identity_of(run: Run, settings: Training, context: ComparisonContext) -> str:
    """Return twelve digits that are equal where a run would be the same."""
    cohort, scoring = context.cohort, context.synthesis
    suvr = {"data_range": scoring.suvr_range, "hot_suvr": scoring.hot_suvr, "lesion_ml": scoring.lesion_volume}
    content = {
        "run": dataclasses.asdict(run),
        "settings": {**settings.resume_fields(), "epochs": settings.epochs},
        "seed": context.random_seed,
        "scans": sorted(pair.scan for pair in context.pairs),
        # Spelled as in the first comparisons, so that their runs still count as done.
        "strangers": {"min_participants": cohort.min_participants, "unknown": cohort.unknown_manufacturer},
        "evaluation": {**suvr, "min_overlap": 0.5, "seed": 0, "n_resamples": 2000},
        "drawn": list(context.drawn),
        "version": tau_pipeline.__version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def read_row(run_dir: Path, identity: str) -> dict[str, Any] | None:
    """Read the row of a run that was made with this identity; None if there is none."""
    try:
        row = read_json(run_dir / _ROW)
    except TauPipelineError:
        return None
    return row if row.get("identity") == identity else None


def do_run(run: Run, settings: Training, context: ComparisonContext) -> dict[str, Any]:
    """Train, score and write the row, or continue where an earlier call ended.

    Parameters
    ----------
    run
        Which.
    settings
        Of its training.
    context
        What is the same for all.

    Returns
    -------
    dict
        The row that was written.

    Raises
    ------
    TauPipelineError
        The training has diverged, or the data or settings cannot be used; there is no row.
    """
    folder, clock = context.run_dir(run), _Clock()
    model_dir = train(
        settings, context.pairs, folder / MODEL_DIR, random_seed=context.random_seed, cohort=context.cohort
    )
    training = clock.lap()
    ensemble = load_ensemble([model_dir])
    without_flips = Synthesis(test_time_flips=False)

    def maps_of(pair: Pair, mask: Volume) -> Maps:
        manufacturer = _manufacturer_of(ensemble, pair, context.cohort)
        found = predict_pair(ensemble, pair, manufacturer, without_flips, context.device)
        return {MODEL: on_t1w(ensemble, found, mask, pair.subject, manufacturer)}

    test = _test_pairs(ensemble, settings, context)
    scans, regions = _score(test, maps_of, context, folder / _MAPS)
    rename = {MODEL: run.system}
    _write_scores(run, scans.replace({"predictor": rename}), regions.replace({"predictor": rename}), folder)
    card = ensemble.first.card
    row = {
        **_identity(run, settings, context),
        "n_train": len(card.training_participants),
        "n_test": len(test),
        "epochs": card.figures["epochs"],
        "grid": "x".join(map(str, card.grid.shape)),
        "n_parameters": card.n_parameters,
        "random_features": card.random_features,
        "training": training,
        "scoring": clock.lap(),
        "means": _means(scans),
    }
    write_json(row, folder / _ROW)
    return row


def do_baselines(run: Run, settings: Training, context: ComparisonContext, source_model: Path) -> dict[str, Any]:
    """Score the trivial predictors of a fold, and write their row.

    Parameters
    ----------
    run
        Whose fold and scaling.
    settings
        Of the training of the source model, whose splits are those of the fold.
    context
        What is the same for all.
    source_model
        Model folder of any training of the fold and scaling: it holds the mean images.

    Raises
    ------
    TauPipelineError
        The folder or the data cannot be used.
    """
    clock, ensemble = _Clock(), load_ensemble([source_model])
    statistics = TrainingStatistics.load(source_model)
    if statistics is None:
        raise MissingInputError(f"{source_model} holds no mean images; remove it and run the comparison again")

    def maps_of(pair: Pair, mask: Volume) -> Maps:
        manufacturer = _manufacturer_of(ensemble, pair, context.cohort)
        dseg = load_volume(pair.dseg_file, ndim=3)
        return baseline_maps(statistics, ensemble.first, mask, manufacturer, pair.diagnosis, dseg, pair.covariates)

    test = _test_pairs(ensemble, settings, context)
    scans, regions = _score(test, maps_of, context, None)
    _write_scores(run, scans, regions, context.run_dir(run))
    row = {**_identity(run, settings, context), "n_test": len(test), "scoring": clock.lap()}
    write_json(row, context.run_dir(run) / _ROW)
    return row


class _Clock:
    """Measure seconds by the clock and of the processor, from one lap to the next."""

    def __init__(self) -> None:
        self._last = time.monotonic(), time.process_time()

    def lap(self) -> dict[str, float]:
        now = time.monotonic(), time.process_time()
        wall, cpu = (round(b - a, 2) for a, b in zip(self._last, now, strict=True))
        self._last = now
        return {"seconds": wall, "processor_seconds": cpu}


def _identity(run: Run, settings: Training, context: ComparisonContext) -> dict[str, Any]:
    return {
        "run": run.name,
        **dataclasses.asdict(run),
        "identity": identity_of(run, settings, context),
        "state": "done",
    }


def _means(scans: pd.DataFrame) -> dict[str, float | None]:
    """Return the mean of each measure over the scans; None where no scan has one."""
    means = {name: pd.to_numeric(scans[name]).replace(np.inf, np.nan).mean() for name in measures_of(scans)}
    return {name: None if math.isnan(value) else round(float(value), 6) for name, value in means.items()}


def _test_pairs(ensemble: Ensemble, settings: Training, context: ComparisonContext) -> list[Pair]:
    """Return the scans of the fold, without those whose manufacturer is left out."""
    assert settings.split_file is not None
    test = pairs_of_split(context.pairs, load_splits(settings.split_file), "test")
    return [pair for pair in test if context.cohort.unknown_manufacturer != "exclude" or _is_known(ensemble, pair)]


def _is_known(ensemble: Ensemble, pair: Pair) -> bool:
    try:
        require_manufacturer(ensemble, pair.manufacturer)
    except UnknownNameError:
        return False
    return True


def _manufacturer_of(ensemble: Ensemble, pair: Pair, cohort: Group) -> str | None:
    """Return the manufacturer whose scale a scan gets: for an unknown one that of all together, if so set."""
    if cohort.unknown_manufacturer == "pooled" and not _is_known(ensemble, pair):
        return POOLED
    return require_manufacturer(ensemble, pair.manufacturer)


def _score(
    test: Sequence[Pair], maps_of: Callable[[Pair, Volume], Maps], context: ComparisonContext, keep: Path | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores of each scan and predictor, and its regions."""
    scans, regions = [], []
    for pair in test:
        maps = maps_of(pair, load_volume(pair.mask_file, ndim=3))
        if keep is not None and pair.scan in context.drawn:
            save_volume(maps[MODEL], keep / f"{pair.scan}.nii.gz")
        scores, measured = score_scan(pair, maps, context.synthesis), regional_values(pair)
        percentiles = _percentiles(pair, maps)
        for name, own in scores.regions.groupby("predictor", sort=False):
            joined = paired_regions(own.drop(columns="predictor"), measured)
            single = joined[joined["kind"].isin(["cortical", "subcortical"])]
            figures = {"regional_mae": single["absolute_error"].mean(), "regional_bias": single["error"].mean()}
            row = scores.scans[scores.scans["predictor"] == name]
            scans.append(row.assign(**figures, **percentiles[str(name)], **percentiles["measured"]))
            known = {"manufacturer": pair.manufacturer, "diagnosis": pair.diagnosis, "predictor": name}
            regions.append(joined.assign(**known))
    return pd.concat(scans, ignore_index=True), pd.concat(regions, ignore_index=True)


def _percentiles(pair: Pair, maps: Mapping[str, Volume]) -> dict[str, dict[str, float]]:
    """Return percentiles of cortical SUVR, measured and of each predictor, by the names of their columns."""
    measured, mask, dseg, reference = (
        load_volume(path, ndim=3) for path in (pair.suvr_file, pair.mask_file, pair.dseg_file, pair.reference_mask_file)
    )
    brain, regions, inside = np.asanyarray(mask.dataobj), label_array(dseg), np.asanyarray(reference.dataobj)
    found = {}
    for name, img in {"measured": measured, **maps}.items():
        figures = map_quality(np.asanyarray(img.dataobj), brain, regions, inside, voxel_volume_mm3(mask))
        values = figures["CorticalPercentiles"]
        stem = "measured_p" if name == "measured" else "cortex_p"
        found[name] = {f"{stem}{k}": np.nan if values[str(k)] is None else values[str(k)] for k in PERCENTILES}
    return found


def _write_scores(run: Run, scans: pd.DataFrame, regions: pd.DataFrame, folder: Path) -> None:
    """Write the tables of a run; ``system`` is the predictor, which for the baselines is not the run's own."""
    for table, name in ((scans, _SCANS), (regions, REGIONS)):
        own = table.assign(system=table["predictor"], loss=run.loss, target_scaling=run.target_scaling, fold=run.fold)
        own = own.drop(columns="predictor")
        columns = [*_RUN_COLUMNS, *[column for column in own if column not in _RUN_COLUMNS]]
        if name == REGIONS:
            columns = [*_RUN_COLUMNS, *_REGION_COLUMNS, "kind", "measured", "synthetic"]
        write_tsv(own[columns], folder / name)
