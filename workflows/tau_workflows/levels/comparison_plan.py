"""Plan of a comparison, and the record by which a later run of it is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.errors import SettingError, TauPipelineError
from tau_pipeline.files import read_json
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.comparison.runs import Run

if TYPE_CHECKING:
    import pandas as pd

    from tau_pipeline.synthesis.comparison.one_run import ComparisonContext


#: What says in its folder which comparison it is.
RECORD = "comparison.json"


@dataclass(frozen=True)
class Plan:
    """All runs with the settings of their trainings, and what they have in common.

    Attributes
    ----------
    context
        Seed, scans, scores.
    settings
        Of each training.
    baselines
        Runs that score the trivial predictors.
    config
        Of the call.
    """

    context: ComparisonContext
    settings: Mapping[Run, Training]
    baselines: tuple[Run, ...]
    config: Configuration

    def row(self, run: Run) -> dict[str, Any] | None:
        """Read the row of a run; None if it is not done."""
        from tau_pipeline.synthesis.comparison.one_run import identity_of, read_row

        return read_row(self.context.run_dir(run), identity_of(run, self.settings_for(run), self.context))

    def settings_for(self, run: Run) -> Training:
        """Return the settings of a training; for trivial predictors, those of the first training of their fold."""
        return self.settings[run] if run in self.settings else self.settings[self.trainings_of(run)[0]]

    def trainings_of(self, baselines: Run) -> list[Run]:
        """List the trainings of the same fold and SUVR scaling, whose models hold the mean images."""
        wanted = (baselines.target_scaling, baselines.fold)
        return [run for run in self.settings if (run.target_scaling, run.fold) == wanted]


def record_of(plan: Plan, splits: Sequence[pd.DataFrame], bids_dir: Path, output_dir: Path) -> dict[str, Any]:
    """Return the contents of the report's record, which distinguish this comparison from others."""
    config = plan.config
    by_scan = {pair.scan: pair for pair in plan.context.pairs}
    scans = {
        scan: {
            "t1w": str(by_scan[scan].t1w_file.relative_to(output_dir)),
            "mask": str(by_scan[scan].mask_file.relative_to(output_dir)),
            "suvr": str(by_scan[scan].suvr_file.relative_to(output_dir)),
            "diagnosis": by_scan[scan].diagnosis,
            "manufacturer": by_scan[scan].manufacturer,
        }
        for scan in plan.context.drawn
    }
    first = plan.context.pairs[0]
    return {
        "name": config.comparison.comparison_name,
        "seed": plan.context.random_seed,
        "folds": len(splits),
        "validation_fold": config.comparison.validation_fold,
        "systems": list(config.comparison.systems),
        "losses": list(config.comparison.losses),
        "target_scalings": list(config.comparison.target_scalings),
        "runs": [run.name for run in (*plan.settings, *plan.baselines)],
        "training": _plain_settings(config.training),
        "volume_features": config.comparison.volume_features,
        "tracer": first.tracer,
        "reference_region": first.reference_region,
        "n_participants": len({pair.participant for pair in plan.context.pairs}),
        "n_scans": len(plan.context.pairs),
        "data_range": plan.context.synthesis.suvr_range,
        "simulated": _is_simulated(bids_dir),
        "scans": [pair.scan for pair in plan.context.pairs],
        "drawn": scans,
    }


def check_folder(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuse a folder that holds another comparison; more or fewer systems, losses and normalizations are the same one.

    Raises
    ------
    SettingError
        The message names the first difference.
    """
    if not (folder / RECORD).is_file():
        return
    # Through JSON, which has no tuples.
    found, ours = read_json(folder / RECORD), json.loads(json.dumps(record))
    hint = "give another --comparison-name, or remove the folder to start anew"
    for name in ("seed", "folds", "validation_fold", "volume_features", "scans"):
        if found.get(name) != ours[name]:
            raise SettingError(f"{folder} holds a comparison with other {name} ({found.get(name)}); {hint}")
    for name, value in ours["training"].items():
        if name != "epochs" and found.get("training", {}).get(name) != value:
            raise SettingError(f"{folder} holds a comparison with another {name}, not {value!r}; {hint}")


def _plain_settings(training: Training) -> dict[str, Any]:
    """Return the settings that determine the trainings, without paths on this machine."""
    values = {**training.resume_fields(), "epochs": training.epochs}
    left_out = ("network", "loss", "target_scaling", "split_file", "fold", "folds", "perceptual_weights_file")
    return {name: value for name, value in values.items() if name not in left_out}


def _is_simulated(bids_dir: Path) -> bool:
    """Return whether the dataset says that it is simulated."""
    try:
        description = read_json(bids_dir / "dataset_description.json")
    except TauPipelineError:
        return False
    return "simulate" in f"{description.get('Name', '')} {description.get('GeneratedBy', '')}".lower()
