"""Synthesis as graphs: a model is trained on SUVR maps and applied to T1w images; participants get synthetic scans."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from nipype.utils.gpu_count import gpu_count

from tau_pipeline.pet.reference_region import parse_reference
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.training import Training
from tau_workflows.graphs.training_memory import APPLYING_GB, training_gb
from tau_workflows.interfaces.synthesis import ApplyModel, SynthesizeScan, TrainModel

if TYPE_CHECKING:
    from tau_pipeline.synthesis.data.targets import Target

INPUTS = ["suvr_file", "diagnoses", "t1w_preproc_file", "mask_file", "manufacturer"]
OUTPUTS = ["model_dir", "figures", "synthetic_file", "assumptions"]


def init_synthesis_wf(derivatives_dir: Path, model_dir: Path, config: Configuration) -> pe.Workflow:
    """Train a model on SUVR maps that the participant level wrote, then apply it to T1w images.

    With `tau_workflows.graphs.subject.init_subject_wf` of each participant before it, one graph goes from raw data to
    a model and to synthetic images: join the ``out_files`` of the participants' ``save_...`` nodes and connect them to
    ``inputnode.suvr_file``.

    Parameters
    ----------
    derivatives_dir
        Where the participant level writes.
    model_dir
        Folder of the model.
    config
        Read here: ``training``, ``random_seed``, the first of ``ref_region``, ``min_participants``,
        ``unknown_manufacturer``, ``nprocs``.

    Inputs
    ------
    suvr_file
        SUVR maps to train on (other files among them do no harm); their T1w, masks and labels lie beside them.
    diagnoses
        Diagnosis by participant, for the stratification of the splits; may be empty.
    t1w_preproc_file, mask_file, manufacturer
        Lists of equal length: images to apply the model to, and the PET scanner whose scale each gets.

    Outputs
    -------
    model_dir, figures
        The model's folder, and its figures of merit on the test split.
    synthetic_file, assumptions
        Lists: synthetic SUVR on the grid of each T1w, and sentences on it.
    """
    from tau_pipeline.synthesis.training.optimization import grid_of

    wf = pe.Workflow(name="synthesis_wf")
    inputnode = pe.Node(niu.IdentityInterface(fields=INPUTS), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=OUTPUTS), name="outputnode")
    settings = config.training
    use_gpu = _takes_gpu(settings)
    training = pe.Node(
        TrainModel(training=_plain(settings), use_gpu=use_gpu),
        name="training",
        mem_gb=training_gb(settings, grid_of(settings).shape),
        n_procs=config.execution.nprocs or 1,
    )
    training.inputs.trait_set(
        derivatives_dir=str(derivatives_dir),
        model_dir=str(model_dir),
        reference_region=parse_reference(config.settings.ref_region[0]),
        random_seed=config.settings.random_seed,
        min_participants=config.group.min_participants,
        unknown_manufacturer=config.group.unknown_manufacturer,
    )
    applying = pe.MapNode(
        ApplyModel(use_gpu=use_gpu),
        iterfield=["t1w_preproc_file", "mask_file", "manufacturer"],
        name="applying",
        mem_gb=APPLYING_GB[settings.network_preset],
    )
    wf.connect(inputnode, "suvr_file", training, "suvr_file")
    wf.connect(inputnode, "diagnoses", training, "diagnoses")
    wf.connect(training, "model_dir", applying, "model_dir")
    for name in ("t1w_preproc_file", "mask_file", "manufacturer"):
        wf.connect(inputnode, name, applying, name)
    for name in ("model_dir", "figures"):
        wf.connect(training, name, outputnode, name)
    for name in ("synthetic_file", "assumptions"):
        wf.connect(applying, name, outputnode, name)
    return wf


def init_synthetic_scans_wf(
    targets: Sequence[Target], output_dir: Path, measures_dir: Path, config: Configuration
) -> pe.Workflow:
    """One graph a participant, with one node for each synthetic scan: T1w derivatives to map, table and figure.

    Parameters
    ----------
    targets
        The scans to be made.
    output_dir
        Root of the derivatives, which hold the T1w, and take the results.
    measures_dir
        Folder with ``uncertainty.json`` and ``yardsticks.npz``, as far as there are any.
    config
        Read by the nodes: ``synthesis``, whose ``model`` names the folders, and what it is run with.

    Returns
    -------
    Workflow
        ``synthesize_wf`` with a workflow ``sub_<label>_wf`` each; it has no open inputs.
    """
    wf = pe.Workflow(name="synthesize_wf")
    own: dict[str, pe.Workflow] = {}
    for target in targets:
        label = target.names.entities["sub"]
        node = pe.Node(
            SynthesizeScan(target=target, configuration=config, use_gpu=_takes_gpu(config.training)),
            name="synthesize_" + re.sub(r"\W", "_", target.names.key.split("_", 1)[1]),
            # Of the models' presets nothing is known before they are read.
            mem_gb=max(APPLYING_GB.values()),
            n_procs=config.execution.omp_nthreads or config.execution.nprocs or 1,
        )
        node.inputs.trait_set(output_dir=str(output_dir), measures_dir=str(measures_dir))
        own.setdefault(label, pe.Workflow(name=re.sub(r"\W", "_", f"sub_{label}_wf"))).add_nodes([node])
    wf.add_nodes(list(own.values()))
    return wf


def _takes_gpu(settings: Training) -> bool:
    """Whether nodes take one of Nipype's GPU slots: where it was asked for, or is there to be taken."""
    return settings.device == "cuda" or (settings.device == "auto" and gpu_count() > 0)


def _plain(settings: Training) -> dict[str, Any]:
    """The settings as values that travel between nodes: paths as texts, tuples as lists."""
    as_value = {Path: str, tuple: list}
    return {
        name: next((convert(value) for kind, convert in as_value.items() if isinstance(value, kind)), value)
        for name, value in dataclasses.asdict(settings).items()
    }
