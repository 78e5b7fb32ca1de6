"""Synthesis as graphs: one node per synthetic scan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nipype.pipeline import engine as pe
from nipype.utils.gpu_count import gpu_count

from tau_workflows.graphs.training_memory import APPLYING_GB
from tau_workflows.interfaces.synthesis import SynthesizeScan

if TYPE_CHECKING:
    from tau_pipeline.synthesis.data.targets import Target
    from tau_pipeline.synthesis.evaluation.outputs import SynthesisContext


def init_synthetic_scans_wf(
    targets: Sequence[Target], context: SynthesisContext, measures_dir: Path, n_procs: int = 1
) -> pe.Workflow:
    """Build one graph per participant, with one node per synthetic scan: T1w derivatives to map, table and figure.

    Parameters
    ----------
    targets
        The scans to be made.
    context
        What is the same for all of them. Nodes get its settings, and read the models and measures from their folders.
    measures_dir
        Folder with ``uncertainty.json`` and ``baselines.npz``, as far as there are any.
    n_procs
        Processors that a node takes.

    Returns
    -------
    Workflow
        ``synthesize_wf`` with a workflow ``sub_<label>_wf`` each; it has no open inputs.
    """
    wf = pe.Workflow(name="synthesize_wf")
    # One of Nipype's GPU slots is taken where a GPU is requested, or is available.
    use_gpu = context.device == "cuda" or (context.device == "auto" and gpu_count() > 0)
    own: dict[str, pe.Workflow] = {}
    for target in targets:
        label = target.names.entities["sub"]
        node = pe.Node(
            SynthesizeScan(target=target, synthesis=context.synthesis, use_gpu=use_gpu),
            name="synthesize_" + re.sub(r"\W", "_", target.names.key.split("_", 1)[1]),
            # Of the models' presets nothing is known before they are read.
            mem_gb=max(APPLYING_GB.values()),
            n_procs=n_procs,
        )
        node.inputs.trait_set(
            settings_hash=context.settings_hash,
            unknown_manufacturer=context.unknown_manufacturer,
            device=context.device,
            output_dir=str(context.output_dir),
            measures_dir=str(measures_dir),
        )
        if context.mem_mb is not None:
            node.inputs.mem_mb = context.mem_mb
        own.setdefault(label, pe.Workflow(name=re.sub(r"\W", "_", f"sub_{label}_wf"))).add_nodes([node])
    wf.add_nodes(list(own.values()))
    return wf
