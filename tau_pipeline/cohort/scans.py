"""Select scans of the derivatives for the group level, and read their kind and their moments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.cohort.standardize import ScanMoments
from tau_pipeline.derivatives.index import DoneScan
from tau_pipeline.derivatives.status import ScanStatus
from tau_pipeline.errors import DamagedFileError, shown
from tau_pipeline.words import counted, form


def without_failed(scans: Sequence[DoneScan], statuses: Mapping[str, ScanStatus]) -> list[DoneScan]:
    """Leave out scans that the last run did not finish, since it failed, was interrupted, or found them of no use.

    Their files are those of an earlier run, with other settings or models.
    """
    left_out = {(status.stem, status.source) for status in statuses.values() if status.state != "done"}
    return [scan for scan in scans if (scan.stem, scan.source) not in left_out]


def is_included(scan: DoneScan, *, include_failed: bool = False) -> bool:
    """Return whether a scan counts in fits, group figures, and tests: not if its quality is ``fail``.

    A scan that ``--exclude`` names never does.
    """
    return not scan.excluded and (include_failed or scan.verdict != "fail")


def left_out_text(scans: Sequence[DoneScan], *, include_failed: bool = False) -> str:
    """Say how many scans are left out because of their quality, and how many by ``--exclude``; empty if none is."""
    every = len({scan.key for scan in scans})
    excluded = {scan.key for scan in scans if scan.excluded}
    failed = {scan.key for scan in scans if not is_included(scan, include_failed=include_failed)} - excluded
    return "; ".join(
        f"{len(found)} of {counted(every, 'scan')} {form(len(found), 'is', 'are')} left out {why}: "
        f"{', '.join(sorted(found))}"
        for found, why in ((failed, "because of failed quality"), (excluded, "by --exclude"))
        if found
    )


def kind_of(scan: DoneScan) -> tuple[str, str]:
    """Return tracer, by its common name, and reference region: SUVR of different kinds cannot be compared."""
    stated = scan.stated("TracerName") or ""
    return tracer_name(stated) or stated, scan.reference_region


def moments_of(scan: DoneScan) -> ScanMoments:
    """Return the first two moments of SUVR over the brain, from the sidecar.

    Raises
    ------
    DamagedFileError
        The sidecar does not have them, or not as numbers.
    """
    stated: list[Any] = [scan.sidecar.get(name) for name in ("BrainMean", "BrainStandardDeviation", "BrainVoxels")]
    try:
        mean, sd, n_voxels = float(stated[0]), float(stated[1]), int(stated[2])
        mean_square = sd**2 + mean**2
    except (TypeError, ValueError, OverflowError):
        mean_square = math.nan
    if stated == [None] * 3:
        raise DamagedFileError(
            f"the sidecar of {scan.suvr_file} has no BrainMean, BrainStandardDeviation, and BrainVoxels, without which "
            "SUVR cannot be standardized: the map was not written by the participant level, or by an early version; "
            f"run the participant level for {scan.participant_id}"
        )
    if not math.isfinite(mean_square):
        raise DamagedFileError(
            f"the sidecar of {scan.suvr_file} has BrainMean, BrainStandardDeviation and BrainVoxels "
            f"{', '.join(map(shown, stated))}; expected: three numbers; run the participant level again for "
            f"{scan.participant_id}"
        )
    tracer, region = kind_of(scan)
    return ScanMoments(scan.participant_id, scan.stated("Manufacturer"), mean, mean_square, n_voxels, tracer, region)
