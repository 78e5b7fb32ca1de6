"""Decisions for one participant's run, made before anything is computed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tau_pipeline.anatomy.freesurfer import FreeSurferFiles
from tau_pipeline.bids.scans import Scan, T1w
from tau_pipeline.derivatives.names import PetNames
from tau_pipeline.derivatives.status import ScanStatus
from tau_pipeline.pet.frames import FramePlan
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import Settings


@dataclass(frozen=True)
class ScanJob:
    """One PET scan, the frames of it that count, and a target resolution where that is the participant's own, mm."""

    scan: Scan
    frames: FramePlan
    target_fwhm: float | None = None


@dataclass(frozen=True)
class T1wJob:
    """One T1w, its FreeSurfer results if there are any, and the PET scans that go with it."""

    t1w: T1w
    freesurfer: FreeSurferFiles | None
    scans: tuple[ScanJob, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the PET scans, or of the T1w where it has none."""
        return tuple(f"{job.scan.key}_pet" for job in self.scans) or (f"{self.t1w.key}_T1w",)


@dataclass(frozen=True)
class ParticipantJob:
    """Everything that is to be done for one participant.

    ``command`` is the command line, for the report; ``fslr_dir`` holds the spheres of fsLR, and ``fsaverage_dir`` is
    that of FreeSurfer.
    """

    participant: str
    t1ws: tuple[T1wJob, ...]
    bids_dir: Path
    output_dir: Path
    settings: Settings
    execution: Execution
    command: str = ""
    fslr_dir: Path | None = None
    fsaverage_dir: Path | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the scans, or of the T1w where it has none."""
        return tuple(key for job in self.t1ws for key in job.keys)

    @property
    def is_longitudinal(self) -> bool:
        """Return whether the T1w images go through one halfway space: several, all with labels of our own."""
        own = [job.freesurfer is None for job in self.t1ws]
        return self.settings.longitudinal != "off" and len(own) > 1 and all(own)

    def statuses(self) -> dict[str, ScanStatus]:
        """Return the state of each scan before processing: not finished."""
        found: dict[str, ScanStatus] = {}
        for t1w_job in self.t1ws:
            for scan_job in t1w_job.scans:
                found[f"{scan_job.scan.key}_pet"] = _status_of(scan_job.scan, self.output_dir)
            if not t1w_job.scans:
                (key,) = t1w_job.keys
                found[key] = ScanStatus(key, session=t1w_job.t1w.session)
        return found


def _status_of(scan: Scan, output_dir: Path) -> ScanStatus:
    stem = PetNames(output_dir, scan.entities).stem
    return ScanStatus(
        f"{scan.key}_pet",
        stem=stem,
        session=scan.session,
        tracer=scan.tracer,
        manufacturer=scan.manufacturer,
        model=scan.model,
    )


def t1w_step(t1w: T1w) -> str:
    """Name of the graph of one T1w and its scans."""
    return f"t1w_{_word(t1w.key)}_wf"


#: Name of the graph of the halfway image.
HALFWAY_STEP = "halfway_wf"


def visit_step(t1w: T1w) -> str:
    """Name of the graph of one T1w before the halfway image is made."""
    return f"visit_{_word(t1w.key)}_wf"


def scan_steps(scan: Scan) -> tuple[str, str, str]:
    """Return names of the graph of one PET scan, and of the nodes that draw and save it."""
    return f"pet_{_word(scan.key)}_wf", f"figures_{_word(scan.key)}", f"save_{_word(scan.key)}"


def _word(key: str) -> str:
    """Spell a key with the characters that Nipype allows in names."""
    return re.sub(r"[^0-9A-Za-z]", "_", key)


#: Names of the steps that draw and write surfaces, and start of the names of those that write scans on them.
DRAW_SURFACES, SAVE_SURFACES, ON_SURFACES = "surface_figure", "save_surfaces", "save_on_surfaces_"
_SURFACE_STEPS = ("surface_left", "surface_right", "sphere_left", "sphere_right", DRAW_SURFACES, SAVE_SURFACES)


def is_surface_step(step: str) -> bool:
    """Return whether a node belongs to the surfaces, by its name: nothing but surfaces needs it."""
    return step in _SURFACE_STEPS or step.startswith(ON_SURFACES)


def on_surfaces_step(scan: Scan) -> str:
    """Name of the step that writes a scan on average surfaces."""
    return f"{ON_SURFACES}{_word(scan.key)}"


def names_cortex(settings: Settings, freesurfer: FreeSurferFiles | None) -> bool:
    """Return whether the surface names the cortex of the volume, so that no table can be made without it."""
    return settings.cortex_labels == "hybrid" and freesurfer is None
