"""Jobs of a run of the participant level, decided from metadata alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tau_pipeline.anatomy.freesurfer import FreeSurferFiles, find_freesurfer, parse_derivatives, why_not_found
from tau_pipeline.bids.scans import Participant, T1w
from tau_pipeline.errors import MissingInputError, TauPipelineError
from tau_pipeline.pet.frames import plan_frames
from tau_pipeline.pet.resolution import stated_resolution
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.words import counted
from tau_workflows.graphs.job import ParticipantJob, ScanJob, T1wJob
from tau_workflows.plan.surfaces import fsaverage_dir

#: Number of scans that a sentence names.
_NAMED = 3


@dataclass(frozen=True)
class Plan:
    """Jobs to run, why each scan that cannot be run cannot, and why others are of no use, by their keys."""

    jobs: tuple[ParticipantJob, ...]
    problems: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)


def plan_participants(
    participants: Sequence[Participant], bids_dir: Path, output_dir: Path, config: Configuration
) -> Plan:
    """Decide, from metadata alone, what is to be done; nothing is computed.

    Parameters
    ----------
    participants
        As `tau_pipeline.bids.scans.find_participants` gives them.
    bids_dir, output_dir
        Absolute paths.
    config
        With reference regions by their proper names and an absolute work folder.
    """
    derivatives = parse_derivatives(config.selection.derivatives)
    fsaverage = fsaverage_dir(config.selection.derivatives)
    jobs: list[ParticipantJob] = []
    problems: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for participant in participants:
        for problem in participant.problems:
            (left_out if problem.left_out else problems)[problem.key] = problem.message
        scans: dict[Path, list[ScanJob]] = {}
        for scan in participant.scans:
            try:
                shape = (1, 1, 1, scan.n_frames)
                frames = plan_frames(shape, scan.pet_metadata, config.settings.suvr_window)
                scans.setdefault(scan.t1w.path, []).append(ScanJob(scan, frames))
            except TauPipelineError as exc:
                problems[f"{scan.key}_pet"] = str(exc)
        scans = _matched(scans, enabled=config.settings.match_visits)
        t1ws = []
        for t1w in participant.t1ws:
            try:
                found = _freesurfer_of(t1w, derivatives)
                own = tuple(scans.get(t1w.path, ()))
                t1ws.append(T1wJob(t1w, found, own) if found or not derivatives else _own_labels(t1w, own, derivatives))
            except TauPipelineError as exc:
                keys = [f"{job.scan.key}_pet" for job in scans.get(t1w.path, ())] or [f"{t1w.key}_T1w"]
                problems.update(dict.fromkeys(keys, str(exc)))
        if t1ws:
            job = ParticipantJob(
                participant.label, tuple(t1ws), bids_dir, output_dir, config.settings, config.execution
            )
            jobs.append(replace(job, fslr_dir=config.selection.fslr_dir, fsaverage_dir=fsaverage))
    return Plan(tuple(jobs), problems, left_out)


def _matched(scans: dict[Path, list[ScanJob]], *, enabled: bool) -> dict[Path, list[ScanJob]]:
    """Give the scans of a participant the coarsest resolution among them as their target, with a sentence on it.

    Where a sidecar does not state the resolution of a scan, none is smoothed.
    """
    if not enabled:
        return scans
    stated = {job.scan.key: stated_resolution(job.scan.pet_metadata) for own in scans.values() for job in own}
    unknown = [key for key, found in stated.items() if found is None]
    widths = [found.fwhm_mm for found in stated.values() if found is not None]
    target = None if unknown or not widths else max(widths)
    note = (
        f"The scans of the participant were not brought to one resolution: that of {', '.join(unknown)} is not known, "
        "since the scanner model is not in the table. Give --target-fwhm to bring all scans to a stated resolution."
        if unknown
        else f"Target resolution: {target:.1f} mm, the coarsest of {counted(len(widths), 'scan')} of the participant."
    )

    def matched(job: ScanJob) -> ScanJob:
        told = replace(job.scan, assumptions=(*job.scan.assumptions, note))
        return replace(job, scan=told, target_fwhm=target)

    return {path: [matched(job) for job in own] for path, own in scans.items()}


def _freesurfer_of(t1w: T1w, derivatives: Mapping[str, Path]) -> FreeSurferFiles | None:
    for folder in derivatives.values():
        try:
            found = find_freesurfer(folder, t1w.participant, t1w.session)
        except PermissionError as exc:
            raise MissingInputError(f"no permission to read {exc.filename}; change its permissions") from exc
        if found is not None:
            return found
    return None


def _own_labels(t1w: T1w, scans: Sequence[ScanJob], derivatives: Mapping[str, Path]) -> T1wJob:
    """Say of a T1w and its scans that FreeSurfer's labels were asked for and not found."""
    why = tuple(why_not_found(folder, t1w.participant, t1w.session) for folder in derivatives.values())
    told = [replace(job, scan=replace(job.scan, assumptions=(*job.scan.assumptions, *why))) for job in scans]
    return T1wJob(replace(t1w, assumptions=(*t1w.assumptions, *why)), None, tuple(told))


def by_reason(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """Return each reason once, with the scans that it holds for; of many, the first ones and their number.

    Examples
    --------
    >>> by_reason([("sub-01_pet", "damaged"), ("sub-02_pet", ""), ("sub-03_pet", "damaged")])
    ['sub-01_pet, sub-03_pet: damaged']
    """
    scans: dict[str, list[str]] = {}
    for key, reason in reasons:
        if reason:
            scans.setdefault(reason, []).append(key)

    def named(keys: Sequence[str]) -> str:
        more = len(keys) - _NAMED
        return ", ".join(keys[:_NAMED]) + (f" and {more} more" if more > 0 else "")

    return [f"{named(keys)}: {reason}" for reason, keys in scans.items()]
