"""SUVR maps standardized by manufacturer: images beside the SUVR maps, made only where something has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tau_pipeline.cohort.standardize import BACKGROUND, Standardization
from tau_pipeline.cohort.tables import fit_of
from tau_pipeline.derivatives.index import DoneScan
from tau_pipeline.derivatives.names import sidecar_path
from tau_pipeline.derivatives.sidecars import bids_uri
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import JsonReader, read_json, write_json
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import image_like, require_same_grid, save_volume

#: Keys of the SUVR map's sidecar that hold for the standardized map too.
KEPT = (
    # That a map is synthetic, and what its model cannot do, comes first.
    *("Synthetic", "BeatsBaselines", "Baselines", "ParticipantInTrainingSet", "TrainingSplit", "Models", "ModelHash"),
    *("SpatialReference", "ReferenceRegion", "InjectionStart", "FrameTimesStart", "FrameDuration", "TracerName"),
    *("TracerRadionuclide", "Manufacturer", "ManufacturersModelName", "EffectiveFWHM", "SoftwareName"),
    *("SoftwareVersion", "SettingsHash", "Assumptions"),
)


@dataclass(frozen=True)
class MapPlan:
    """A map to write: from which SUVR, in which brain, by which fit."""

    scan: DoneScan
    mask_file: Path
    target: Path
    sidecar: dict[str, Any]
    fit: Standardization


def plan_maps(
    scans: Iterable[DoneScan], fits: Sequence[Standardization], output_dir: Path, read: JsonReader = read_json
) -> list[MapPlan]:
    """Return the maps that are missing or out of date. Scans without a fit or an SUVR map have none.

    A map is up to date if it was made after its SUVR map, with the same mean, standard deviation and participants.
    ``read`` reads the sidecars of maps that are there.
    """
    plans = []
    for scan in scans:
        fit = fit_of(fits, scan)
        if fit is None or not scan.suvr_file.is_file():
            continue
        plan = _plan(scan, fit, output_dir)
        if not _up_to_date(plan, read):
            plans.append(plan)
    return plans


def stale_maps(scans: Iterable[DoneScan], fits: Sequence[Standardization]) -> list[Path]:
    """Return maps of an earlier fit whose scans no longer have a fit."""
    paths = [scan.standardized_file for scan in scans if fit_of(fits, scan) is None]
    return [path for path in paths if path.is_file()]


def _plan(scan: DoneScan, fit: Standardization, output_dir: Path) -> MapPlan:
    group = fit.group_of(scan.stated("Manufacturer"))
    kept = {name: scan.sidecar[name] for name in KEPT if name in scan.sidecar}
    mask_file = scan.anat.mask
    sidecar = {
        **kept,
        "Description": f"SUVR of {scan.source} PET standardized by manufacturer: mean 0 and standard deviation 1 over "
        "the brain voxels of the participants that were fitted",
        "Units": "arbitrary",
        "SkullStripped": True,
        "Sources": [bids_uri(scan.suvr_file, output_dir, ""), bids_uri(mask_file, output_dir, "")],
        "Background": BACKGROUND,
        "StandardizationMean": group.mean,
        "StandardizationStandardDeviation": group.sd,
        "StandardizationParticipants": len(group.participants),
        "StandardizationHash": fit.hash,
    }
    return MapPlan(scan, mask_file, scan.standardized_file, sidecar, fit)


def _up_to_date(plan: MapPlan, read: JsonReader) -> bool:
    sidecar = sidecar_path(plan.target)
    if not (plan.target.is_file() and sidecar.is_file()):
        return False
    if plan.target.stat().st_mtime_ns < plan.scan.suvr_file.stat().st_mtime_ns:
        return False
    try:
        made = read(sidecar)
    except TauPipelineError:
        return False
    return all(made.get(name) == value for name, value in plan.sidecar.items() if name != "StandardizationHash")


def write_maps(
    plans: Sequence[MapPlan], processes: int, done: Callable[[], Any] = lambda: None
) -> dict[str, TauPipelineError]:
    """Write the maps, several at a time; returns why scans failed, by the stem of their name.

    Parameters
    ----------
    plans
        As `plan_maps` gives them.
    processes
        How many at a time.
    done
        Called after each.
    """

    def write(plan: MapPlan) -> tuple[str, TauPipelineError | None]:
        try:
            write_map(plan)
        except TauPipelineError as exc:
            return plan.scan.stem, exc
        finally:
            done()
        return plan.scan.stem, None

    # Threads: nearly all of the time goes into gzip, which lets others run.
    with ThreadPoolExecutor(processes) as pool:
        return {scan: exc for scan, exc in pool.map(write, plans) if exc is not None}


def write_map(plan: MapPlan) -> Path:
    """Standardize one SUVR map inside its brain mask: `BACKGROUND` outside, NaN where SUVR has no value.

    Raises
    ------
    TauPipelineError
        An image cannot be read or is on another grid, or the map cannot be written.
    """
    suvr, mask = load_volume(plan.scan.suvr_file, ndim=3), load_volume(plan.mask_file, ndim=3)
    require_same_grid(suvr=suvr, brain_mask=mask)
    values = np.asanyarray(suvr.dataobj).astype(np.float32)
    inside = np.asanyarray(mask.dataobj) > 0
    z = plan.fit.apply(values, plan.scan.stated("Manufacturer"), inside)
    save_volume(image_like(z, suvr), plan.target)
    # After the image: if the run ends in between, the old sidecar shows that the map must be made again.
    write_json(plan.sidecar, sidecar_path(plan.target))
    return plan.target
