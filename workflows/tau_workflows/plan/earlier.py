"""Results of an earlier run in the work folder, and whether the same command would use them, for the dry run.

Nipype keeps the inputs of each finished step beside its result, files as path and MD5. Here the inputs that a job would
give are compared with them, without building graphs and without reading images: a file counts as unchanged where it
lies at the same path and neither its content nor its inode has been touched since the step ended; else it is hashed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterface
from nipype.utils.filemanip import hash_infile

from tau_pipeline.settings.spaces import template_spaces
from tau_workflows.execution.nipype_engine import own_work_dir
from tau_workflows.graphs.job import (
    HALFWAY_STEP,
    SAVE_SURFACES,
    ParticipantJob,
    ScanJob,
    T1wJob,
    on_surfaces_step,
    scan_steps,
    t1w_step,
    visit_step,
)
from tau_workflows.graphs.pet import identity_of, resampling
from tau_workflows.interfaces.anat import ExtractBrain, FindReference, FreeSurferLabels, RegisterToTemplate
from tau_workflows.interfaces.longitudinal import FindHalfway
from tau_workflows.interfaces.outputs import SavePet
from tau_workflows.interfaces.pet import CorrectMotion
from tau_workflows.interfaces.spaces import AnatInSpaces, PetInSpaces
from tau_workflows.interfaces.surface import SaveSurfaces
from tau_workflows.interfaces.surface_pet import SaveSurfacePet


def anatomy_is_done(job: ParticipantJob, t1w_job: T1wJob) -> bool:
    """Return whether everything computed from a T1w alone exists, from the same inputs and settings."""
    if job.is_longitudinal:
        return _halfway_is_done(job, t1w_job)
    t1w, folder = t1w_job.t1w, _folder(job, t1w_job)
    # Outputs are put in their places at every run; a step before it that is missing would show here.
    if _record(folder / "save_anat") is None:
        return False
    steps: list[tuple[str, BaseInterface]] = [
        (
            "anat_wf/brain",
            ExtractBrain.with_settings(job.settings, t1w_file=str(t1w.path), known_stripped=bool(t1w.skull_stripped)),
        ),
        ("anat_wf/template", RegisterToTemplate()),
        ("anat_wf/reference", FindReference.with_settings(job.settings)),
    ]
    given = t1w_job.freesurfer
    if given is not None:
        files = {"labels_file": given.labels_file, "brain_file": given.brain_file}
        files["freesurfer_mask_file"] = given.mask_file
        labels = FreeSurferLabels(**{k: str(file) for k, file in files.items()})
        steps.append(("anat_wf/labels", labels))
    elif (record := _record(folder / "anat_wf/labels")) is not None and "labels_file" in _stored(record):
        return False
    if spaces := list(map(str, template_spaces(job.settings.output_spaces))):
        steps.append(("anat_spaces", AnatInSpaces(output_spaces=spaces)))
    if job.settings.surfaces:
        steps.append((SAVE_SURFACES, SaveSurfaces()))
    return all(_is_same(folder / step, face) for step, face in steps)


def _halfway_is_done(job: ParticipantJob, t1w_job: T1wJob) -> bool:
    """Return whether the halfway image and the anatomy of one visit exist, from the same inputs and settings."""
    folder = own_work_dir(job.execution.work_dir) / f"sub_{job.participant}_wf" / HALFWAY_STEP
    t1ws = [one.t1w for one in job.t1ws]
    steps: list[tuple[Path, BaseInterface]] = [
        (
            folder / visit_step(t1w) / "brain",
            ExtractBrain.with_settings(job.settings, t1w_file=str(t1w.path), known_stripped=bool(t1w.skull_stripped)),
        )
        for t1w in t1ws
    ]
    steps.append((folder / "halfway", FindHalfway(names=[t1w.key for t1w in t1ws])))
    steps.append((folder / "reference", FindReference.with_settings(job.settings)))
    own = _folder(job, t1w_job)
    # The two ways to give labels to a visit have a step of the same name with other inputs.
    labels = _stored(record) if (record := _record(own / "anat_wf/labels")) is not None else {}
    fixed = job.settings.longitudinal == "fixed-labels"
    saved = all(_record(one) is not None for one in (own / "save_anat", own / "save_visit", folder / "save_halfway"))
    return saved and fixed == ("xfm_file" in labels) and all(_is_same(*step) for step in steps)


def scan_is_done(job: ParticipantJob, t1w_job: T1wJob, scan_job: ScanJob) -> bool:
    """Return whether everything computed from a PET scan exists, from the same inputs and settings."""
    scan, folder = scan_job.scan, _folder(job, t1w_job)
    pet_wf, _, save = scan_steps(scan)
    if _record(folder / save) is None:
        return False
    plan = asdict(scan_job.frames)
    saved = SavePet(settings_hash=job.settings.hash(), identity=identity_of(scan))
    for name, value in (("model", scan.model), ("radionuclide", scan.radionuclide)):
        if value is not None:
            setattr(saved.inputs, name, value)
    steps: list[tuple[str, BaseInterface]] = [
        (
            f"{pet_wf}/motion",
            CorrectMotion.with_settings(job.settings, pet_file=str(scan.pet_file), frames=plan),
        ),
        (f"{pet_wf}/on_t1w", resampling(scan, job.settings, scan_job.target_fwhm)),
        (save, saved),
    ]
    if spaces := list(map(str, template_spaces(job.settings.output_spaces))):
        steps.append((f"{pet_wf}/spaces", PetInSpaces(output_spaces=spaces)))
    if job.settings.surfaces:
        surfaces = list(map(str, job.settings.sampled_surfaces))
        steps.append((on_surfaces_step(scan), SaveSurfacePet(surfaces=surfaces)))
    return all(_is_same(folder / step, interface) for step, interface in steps)


def _folder(job: ParticipantJob, t1w_job: T1wJob) -> Path:
    return own_work_dir(job.execution.work_dir) / f"sub_{job.participant}_wf" / t1w_step(t1w_job.t1w)


def _record(folder: Path) -> Path | None:
    """Return Nipype's record of a finished step; an unfinished one has another name."""
    try:
        with os.scandir(folder) as entries:
            found = [one.name for one in entries if one.name.startswith("_0x") and one.name.endswith(".json")]
    except OSError:
        return None
    whole = len(found) == 1 and not found[0].endswith("_unfinished.json")
    return folder / found[0] if whole else None


def _stored(record: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _is_same(folder: Path, interface: BaseInterface) -> bool:
    """Return whether a finished step had the inputs that are set in ``interface``; others are ignored."""
    record = _record(folder)
    if record is None:
        return False
    stored, ended = _stored(record), record.stat().st_mtime
    # By time stamps, so that no file is read here.
    given, _ = interface.inputs.get_hashval(hash_method="timestamp")
    return all(_same(value, stored.get(name), ended) for name, value in given)


def _same(given: Any, stored: Any, ended: float) -> bool:
    """Compare values as Nipype writes them; a file is a pair of path and hash."""
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str) and Path(given[0]).is_file():
        return isinstance(stored, list) and len(stored) == 2 and _same_file(given[0], stored[0], stored[1], ended)
    return bool(json.loads(json.dumps(given)) == stored)


def _same_file(path: str, stored_path: str, stored_hash: str, ended: float) -> bool:
    status = Path(path).stat()
    untouched = path == stored_path and max(status.st_mtime, status.st_ctime) < ended
    return untouched or bool(hash_infile(path) == stored_hash)
