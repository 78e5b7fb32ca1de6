from pathlib import Path

import pytest
from closed_folders import closed
from test_bids import put, put_image, put_pet

from tau_pipeline.anatomy.freesurfer import find_freesurfer, parse_derivatives, why_not_found
from tau_pipeline.bids.scans import find_participants
from tau_pipeline.errors import MissingInputError, SettingError
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.participant import Selection
from tau_workflows.plan.jobs import plan_participants


def subject(root: Path, name: str, *files: str) -> Path:
    (root / name / "mri").mkdir(parents=True)
    for file in files or ("aparc+aseg.mgz", "brain.mgz"):
        (root / name / "mri" / file).touch()
    return root / name


def test_derivatives_are_given_as_name_and_path(tmp_path):
    assert parse_derivatives([f"freesurfer={tmp_path}"]) == {"freesurfer": tmp_path}
    assert parse_derivatives([]) == {}
    (tmp_path / "a=b").mkdir()
    assert parse_derivatives([f"fastsurfer={tmp_path}/a=b"]) == {"fastsurfer": tmp_path / "a=b"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["/data/freesurfer"], "expected: NAME=PATH"),
        (["freesurfer="], "expected: NAME=PATH"),
        (["freesurfr={}"], "did you mean 'freesurfer'"),
        (["freesurfer={}", "freesurfer={}"], "twice"),
    ],
)
def test_a_wrong_form_is_refused(tmp_path, texts, message):
    with pytest.raises(SettingError) as caught:
        parse_derivatives([text.format(tmp_path) for text in texts])
    assert message in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(MissingInputError, match="is not a folder"):
        parse_derivatives([f"freesurfer={tmp_path}/absent"])


@pytest.mark.parametrize("name", ["sub-01", "01"])
def test_a_subject_folder_is_found_by_either_name(tmp_path, name):
    folder = subject(tmp_path, name)
    found = find_freesurfer(tmp_path, "01")
    assert found is not None
    assert (found.subject_dir, found.assumptions) == (folder, ())
    assert found.labels_file == folder / "mri" / "aparc+aseg.mgz"
    assert found.brain_file == found.mask_file == folder / "mri" / "brain.mgz"


def test_a_participant_without_a_folder_is_none(tmp_path):
    subject(tmp_path, "sub-02")
    (tmp_path / "sub-01").mkdir()
    assert find_freesurfer(tmp_path, "01") is None


def test_the_folder_of_the_session_goes_before_that_of_the_participant(tmp_path):
    names = ["01", "sub-01", "sub-01_ses-a.long.sub-01", "sub-01_ses-a"]
    for known in range(1, len(names) + 1):
        subject(tmp_path, names[known - 1])
        found = find_freesurfer(tmp_path, "01", "a")
        assert found is not None
        assert found.subject_dir.name == names[known - 1]
        said = " ".join(found.assumptions)
        assert ("names no session" in said) == ("ses-a" not in names[known - 1])
        assert all(passed in said for passed in names[: known - 1]), "results that were passed over are said"
    other = find_freesurfer(tmp_path, "01", "b")
    assert other is not None
    assert other.subject_dir.name == "sub-01"


def test_labels_of_the_dkt_protocol_say_which_regions_they_lack(tmp_path):
    subject(tmp_path, "sub-01", "aparc.DKTatlas+aseg.deep.mgz", "orig_nu.mgz", "mask.mgz")
    found = find_freesurfer(tmp_path, "01")
    assert found is not None
    assert (found.labels_file.name, found.brain_file.name) == ("aparc.DKTatlas+aseg.deep.mgz", "orig_nu.mgz")
    assert found.mask_file.name == "mask.mgz"
    assert "bankssts, frontalpole and temporalpole" in found.assumptions[0]


def test_the_whole_parcellation_goes_before_the_dkt_one(tmp_path):
    subject(tmp_path, "sub-01", "aparc.DKTatlas+aseg.mgz", "aparc+aseg.mgz", "brain.mgz")
    found = find_freesurfer(tmp_path, "01")
    assert found is not None
    assert found.labels_file.name == "aparc+aseg.mgz"


@pytest.mark.parametrize(
    ("files", "missing"), [(("brain.mgz",), "labels"), (("aparc+aseg.mgz",), "brain image"), (("x",), "labels")]
)
def test_an_unfinished_folder_is_refused_with_what_it_lacks(tmp_path, files, missing):
    subject(tmp_path, "sub-01", *files)
    with pytest.raises(MissingInputError, match=f"has no {missing}"):
        find_freesurfer(tmp_path, "01")


def test_a_run_that_has_not_ended_is_refused_and_one_with_an_error_is_told(tmp_path):
    scripts = subject(tmp_path, "sub-01") / "scripts"
    scripts.mkdir()
    (scripts / "recon-all.error").touch()
    found = find_freesurfer(tmp_path, "01")
    assert found is not None
    assert "ended with an error" in found.assumptions[0]
    (scripts / "IsRunning.lh+rh").touch()
    with pytest.raises(MissingInputError, match=r"still running in .*sub-01"):
        find_freesurfer(tmp_path, "01")


def test_a_folder_without_results_and_a_broken_link_are_called_so(tmp_path):
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "sub-02").symlink_to("nowhere")
    (tmp_path / "sub-03/ses-a").mkdir(parents=True)
    assert "sub-01 has no folder mri" in why_not_found(tmp_path, "01")
    assert "sub-02 is a broken link" in why_not_found(tmp_path, "02")
    assert "none of sub-03_ses-b, sub-03/ses-b" in why_not_found(tmp_path, "03", "b")


def test_several_longitudinal_results_are_not_chosen_by_alphabet(tmp_path):
    for template in ("base1", "base2"):
        subject(tmp_path, f"sub-01_ses-a.long.{template}")
    with pytest.raises(MissingInputError, match=r"base1.*base2"):
        find_freesurfer(tmp_path, "01", "a")
    subject(tmp_path, "sub-01_ses-a")
    found = find_freesurfer(tmp_path, "01", "a")
    assert found is not None
    assert found.subject_dir.name == "sub-01_ses-a"
    said = "The labels of sub-01_ses-a were used, and not those of sub-01_ses-a.long.base1, sub-01_ses-a.long.base2."
    assert found.assumptions == (said,)


def test_a_folder_under_another_name_is_named_when_nothing_is_found(tmp_path):
    for name in ("002_S_0295", "003_S_0001"):
        subject(tmp_path, name)
    assert find_freesurfer(tmp_path, "0295", "b") is None
    said = why_not_found(tmp_path, "0295", "b")
    assert "002_S_0295" in said
    assert "003_S_0001" not in said
    assert "sub-0295_ses-b" in said
    assert "003_S_0001" in why_not_found(tmp_path, "XY")


def test_results_that_cannot_be_read_stop_only_their_participant(tmp_path):
    root = put(tmp_path / "bids" / "dataset_description.json", {"Name": "test", "BIDSVersion": "1.10.0"}).parent
    for label in ("01", "02"):
        put_image(root / f"sub-{label}/anat/sub-{label}_T1w.nii.gz")
        put_pet(root / f"sub-{label}/pet", f"sub-{label}_trc-AV1451")
        subject(tmp_path / "fs", f"sub-{label}")
    config = Configuration(selection=Selection(derivatives=(f"freesurfer={tmp_path / 'fs'}",)))
    with closed(tmp_path / "fs/sub-02"):
        plan = plan_participants(find_participants(root), root, tmp_path / "out", config)
    assert [job.participant for job in plan.jobs] == ["01"]
    assert list(plan.problems) == ["sub-02_trc-AV1451_pet"]
    assert f"no permission to read {tmp_path / 'fs/sub-02'}" in plan.problems["sub-02_trc-AV1451_pet"]
    with closed(tmp_path / "fs"), pytest.raises(MissingInputError, match=r"cannot read .*, given for freesurfer"):
        parse_derivatives(config.selection.derivatives)
