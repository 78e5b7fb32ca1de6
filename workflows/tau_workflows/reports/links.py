"""Links between the pages, and from them to the files in the output folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from tau_pipeline.derivatives.names import SCAN_ENTITIES, report_path
from tau_pipeline.files import name_parts


def relative_link(path: Path, output_dir: Path) -> str:
    """Return the link from a page in the output folder to a file there."""
    return quote(path.relative_to(output_dir).as_posix())


def anchor_of(entities: Mapping[str, str], kind: str) -> str:
    """Return the place of a scan on the page of its participant.

    Examples
    --------
    >>> anchor_of({"sub": "01", "ses": "a", "trc": "AV1451"}, "pet")
    'pet-a-AV1451'
    """
    parts = [kind, *(entities[name] for name in SCAN_ENTITIES if name in entities)]
    return re.sub(r"[^A-Za-z0-9-]", "", "-".join(parts))


def scan_link(scan: str, output_dir: Path, participant: str = "") -> str:
    """Return the link from the page of the cohort to a scan on the page of its participant; empty if there is none.

    Parameters
    ----------
    scan
        As in ``status.tsv``: ``sub-01_trc-AV1451_pet``.
    output_dir
        Root of the derivatives.
    participant
        ``sub-01``; without it, that of the scan's name.
    """
    entities, suffix = name_parts(Path(scan))
    label = participant.removeprefix("sub-") or entities.get("sub", "")
    page = report_path(output_dir, label)
    if not label or "/" in label or not page.is_file():
        return ""
    place = f"#{anchor_of(entities, 'pet')}" if suffix == "pet" and "desc" not in entities else ""
    return f"../{quote(page.name)}{place}"
