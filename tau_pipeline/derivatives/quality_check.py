"""One quality check: a figure in the sidecar of an SUVR map, its limits, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
        >>> from tau_pipeline.derivatives.quality_checks import BY_NAME
        >>> BY_NAME["mask_volume_ml"].value({"BrainVolume": 1.5e6})
        1500.0
        """
        stated = sidecar.get(self.key)
        if self.kind == "percentile":
            stated = stated.get(str(self.percent)) if isinstance(stated, Mapping) else None
        if self.kind == "count":
            return float(len(stated)) if isinstance(stated, list) else None
        if isinstance(stated, list):
            numbers = [found for one in stated if (found := number(one)) is not None]
            if not numbers or self.kind not in ("largest", "mean"):
                return None
            stated = max(numbers) if self.kind == "largest" else sum(numbers) / len(numbers)
        found = number(stated)
        return None if found is None else found * self.factor

    def judge(self, value: float | None) -> Verdict:
        """Return the verdict on a value.

        Examples
        --------
        >>> from tau_pipeline.derivatives.quality_checks import BY_NAME
        >>> BY_NAME["mask_volume_ml"].judge(None)
        'n/a'
        """
        if value is None:
            return "n/a"
        if beyond(value, self.fail_below, self.fail_above):
            return "fail"
        return "warn" if beyond(value, self.warn_below, self.warn_above) else "pass"

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


def number(value: Any) -> float | None:
    """Return a finite number as a float, and None for everything else."""
    if isinstance(value, bool | int | float) and abs(value) < 1e300 and math.isfinite(value):
        return float(value)
    return None


def beyond(value: float, low: float | None, high: float | None) -> bool:
    """Return whether a value is below the lower or above the upper limit, as far as there are limits."""
    return (low is not None and value < low) or (high is not None and value > high)


#: Source of limits that were chosen on good scans.
GOOD_SCANS = "beyond the spread of good scans (docs/decisions/quality-checks.md)"
