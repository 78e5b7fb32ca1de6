"""Trees are built from a plan; what must be found follows from the plan, never from the code under test."""

import functools
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from closed_folders import closed
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tau_pipeline.bids.filters import without_match
from tau_pipeline.bids.left_out import passed_over_folders
from tau_pipeline.bids.scans import Participant, find_participants, participant_labels
from tau_pipeline.errors import DamagedFileError, MissingInputError, SettingError
from tau_pipeline.settings.participant import Selection
from tau_workflows.cli import main
from tau_workflows.interfaces.anat import ReadT1w

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
STATIC = {"FrameTimesStart": [4800], "FrameDuration": [1200], "InjectionStart": 0, "TracerName": "flortaucipir"}


@functools.cache
def image_bytes(ending: str, frames: int = 1) -> bytes:
    shape = (2, 2, 2) if frames == 1 else (2, 2, 2, frames)
    plain = nib.Nifti1Image(np.ones(shape, np.int16), np.eye(4)).to_bytes()
    if ending == ".nii":
        return plain
    import gzip

    return gzip.compress(plain, mtime=0)


def put(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def put_image(path: Path, frames: int = 1) -> Path:
    return put(path, image_bytes("".join(path.suffixes[-2:]) if path.suffix == ".gz" else ".nii", frames))


def put_pet(folder: Path, stem: str, ending: str = ".nii.gz", frames: int = 1, **metadata: object) -> Path:
    tracer = re.search("trc-([0-9A-Za-z]+)", stem)
    named = {"TracerName": tracer.group(1)} if tracer and tracer.group(1) != "AV1451" else {}
    put(folder / f"{stem}_pet.json", STATIC | named | metadata)
    return put_image(folder / f"{stem}_pet{ending}", frames)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path / "dataset_description.json", {"Name": "test", "BIDSVersion": "1.10.0"})
    return tmp_path


@pytest.fixture
def simple(root: Path) -> Path:
    """Two whole participants."""
    for label in ("01", "02"):
        put_image(root / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz")
        put_pet(root / f"sub-{label}" / "pet", f"sub-{label}_trc-AV1451")
    return root


def found(root: Path, **selection: object) -> dict[str, Participant]:
    return {one.label: one for one in find_participants(root, Selection(**selection))}


def keys(participant: Participant) -> list[str]:
    return [scan.key for scan in participant.scans]


def test_what_is_simulated_is_said_to_be_so_in_every_result(simple: Path) -> None:
    put(simple / "sub-01" / "anat" / "sub-01_T1w.json", {"Simulated": True})
    put_pet(simple / "sub-01" / "pet", "sub-01_trc-AV1451", Simulated=True)
    put_pet(simple / "sub-02" / "pet", "sub-02_trc-AV1451", Simulated=False)
    participants = found(simple)
    about = participants["01"].scans[0].assumptions
    assert [sentence.split(",")[0] for sentence in about] == ["The PET is simulated", "The T1w is simulated"]
    assert participants["01"].t1ws[0].assumptions == about[1:]
    assert participants["02"].scans[0].assumptions == ()


# --- the whole dataset ---


def test_a_folder_that_is_no_dataset_is_refused_with_the_reason(tmp_path):
    with pytest.raises(MissingInputError, match="is not a folder"):
        find_participants(tmp_path / "absent")
    with pytest.raises(MissingInputError, match=r"has no dataset_description\.json"):
        find_participants(tmp_path)
    put(tmp_path / "dataset_description.json", b"{")
    with pytest.raises(DamagedFileError, match=r"dataset_description\.json is not valid JSON"):
        find_participants(tmp_path)
    put(tmp_path / "dataset_description.json", {"Name": "test"})
    with pytest.raises(MissingInputError, match="no participants"):
        find_participants(tmp_path)


def test_an_unknown_participant_is_refused_with_the_known_ones(simple):
    with pytest.raises(SettingError, match=r"no participant '03' in .*; known: 01, 02"):
        found(simple, participant_label=("03",))


@pytest.mark.parametrize("label", ["02", "sub-02"])
def test_a_participant_is_asked_for_with_or_without_prefix(simple, label):
    assert list(found(simple, participant_label=(label,))) == ["02"]


def test_other_folders_are_left_alone(simple):
    for name in ("derivatives/fmriprep", "sourcedata", "truth", "code", ".git"):
        put_image(simple / name / "sub-01" / "anat" / "sub-01_run-1_T1w.nii.gz")
        put_pet(simple / name / "sub-01" / "pet", "sub-01_trc-other")
    put_image(simple / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz", frames=2)
    one = found(simple)["01"]
    assert keys(one) == ["sub-01_trc-AV1451"]
    assert one.scans[0].assumptions == ()
    assert one.problems == ()


def test_an_image_beside_the_participants_folders_is_nobodys(simple):
    put_image(simple / "sub-01_pet.nii.gz")
    assert len(found(simple)["01"].scans) == 1


def test_a_label_that_bids_does_not_allow_is_named(simple):
    put_pet(simple / "sub-01/pet", "sub-01_trc-AV 1451")
    problems = [str(problem) for problem in found(simple)["01"].problems]
    assert any("'AV 1451' for trc" in problem for problem in problems)
    assert len(found(simple)["01"].scans) == 1


@pytest.mark.parametrize("name", [b"sub-01/pet/sub-01_trc-A\xffB_pet.nii.gz", b"notes\xe9"])
def test_a_name_that_is_not_utf8_is_refused_with_its_bytes(simple, name, capsys):
    (simple / os.fsdecode(name)).touch()
    out = simple.parent / f"{simple.name}-out"
    places = [str(simple), str(out), "participant", "-w", f"{out}-work"]
    assert main([*places, "--skip-bids-validation", "--dry-run"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert f"{simple}/{name.decode('utf-8', 'backslashreplace')} is not in UTF-8" in told
    assert not out.exists()


def test_a_name_that_is_not_utf8_is_nobodys_business_where_no_images_are(simple):
    (simple / "sourcedata").mkdir()
    (simple / "sourcedata" / os.fsdecode(b"\xff.txt")).touch()
    assert len(find_participants(simple)) == 2


def test_a_dataset_given_by_a_relative_path_or_link_is_the_same(simple, tmp_path_factory, monkeypatch):
    link = tmp_path_factory.mktemp("elsewhere") / "dataset"
    link.symlink_to(simple)
    assert [keys(one) for one in find_participants(link)] == [keys(one) for one in find_participants(simple)]
    monkeypatch.chdir(simple.parent)
    relative = find_participants(Path(simple.name))
    assert [one.scans[0].pet_file for one in relative] == [one.scans[0].pet_file for one in find_participants(simple)]


def test_folders_above_the_dataset_have_no_say(root):
    deep = root / "sub-99" / "ses-99" / "data"
    put(deep / "dataset_description.json", {"Name": "test"})
    put_image(deep / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    assert [t1w.key for t1w in found(deep)["01"].t1ws] == ["sub-01"]


# --- what a scan carries ---


def test_a_scan_carries_names_metadata_and_its_t1w(root):
    put_image(root / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_T1w.nii")
    put(root / "pet.json", {"Manufacturer": "GE MEDICAL SYSTEMS", "ManufacturersModelName": "Discovery 690"})
    stem = "sub-01_ses-a_trc-AV1451_rec-acdyn_run-02"
    pet_file = put_pet(root / "sub-01" / "ses-a" / "pet", stem, ".nii", TracerRadionuclide="F18")
    (scan,) = found(root)["01"].scans
    assert (scan.participant, scan.session, scan.rec, scan.run) == ("01", "a", "acdyn", "02")
    assert (scan.tracer, scan.radionuclide) == ("flortaucipir", "F18")
    assert (scan.manufacturer, scan.model) == ("GE MEDICAL SYSTEMS", "Discovery 690")
    assert (scan.pet_file, scan.key, scan.n_frames) == (pet_file, stem, 1)
    assert scan.pet_metadata["FrameTimesStart"] == [4800]
    assert scan.t1w.key == "sub-01_ses-a"
    assert scan.assumptions == ()


def test_the_file_name_tells_the_tracer_where_the_sidecar_does_not(simple):
    put(simple / "sub-01" / "pet" / "sub-01_trc-AV1451_pet.json", {**STATIC, "TracerName": "n/a"})
    put_pet(simple / "sub-02" / "pet", "sub-02", TracerName=None)
    participants = found(simple)
    assert participants["01"].scans[0].tracer == "AV1451"
    assert "TracerName" in participants["01"].scans[0].assumptions[0]
    unnamed = next(scan for scan in participants["02"].scans if scan.key == "sub-02")
    assert unnamed.tracer is None


def test_of_a_compressed_and_a_plain_copy_one_is_taken(simple):
    put_image(simple / "sub-01" / "pet" / "sub-01_trc-AV1451_pet.nii")
    put_image(simple / "sub-01" / "anat" / "sub-01_T1w.nii")
    one = found(simple)["01"]
    assert [scan.pet_file.name for scan in one.scans] == ["sub-01_trc-AV1451_pet.nii.gz"]
    assert one.scans[0].t1w.path.name == "sub-01_T1w.nii.gz"


def test_skull_stripped_comes_from_the_t1w_sidecar(simple):
    put(simple / "sub-01" / "anat" / "sub-01_T1w.json", {"SkullStripped": True})
    participants = found(simple)
    assert participants["01"].t1ws[0].skull_stripped is True
    assert participants["02"].t1ws[0].skull_stripped is None


def test_a_participant_without_pet_keeps_its_anatomy(simple):
    shutil.rmtree(simple / "sub-02" / "pet")
    two = found(simple)["02"]
    assert ([t1w.key for t1w in two.t1ws], two.scans, two.problems) == (["sub-02"], (), ())


def test_sessions_without_pet_are_processed_unless_certain_pets_were_asked_for(root):
    for session in ("a", "b"):
        put_image(root / "sub-01" / f"ses-{session}" / "anat" / f"sub-01_ses-{session}_T1w.nii.gz")
    put_pet(root / "sub-01" / "ses-b" / "pet", "sub-01_ses-b_trc-AV1451")
    assert [t1w.session for t1w in found(root)["01"].t1ws] == ["a", "b"]
    assert [t1w.session for t1w in found(root, session_label=("a",))["01"].t1ws] == ["a"]
    assert [t1w.session for t1w in found(root, tracer_label=("AV1451",))["01"].t1ws] == ["b"]
    assert found(root, tracer_label=("other",))["01"].t1ws == ()


# --- selections ---


@pytest.fixture
def many(root: Path) -> Path:
    for session in ("a", "b"):
        folder, stem = root / "sub-01" / f"ses-{session}", f"sub-01_ses-{session}"
        put_image(folder / "anat" / f"{stem}_T1w.nii.gz")
        for tracer in ("AV1451", "MK6240"):
            for rec in ("acdyn", "acstat"):
                for run in ("01", "02"):
                    put_pet(folder / "pet", f"{stem}_trc-{tracer}_rec-{rec}_run-{run}")
    return root


@pytest.mark.parametrize(
    ("selection", "part"),
    [
        ({"session_label": ("ses-b",)}, "ses-b"),
        ({"tracer_label": ("MK6240",)}, "trc-MK6240"),
        ({"rec_label": ("acstat",)}, "rec-acstat"),
        ({"run_label": ("1",)}, "run-01"),
        ({"run_label": ("run-02",)}, "run-02"),
    ],
)
def test_each_label_selects_the_scans_with_it(many, selection, part):
    everything = keys(found(many)["01"])
    assert len(everything) == 16
    assert keys(found(many, **selection)["01"]) == [key for key in everything if part in key]


@pytest.mark.parametrize(
    ("selection", "lost"),
    [
        ({}, ""),
        ({"tracer_label": ("AV1451", "MK9999")}, "trc-MK9999"),
        ({"session_label": ("zz",)}, "ses-zz"),
        ({"run_label": ("1", "77")}, "run-77"),
    ],
)
def test_labels_that_match_nothing_are_told(many, selection, lost):
    chosen = Selection(**selection)
    told = without_match(find_participants(many, chosen), chosen)
    assert bool(told) == bool(lost)
    assert lost in " ".join(told)


def test_labels_combine(many):
    selected = found(many, session_label=("a",), tracer_label=("AV1451",), rec_label=("acdyn",), run_label=("2",))
    assert keys(selected["01"]) == ["sub-01_ses-a_trc-AV1451_rec-acdyn_run-02"]


@pytest.mark.parametrize(
    ("pet_filter", "count"),
    [
        ({"session": "a"}, 8),
        ({"tracer": "MK6240", "reconstruction": "acdyn"}, 4),
        ({"run": 1}, 8),
        ({"tracer": ["AV1451", "MK6240"]}, 16),
        ({"tracer": None}, 0),
        ({"tracer": "*"}, 16),
        ({"tracer": "Query.NONE"}, 0),
        ({"tracer": "^MK", "regex_search": True}, 8),
    ],
)
def test_a_filter_file_selects_as_pybids_does(many, tmp_path_factory, pet_filter, count):
    path = put(tmp_path_factory.mktemp("filters") / "f.json", {"pet": pet_filter, "bold": {"task": "rest"}})
    assert len(keys(found(many, bids_filter_file=path)["01"])) == count


def test_a_filter_of_the_t1w_decides_which_t1w_is_used(many, tmp_path_factory):
    path = put(tmp_path_factory.mktemp("filters") / "f.json", {"t1w": {"session": "a"}})
    assert {scan.t1w.session for scan in found(many, bids_filter_file=path)["01"].scans} == {"a"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pett": {}}, "there is no filter 'pett'; did you mean 'pet'"),
        ({"pet": {"tracr": "x"}}, "'tracr' is not a recognized entity"),
        ({"pet": ["x"]}, "the filter 'pet' is"),
    ],
)
def test_a_wrong_filter_is_refused(many, tmp_path_factory, content, message):
    path = put(tmp_path_factory.mktemp("filters") / "f.json", content)
    with pytest.raises(SettingError) as caught:
        found(many, bids_filter_file=path)
    assert message in str(caught.value)


def test_a_filter_file_that_is_missing_or_damaged_is_refused(many, tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters")
    with pytest.raises(MissingInputError):
        found(many, bids_filter_file=folder / "absent.json")
    with pytest.raises(DamagedFileError):
        found(many, bids_filter_file=put(folder / "f.json", b"{"))


# --- broken participants ---


def without_t1w(sub: Path) -> None:
    shutil.rmtree(sub / "anat")


def damage(name: str, content: bytes):
    return lambda sub: put(sub / name, content)


def metadata(**changes: object):
    return lambda sub: put(sub / "pet" / "sub-01_trc-AV1451_pet.json", STATIC | changes)


def dangling(sub: Path) -> None:
    (sub / "pet" / "sub-01_trc-AV1451_pet.nii.gz").unlink()
    (sub / "pet" / "sub-01_trc-AV1451_pet.nii.gz").symlink_to("../../.git/annex/objects/absent")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (without_t1w, "there is no T1w in any session"),
        (damage("pet/sub-01_trc-AV1451_pet.json", b'{"FrameTimesStart": [48'), "is not valid JSON"),
        (damage("pet/sub-01_trc-AV1451_pet.json", b"[1, 2]"), "a JSON object"),
        (damage("pet/sub-01_trc-AV1451_pet.nii.gz", b""), "is empty (0 bytes)"),
        (damage("pet/sub-01_trc-AV1451_pet.nii.gz", b"not an image"), "is damaged or is not an image"),
        (damage("pet/sub-01_trc-AV1451_pet.nii.gz", image_bytes(".nii.gz")[:40]), "is damaged or is not an image"),
        (dangling, "broken link"),
        (metadata(FrameTimesStart="4800"), "FrameTimesStart is '4800'"),
        (metadata(FrameDuration=[1200000]), "must be in seconds"),
        (metadata(TracerName=["AV1451"]), "TracerName is ['AV1451']; expected: text"),
        (metadata(Manufacturer=3), "Manufacturer is 3"),
        (damage("anat/sub-01_T1w.json", b"{"), "its T1w cannot be used"),
        (damage("anat/sub-01_T1w.json", b'{"SkullStripped": "true"}'), "SkullStripped is 'true'"),
        (damage("anat/sub-01_T1w.nii.gz", b""), "its T1w cannot be used"),
        (damage("anat/sub-01_T1w.nii.gz", image_bytes(".nii.gz", 3)), "a T1w of one volume is needed"),
    ],
)
def test_a_broken_participant_has_a_problem_and_the_other_none(simple, break_it, message):
    whole = found(simple)["02"]
    break_it(simple / "sub-01")
    participants = found(simple)
    assert participants["01"].scans == ()
    of_the_scan = [problem for problem in participants["01"].problems if problem.key == "sub-01_trc-AV1451_pet"]
    assert len(of_the_scan) == 1
    assert message in of_the_scan[0].message
    assert "\n" not in str(of_the_scan[0])
    assert participants["02"] == whole


def test_of_several_echoes_the_first_is_taken_only_where_the_sidecar_lists_them(simple, tmp_path_factory):
    echoes = np.stack([np.full((2, 2, 2), value, np.int16) for value in (7, 9)], -1)
    path = simple / "sub-01/anat/sub-01_T1w.nii.gz"
    nib.save(nib.Nifti1Image(echoes, np.eye(4)), path)
    for stated in (0.003, [0.003], ["a", "b"], None):
        put(path.with_name("sub-01_T1w.json"), {"EchoTime": stated})
        assert found(simple)["01"].scans == ()
    put(path.with_name("sub-01_T1w.json"), {"EchoTime": [0.002, 0.005]})
    (t1w,) = found(simple)["01"].t1ws
    assert t1w.shape == (2, 2, 2)
    assert "2 volumes" in " ".join(t1w.assumptions)
    read = ReadT1w(t1w_file=str(path)).call(tmp_path_factory.mktemp("read"))
    assert set(np.asanyarray(nib.load(read["t1w_file"]).dataobj).ravel()) == {7}


def test_one_broken_scan_leaves_the_other_scans_of_the_participant(simple):
    put(simple / "sub-01" / "pet" / "sub-01_trc-MK6240_pet.nii.gz", b"")
    one = found(simple)["01"]
    assert keys(one) == ["sub-01_trc-AV1451"]
    assert [problem.key for problem in one.problems] == ["sub-01_trc-MK6240_pet"]


def test_a_participant_with_neither_t1w_nor_pet_has_a_problem(simple):
    put(simple / "sub-03" / "func" / "sub-03_bold.json", {})
    three = found(simple)["03"]
    assert [str(problem) for problem in three.problems] == ["sub-03: no T1w or PET image found"]


def test_a_participant_that_was_not_fetched_is_not_lost(simple):
    (simple / "sub-03").mkdir()
    (simple / "sub-04").symlink_to("../.git/annex/none")
    (simple / "sub-05").write_text("no folder")
    participants = found(simple)
    assert list(participants) == ["01", "02", "03", "04"]
    for label, why in (("03", "its folder is empty"), ("04", "its folder is a broken link")):
        (problem,) = participants[label].problems
        assert why in problem.message
        assert "datalad get" in problem.message


@pytest.mark.parametrize(("name", "expected"), [("_pet.json", "a file"), ("_pet.nii.gz", "an image")])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_taken_as_absent(simple, name, expected, make):
    path = simple / "sub-01" / "pet" / f"sub-01_trc-AV1451{name}"
    path.unlink()
    make(path)
    (problem,) = found(simple)["01"].problems
    assert problem.message == f"{path} is a folder or a special file (such as a pipe); expected: {expected}"


def test_names_that_would_give_two_images_the_same_outputs_are_refused(simple):
    own = simple / "sub-01" / "pet"
    odd = {"sub-01_AV1451": "'AV1451'", "sub-01_T807": "'T807'", "sub-01__trc-AV1451": "''"}
    odd["sub-01_trc-T807_trc-AV1451"] = "an entity twice"
    for name in odd:
        put_pet(own, name, TracerName="AV1451")
    one = found(simple)["01"]
    assert keys(one) == ["sub-01_trc-AV1451"]
    assert len(one.problems) == len(odd)
    for problem in one.problems:
        assert f"has {odd[problem.key.removesuffix('_pet')]}" in problem.message
        assert "rename the file" in problem.message


def test_images_that_were_made_from_others_or_put_aside_are_no_scans(simple):
    own = simple / "sub-01" / "pet"
    for name in ("desc-mean", "space-T1w_desc-preproc"):
        put_pet(own / "derivatives" if "mean" in name else own, f"sub-01_trc-AV1451_{name}")
    put_pet(own / "z_unused", "sub-01_trc-AV1451")
    put_pet(simple / "sub-02" / "pet", "sub-02_trc-MK6240_desc-late", TracerName="MK6240")
    one, two = found(simple).values()
    assert [scan.pet_file for scan in one.scans] == [own / "sub-01_trc-AV1451_pet.nii.gz"]
    assert [problem.left_out for problem in one.problems] == [True, True, True]
    *made, copy = one.problems
    assert all("made from sub-01_trc-AV1451_pet.nii.gz" in problem.message for problem in made)
    assert copy.key == "sub-01/pet/z_unused/sub-01_trc-AV1451_pet.nii.gz"
    assert copy.message == "left out: sub-01_trc-AV1451_pet.nii.gz in pet is used"
    assert keys(two) == ["sub-02_trc-AV1451", "sub-02_trc-MK6240_desc-late"], "it is the only one of this tracer"


def test_a_damaged_sidecar_at_the_top_is_a_problem_of_every_participant(simple):
    put(simple / "pet.json", b"{")
    assert all(one.problems and not one.scans for one in find_participants(simple))


def test_a_broken_t1w_that_nobody_needs_is_no_problem(root):
    for session in ("a", "b"):
        put_image(root / "sub-01" / f"ses-{session}" / "anat" / f"sub-01_ses-{session}_T1w.nii.gz")
        put_pet(root / "sub-01" / f"ses-{session}" / "pet", f"sub-01_ses-{session}_trc-AV1451")
    put(root / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_T1w.nii.gz", b"")
    assert [problem.key for problem in found(root)["01"].problems] == [
        "sub-01_ses-a_T1w",
        "sub-01_ses-a_trc-AV1451_pet",
    ]
    assert found(root, session_label=("b",))["01"].problems == ()
    assert found(root, tracer_label=("other",))["01"].problems == ()


@pytest.mark.parametrize("name", ["sub-02/pet/sub-01_trc-AV1451_pet.nii.gz", "sub-02/pet/trc-AV1451_pet.nii.gz"])
def test_a_file_in_the_folder_of_another_participant_is_a_problem_there(simple, name):
    put_image(simple / name)
    participants = found(simple)
    assert participants["01"].problems == ()
    assert len(participants["01"].scans) == 1
    (problem,) = participants["02"].problems
    assert "is in a folder of sub-02" in problem.message


def test_a_file_in_the_folder_of_another_session_is_a_problem(root):
    put_image(root / "sub-01" / "ses-a" / "anat" / "sub-01_ses-b_T1w.nii.gz")
    (problem,) = found(root)["01"].problems
    assert "is in a folder of ses-a" in problem.message


def test_a_folder_whose_name_is_no_label_is_not_a_participant(simple):
    put_image(simple / "sub-01_old" / "anat" / "sub-01_T1w.nii.gz")
    put_image(simple / "sub-01_old" / "anat" / "sub-01_run-1_T1w.nii.gz")
    participants = found(simple)
    assert list(participants) == ["01", "02"]
    assert participants["01"].scans[0].assumptions == ()


def test_a_series_without_attenuation_correction_is_left_out_and_nothing_fails(simple):
    put_pet(simple / "sub-01" / "pet", "sub-01_trc-AV1451_rec-nacstat")
    participant = found(simple)["01"]
    assert keys(participant) == ["sub-01_trc-AV1451"]
    (left_out,) = participant.problems
    assert left_out.left_out
    assert left_out.key == "sub-01_trc-AV1451_rec-nacstat_pet"


def test_scans_that_bidsignore_names_are_not_processed(simple):
    (simple / ".bidsignore").write_text("# trial scans\nsub-02/pet/\n*_rec-test_*\n!sub-02/pet/keep\n")
    put_pet(simple / "sub-01" / "pet", "sub-01_trc-AV1451_rec-test")
    participants = found(simple)
    assert keys(participants["01"]) == ["sub-01_trc-AV1451"]
    assert keys(participants["02"]) == []
    (simple / ".bidsignore").write_text("sub-02\n")
    (problem,) = found(simple)["02"].problems
    assert problem.left_out
    assert ".bidsignore" in problem.message


def test_each_image_that_bidsignore_names_is_told(simple):
    (simple / ".bidsignore").write_text("sub-01/pet/*\n/sub-02/anat\n")
    one, two = found(simple).values()
    told = [(problem.key, problem.left_out) for problem in (*one.problems, *two.problems)]
    assert told == [("sub-01_trc-AV1451_pet", True), ("sub-02_trc-AV1451_pet", False), ("sub-02_T1w", True)]
    assert not found(simple, tracer_label=("MK6240",))["01"].problems


def test_a_bidsignore_that_was_not_fetched_is_not_taken_as_none(simple):
    listed = simple / ".bidsignore"
    listed.symlink_to(".git/annex/objects/none")
    with pytest.raises(MissingInputError, match="datalad get"):
        found(simple)
    listed.unlink()
    listed.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n")
    with pytest.raises(MissingInputError, match="git lfs pull"):
        found(simple)


def test_a_dataset_whose_description_was_not_fetched_says_so(simple):
    (simple / "dataset_description.json").unlink()
    (simple / "dataset_description.json").symlink_to(".git/annex/objects/none")
    with pytest.raises(MissingInputError, match="datalad get"):
        find_participants(simple)


# --- generated trees ---


@dataclass(frozen=True)
class Session:
    """Plan of one session: its label, whether it has a T1w, its day, its PETs, and a manufacturer for them."""

    label: str
    has_t1w: bool
    day: int
    pets: tuple[tuple[str, int], ...]
    manufacturer: str | None


@dataclass(frozen=True)
class Plan:
    sessions: tuple[Session, ...]
    dated: bool
    ending: str
    top_manufacturer: str | None


#: Making trees on disk is slow to shrink; a failing plan prints whole instead.
QUICK = settings(deadline=None, database=None, phases=(Phase.explicit, Phase.generate))

makers = st.none() | st.sampled_from(["GE", "Siemens", "Philips"])
pets = st.lists(st.tuples(st.sampled_from(["AV1451", "MK6240"]), st.integers(1, 3)), max_size=3, unique=True).map(tuple)


@pytest.mark.parametrize(
    ("ending", "what"),
    [
        *((".v", "an ECAT file"), (".mgz", "a FreeSurfer file"), (".img", "one of two files"), (".nii.zst", "packed")),
        (".NII.GZ", "named in capitals"),
    ],
)
def test_a_pet_in_another_format_is_no_pet_that_is_missing(simple: Path, ending: str, what: str) -> None:
    pet = next((simple / "sub-01/pet").glob("*_pet.nii.gz"))
    pet.rename(pet.with_name(pet.name.replace(".nii.gz", ending)))
    participant = found(simple)["01"]
    (problem,) = participant.problems
    assert participant.t1ws
    assert not problem.left_out
    assert problem.key == pet.name.removesuffix(".nii.gz")
    assert what in problem.message
    assert f"{problem.key}.nii.gz" in problem.message
    assert not found(simple, tracer_label=("other",))["01"].problems


def test_a_link_to_itself_hides_no_participant(simple: Path) -> None:
    for place in (simple, simple / "sub-01", simple / "sub-01/pet"):
        (place / "self").symlink_to("self")
    (simple / "sub-loop").symlink_to("sub-loop")
    assert len(found(simple)["01"].scans) == 1
    assert "loop" not in found(simple)


def test_copies_in_other_formats_are_nobodys_business(simple: Path) -> None:
    pet, t1w = (next((simple / "sub-01").rglob(f"*_{kind}.nii.gz")) for kind in ("pet", "T1w"))
    put(pet.with_name(pet.name.replace(".nii.gz", ".v")), b"x")
    put(t1w.with_name("sub-01_run-2_T1w.mgz"), b"x")
    assert not found(simple)["01"].problems
    t1w.unlink()
    assert "a FreeSurfer file" in " ".join(problem.message for problem in found(simple)["01"].problems)


@pytest.mark.parametrize("name", ["sub-01_trc-AV1451_PET.nii.gz", "sub-01_tau.nii", "DICOM/IM001.dcm"])
def test_images_in_a_folder_of_pet_with_other_names_are_told_once(simple: Path, name: str) -> None:
    pet = next((simple / "sub-01/pet").glob("*_pet.nii.gz"))
    for one in (pet.parent / name, (pet.parent / name).with_stem("x")):
        put(one, b"x")
    with_pet = found(simple)["01"].problems
    assert all(problem.left_out for problem in with_pet), "there is a PET"
    assert (f"sub-01/pet/{name}" in [problem.key for problem in with_pet]) != name.endswith(".dcm")
    pet.unlink()
    (problem,) = found(simple)["01"].problems
    assert problem.key == "sub-01"
    assert "not named as one is; expected: sub-01_pet.nii.gz and .json" in problem.message


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    labels = draw(st.lists(st.integers(0, 30).map(lambda n: f"m{n}"), min_size=1, max_size=4, unique=True))
    days = draw(st.lists(st.integers(1, 365), min_size=len(labels), max_size=len(labels), unique=True))
    sessions = [
        Session(label, draw(st.booleans()), day, draw(pets), draw(makers))
        for label, day in zip(labels, days, strict=True)
    ]
    return Plan(tuple(sessions), draw(st.booleans()), draw(st.sampled_from([".nii", ".nii.gz"])), draw(makers))


def build(plan: Plan, root: Path) -> None:
    put(root / "dataset_description.json", {"Name": "test", "BIDSVersion": "1.10.0"})
    timing = {key: value for key, value in STATIC.items() if key != "TracerName"}
    put(root / "pet.json", timing | ({"Manufacturer": plan.top_manufacturer} if plan.top_manufacturer else {}))
    rows = ["session_id\tacq_time"]
    for session in plan.sessions:
        folder, stem = root / "sub-01" / f"ses-{session.label}", f"sub-01_ses-{session.label}"
        folder.mkdir(parents=True)
        rows.append(f"ses-{session.label}\t{np.datetime64('2020-01-01') + session.day}T12:00:00")
        if session.has_t1w:
            put_image(folder / "anat" / f"{stem}_T1w{plan.ending}")
        if session.manufacturer:
            put(folder / f"{stem}_pet.json", {"Manufacturer": session.manufacturer})
        for tracer, run in session.pets:
            put_image(folder / "pet" / f"{stem}_trc-{tracer}_run-{run}_pet{plan.ending}")
    if plan.dated:
        put(root / "sub-01" / "sub-01_sessions.tsv", "\n".join(rows).encode() + b"\n")


def expected_t1w_session(plan: Plan, session: Session) -> str | None:
    if session.has_t1w:
        return session.label

    def distance(other: Session) -> tuple[int, int]:
        if plan.dated:
            return abs(other.day - session.day), other.day
        month, own = int(other.label[1:]), int(session.label[1:])
        return abs(month - own), month

    having = [other for other in plan.sessions if other.has_t1w]
    return min(having, key=distance).label if having else None


@settings(QUICK, max_examples=20)
@given(plan=plans())
def test_generated_trees_are_found_as_they_were_planned(plan, tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    build(plan, root)
    (participant,) = find_participants(root)
    expected = {
        f"sub-01_ses-{session.label}_trc-{tracer}_run-{run}": (
            expected_t1w_session(plan, session),
            session.manufacturer or plan.top_manufacturer,
        )
        for session in plan.sessions
        for tracer, run in session.pets
    }
    pairs = {scan.key: (scan.t1w.session, scan.manufacturer) for scan in participant.scans}
    assert pairs == {key: value for key, value in expected.items() if value[0] is not None}
    assert {p.key for p in participant.problems if p.key.endswith("_pet")} == {
        f"{key}_pet" for key, value in expected.items() if value[0] is None
    }
    assert sorted(t1w.session for t1w in participant.t1ws) == sorted(s.label for s in plan.sessions if s.has_t1w)
    for scan in participant.scans:
        said = any("was used" in sentence for sentence in scan.assumptions)
        assert said == (scan.session != scan.t1w.session), "a T1w of another session is always said"
    shutil.rmtree(root)


@settings(QUICK, max_examples=4)
@given(labels=st.lists(st.from_regex(r"[0-9A-Za-z]{1,6}", fullmatch=True), min_size=1, max_size=3, unique_by=str.lower))
def test_participants_come_sorted_and_any_one_alone_is_as_among_the_others(labels, tmp_path_factory):
    root = tmp_path_factory.mktemp("labels")
    put(root / "dataset_description.json", {"Name": "test", "BIDSVersion": "1.10.0"})
    for label in labels:
        put_image(root / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz")
        put_pet(root / f"sub-{label}" / "pet", f"sub-{label}_trc-AV1451")
    together = find_participants(root)
    assert [one.label for one in together] == sorted(labels) == list(participant_labels(root))
    for one in together:
        assert find_participants(root, Selection(participant_label=(one.label,))) == [one]
    shutil.rmtree(root)


# --- published trees ---


@pytest.mark.skipif(not (SHARED / "ds-simtau").is_dir(), reason="needs ../shared/data/ds-simtau")
def test_the_simulated_dataset_gives_three_scans_and_four_anatomies():
    participants = found(SHARED / "ds-simtau")
    assert {label: keys(one) for label, one in participants.items()} == {
        "01": ["sub-01_trc-AV1451"],
        "02": ["sub-02_trc-AV1451"],
        "03": ["sub-03_trc-AV1451"],
        "04": [],
    }
    assert all(len(one.t1ws) == 1 and not one.problems for one in participants.values())
    assert participants["02"].scans[0].n_frames == 4
    assert all(scan.assumptions == () for one in participants.values() for scan in one.scans)


@pytest.mark.skipif(not (SHARED / "bids_examples").is_dir(), reason="needs ../shared/data/bids_examples")
@pytest.mark.parametrize("name", ["pet001", "pet002", "pet003", "pet004", "pet005", "pet006"])
def test_published_example_trees_are_read(name, tmp_path):
    """Their images are stubs, so tiny ones with the right number of frames stand in for them."""
    root = tmp_path / name
    shutil.copytree(SHARED / "bids_examples" / name, root)
    pet_files = sorted(root.rglob("*_pet.nii*"))
    for path in pet_files:
        sidecar = json.loads(path.with_name(path.name.split(".")[0] + ".json").read_text())
        put_image(path, len(sidecar["FrameTimesStart"]))
    for path in root.rglob("*_T1w.nii*"):
        put_image(path)
    participants = find_participants(root)
    scans = [scan for one in participants for scan in one.scans]
    problems = [problem for one in participants for problem in one.problems]
    if name in ("pet004", "pet006"):
        assert len(problems) == len(pet_files), "these have no T1w"
        assert all("there is no T1w" in problem.message for problem in problems)
        return
    assert [scan.pet_file for scan in scans] == pet_files
    for scan in scans:
        assert scan.t1w.session == scan.session
        starts, durations = (np.array(scan.pet_metadata[key]) for key in ("FrameTimesStart", "FrameDuration"))
        assert len(starts) == len(durations) == scan.n_frames
        assert (starts[:-1] + durations[:-1] <= starts[1:] + 0.5).all()
        assert scan.tracer is not None
    ends_for_durations = {scan.pet_file for scan in scans if any("end times" in said for said in scan.assumptions)}
    assert ends_for_durations == (set(pet_files) if name in ("pet001", "pet003") else set())


@pytest.mark.parametrize("place", ["sub-02", "sub-02/pet", "sub-02/anat", "sub-02/ses-a"])
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_folder_that_cannot_be_read_stops_only_its_participant(simple: Path, place: str, mode: int) -> None:
    (simple / "sub-02/ses-a").mkdir()
    with closed(simple / place, mode=mode):
        known = found(simple)
        (problem,) = known["02"].problems
    assert keys(known["01"]) == ["sub-01_trc-AV1451"]
    assert known["02"].scans == known["02"].t1ws == ()
    assert (problem.key, problem.left_out) == ("sub-02", False)
    assert f"cannot read the folder {simple / 'sub-02'}" in problem.message
    assert len(found(simple)["02"].scans) == 1


def test_filters_leave_folders_that_cannot_be_read_alone(
    simple: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chosen = put(tmp_path_factory.mktemp("filter") / "f.json", {"pet": {"tracer": "AV1451"}})
    with closed(simple / "sub-02"):
        known = found(simple, bids_filter_file=chosen)
    assert keys(known["01"]) == ["sub-01_trc-AV1451"]
    assert [problem.key for problem in known["02"].problems] == ["sub-02"]


def test_folders_and_images_with_nearly_right_names_are_told(simple: Path) -> None:
    for folder in ("Sub-03", "sub_04", "sub-01_old", "sub-01/PET", "sub-01/Ses-1", "sub-01/ses-1/Anat", "sub-01/func"):
        (simple / folder).mkdir(parents=True)
    for name in ("anat/sub-01_t1w.nii.gz", "anat/sub-01_T2w.nii.gz", "pet/sub-01_PET.nii.gz", "pet/mean.nii"):
        put_image(simple / "sub-01" / name)
    shutil.copy(simple / "sub-01/anat/sub-01_T1w.nii.gz", simple / "sub-01/anat/sub-01_T1w.nii")
    one = found(simple)["01"]
    assert keys(one) == ["sub-01_trc-AV1451"]
    assert all(problem.left_out for problem in one.problems)
    expected = {
        "sub-01/PET/": "no folder of this name",
        "sub-01/Ses-1/": "no folder of this name",
        "sub-01/ses-1/Anat/": "no folder of this name",
        "sub-01/anat/sub-01_t1w.nii.gz": "not named as a T1w",
        "sub-01/anat/sub-01_T1w.nii": "sub-01_T1w.nii.gz beside it is used",
        "sub-01/pet/sub-01_PET.nii.gz": "not named as a PET",
        "sub-01/pet/mean.nii": "not named as a PET",
    }
    assert {problem.key for problem in one.problems} == expected.keys()
    assert all(expected[problem.key] in problem.message for problem in one.problems)
    assert list(passed_over_folders(simple)) == ["Sub-03/", "sub-01_old/", "sub_04/"]
    assert found(simple, tracer_label=("AV1451",))["01"].problems == ()
    (simple / ".bidsignore").write_text("sub_04/\n**/PET/\n*_t1w.nii.gz\nsub-01/pet/mean*\n")
    left = expected.keys() - {"sub-01/PET/", "sub-01/anat/sub-01_t1w.nii.gz", "sub-01/pet/mean.nii"}
    assert {problem.key for problem in found(simple)["01"].problems} == left
    assert list(passed_over_folders(simple)) == ["Sub-03/", "sub-01_old/"]


def test_of_many_misnamed_images_the_last_one_named_tells_the_number(simple: Path) -> None:
    for number in range(50):
        put_image(simple / f"sub-01/pet/frame{number:02d}.nii.gz")
    told = found(simple)["01"].problems
    assert len(told) == 20
    assert told[-1].key == "sub-01/pet/frame19.nii.gz"
    assert told[-1].message.endswith("; 30 more images and folders are left out, too")


def test_where_all_participants_are_misnamed_they_are_named(root: Path) -> None:
    (root / "Sub-01").mkdir()
    (root / "subjects").mkdir()
    with pytest.raises(MissingInputError, match="no participants; Sub-01 is not named so"):
        find_participants(root)


def test_scans_whose_names_differ_in_the_order_of_entities_are_refused(simple: Path) -> None:
    """They would have the same outputs."""
    put_pet(simple / "sub-01/pet", "sub-01_run-1_trc-AV1451")
    put_pet(simple / "sub-01/pet", "sub-01_trc-AV1451_run-1")
    one = found(simple)["01"]
    assert keys(one) == ["sub-01_trc-AV1451"]
    assert {problem.key for problem in one.problems} == {"sub-01_run-1_trc-AV1451_pet", "sub-01_trc-AV1451_run-1_pet"}
    assert all("have the same entities in another order" in problem.message for problem in one.problems)


def test_a_name_without_the_session_of_its_folder_is_no_copy_of_another_image(simple: Path) -> None:
    put_pet(simple / "sub-01/ses-a/pet", "sub-01_trc-AV1451")
    one = found(simple)["01"]
    assert keys(one) == ["sub-01_trc-AV1451"]
    assert ["in a folder of ses-a but its name says otherwise" in problem.message for problem in one.problems] == [True]


@pytest.mark.parametrize("ending", [".JSON", ".nii.json", ".nii.gz.json"])
def test_sidecars_with_other_endings_are_told(simple: Path, ending: str) -> None:
    sidecar = simple / "sub-01/pet/sub-01_trc-AV1451_pet.json"
    sidecar.rename(sidecar.with_name(f"sub-01_trc-AV1451_pet{ending}"))
    (problem,) = found(simple)["01"].problems
    assert problem.key == f"sub-01/pet/sub-01_trc-AV1451_pet{ending}"
    assert problem.left_out
    assert "not named as a sidecar" in problem.message


@pytest.mark.parametrize("content", [b'{"a": "\xe9"}', '{"a": 1}'.encode("utf-16")])
def test_a_sidecar_that_is_not_in_utf8_is_told_so(simple: Path, content: bytes) -> None:
    (simple / "sub-01/pet/sub-01_trc-AV1451_pet.json").write_bytes(content)
    (problem,) = found(simple)["01"].problems
    assert "is not in UTF-8" in problem.message


def test_an_unknown_participant_is_answered_with_the_one_that_was_meant_or_the_first_ones(root: Path) -> None:
    for number in range(1, 30):
        (root / f"sub-{number:03d}").mkdir()
    for label, told in (("1", "did you mean 001"), ("x", "known: 001, 002, 003.*010 and 19 more")):
        with pytest.raises(SettingError, match=told):
            find_participants(root, Selection(participant_label=(label,)))
