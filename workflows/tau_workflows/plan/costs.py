"""Minutes, memory and disk that a run is expected to take, from what was measured.

The values are those of ``benchmarks/README.md`` (one head at 1 mm, two cores of a laptop's speed). Minutes are sums
over the steps: one participant on two cores takes two thirds of them, since two steps run at a time. Where earlier runs
of the same participants left their times in the work folder, the minutes are scaled by what those took on this machine.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import read_json
from tau_workflows.graphs.job import ParticipantJob, ScanJob, T1wJob

#: Voxels of the head that was measured: Colin27, 181 x 217 x 181 at 1 mm.
_MEASURED_VOXELS = 7_109_137
#: Seconds of the steps with a fixed grid: brain mask, bias field, registration to the template and to its mirror image;
#: and of those that go by the voxels: tissue, regions of the template, labels, reference, figures and outputs.
_ANATOMY_S, _ANATOMY_S_BY_VOXELS = 5.8 + 3.9 + 10.9 + 9.2, 1.8 + 1.6 + 3.5 + 0.7 + 3.1 + 1.1
#: Surfaces of both hemispheres. The labels of fsaverage, once per work folder, are not counted.
_SURFACES_S = 290.0
#: Coregistration; activity, table, figures and outputs; each frame after the first, which is registered to another and
#: resampled.
_SCAN_S, _SCAN_S_BY_VOXELS, FRAME_S = 8.1, 0.8 + 1.9 + 3.2 + 0.9, 4.0
#: Largest memory of one participant's two processes together, which share what is loaded: what does not depend on the
#: T1w, and what a million of its voxels add (1.65 GB on the measured head; the slope is of an earlier version).
_MEMORY_MB, _MEMORY_MB_A_MILLION_VOXELS = 1430, 31.5
#: Bytes of the files of one T1w and one scan, work folder and output together: what does not depend on the T1w
#: (transforms, figures), and what does, a voxel.
_ANATOMY_BYTES, _ANATOMY_BYTES_A_VOXEL = 38_000_000, 28
_SCAN_BYTES, _SCAN_BYTES_A_VOXEL = 9_000_000, 11


@dataclass(frozen=True)
class Cost:
    """Expected cost of one scan or T1w."""

    minutes: float
    memory_mb: float
    disk_mb: float


def cost(
    t1w_job: T1wJob, scan_job: ScanJob | None, *, anatomy: bool, surfaces: bool = False, speed: float = 1.0
) -> Cost:
    """Expect what is to be computed: the scan, if one is given, and the anatomy, if that is still to be done.

    ``surfaces`` says whether surfaces are part of the anatomy; ``speed`` multiplies the seconds that were measured.
    """
    voxels, seconds, size = _voxels(t1w_job), 0.0, 0.0
    if anatomy:
        seconds += _anatomy_s(voxels) + _SURFACES_S * surfaces
        size += _ANATOMY_BYTES + _ANATOMY_BYTES_A_VOXEL * voxels
    if scan_job is not None:
        seconds += _scan_s(voxels, scan_job)
        size += _SCAN_BYTES + _SCAN_BYTES_A_VOXEL * voxels
    if not seconds:
        return Cost(0.0, 0.0, 0.0)
    memory = _MEMORY_MB + _MEMORY_MB_A_MILLION_VOXELS * voxels / 1e6
    return Cost(speed * seconds / 60, memory, size / 1e6)


def measured_speed(jobs: Sequence[ParticipantJob]) -> tuple[float, int]:
    """Return the ratio of measured to expected seconds in earlier runs of these participants, and their number.

    Counted are runs that computed everything of their participant; without any, the answer is 1 and 0.
    """
    ratios = []
    for job in jobs:
        try:
            steps = read_json(job.execution.work_dir / "times" / f"sub-{job.participant}.json").get("steps_s")
        except TauPipelineError:
            continue
        scans = [(_voxels(t1w_job), scan) for t1w_job in job.t1ws for scan in t1w_job.scans]
        if isinstance(steps, dict) and _is_whole(list(steps), len(job.t1ws), len(scans)):
            expected = sum(_anatomy_s(_voxels(t1w_job)) for t1w_job in job.t1ws)
            expected += sum(_scan_s(voxels, scan) for voxels, scan in scans)
            expected += _SURFACES_S * sum(step.endswith("anat sphere_left") for step in steps)
            ratios.append(sum(float(value) for value in steps.values() if isinstance(value, int | float)) / expected)
    return (statistics.median(ratios), len(ratios)) if ratios else (1.0, 0)


def _is_whole(steps: Sequence[str], n_t1ws: int, n_scans: int) -> bool:
    return (
        sum(step.endswith("anat template") for step in steps) == n_t1ws
        and sum(step.endswith(" coregister") for step in steps) == n_scans
    )


def _voxels(t1w_job: T1wJob) -> int:
    return math.prod(t1w_job.t1w.shape) if t1w_job.t1w.shape else _MEASURED_VOXELS


def _anatomy_s(voxels: int) -> float:
    return _ANATOMY_S + _ANATOMY_S_BY_VOXELS * voxels / _MEASURED_VOXELS


def _scan_s(voxels: int, scan_job: ScanJob) -> float:
    moving = max(0, len(scan_job.frames.indices) - 1)
    return _SCAN_S + _SCAN_S_BY_VOXELS * voxels / _MEASURED_VOXELS + FRAME_S * moving
