"""Steps that write images in the spaces of templates; they are in a graph only if such spaces are asked for."""

from __future__ import annotations

from nipype.pipeline import engine as pe

from tau_pipeline.settings.spaces import template_spaces
from tau_workflows.graphs.job import ParticipantJob
from tau_workflows.interfaces.spaces import AnatInSpaces, PetInSpaces

#: Where each input of the PET comes from in its graph.
_FROM_PET = {
    "pet_file": "inputnode",
    "frames": "motion",
    "frame_xfms": "motion",
    "pet2t1w_xfm": "coregister",
    "smoothing_fwhm": "on_t1w",
    "reference_value": "quantify",
}
#: Memory in GB beside what is loaded: points and coordinates of a grid of 1 mm.
_MEMORY_GB = 0.9


def add_anatomy_in_spaces(wf: pe.Workflow, anat_wf: pe.Workflow, save: pe.Node, job: ParticipantJob) -> None:
    """Add the step that writes T1w and labels in the spaces of templates.

    Parameters
    ----------
    wf
        Graph of a T1w, with ``anat_wf`` and ``save`` in it.
    anat_wf, save
        `tau_workflows.graphs.anat.init_anat_wf`; the node that saves the anatomy.
    job
        Read here: ``output_spaces`` and the work folder.
    """
    if not (inputs := _inputs(job)):
        return
    node = pe.Node(AnatInSpaces(**inputs), name="anat_spaces", mem_gb=_MEMORY_GB)
    for name in ("t1w_preproc_file", "dseg_file", "template_from_t1w"):
        wf.connect(anat_wf, f"outputnode.{name}", node, name)
    wf.connect(node, "space_files", save, "space_files")


def add_pet_in_spaces(
    wf: pe.Workflow, anat_wf: pe.Workflow, pet_wf: pe.Workflow, save: pe.Node, job: ParticipantJob
) -> None:
    """Add the step that writes SUVR in the spaces of templates to the graph of a scan.

    Parameters
    ----------
    wf, anat_wf, save, job
        As in `add_anatomy_in_spaces`; ``save`` is that of the scan.
    pet_wf
        `tau_workflows.graphs.pet.init_pet_wf`.
    """
    if not (inputs := _inputs(job)):
        return
    node = pe.Node(PetInSpaces(**inputs), name="spaces", mem_gb=_MEMORY_GB)
    for name, source in sampled_from(pet_wf).items():
        pet_wf.connect(pet_wf.get_node(source), name, node, name)
    wf.connect(anat_wf, "outputnode.template_from_t1w", pet_wf, "spaces.template_from_t1w")
    wf.connect(pet_wf, "spaces.space_files", save, "space_files")


def sampled_from(pet_wf: pe.Workflow) -> dict[str, str]:
    """Return the inputs of a step that samples PET, and the nodes of the graph of a scan that give them.

    If partial volume correction is on, its node is set to return the inputs that corrected maps are computed from.
    """
    corrected = pet_wf.get_node("partial_volume")
    if corrected is None:
        return _FROM_PET
    corrected.inputs.with_weights = True
    return {**_FROM_PET, "weight_files": "partial_volume", "rois_file": "partial_volume"}


def _inputs(job: ParticipantJob) -> dict[str, object]:
    """Return the inputs that the steps share; nothing if no template is asked for."""
    spaces = template_spaces(job.settings.output_spaces)
    if not spaces:
        return {}
    return {"output_spaces": list(map(str, spaces)), "templates_dir": str(job.execution.work_dir / "templates")}
