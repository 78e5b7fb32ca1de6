"""Every quality check of a scan, and the quality of a scan by them.

A new check needs a row in `PET_CHECKS`, `SUVR_CHECKS`, or below, and its figure under `Check.key` in the sidecar of the
SUVR map: the interface that knows the figure returns it in its output ``quality_figures``. The verdicts in sidecars,
tables, pages, and on the terminal, and the reference of checks follow. See docs/decisions/quality-checks.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from tau_pipeline.derivatives.names import Source
from tau_pipeline.derivatives.quality_check import VERDICTS, Check, Verdict, beyond, number
from tau_pipeline.derivatives.quality_checks_coregistration import COREGISTRATION_CHECKS
from tau_pipeline.derivatives.quality_checks_pet import PET_CHECKS
from tau_pipeline.derivatives.quality_checks_suvr import SUVR_CHECKS

__all__ = ["BY_NAME", "CHECKS", "VERDICTS", "Check", "Quality", "Verdict", "describe", "judge", "worst"]

#: Every check, in the order of the tables and pages.
CHECKS: tuple[Check, ...] = (
    *COREGISTRATION_CHECKS,
    *PET_CHECKS,
    *SUVR_CHECKS,
    Check(
        name="pvc_condition",
        key="PVCConditionNumber",
        heading="Condition number of partial volume correction",
        description="Condition number of the system that partial volume correction solves, with columns of length 1; "
        "its root is by how much noise may grow.",
        digits=".1f",
        warn_above=100.0,
        limit_source="noise may grow tenfold; parcellations without tiny regions are below 20",
        action="Leave out corrected values with large standard errors; check the parcellation and the point spread.",
    ),
    Check(
        name="pvc_psf_at_bound",
        key="PVCPointSpreadAtBound",
        heading="Point spread at the end of the range of search",
        description="Whether the estimated point spread is at the end of the range of search (1) or within it (0).",
        digits=".0f",
        warn_above=0.5,
        limit_source="tau_pipeline.pvc.psf: no PET of a brain is that sharp or that blurred",
        action="Do not use the corrected values; check the coregistration, and state the point spread with --psf.",
    ),
    Check(
        name="synthesis_flags",
        key="Flags",
        kind="count",
        heading="Differences from the training images",
        description="Number of ways in which the T1w or the participant is unlike those that the model was trained on.",
        digits=".0f",
        warn_above=0.5,
        limit_source="any difference is a reason to look (docs/decisions/synthetic-uncertainty.md)",
        action="Read the flags of the synthetic map; use a model trained on such images.",
        applies_to="synthetic",
    ),
)
BY_NAME = {one.name: one for one in CHECKS}


def judge(sidecar: Mapping[str, Any], source: Source = "measured") -> list[dict[str, Any]]:
    """Return all checks of a scan as ``QualityChecks`` of its sidecar.

    Parameters
    ----------
    sidecar
        With the figures under `Check.key`; one that is not there was not measured.
    source
        Kind of scan.
    """
    return [check.result(sidecar) for check in CHECKS if check.applies_to == source]


def worst(verdicts: Iterable[str]) -> Verdict:
    """Return the worst verdict; ``n/a`` if nothing was measured.

    Examples
    --------
    >>> worst(["pass", "warn", "n/a"]), worst([])
    ('warn', 'n/a')
    """
    order: tuple[Verdict, ...] = get_args(Verdict)
    found = set(verdicts)
    return next((one for one in reversed(order) if one in found), "n/a")


@dataclass(frozen=True)
class Quality:
    """Quality of one scan by one reference region.

    Attributes
    ----------
    checks
        ``QualityChecks`` of the sidecar, with the decisions of people.
    """

    checks: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def verdict(self) -> Verdict:
        """The worst verdict; ``n/a`` if nothing was measured."""
        return worst(str(one.get("Verdict")) for one in self.checks)

    def named(self, verdict: Verdict) -> list[str]:
        """Return the names of the checks with a verdict."""
        return [str(one.get("Check")) for one in self.checks if one.get("Verdict") == verdict]

    @cached_property
    def excluded(self) -> bool:
        """True if a person excluded the scan by ``--exclude``."""
        return any(one.get("Excluded") is True for one in self.checks)

    @property
    def doubts(self) -> list[Mapping[str, Any]]:
        """The checks that failed, then those that warn."""
        return [one for verdict in ("fail", "warn") for one in self.checks if one.get("Verdict") == verdict]

    @property
    def decisions(self) -> list[str]:
        """Decisions of people, with who decided and why; in sentences."""
        return [
            f"{one['Check']}: {one['Verdict']} (was {one.get('ComputedVerdict', 'n/a')}), decided by "
            f"{one['DecidedBy']}: {one.get('Why', 'n/a')}"
            for one in self.checks
            if "DecidedBy" in one
        ]


def describe(check: Mapping[str, Any]) -> str:
    """Return a check of ``QualityChecks`` as one short text: name, value, and the limit that it is beyond.

    Examples
    --------
    >>> describe({"Check": "ref_cov_percent", "Value": 40, "Unit": "%", "WarnAbove": 35, "Verdict": "warn"})
    'ref_cov_percent 40 % (above 35)'
    """
    value, unit = check.get("Value", "n/a"), check.get("Unit", "1")
    shown = f"{value:.4g}" if isinstance(value, int | float) else str(value)
    text = f"{check.get('Check')} {shown}" + (f" {unit}" if unit not in ("1", "") else "")
    start = "Fail" if check.get("Verdict") == "fail" else "Warn"
    for name, word in (("Below", "below"), ("Above", "above")):
        limit = check.get(f"{start}{name}")
        known = number(value)
        low, high = (limit, None) if name == "Below" else (None, limit)
        if isinstance(limit, int | float) and known is not None and beyond(known, low, high):
            return f"{text} ({word} {limit:g})"
    return text
