"""The mosaic of all coregistrations on the page of the cohort: one small picture per scan, the worst first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tau_pipeline.derivatives.index import find_outputs
from tau_pipeline.derivatives.names import SCAN_ENTITIES
from tau_pipeline.figures.cohort import OUTLIER_Z
from tau_pipeline.files import name_parts
from tau_workflows.reports.failures import HEADERS
from tau_workflows.reports.links import scan_link
from tau_workflows.reports.pictures import THUMBNAIL, desc_of, jpeg_uri
from tau_workflows.reports.scan_table import is_missing

if TYPE_CHECKING:
    import pandas as pd

#: Thumbnails together take this many characters in the page at most; of larger cohorts the page links the files.
_MOST_EMBEDDED = 2_000_000
#: Nobody looks at more pictures than these; those left out are the scans with the best fit.
_MOST_TILES = 1000
#: Figures that a tile can show, the best first: of outputs of earlier versions the large figure, reduced.
_SHOWN = (THUMBNAIL, "coregistration", HEADERS)
_WIDTH = 408


@dataclass(frozen=True)
class Tile:
    """One scan in the mosaic: the link to its page, its picture, and why it is framed."""

    scan: str
    link: str
    source: str
    quality: str
    note: str


def tiles(status: pd.DataFrame, output_dir: Path) -> tuple[list[Tile], int]:
    """Return the mosaic, the worst scan first, up to `_MOST_TILES`, and how many scans could be in it.

    Failed scans come first, then the verdicts ``fail`` and ``warn``, outliers, and the rest from the worst fit of PET
    to T1w. Synthetic scans have no coregistration and are left out.

    Parameters
    ----------
    status
        As `tau_workflows.reports.cohort.read_status` gives it.
    output_dir
        Root of the derivatives.
    """
    pictures = _pictures(output_dir)
    rows = [row for row in status.to_dict("records") if row["source"] != "synthetic" and row["state"] != "skipped"]
    rows.sort(key=_badness)
    found, total = [], 0
    for row in rows[:_MOST_TILES]:
        path = pictures.get(_key(str(row["scan"])))
        source = ""
        if path is not None and total < _MOST_EMBEDDED:
            source = _embedded(path)
            total += len(source)
        found.append((Tile(str(row["scan"]), scan_link(str(row["scan"]), output_dir), source, *_verdict(row)), path))
    if total < _MOST_EMBEDDED:
        return [tile for tile, _ in found], len(rows)
    linked = [replace(tile, source="" if path is None else _file_link(path, output_dir)) for tile, path in found]
    return linked, len(rows)


def _pictures(output_dir: Path) -> dict[tuple[str, ...], Path]:
    """Return the picture of each scan, by its entities."""
    found: dict[tuple[str, ...], Path] = {}
    for path in find_outputs(output_dir, "pet_figure"):
        key, desc = _key(path.name), desc_of(path)
        if desc in _SHOWN and (key not in found or _SHOWN.index(desc) < _SHOWN.index(desc_of(found[key]))):
            found[key] = path
    return found


def _key(name: str) -> tuple[str, ...]:
    entities = name_parts(Path(name))[0]
    return tuple(entities.get(name, "") for name in ("sub", *SCAN_ENTITIES))


def _badness(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    quality, nmi = _verdict(row)[0], row.get("registration_nmi")
    order = {"failed": 0, "fail": 1, "warn": 2, "outlier": 3}.get(quality, 4)
    return order, 0.0 if nmi is None or is_missing(nmi) else float(nmi), str(row["scan"])


def _verdict(row: Mapping[Any, Any]) -> tuple[str, str]:
    """Return how a scan is framed, and why."""
    if row["state"] != "done":
        return "failed", str(row["state"])
    quality = "" if is_missing(row.get("quality")) else str(row.get("quality"))
    if quality in ("fail", "warn"):
        checks = row.get("quality_failed" if quality == "fail" else "quality_warned")
        return quality, quality if is_missing(checks) else f"{quality}: {str(checks).replace(',', ', ')}"
    if not is_missing(row["largest_z"]) and row["largest_z"] > OUTLIER_Z:
        return "outlier", f"outlier: |z| {row['largest_z']:.1f}"
    return quality or "n/a", quality or "not judged"


def _embedded(path: Path) -> str:
    try:
        return jpeg_uri(path, quality=80, width=_WIDTH)
    except OSError:
        return ""


def _file_link(path: Path, output_dir: Path) -> str:
    return quote(Path(os.path.relpath(path, output_dir / "group")).as_posix())
