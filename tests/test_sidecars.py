import json
from pathlib import Path

import pytest

from tau_pipeline.errors import DamagedFileError, MetadataError
from tau_pipeline.sidecars import (
    SidecarIndex,
    bool_value,
    frame_times,
    name_parts,
    number_list,
    number_value,
    text_value,
)


def put(path: Path, **content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_a_name_gives_its_entities_in_order_and_its_suffix():
    entities, suffix = name_parts(Path("sub-01_ses-a_trc-AV1451_rec-acdyn_run-02_pet.nii.gz"))
    assert list(entities.items()) == [("sub", "01"), ("ses", "a"), ("trc", "AV1451"), ("rec", "acdyn"), ("run", "02")]
    assert suffix == "pet"


def test_values_are_inherited_from_above_and_the_nearest_wins(tmp_path):
    files = [
        put(tmp_path / "pet.json", Units="Bq/mL", Manufacturer="root", Model="root", Who="root"),
        put(tmp_path / "trc-AV1451_pet.json", Who="root, tracer"),
        put(tmp_path / "trc-OTHER_pet.json", Units="another tracer's"),
        put(tmp_path / "T1w.json", Units="another suffix's"),
        put(tmp_path / "sub-01" / "sub-01_pet.json", Manufacturer="participant", Model="participant"),
        put(tmp_path / "sub-02" / "sub-02_pet.json", Model="another participant's"),
        put(tmp_path / "sub-01" / "ses-a" / "pet" / "sub-01_ses-a_trc-AV1451_pet.json", Model="image"),
        put(tmp_path / "sub-01" / "ses-a" / "pet" / "sub-01_ses-a_trc-AV1451_run-1_pet.json", Model="run"),
    ]
    image = tmp_path / "sub-01" / "ses-a" / "pet" / "sub-01_ses-a_trc-AV1451_pet.nii.gz"
    expected = {"Units": "Bq/mL", "Who": "root, tracer", "Manufacturer": "participant", "Model": "image"}
    assert SidecarIndex(tmp_path, files).metadata(image) == expected
    assert SidecarIndex(tmp_path, reversed(files)).metadata(image) == expected


def test_a_damaged_sidecar_is_named(tmp_path):
    broken = tmp_path / "pet.json"
    broken.write_text('{"Units": "Bq/mL",')
    with pytest.raises(DamagedFileError, match=r"pet\.json is not valid JSON"):
        SidecarIndex(tmp_path, [broken]).metadata(tmp_path / "sub-01" / "pet" / "sub-01_pet.nii.gz")


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (text_value, [(" GE ", "GE"), ("n/a", None), ("", None), (None, None)], [3, ["GE"], True]),
        (bool_value, [(True, True), (False, False), ("n/a", None)], ["true", 1, [True]]),
        (number_value, [(3, 3.0), (-2.5, -2.5), ("n/a", None)], ["3", True, [3], float("nan")]),
        (number_list, [([1, 2.5], (1.0, 2.5)), ([], None), ("n/a", None)], ["4800", 4800, [1, "2"], [[1]], [None]]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_key_and_value(read, good, bad):
    assert read({}, "Key") is None
    for given, expected in good:
        assert read({"Key": given}, "Key") == expected
    for given in bad:
        with pytest.raises(MetadataError, match=r"Key is .* needed"):
            read({"Key": given}, "Key")


def test_frame_times_count_from_the_injection():
    metadata = {"FrameTimesStart": [0, 300], "FrameDuration": [300, 300], "InjectionStart": -4800, "ScanStart": 0}
    times, said = frame_times(metadata, 2)
    assert times is not None
    assert (times.starts_s, times.durations_s, said) == ((4800.0, 5100.0), (300.0, 300.0), ())


def test_frame_times_that_begin_before_the_scan_are_counted_from_the_scan():
    metadata = {"FrameTimesStart": [0, 300], "FrameDuration": [300, 300], "InjectionStart": 0, "ScanStart": 4800}
    times, said = frame_times(metadata, 2)
    assert times is not None
    assert times.starts_s == (4800.0, 5100.0)
    assert len(said) == 1
    assert "ScanStart" in said[0]


def test_a_missing_injection_time_is_said():
    _, said = frame_times({"FrameTimesStart": [4800], "FrameDuration": [1200]}, 1)
    assert len(said) == 1
    assert "InjectionStart" in said[0]


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"FrameTimesStart": [4800]},
        {"FrameTimesStart": "n/a", "FrameDuration": []},
        {"FrameTimesStart": [0], "FrameDuration": [1200], "InjectionStart": 0},
    ],
)
def test_a_static_image_without_times_or_from_zero_is_taken_as_the_late_image_and_says_so(metadata):
    times, said = frame_times(metadata, 1)
    assert times is None
    assert any("taken as the late image" in sentence for sentence in said)


@pytest.mark.parametrize("metadata", [{}, {"FrameTimesStart": [0, 60]}, {"FrameDuration": [60, 60]}])
def test_a_dynamic_pet_without_times_is_an_error(metadata):
    with pytest.raises(MetadataError, match="2 frames but its sidecar has no Frame"):
        frame_times(metadata, 2)


@pytest.mark.parametrize(
    ("starts", "durations", "message"),
    [
        ([4800], [300, 300], "FrameTimesStart has 1 values but the PET has 2 frames"),
        ([4800, 5100], [300], "FrameDuration has 1 values but the PET has 2 frames"),
        ([4800, 5100], [300, 0], "durations in seconds above 0"),
        ([4800, 5100], [300, -5], "durations in seconds above 0"),
        ([4.8e6, 5.1e6], [3e5, 3e5], "milliseconds"),
        ([80, 85], [5, 5], "minutes"),
        ([5100, 4800], [300, 300], "must not overlap"),
        ([4800, 4900], [300, 300], "frame 1 ends at 5100 s but frame 2 starts at 4900 s"),
    ],
)
def test_impossible_frame_times_are_refused(starts, durations, message):
    with pytest.raises(MetadataError) as caught:
        frame_times({"FrameTimesStart": starts, "FrameDuration": durations, "InjectionStart": 0}, 2)
    assert message in str(caught.value)


def test_end_times_written_as_durations_are_recognised_and_said():
    ends = {"FrameTimesStart": [0, 10, 30, 60], "FrameDuration": [10, 30, 60, 90], "InjectionStart": 0}
    times, said = frame_times(ends, 4)
    assert times is not None
    assert times.durations_s == (10.0, 20.0, 30.0, 30.0)
    assert any("end times" in sentence for sentence in said)


def test_real_durations_are_left_alone():
    metadata = {"FrameTimesStart": [0, 10, 20, 40], "FrameDuration": [10, 10, 20, 40], "InjectionStart": 0}
    times, said = frame_times(metadata, 4)
    assert times is not None
    assert (times.durations_s, said) == ((10.0, 10.0, 20.0, 40.0), ())
