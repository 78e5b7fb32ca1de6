"""The surfaces of one T1w: both hemispheres, their labels, and the cortex of the volume named by them if asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nipype.pipeline import engine as pe

from tau_pipeline.anatomy.freesurfer import FreeSurferFiles
from tau_pipeline.bids.scans import Scan, T1w
from tau_pipeline.surface.freesurfer import has_surfaces
from tau_pipeline.surface.mesh import SIDES
from tau_workflows.graphs.job import DRAW_SURFACES, SAVE_SURFACES, ParticipantJob, T1wJob, on_surfaces_step
from tau_workflows.graphs.spaces import sampled_from
from tau_workflows.interfaces.surface import (
    DrawSurfaces,
    FreeSurferHemisphere,
    NameCortexBySurface,
    ReconstructHemisphere,
    RegisterHemisphere,
    SaveSurfaces,
)
from tau_workflows.interfaces.surface_pet import SaveSurfacePet

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


def surface_places(job: ParticipantJob, t1w_job: T1wJob) -> SurfacePlaces | None:
    """Return where the surfaces of a T1w come from; None if it gets none."""
    given = t1w_job.freesurfer
    own = given if given is not None and has_surfaces(given.subject_dir) else None
    if not job.settings.surfaces and (own is None or not job.settings.sampled_surfaces):
        return None
    files = [job.fsaverage_dir / "label" / f"{hemi}.aparc.annot" for hemi in ("lh", "rh")] if job.fsaverage_dir else []
    known = job.fsaverage_dir if files and all(file.is_file() for file in files) else None
    return SurfacePlaces(job.execution.work_dir / "surface-labels", known, own)


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


def add_surface_outputs(
    wf: pe.Workflow, anat_wf: pe.Workflow, job: ParticipantJob, t1w: T1w, places: SurfacePlaces
) -> None:
    """Add the steps that draw and write the surfaces of a T1w."""
    draw = pe.Node(DrawSurfaces(), name=DRAW_SURFACES, mem_gb=0.8)
    step = SaveSurfaces(entities=dict(t1w.entities), output_dir=str(job.output_dir))
    step.inputs.made_by = "FreeSurfer" if places.freesurfer else "cat-surf"
    save = pe.Node(step, name=SAVE_SURFACES, mem_gb=0.6)
    for name in ("left_files", "right_files"):
        wf.connect(anat_wf, f"outputnode.{name}", draw, name)
        wf.connect(anat_wf, f"outputnode.{name}", save, name)
    for name in ("t1w_preproc_file", "mask_file"):
        wf.connect(anat_wf, f"outputnode.{name}", draw, name)
    wf.connect(draw, "figure_file", save, "figure_file")


def add_pet_on_surfaces(
    wf: pe.Workflow, anat_wf: pe.Workflow, pet_wf: pe.Workflow, save: pe.Node, job: ParticipantJob, scan: Scan
) -> None:
    """Add the step that writes the maps of a scan on average surfaces.

    Parameters
    ----------
    wf, anat_wf, pet_wf, save, job
        As in `tau_workflows.graphs.spaces.add_pet_in_spaces`.
    scan
        The PET.
    """
    step = SaveSurfacePet(entities=dict(scan.entities), output_dir=str(job.output_dir))
    step.inputs.surfaces = list(map(str, job.settings.sampled_surfaces))
    for name in ("fsaverage_dir", "fslr_dir"):
        if (folder := getattr(job, name)) is not None:
            setattr(step.inputs, name, str(folder))
    node = pe.Node(step, name=on_surfaces_step(scan), mem_gb=1.0)
    for name, source in sampled_from(pet_wf).items():
        wf.connect(pet_wf, f"{source}.{name}", node, name)
    for name in ("left_files", "right_files", "reference", "template_from_t1w"):
        wf.connect(anat_wf, f"outputnode.{name}", node, name)
    wf.connect(save, "out_files", node, "saved_files")
