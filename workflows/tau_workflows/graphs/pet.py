"""One PET scan: from its raw frames to SUVR on the T1w grid and a region table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from tau_pipeline.bids.scans import Scan
from tau_pipeline.pet.frames import FramePlan
from tau_pipeline.pvc.maps import METHODS_WITH_MAPS
from tau_pipeline.settings.participant import Settings
from tau_workflows.graphs.job import scan_steps
from tau_workflows.interfaces.figures import ActivityFigures
from tau_workflows.interfaces.pet import Coregister, CorrectMotion, PetOnT1w, Quantify
from tau_workflows.interfaces.pvc import CorrectPartialVolume

_REGIONS = ("mask_file", "dseg_file", "template_regions_file", "reference_file", "reference")
#: Inputs that come from the anatomy.
ANATOMY = ("t1w_preproc_file", "head_up", *_REGIONS)
INPUTS = ["pet_file", *ANATOMY]
OUTPUTS = [
    "pet2t1w_xfm",
    "registration_metric",
    "frames",
    "activity_file",
    "smoothing_fwhm",
    "effective_fwhm",
    "suvr_file",
    "reference_value",
    "rois_file",
    "quality",
    "corrected_files",
    "quality_figures",
    "assumptions",
    "activity_figure_files",
]


def init_pet_wf(scan: Scan, frames: FramePlan, settings: Settings, target_fwhm: float | None = None) -> pe.Workflow:
    """Build the graph of everything that is computed from one PET scan and its anatomy.

    The activity is interpolated once: `correct_motion` and `coregister` only find rigid transforms, and `pet_on_t1w`
    resamples the raw frames to the T1w grid with the composed transforms.

    Parameters
    ----------
    scan
        The PET, its metadata and its T1w.
    frames
        Which frames count, and how much.
    settings
        Read here: ``motion_correction``, ``orientation``, ``smooth_fwhm``, ``target_fwhm``, ``min_measured_fraction``,
        ``extent_suvr``, ``pvc``, ``psf``, ``psf_source``, ``pvc_extracerebral``.
    target_fwhm
        Effective resolution to reach in place of that of the settings, mm.

    Inputs
    ------
    pet_file
        The PET; set already.
    t1w_preproc_file, head_up, mask_file, dseg_file, template_regions_file, reference_file, reference
        As `init_anat_wf` gives them.

    Outputs
    -------
    pet2t1w_xfm, registration_metric
        The rigid transforms, and how good they are.
    frames
        The frames used: those of ``frames`` that hold a measurement.
    activity_file, smoothing_fwhm, effective_fwhm
        Activity on the T1w grid, and its resolution.
    suvr_file, reference_value
        One for each reference region, as lists.
    rois_file, quality, corrected_files
        The region table; quality measures of each SUVR map; maps corrected for partial volume effects, by method.
    quality_figures
        Further figures of quality checks, as a list of dictionaries.
    assumptions
        Sentences of all steps.
    activity_figure_files
        The figures that need no labels.
    """
    wf = pe.Workflow(name=scan_steps(scan)[0])
    inputnode = pe.Node(niu.IdentityInterface(fields=INPUTS), name="inputnode")
    inputnode.inputs.pet_file = str(scan.pet_file)
    outputnode = pe.Node(niu.IdentityInterface(fields=OUTPUTS), name="outputnode")
    plan = asdict(frames)

    motion = pe.Node(CorrectMotion.with_settings(settings, frames=plan), name="motion", mem_gb=0.6)
    coregister = pe.Node(Coregister.with_settings(settings), name="coregister", mem_gb=1.3)
    on_t1w = pe.Node(resampling(scan, settings, target_fwhm), name="on_t1w", mem_gb=1.1)
    quantify = pe.Node(Quantify.with_settings(settings, identity=identity_of(scan)), name="quantify", mem_gb=1.4)
    figures = pe.Node(niu.Merge(3), name="quality_figures", run_without_submitting=True)
    assumptions = pe.Node(niu.Merge(6), name="assumptions", run_without_submitting=True)
    assumptions.inputs.in1 = list(dict.fromkeys((*scan.assumptions, *frames.assumptions)))

    wf.connect(inputnode, "pet_file", motion, "pet_file")
    wf.connect(motion, "static_file", coregister, "static_file")
    wf.connect(inputnode, "t1w_preproc_file", coregister, "t1w_preproc_file")
    wf.connect(inputnode, "mask_file", coregister, "mask_file")
    wf.connect(inputnode, "pet_file", coregister, "pet_file")
    wf.connect(inputnode, "pet_file", on_t1w, "pet_file")
    wf.connect(motion, "static_file", on_t1w, "static_file")
    wf.connect(motion, "frames", on_t1w, "frames")
    wf.connect(motion, "frame_xfms", on_t1w, "frame_xfms")
    wf.connect(coregister, "pet2t1w_xfm", on_t1w, "pet2t1w_xfm")
    wf.connect(on_t1w, "activity_file", quantify, "activity_file")
    for name in ("head_up", "mask_file", "dseg_file", "reference_file", "reference"):
        wf.connect(inputnode, name, quantify, name)

    wf.connect(coregister, "pet2t1w_xfm", outputnode, "pet2t1w_xfm")
    wf.connect(coregister, "registration_metric", outputnode, "registration_metric")
    wf.connect(motion, "frames", outputnode, "frames")
    for name in ("activity_file", "smoothing_fwhm", "effective_fwhm"):
        wf.connect(on_t1w, name, outputnode, name)
    for name in ("suvr_file", "reference_value"):
        wf.connect(quantify, name, outputnode, name)
    wf.connect(assumptions, "out", outputnode, "assumptions")
    wf.connect(figures, "out", outputnode, "quality_figures")
    for place, node in enumerate((motion, coregister, on_t1w), start=1):
        wf.connect(node, "quality_figures", figures, f"in{place}")
    for place, node in enumerate((motion, coregister, on_t1w, quantify), start=2):
        wf.connect(node, "assumptions", assumptions, f"in{place}")
    _connect_t1w(wf, settings)
    _add_figures(wf, str(scan.pet_metadata.get("Units", "")))
    tables = _add_partial_volume(wf, settings, scan)
    for name in ("rois_file", "quality"):
        wf.connect(tables, name, outputnode, name)
    return wf


def resampling(scan: Scan, settings: Settings, target_fwhm: float | None) -> PetOnT1w:
    """Return the step that resamples a scan to the T1w grid; ``target_fwhm`` (mm) replaces that of the settings."""
    step = PetOnT1w.with_settings(settings, pet_metadata=dict(scan.pet_metadata))
    if target_fwhm is not None:
        step.inputs.target_fwhm = target_fwhm
    return step


def _connect_t1w(wf: pe.Workflow, settings: Settings) -> None:
    """Give the T1w to the step that resamples; labels and mask too where it must estimate the resolution by them."""
    regions = ("mask_file", "dseg_file") if settings.target_fwhm is not None else ()
    for name in ("t1w_preproc_file", *regions):
        wf.connect(wf.get_node("inputnode"), name, wf.get_node("on_t1w"), name)


def _add_figures(wf: pe.Workflow, units: str) -> None:
    """Add the figures of the activity, which are drawn while the labels are still computed."""
    node = pe.Node(ActivityFigures(units=units), name="activity_figures", mem_gb=1.1)
    for name in ("t1w_preproc_file", "mask_file"):
        wf.connect(wf.get_node("inputnode"), name, node, name)
    wf.connect(wf.get_node("on_t1w"), "activity_file", node, "activity_file")
    wf.connect(node, "activity_figure_files", wf.get_node("outputnode"), "activity_figure_files")


def _add_partial_volume(wf: pe.Workflow, settings: Settings, scan: Scan) -> pe.Node:
    """Return the node that gives the region table: a new one that corrects it for partial volume, if asked for."""
    if not settings.pvc:
        wf.get_node("outputnode").inputs.corrected_files = {}
        return wf.get_node("quantify")
    step = CorrectPartialVolume.with_settings(settings, pet_metadata=dict(scan.pet_metadata))
    has_maps = not METHODS_WITH_MAPS.isdisjoint(settings.pvc)
    node = pe.Node(step, name="partial_volume", mem_gb=1.1 if has_maps else 0.7)
    for name in _REGIONS:
        wf.connect(wf.get_node("inputnode"), name, node, name)
    wf.connect(wf.get_node("motion"), "static_file", node, "static_file")
    wf.connect(wf.get_node("coregister"), "pet2t1w_xfm", node, "pet2t1w_xfm")
    for name in ("rois_file", "quality"):
        wf.connect(wf.get_node("quantify"), name, node, name)
    for name in ("activity_file", "smoothing_fwhm"):
        wf.connect(wf.get_node("on_t1w"), name, node, name)
    wf.connect(node, "corrected_files", wf.get_node("outputnode"), "corrected_files")
    wf.connect(node, "assumptions", wf.get_node("assumptions"), "in6")
    return node


def identity_of(scan: Scan) -> dict[str, Any]:
    """Return the values that distinguish the rows of one scan from those of another."""
    return {
        "participant_id": f"sub-{scan.participant}",
        "session_id": f"ses-{scan.session}" if scan.session else None,
        "tracer": scan.tracer,
        "manufacturer": scan.manufacturer,
        "source": "measured",
    }
