"""Interface over `tau_pipeline.synthesis`: make a synthetic scan."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from tau_workflows.interfaces.base import LibraryInterface

if TYPE_CHECKING:
    from tau_pipeline.synthesis.model.ensemble import Ensemble


class _SynthesizeIn(BaseInterfaceInputSpec):
    # Not in the node's hash, which knows no dataclasses: the node always runs, for its results are the derivatives.
    target = traits.Any(mandatory=True, nohash=True, desc="a Target: which T1w, whose, and what to compare it with")
    synthesis = traits.Any(mandatory=True, nohash=True, desc="a Synthesis: the models, and how they are applied")
    settings_hash = traits.Str(mandatory=True, desc="hash of the settings that change results, for the sidecars")
    unknown_manufacturer = traits.Str(mandatory=True, desc="error, pooled or exclude")
    device = traits.Str(mandatory=True, desc="auto, cpu or cuda")
    mem_mb = traits.Int(desc="memory for prediction, MB; that of the system where this is not set")
    output_dir = traits.Str(mandatory=True, desc="root of the derivatives")
    measures_dir = traits.Str(
        mandatory=True, desc="folder with the calibration and the training statistics, as far as known"
    )
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
        from tau_pipeline.synthesis.evaluation.outputs import SynthesisContext, make_synthetic
        from tau_pipeline.synthesis.model.baselines import TrainingStatistics
        from tau_pipeline.synthesis.model.calibration import Calibration

        given = self.inputs
        context = SynthesisContext(
            ensemble=_ensemble(given.synthesis.model),
            output_dir=Path(given.output_dir),
            settings_hash=given.settings_hash,
            synthesis=given.synthesis,
            unknown_manufacturer=given.unknown_manufacturer,
            device=given.device,
            mem_mb=self.optional("mem_mb"),
            calibration=Calibration.load(Path(given.measures_dir)),
            training_statistics=TrainingStatistics.load(Path(given.measures_dir)),
        )
        scores = make_synthetic(given.target, context)
        names = given.target.names
        return {"synthetic_file": str(names.suvr()), "rois_file": str(names.rois), "scores": scores}


def _ensemble(folders: tuple[Path, ...]) -> Ensemble:
    """Load the models of some folders, once per process while their cards stay the same."""
    from tau_pipeline.synthesis.model.card import CARD

    return _loaded(folders, tuple((folder / CARD).read_bytes() for folder in folders))


@lru_cache(maxsize=1)
def _loaded(folders: tuple[Path, ...], _cards: tuple[bytes, ...]) -> Ensemble:
    from tau_pipeline.synthesis.model.ensemble import load_ensemble

    return load_ensemble(folders)
