"""Times of frames that are in another unit, or by another clock."""

from __future__ import annotations

from numpy.typing import NDArray

from tau_pipeline.errors import MetadataError

#: Numbers above these are no minutes, and no hours, of a PET session.
_LONGEST_MIN, _LONGEST_H = 300.0, 5.0
#: Dynamic scans may begin a little before the injection.
_LONGEST_BEFORE_INJECTION_S = 600.0
#: A scan of one frame is a late one; clocks may differ by a minute.
INACCURATE_S = 60.0


def check_clock(starts: NDArray, durations: NDArray, window_min: tuple[float, float]) -> None:
    """Refuse times in another unit, and an injection after the frames, where the numbers tell.

    Parameters
    ----------
    starts, durations
        ``(T,)``, supposed to be seconds from the injection.
    window_min
        Start and end in minutes; frames that miss it, and would meet it in another unit, are in that unit.
    """
    low, high = 60.0 * window_min[0], 60.0 * window_min[1]

    def meets(factor: float) -> bool:
        return bool((factor * starts.min() < high) and (factor * (starts + durations).max() > low))

    last = float((starts + durations).max())
    in_minutes = starts.max() < _LONGEST_MIN and low <= 60.0 * starts.max() < high
    if in_minutes and not meets(1.0) and durations.max() >= INACCURATE_S:
        raise MetadataError(
            f"the first frame starts {starts.min():g} s after injection and lasts {durations[0]:g} s, far from the "
            f"window of {window_min[0]:g} to {window_min[1]:g} minutes; FrameTimesStart and InjectionStart must "
            "be in seconds, as FrameDuration is (are these minutes?)"
        )
    if starts.max() > 0 and not meets(1.0):
        units = (
            (60.0, "minutes", last < _LONGEST_MIN),
            (3600.0, "hours", last < _LONGEST_H),
            (0.001, "milliseconds", True),
        )
        for factor, unit, possible in units:
            if possible and meets(factor):
                raise MetadataError(
                    f"the frames cover {starts.min():g} to {last:g} s after injection, far from "
                    f"the window of {window_min[0]:g} to {window_min[1]:g} minutes; FrameTimesStart, FrameDuration "
                    f"and InjectionStart must be in seconds (are these {unit}?)"
                )
    _check_turns(starts.min(), last, window_min)
    allowed = _LONGEST_BEFORE_INJECTION_S if len(starts) > 1 else INACCURATE_S
    if starts.min() < -allowed:
        raise MetadataError(
            f"InjectionStart is {-starts.min():g} s after the start of the first frame; a tau PET begins at the "
            "injection or later. Both count from TimeZero: check the sign, and whether a clock of 12 hours was used"
        )


def _check_turns(first_s: float, last_s: float, window_min: tuple[float, float]) -> None:
    """Refuse frames that are later than the window by half a day or a day."""
    low, high = 60.0 * window_min[0], 60.0 * window_min[1]
    for hours in (12, 24):
        if first_s >= high and first_s - 3600 * hours < high and last_s - 3600 * hours > low:
            raise MetadataError(
                f"the frames cover {first_s / 60:.4g} to {last_s / 60:.4g} minutes after injection, {hours} hours "
                f"later than the window of {window_min[0]:g} to {window_min[1]:g} minutes; check the date and the "
                "clock (of 12 hours?) behind InjectionStart"
            )
