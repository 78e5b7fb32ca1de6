"""Choice and weights of PET frames, with the assumptions made: metadata only, no images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tau_pipeline.bids.sidecars import bool_value, number_list, number_value, text_value
from tau_pipeline.bids.tracers import WITHOUT_WINDOW, other_tracer, tracer_name
from tau_pipeline.errors import MetadataError, SettingError
from tau_pipeline.pet.clock import INACCURATE_S, check_clock
from tau_pipeline.pet.units import units_note
from tau_pipeline.words import counted


@dataclass(frozen=True)
class Window:
    """Time over which activity is averaged, in minutes after injection, and where that choice comes from."""

    start_min: float
    end_min: float
    source: str


@dataclass(frozen=True)
class FramePlan:
    """Frames that make the static image.

    Parameters
    ----------
    indices
        Frames that overlap the window, counted from 0.
    weights
        Their weights, which add up to 1: the time that each overlaps the window.
    starts_s, durations_s
        Of these frames, seconds, start counted from the injection; empty when the sidecar does not state usable times.
    window
        What was aimed for.
    assumptions
        Sentences: what the sidecar did not state and was assumed.
    """

    indices: tuple[int, ...]
    weights: tuple[float, ...]
    starts_s: tuple[float, ...]
    durations_s: tuple[float, ...]
    window: Window
    assumptions: tuple[str, ...]


_FLORTAUCIPIR = Window(80, 100, "flortaucipir, 80-100 min: Shcherbinin et al. 2016, J Nucl Med 57:1535")
#: By the name that ``tracer_name`` gives. The windows of flortaucipir, MK-6240 and GTP1 are given in the abstracts
#: named; the others are in common use; the papers named have not been checked word by word.
WINDOWS: dict[str, Window] = {
    "flortaucipir": _FLORTAUCIPIR,
    "MK-6240": Window(90, 110, "MK-6240, 90-110 min: Fu et al. 2023, J Cereb Blood Flow Metab 43:581"),
    "PI-2620": Window(
        45,
        75,
        "PI-2620, 45-75 min: ADNI 4 protocol (Mueller et al. 2020, J Nucl Med 61:911; 60-90 min is used as well)",
    ),
    "RO-948": Window(70, 90, "RO-948, 70-90 min: Leuzy et al. 2020, JAMA Neurol 77:955"),
    "GTP1": Window(60, 90, "GTP1, 60-90 min: Sanabria Bohórquez et al. 2019, Eur J Nucl Med Mol Imaging 46:2077"),
    "florzolotau": Window(90, 110, "florzolotau, 90-110 min: Tagai et al. 2021, Neuron 109:42"),
}
#: Windows that are in use as well: a scan that was made in one of them is no mistake. One is taken only where a scan
#: covers it and not the one above, since SUVR differs between windows.
ALSO_USED: dict[str, tuple[Window, ...]] = {
    "MK-6240": (Window(70, 90, "MK-6240, 70-90 min: in use in AIBL and HEAD"),),
    "PI-2620": (
        Window(60, 90, "PI-2620, 60-90 min: one of the windows of the SCAN project"),
        Window(30, 60, "PI-2620, 30-60 min: one of the windows of the SCAN project"),
    ),
}


def default_window(tracer: str | None) -> Window:
    """Return the usual window of a tracer; for an unknown tracer 80 to 100 minutes, and the source says so."""
    known = tracer_name(tracer)
    if known:
        return WINDOWS[known]
    named = f"the tracer {tracer!r} has no default window" if tracer else "no tracer is stated"
    if (other := other_tracer(tracer)) is not None:
        what = "has no default window" if other in WITHOUT_WINDOW.values() else "is not a tracer of tau"
        named = f"the tracer {tracer!r} is {other}, which {what}"
    return Window(80, 100, f"{named}; 80-100 min, as for flortaucipir, is assumed")


def usual_windows(tracer: str | None) -> tuple[Window, ...]:
    """Return the windows that are in use for a tracer, the usual one first; empty for an unknown tracer."""
    known = tracer_name(tracer)
    return (WINDOWS[known], *ALSO_USED.get(known, ())) if known else ()


def frame_weights(starts_s: ArrayLike, durations_s: ArrayLike, window_min: tuple[float, float]) -> NDArray[np.float64]:
    """Return weights ``(T,)`` of frames by the time that they overlap a window; they add up to 1.

    Parameters
    ----------
    starts_s, durations_s
        ``(T,)``, seconds; starts counted from the injection.
    window_min
        Start and end in minutes after injection.

    Raises
    ------
    MetadataError
        No frame overlaps the window; the message states the range of the frames.
    SettingError
        The window ends before it starts.

    >>> frame_weights([4500, 4800, 5400], [300, 600, 1200], (80, 100))
    array([0. , 0.5, 0.5])
    """
    low, high = (60.0 * float(edge) for edge in window_min)
    if not (np.isfinite([low, high]).all() and 0 <= low < high):
        raise SettingError(f"a window from {window_min[0]} to {window_min[1]} minutes is not possible")
    starts, durations = np.asarray(starts_s, dtype=np.float64), np.asarray(durations_s, dtype=np.float64)
    overlap = np.clip(np.minimum(starts + durations, high) - np.maximum(starts, low), 0, None)
    if overlap.sum() <= 0:
        raise MetadataError(
            f"no frame lies in the window of {low / 60:g} to {high / 60:g} minutes after injection: the frames cover "
            f"{starts.min() / 60:.4g} to {(starts + durations).max() / 60:.4g} minutes. If they count from the scan's "
            "start, let InjectionStart, ScanStart and TimeZero say when the injection was; only if the scan was made "
            "at another time than usual, give its window (--suvr-window)"
        )
    return overlap / overlap.sum()


def plan_frames(
    pet_shape: Sequence[int], metadata: Mapping[str, Any], suvr_window: tuple[float, float] | None = None
) -> FramePlan:
    """Decide which frames of a scan make the static image.

    Parameters
    ----------
    pet_shape
        Shape of the PET image, 3-D or 4-D.
    metadata
        BIDS sidecar: ``FrameTimesStart`` and ``FrameDuration`` (s after ``TimeZero``), ``InjectionStart`` (s after
        ``TimeZero``), ``TracerName``, ``Units``.
    suvr_window
        Window in minutes after injection; None takes the tracer's.

    Raises
    ------
    MetadataError
        A dynamic image without usable times, a list of another length than there are frames, a value of the wrong
        type, or no frame in the window.
    SettingError
        The window is not possible.
    """
    frames = int(pet_shape[3]) if len(pet_shape) > 3 else 1
    tracer = text_value(metadata, "TracerName")
    window = Window(*suvr_window, "as requested") if suvr_window else default_window(tracer)
    notes = [*units_note(metadata), *_unusual_window_note(suvr_window, tracer)]
    if not suvr_window and not tracer_name(tracer):
        notes.append(f"Window: {window.source}.")
    starts = _numbers(metadata, "FrameTimesStart", frames)
    durations = _numbers(metadata, "FrameDuration", frames)
    if starts is not None:
        starts = starts - _injection_s(metadata, notes)
    if starts is not None and durations is not None:
        if not suvr_window:
            window = _covered_window(starts, durations, window, tracer, notes)
        check_clock(starts, durations, (window.start_min, window.end_min))
    if frames == 1 and (starts is None or durations is None or starts[0] <= 0):
        return _static_of_unknown_time(starts, durations, window, notes)
    if starts is None or durations is None:
        missing = "FrameTimesStart" if starts is None else "FrameDuration"
        raise MetadataError(f"the PET image has {frames} frames, but its sidecar has no {missing}; add it (seconds)")
    _check_times(starts, durations)
    weights = frame_weights(starts, durations, (window.start_min, window.end_min))
    weights = _decay_corrected(weights, starts + durations / 2, metadata, notes)
    used = np.flatnonzero(weights)
    notes += _coverage_note(starts[used], durations[used], window)
    return FramePlan(
        tuple(used.tolist()),
        tuple(weights[used].tolist()),
        tuple(starts[used].tolist()),
        tuple(durations[used].tolist()),
        window,
        tuple(notes),
    )


def _covered_window(
    starts: NDArray, durations: NDArray, window: Window, tracer: str | None, notes: list[str]
) -> Window:
    """Return the usual window, or another in use for the tracer if the frames cover that one and not the usual one."""

    def is_covered(one: Window) -> bool:
        low, high = 60.0 * one.start_min, 60.0 * one.end_min
        inside = np.clip(np.minimum(starts + durations, high) - np.maximum(starts, low), 0, None)
        return bool(inside.sum() >= 0.99 * (high - low))

    if is_covered(window):
        return window
    other = next((one for one in usual_windows(tracer)[1:] if is_covered(one)), None)
    if other is None:
        return window
    notes.append(
        f"The frames do not cover {window.start_min:g} to {window.end_min:g} minutes, and the window of "
        f"{other.start_min:g} to {other.end_min:g} minutes was taken ({other.source}); do not mix it with others."
    )
    return other


def _unusual_window_note(asked: tuple[float, float] | None, tracer: str | None) -> list[str]:
    """Return a sentence if a window was asked for that has no minute in common with the tracer's."""
    name = tracer_name(tracer)
    meets = [asked is not None and asked[0] < one.end_min and asked[1] > one.start_min for one in usual_windows(tracer)]
    if asked is None or name is None or any(meets):
        return []
    usual = WINDOWS[name]
    return [
        f"The window asked for, {asked[0]:g} to {asked[1]:g} minutes, lies outside that of {name}, {usual.start_min:g} "
        f"to {usual.end_min:g} minutes; at other times its SUVR has another meaning."
    ]


#: Late images, for which the windows above are, last 20 or 30 minutes.
_LONGEST_LATE_S = 3600.0

#: Half-lives, seconds (Laboratoire National Henri Becquerel, Table of Radionuclides).
_HALF_LIFE_S = {"F18": 6586.2, "C11": 1221.8}


def _decay_corrected(
    weights: NDArray[np.float64], middles_s: NDArray, metadata: Mapping[str, Any], notes: list[str]
) -> NDArray[np.float64]:
    """Return weights of frames that undo the decay between them, where the image is not corrected for it.

    Decay scales a whole frame, so that it changes SUVR only by the weight of frames against each other.
    """
    corrected, key = bool_value(metadata, "ImageDecayCorrected"), "ImageDecayCorrected"
    # DICOM's word (0054,1102), which converters keep.
    if str(metadata.get("DecayCorrection", "")).strip().upper() == "NONE":
        if corrected and np.count_nonzero(weights) > 1:
            notes.append("ImageDecayCorrected is true, which was believed, but DecayCorrection is 'NONE': check which.")
        corrected, key = (False, "DecayCorrection") if corrected is None else (corrected, key)
    if corrected is not False:
        return weights
    if np.count_nonzero(weights) < 2:
        notes.append(
            f"The image is not corrected for decay ({key}); in one frame this is a factor, which cancels in SUVR."
        )
        return weights
    stated = re.sub(r"[^A-Z0-9]", "", (text_value(metadata, "TracerRadionuclide") or "F18").upper())
    # Written as 18F, F-18, Fluorine-18, or ^18^Fluorine.
    known = (one for one in _HALF_LIFE_S if one[1:] in stated and stated.strip("0123456789").startswith(one[0]))
    nuclide = next(known, None)
    if nuclide is None:
        notes.append(f"The frames are not corrected for decay ({key}), and were averaged as they are.")
        return weights
    notes.append(f"The frames are not corrected for decay ({key}); that of {nuclide} between them was.")
    weights = weights * np.exp2((middles_s - middles_s.min()) / _HALF_LIFE_S[nuclide])
    return weights / weights.sum()


def _static_of_unknown_time(
    starts: NDArray | None, durations: NDArray | None, window: Window, notes: list[str]
) -> FramePlan:
    why = "has no frame times"
    if starts is not None and durations is None and starts[0] > 0:
        if not 60 * window.start_min - INACCURATE_S <= starts[0] < 60 * window.end_min:
            raise MetadataError(
                f"the PET image has one frame, which starts {starts[0] / 60:.4g} minutes after injection, outside the "
                f"window of {window.start_min:g} to {window.end_min:g} minutes, and its sidecar has no FrameDuration; "
                "add it (seconds)"
            )
        why = f"starts {starts[0] / 60:.4g} minutes after injection, and its sidecar does not say how long it lasts"
    if starts is not None and durations is not None:
        if durations[0] >= _LONGEST_LATE_S and window.start_min > 0:
            raise MetadataError(
                f"the PET image has one frame, which lasts {durations[0] / 60:.4g} minutes from the injection on by "
                "its sidecar; the mean of a whole scan is no late image. Give the frames, or correct FrameTimesStart "
                "and FrameDuration if it is a late image"
            )
        before = -float(starts[0])
        why = f"starts {before:g} s before the injection by its sidecar" if before else "starts at 0 by its sidecar"
    notes.append(
        f"The PET image has one frame and {why}; it was taken as the late image of {window.start_min:g} to "
        f"{window.end_min:g} minutes after injection."
    )
    return FramePlan((0,), (1.0,), (), (), window, tuple(notes))


def _coverage_note(starts: NDArray, durations: NDArray, window: Window) -> list[str]:
    """Return sentences if the frames do not cover the window, or reach beyond it."""
    low, high = 60.0 * window.start_min, 60.0 * window.end_min
    ends = starts + durations
    inside = float((np.minimum(ends, high) - np.maximum(starts, low)).sum())
    notes = []
    if inside < 0.99 * (high - low):
        notes.append(
            f"The frames cover {inside / 60:.4g} of the {window.end_min - window.start_min:g} minutes of the window "
            f"from {window.start_min:g} to {window.end_min:g} minutes; their mean was taken as that of the window."
        )
    if starts.min() < low - 1 or ends.max() > high + 1:
        notes.append(
            f"The frames used reach from {starts.min() / 60:.4g} to {ends.max() / 60:.4g} minutes, beyond the window; "
            "activity was taken as constant within a frame."
        )
    return notes


def _check_times(starts: NDArray, durations: NDArray) -> None:
    if (durations <= 0).any():
        raise MetadataError(f"FrameDuration holds {durations.min():g}; every frame must last longer than 0 seconds")
    if (np.diff(starts) <= 0).any():
        raise MetadataError("FrameTimesStart is not increasing; sort the frames by time")
    if len(starts) > 1 and (starts[:-1] + durations[:-1] > starts[1:] + 1.0).any():
        raise MetadataError(
            "frames overlap in time by FrameTimesStart and FrameDuration; FrameDuration must hold lengths in seconds, "
            "not end times"
        )


def _numbers(metadata: Mapping[str, Any], key: str, frames: int) -> NDArray[np.float64] | None:
    """Return a list of numbers from the sidecar, one per frame; None if it is absent, ``n/a`` or empty."""
    values = number_list(metadata, key)
    if values is None:
        return None
    if len(values) != frames:
        raise MetadataError(
            f"{key} holds {counted(len(values), 'number')}, but the PET image has {counted(frames, 'frame')}; "
            "correct one of them"
        )
    return np.array(values, dtype=np.float64)


def _injection_s(metadata: Mapping[str, Any], notes: list[str]) -> float:
    """Return the seconds from time zero to the injection; if absent, 0 is assumed and noted."""
    value = number_value(metadata, "InjectionStart")
    if value is None:
        notes.append("The sidecar has no InjectionStart; the injection was taken to be at time zero.")
        return 0.0
    return value
