from __future__ import annotations

import numpy as np
import pytest

from tau_pipeline.bids.pet_metadata import corrected_pet_metadata
from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.errors import MetadataError, SettingError
from tau_pipeline.pet.frames import WINDOWS, default_window, frame_weights, plan_frames

SHAPE = (8, 8, 8, 4)


def sidecar(**changes):
    metadata = {
        "TracerName": "AV1451",
        "Units": "Bq/mL",
        "InjectionStart": 0,
        "FrameTimesStart": [4800, 5100, 5400, 5700],
        "FrameDuration": [300, 300, 300, 300],
    }
    metadata.update(changes)
    return {key: value for key, value in metadata.items() if value is not ...}


def test_weights_are_the_share_of_each_frames_overlap_counted_second_by_second():
    starts, durations = np.array([4500, 4790, 5100, 5790, 6300]), np.array([290, 310, 690, 510, 300])
    seconds = np.arange(80 * 60, 100 * 60)
    counted = np.array([((seconds >= s) & (seconds < s + d)).sum() for s, d in zip(starts, durations, strict=True)])
    np.testing.assert_allclose(frame_weights(starts, durations, (80, 100)), counted / counted.sum())


def test_no_overlap_is_an_error_that_tells_what_is_covered():
    with pytest.raises(MetadataError, match="cover 0 to 60 minutes"):
        frame_weights([0, 1800], [1800, 1800], (80, 100))


@pytest.mark.parametrize("window", [(100, 80), (80, 80), (-5, 10), (float("nan"), 100)])
def test_an_impossible_window_is_refused(window):
    with pytest.raises(SettingError, match="not possible"):
        frame_weights([4800], [1200], window)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("AV1451", "flortaucipir"),
        ("AV-1451", "flortaucipir"),
        ("18F-AV-1451", "flortaucipir"),
        ("[18F]T807", "flortaucipir"),
        ("Flortaucipir F18", "flortaucipir"),
        ("18FFTP", "flortaucipir"),
        ("MK6240", "MK-6240"),
        ("[18F]MK-6240", "MK-6240"),
        ("florquinitau", "MK-6240"),
        ("PI2620", "PI-2620"),
        ("RO948", "RO-948"),
        ("[18F]RO6958948", "RO-948"),
        ("GTP1", "GTP1"),
        ("[18F]PM-PBB3 batch 4", "florzolotau"),
        ("FDG", None),
        ("PBB3", None),
        ("AV1451; PiB on file", None),
        ("", None),
        (None, None),
    ],
)
def test_tracers_are_known_in_every_usual_spelling(spelling, name):
    assert tracer_name(spelling) == name


@pytest.mark.parametrize(
    ("tracer", "window"),
    [
        ("AV1451", (80, 100)),
        ("MK6240", (90, 110)),
        ("PI2620", (45, 75)),
        ("RO948", (70, 90)),
        ("GTP1", (60, 90)),
        ("18F-PM-PBB3", (90, 110)),
    ],
)
def test_each_tracer_has_its_window_and_the_source_says_so(tracer, window):
    found = default_window(tracer)
    assert (found.start_min, found.end_min) == window
    assert f"{window[0]}-{window[1]} min" in found.source
    assert any(c.isdigit() for c in found.source.split(":")[1])


def test_the_windows_and_their_sources_agree():
    for window in WINDOWS.values():
        assert f"{window.start_min}-{window.end_min} min" in window.source


def test_an_unknown_tracer_gets_the_default_window_as_an_assumption():
    plan = plan_frames(SHAPE, sidecar(TracerName="XYZ-1"))
    assert (plan.window.start_min, plan.window.end_min) == (80, 100)
    assert any("XYZ-1" in sentence for sentence in plan.assumptions)
    assert "is THK-5351, which has no default window" in default_window("[18F]THK-5351").source
    assert "is FDG, which is not a tracer of tau" in default_window("FDG").source


def test_a_complete_dynamic_scan_needs_no_assumption():
    plan = plan_frames(SHAPE, sidecar())
    assert plan.indices == (0, 1, 2, 3)
    assert plan.weights == pytest.approx((0.25,) * 4)
    assert plan.starts_s == (4800, 5100, 5400, 5700)
    assert plan.assumptions == ()


@pytest.mark.parametrize(
    ("tracer", "frames_min", "window"),
    [
        ("MK-6240", (70, 90), (70, 90)),
        ("MK-6240", (70, 110), (90, 110)),
        ("PI-2620", (60, 90), (60, 90)),
        ("PI-2620", (30, 60), (30, 60)),
        ("PI-2620", (30, 90), (45, 75)),
        ("PI-2620", (50, 70), (45, 75)),
        ("flortaucipir", (75, 95), (80, 100)),
    ],
)
def test_a_further_window_is_taken_where_it_is_covered_and_the_usual_one_is_not(tracer, frames_min, window):
    starts = np.arange(60 * frames_min[0], 60 * frames_min[1], 300)
    metadata = sidecar(TracerName=tracer, FrameTimesStart=starts.tolist(), FrameDuration=[300] * len(starts))
    plan = plan_frames((4, 4, 4, len(starts)), metadata)
    assert (plan.window.start_min, plan.window.end_min) == window
    said = any(f"{window[0]} to {window[1]} minutes was taken" in sentence for sentence in plan.assumptions)
    assert said == (plan.window not in WINDOWS.values())


def test_frames_outside_the_window_are_left_out():
    plan = plan_frames(SHAPE, sidecar(), (85, 92.5))
    assert plan.indices == (1, 2)
    assert plan.weights == pytest.approx((2 / 3, 1 / 3))
    assert any("beyond the window" in sentence for sentence in plan.assumptions)


def test_times_are_counted_from_the_injection():
    late = sidecar(InjectionStart=-4800, FrameTimesStart=[0, 300, 600, 900])
    assert plan_frames(SHAPE, late).starts_s == (4800, 5100, 5400, 5700)
    assert plan_frames(SHAPE, late).assumptions == ()


def test_a_missing_injection_time_is_assumed_and_said():
    plan = plan_frames(SHAPE, sidecar(InjectionStart=...))
    assert any("InjectionStart" in sentence for sentence in plan.assumptions)


def test_partial_coverage_is_said():
    plan = plan_frames((8, 8, 8, 2), sidecar(FrameTimesStart=[4800, 5100], FrameDuration=[300, 300]))
    assert any("cover 10 of the 20 minutes" in sentence for sentence in plan.assumptions)


@pytest.mark.parametrize(
    "times",
    [
        {"FrameTimesStart": ..., "FrameDuration": ...},
        {"FrameTimesStart": [0], "FrameDuration": [1200]},
        {"FrameTimesStart": 0, "FrameDuration": 1200},
        {"FrameTimesStart": [4800], "FrameDuration": "n/a"},
    ],
)
@pytest.mark.parametrize("shape", [(8, 8, 8), (8, 8, 8, 1)])
def test_a_static_image_of_unknown_time_is_taken_as_late_and_this_is_said(shape, times):
    plan = plan_frames(shape, sidecar(**times))
    assert (plan.indices, plan.weights) == ((0,), (1.0,))
    assert any("taken as the late image of 80 to 100 minutes" in sentence for sentence in plan.assumptions)


def test_a_static_image_with_true_times_is_checked_against_the_window():
    plan = plan_frames((8, 8, 8), sidecar(FrameTimesStart=[4800], FrameDuration=[1200]))
    assert plan.assumptions == ()
    with pytest.raises(MetadataError, match="cover 30 to 50 minutes"):
        plan_frames((8, 8, 8), sidecar(FrameTimesStart=[1800], FrameDuration=[1200]))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"FrameTimesStart": ...}, "4 frames, but its sidecar has no FrameTimesStart"),
        ({"FrameDuration": ...}, "no FrameDuration"),
        ({"FrameTimesStart": [0, 300]}, "holds 2 numbers, but the PET image has 4 frames"),
        ({"FrameDuration": ["a", "b", "c", "d"]}, "FrameDuration is .*list of numbers"),
        ({"FrameTimesStart": {"a": 1}}, "FrameTimesStart is .*list of numbers"),
        ({"FrameDuration": [300, 0, 300, 300]}, "longer than 0"),
        ({"FrameTimesStart": [4800, 5400, 5100, 5700]}, "FrameTimesStart is not increasing"),
        ({"FrameDuration": [5100, 5400, 5700, 6000]}, "lengths in seconds, not end times"),
        ({"InjectionStart": "ten"}, "InjectionStart is 'ten'"),
        ({"Units": 7}, "Units is 7"),
        ({"Units": "bananas"}, "bananas"),
        ({"TracerName": ["AV1451"]}, "TracerName"),
    ],
)
def test_damaged_metadata_gives_one_clear_sentence(changes, sentence):
    with pytest.raises(MetadataError, match=sentence):
        plan_frames(SHAPE, sidecar(**changes))


@pytest.mark.parametrize(
    "units",
    [
        *("Bq/mL", "Bq/ml", "kBq/mL", "kBq/cc", "BQ/ML", "g/ml", "SUV", "SUVbw", "nCi/cc", "Bq.mL-1", "Bq·mL⁻¹"),
        *("Bq/mm3", "a.u.", "arbitrary units", "SUVR", "SUV_bw", "SUV (bw)", "SUVbw (g/mL)", "g/cc", "%ID/g", "Bq/ccm"),
        *("Bq/mL (decay corrected)", "[Bq/mL]", "Bq mL^{-1}", "10^3 Bq/mL", "BQML\0"),
        *("Bq/mL, decay corrected", "SUVbw g/ml", "Bq\\mL", "Standardized Uptake Value"),
    ],
)
def test_any_unit_proportional_to_activity_will_do_for_a_ratio(units):
    assert plan_frames(SHAPE, sidecar(Units=units)).assumptions == ()


@pytest.mark.parametrize("units", [..., "counts", "unknown", "unknown units"])
def test_an_absent_or_unusual_unit_is_an_assumption(units):
    assert any("proportional" in sentence for sentence in plan_frames(SHAPE, sidecar(Units=units)).assumptions)


@pytest.mark.parametrize(
    ("nuclide", "half_life_s"),
    [("F18", 6586.2), ("18F", 6586.2), ("^18^Fluorine", 6586.2), ("Fluorine-18", 6586.2), ("[C-11]", 1221.8)],
)
def test_frames_without_decay_correction_count_as_if_they_had_it(nuclide, half_life_s):
    times = {"FrameTimesStart": [4800, 5400], "FrameDuration": [600, 600], "InjectionStart": 0, "TracerName": "AV1451"}
    facts = times | {"TracerRadionuclide": nuclide, "Units": "Bq/mL"}
    plan = plan_frames((1, 1, 1, 2), facts | {"ImageDecayCorrected": False})
    # The later frame has decayed for ten minutes more.
    assert plan.weights[1] / plan.weights[0] == pytest.approx(2 ** (600 / half_life_s))
    assert sum(plan.weights) == pytest.approx(1)
    assert any("ImageDecayCorrected" in note for note in plan.assumptions)
    for stated in ({"ImageDecayCorrected": True}, {}, {"DecayCorrection": "START"}):
        assert plan_frames((1, 1, 1, 2), facts | stated).weights == (0.5, 0.5)


def test_the_words_of_dicom_for_the_decay_correction_count_where_bids_has_none():
    times = {"FrameTimesStart": [4800, 5400], "FrameDuration": [600, 600], "InjectionStart": 0, "TracerName": "AV1451"}
    facts = times | {"Units": "Bq/mL", "DecayCorrection": "NONE"}
    plan = plan_frames((1, 1, 1, 2), facts)
    assert plan.weights[1] > plan.weights[0]
    assert "(DecayCorrection)" in plan.assumptions[0]
    plan = plan_frames((1, 1, 1, 2), facts | {"ImageDecayCorrected": True})
    assert plan.weights == (0.5, 0.5)
    assert "check which" in plan.assumptions[0]


def test_one_frame_since_the_injection_is_not_taken_for_a_late_image_if_it_is_a_whole_scan():
    facts = {"FrameTimesStart": [0], "InjectionStart": 0, "TracerName": "AV1451", "Units": "Bq/mL"}
    with pytest.raises(MetadataError, match="lasts 120 minutes from the injection on"):
        plan_frames((1, 1, 1), facts | {"FrameDuration": [7200]})
    assert "taken as the late image" in plan_frames((1, 1, 1), facts | {"FrameDuration": [1800]}).assumptions[0]
    asked = plan_frames((1, 1, 1), facts | {"FrameDuration": [7200]}, (0, 120))
    assert "outside that of" not in " ".join(asked.assumptions)


def test_a_scan_after_midnight_may_count_from_the_midnight_before():
    facts = {"TracerName": "AV1451", "Units": "Bq/mL", "FrameDuration": [600, 600], "InjectionStart": 84600}
    after = corrected_pet_metadata(facts | {"FrameTimesStart": [89400, 90000]}, {})[0]
    assert plan_frames((1, 1, 1, 2), after).starts_s == (4800, 5400)
    with pytest.raises(MetadataError, match=r"6085200 s, more than a day after the injection.*milliseconds"):
        corrected_pet_metadata(facts | {"FrameTimesStart": [6_084_000, 6_084_600]}, {})
    with pytest.raises(MetadataError, match=r"more than a day .* must be in seconds$"):
        corrected_pet_metadata(facts | {"FrameTimesStart": [1.6e9, 1.6e9 + 600]}, {})


def test_a_single_frame_without_decay_correction_is_told_that_it_does_not_matter():
    facts = {"FrameTimesStart": [4800], "FrameDuration": [1200], "InjectionStart": 0, "TracerName": "AV1451"}
    plan = plan_frames((1, 1, 1), facts | {"Units": "Bq/mL", "ImageDecayCorrected": False})
    assert "cancels" in " ".join(plan.assumptions)


def test_frames_of_a_nuclide_without_a_known_half_life_are_averaged_as_they_are():
    times = {"FrameTimesStart": [4800, 5400], "FrameDuration": [600, 600], "InjectionStart": 0, "TracerName": "AV1451"}
    plan = plan_frames((1, 1, 1, 2), times | {"TracerRadionuclide": "Zr89", "ImageDecayCorrected": False})
    assert plan.weights == (0.5, 0.5)
    assert any("averaged as they are" in note for note in plan.assumptions)


def test_a_single_frame_before_the_injection_is_refused_and_a_minute_of_it_is_said():
    facts = {"FrameTimesStart": [0], "FrameDuration": [1200], "TracerName": "AV1451", "Units": "Bq/mL"}
    with pytest.raises(MetadataError, match="InjectionStart is 300 s after"):
        plan_frames((1, 1, 1), facts | {"InjectionStart": 300})
    (sentence,) = plan_frames((1, 1, 1), facts | {"InjectionStart": 20}).assumptions
    assert "starts 20 s before the injection" in sentence


@pytest.mark.parametrize("durations", [[20], [5, 5, 5, 5]])
def test_durations_in_minutes_beside_starts_in_seconds_are_refused(durations):
    starts = [4800 + 300 * frame for frame in range(len(durations))]
    with pytest.raises(MetadataError, match=r"last 20 s together.*are these minutes"):
        corrected_pet_metadata({"FrameTimesStart": starts, "FrameDuration": durations, "TracerName": "FTP"}, {})


@pytest.mark.parametrize(
    ("starts", "durations", "message"),
    [
        ([600 * frame for frame in range(10)], [10] * 10, "is FrameDuration in minutes"),
        ([80, 85, 90, 95], [300] * 4, "is FrameTimesStart in minutes"),
        ([4_800_000, 5_100_000, 5_400_000], [300] * 3, "milliseconds"),
    ],
)
def test_starts_and_durations_in_different_units_are_refused(starts, durations, message):
    with pytest.raises(MetadataError, match=message):
        corrected_pet_metadata({"FrameTimesStart": starts, "FrameDuration": durations, "TracerName": "FTP"}, {})


def test_the_start_of_one_frame_in_minutes_beside_its_duration_in_seconds_is_told():
    """Without the question, one would give the window of 1 to 21 minutes."""
    facts = {"FrameTimesStart": [80], "FrameDuration": [1200], "TracerName": "AV1451", "Units": "Bq/mL"}
    with pytest.raises(MetadataError, match=r"first frame starts 80 s after injection.*are these minutes"):
        plan_frames((1, 1, 1), facts)
    early = {**facts, "FrameTimesStart": [0, 300], "FrameDuration": [300, 300]}
    with pytest.raises(MetadataError, match="no frame lies in the window"):
        plan_frames((1, 1, 1, 2), early)


@pytest.mark.parametrize("hours", [12, 24])
def test_frames_later_than_the_window_by_a_turn_of_the_clock_are_told_so(hours):
    facts = {"FrameTimesStart": [0], "FrameDuration": [1200], "TracerName": "AV1451", "Units": "Bq/mL"}
    with pytest.raises(MetadataError, match=f"{hours} hours later"):
        plan_frames((1, 1, 1), facts | {"InjectionStart": -4800 - 3600 * hours})


@pytest.mark.parametrize("injection", [7200, 43200 + 4800])
def test_an_injection_after_the_frames_is_refused(injection):
    times = {"FrameTimesStart": [4800, 5400], "FrameDuration": [600, 600], "TracerName": "AV1451"}
    with pytest.raises(MetadataError, match="InjectionStart"):
        plan_frames((1, 1, 1, 2), times | {"InjectionStart": injection})


@pytest.mark.parametrize(("start", "usable"), [(4800, True), (5400, True), (4790, True), (2400, False), (6600, False)])
def test_one_frame_without_a_duration_is_used_only_if_it_starts_in_the_window(start: int, usable: bool) -> None:
    metadata = {"FrameTimesStart": [start], "InjectionStart": 0, "TracerName": "AV1451"}
    if usable:
        *_, note = plan_frames((9, 9, 9), metadata).assumptions
        assert f"starts {start / 60:.4g} minutes after injection, and its sidecar does not say how long" in note
    else:
        with pytest.raises(MetadataError, match="outside the window of 80 to 100 minutes, and its sidecar has no Fram"):
            plan_frames((9, 9, 9), metadata)
