"""Metadata of a PET as the job needs them: known errors corrected, contradictions refused."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tau_pipeline.bids.sidecars import number_list, number_value, text_value
from tau_pipeline.bids.tracers import other_tracer, tracer_name
from tau_pipeline.errors import MetadataError

#: No PET session lasts longer; larger "seconds" are milliseconds. Shorter totals of a dynamic scan are minutes.
LONGEST_S = 24 * 3600.0
_SHORTEST_DYNAMIC_S = 60.0
#: Frames of a scan that begins so late last longer together, or their durations are in minutes.
_LATE_S, _SHORTEST_S = 600.0, 60.0

#: How converters and people write that nothing corrects for attenuation; ``rec-nacstat`` and ``rec-nacdyn`` are BIDS's.
#: Phantoms and simulations need none.
_NO_ATTENUATION = re.compile(
    r"(?!.*\b(needed|required|necessary)\b)"
    r"(\W*(no(ne|t)?(\b|_)(?!\.)|n\s*$|un-?corr(ected)?\b|without\b|w/o\b|off\b|disabled\b|false\b|0\s*$"
    r"|nac(stat|dyn)?\b|non-?(ac\b|attenuation)|keine?\b|nein\b|aucune\b)"
    r"|(?!.*\b(scatter|randoms?|motion|decay)\b[^;,]*$).*\bnone\s*$"
    r"|.*\b(no|without|w/o|not)[ -](attenuation|ac\b)"
    r"|\s*(attenuation|attn?|ac)\b[^;,]*(\b(not|off|disabled|skipped|omitted)\b|[:=]\s*(no|false)\b))",
    re.IGNORECASE,
)
_NAC_LABEL = re.compile(
    r"(nac|non?(ac|att)|without(ac|att)|uncorr)|.*nac(stat|dyn)?$|(?-i:.*([a-z]NAC|NoAC|noAC)(?![a-z]))", re.IGNORECASE
)
#: The same as a word of a series' name, which counts where AttenuationCorrection is not stated.
_NAC_SERIES = re.compile(
    r"(?<![a-z0-9])(nac|(non?|without|w/o)[ _-]?(ac|att?n?|attenuation)|uncorr(ected)?|ac[ _-]?off)(?![a-z0-9])"
    r"|(?-i:(?<=[a-z0-9])(NAC|NoAC))(?![a-z0-9])",
    re.IGNORECASE,
)
_SERIES = ("SeriesDescription", "ProtocolName", "ReconMethodName", "ImageComments")
#: Keys that state the attenuation correction itself, BIDS's first.
_STATED = ("AttenuationCorrection", "AttenuationCorrectionMethod", "AttenuationCorrectionMethodReconstruction")


def why_left_out(metadata: Mapping[str, Any], entities: Mapping[str, str]) -> str:
    """Say why a PET is no measure of uptake, so that nothing is computed from it; empty if it is one.

    Images reconstructed without attenuation correction are: the skull and the depth of a region change their values.
    """
    stated = {key: _joined(metadata[key]) for key in _STATED if key in metadata}
    known = {key: text for key, text in stated.items() if text.lower() not in ("", "n/a")}
    rec = entities.get("rec", "")
    denied = [f"{key} is {text!r}" for key, text in known.items() if _NO_ATTENUATION.match(text)]
    # The attenuation correction itself, if it is stated, is believed more than what else the sidecar says.
    source = "".join(denied[:1]) if known else _uncorrected_by_others(metadata)
    if not source and _NAC_LABEL.match(rec):
        source = f"its name has rec-{rec}"
    if not source:
        return ""
    return (
        f"left out: it was reconstructed without attenuation correction ({source}), so that its SUVR would be wrong; "
        "give the corrected reconstruction, or correct the sidecar"
    )


def _joined(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return "; ".join("false" if one is False or one == 0 else str(one).strip() for one in values if one is not None)


def _uncorrected_by_others(metadata: Mapping[str, Any]) -> str:
    """Return what beside the attenuation correction itself says that there was none; empty if nothing does."""
    series = next((name for name in _SERIES if _NAC_SERIES.search(str(metadata.get(name, "")))), "")
    if series:
        return f"{series} is {metadata[series]!r}"
    # DICOM: what the image was corrected for (0028,0051), and the values of its type.
    stated = (metadata.get("CorrectedImage"), metadata.get("ImageType"))
    corrected, kind = ([str(one).upper() for one in found] if isinstance(found, list) else [] for found in stated)
    if corrected and not any(one.startswith(("ATTN", "AC")) for one in corrected):
        return f"CorrectedImage is {metadata['CorrectedImage']!r}, without ATTN"
    return f"ImageType is {metadata['ImageType']!r}" if {"NAC", "NONAC", "NOAC"} & set(kind) else ""


def _attenuation_note(metadata: Mapping[str, Any]) -> list[str]:
    """Return a sentence if attenuation correction is stated, and the name of the series says that there was none."""
    stated = _joined(metadata.get("AttenuationCorrection"))
    other = _uncorrected_by_others({key: metadata[key] for key in _SERIES if key in metadata})
    if stated.lower() in ("", "n/a") or not other:
        return []
    return [
        f"AttenuationCorrection is {stated!r}, which was believed, but {other}: check that this is the corrected "
        "series."
    ]


def corrected_pet_metadata(
    metadata: Mapping[str, Any], entities: Mapping[str, str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Correct known errors in the metadata of a PET, and return it with a sentence for each correction.

    - Without ``TracerName``, or where it is no name of a tracer that is known ("Unknown", "Solution"), the ``trc``
      entity of the file name is the tracer's name; where that is none either, a text of the converter may name one.
    - ``FrameDuration`` may hold the frames' end times (three of the published BIDS examples have it so).
    - ``FrameTimesStart`` may count from the start of the scan, although ``ScanStart`` is later than time zero; BIDS
      counts both from ``TimeZero``, and no frame begins before its scan does.

    Parameters
    ----------
    metadata
        Inherited values of the sidecars; not changed.
    entities
        Those of the file name.

    Raises
    ------
    MetadataError
        A value that the job uses has the wrong type, the times are in milliseconds or minutes, or sidecar and file name
        state different tracers.
    """
    corrected: dict[str, Any] = dict(metadata)
    notes: list[str] = []
    notes += _tracer_of(corrected, entities.get("trc"))
    notes += [*_other_name_note(corrected), *_radionuclide_note(corrected)]
    notes += [*_attenuation_note(corrected), *_misspelled_notes(metadata)]
    for key in ("Manufacturer", "ManufacturersModelName", "TracerRadionuclide", "Units"):
        text_value(metadata, key)
    for key in ("ScanStart", "InjectionStart"):
        number_value(metadata, key)
    starts, durations = number_list(metadata, "FrameTimesStart"), number_list(metadata, "FrameDuration")
    if starts is None or durations is None:
        return corrected, tuple(notes)
    if _are_end_times(starts, durations):
        durations = tuple(end - start for start, end in zip(starts, durations, strict=True))
        corrected["FrameDuration"] = list(durations)
        notes.append("FrameDuration holds the frames' end times; the durations were taken as end minus start.")
    scan_start = number_value(metadata, "ScanStart") or 0.0
    if scan_start > 0 and starts[0] == 0:
        corrected["FrameTimesStart"] = [start + scan_start for start in starts]
        notes.append(
            f"FrameTimesStart begins at 0 but ScanStart is {scan_start:g} s; they were counted from the scan's start."
        )
    _check_unit(starts, durations, number_value(metadata, "InjectionStart") or 0.0)
    _check_spacing(starts, durations)
    notes += _gaps_note(starts, durations)
    return corrected, tuple(notes)


#: Keys of BIDS that are nearly spelled as one that is read.
_ALIKE = ("AttenuationCorrectionMethod",)
#: A single gap may be a pause of the scan.
_LEAST_GAPS = 2
#: Keys whose values change results; one that is nearly spelled so was probably meant.
_READ_KEYS = (
    *("FrameTimesStart", "FrameDuration", "InjectionStart", "ScanStart", "TracerName", "AttenuationCorrection"),
    *("ImageDecayCorrected", "Units", "Manufacturer", "ManufacturersModelName", "TracerRadionuclide"),
)


def _misspelled_notes(metadata: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each key that is missing where another one is spelled nearly so, and is no key of BIDS."""
    others = {key.lower(): key for key in metadata if key not in _READ_KEYS and key not in _ALIKE}
    notes = []
    for key in _READ_KEYS:
        if key in metadata:
            continue
        near = difflib.get_close_matches(key.lower(), others, n=1, cutoff=0.9)
        if near:
            notes.append(f"The sidecar has no {key}, but {others[near[0]]}, which is not read: is it misspelled?")
    return notes


def _gaps_note(starts: tuple[float, ...], durations: tuple[float, ...]) -> list[str]:
    """Return a sentence if there is a gap after every frame: a converter has probably written wrong times."""
    gaps = [after - before for before, after in pairwise(starts)]
    if len(gaps) < _LEAST_GAPS or any(gap < 1.1 * last for gap, last in zip(gaps, durations, strict=False)):
        return []
    return [
        f"There is a gap after every frame by FrameTimesStart and FrameDuration (the first frames begin {gaps[0]:g} s "
        f"apart and last {durations[0]:g} s): check both."
    ]


def _tracer_of(metadata: dict[str, Any], label: str | None) -> list[str]:
    """Put the tracer's name into the metadata where the file name knows it better, and say so."""
    stated = text_value(metadata, "TracerName")
    if not any(tracer_name(one) or other_tracer(one) for one in (stated, label)) and (why := _named_beside(metadata)):
        return [why]
    if label is None:
        return []
    if stated is None:
        metadata["TracerName"] = label
        return [f"The sidecar has no TracerName; {label} was taken from the file name."]
    by_label = tracer_name(label) or other_tracer(label)
    by_text = tracer_name(stated) or other_tracer(stated)
    if by_label is None or by_label == by_text:
        return []
    if by_text is not None:
        raise MetadataError(
            f"the sidecar's TracerName {stated!r} is {by_text}, but the file name has trc-{label}, which is "
            f"{by_label}; correct one of them"
        )
    metadata["TracerName"] = label
    return [f"TracerName {stated!r} is not the name of a known tracer; {label} was taken from the file name."]


#: Keys in which converters keep the tracer's name, or a text with it, beside ``TracerName``.
_NAMING_KEYS = ("Radiopharmaceutical", "SeriesDescription", "ProtocolName")


def _named_beside(metadata: dict[str, Any]) -> str:
    """Put the tau tracer that a text beside ``TracerName`` names into the metadata, and say so; empty without one."""
    for key in _NAMING_KEYS:
        text = metadata.get(key)
        if isinstance(text, str) and (named := tracer_name(text)) is not None:
            metadata["TracerName"] = named
            return f"TracerName and file name name no known tracer; {named} was taken from {key} ({text!r})."
    return ""


def _other_name_note(metadata: Mapping[str, Any]) -> list[str]:
    """Return a sentence if a text beside the tracer's name is the name of another tracer.

    Operators often enter another tracer with the same nuclide, so such a text does not decide.
    """
    used = tracer_name(text_value(metadata, "TracerName"))
    for key in _NAMING_KEYS:
        text = metadata.get(key)
        other = (tracer_name(text) or other_tracer(text)) if isinstance(text, str) else None
        if used is not None and other not in (None, used):
            return [f"{key} is {text!r}, which is {other}, but the PET is processed as {used}: check the tracer."]
    return []


def _radionuclide_note(metadata: Mapping[str, Any]) -> list[str]:
    """Return a sentence if the sidecar states another nuclide than fluorine-18, which all known tau tracers have."""
    tracer, stated = tracer_name(text_value(metadata, "TracerName")), text_value(metadata, "TracerRadionuclide")
    if tracer is None or stated is None or not re.search(r"\d", stated) or "18" in stated:
        return []
    return [f"TracerRadionuclide is {stated!r}, but {tracer} is labeled with fluorine-18; correct the sidecar."]


def _are_end_times(starts: tuple[float, ...], durations: tuple[float, ...]) -> bool:
    return len(starts) > 2 and durations[:-1] == starts[1:] and durations[-1] > starts[-1]


def _check_spacing(starts: tuple[float, ...], durations: tuple[float, ...]) -> None:
    """Refuse starts and durations in different units: frames follow each other, or nearly so."""
    gaps = [after - before for before, after in pairwise(starts)]
    ratios = sorted(gap / duration for gap, duration in zip(gaps, durations, strict=False) if duration > 0)
    if not ratios:
        return
    middle = ratios[len(ratios) // 2]
    for factor, what, unit in (
        *((60.0, "FrameDuration", "minutes"), (1 / 60, "FrameTimesStart", "minutes")),
        *((1000.0, "FrameTimesStart", "milliseconds"), (0.001, "FrameDuration", "milliseconds")),
    ):
        if 0.9 < middle / factor < 1.1:
            raise MetadataError(
                f"the frames begin {gaps[0]:g} s apart but last {durations[0]:g} s by FrameTimesStart and "
                f"FrameDuration; both must be in seconds (is {what} in {unit}?)"
            )


def _check_unit(starts: tuple[float, ...], durations: tuple[float, ...], injection: float) -> None:
    ends = [start + duration for start, duration in zip(starts, durations, strict=False)]
    # Time zero may be the midnight before an injection late in the evening.
    last, zero = (max(ends) - injection, "the injection") if injection > 0 else (max(ends), "time zero")
    if last > LONGEST_S:
        why = " (are these milliseconds?)" if last / 1000 < LONGEST_S else ""
        raise MetadataError(
            f"the last frame ends at {max(ends):.10g} s, more than a day after {zero}; FrameTimesStart and "
            f"FrameDuration must be in seconds{why}"
        )
    if 0 < sum(durations) < _SHORTEST_S and max(starts) > _LATE_S:
        raise MetadataError(
            f"the frames last {sum(durations):g} s together, from {min(starts):g} s on; FrameDuration must be in "
            "seconds, as FrameTimesStart is (are these minutes?)"
        )
    if len(ends) > 1 and max(ends) - min(starts) < _SHORTEST_DYNAMIC_S:
        raise MetadataError(
            f"the {len(ends)} frames last {max(ends) - min(starts):g} s together; FrameTimesStart and FrameDuration "
            "must be in seconds (are these minutes?)"
        )
