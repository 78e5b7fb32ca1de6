import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from closed_folders import closed

from tau_pipeline.bids import validator as bids_validation
from tau_pipeline.bids.validator import ValidationReport, ValidatorError, summarize, validate, validator_program
from tau_pipeline.errors import MissingInputError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
#: What BIDS requires of a PET's sidecar, with values of the right type.
WHOLE = {
    "Manufacturer": "Siemens",
    "ManufacturersModelName": "Biograph mMR",
    "Units": "Bq/mL",
    "TracerName": "AV1451",
    "TracerRadionuclide": "F18",
    "FrameTimesStart": [4800],
    "FrameDuration": [1200],
    "InjectedRadioactivity": 370,
    "InjectedRadioactivityUnits": "MBq",
    "InjectedMass": "n/a",
    "InjectedMassUnits": "n/a",
    "SpecificRadioactivity": "n/a",
    "SpecificRadioactivityUnits": "n/a",
    "ModeOfAdministration": "bolus",
    "TimeZero": "10:00:00",
    "ScanStart": 4800,
    "InjectionStart": 0,
    "AcquisitionMode": "list mode",
    "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": 0,
    "ReconMethodName": "OSEM",
    "ReconMethodParameterLabels": ["none"],
    "ReconMethodParameterUnits": ["none"],
    "ReconMethodParameterValues": [0],
    "ReconFilterType": "none",
    "AttenuationCorrection": "CT",
}


#: One participant for each damage: the file, what is in it, and the words about it.
DAMAGES = {
    "02": ("anat/sub-02_T1w.nii.gz", b"", "a file is empty (sub-02/anat/sub-02_T1w.nii.gz)"),
    "03": ("anat/sub-03_T1w.nii.gz", b"\x1f\x8b\x08 broken", "the header of an image cannot be read"),
    "04": ("pet/sub-04_trc-AV1451_pet.json", b"{oops", "a file is not valid JSON"),
    "05": ("anat/notes.txt", b"x", "has a name that BIDS does not know (sub-05/anat/notes.txt)"),
    "06": (
        "pet/sub-06_trc-AV1451_pet.json",
        json.dumps(WHOLE | {"FrameTimesStart": "4800"}).encode(),
        "the value of FrameTimesStart",
    ),
}


def write_dataset(root: Path, *participants: str) -> Path:
    image = nib.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4))
    image.header.set_xyzt_units("mm", "sec")
    for label in participants:
        for name in (f"anat/sub-{label}_T1w", f"pet/sub-{label}_trc-AV1451_pet"):
            path = root / f"sub-{label}" / f"{name}.nii.gz"
            path.parent.mkdir(parents=True)
            image.to_filename(path)
        (root / f"sub-{label}" / "pet" / f"sub-{label}_trc-AV1451_pet.json").write_text(json.dumps(WHOLE))
    (root / "dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.10.0"}')
    (root / "README").write_text("A dataset for a test.\n" * 10)
    return root


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path, "01")


@pytest.fixture(scope="module")
def of_valid(tmp_path_factory: pytest.TempPathFactory) -> tuple[ValidationReport, list[list[str]]]:
    """Return the findings in a valid dataset, and the arguments of each call of the validator."""
    calls: list[list[str]] = []
    original = subprocess.run

    def spy(command: list[str], **options: Any) -> Any:
        calls.append(command[1:])
        return original(command, **options)

    folder = write_dataset(tmp_path_factory.mktemp("valid"), "01")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", spy)
        report = validate(folder)
    assert [arguments.pop(0) for arguments in calls] == [str(folder)]
    return report, calls


@pytest.fixture(scope="module")
def of_damaged(tmp_path_factory: pytest.TempPathFactory) -> ValidationReport:
    """Return the findings in a dataset of one whole participant and one for each of `DAMAGES`."""
    folder = write_dataset(tmp_path_factory.mktemp("damaged"), "01", *DAMAGES)
    for label, (name, content, _) in DAMAGES.items():
        (folder / f"sub-{label}" / name).write_bytes(content)
    return validate(folder)


def test_of_chosen_participants_only_their_folders_are_validated(tmp_path):
    folder = write_dataset(tmp_path, "01", "02")
    (folder / "sub-02/anat/sub-02_T1w.json").write_text("{half")
    assert validate(folder, ["01"]).valid
    assert set(validate(folder, ["02", "99"]).participant_errors) == {"02"}


def test_a_valid_dataset_has_no_errors(of_valid):
    report, _ = of_valid
    assert report.valid
    assert (report.errors, report.participant_errors) == ((), {})


def test_missing_recommended_keys_are_one_warning(of_valid):
    about = [sentence for sentence in of_valid[0].warnings if "recommended keys" in sentence]
    assert len(about) == 1
    assert " more (" in about[0]


def test_the_validator_is_asked_for_json_once(of_valid):
    (asked,) = of_valid[1]
    assert asked[:2] == ["--format", "json"]


def test_missing_pet_keys_that_the_job_does_not_need_are_one_warning(dataset):
    lacking = {key: value for key, value in WHOLE.items() if key not in ("AttenuationCorrection", "TimeZero")}
    del lacking["FrameTimesStart"]
    (dataset / "sub-01" / "pet" / "sub-01_trc-AV1451_pet.json").write_text(json.dumps(lacking))
    report = validate(dataset)
    assert report.valid
    (about,) = [sentence for sentence in report.warnings if "required keys" in sentence]
    assert "AttenuationCorrection, FrameTimesStart, TimeZero" in about


def test_an_error_of_a_participant_is_kept_apart_from_errors_of_the_dataset(of_damaged):
    assert of_damaged.errors == ()
    assert sorted(of_damaged.participant_errors) == [*DAMAGES]
    assert not of_damaged.valid


@pytest.mark.parametrize("label", DAMAGES)
def test_damage_is_put_into_words_with_an_example(of_damaged, label):
    assert DAMAGES[label][2] in " ".join(of_damaged.participant_errors[label])


def test_damage_of_the_dataset_as_a_whole_is_an_error_of_its_own(dataset):
    (dataset / "dataset_description.json").unlink()
    assert "there is no dataset_description.json (the dataset itself)" in validate(dataset).errors


def test_equal_findings_are_counted_and_order_does_not_matter():
    issues = [
        {"code": "EMPTY_FILE", "severity": "error", "location": f"/sub-01/anat/{name}"} for name in ("a", "b", "c")
    ]
    issues += [{"code": "NEW_CODE", "subCode": "Key", "severity": "error", "location": "/x.json"}]
    issues += [{"code": "X", "severity": "ignore", "location": "/y"}]
    report = summarize(issues)
    assert report.participant_errors == {"01": ("a file is empty (3 files, for example sub-01/anat/a)",)}
    assert report.errors == ("NEW_CODE Key (x.json)",)
    assert report.warnings == ()
    assert summarize(reversed(issues)).errors == report.errors


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(MissingInputError, match="is not a folder"):
        validate(tmp_path / "absent")


def test_a_missing_validator_is_one_sentence(dataset, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(dataset / "python"))
    monkeypatch.setenv("PATH", str(dataset))
    with pytest.raises(ValidatorError, match=r"is not installed; install it .* --skip-bids-validation"):
        validate(dataset)


def test_the_validator_beside_python_goes_before_the_path(tmp_path, monkeypatch):
    beside, elsewhere = tmp_path / "env", tmp_path / "path"
    for folder in (beside, elsewhere):
        folder.mkdir()
        program = folder / bids_validation.PROGRAM
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    monkeypatch.setenv("PATH", str(elsewhere))
    assert validator_program() == beside / bids_validation.PROGRAM
    (beside / bids_validation.PROGRAM).unlink()
    assert validator_program() == elsewhere / bids_validation.PROGRAM


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("sleep 30", "did not finish within 0.5 s"),
        ("echo 'not json'", r"failed on .* \(no message\)"),
        ("echo '{\"issues\": 3}'", "failed on"),
        ("echo 'out of memory' >&2; exit 1", r"failed on .* \(out of memory\)"),
    ],
)
def test_a_validator_that_hangs_or_breaks_is_one_sentence(dataset, tmp_path_factory, monkeypatch, script, words):
    program = tmp_path_factory.mktemp("bin") / bids_validation.PROGRAM
    program.write_text(f"#!/bin/sh\n{'exec ' if script.startswith('sleep') else ''}{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.parent / "python"))
    with pytest.raises(ValidatorError, match=words):
        validate(dataset, timeout_s=0.5)


@pytest.mark.skipif(not (SHARED / "ds-simtau").is_dir(), reason="needs ../shared/data/ds-simtau")
def test_the_simulated_dataset_is_valid():
    assert validate(SHARED / "ds-simtau").valid


@pytest.mark.skipif(not (SHARED / "bids_examples").is_dir(), reason="needs ../shared/data/bids_examples")
@pytest.mark.parametrize("name", ["pet002", "pet004"])
def test_the_stub_images_of_the_published_examples_are_errors_of_their_participants(name):
    report = validate(SHARED / "bids_examples" / name)
    assert report.errors == ()
    assert all("cannot be read" in " ".join(found) for found in report.participant_errors.values())
    assert report.participant_errors


@pytest.mark.slow
def test_participants_after_the_thousandth_row_count_too(dataset: Path) -> None:
    """By default the validator reads 1,000 rows of a table."""
    labels = [f"sub-{number:04d}" for number in range(1001)]
    rows = "\n".join(["participant_id", "sub-01", *labels])
    (dataset / "participants.tsv").write_text(f"{rows}\n")
    for label in labels:
        image = dataset / label / "anat" / f"{label}_T1w.nii.gz"
        image.parent.mkdir(parents=True)
        image.symlink_to(dataset / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    assert validate(dataset).errors == ()


@pytest.mark.parametrize(("place", "target"), [("loop", "."), ("sub-01/loop", ".."), ("sub-01/ses-a/loop", "../../..")])
def test_a_link_to_a_folder_above_is_told_and_not_followed_for_ever(tmp_path, place, target):
    link = tmp_path / "bids" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    with pytest.raises(ValidatorError, match=f"{link} is a link to a folder that it lies in"):
        validate(tmp_path / "bids", timeout_s=5)


@pytest.mark.parametrize("asked", [(), ("01",), ("01", "02")])
def test_a_folder_that_cannot_be_read_is_an_error_of_its_participant(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    """The validator ends at the first one."""
    shutil.copytree(dataset / "sub-01", dataset / "sub-02")
    program = tmp_path / bids_validation.PROGRAM
    program.write_text(
        f"#!/bin/sh\nls $1/ >> {tmp_path}/seen\n"
        "[ -e $1/sub-01 ] && { echo 'error: PermissionDenied' >&2; exit 1; }\n"
        'echo \'{"issues": {"issues": []}}\'\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with closed(dataset / "sub-01"):
        report = validate(dataset, asked)
    assert report == ValidationReport(participant_errors={"01": ("a folder cannot be read (sub-01)",)})
    assert ("sub-02" in (tmp_path / "seen").read_text()) == (asked != ("01",))
    with pytest.raises(ValidatorError, match=r"failed on .* \(error: PermissionDenied\)"):
        validate(dataset, asked)
