"""Every quality check of a scan, in one table from which all that computes, shows, or documents them is made.

A new check needs a row in `CHECKS`, and its figure under `Check.key` in the sidecar of the SUVR map: the interface that
knows the figure returns it in its output ``quality_figures``. The verdicts in sidecars, tables, pages, and on the
terminal, and the reference of checks follow. See docs/decisions/quality-checks.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tau_pipeline.derivatives.names import Source

#: From best to worst; ``n/a`` means not measured.
Verdict = Literal["n/a", "pass", "warn", "fail"]
VERDICTS: tuple[str, ...] = get_args(Verdict)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One quality check: a figure, and the limits beyond which a scan is doubtful or must not be used.

    Attributes
    ----------
    name
        In tables, on the terminal, and in ``quality_override.tsv``.
    key
        Of the figure in the sidecar of the SUVR map.
    key_description
        Meaning of that key, where ``description`` does not hold for it.
    kind
        How the value follows from what the sidecar holds: the number; the largest or the mean of a list; the number of
        items of a list; the percentile ``percent`` of an object of percentiles.
    percent
        Which percentile.
    factor
        By which the number is multiplied.
    heading, description, unit, digits
        For people; ``digits`` is a format.
    warn_below, fail_below, warn_above, fail_above
        Limits in the unit of the check; None where there is none.
    limit_source
        Where the limits come from.
    action
        What to do about a value beyond them.
    applies_to
        Kind of scan.
    """

    name: str
    key: str
    key_description: str = ""
    kind: Literal["number", "largest", "mean", "count", "percentile"] = "number"
    percent: int = 0
    factor: float = 1.0
    heading: str
    description: str
    unit: str = "1"
    digits: str = ".3g"
    warn_below: float | None = None
    fail_below: float | None = None
    warn_above: float | None = None
    fail_above: float | None = None
    limit_source: str
    action: str
    applies_to: Source = "measured"

    def value(self, sidecar: Mapping[str, Any]) -> float | None:
        """Return the value from a sidecar; None if it was not measured.

        Examples
        --------
        >>> next(one for one in CHECKS if one.name == "mask_volume_ml").value({"BrainVolume": 1.5e6})
        1500.0
        """
        stated = sidecar.get(self.key)
        if self.kind == "percentile":
            stated = stated.get(str(self.percent)) if isinstance(stated, Mapping) else None
        if self.kind == "count":
            return float(len(stated)) if isinstance(stated, list) else None
        if isinstance(stated, list):
            numbers = [found for one in stated if (found := _number(one)) is not None]
            if not numbers or self.kind not in ("largest", "mean"):
                return None
            stated = max(numbers) if self.kind == "largest" else sum(numbers) / len(numbers)
        found = _number(stated)
        return None if found is None else found * self.factor

    def judge(self, value: float | None) -> Verdict:
        """Return the verdict on a value.

        Examples
        --------
        >>> next(one for one in CHECKS if one.name == "mask_volume_ml").judge(None)
        'n/a'
        """
        if value is None:
            return "n/a"
        if _beyond(value, self.fail_below, self.fail_above):
            return "fail"
        return "warn" if _beyond(value, self.warn_below, self.warn_above) else "pass"

    def limits(self) -> dict[str, float]:
        """Return the limits that there are, by their key in the sidecar."""
        stated = {
            "WarnBelow": self.warn_below,
            "FailBelow": self.fail_below,
            "WarnAbove": self.warn_above,
            "FailAbove": self.fail_above,
        }
        return {name: limit for name, limit in stated.items() if limit is not None}

    def result(self, sidecar: Mapping[str, Any]) -> dict[str, Any]:
        """Return the check as it stands in ``QualityChecks`` of the sidecar."""
        value = self.value(sidecar)
        return {
            "Check": self.name,
            "Description": self.description,
            "Value": "n/a" if value is None else float(f"{value:.6g}"),
            "Unit": self.unit,
            **self.limits(),
            "Verdict": self.judge(value),
            "LimitSource": self.limit_source,
            "Action": self.action,
        }


def _number(value: Any) -> float | None:
    if isinstance(value, bool | int | float) and abs(value) < 1e300 and math.isfinite(value):
        return float(value)
    return None


def _beyond(value: float, low: float | None, high: float | None) -> bool:
    return (low is not None and value < low) or (high is not None and value > high)


_GOOD_SCANS = "beyond the spread of good scans (docs/decisions/quality-checks.md)"
_FIELD_OF_VIEW = "a rim of the mask may stick out, a tenth of the brain may not (docs/decisions/field-of-view.md)"
#: Every check, in the order of the tables and pages.
CHECKS: tuple[Check, ...] = (
    Check(
        name="coreg_trusted",
        key="RegistrationTrusted",
        heading="Fit of PET to T1w found",
        description="Whether the coregistration of PET and T1w found a fit that can be trusted (1) or not (0).",
        digits=".0f",
        fail_below=1.0,
        limit_source="tau_pipeline.imaging.rigid: a turned or foreign PET does not reach the fit of a PET of the head",
        action="Look at the figure PET on T1w; check that PET and T1w are of the same person, and their headers.",
    ),
    Check(
        name="mask_volume_ml",
        key="BrainVolume",
        factor=1e-3,
        heading="Volume of the brain mask",
        description="Volume of the brain mask.",
        unit="mL",
        digits=".0f",
        warn_below=850.0,
        warn_above=2000.0,
        fail_below=500.0,
        fail_above=2600.0,
        limit_source="brains of 1000 to 1700 mL are usual in adults (Allen et al. 2002, Am J Phys Anthropol 118:341); "
        "a mask includes CSF",
        action="Look at the figure Brain mask; run again with --skull-strip-t1w force or skip if the outline is wrong.",
    ),
    Check(
        name="ref_cov_percent",
        key="Noise",
        factor=100.0,
        heading="Coefficient of variation of the reference region",
        description="Standard deviation over the mean of SUVR in the reference region.",
        unit="%",
        digits=".1f",
        warn_above=35.0,
        fail_above=60.0,
        limit_source=_GOOD_SCANS,
        action="Look at the figure of the reference region; use another with --ref-region if it is misplaced.",
    ),
    Check(
        name="fov_missing_top_percent",
        key="BrainNotMeasuredTop",
        factor=100.0,
        heading="Brain not measured at the top",
        description="Share of the brain that lies in its upper half and that the PET did not measure: it is outside "
        "the field of view, or filled with 0 or NaN.",
        unit="%",
        digits=".1f",
        warn_above=1.0,
        fail_above=10.0,
        limit_source=_FIELD_OF_VIEW,
        action="Read measured_fraction in the table of regions; if the PET should cover the brain, check that its "
        "image is complete and that the coregistration is right.",
    ),
    Check(
        name="fov_missing_bottom_percent",
        key="BrainNotMeasuredBottom",
        factor=100.0,
        heading="Brain not measured at the bottom",
        description="Share of the brain that lies in its lower half and that the PET did not measure: it is outside "
        "the field of view, or filled with 0 or NaN.",
        unit="%",
        digits=".1f",
        warn_above=1.0,
        fail_above=10.0,
        limit_source=_FIELD_OF_VIEW,
        action="Read measured_fraction in the table of regions; if the PET should cover the brain, check that its "
        "image is complete and that the coregistration is right.",
    ),
    Check(
        name="ref_measured_percent",
        key="ReferenceRegionMeasured",
        factor=100.0,
        heading="Reference region measured",
        description="Share of the reference region that the PET measured. A scan with less than the setting "
        "min_measured_fraction is not finished.",
        unit="%",
        digits=".0f",
        warn_below=95.0,
        limit_source=_FIELD_OF_VIEW,
        action="Look at the figure of the reference region; use another with --ref-region that the PET covers.",
    ),
    Check(
        name="synthesis_flags",
        key="Flags",
        kind="count",
        heading="Differences from the training images",
        description="Number of ways in which the T1w is unlike the images that the model was trained on.",
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

    @property
    def verdict(self) -> Verdict:
        """The worst verdict; ``n/a`` if nothing was measured."""
        return worst(str(one.get("Verdict")) for one in self.checks)

    def named(self, verdict: Verdict) -> list[str]:
        """Return the names of the checks with a verdict."""
        return [str(one.get("Check")) for one in self.checks if one.get("Verdict") == verdict]

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


def in_words(check: Mapping[str, Any]) -> str:
    """Return a check of ``QualityChecks`` as one short text: name, value, and the limit that it is beyond.

    Examples
    --------
    >>> in_words({"Check": "ref_cov_percent", "Value": 40, "Unit": "%", "WarnAbove": 35, "Verdict": "warn"})
    'ref_cov_percent 40 % (above 35)'
    """
    value, unit = check.get("Value", "n/a"), check.get("Unit", "1")
    shown = f"{value:.4g}" if isinstance(value, int | float) else str(value)
    text = f"{check.get('Check')} {shown}" + (f" {unit}" if unit not in ("1", "") else "")
    start = "Fail" if check.get("Verdict") == "fail" else "Warn"
    for name, word in (("Below", "below"), ("Above", "above")):
        limit = check.get(f"{start}{name}")
        number = _number(value)
        low, high = (limit, None) if name == "Below" else (None, limit)
        if isinstance(limit, int | float) and number is not None and _beyond(number, low, high):
            return f"{text} ({word} {limit:g})"
    return text
