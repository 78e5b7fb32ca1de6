"""Figures of quality checks that the metadata of a PET scan give."""

from __future__ import annotations

from tau_pipeline.bids.scans import Scan
from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.pet.frames import ALSO_USED, WINDOWS, FramePlan, Window


def window_figures(plan: FramePlan, tracer: str | None) -> dict[str, float]:
    """Return how well the frames used agree with a window of the tracer: ``WindowOverlap`` and ``WindowStart``.

    Compared is the window that agrees best: the recommended one, one that is in use as well, or one that was asked for.

    Parameters
    ----------
    plan
        Which frames are used.
    tracer
        As the sidecar spells it.

    Returns
    -------
    dict
        Time that frames and window share over the time that either covers, 0 to 1; and the start of the first frame
        minus that of the window, min. Empty where the tracer has no recommended window, or the times of the frames are
        not known.
    """
    name = tracer_name(tracer)
    if name is None or not plan.starts_s:
        return {}
    usual = max((WINDOWS[name], *ALSO_USED.get(name, ()), plan.window), key=lambda window: _overlap(plan, window))
    start = min(plan.starts_s) / 60 - usual.start_min
    return {"WindowOverlap": _overlap(plan, usual), "WindowStart": start}


def _overlap(plan: FramePlan, window: Window) -> float:
    """Return the time that frames and a window share over the time that either covers."""
    low, high = 60.0 * window.start_min, 60.0 * window.end_min
    frames = [(start, start + lasts) for start, lasts in zip(plan.starts_s, plan.durations_s, strict=True)]
    both = sum(max(0.0, min(end, high) - max(start, low)) for start, end in frames)
    return both / (sum(end - start for start, end in frames) + high - low - both)


def known_figures(scan: Scan, plan: FramePlan) -> dict[str, float]:
    """Return the figures that are known before anything is computed: of the window, and ``DaysBetweenPETAndT1w``."""
    days = {} if scan.days_from_t1w is None else {"DaysBetweenPETAndT1w": scan.days_from_t1w}
    return window_figures(plan, scan.tracer) | days
