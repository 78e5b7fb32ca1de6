"""The longitudinal stream: one halfway image of a participant's T1w images, one parcellation, and the way back to each.

The graph of a visit gives what `tau_workflows.graphs.anat.init_anat_wf` gives, so that all that follows is the same.
"""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from tau_pipeline.bids.scans import Scan, T1w
from tau_pipeline.settings.participant import Longitudinal, Settings
from tau_workflows.graphs.anat import OUTPUTS, add_brain, merge_outputs, own_labels
from tau_workflows.graphs.job import HALFWAY_STEP, ParticipantJob, visit_step
from tau_workflows.interfaces.anat import (
    FindReference,
    Parcellate,
    RegisterToTemplate,
    SegmentTissue,
    WarpTemplateRegions,
)
from tau_workflows.interfaces.figures import EarlyFigures
from tau_workflows.interfaces.longitudinal import (
    CarryBack,
    CarryLabels,
    DrawHalfway,
    FindHalfway,
    OnCommonVoxels,
    PetInHalfway,
    SaveHalfway,
    SaveHalfwayPet,
    SaveVisit,
    SegmentVisit,
)

#: What a visit gives before the halfway image is made, for its own steps after it.
_OF_VISIT = ("t1w_preproc_file", "skull_stripped", "visit_assumptions", "visit_quality_figures")
#: What the halfway image gives to each visit, and what it gives in addition where labels are fixed.
_OF_HALFWAY = ("xfm_files", "t1w_from_template", "template_from_t1w", "atlas_file", "mirror_atlas_file", "head_up")
_OF_TEMPLATE = ("template_quality_figures", "halfway_assumptions")
_FIXED = ("dseg_file", "reference_file", "reference")


def init_halfway_wf(job: ParticipantJob) -> pe.Workflow:
    """Build the graph of the halfway image of all visits: the T1w of each, their median, and its parcellation.

    Parameters
    ----------
    job
        Of a participant with several T1w images.

    Outputs
    -------
    t1w_preproc_file, mask_file
        Halfway image and its brain mask.
    xfm_files
        ITK transform of each visit to it, in the order of ``job.t1ws``.
    t1w_from_template, template_from_t1w, atlas_file, mirror_atlas_file, template_quality_figures
        Its registration to the template and to the mirror image of it.
    halfway_assumptions
        Warnings about the registration of the visits.
    dseg_file, reference_file, reference
        Its labels and reference regions.
    """
    settings, threads = job.settings, job.execution.nprocs or 1
    wf = pe.Workflow(name=HALFWAY_STEP)
    fields = ["t1w_preproc_file", "mask_file", *_OF_HALFWAY, *_OF_TEMPLATE, *_FIXED]
    outputnode = pe.Node(niu.IdentityInterface(fields=fields), name="outputnode")
    t1ws = [one.t1w for one in job.t1ws]
    names = [t1w.key for t1w in t1ws]
    find = pe.Node(FindHalfway(names=names), name="halfway", mem_gb=0.9 + 0.3 * len(t1ws))
    gathered = {name: pe.Node(niu.Merge(len(t1ws)), name=f"all_{name}") for name in ("t1w_preproc_file", "mask_file")}
    for place, t1w in enumerate(t1ws, start=1):
        visit = _init_brain_wf(t1w, settings)
        for name, merge in gathered.items():
            wf.connect(visit, f"outputnode.{name}", merge, f"in{place}")
    wf.connect(gathered["t1w_preproc_file"], "out", find, "t1w_files")
    wf.connect(gathered["mask_file"], "out", find, "mask_files")
    nodes = {"t1w_preproc_file": find, "mask_file": find, "xfm_files": find}
    nodes |= _add_parcellation(wf, find, settings, threads)
    for name, node in nodes.items():
        wf.connect(node, name, outputnode, name)
    wf.connect(nodes["template_from_t1w"], "quality_figures", outputnode, "template_quality_figures")
    wf.connect(find, "assumptions", outputnode, "halfway_assumptions")
    draw = pe.Node(DrawHalfway(names=names), name="figure", mem_gb=0.8)
    wf.connect(gathered["mask_file"], "out", draw, "mask_files")
    for name in ("t1w_preproc_file", "mask_file", "xfm_files"):
        wf.connect(find, name, draw, name)
    save = pe.Node(SaveHalfway(participant=job.participant, names=names), name="save_halfway", mem_gb=0.6)
    save.inputs.trait_set(output_dir=str(job.output_dir), bids_dir=str(job.bids_dir), settings_hash=settings.hash())
    save.inputs.trait_set(raw_files=[str(t1w.path) for t1w in t1ws], method=settings.longitudinal)
    for name in ("t1w_preproc_file", "mask_file", "disagreement_mm"):
        wf.connect(find, name, save, name)
    wf.connect(nodes["dseg_file"], "dseg_file", save, "dseg_file")
    wf.connect(draw, "figure_file", save, "figure_file")
    return wf


def _init_brain_wf(t1w: T1w, settings: Settings) -> pe.Workflow:
    """Build the graph of what each visit needs before the halfway image: its brain, and its T1w without bias field."""
    wf = pe.Workflow(name=visit_step(t1w))
    inputnode = pe.Node(niu.IdentityInterface(fields=["t1w_file"]), name="inputnode")
    inputnode.inputs.t1w_file = str(t1w.path)
    outputnode = pe.Node(niu.IdentityInterface(fields=[*_OF_VISIT, "mask_file"]), name="outputnode")
    read, brain, bias = add_brain(wf, inputnode, t1w, settings)
    wf.connect(brain, "mask_file", bias, "mask_file")
    for name, node in (("t1w_preproc_file", bias), ("mask_file", brain), ("skull_stripped", brain)):
        wf.connect(node, name, outputnode, name)
    merge_outputs(wf, "assumptions", (read, brain), "visit_assumptions")
    merge_outputs(wf, "quality_figures", (read, brain), "visit_quality_figures")
    return wf


def _add_parcellation(wf: pe.Workflow, find: pe.Node, settings: Settings, threads: int) -> dict[str, pe.Node]:
    """Add the parcellation of the halfway image, as that of a single T1w; returns the nodes by what they give."""
    half = max(1, threads // 2)
    template = pe.Node(RegisterToTemplate(threads=half), name="template", mem_gb=1.2, n_procs=half)
    tissue = pe.Node(SegmentTissue(), name="tissue", mem_gb=1.3)
    regions = pe.Node(WarpTemplateRegions(), name="regions", mem_gb=1.9)
    reference = pe.Node(FindReference.with_settings(settings), name="reference", mem_gb=0.8)
    for node in (template, tissue, regions):
        wf.connect(find, "t1w_preproc_file", node, "t1w_preproc_file")
    for node in (template, tissue):
        wf.connect(find, "mask_file", node, "mask_file")
    wf.connect(template, "atlas_file", tissue, "atlas_file")
    wf.connect(template, "t1w_from_template", regions, "t1w_from_template")
    labels = own_labels(wf, (find, find), template, tissue, threads)
    for source, name in ((labels, "dseg_file"), (tissue, "tissue_file"), (regions, "template_regions_file")):
        wf.connect(source, name, reference, name)
    found = dict.fromkeys(("t1w_from_template", "template_from_t1w", "atlas_file", "head_up"), template)
    found |= {"mirror_atlas_file": wf.get_node("mirror"), "dseg_file": labels}
    return found | dict.fromkeys(("reference_file", "reference"), reference)


def init_visit_wf(place: int, n_visits: int, settings: Settings) -> pe.Workflow:
    """Build the graph of one visit after the halfway image: labels and reference regions on the voxels of that image.

    Parameters
    ----------
    place, n_visits
        Of the visit among all, counted from 0, and how many there are.
    settings
        Read here: ``longitudinal``, ``ref_region``.

    Inputs
    ------
    t1w_preproc_file, skull_stripped, visit_assumptions, visit_quality_figures
        Of the visit.
    common_mask_file
        Brain mask of all visits, which counts from here on.
    halfway_file
        Halfway image, from which the tissue of the visit is measured.
    xfm_files, t1w_from_template, template_from_t1w, atlas_file, mirror_atlas_file
        Of the halfway image.
    template_quality_figures, halfway_assumptions
        Likewise.
    dseg_file, reference_file, reference
        Of the halfway image; read for fixed labels only.

    Outputs
    -------
    As `init_anat_wf`, and ``xfm_file``, the ITK transform of the visit to the halfway image.
    """
    method: Longitudinal = settings.longitudinal
    wf = pe.Workflow(name="anat_wf")
    fixed = _FIXED if method == "fixed-labels" else ()
    fields = [*_OF_VISIT, "common_mask_file", "halfway_file", *_OF_HALFWAY, *_OF_TEMPLATE, *fixed]
    inputnode = pe.Node(niu.IdentityInterface(fields=fields), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=[*OUTPUTS, "xfm_file"]), name="outputnode")
    where = "the same at each visit" if fixed else "on the gray matter of this visit"
    source = f"labels of the template, registered once to the halfway image of {n_visits} visits, {where}"
    outputnode.inputs.labels_source = f"tau-pipeline: {source}"
    carry = pe.Node(CarryBack(place=place), name="carry_back", mem_gb=0.8)
    visit = pe.Node(OnCommonVoxels(), name="common_voxels", mem_gb=0.8)
    tissue = pe.Node(SegmentVisit(), name="tissue", mem_gb=1.6)
    regions = pe.Node(WarpTemplateRegions(), name="regions", mem_gb=1.9)
    draw = pe.Node(EarlyFigures(), name="early_figures", mem_gb=0.8)
    for name in _OF_HALFWAY:
        wf.connect(inputnode, name, carry, name)
    for name in ("t1w_preproc_file", "common_mask_file"):
        wf.connect(inputnode, name, visit, name)
    wf.connect(carry, "xfm_file", visit, "xfm_file")
    for node in (tissue, regions, draw):
        wf.connect(visit, "t1w_preproc_file", node, "t1w_preproc_file")
    for node in (tissue, draw):
        wf.connect(visit, "mask_file", node, "mask_file")
    for node in (regions, draw):
        wf.connect(carry, "t1w_from_template", node, "t1w_from_template")
    wf.connect(carry, "atlas_file", tissue, "atlas_file")
    wf.connect(inputnode, "halfway_file", tissue, "halfway_file")
    wf.connect(tissue, "tissue_file", draw, "tissue_file")
    found = {
        **dict.fromkeys(("t1w_preproc_file", "mask_file"), visit),
        "skull_stripped": inputnode,
        **dict.fromkeys(("t1w_from_template", "template_from_t1w", "xfm_file", "head_up"), carry),
        **{"tissue_file": tissue, "template_regions_file": regions, "early_figure_files": draw},
    }
    found |= _fixed_labels(wf, carry) if fixed else _labels_of_visit(wf, visit, carry, settings)
    for name, node in found.items():
        wf.connect(node, name, outputnode, name)
    _merge_notes(wf, found["reference_file"])
    return wf


def _fixed_labels(wf: pe.Workflow, carry: pe.Node) -> dict[str, pe.Node]:
    """Add the labels and the reference regions of the halfway image, the same at each visit."""
    labels = pe.Node(CarryLabels(), name="labels", mem_gb=0.5)
    for name in ("dseg_file", "reference_file"):
        wf.connect(wf.get_node("inputnode"), name, labels, name)
    wf.connect(carry, "xfm_file", labels, "xfm_file")
    return {"dseg_file": labels, "reference_file": labels, "reference": wf.get_node("inputnode")}


def _labels_of_visit(wf: pe.Workflow, visit: pe.Node, carry: pe.Node, settings: Settings) -> dict[str, pe.Node]:
    """Add the labels of the template, where the halfway image has them, on the gray matter of the visit."""
    labels = pe.Node(Parcellate(), name="labels", mem_gb=1.2)
    reference = pe.Node(FindReference.with_settings(settings), name="reference", mem_gb=0.8)
    for name in ("t1w_preproc_file", "mask_file"):
        wf.connect(visit, name, labels, name)
    for name in ("atlas_file", "mirror_atlas_file"):
        wf.connect(carry, name, labels, name)
    wf.connect(wf.get_node("tissue"), "tissue_file", labels, "tissue_file")
    for source, name in ((labels, "dseg_file"), (wf.get_node("tissue"), "tissue_file")):
        wf.connect(source, name, reference, name)
    wf.connect(wf.get_node("regions"), "template_regions_file", reference, "template_regions_file")
    return {"dseg_file": labels, "reference_file": reference, "reference": reference}


def _merge_notes(wf: pe.Workflow, reference: pe.Node) -> None:
    """Gather the assumptions and the figures of quality checks of a visit and of the halfway image."""
    inputnode, outputnode, tissue = (wf.get_node(name) for name in ("inputnode", "outputnode", "tissue"))
    notes = pe.Node(niu.Merge(3), name="assumptions", run_without_submitting=True)
    wf.connect(inputnode, "visit_assumptions", notes, "in1")
    wf.connect(inputnode, "halfway_assumptions", notes, "in2")
    if "assumptions" in reference.outputs.copyable_trait_names():
        wf.connect(reference, "assumptions", notes, "in3")
    wf.connect(notes, "out", outputnode, "assumptions")
    figures = pe.Node(niu.Merge(3), name="quality_figures", run_without_submitting=True)
    wf.connect(inputnode, "visit_quality_figures", figures, "in1")
    wf.connect(inputnode, "template_quality_figures", figures, "in2")
    wf.connect(tissue, "quality_figures", figures, "in3")
    wf.connect(figures, "out", outputnode, "anat_quality_figures")


def connect_visit(wf: pe.Workflow, halfway_wf: pe.Workflow, t1w_wf: pe.Workflow, t1w: T1w, settings: Settings) -> None:
    """Connect the graph of the halfway image with that of one visit, in the graph of the participant."""
    for name in _OF_VISIT:
        wf.connect(halfway_wf, f"{visit_step(t1w)}.outputnode.{name}", t1w_wf, f"anat_wf.inputnode.{name}")
    wf.connect(halfway_wf, "outputnode.mask_file", t1w_wf, "anat_wf.inputnode.common_mask_file")
    wf.connect(halfway_wf, "outputnode.t1w_preproc_file", t1w_wf, "anat_wf.inputnode.halfway_file")
    fixed = _FIXED if settings.longitudinal == "fixed-labels" else ()
    for name in (*_OF_HALFWAY, *_OF_TEMPLATE, *fixed):
        wf.connect(halfway_wf, f"outputnode.{name}", t1w_wf, f"anat_wf.inputnode.{name}")
    for node in t1w_wf.list_node_names():
        if node.endswith(".in_halfway"):
            wf.connect(halfway_wf, "outputnode.t1w_preproc_file", t1w_wf, f"{node}.halfway_file")


def add_visit_outputs(wf: pe.Workflow, anat_wf: pe.Workflow, job: ParticipantJob, t1w: T1w) -> None:
    """Add the step that writes the transform of a visit to the halfway image."""
    save = pe.Node(
        SaveVisit(entities=dict(t1w.entities), output_dir=str(job.output_dir)), name="save_visit", mem_gb=0.3
    )
    wf.connect(anat_wf, "outputnode.xfm_file", save, "xfm_file")


def add_pet_in_halfway(
    wf: pe.Workflow, anat_wf: pe.Workflow, pet_wf: pe.Workflow, job: ParticipantJob, scan: Scan
) -> None:
    """Add the steps that write the SUVR of a scan in the halfway space, from its frames in one interpolation."""
    node = pe.Node(PetInHalfway(), name="in_halfway", mem_gb=0.9)
    sources = {
        **{"pet_file": "inputnode", "frames": "motion", "frame_xfms": "motion", "pet2t1w_xfm": "coregister"},
        **{"smoothing_fwhm": "on_t1w", "reference_value": "quantify"},
    }
    for name, source in sources.items():
        pet_wf.connect(pet_wf.get_node(source), name, node, name)
    wf.connect(anat_wf, "outputnode.xfm_file", pet_wf, "in_halfway.xfm_file")
    save = pe.Node(
        SaveHalfwayPet(entities=dict(scan.entities), raw_file=str(scan.pet_file)),
        mem_gb=0.6,
        name=(f"save_halfway_{pet_wf.name.removesuffix('_wf')}"),
    )
    save.inputs.trait_set(output_dir=str(job.output_dir), bids_dir=str(job.bids_dir), settings_hash=job.settings.hash())
    wf.connect(anat_wf, "outputnode.reference", save, "reference")
    for name in ("reference_value", "assumptions"):
        wf.connect(pet_wf, f"outputnode.{name}", save, name)
    wf.connect(pet_wf, "in_halfway.suvr_files", save, "suvr_files")
