"""Pairs of T1w and tau PET among the derivatives of the participant level.

What belongs together is read, never taken from the order of files: an SUVR map's sidecar names, in
``SpatialReference``, the T1w on whose grid it lies, which may be another session's. What has no partner is said in one
sentence each.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tau_pipeline.bids.manufacturers import canonical_manufacturer
from tau_pipeline.bids.sidecars import text_value
from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.cohort.provenance import mixtures, removed_from
from tau_pipeline.cohort.scans import is_included, without_failed
from tau_pipeline.derivatives.index import DoneScan, find_maps, find_outputs
from tau_pipeline.derivatives.names import AnatNames
from tau_pipeline.derivatives.status import all_statuses
from tau_pipeline.errors import MissingInputError, SettingError, TauPipelineError, UnknownNameError
from tau_pipeline.settings.cohort import Group
from tau_pipeline.settings.configuration import unknown_name

#: What stands where something is not known, as in BIDS tables.
UNKNOWN = "n/a"


@dataclass(frozen=True)
class Subject:
    """Data of a participant that a model may use beside the T1w.

    Attributes
    ----------
    dseg_file, mask_file
        Desikan-Killiany labels and brain mask on the grid of the T1w.
    covariates
        Numbers by name, such as the age; what is not known is not there.
    """

    dseg_file: Path
    mask_file: Path
    covariates: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Pair:
    """One PET scan with its T1w: files of the participant level on one grid, the T1w's.

    Parameters
    ----------
    participant, session
        Labels without prefix (``01``); the session is that of the PET, None where there are none.
    scan
        One of a kind in the dataset: the PET's entities, ``sub-01_ses-a_trc-AV1451_run-1``.
    manufacturer
        Of the PET scanner, by its one name (`tau_pipeline.bids.manufacturers.canonical_manufacturer`); as the sidecar
        spells it where that is not known, ``n/a`` where it says nothing.
    diagnosis
        As the caller gave it; ``n/a`` if not.
    t1w_file, mask_file, dseg_file
        T1w with its bias corrected, brain mask, Desikan-Killiany labels.
    suvr_file
        SUVR map.
    rois_file
        Its table of regions; None if there is none.
    tracer, reference_region
        Of the SUVR map.
    covariates
        Numbers by name, such as the age (`tau_pipeline.synthesis.data.covariates`); what is not known is not there.
    """

    participant: str
    session: str | None
    scan: str
    manufacturer: str
    diagnosis: str
    t1w_file: Path
    mask_file: Path
    dseg_file: Path
    suvr_file: Path
    rois_file: Path | None
    tracer: str = UNKNOWN
    reference_region: str = UNKNOWN
    covariates: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def subject(self) -> Subject:
        """Labels and covariates, for models that use them."""
        return Subject(self.dseg_file, self.mask_file, self.covariates)

    @property
    def anat(self) -> AnatNames:
        """Names of the T1w's files."""
        return AnatNames.of(self.t1w_file)

    @property
    def participant_id(self) -> str:
        """The label with its prefix, as tables have it."""
        return f"sub-{self.participant}"

    @property
    def reference_mask_file(self) -> Path:
        """The mask of its reference region, beside its T1w."""
        return self.anat.reference_mask(self.reference_region)


@dataclass(frozen=True)
class FoundPairs:
    """The pairs that were found, sorted by scan, and a sentence for each T1w or PET without partner.

    ``left_out`` are the scans that were left out because their quality is ``fail``. ``mixed`` says in which ways the
    others were made differently (`tau_pipeline.cohort.provenance.mixtures`).
    """

    pairs: tuple[Pair, ...]
    unpaired: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()


def _tracer(found: DoneScan) -> str:
    named = text_value(found.sidecar, "TracerName") or found.names.entities.get("trc")
    return tracer_name(named) or named or UNKNOWN


def _region(found: DoneScan) -> str:
    return text_value(found.sidecar, "ReferenceRegion") or UNKNOWN


def find_pairs(
    derivatives_dir: Path,
    *,
    tracer: str | None = None,
    reference_region: str | None = None,
    diagnoses: Mapping[str, str] | None = None,
) -> list[Pair]:
    """Return the pairs of `search_pairs`, without its sentences."""
    found = search_pairs(derivatives_dir, tracer=tracer, reference_region=reference_region, diagnoses=diagnoses)
    return list(found.pairs)


def search_pairs(
    derivatives_dir: Path,
    *,
    tracer: str | None = None,
    reference_region: str | None = None,
    diagnoses: Mapping[str, str] | None = None,
    group: Group | None = None,
    bids_dir: Path | None = None,
) -> FoundPairs:
    """Find every SUVR map, and the T1w on whose grid it lies.

    Parameters
    ----------
    derivatives_dir
        What the participant level wrote.
    tracer
        Only scans of this tracer, in any spelling. May be None where all scans have one tracer.
    reference_region
        Only SUVR by this region (``CerebellarGM``). None takes the maps of each scan's first region, which must be
        the same for all.
    diagnoses
        From participant (``01`` or ``sub-01``) to diagnosis, for those where it is known.
    group
        Read here: ``exclude`` and ``include_failed_quality``. None takes the defaults, so that scans whose quality is
        ``fail`` are left out.
    bids_dir
        The raw dataset; scans whose raw image is no longer in it are left out.

    Returns
    -------
    FoundPairs
        A scan of which a file is missing or a sidecar is damaged is no pair; a sentence says why.

    Raises
    ------
    MissingInputError
        There is no such folder, or no SUVR map in it.
    UnknownNameError
        No scan has the tracer or reference region; the message lists those there are.
    SettingError
        Scans of several tracers or reference regions were found and none was named: they must not be mixed.
    """
    root = Path(derivatives_dir)
    group = group or Group()
    maps, unpaired = _read_maps(root, group.exclude)
    maps, stale = _current(maps, root, bids_dir)
    unpaired += stale
    chosen = _of_region(_of_tracer(maps, tracer), reference_region)
    failed = [one for one in chosen if not is_included(one, include_failed=group.include_failed_quality)]
    unpaired += [
        f"{one.stem} is left out: its quality is fail ({', '.join(one.quality.named('fail'))})." for one in failed
    ]
    chosen = [one for one in chosen if one not in failed]
    by_participant = {f"sub-{who.removeprefix('sub-')}": label for who, label in (diagnoses or {}).items()}
    pairs = []
    for found in chosen:
        try:
            pairs.append(_pair(found, by_participant))
        except TauPipelineError as exc:
            unpaired.append(f"{found.stem} is left out: {exc}.")
    unpaired += _lonely_t1ws(root, pairs, {found.participant_id for found in maps})
    left_out = tuple(sorted(one.stem for one in failed))
    in_order = tuple(sorted(pairs, key=lambda pair: pair.scan))
    return FoundPairs(in_order, tuple(unpaired), left_out, tuple(mixtures(chosen)))


def _read_maps(root: Path, exclude: Path | None) -> tuple[list[DoneScan], list[str]]:
    if not root.is_dir():
        raise MissingInputError(f"there is no folder {root}; give the output folder of the participant level")
    maps, unreadable = [], []
    for found in find_maps(root, exclude):
        try:
            # Read here, so that a damaged sidecar costs only its own scan.
            _ = found.sidecar
            maps.append(found)
        except TauPipelineError as exc:
            unreadable.append(f"{found.suvr_file.name} is left out: {exc}.")
    if not maps and not unreadable:
        raise MissingInputError(
            f"{root} holds no SUVR map (sub-*/pet/*_space-T1w_desc-suvr_pet.nii.gz); run the participant level first"
        )
    return maps, unreadable


def _current(maps: Sequence[DoneScan], root: Path, bids_dir: Path | None) -> tuple[list[DoneScan], list[str]]:
    """Return the maps that the last run vouches for and whose raw image is there, and a sentence on each other one."""
    finished = without_failed(maps, all_statuses(root))
    removed = set(removed_from(bids_dir, finished)) if bids_dir is not None else set()
    told = [f"{one.stem} is left out: the last run did not finish it." for one in maps if one not in set(finished)]
    told += [f"{one.stem} is left out: its raw image is no longer in the dataset." for one in maps if one in removed]
    return [one for one in finished if one not in removed], told


def _of_tracer(maps: Collection[DoneScan], tracer: str | None) -> list[DoneScan]:
    known = sorted({_tracer(found) for found in maps})
    if tracer is None:
        if len(known) > 1:
            raise SettingError(
                f"there are scans of several tracers ({', '.join(known)}), which must not be mixed; name one"
            )
        return list(maps)
    wanted = _plain(tracer_name(tracer) or tracer)
    chosen = [found for found in maps if _plain(_tracer(found)) == wanted]
    if maps and not chosen:
        raise UnknownNameError(unknown_name("scan of tracer", tracer, known))
    return chosen


def _of_region(maps: Collection[DoneScan], region: str | None) -> list[DoneScan]:
    """Return one map of each scan: that of the region, or of the scan's first one."""
    known = sorted({_region(found) for found in maps})
    if region is not None:
        chosen = [found for found in maps if _plain(_region(found)) == _plain(region)]
        if maps and not chosen:
            raise UnknownNameError(unknown_name("SUVR by reference region", region, known))
        return _one_each(chosen)
    first = [found for found in maps if not found.further_region]
    regions = sorted({_region(found) for found in first})
    if len(regions) > 1:
        raise SettingError(
            f"the SUVR maps are by several reference regions ({', '.join(regions)}), which must not be mixed; name one"
        )
    return first


def _one_each(maps: Collection[DoneScan]) -> list[DoneScan]:
    by_scan: dict[str, list[DoneScan]] = defaultdict(list)
    for found in maps:
        by_scan[found.stem].append(found)
    return [min(several, key=lambda found: found.suvr_file.name) for several in by_scan.values()]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _pair(found: DoneScan, diagnoses: Mapping[str, str]) -> Pair:
    anat, names = found.anat, found.names
    for needed in (anat.t1w, anat.mask, anat.dseg):
        if not needed.is_file():
            raise MissingInputError(f"its T1w's file {needed} is not there; run the participant level again")
    named = text_value(found.sidecar, "Manufacturer")
    return Pair(
        participant=names.entities["sub"],
        session=names.entities.get("ses"),
        scan=found.stem,
        manufacturer=_manufacturer(named),
        diagnosis=diagnoses.get(found.participant_id, UNKNOWN) or UNKNOWN,
        t1w_file=anat.t1w,
        mask_file=anat.mask,
        dseg_file=anat.dseg,
        suvr_file=found.suvr_file,
        rois_file=names.rois if names.rois.is_file() else None,
        tracer=_tracer(found),
        reference_region=_region(found),
    )


def _manufacturer(named: str | None) -> str:
    try:
        return canonical_manufacturer(named)
    except UnknownNameError:
        # Whether such a scan may be used is for the standardization to say; here it only keeps its own name.
        return named or UNKNOWN


def _lonely_t1ws(root: Path, pairs: Collection[Pair], with_pet: Collection[str]) -> list[str]:
    used = {pair.t1w_file for pair in pairs}
    said = []
    for path in find_outputs(root, "t1w"):
        if path not in used:
            others = "no pair was made with it" if path.name.split("_")[0] in with_pet else "there is none"
            said.append(f"{path.name} has no SUVR map to go with: {others}.")
    return said
