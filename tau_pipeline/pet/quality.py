"""Figures of quality checks that the metadata of a PET scan give."""

from __future__ import annotations

from tau_pipeline.bids.scans import Scan
from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.pet.frames import WINDOWS, FramePlan


def window_overlap(plan: FramePlan, tracer: str | None) -> float | None:
    """Return how well the frames used agree with the tracer's recommended window: time in both over time in either.

    Parameters
    ----------
    plan
        Which frames are used.
    tracer
        As the sidecar spells it.

    Returns
    -------
    float or None
        0 to 1; None where the tracer has no recommended window, or the times of the frames are not known.
    """
    name = tracer_name(tracer)
    if name is None or not plan.starts_s:
        return None
    low, high = 60.0 * WINDOWS[name].start_min, 60.0 * WINDOWS[name].end_min
    frames = [(start, start + lasts) for start, lasts in zip(plan.starts_s, plan.durations_s, strict=True)]
    both = sum(max(0.0, min(end, high) - max(start, low)) for start, end in frames)
    return both / (sum(end - start for start, end in frames) + high - low - both)


def known_figures(scan: Scan, plan: FramePlan) -> dict[str, float]:
    """Return the figures that are known before anything is computed: ``WindowOverlap`` and ``DaysBetweenPETAndT1w``."""
    found = {
        "WindowOverlap": window_overlap(plan, scan.tracer),
        "DaysBetweenPETAndT1w": scan.days_from_t1w,
    }
    return {name: value for name, value in found.items() if value is not None}
