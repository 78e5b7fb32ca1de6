"""Quality of scans as the pages and the terminal show it: which checks failed or warn, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tau_pipeline.derivatives.index import DoneScan
from tau_pipeline.derivatives.names import PetNames, SyntheticNames
from tau_pipeline.derivatives.quality_checks import Quality, describe
from tau_pipeline.derivatives.quality_override import decided, read_decisions


def quality_of_map(file: str, sidecar: Mapping[str, Any], output_dir: Path) -> Quality:
    """Return the quality of an SUVR map, with the decisions of people.

    Parameters
    ----------
    file
        Name of the map or its sidecar.
    sidecar
        Its content.
    output_dir
        Root of the derivatives, where the decisions are.
    """
    stem, _, rest = file.partition("_space-")
    name = f"{stem}_desc-synthSUVR" if "desc-synthSUVR" in rest else stem
    stated = sidecar.get("QualityChecks")
    checks = [one for one in stated if isinstance(one, Mapping)] if isinstance(stated, list) else []
    return Quality(tuple(decided(checks, read_decisions(output_dir), name)))


def boxes(scans: Iterable[Any], output_dir: Path) -> list[dict[str, Any]]:
    """Return a box for each map that failed or is doubtful, failed ones first.

    Parameters
    ----------
    scans
        Scans of a participant's page, with ``title``, ``anchor``, and ``maps``.
    output_dir
        Root of the derivatives.
    """
    found = []
    for scan in scans:
        for one in scan.maps:
            quality = quality_of_map(one["file"], one["sidecar"], output_dir)
            region = "" if one["first"] or one["synthetic"] else f", {one['sidecar'].get('ReferenceRegion', '')}"
            found.append(
                {
                    "title": f"{scan.title}{region}",
                    "anchor": scan.anchor,
                    "verdict": quality.verdict,
                    "checks": [
                        {"text": describe(check), **{name: str(check.get(name, "")) for name in _SHOWN}}
                        for check in quality.doubts
                    ],
                    "decisions": quality.decisions,
                }
            )
    order = ("fail", "warn")
    return sorted(
        (box for box in found if box["verdict"] in order), key=lambda box: (order.index(box["verdict"]), box["anchor"])
    )


_SHOWN = ("Check", "Verdict", "Description", "Action", "LimitSource")


def sentences_of(names: Sequence[PetNames | SyntheticNames]) -> tuple[list[str], dict[str, int]]:
    """Return one line for each scan that failed or is doubtful, and the number of scans by verdict.

    Parameters
    ----------
    names
        Of the scans of a run; the quality is that of the map of the first reference region. Scans without a sidecar
        are passed over.
    """
    lines: list[tuple[str, str]] = []
    counts: dict[str, int] = {}
    for one in names:
        scan = DoneScan(one)
        if not scan.suvr_file.with_name(scan.suvr_file.name.replace(".nii.gz", ".json")).is_file():
            continue
        scan.decisions = read_decisions(one.output_dir)
        quality = scan.quality
        counts[quality.verdict] = counts.get(quality.verdict, 0) + 1
        if doubts := quality.doubts:
            advice = f". {doubts[0]['Action']}" if doubts[0].get("Action") else ""
            said = ", ".join(describe(check) for check in doubts)
            lines.append((quality.verdict, f"QUALITY {quality.verdict.upper()} {scan.key}: {said}{advice}"))
    return [line for verdict in ("fail", "warn") for own, line in lines if own == verdict], counts
