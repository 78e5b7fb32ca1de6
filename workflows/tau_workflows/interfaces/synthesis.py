"""Interface over `tau_pipeline.synthesis`: make a synthetic scan."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from tau_workflows.interfaces.base import LibraryInterface

if TYPE_CHECKING:
    from tau_pipeline.settings.configuration import Configuration
    from tau_pipeline.synthesis.evaluation.outputs import Recipe
    from tau_pipeline.synthesis.model.ensemble import Ensemble


class _SynthesizeIn(BaseInterfaceInputSpec):
    # Not in the node's hash, which knows no dataclasses: the node always runs, for its results are the derivatives.
    target = traits.Any(mandatory=True, nohash=True, desc="a Target: which T1w, whose, and what to compare it with")
    configuration = traits.Any(mandatory=True, nohash=True, desc="a Configuration")
    output_dir = traits.Str(mandatory=True, desc="root of the derivatives")
    measures_dir = traits.Str(mandatory=True, desc="folder with the calibration and the yardsticks, as far as known")
    use_gpu = traits.Bool(False, usedefault=True, desc="take a GPU slot")


class _SynthesizeOut(TraitedSpec):
    synthetic_file = File(desc="synthetic SUVR on the grid of the T1w")
    rois_file = File(desc="its table of regions")
    scores = traits.List(desc="ScanScores of each measured scan")


class SynthesizeScan(LibraryInterface):
    """Make one synthetic scan: from the T1w derivative to the map, its uncertainty, table, agreement and figure."""

    _always_run = True
    input_spec = _SynthesizeIn
    output_spec = _SynthesizeOut

    def call(self, folder: Path) -> dict[str, Any]:
        from tau_pipeline.synthesis.evaluation.outputs import make_synthetic

        given = self.inputs
        recipe = _recipe(given.configuration, Path(given.output_dir), Path(given.measures_dir))
        scores = make_synthetic(given.target, recipe)
        names = given.target.names
        return {"synthetic_file": str(names.suvr), "rois_file": str(names.rois), "scores": scores}


def _recipe(config: Configuration, output_dir: Path, measures_dir: Path) -> Recipe:
    """The recipe of a run, with the models, which a process loads once."""
    from tau_pipeline.synthesis.evaluation.outputs import recipe_of
    from tau_pipeline.synthesis.model.baselines import Yardsticks
    from tau_pipeline.synthesis.model.calibration import Calibration
    from tau_pipeline.synthesis.model.card import CARD

    folders = tuple(Path(folder) for folder in config.synthesis.model)
    ensemble = _ensemble(folders, tuple((folder / CARD).read_bytes() for folder in folders))
    return replace(
        recipe_of(config, ensemble, output_dir),
        calibration=Calibration.load(measures_dir),
        yardsticks=Yardsticks.load(measures_dir),
    )


@lru_cache(maxsize=1)
def _ensemble(folders: tuple[Path, ...], _cards: tuple[bytes, ...]) -> Ensemble:
    """The models of some folders; other cards are other models."""
    from tau_pipeline.synthesis.model.ensemble import load_ensemble

    return load_ensemble(folders)
