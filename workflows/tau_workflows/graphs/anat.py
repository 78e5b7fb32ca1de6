"""The anatomy of one head: from a T1w to bias-corrected T1w, mask, tissue, parcellation and reference regions."""

from __future__ import annotations

from collections.abc import Sequence

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from tau_pipeline.anatomy.freesurfer import FreeSurferFiles
from tau_pipeline.bids.scans import T1w
from tau_pipeline.settings.participant import Settings
from tau_workflows.graphs.job import names_cortex
from tau_workflows.graphs.surface import SurfacePlaces, add_surfaces
from tau_workflows.interfaces.anat import (
    CorrectBias,
    ExtractBrain,
    FindReference,
    FreeSurferLabels,
    Parcellate,
    ReadT1w,
    RegisterToMirrorImage,
    RegisterToTemplate,
    SegmentTissue,
    WarpTemplateRegions,
)
from tau_workflows.interfaces.figures import EarlyFigures

#: What the graph gives, in one place, since Nipype does not check the names of an `IdentityInterface`.
OUTPUTS = [
    "t1w_preproc_file",
    "mask_file",
    "tissue_file",
    "dseg_file",
    "template_regions_file",
    "t1w_from_template",
    "template_from_t1w",
    "head_up",
    "reference_file",
    "reference",
    "skull_stripped",
    "assumptions",
    "labels_source",
    "anat_quality_figures",
    "early_figure_files",
]
#: Threads of the network that finds the brain; with more, it gains little.
_MOST_THREADS = 4
#: What it gives beside if surfaces are asked for: files of each hemisphere.
SURFACE_OUTPUTS = ("left_files", "right_files")


def init_anat_wf(
    t1w: T1w,
    settings: Settings,
    freesurfer: FreeSurferFiles | None = None,
    *,
    threads: int = 1,
    surfaces: SurfacePlaces | None = None,
) -> pe.Workflow:
    """Build the graph of everything that is computed from the T1w alone.

    The brain mask comes first, since N4 estimates the bias field inside it. Where FreeSurfer's results are given, their
    mask and labels take the place of ours from there on; the registration to the template is still needed, for the
    cerebellar lobules and the pons.

    Parameters
    ----------
    t1w
        The image and its metadata.
    settings
        Read here: ``orientation``, ``skull_strip_t1w``, ``ref_region``, ``cortex_labels``.
    freesurfer
        Results of FreeSurfer or FastSurfer for the same head, or None.
    threads
        Processors that the graph may use. The registrations to the template and to its mirror image share them, since
        they run side by side.
    surfaces
        Where the labels of the average surface come from; None for no surfaces.

    Inputs
    ------
    t1w_file
        The T1w; set already.

    Outputs
    -------
    t1w_preproc_file, mask_file, tissue_file, dseg_file, template_regions_file
        Images on the T1w grid.
    t1w_from_template, template_from_t1w
        ITK transforms, one for each direction.
    head_up
        Direction to the top of the head in the T1w's world.
    reference_file, reference
        One mask and one description for each of ``settings.ref_region``, as lists.
    skull_stripped, assumptions, labels_source
        For the sidecars.
    anat_quality_figures
        Figures of quality checks, as a list of dictionaries.
    early_figure_files
        The figures that need no labels.
    left_files, right_files
        Surfaces of each hemisphere with thickness and labels, if they were asked for.
    """
    wf = pe.Workflow(name="anat_wf")
    inputnode = pe.Node(niu.IdentityInterface(fields=["t1w_file"], t1w_file=str(t1w.path)), name="inputnode")
    outputnode = pe.Node(
        niu.IdentityInterface(fields=[*OUTPUTS, *(SURFACE_OUTPUTS if surfaces else ())]), name="outputnode"
    )
    wf.add_nodes([outputnode])

    read, brain, bias = add_brain(wf, inputnode, t1w, settings, threads)
    tissue = pe.Node(SegmentTissue(), name="tissue", mem_gb=1.3)
    half = max(1, threads // 2)
    template = pe.Node(RegisterToTemplate(threads=half), name="template", mem_gb=1.2, n_procs=half)
    regions = pe.Node(WarpTemplateRegions(), name="regions", mem_gb=1.2)
    reference = pe.Node(FindReference.with_settings(settings), name="reference", mem_gb=0.8)
    draw = pe.Node(EarlyFigures(), name="early_figures", mem_gb=1.1)

    if freesurfer is None:
        labels, masked = own_labels(wf, (bias, brain), template, tissue, threads), brain
        outputnode.inputs.labels_source = "tau-pipeline: labels of the template on this head's gray matter"
    else:
        given = FreeSurferLabels(
            labels_file=str(freesurfer.labels_file),
            brain_file=str(freesurfer.brain_file),
            freesurfer_mask_file=str(freesurfer.mask_file),
        )
        labels = masked = pe.Node(given, name="labels", mem_gb=1.4)
        wf.connect(read, "t1w_file", labels, "t1w_file")
        wf.connect(brain, "mask_file", labels, "brain_mask_file")
        outputnode.inputs.labels_source = f"{freesurfer.labels_file.name} of {freesurfer.subject_dir.name}"
    for node in (bias, tissue, template, draw):
        wf.connect(masked, "mask_file", node, "mask_file")
    for node in (tissue, template, regions, draw):
        wf.connect(bias, "t1w_preproc_file", node, "t1w_preproc_file")
    if surfaces is not None:
        labels = add_surfaces(wf, tissue, labels, surfaces, name_cortex=names_cortex(settings, freesurfer))
    wf.connect(template, "atlas_file", tissue, "atlas_file")
    for node in (regions, draw):
        wf.connect(template, "t1w_from_template", node, "t1w_from_template")
    wf.connect(tissue, "tissue_file", draw, "tissue_file")
    wf.connect(labels, "dseg_file", reference, "dseg_file")
    wf.connect(tissue, "tissue_file", reference, "tissue_file")
    wf.connect(regions, "template_regions_file", reference, "template_regions_file")

    results = {
        "t1w_preproc_file": bias,
        "mask_file": masked,
        "tissue_file": tissue,
        "dseg_file": labels,
        "template_regions_file": regions,
        "t1w_from_template": template,
        "template_from_t1w": template,
        "head_up": template,
        "reference_file": reference,
        "reference": reference,
        "skull_stripped": brain,
        "early_figure_files": draw,
    }
    for name, node in results.items():
        wf.connect(node, name, outputnode, name)
    merge_outputs(wf, "assumptions", (read, brain, reference), "assumptions")
    merge_outputs(wf, "quality_figures", (read, brain, template, tissue), "anat_quality_figures")
    return wf


def add_brain(
    wf: pe.Workflow, inputnode: pe.Node, t1w: T1w, settings: Settings, threads: int = 1
) -> tuple[pe.Node, pe.Node, pe.Node]:
    """Add the steps that need nothing but a T1w: read it, find its brain, and correct its bias field in a mask.

    The caller connects the mask. The brain takes all ``threads``, up to `_MOST_THREADS`, though it counts as one
    process: little else can run before it has ended, and that little must not wait for it.
    """
    read = pe.Node(ReadT1w.with_settings(settings), name="read_t1w", mem_gb=0.5)
    brain = pe.Node(ExtractBrain.with_settings(settings), name="brain", mem_gb=1.3)
    brain.inputs.trait_set(known_stripped=bool(t1w.skull_stripped), threads=min(threads, _MOST_THREADS))
    bias = pe.Node(CorrectBias(), name="bias", mem_gb=1.0)
    for source, node in ((inputnode, read), (read, brain), (read, bias)):
        wf.connect(source, "t1w_file", node, "t1w_file")
    return read, brain, bias


def own_labels(
    wf: pe.Workflow, head: tuple[pe.Node, pe.Node], template: pe.Node, tissue: pe.Node, threads: int
) -> pe.Node:
    """Add the labels of the template and of its mirror image on a head's own tissue, and return their node.

    ``head`` are the nodes that give ``t1w_preproc_file`` and ``mask_file``.
    """
    half = max(1, threads // 2)
    mirror = pe.Node(RegisterToMirrorImage(threads=half), name="mirror", mem_gb=1.2, n_procs=half)
    labels = pe.Node(Parcellate(), name="labels", mem_gb=1.2)
    for node in (mirror, labels):
        wf.connect(head[0], "t1w_preproc_file", node, "t1w_preproc_file")
        wf.connect(head[1], "mask_file", node, "mask_file")
    for source, name in ((tissue, "tissue_file"), (template, "atlas_file"), (mirror, "mirror_atlas_file")):
        wf.connect(source, name, labels, name)
    return labels


def merge_outputs(wf: pe.Workflow, field: str, nodes: Sequence[pe.Node], output: str) -> None:
    """Connect a list of what several nodes say in one of their outputs with the output of the graph."""
    merge = pe.Node(niu.Merge(len(nodes)), name=field, run_without_submitting=True)
    for place, node in enumerate(nodes, start=1):
        wf.connect(node, field, merge, f"in{place}")
    wf.connect(merge, "out", wf.get_node("outputnode"), output)
