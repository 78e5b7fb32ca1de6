import json
from pathlib import Path

import pytest

from tau_pipeline.bids.pet_metadata import corrected_pet_metadata, why_left_out
from tau_pipeline.bids.sidecars import (
    SidecarIndex,
    bool_value,
    number_list,
    number_value,
    text_value,
)
from tau_pipeline.bids.tracers import other_tracer, tracer_name
from tau_pipeline.errors import DamagedFileError, MetadataError
from tau_pipeline.files import name_parts


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
        (
            number_list,
            [([1, 2.5], (1.0, 2.5)), (4800, (4800.0,)), ([], None), ("n/a", None)],
            ["4800", True, [1, "2"], [[1]], [None]],
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_key_and_value(read, good, bad):
    assert read({}, "Key") is None
    for given, expected in good:
        assert read({"Key": given}, "Key") == expected
    for given in bad:
        with pytest.raises(MetadataError, match=r"Key is .*expected"):
            read({"Key": given}, "Key")


TIMES = {"FrameTimesStart": [4800, 5100], "FrameDuration": [300, 300], "InjectionStart": 0, "TracerName": "MK-6240"}


def test_whole_metadata_come_back_as_they_were_without_a_word():
    for metadata in ({}, TIMES, TIMES | {"ScanStart": 4800}, {"FrameTimesStart": [0], "FrameDuration": [1200]}):
        given = json.loads(json.dumps(metadata))
        assert corrected_pet_metadata(given, {"sub": "01"}) == (metadata, ())
        assert given == metadata, "the input is unchanged"


def test_the_file_name_tells_the_tracer_where_the_sidecar_does_not():
    mended, said = corrected_pet_metadata({"TracerName": "n/a"}, {"trc": "MK6240"})
    assert mended["TracerName"] == "MK6240"
    assert "TracerName" in said[0]
    assert corrected_pet_metadata(TIMES, {"trc": "MK6240"}) == (TIMES, ())


def test_frame_times_that_begin_before_the_scan_are_counted_from_the_scan():
    mended, said = corrected_pet_metadata(TIMES | {"FrameTimesStart": [0, 300], "ScanStart": 4800}, {})
    assert mended["FrameTimesStart"] == [4800, 5100]
    assert len(said) == 1
    assert "ScanStart" in said[0]


def test_end_times_written_as_durations_are_recognised_and_said():
    ends = {"FrameTimesStart": [0, 10, 30, 60], "FrameDuration": [10, 30, 60, 90]}
    mended, said = corrected_pet_metadata(ends, {})
    assert mended["FrameDuration"] == [10, 20, 30, 30]
    assert len(said) == 1
    assert "end times" in said[0]


@pytest.mark.parametrize(
    ("starts", "durations"),
    [([0, 10, 20, 40], [10, 10, 20, 40]), ([0, 60], [60, 60]), ([0], [3600]), ([0, 30, 60], [30, 30, 30])],
)
def test_real_durations_are_left_alone(starts, durations):
    metadata = {"FrameTimesStart": starts, "FrameDuration": durations}
    assert corrected_pet_metadata(metadata, {}) == (metadata, ())


@pytest.mark.parametrize(
    ("starts", "durations", "message"),
    [
        ([4.8e6, 5.1e6], [3e5, 3e5], "milliseconds"),
        ([0], [1.2e6], "milliseconds"),
        ([80, 85], [5, 5], "minutes"),
        ("4800", [300], "FrameTimesStart is '4800'"),
        ([4800], {"a": 1}, "FrameDuration is {'a': 1}"),
    ],
)
def test_times_in_another_unit_or_type_are_refused(starts, durations, message):
    with pytest.raises(MetadataError) as caught:
        corrected_pet_metadata({"FrameTimesStart": starts, "FrameDuration": durations}, {})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"Manufacturer": 3}, {"Units": ["Bq/mL"]}, {"ScanStart": "10:00"}, {"InjectionStart": [0]}]
)
def test_a_wrong_type_in_any_value_that_is_used_is_refused(wrong):
    with pytest.raises(MetadataError, match=next(iter(wrong))):
        corrected_pet_metadata(TIMES | wrong, {})


def test_a_whole_number_that_no_float_holds_is_refused_with_a_short_sentence():
    for value in (10**400, [10**400], "x" * 5000, {"x" * 5000: 1}):
        with pytest.raises(MetadataError) as caught:
            number_list({"FrameDuration": value}, "FrameDuration")
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("key", ["Radiopharmaceutical", "SeriesDescription"])
def test_another_tracer_in_a_text_beside_its_name_is_said(key):
    for text, other in (("[18F]MK6240", "MK-6240"), ("Fluorodeoxyglucose", "FDG"), ("AV1451 late", ""), ("PET", "")):
        corrected, notes = corrected_pet_metadata({"TracerName": "AV1451", key: text}, {"trc": "AV1451"})
        assert corrected["TracerName"] == "AV1451"
        assert [note for note in notes if other and f"{key} is {text!r}, which is {other}" in note] == list(notes)
        assert bool(notes) == bool(other)


def test_a_text_beside_its_name_tells_the_tracer_where_neither_name_nor_file_does():
    for key, text in (("Radiopharmaceutical", "18F-MK6240"), ("ProtocolName", "Tau_MK6240_90min")):
        for facts in ({}, {"TracerName": "Unknown"}):
            corrected, (note,) = corrected_pet_metadata(facts | {key: text}, {"trc": "tau"})
            assert corrected["TracerName"] == "MK-6240"
            assert f"taken from {key} ({text!r})" in note
    # FDG stands there by default on many scanners.
    assert corrected_pet_metadata({"Radiopharmaceutical": "Fluorodeoxyglucose"}, {})[0].get("TracerName") is None
    assert corrected_pet_metadata({"Radiopharmaceutical": "MK6240"}, {"trc": "AV1451"})[0]["TracerName"] == "AV1451"


@pytest.mark.parametrize(
    ("text", "name"),
    [("FAV1451", "flortaucipir"), ("MK6240tau", "MK-6240"), ("TauPETPI2620", "PI-2620"), ("AV1451PET", "flortaucipir")],
)
def test_what_people_write_around_the_name_of_a_tracer(text, name):
    assert tracer_name(text) == name
    assert tracer_name("tau") is None
    assert other_tracer("FAV45") == "florbetapir"
    assert tracer_name("Tauvid") == "flortaucipir"


@pytest.mark.parametrize("missing", ["N/A", "n/a", " "])
def test_a_missing_value_in_capitals_is_one(missing):
    assert text_value({"Units": missing}, "Units") is None
    assert number_list({"FrameTimesStart": missing}, "FrameTimesStart") is None


@pytest.mark.parametrize(
    ("nuclide", "said"), [("C11", 1), ("11-C", 1), ("Ga68", 1), ("F18", 0), ("18F", 0), ("fluorine", 0), (None, 0)]
)
def test_another_nuclide_than_that_of_the_tracer_is_said(nuclide, said):
    _, notes = corrected_pet_metadata({"TracerName": "AV1451", "TracerRadionuclide": nuclide}, {})
    assert len(notes) == said
    assert all(f"{nuclide!r}, but flortaucipir is labeled with fluorine-18" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "rec"),
    [
        ("NONE, 0.000000 cm-1,", None),
        ("none", None),
        ("No attenuation correction", None),
        ("not corrected", None),
        ("Non-attenuation corrected", None),
        ("n/a", "nacstat"),
        (None, "nacdyn"),
        (None, "NAC"),
        (None, "osemNAC"),
        (None, "OSEMnoAC"),
        (None, "noatten"),
        (None, "osemnacstat"),
        (False, None),
    ],
)
def test_an_image_without_attenuation_correction_is_left_out(text, rec):
    why = why_left_out({} if text is None else {"AttenuationCorrection": text}, {"rec": rec} if rec else {})
    assert "attenuation" in why
    assert (f"rec-{rec}" if rec else "AttenuationCorrection is") in why


@pytest.mark.parametrize(
    "metadata",
    [
        {"AttenuationCorrection": "decay corrected, no AC"},
        {"AttenuationCorrection": "scatter: yes; without attenuation correction"},
        {"AttenuationCorrection": ["NONE"]},
        {"AttenuationCorrection": "w/o AC"},
        {"AttenuationCorrection": "[NONE]"},
        {"AttenuationCorrection": "Attenuation correction: NO"},
        {"AttenuationCorrection": "AC = false"},
        {"AttenuationCorrection": "no_AC"},
        {"AttenuationCorrection": "disabled"},
        {"AttenuationCorrection": "NACstat"},
        {"SeriesDescription": "PET brain without AC"},
        {"SeriesDescription": "non-attenuation corrected"},
        {"AttenuationCorrection": "Attenuation correction not performed"},
        {"AttenuationCorrection": "0"},
        {"SeriesDescription": "tauNAC"},
        {"SeriesDescription": "WB_NoAttn"},
        {"AttenuationCorrection": 0},
        {"AttenuationCorrectionMethod": "none"},
        {"AttenuationCorrectionMethodReconstruction": "none"},
        {"AttenuationCorrection": "n/a", "AttenuationCorrectionMethodReconstruction": ["NONE"]},
        {"CorrectedImage": ["DECY", "RAN", "SCAT"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "NAC"]},
        {"ImageComments": "NAC reconstruction"},
        {"SeriesDescription": "Brain_NAC 20min"},
        {"AttenuationCorrection": "n/a", "SeriesDescription": "PET (uncorrected)"},
    ],
)
def test_other_words_and_keys_for_no_attenuation_correction(metadata):
    assert "attenuation" in why_left_out(metadata, {})


def test_the_name_of_a_series_does_not_outweigh_the_attenuation_correction_that_is_stated():
    assert why_left_out({"AttenuationCorrection": "CT", "SeriesDescription": "tau NAC and AC"}, {}) == ""
    assert why_left_out({"SeriesDescription": "Monaco tau AC"}, {}) == ""
    assert why_left_out({}, {"rec": "acdyn"}) == ""
    assert why_left_out({"CorrectedImage": ["DECY", "ATTN"], "ImageType": ["ORIGINAL", "PRIMARY"]}, {}) == ""


def test_a_series_that_contradicts_the_attenuation_correction_is_told():
    _, notes = corrected_pet_metadata({"AttenuationCorrection": "CT", "SeriesDescription": "PET NAC"}, {})
    assert "check that this is the corrected series" in notes[0]
    _, notes = corrected_pet_metadata({"AttenuationCorrection": "CT", "SeriesDescription": "PET AC"}, {})
    assert notes == ()


@pytest.mark.parametrize(
    "text",
    ["measured,CT", "[10-min transmission]", "none needed", "CT, no scatter", "CT; scatter: none", "n/a", "", None],
)
def test_an_image_that_is_corrected_or_says_nothing_is_used(text):
    assert why_left_out({"AttenuationCorrection": text}, {"rec": "acstat"}) == ""


@pytest.mark.parametrize(
    ("stated", "used"),
    [
        ("Unknown", "MK6240"),
        ("Solution", "MK6240"),
        (None, "MK6240"),
        ("[18F]MK-6240 (florquinitau)", "[18F]MK-6240 (florquinitau)"),
        ("18F-MK-6240 batch 7", "18F-MK-6240 batch 7"),
    ],
)
def test_the_file_name_gives_the_tracer_where_the_sidecar_names_none(stated, used):
    corrected, notes = corrected_pet_metadata({"TracerName": stated} if stated else {}, {"trc": "MK6240"})
    assert corrected["TracerName"] == used
    assert bool(notes) == (used != stated)


@pytest.mark.parametrize(
    ("stated", "label"),
    [("AV1451", "MK6240"), ("Fluorodeoxyglucose", "AV1451"), ("MK6240", "PiB"), ("THK5351", "AV1451")],
)
def test_two_tracers_of_one_scan_are_refused(stated, label):
    with pytest.raises(MetadataError, match=f"{stated}.*{label}"):
        corrected_pet_metadata({"TracerName": stated}, {"trc": label})


@pytest.mark.parametrize(
    ("drop", "given"),
    [("FrameTimesStart", "FrameTimeStart"), ("InjectionStart", "injectionStart"), ("TracerName", "TraceName")],
)
def test_a_key_that_is_nearly_spelled_as_one_that_is_read_is_named(drop: str, given: str) -> None:
    whole = {"TracerName": "AV1451", "FrameTimesStart": [4800], "FrameDuration": [1200], "InjectionStart": 0}
    assert corrected_pet_metadata(whole, {"trc": "AV1451"})[1] == ()
    metadata = {key: value for key, value in whole.items() if key != drop} | {given: whole[drop]}
    notes = corrected_pet_metadata(metadata, {"trc": "AV1451"})[1]
    assert f"The sidecar has no {drop}, but {given}, which is not read: is it misspelled?" in notes
    assert corrected_pet_metadata({**whole, given: 1}, {"trc": "AV1451"})[1] == (), "both are there"


@pytest.mark.parametrize(
    ("starts", "told"),
    [
        ([4800, 5300, 5900, 6700], True),  # each multiplied by its decay, as a converter did
        ([4800, 5100, 5700, 6000], False),  # one frame was lost
        ([4800, 5101, 5402, 5703], False),
    ],
)
def test_gaps_after_all_frames_are_told(starts: list[int], told: bool) -> None:
    metadata = {"TracerName": "AV1451", "FrameTimesStart": starts, "FrameDuration": [300] * 4}
    notes = corrected_pet_metadata(metadata, {"trc": "AV1451"})[1]
    assert any("There is a gap after every frame" in note for note in notes) == told
