"""One participant: the whole picture on one screen."""

from __future__ import annotations

from collections.abc import Iterable

from nipype.pipeline import engine as pe

from tau_pipeline.derivatives.sidecars import RECONSTRUCTION
from tau_pipeline.pet.quality import known_figures
from tau_workflows.graphs.anat import OUTPUTS as ANAT_OUTPUTS
from tau_workflows.graphs.anat import init_anat_wf
from tau_workflows.graphs.job import ParticipantJob, ScanJob, T1wJob, scan_steps, t1w_step
from tau_workflows.graphs.longitudinal import (
    add_pet_in_halfway,
    add_visit_outputs,
    connect_visit,
    init_halfway_wf,
    init_visit_wf,
)
from tau_workflows.graphs.pet import ANATOMY, identity_of, init_pet_wf
from tau_workflows.graphs.pet import OUTPUTS as PET_OUTPUTS
from tau_workflows.graphs.spaces import add_anatomy_in_spaces, add_pet_in_spaces
from tau_workflows.graphs.surface import add_pet_on_surfaces, add_surface_outputs, surface_places
from tau_workflows.interfaces.figures import AnatFigures, PetFigures
from tau_workflows.interfaces.outputs import SaveAnat, SavePet


def init_subject_wf(job: ParticipantJob) -> pe.Workflow:
    """Build the graph of one participant: each T1w once, then each PET scan that goes with it.

    Parameters
    ----------
    job
        What to do and where to put it; `tau_workflows.plan.jobs.plan_participants` makes it from a BIDS
        dataset.

    Returns
    -------
    Workflow
        With one workflow ``t1w_<name>_wf`` a T1w, and ``halfway_wf`` where they go through a halfway space; it has no
        open inputs and can be put into another workflow.
    """
    wf = pe.Workflow(name=f"sub_{job.participant}_wf")
    t1w_wfs = [init_t1w_wf(job, t1w_job) for t1w_job in job.t1ws]
    if not job.is_longitudinal:
        wf.add_nodes(t1w_wfs)
        return wf
    halfway_wf = init_halfway_wf(job)
    for t1w_wf, t1w_job in zip(t1w_wfs, job.t1ws, strict=True):
        connect_visit(wf, halfway_wf, t1w_wf, t1w_job.t1w, job.settings)
    return wf


def init_t1w_wf(job: ParticipantJob, t1w_job: T1wJob) -> pe.Workflow:
    """Build the graph of one T1w and the PET scans that go with it, with their outputs."""
    t1w = t1w_job.t1w
    wf = pe.Workflow(name=t1w_step(t1w))
    places = surface_places(job, t1w_job)
    # The registration to the template is what all waits for: where the PET leaves a processor idle, it takes it.
    if job.is_longitudinal:
        anat_wf = init_visit_wf(job.t1ws.index(t1w_job), len(job.t1ws), job.settings)
        add_visit_outputs(wf, anat_wf, job, t1w)
    else:
        threads = job.execution.nprocs or 1
        anat_wf = init_anat_wf(t1w, job.settings, t1w_job.freesurfer, threads=threads, surfaces=places)
    draw = pe.Node(AnatFigures(), name="anat_figures", mem_gb=0.8)
    save = pe.Node(SaveAnat(entities=dict(t1w.entities), raw_file=str(t1w.path)), name="save_anat", mem_gb=0.6)
    _set_places(save, job)
    own = t1w_job.freesurfer.assumptions if t1w_job.freesurfer else ()
    save.inputs.known_assumptions = [*t1w.assumptions, *own]
    for node in (draw, save):
        _connect(wf, anat_wf, ANAT_OUTPUTS, node)
    wf.connect(draw, "figure_files", save, "figure_files")
    add_anatomy_in_spaces(wf, anat_wf, save, job)
    if places is not None:
        add_surface_outputs(wf, anat_wf, job, t1w, places)
    for scan_job in t1w_job.scans:
        pet_wf, saved = _add_scan(wf, anat_wf, job, scan_job)
        if places is not None:
            add_pet_on_surfaces(wf, anat_wf, pet_wf, saved, job, scan_job.scan)
    return wf


def _add_scan(
    wf: pe.Workflow, anat_wf: pe.Workflow, job: ParticipantJob, scan_job: ScanJob
) -> tuple[pe.Workflow, pe.Node]:
    """Add a scan with its outputs; returns its graph and the node that saves it."""
    scan, frames = scan_job.scan, scan_job.frames
    pet_wf = init_pet_wf(scan, frames, job.settings, scan_job.target_fwhm)
    _, draw_name, save_name = scan_steps(scan)
    draw = pe.Node(PetFigures(), name=draw_name, mem_gb=1.4)
    draw.inputs.suvr_scale = list(job.execution.suvr_scale)
    save = pe.Node(SavePet(entities=dict(scan.entities), raw_file=str(scan.pet_file)), name=save_name, mem_gb=0.7)
    _set_places(save, job)
    save.inputs.trait_set(t1w_entities=dict(scan.t1w.entities), identity=identity_of(scan))
    save.inputs.known_quality_figures = known_figures(scan, frames)
    save.inputs.reconstruction = {key: scan.pet_metadata[key] for key in RECONSTRUCTION if key in scan.pet_metadata}
    for name, value in (("model", scan.model), ("radionuclide", scan.radionuclide)):
        if value is not None:
            setattr(save.inputs, name, value)
    for name in ANATOMY:
        wf.connect(anat_wf, f"outputnode.{name}", pet_wf, f"inputnode.{name}")
    # An output that both graphs have, such as the assumptions, is that of the scan.
    of_anatomy_alone = [name for name in ANAT_OUTPUTS if name not in PET_OUTPUTS]
    for node in (draw, save):
        _connect(wf, anat_wf, of_anatomy_alone, node)
        _connect(wf, pet_wf, PET_OUTPUTS, node)
    wf.connect(draw, "figure_files", save, "figure_files")
    add_pet_in_spaces(wf, anat_wf, pet_wf, save, job)
    if job.is_longitudinal:
        add_pet_in_halfway(wf, anat_wf, pet_wf, job, scan)
    return pet_wf, save


def _connect(wf: pe.Workflow, graph: pe.Workflow, outputs: Iterable[str], node: pe.Node) -> None:
    """Connect those outputs of a graph that an input of the node has the name of."""
    inputs = node.inputs.copyable_trait_names()
    for name in outputs:
        if name in inputs:
            wf.connect(graph, f"outputnode.{name}", node, name)


def _set_places(save: pe.Node, job: ParticipantJob) -> None:
    save.inputs.output_dir = str(job.output_dir)
    save.inputs.bids_dir = str(job.bids_dir)
    save.inputs.settings_hash = job.settings.hash()
