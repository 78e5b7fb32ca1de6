"""Provenance of the scans of a cohort: what changes results must be the same in all that are pooled."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau_pipeline.bids.layout import without_ignored
from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.derivatives.index import DoneScan
from tau_pipeline.derivatives.read import window_min
from tau_pipeline.errors import SettingError

#: Windows of one protocol begin within these minutes of each other: scanners start when they are ready.
_WINDOW_MIN = 10.0
#: Number of scans that a sentence names.
_NAMED = 3


@dataclass(frozen=True)
class _Property:
    """A value of sidecars that scans of one kind must share; ``by_scanner`` where it may differ between scanners."""

    heading: str
    value: Callable[[DoneScan], Hashable]
    by_scanner: bool = False


def _text(scan: DoneScan, key: str) -> str:
    stated = scan.stated(key)
    return "not stated" if stated is None else str(stated)


_PROPERTIES = (
    _Property("settings (SettingsHash)", lambda scan: _text(scan, "SettingsHash")),
    _Property("version of the program", lambda scan: _text(scan, "SoftwareVersion")),
    _Property("smoothing (SmoothingFWHM)", lambda scan: _text(scan, "SmoothingFWHM"), by_scanner=True),
)


#: Columns of the tables of the cohort that state how the SUVR of a scan was made.
PROVENANCE_COLUMNS = ("window_start_min", "window_end_min", "effective_fwhm_mm", "settings_hash", "pet_t1w_days")


def provenance(scan: DoneScan) -> dict[str, Any]:
    """Return what the sidecar of a scan states of `PROVENANCE_COLUMNS`; None for what it does not."""
    start, end = window_min(scan.sidecar) or (None, None)
    stated = (scan.stated(key) for key in ("EffectiveFWHM", "SettingsHash", "DaysBetweenPETAndT1w"))
    return dict(zip(PROVENANCE_COLUMNS, (start, end, *stated), strict=True))


def mixtures(scans: Iterable[DoneScan]) -> list[str]:
    """Say in which ways scans of one tracer and reference region were made differently; empty if in none.

    Compared are the hash of the settings, the version of the program, the smoothing of scans from one scanner, and
    start and end of the window, of measured scans; not the window of scans whose checks of the window say already that
    it is not the tracer's. The caller leaves out those that do not count (`tau_pipeline.cohort.scans.is_included`).
    """
    kinds: dict[tuple[str, str], list[DoneScan]] = {}
    for scan in scans:
        if scan.source == "measured":
            stated = _text(scan, "TracerName")
            kinds.setdefault((tracer_name(stated) or stated, _text(scan, "ReferenceRegion")), []).append(scan)
    return [sentence for (tracer, _), own in sorted(kinds.items()) for sentence in _mixtures_of(tracer, own)]


def _mixtures_of(tracer: str, scans: Sequence[DoneScan]) -> list[str]:
    found = []
    for one in _PROPERTIES:
        scanners: dict[Hashable, dict[Hashable, list[DoneScan]]] = {}
        for scan in scans:
            scanner = (_text(scan, "Manufacturer"), _text(scan, "ManufacturersModelName")) if one.by_scanner else ""
            scanners.setdefault(scanner, {}).setdefault(one.value(scan), []).append(scan)
        found += [_sentence(tracer, one.heading, values) for values in scanners.values() if len(values) > 1]
    windows = {
        scan: window for scan in scans if not _window_doubted(scan) and (window := window_min(scan.sidecar)) is not None
    }
    if any(max(times) - min(times) > _WINDOW_MIN for times in zip(*windows.values(), strict=True)):
        values: dict[Hashable, list[DoneScan]] = {}
        for scan, (start, end) in windows.items():
            values.setdefault(f"{start:g} to {end:g} min", []).append(scan)
        found.append(_sentence(tracer, "window", values))
    return found


def _window_doubted(scan: DoneScan) -> bool:
    if scan.verdict not in ("warn", "fail"):
        return False
    return any(str(one.get("Check", "")).startswith("window_") for one in scan.quality.doubts)


def _sentence(tracer: str, heading: str, values: dict[Hashable, list[DoneScan]]) -> str:
    ordered = sorted(values.items(), key=lambda pair: (-len(pair[1]), str(pair[0])))
    parts = []
    for value, scans in ordered:
        names = sorted({scan.stem for scan in scans})
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        parts.append(f"{value} ({', '.join(names[:_NAMED])}{more})")
    return f"scans of {tracer} differ in their {heading}: {'; '.join(parts)}"


def repeated(scans: Iterable[DoneScan]) -> list[str]:
    """Say which sessions have several measured scans of one tracer, such as two reconstructions of one PET.

    They are no mistake where a study wants them, but each counts as one scan.
    """
    found: dict[tuple[str, str | None, str, str], list[str]] = {}
    for scan in scans:
        if scan.source == "measured":
            stated = _text(scan, "TracerName")
            key = (scan.participant_id, scan.session_id, tracer_name(stated) or stated, _text(scan, "ReferenceRegion"))
            found.setdefault(key, []).append(scan.stem)
    several = {tuple(sorted(stems)): None for stems in found.values() if len(stems) > 1}
    if not several:
        return []
    named = "; ".join(" and ".join(stems) for stems in list(several)[:_NAMED])
    more = f"; and {len(several) - _NAMED} more" if len(several) > _NAMED else ""
    have = "session has" if len(several) == 1 else "sessions have"
    return [
        f"{len(several)} {have} several scans of one tracer, each of which counts: {named}{more}. If they are "
        "reconstructions of one PET, keep one with --exclude"
    ]


def refuse_mixtures(found: Sequence[str], *, allowed: bool) -> None:
    """Refuse scans that `mixtures` says were made in different ways, unless that is allowed.

    Raises
    ------
    SettingError
        The message names the scans.
    """
    if found and not allowed:
        raise SettingError(
            f"scans that were made in different ways cannot be pooled: {'. '.join(found)}. Run the participant level "
            "again for all of them, leave those that differ out with --exclude, or pass --allow-mixed-settings"
        )


def removed_from(bids_dir: Path, scans: Iterable[DoneScan]) -> list[DoneScan]:
    """Return the scans whose raw image is no longer in the dataset: consent withdrawn, image replaced or ignored.

    An image that ``.bidsignore`` names does not count as in the dataset. A synthetic scan, which has no raw image of
    its own, is removed with the folder of its participant. Where nothing of any scan is there, the folder is not the
    dataset that the scans were made from, and none counts as removed.

    Raises
    ------
    DamagedFileError
        ``.bidsignore`` cannot be read.
    """
    raw = {scan: paths for scan in scans if (paths := _raw_files(bids_dir, scan))}
    there = [path for paths in raw.values() for path in paths if _is_there(path)]
    if not there:
        return []
    used = set(map(Path, without_ignored(bids_dir, map(str, there))))
    return [scan for scan, paths in raw.items() if used.isdisjoint(paths)]


def is_elsewhere(bids_dir: Path, scans: Iterable[DoneScan]) -> bool:
    """Return whether sidecars name raw images, and none of them is in this folder."""
    paths = [path for scan in scans if scan.source == "measured" for path in _raw_files(bids_dir, scan)]
    return bool(paths) and not any(map(_is_there, paths))


def _is_there(path: Path) -> bool:
    # A link that is not fetched (DataLad) is in the dataset, and so is what cannot be looked at.
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _raw_files(bids_dir: Path, scan: DoneScan) -> list[Path]:
    """Return the raw images of a scan by its sidecar, of a synthetic one the folder of the participant."""
    if scan.source == "synthetic":
        return [bids_dir / scan.participant_id]
    sources: Any = scan.sidecar.get("Sources")
    uris = [one for one in sources if isinstance(one, str)] if isinstance(sources, list) else []
    return [bids_dir / uri.removeprefix("bids:raw:") for uri in uris if uri.startswith("bids:raw:")]
