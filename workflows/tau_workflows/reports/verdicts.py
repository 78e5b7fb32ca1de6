"""Quality checks of a scan as its page shows them: the verdict first, with what to do, and a table of all checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tau_pipeline.derivatives.quality_checks import BY_NAME, Quality
from tau_pipeline.derivatives.quality_override import FILE, Decision, decided, read_decisions
from tau_pipeline.errors import TauPipelineError
from tau_pipeline.files import read_tsv

#: Columns of ``quality_override.tsv``, as the page writes it.
OVERRIDE_COLUMNS = ("scan", "participant_id", "session_id", "check", "verdict", "who", "why")
_ORDER = {"fail": 0, "warn": 1, "pass": 2, "n/a": 3}


@dataclass(frozen=True)
class Verdict:
    """Quality of one scan: the worst verdict, what is doubtful and what to do, and one row per check."""

    verdict: str
    doubts: list[dict[str, str]] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)


def verdict_of(sidecar: Mapping[str, Any], decisions: Sequence[Decision], stem: str) -> Verdict | None:
    """Return the quality of a scan from ``QualityChecks`` of its sidecar; None if it has none.

    Parameters
    ----------
    sidecar
        Of the SUVR map.
    decisions
        Of people, as `decisions_of` gives them.
    stem
        Start of the names of the scan's files.
    """
    stated = sidecar.get("QualityChecks")
    checks = [one for one in stated if isinstance(one, Mapping)] if isinstance(stated, list) else []
    if not checks:
        return None
    quality = Quality(tuple(decided(checks, decisions, stem)))
    rows = sorted(map(_row, quality.checks), key=lambda row: _ORDER.get(row["verdict"], 3))
    return Verdict(quality.verdict, [_row(one) for one in quality.doubts], rows, quality.decisions)


def _row(check: Mapping[str, Any]) -> dict[str, str]:
    known = BY_NAME.get(str(check.get("Check")))
    unit = str(check.get("Unit", "1"))
    return {
        "name": str(check.get("Check")),
        "heading": known.heading if known else str(check.get("Check")).capitalize(),
        "description": str(check.get("Description") or (known.description if known else "")),
        "value": _number(check.get("Value"), known.digits if known else ".3g"),
        "unit": "" if unit == "1" else unit,
        "limit": _limit(check),
        "verdict": str(check.get("Verdict", "n/a")),
        "source": str(check.get("LimitSource") or (f"decided by {check['DecidedBy']}" if "DecidedBy" in check else "")),
        "action": str(check.get("Action") or check.get("Why") or ""),
    }


def _number(value: Any, form: str) -> str:
    try:
        return format(float(value), form)
    except (TypeError, ValueError):
        return "n/a"


def _limit(check: Mapping[str, Any]) -> str:
    """Return the limits of a check: ``warn below 4, fail below 2``."""
    found = []
    for start in ("Warn", "Fail"):
        for end in ("Below", "Above"):
            if isinstance(limit := check.get(f"{start}{end}"), int | float):
                found.append(f"{start.lower()} {end.lower()} {limit:g}")
    return ", ".join(found)


def decisions_of(output_dir: Path) -> tuple[list[Decision], str]:
    """Return the decisions in the output folder, and a sentence on what is wrong with their file."""
    try:
        return read_decisions(output_dir), ""
    except TauPipelineError as exc:
        return [], str(exc)


def override_rows(output_dir: Path) -> list[list[str]]:
    """Return the rows of ``quality_override.tsv`` with `OVERRIDE_COLUMNS`, which a page keeps when it exports."""
    path = output_dir / FILE
    try:
        table = read_tsv(path, OVERRIDE_COLUMNS) if path.is_file() else None
    except TauPipelineError:
        return []
    if table is None:
        return []
    texts = {name: table[name].fillna("").astype(str) for name in OVERRIDE_COLUMNS if name in table}
    return [[texts[name].iloc[k] if name in texts else "" for name in OVERRIDE_COLUMNS] for k in range(len(table))]


def worst_of(verdicts: Iterable[Verdict | None]) -> str:
    """Return the worst verdict of several maps of a scan; empty if none was judged."""
    found = [one.verdict for one in verdicts if one is not None]
    return min(found, key=lambda one: _ORDER.get(one, 3)) if found else ""
