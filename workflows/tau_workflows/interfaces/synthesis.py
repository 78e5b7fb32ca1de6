"""Interfaces over `tau_pipeline.synthesis`: train a model, apply it to a T1w, make a synthetic scan."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, File, TraitedSpec, traits

from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import save_volume
from tau_pipeline.settings.training import Training
from tau_workflows.interfaces.base import LibraryInterface

if TYPE_CHECKING:
    from tau_pipeline.settings.configuration import Configuration
    from tau_pipeline.synthesis.evaluation.outputs import Recipe
    from tau_pipeline.synthesis.model.ensemble import Ensemble


class _TrainIn(BaseInterfaceInputSpec):
    derivatives_dir = traits.Str(mandatory=True, desc="what the participant level writes")
    suvr_file = traits.List(File(exists=True), mandatory=True, desc="SUVR maps, all there before training begins")
    model_dir = traits.Str(mandatory=True, desc="folder of the model; an interrupted training goes on there")
    training = traits.Dict(mandatory=True, desc="fields of a Training")
    diagnoses = traits.Dict(desc="diagnosis by participant, for the splits")
    reference_region = traits.Str(desc="reference region of the SUVR")
    random_seed = traits.Int(0, usedefault=True, desc="seed of everything that is drawn")
    min_participants = traits.Int(5, usedefault=True, desc="fewest participants that a manufacturer is fitted on")
    unknown_manufacturer = traits.Str("error", usedefault=True, desc="error, pooled or exclude")
    # Nipype gives a node that sets this one of the GPUs, and knows no other way to ask.
    use_gpu = traits.Bool(False, usedefault=True, desc="take a GPU slot")


class _TrainOut(TraitedSpec):
    model_dir = Directory(desc="folder of the model")
    figures = traits.Dict(desc="figures of merit on the test split")


class TrainModel(LibraryInterface):
    """Train a model on the given SUVR maps and the T1w that go with them."""

    _always_run = True
    input_spec = _TrainIn
    output_spec = _TrainOut

    def call(self, folder: Path) -> dict[str, Any]:
        # torch takes seconds to load, and building a graph must not.
        from tau_pipeline.synthesis.data.pairs import find_pairs
        from tau_pipeline.synthesis.model.card import read_card
        from tau_pipeline.synthesis.training.data import Strangers
        from tau_pipeline.synthesis.training.loop import train
        from tau_pipeline.synthesis.training.results import is_finished

        given = self.inputs
        model_dir, settings = Path(given.model_dir), Training(**given.training)
        found = find_pairs(
            Path(given.derivatives_dir),
            reference_region=self.optional("reference_region"),
            diagnoses=self.optional("diagnoses"),
        )
        wanted = {Path(file).resolve() for file in given.suvr_file}
        pairs = [pair for pair in found if pair.suvr_file.resolve() in wanted]
        if not is_finished(model_dir, settings, pairs, given.random_seed):
            strangers = Strangers(given.min_participants, given.unknown_manufacturer)
            train(settings, pairs, model_dir, seed=given.random_seed, strangers=strangers)
        return {"model_dir": str(model_dir), "figures": dict(read_card(model_dir).figures)}


class _ApplyIn(BaseInterfaceInputSpec):
    model_dir = Directory(exists=True, mandatory=True, desc="folder of the model")
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")
    manufacturer = traits.Str(mandatory=True, desc="PET scanner whose scale the synthetic SUVR gets")
    use_gpu = traits.Bool(False, usedefault=True, desc="take a GPU slot")


class _ApplyOut(TraitedSpec):
    synthetic_file = File(desc="synthetic SUVR on the grid of the T1w")
    assumptions = traits.List(traits.Str(), desc="what was assumed or looks odd, in words")


class ApplyModel(LibraryInterface):
    """Predict SUVR from a T1w with a trained model."""

    input_spec = _ApplyIn
    output_spec = _ApplyOut

    def call(self, folder: Path) -> dict[str, Any]:
        from tau_pipeline.synthesis.model.ensemble import load_ensemble
        from tau_pipeline.synthesis.model.predict import Inference, on_t1w_grid, predict

        given = self.inputs
        t1w, mask = load_volume(given.t1w_preproc_file, ndim=3), load_volume(given.mask_file, ndim=3)
        ensemble = load_ensemble([Path(given.model_dir)])
        inference = Inference(device="auto" if given.use_gpu else "cpu")
        predicted = predict(ensemble, t1w, mask, given.manufacturer, inference)
        synthetic = on_t1w_grid(predicted.mean, predicted.brain, predicted.placement, mask)
        return {
            "synthetic_file": str(save_volume(synthetic, folder / "synthSUVR.nii.gz")),
            "assumptions": list(predicted.remarks),
        }


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
