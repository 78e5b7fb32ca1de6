"""Compare maps voxel by voxel at the group level: choose the scans, compare, write maps, tables, and a page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau_pipeline.cohort.codes import explained
from tau_pipeline.cohort.design import design_matrix, parse_terms, with_all_covariates
from tau_pipeline.cohort.scans import is_included, kind_of
from tau_pipeline.cohort.voxelwise import (
    ALPHA,
    CLUSTER_COLUMNS,
    GRAY_SHARE,
    Comparison,
    ScanMap,
    compare,
    gray_matter,
    smoothed,
    with_regions,
)
from tau_pipeline.derivatives.index import DoneScan
from tau_pipeline.derivatives.names import PetNames, sidecar_path
from tau_pipeline.errors import MissingInputError, SettingError
from tau_pipeline.files import read_json, read_tsv, write_changed, write_json
from tau_pipeline.imaging.volume import save_volume
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.spaces import OutputSpace, parse_space
from tau_pipeline.table_text import table_text
from tau_pipeline.words import counted
from tau_workflows.levels.call import say
from tau_workflows.levels.group_tables import Cohort
from tau_workflows.reports.voxelwise import FOLDER, RECORD, write_voxelwise_report

if TYPE_CHECKING:
    import pandas as pd

#: Seed of the permutations.
_SEED = 0
_KEYS = ("scan", "participant_id", "session_id")


@dataclass(frozen=True)
class VoxelwisePlan:
    """A comparison to make: scans of one tracer that have all covariates, one per participant.

    Attributes
    ----------
    tracer
        Name of the tracer.
    who
        ``scan``, ``participant_id``, and ``session_id`` of the scans.
    maps
        Their images, in the same order.
    design
        Design matrix, likewise.
    notes
        Sentences on scans that are left out.
    """

    tracer: str
    who: pd.DataFrame
    maps: list[ScanMap]
    design: pd.DataFrame
    notes: list[str]


def plan_voxelwise(cohort: Cohort) -> list[VoxelwisePlan]:
    """Return the comparisons to make, by tracer; none without ``voxelwise``. No image is read.

    Raises
    ------
    SettingError
        Formula or contrast cannot be answered by these scans.
    MissingInputError
        Scans have no maps in the space.
    """
    settings = cohort.settings
    if settings.voxelwise is None:
        return []
    return _chosen(cohort, parse_terms(settings.voxelwise), parse_space(settings.voxelwise_space))


def write_voxelwise(
    plans: Sequence[VoxelwisePlan], settings: Group, output_dir: Path, processes: int = 1
) -> list[Path]:
    """Make the comparisons, and return the pages that were written. Results of an earlier call are removed."""
    folder = output_dir / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    pages = []
    for plan in plans:
        for note in plan.notes:
            say(note)
        place = folder / (re.sub(r"[^0-9A-Za-z]+", "", plan.tracer) or "tracer")
        pages.append(_compare(plan, settings, place, processes))
    return pages


def _compare(plan: VoxelwisePlan, settings: Group, folder: Path, processes: int) -> Path:
    images, notes = smoothed(plan.maps, settings.voxelwise_fwhm)
    mask = gray_matter(plan.maps, images)
    found = compare(images, mask, plan.design, settings.voxelwise_permutations, _SEED, processes)
    for name, image in found.maps.items():
        save_volume(image, folder / f"{name}.nii.gz")
    clusters = with_regions(found.clusters, plan.maps)
    write_changed(table_text(clusters, "\t", "n/a"), folder / "clusters.tsv")
    described = {name: {"Description": text} for name, text in CLUSTER_COLUMNS.items()}
    write_json(described, folder / "clusters.json")
    write_changed(table_text(plan.who.join(plan.design), "\t", "n/a"), folder / "design.tsv")
    write_json(_record(plan, found, notes, settings), folder / RECORD)
    page = write_voxelwise_report(folder)
    say(
        f"voxelwise ({plan.tracer}, {plan.design.columns[0]}, {counted(len(plan.design), 'scan')}): "
        f"{counted(len(clusters), 'cluster')} at corrected p < {ALPHA}; smallest corrected p {found.smallest_p:.3g}"
    )
    return page


def _record(plan: VoxelwisePlan, found: Comparison, notes: Sequence[str], settings: Group) -> dict[str, Any]:
    """Return what was compared, for the page and the description of the methods."""
    return {
        "Tracer": plan.tracer,
        "Formula": settings.voxelwise,
        "Tested": str(plan.design.columns[0]),
        "Columns": list(map(str, plan.design.columns)),
        "Scans": len(plan.design),
        "Space": settings.voxelwise_space,
        "FWHM": settings.voxelwise_fwhm,
        "Permutations": found.n_permutations,
        "RandomSeed": _SEED,
        "Alpha": ALPHA,
        "GrayMatterShare": GRAY_SHARE,
        "Voxels": int(found.maps["mask"].get_fdata().sum()),
        "SmallestCorrectedP": found.smallest_p,
        "Notes": [*plan.notes, *notes],
    }


def _chosen(cohort: Cohort, terms: Sequence[str], space: OutputSpace) -> list[VoxelwisePlan]:
    """Return the comparisons; the notes list excluded scans."""
    import pandas as pd

    by_tracer: dict[str, list[tuple[DoneScan, ScanMap]]] = {}
    for scan in cohort.scans:
        own = _map_of(scan, cohort.settings, space)
        if own is not None:
            by_tracer.setdefault(kind_of(scan)[0] or "tracer not stated", []).append((scan, own))
    if not by_tracer:
        raise MissingInputError(
            f"no included PET scan has a map in {space}; run the participant level with --output-spaces {space}"
        )
    found, stated = [], _stated(cohort.bids_dir)
    for tracer, pairs in sorted(by_tracer.items()):
        rows = pd.DataFrame([_row(scan, cohort, stated) for scan, _ in pairs])
        first = ~rows.duplicated("participant_id")
        complete, lacking = with_all_covariates(rows[first], terms)
        notes = [f"voxelwise: left out without {term}: {', '.join(scans)}" for term, scans in lacking.items()]
        if not first.all():
            notes.append(f"voxelwise: the first scan of each participant is used; {(~first).sum()} later ones are not")
        maps = [pairs[place][1] for place in complete.index]
        complete = complete.reset_index(drop=True)
        design = design_matrix(complete[list(terms)], cohort.settings.contrast)
        found.append(VoxelwisePlan(tracer, complete[list(_KEYS)], maps, design, notes))
    return found


def _map_of(scan: DoneScan, settings: Group, space: OutputSpace) -> ScanMap | None:
    """Return the map of a scan in a space; None for scans that do not count, and for those without a map.

    Raises
    ------
    SettingError
        The map is of another run than the map on the T1w.
    """
    names = scan.names
    counts = is_included(scan, include_failed=settings.include_failed_quality)
    if not isinstance(names, PetNames) or scan.further_region or not counts:
        return None
    path = names.suvr_in(space)
    if not path.is_file():
        return None
    if read_json(sidecar_path(path)).get("SettingsHash") != scan.sidecar.get("SettingsHash"):
        raise SettingError(
            f"{path.name} was made with other settings than the map on the T1w; run the participant level with "
            f"--output-spaces {space} again"
        )
    fwhm = scan.stated("EffectiveFWHM")
    known = float(fwhm) if isinstance(fwhm, int | float) else None
    return ScanMap(scan.key, path, scan.anat.dseg_in(space), known)


def _row(scan: DoneScan, cohort: Cohort, stated: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the covariates of a scan: the columns of participants.tsv, and what the tables of the cohort have."""
    session = scan.names.entities.get("ses")
    session_id = f"ses-{session}" if session else None
    known = cohort.demographics.of(scan.participant_id, session_id)
    return {
        **stated.get(scan.participant_id, {}),
        "manufacturer": scan.stated("Manufacturer"),
        **known,
        "scan": scan.key,
        "participant_id": scan.participant_id,
        "session_id": session_id,
    }


def _stated(bids_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of participants.tsv by participant, of those who have one row."""
    path = bids_dir / "participants.tsv"
    if not path.is_file():
        return {}
    table = explained(read_tsv(path, everything_is_text=True), path)
    who = "sub-" + table["participant_id"].astype(str).str.strip().str.removeprefix("sub-")
    table = table.assign(participant_id=who).drop_duplicates("participant_id", keep=False)
    return {str(row["participant_id"]): row for row in table.to_dict("records")}
