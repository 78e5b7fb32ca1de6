"""Pairs of T1w and tau PET among the derivatives of the participant level.

What belongs together is read, never taken from the order of files: an SUVR map's sidecar names, in
``SpatialReference``, the T1w on whose grid it lies, which may be another session's. What has no partner is said in one
sentence each.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau_pipeline.bids.manufacturers import canonical_manufacturer
from tau_pipeline.bids.sidecars import text_value
from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.errors import MissingInputError, SettingError, TauPipelineError, UnknownNameError, shown
from tau_pipeline.files import name_parts, read_json
from tau_pipeline.settings.configuration import unknown_name

#: What stands where something is not known, as in BIDS tables.
UNKNOWN = "n/a"


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

    @property
    def participant_id(self) -> str:
        """The label with its prefix, as tables have it."""
        return f"sub-{self.participant}"


@dataclass(frozen=True)
class Survey:
    """The pairs that were found, sorted by scan, and a sentence for each T1w or PET without partner."""

    pairs: tuple[Pair, ...]
    unpaired: tuple[str, ...]


@dataclass(frozen=True)
class _Map:
    """An SUVR map with its sidecar."""

    path: Path
    metadata: Mapping[str, Any]

    @property
    def scan(self) -> str:
        entities, _ = name_parts(self.path)
        return "_".join(f"{key}-{label}" for key, label in entities.items() if key not in ("space", "desc"))

    @property
    def tracer(self) -> str:
        named = text_value(self.metadata, "TracerName") or name_parts(self.path)[0].get("trc")
        return tracer_name(named) or named or UNKNOWN

    @property
    def region(self) -> str:
        return text_value(self.metadata, "ReferenceRegion") or UNKNOWN


def find_pairs(
    derivatives_dir: Path,
    *,
    tracer: str | None = None,
    reference_region: str | None = None,
    diagnoses: Mapping[str, str] | None = None,
) -> list[Pair]:
    """Return the pairs of `survey`, without its sentences."""
    found = survey(derivatives_dir, tracer=tracer, reference_region=reference_region, diagnoses=diagnoses)
    return list(found.pairs)


def survey(
    derivatives_dir: Path,
    *,
    tracer: str | None = None,
    reference_region: str | None = None,
    diagnoses: Mapping[str, str] | None = None,
) -> Survey:
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

    Returns
    -------
    Survey
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
    maps, unpaired = _read_maps(root)
    chosen = _of_region(_of_tracer(maps, tracer), reference_region)
    by_participant = {f"sub-{who.removeprefix('sub-')}": label for who, label in (diagnoses or {}).items()}
    pairs = []
    for found in chosen:
        try:
            pairs.append(_pair(root, found, by_participant))
        except TauPipelineError as exc:
            unpaired.append(f"{found.scan} is left out: {exc}.")
    unpaired += _lonely_t1ws(root, pairs, {found.path.name.split("_")[0] for found in maps})
    return Survey(tuple(sorted(pairs, key=lambda pair: pair.scan)), tuple(unpaired))


def _read_maps(root: Path) -> tuple[list[_Map], list[str]]:
    if not root.is_dir():
        raise MissingInputError(f"there is no folder {root}; give the output folder of the participant level")
    maps, unreadable = [], []
    for path in sorted(root.glob("sub-*/**/pet/*_space-T1w_desc-suvr*_pet.nii.gz")):
        try:
            maps.append(_Map(path, read_json(sidecar_path(path))))
        except TauPipelineError as exc:
            unreadable.append(f"{path.name} is left out: {exc}.")
    if not maps and not unreadable:
        raise MissingInputError(
            f"{root} holds no SUVR map (sub-*/pet/*_space-T1w_desc-suvr_pet.nii.gz); run the participant level first"
        )
    return maps, unreadable


def _of_tracer(maps: Collection[_Map], tracer: str | None) -> list[_Map]:
    known = sorted({found.tracer for found in maps})
    if tracer is None:
        if len(known) > 1:
            raise SettingError(
                f"there are scans of several tracers ({', '.join(known)}), which must not be mixed; name one"
            )
        return list(maps)
    wanted = _plain(tracer_name(tracer) or tracer)
    chosen = [found for found in maps if _plain(found.tracer) == wanted]
    if maps and not chosen:
        raise UnknownNameError(unknown_name("scan of tracer", tracer, known))
    return chosen


def _of_region(maps: Collection[_Map], region: str | None) -> list[_Map]:
    """One map of each scan: that of the region, or of the scan's first one."""
    known = sorted({found.region for found in maps})
    if region is not None:
        chosen = [found for found in maps if _plain(found.region) == _plain(region)]
        if maps and not chosen:
            raise UnknownNameError(unknown_name("SUVR by reference region", region, known))
        return _one_each(chosen)
    first = [found for found in maps if name_parts(found.path)[0]["desc"] == "suvr"]
    regions = sorted({found.region for found in first})
    if len(regions) > 1:
        raise SettingError(
            f"the SUVR maps are by several reference regions ({', '.join(regions)}), which must not be mixed; name one"
        )
    return first


def _one_each(maps: Collection[_Map]) -> list[_Map]:
    by_scan: dict[str, list[_Map]] = defaultdict(list)
    for found in maps:
        by_scan[found.scan].append(found)
    return [min(several, key=lambda found: found.path.name) for several in by_scan.values()]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _pair(root: Path, found: _Map, diagnoses: Mapping[str, str]) -> Pair:
    entities, _ = name_parts(found.path)
    t1w_file = _t1w_of(root, found)
    anat = AnatNames(root, name_parts(t1w_file)[0])
    for needed in (t1w_file, anat.mask, anat.dseg):
        if not needed.is_file():
            raise MissingInputError(f"its T1w's file {needed} is not there; run the participant level again")
    rois = PetNames(root, entities).rois
    named = text_value(found.metadata, "Manufacturer")
    return Pair(
        participant=entities["sub"],
        session=entities.get("ses"),
        scan=found.scan,
        manufacturer=_manufacturer(named),
        diagnosis=diagnoses.get(f"sub-{entities['sub']}", UNKNOWN) or UNKNOWN,
        t1w_file=t1w_file,
        mask_file=anat.mask,
        dseg_file=anat.dseg,
        suvr_file=found.path,
        rois_file=rois if rois.is_file() else None,
        tracer=found.tracer,
        reference_region=found.region,
    )


def _manufacturer(named: str | None) -> str:
    try:
        return canonical_manufacturer(named)
    except UnknownNameError:
        # Whether such a scan may be used is for the standardisation to say; here it only keeps its own name.
        return named or UNKNOWN


def _t1w_of(root: Path, found: _Map) -> Path:
    """The T1w that the sidecar names: ``bids::sub-01/anat/…`` is inside the derivatives."""
    uri = text_value(found.metadata, "SpatialReference")
    inside = re.fullmatch(r"bids::(sub-[^:]+_T1w\.nii(\.gz)?)", uri or "")
    if inside is None or ".." in Path(inside[1]).parts:
        raise MissingInputError(
            f"SpatialReference of {sidecar_path(found.path).name} is {shown(uri)}, and the BIDS URI of a T1w of these "
            "derivatives (bids::sub-…_T1w.nii.gz) is needed"
        )
    t1w_file = root / inside[1]
    if t1w_file.name.split("_")[0] != found.path.name.split("_")[0]:
        raise SettingError(f"SpatialReference of {sidecar_path(found.path).name} is another participant's T1w, {uri}")
    return t1w_file


def _lonely_t1ws(root: Path, pairs: Collection[Pair], with_pet: Collection[str]) -> list[str]:
    used = {pair.t1w_file for pair in pairs}
    said = []
    for path in sorted(root.glob("sub-*/**/anat/*_desc-preproc_T1w.nii.gz")):
        if path not in used:
            others = "no pair was made with it" if path.name.split("_")[0] in with_pet else "there is none"
            said.append(f"{path.name} has no SUVR map to go with: {others}.")
    return said
