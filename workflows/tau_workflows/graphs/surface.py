"""The surfaces of one T1w: both hemispheres, their labels, and the cortex of the volume named by them if asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nipype.pipeline import engine as pe

from tau_pipeline.anatomy.freesurfer import FreeSurferFiles
from tau_pipeline.surface.freesurfer import has_surfaces
from tau_pipeline.surface.mesh import SIDES
from tau_workflows.interfaces.surface import (
    FreeSurferHemisphere,
    NameCortexBySurface,
    ReconstructHemisphere,
    RegisterHemisphere,
)

#: Memory of the steps, GB (benchmarks/README.md).
_RECONSTRUCT_GB, _REGISTER_GB = 1.6, 1.6


@dataclass(frozen=True)
class SurfacePlaces:
    """Source of the labels of the average surface: FreeSurfer's ``fsaverage``, or labels kept in ``cache_dir``.

    With ``freesurfer``, the surfaces themselves are those of FreeSurfer.
    """

    cache_dir: Path
    fsaverage_dir: Path | None = None
    freesurfer: FreeSurferFiles | None = None


def surface_places(work_dir: Path, freesurfer: FreeSurferFiles | None) -> SurfacePlaces:
    """Return the places for a T1w: FreeSurfer keeps its ``fsaverage`` beside the folders of the participants."""
    beside = freesurfer.subject_dir.parent / "fsaverage" if freesurfer else None
    known = beside is not None and all((beside / "label" / f"{hemi}.aparc.annot").is_file() for hemi in ("lh", "rh"))
    own = freesurfer if freesurfer and has_surfaces(freesurfer.subject_dir) else None
    return SurfacePlaces(work_dir / "surface-labels", beside if known else None, own)


def add_surfaces(
    wf: pe.Workflow, tissue: pe.Node, labels: pe.Node, places: SurfacePlaces, *, name_cortex: bool
) -> pe.Node:
    """Add the surfaces to the graph of a T1w, and return the node that gives its ``dseg_file``.

    Parameters
    ----------
    wf
        Its ``outputnode`` gets ``left_files`` and ``right_files``.
    tissue, labels
        The nodes that give ``tissue_file`` and ``dseg_file``.
    places
        Where the labels of the average surface come from.
    name_cortex
        Whether the surface names the cortex of the volume.
    """
    outputnode = wf.get_node("outputnode")
    if places.freesurfer is not None:
        _add_freesurfer(wf, labels, places.freesurfer)
        return labels
    named = pe.Node(NameCortexBySurface(), name="cortex_labels", mem_gb=0.8)
    for side in SIDES:
        reconstruct = pe.Node(ReconstructHemisphere(side=side), name=f"surface_{side}", mem_gb=_RECONSTRUCT_GB)
        register = pe.Node(RegisterHemisphere(side=side), name=f"sphere_{side}", mem_gb=_REGISTER_GB)
        register.inputs.cache_dir = str(places.cache_dir)
        if places.fsaverage_dir is not None:
            register.inputs.fsaverage_dir = str(places.fsaverage_dir)
        wf.connect(tissue, "tissue_file", reconstruct, "tissue_file")
        wf.connect(labels, "dseg_file", reconstruct, "dseg_file")
        wf.connect(reconstruct, "files", register, "files")
        wf.connect(register, "files", outputnode, f"{side}_files")
        if name_cortex:
            wf.connect(register, "files", named, f"{side}_files")
    if not name_cortex:
        return labels
    wf.connect(labels, "dseg_file", named, "dseg_file")
    outputnode.inputs.labels_source += ", most of the cortex named by the folds of its surface"
    return named


def _add_freesurfer(wf: pe.Workflow, labels: pe.Node, files: FreeSurferFiles) -> None:
    """Add the surfaces that FreeSurfer made; ``labels`` gives the transform from its images to the T1w."""
    for side in SIDES:
        step = FreeSurferHemisphere(side=side, subject_dir=str(files.subject_dir), labels_file=str(files.labels_file))
        node = pe.Node(step, name=f"surface_{side}", mem_gb=0.8)
        wf.connect(labels, "labels2t1w_xfm", node, "labels2t1w_xfm")
        wf.connect(node, "files", wf.get_node("outputnode"), f"{side}_files")
