import dataclasses
import json

import pytest
from synthesis_cohort import PEOPLE, Person, write_cohort, write_person

from tau_pipeline.derivatives.names import sidecar_path
from tau_pipeline.derivatives.status import ScanStatus, update_status
from tau_pipeline.errors import MissingInputError, SettingError, UnknownNameError
from tau_pipeline.files import read_json, write_json
from tau_pipeline.synthesis.data.pairs import find_pairs, search_pairs


def change_sidecar(path, **changes):
    write_json({**read_json(sidecar_path(path)), **changes}, sidecar_path(path))


def test_every_scan_is_paired_with_the_files_of_its_own_participant(tmp_path):
    pairs = find_pairs(write_cohort(tmp_path))
    assert [pair.scan for pair in pairs] == [f"sub-0{n}_trc-AV1451" for n in (1, 2, 3, 4)]
    for pair, person in zip(pairs, PEOPLE, strict=True):
        anat, pet = person.anat(tmp_path), person.pet(tmp_path)
        assert (pair.t1w_file, pair.mask_file, pair.dseg_file) == (anat.t1w, anat.mask, anat.dseg)
        assert (pair.suvr_file, pair.rois_file) == (pet.suvr(), pet.rois)
        assert (pair.participant, pair.participant_id, pair.session) == (person.label, f"sub-{person.label}", None)
    assert [pair.manufacturer for pair in pairs] == ["Siemens", "GE", "Siemens", "GE"]
    assert {(pair.tracer, pair.reference_region) for pair in pairs} == {("flortaucipir", "CerebellarGM")}


def test_the_t1w_is_the_one_that_the_sidecar_names_even_in_another_session(tmp_path):
    # Sorted by name, the PET of session b would meet the T1w of session a.
    for session, t1w_session in (("a", "b"), ("b", "c")):
        write_person(tmp_path, Person("01", session=session, t1w_session=t1w_session))
    found = search_pairs(tmp_path)
    assert {pair.session: pair.t1w_file.parts[-3] for pair in found.pairs} == {"a": "ses-b", "b": "ses-c"}
    assert found.unpaired == ()


def test_diagnoses_are_joined_by_participant_with_or_without_prefix(tmp_path):
    pairs = find_pairs(write_cohort(tmp_path), diagnoses={"sub-03": "AD", "01": "CN", "04": "", "99": "MCI"})
    assert [pair.diagnosis for pair in pairs] == ["CN", "n/a", "AD", "n/a"]


def test_a_t1w_without_pet_is_said_in_one_sentence(tmp_path):
    write_cohort(tmp_path)
    pet = PEOPLE[1].pet(tmp_path)
    pet.suvr().unlink()
    found = search_pairs(tmp_path)
    assert [pair.participant for pair in found.pairs] == ["01", "03", "04"]
    (sentence,) = found.unpaired
    assert sentence.startswith("sub-02_desc-preproc_T1w.nii.gz has no SUVR map")


@pytest.mark.parametrize("name", ["t1w", "mask", "dseg"])
def test_a_scan_whose_t1w_files_are_not_all_there_is_left_out_with_a_sentence(tmp_path, name):
    write_cohort(tmp_path)
    gone = getattr(PEOPLE[1].anat(tmp_path), name)
    gone.unlink()
    found = search_pairs(tmp_path)
    assert [pair.participant for pair in found.pairs] == ["01", "03", "04"]
    assert f"sub-02_trc-AV1451 is left out: its T1w's file {gone} is not there" in found.unpaired[0]


def test_a_missing_or_damaged_sidecar_leaves_out_only_its_scan(tmp_path):
    write_cohort(tmp_path)
    sidecar_path(PEOPLE[0].pet(tmp_path).suvr()).unlink()
    sidecar_path(PEOPLE[2].pet(tmp_path).suvr()).write_text("{", encoding="utf-8")
    found = search_pairs(tmp_path)
    assert [pair.participant for pair in found.pairs] == ["02", "04"]
    left_out = [sentence for sentence in found.unpaired if "is left out" in sentence]
    assert len(left_out) == 2
    assert "there is no file" in left_out[0]
    assert "not valid JSON" in left_out[1]


def test_what_the_cohort_leaves_out_is_not_trained_on(tmp_path):
    """A scan that the last run did not finish, and one whose raw image was removed from the dataset."""
    out, bids = write_cohort(tmp_path / "out"), tmp_path / "bids"
    for person in PEOPLE:
        raw = bids / f"sub-{person.label}/pet/sub-{person.label}_trc-AV1451_pet.nii.gz"
        raw.parent.mkdir(parents=True)
        raw.touch()
        uri = f"bids:raw:{raw.relative_to(bids).as_posix()}"
        change_sidecar(person.pet(out).suvr(), Sources=[uri])
    next(bids.glob("sub-01/pet/*")).unlink()
    stem = "sub-02_trc-AV1451"
    update_status(out, {f"{stem}_pet": ScanStatus(f"{stem}_pet", "failed", "its T1w is gone", stem)})
    found = search_pairs(out, bids_dir=bids)
    assert [pair.participant for pair in found.pairs] == ["03", "04"]
    told = " ".join(found.unpaired)
    assert "sub-01_trc-AV1451 is left out: its raw image" in told
    assert f"{stem} is left out: the last run did not finish it" in told


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (None, "is None"),
        (7, "is 7"),
        *(
            (uri, f"is {uri!r}; expected: the T1w of these derivatives, bids::sub-02/")
            for uri in (
                "bids:raw:sub-02/anat/sub-02_T1w.nii.gz",
                "bids::sub-02/../../sub-02_T1w.nii.gz",
                "bids::sub-02/anat/sub-02_rec-a.b_desc-preproc_T1w.nii.gz",
                "bids::sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
                "sub-02/anat/sub-02_desc-preproc_T1w.nii.gz",
            )
        ),
        ("bids::sub-02/ses-z/anat/sub-02_ses-z_desc-preproc_T1w.nii.gz", "is not there"),
    ],
)
def test_a_spatial_reference_that_leads_nowhere_leaves_out_the_scan(tmp_path, uri, said):
    write_cohort(tmp_path)
    change_sidecar(PEOPLE[1].pet(tmp_path).suvr(), SpatialReference=uri)
    found = search_pairs(tmp_path)
    assert [pair.participant for pair in found.pairs] == ["01", "03", "04"]
    assert said in found.unpaired[0]
    assert "sub-02" in found.unpaired[0]


def test_several_tracers_must_not_be_mixed_and_one_is_found_in_any_spelling(tmp_path):
    write_cohort(tmp_path, (*PEOPLE, Person("05", tracer="MK6240"), Person("01", tracer="MK6240")))
    with pytest.raises(SettingError, match=r"several tracers \(.*MK.*flortaucipir|several tracers \(flortaucipir.*MK"):
        find_pairs(tmp_path)
    assert len(find_pairs(tmp_path, tracer="[18F]AV-1451")) == 4
    assert [pair.scan for pair in find_pairs(tmp_path, tracer="mk-6240")] == ["sub-01_trc-MK6240", "sub-05_trc-MK6240"]
    with pytest.raises(UnknownNameError, match="FDG"):
        find_pairs(tmp_path, tracer="FDG")


def test_with_a_tracer_named_a_participant_with_another_is_no_pair_and_is_said(tmp_path):
    write_cohort(tmp_path, (*PEOPLE, Person("05", tracer="MK6240")))
    (sentence,) = search_pairs(tmp_path, tracer="AV1451").unpaired
    assert "sub-05" in sentence


def test_each_scan_gives_one_map_by_the_first_or_the_named_reference_region(tmp_path):
    people = tuple(dataclasses.replace(person, regions=("CerebellarGM", "Pons")) for person in PEOPLE)
    write_cohort(tmp_path, people)
    for region, desc in ((None, "suvr"), ("CerebellarGM", "suvr"), ("pons", "suvrPons")):
        pairs = find_pairs(tmp_path, reference_region=region)
        assert len(pairs) == 4
        assert all(f"_desc-{desc}_pet" in pair.suvr_file.name for pair in pairs)
    with pytest.raises(UnknownNameError, match="CerebralWM"):
        find_pairs(tmp_path, reference_region="CerebralWM")


def test_maps_by_different_reference_regions_must_not_be_mixed(tmp_path):
    write_cohort(tmp_path, (*PEOPLE, Person("05", regions=("Pons", "CerebellarGM"))))
    with pytest.raises(SettingError, match=r"CerebellarGM, Pons"):
        find_pairs(tmp_path)
    pairs = find_pairs(tmp_path, reference_region="CerebellarGM")
    assert [pair.suvr_file.name.split("desc-")[1] for pair in pairs] == ["suvr_pet.nii.gz"] * 4 + [
        "suvrCerebellarGM_pet.nii.gz"
    ]


def test_standardised_and_synthetic_maps_are_no_measurement(tmp_path):
    write_cohort(tmp_path)
    suvr = PEOPLE[0].pet(tmp_path).suvr()
    for desc in ("std", "synthSUVR"):
        other = suvr.with_name(suvr.name.replace("desc-suvr", f"desc-{desc}"))
        other.write_bytes(suvr.read_bytes())
        sidecar_path(other).write_text(json.dumps(read_json(sidecar_path(suvr))), encoding="utf-8")
    assert len(find_pairs(tmp_path)) == 4


@pytest.mark.parametrize(("named", "found"), [("CPS", "Siemens"), ("Acme", "Acme"), (None, "n/a")])
def test_the_manufacturer_has_its_one_name_and_an_unknown_one_keeps_its_own(tmp_path, named, found):
    write_cohort(tmp_path, (Person("01", manufacturer=named),))
    assert find_pairs(tmp_path)[0].manufacturer == found


def test_a_scan_without_table_of_regions_is_a_pair_all_the_same(tmp_path):
    write_cohort(tmp_path)
    PEOPLE[0].pet(tmp_path).rois.unlink()
    assert find_pairs(tmp_path)[0].rois_file is None


def test_a_folder_that_is_not_there_or_holds_nothing_is_refused(tmp_path):
    with pytest.raises(MissingInputError, match="there is no folder"):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(MissingInputError, match=r"holds no SUVR map.*run the participant level first"):
        find_pairs(tmp_path)
