"""Synthesis as graphs: one node per synthetic scan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nipype.pipeline import engine as pe
from nipype.utils.gpu_count import gpu_count

from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.training import Training
from tau_workflows.graphs.training_memory import APPLYING_GB
from tau_workflows.interfaces.synthesis import SynthesizeScan

if TYPE_CHECKING:
    from tau_pipeline.synthesis.data.targets import Target


def init_synthetic_scans_wf(
    targets: Sequence[Target], output_dir: Path, measures_dir: Path, config: Configuration
) -> pe.Workflow:
    """Build one graph per participant, with one node per synthetic scan: T1w derivatives to map, table and figure.

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
    """Return whether nodes take one of Nipype's GPU slots: where a GPU is requested, or is available."""
    return settings.device == "cuda" or (settings.device == "auto" and gpu_count() > 0)
