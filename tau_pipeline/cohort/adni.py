"""Tables with the columns of ADNI's UC Berkeley tau PET tables, so that scripts written for those run on ours.

The columns and their order are those of ``UCBERKELEY_TAU_6MM`` and ``UCBERKELEY_TAUPVC_6MM`` (LONI, since 2023): 163
regions with ``_SUVR`` and ``_VOLUME``. Composites of the older tables (``BRAAK1``) and ``EXAMDATE`` follow. The values
are this program's; a region that it does not measure is missing. See docs/decisions/adni-table.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import composites, label_table
from tau_pipeline.bids.sessions import timeline
from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.cohort.scans import is_included
from tau_pipeline.derivatives.index import DoneScan
from tau_pipeline.files import read_tsv

if TYPE_CHECKING:
    import pandas as pd

#: Names of the tables, as on LONI: without and with partial volume correction.
ADNI_TABLE, ADNI_PVC_TABLE = "UCBERKELEY_TAU_6MM", "UCBERKELEY_TAUPVC_6MM"

_IDS = ("LONIUID", "RID", "VISCODE", "VISCODE2", "SITEID", "PTID", "SCANDATE")
_ABOUT: dict[str, str] = {
    "LONIUID": "Image ID at LONI, if participants.tsv or sessions.tsv has it.",
    "RID": "Participant's roster ID: the last digits of PTID.",
    "VISCODE": "Visit code, from the dataset's tables or a session label that is one (ses-bl, ses-M012).",
    "VISCODE2": "Visit code in months, likewise.",
    "SITEID": "Site, if participants.tsv or sessions.tsv has it.",
    "PTID": "Participant in ADNI's form (002_S_0295), from the dataset's tables or a label such as sub-ADNI002S0295.",
    "SCANDATE": "Date of the PET, from scans.tsv, sessions.tsv, or its sidecar.",
    "PROCESSDATE": "Not recorded: n/a.",
    "IMAGE_RESOLUTION": "Effective resolution of the SUVR map (FWHM), rounded to mm.",
    "qc_flag": "Quality of the scan: 2 pass, 1 partial pass (warn), 0 fail, -1 not assessed.",
    "TRACER": "Tracer: FTP, MK6240, PI2620, and others by their common name.",
    "TRACER_SUVR_WARNING": "Reminder that SUVR of tracers differ.",
    "update_stamp": "Not recorded: n/a.",
    "EXAMDATE": "The same as SCANDATE, which the tables up to 2022 call EXAMDATE.",
    "SCAN": "Name of the scan in the other tables of this folder.",
    "REFERENCE_REGION": "Reference region of the SUVR, by the name in the other tables.",
}
_FIRST = tuple(name for name in _ABOUT if name not in ("update_stamp", "EXAMDATE", "SCAN", "REFERENCE_REGION"))
_LAST = ("EXAMDATE", "SCAN", "REFERENCE_REGION")
_TRACERS = {"flortaucipir": "FTP", "MK-6240": "MK6240", "PI-2620": "PI2620", "RO-948": "RO948"}
_QC_FLAGS = {"pass": 2, "warn": 1, "fail": 0}
_WARNING = "DO NOT COMPARE SUVRS ACROSS TRACERS"
_MIDLINE = (
    *("BRAINSTEM", "CC_ANTERIOR", "CC_CENTRAL", "CC_MID_ANTERIOR", "CC_MID_POSTERIOR", "CC_POSTERIOR", "CSF"),
    *("VENTRICLE_3RD", "VENTRICLE_4TH", "VENTRICLE_5TH", "WM_HYPOINTENSITIES", "NON_WM_HYPOINTENSITIES"),
)
_ASEG = (
    *("ACCUMBENS_AREA", "AMYGDALA", "CAUDATE", "CEREBELLUM_CORTEX", "CEREBELLUM_WHITE_MATTER"),
    *("CEREBRAL_WHITE_MATTER", "CHOROID_PLEXUS", "HIPPOCAMPUS", "INF_LAT_VENT", "LATERAL_VENTRICLE", "PALLIDUM"),
    *("PUTAMEN", "THALAMUS_PROPER", "VENTRALDC", "VESSEL"),
)
#: What the names of our reference regions have in common that are those of ADNI's tables.
_INFERIOR = re.compile(r"inferior.*cerebell", re.IGNORECASE)
_ERODED = re.compile(r"eroded", re.IGNORECASE)
_BRAINSTEM = re.compile(r"brainstem", re.IGNORECASE)


def adni_regions(*, pvc: bool = False) -> tuple[str, ...]:
    """Return ADNI's names of the 163 regions in the order of its table.

    Parameters
    ----------
    pvc
        Of the table with partial volume correction, where the reference region has another name.
    """
    cortex = _cortex()
    bilateral = [*_ASEG]
    bilateral.insert(_ASEG.index("INF_LAT_VENT"), "OPTIC_CHIASM")
    return (
        *("META_TEMPORAL", "CTX_ENTORHINAL", _reference_name(pvc=pvc), "ERODED_SUBCORTICALWM", *_MIDLINE),
        *(f"CTX_{name}" for name in cortex if name != "ENTORHINAL"),
        *bilateral,
        *(f"CTX_{side}_{name}" for side in ("LH", "RH") for name in cortex),
        *(f"{side}_{name}" for side in ("LEFT", "RIGHT") for name in _ASEG),
    )


def adni_table(
    long: pd.DataFrame,
    scans: Sequence[DoneScan],
    bids_dir: str | os.PathLike[str],
    *,
    pvc: bool = False,
    include_failed: bool = False,
) -> pd.DataFrame:
    """Return one row per measured scan with ADNI's columns: who and when, then SUVR and volume of each region.

    Parameters
    ----------
    long
        As `tau_pipeline.cohort.tables.long_table` gives it.
    scans
        Those of the table. A scan with several reference regions is taken by the inferior cerebellum if it is one of
        them, else by its first.
    bids_dir
        The raw dataset, for dates and IDs.
    pvc
        Whether the SUVR are those corrected for partial volume effects, and the names those of that table.
    include_failed
        Whether scans of failed quality have rows, with ``qc_flag`` 0.

    Returns
    -------
    DataFrame
        SUVR of 1 in the reference region, volumes in mm^3. Values of both hemispheres are means weighted by volume,
        missing if one is.
    """
    import pandas as pd

    taken = _taken(scans, include_failed=include_failed)
    regions = _by_region(long, "suvr_pvc_mean" if pvc else "suvr_mean", taken)
    by_key: dict[str, list[DoneScan]] = {}
    for scan in scans:
        by_key.setdefault(scan.key, []).append(scan)
    references = ((_reference_name(pvc=pvc), _INFERIOR), ("ERODED_SUBCORTICALWM", _ERODED), ("BRAINSTEM", _BRAINSTEM))
    for name, pattern in references:
        found = [_reference_of(scan, by_key[scan.key], pattern, pvc=pvc) for scan in taken]
        regions[name] = np.array([suvr for suvr, _ in found]), np.array([size for _, size in found])
    nothing = np.full(len(taken), np.nan)
    about = pd.DataFrame(_about(taken, Path(bids_dir)), columns=list(_ABOUT), dtype=object)
    columns: dict[str, Any] = {name: about[name] for name in _FIRST}
    older = tuple(name.upper() for name in composites() if name.startswith("braak"))
    for name in (*adni_regions(pvc=pvc), "", *older):
        if not name:
            columns["update_stamp"] = about["update_stamp"]
            continue
        columns[f"{name}_SUVR"], columns[f"{name}_VOLUME"] = regions.get(name, (nothing, nothing))
    return pd.DataFrame({**columns, **{name: about[name] for name in _LAST}})


def adni_dictionary(table: pd.DataFrame, left_out: str) -> dict[str, Any]:
    """Return the data dictionary of a table of `adni_table`; ``left_out`` says which scans are not in it."""
    found: dict[str, Any] = {name: {"Description": text} for name, text in _ABOUT.items() if name in table}
    for name in table.columns:
        region = name.removesuffix("_SUVR").removesuffix("_VOLUME")
        if name.endswith("_VOLUME"):
            found[name] = {"Description": f"Volume of {region} that the PET measured.", "Units": "mm^3"}
        elif name.endswith("_SUVR"):
            found[name] = {"Description": f"Mean SUVR of {region}, by this program; n/a if not measured.", "Units": "1"}
    found["qc_flag"]["LeftOut"] = left_out or "none"
    return {name: found[name] for name in table.columns}


def _reference_name(*, pvc: bool) -> str:
    return "INFERIOR_CEREBGM" if pvc else "INFERIORCEREBELLUM"


def _cortex() -> list[str]:
    """Return the 34 names of cortical regions in ADNI's order, which is that of the alphabet."""
    labels = label_table()
    left = labels[(labels["kind"] == "cortical") & (labels["hemisphere"] == "left")]
    return sorted(name.removeprefix("ctx-lh-").upper() for name in left["region"])


def _adni_name(region: str, hemisphere: str, kind: str) -> str:
    """Return ADNI's name of a row of a regional table; empty if it has none.

    Examples
    --------
    >>> _adni_name("ctx-lh-entorhinal", "left", "cortical"), _adni_name("Left-Thalamus", "left", "subcortical")
    ('CTX_LH_ENTORHINAL', 'LEFT_THALAMUS_PROPER')
    >>> _adni_name("metatemporal", "both", "composite"), _adni_name("braak34", "left", "composite")
    ('META_TEMPORAL', '')
    """
    if kind in ("cortical", "subcortical") and hemisphere in ("left", "right"):
        return re.sub("THALAMUS$", "THALAMUS_PROPER", region.upper().replace("-", "_"))
    if kind == "composite" and hemisphere == "both":
        return "META_TEMPORAL" if region == "metatemporal" else region.upper()
    return ""


def _taken(scans: Sequence[DoneScan], *, include_failed: bool) -> list[DoneScan]:
    """Return each measured scan once, by the reference region that the table is for."""
    found: dict[str, DoneScan] = {}
    for scan in scans:
        if scan.source == "measured" and is_included(scan, include_failed=include_failed):
            held = found.setdefault(scan.key, scan)
            if _rank(scan.reference_region, _INFERIOR) < _rank(held.reference_region, _INFERIOR):
                found[scan.key] = scan
    return list(found.values())


def _rank(region: str, pattern: re.Pattern[str]) -> int:
    """Return how well a reference region is what ADNI's table means: 0 by ADNI's own rule, 2 not at all."""
    if not pattern.search(region):
        return 2
    return 0 if "adni" in region.lower() else 1


def _by_region(
    long: pd.DataFrame, value: str, scans: Sequence[DoneScan]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return SUVR and volume of each region by ADNI's name, ``(n_scans,)`` in the order of the scans."""
    import pandas as pd

    if value not in long.columns or not scans:
        return {}
    order = pd.MultiIndex.from_tuples([(scan.key, scan.reference_region) for scan in scans])
    names = [_adni_name(*row) for row in zip(long["region"], long["hemisphere"], long["kind"], strict=True)]
    keyed = long.assign(name=names)[lambda rows: rows["name"] != ""]
    key = ["scan", "reference_region"]
    spread = keyed.pivot(index=key, columns="name", values=[value, "volume_mm3"]).reindex(order).astype(float)
    found = {name: (spread[value][name].to_numpy(), spread["volume_mm3"][name].to_numpy()) for name in spread[value]}
    for left in [name for name in found if re.match("(CTX_LH|LEFT)_", name)]:
        right = re.sub("^(CTX_)?(LH|LEFT)", lambda part: "CTX_RH" if part[1] else "RIGHT", left)
        if right in found:
            (one, size), (other, other_size) = found[left], found[right]
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = (one * size + other * other_size) / (size + other_size)
            found[re.sub("^(CTX_)LH_|^LEFT_", lambda part: part[1] or "", left)] = mean, size + other_size
    return found


def _reference_of(
    scan: DoneScan, alike: Sequence[DoneScan], pattern: re.Pattern[str], *, pvc: bool
) -> tuple[float, float]:
    """Return SUVR and volume of a reference region of a scan, from the activities in the sidecars; else NaN.

    ``alike`` are the same scan by all its reference regions.
    """
    key = "PVCReferenceValue" if pvc else "ReferenceValue"
    own = [one for one in alike if pattern.search(one.reference_region)]
    if not own:
        return np.nan, np.nan
    best = min(own, key=lambda one: _rank(one.reference_region, pattern))
    return _number(best.stated(key)) / (_number(scan.stated(key)) or np.nan), _number(
        best.stated("ReferenceRegionVolume")
    )


def _number(value: Any) -> float:
    """Return a number of a sidecar; of values by method, that of the first; NaN for what is none."""
    if isinstance(value, Mapping):
        value = next(iter(value.values()), None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def _about(scans: Sequence[DoneScan], bids_dir: Path) -> list[dict[str, Any]]:
    """Return who, when, and how of each scan."""
    stated = _stated_ids(bids_dir)
    rows = []
    for scan in scans:
        session = scan.names.entities.get("ses")
        row = {**_ids_of_labels(scan.participant_id, session), **stated.get((scan.participant_id, None), {})}
        row |= stated.get((scan.participant_id, session), {})
        row["SCANDATE"] = row.get("SCANDATE") or _scan_date(scan, session, bids_dir)
        tracer = tracer_name(scan.stated("TracerName")) or scan.stated("TracerName")
        fwhm = _number(scan.stated("EffectiveFWHM"))
        row |= {
            "IMAGE_RESOLUTION": None if np.isnan(fwhm) else f"{round(fwhm)}MM",
            "qc_flag": _QC_FLAGS.get(scan.verdict, -1),
            "TRACER": _TRACERS.get(str(tracer), tracer),
            "TRACER_SUVR_WARNING": _WARNING,
            "EXAMDATE": row["SCANDATE"],
            "SCAN": scan.key,
            "REFERENCE_REGION": scan.reference_region,
        }
        rows.append(row)
    return rows


def _ids_of_labels(participant_id: str, session: str | None) -> dict[str, Any]:
    """Return what the labels of participant and session say in ADNI's terms.

    Examples
    --------
    >>> _ids_of_labels("sub-ADNI002S0295", "M012")
    {'PTID': '002_S_0295', 'RID': '295', 'VISCODE': 'm12', 'VISCODE2': 'm12'}
    >>> _ids_of_labels("sub-01", None)
    {}
    """
    found: dict[str, Any] = {}
    if who := re.fullmatch(r"sub-(?:ADNI)?(\d{3})S(\d{4,5})", participant_id, re.IGNORECASE):
        found |= {"PTID": f"{who[1]}_S_{who[2]}", "RID": str(int(who[2]))}
    if visit := re.fullmatch(r"bl|m(\d{1,3})", session or "", re.IGNORECASE):
        code = f"m{int(visit[1]):02d}" if visit[1] and int(visit[1]) else "bl"
        found |= {"VISCODE": code, "VISCODE2": code}
    return found


def _scan_date(scan: DoneScan, session: str | None, bids_dir: Path) -> str | None:
    """Return the date of the PET as ``YYYY-MM-DD``; None if the dataset does not state it."""
    times = timeline(bids_dir / scan.participant_id)
    date = times.files.get(scan.key, times.dates.get(session or ""))
    return None if date is None else date.date().isoformat()


def _stated_ids(bids_dir: Path) -> dict[tuple[str, str | None], dict[str, str]]:
    """Return the columns of `_IDS` in ``participants.tsv`` and ``sessions.tsv``, by participant and session."""
    found: dict[tuple[str, str | None], dict[str, str]] = {}
    files = [bids_dir / "participants.tsv", *sorted(bids_dir.glob("sub-*/sub-*_sessions.tsv"))]
    for path in files:
        if not path.is_file():
            continue
        table = read_tsv(path, everything_is_text=True)
        wanted = {str(name): str(name).upper() for name in table.columns if str(name).upper() in _IDS}
        if not wanted:
            continue
        for row in table.to_dict("records"):
            who = row.get("participant_id", path.parent.name)
            session = row.get("session_id")
            place = (
                f"sub-{str(who).strip().removeprefix('sub-')}",
                str(session).strip().removeprefix("ses-") if isinstance(session, str) else None,
            )
            values = {name: row[column].strip() for column, name in wanted.items() if isinstance(row[column], str)}
            found.setdefault(place, {}).update(values)
    return found
