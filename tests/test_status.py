"""The record of what has become of each scan."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from closed_folders import closed

from tau_pipeline.derivatives.names import PetNames, SyntheticNames, sidecar_path
from tau_pipeline.derivatives.status import (
    NOT_FINISHED,
    ScanStatus,
    all_statuses,
    note_interrupted,
    note_requested,
    read_status,
    status_path,
    update_status,
)
from tau_pipeline.errors import DamagedFileError, MissingInputError
from tau_pipeline.settings.participant import Selection
from tau_workflows.execution import participant
from tau_workflows.execution.participant import conclude
from tau_workflows.execution.task import outcome_path
from tau_workflows.graphs.job import ParticipantJob


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    one = ScanStatus("sub-01_ses-a_trc-X_pet", "done", "", "sub-01_ses-a_trc-X", "a", "X", "GE", "Advance", 1.5)
    other = ScanStatus("sub-02", reason="broken: é")
    update_status(tmp_path, {one.scan: one, other.scan: other})
    assert all_statuses(tmp_path) == {one.scan: one, other.scan: other}
    assert read_status(tmp_path, "01") == {one.scan: one}
    assert read_status(tmp_path, "99") == {}


def test_what_is_not_run_again_keeps_its_state(tmp_path: Path) -> None:
    update_status(tmp_path, {f"sub-01_run-{k}_pet": ScanStatus(f"sub-01_run-{k}_pet", "done", "") for k in (1, 2)})
    update_status(tmp_path, {"sub-01_run-2_pet": ScanStatus("sub-01_run-2_pet")})
    states = {key: status.state for key, status in all_statuses(tmp_path).items()}
    assert states == {"sub-01_run-1_pet": "done", "sub-01_run-2_pet": "failed"}


def test_what_is_said_of_a_participant_is_true_of_its_earlier_scans(tmp_path: Path) -> None:
    done = ScanStatus("sub-01_trc-X_pet", "done", "", "sub-01_trc-X")
    made = ScanStatus("sub-01_trc-X_desc-synthSUVR", "done", "", "sub-01_trc-X", source="synthetic")
    update_status(tmp_path, {one.scan: one for one in (done, made)})
    whole = ScanStatus("sub-01", reason="cannot read the folder")
    assert note_requested(tmp_path, {"sub-01": whole}, Selection()) == []
    states = {key: (one.state, one.reason, one.stem) for key, one in all_statuses(tmp_path).items()}
    assert states == {
        "sub-01": ("failed", whole.reason, ""),
        done.scan: ("failed", whole.reason, done.stem),
        made.scan: ("done", "", made.stem),
    }


@pytest.mark.parametrize("everything", [True, False])
def test_failures_whose_images_have_other_names_now_are_forgotten(tmp_path: Path, everything: bool) -> None:
    known = {key: ScanStatus(key, reason="damaged") for key in ("sub-01", "sub-01_trc-X_pet", "sub-02_trc-X_pet")}
    known["sub-01_run-2_pet"] = ScanStatus("sub-01_run-2_pet", "done", "")
    update_status(tmp_path, known)
    selection = Selection() if everything else Selection(tracer_label=("Y",))
    removed = note_requested(tmp_path, {"sub-01_trc-Y_pet": ScanStatus("sub-01_trc-Y_pet")}, selection)
    gone = {"sub-01", "sub-01_trc-X_pet"} if everything else {"sub-01"}
    assert set(removed) == gone
    assert all_statuses(tmp_path).keys() == known.keys() - gone | {"sub-01_trc-Y_pet"}


def test_folders_of_nobody_have_a_record_of_their_own_until_they_are_renamed(tmp_path: Path) -> None:
    odd = {key: ScanStatus(key, "skipped", "left out") for key in ("Sub-03/", "sub-01_old/", "sub-01/PET/")}
    note_requested(tmp_path, odd, Selection())
    assert all_statuses(tmp_path) == odd
    assert read_status(tmp_path, "").keys() == {"Sub-03/", "sub-01_old/"}
    mine = {"sub-01_pet": ScanStatus("sub-01_pet")}
    note_requested(tmp_path, mine, Selection(participant_label=("01",)))
    assert all_statuses(tmp_path).keys() == {"Sub-03/", "sub-01_old/", "sub-01_pet"}
    note_requested(tmp_path, mine, Selection())
    assert all_statuses(tmp_path).keys() == {"sub-01_pet"}


def test_an_interruption_is_noted_for_what_the_run_has_not_finished(tmp_path: Path) -> None:
    known = {
        "sub-01_run-1_pet": ScanStatus("sub-01_run-1_pet", "done", ""),
        "sub-01_run-2_pet": ScanStatus("sub-01_run-2_pet"),
        "sub-01_run-3_pet": ScanStatus("sub-01_run-3_pet", reason="damaged"),
        "sub-02_pet": ScanStatus("sub-02_pet"),
    }
    update_status(tmp_path, known)
    note_interrupted(tmp_path, ["01", "09"])
    assert [status.state for status in all_statuses(tmp_path).values()] == ["done", "interrupted", "failed", "failed"]


def test_a_run_that_finds_everything_done_keeps_the_minutes_of_the_run_that_did_it(tmp_path: Path) -> None:
    def ran(**fields: object) -> float | None:
        update_status(tmp_path, {"sub-01_pet": ScanStatus("sub-01_pet", **fields)})  # type: ignore[arg-type]
        return all_statuses(tmp_path)["sub-01_pet"].minutes

    assert ran() is None
    assert ran(state="done", reason="", minutes=4.0) == 4.0
    assert ran() == 4.0
    assert ran(state="done", reason="", minutes=0.1) == 4.0


def test_a_record_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = status_path(tmp_path, "01")
    path.parent.mkdir(parents=True)
    path.write_text('{"scans": {"sub-01_pet": {"mood": "fine"}}}')
    with pytest.raises(DamagedFileError, match=r"sub-01\.json is no record of scans"):
        all_statuses(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("stem", [], "stem of sub-01_pet is \\[\\], no text"),
        ("reason", None, "reason of sub-01_pet is None, no text"),
        ("manufacturer", 5, "manufacturer of sub-01_pet is 5, no text"),
        ("session", True, "session of sub-01_pet is True, no text"),
        ("source", [], "source of sub-01_pet is \\[\\], none of measured, synthetic"),
        ("state", "well", "state of sub-01_pet is 'well', none of done, failed, skipped"),
        ("minutes", "5", "is no record of scans .*must be real number, not str"),
        ("minutes", 10**400, "is no record of scans .*int too large"),
        ("minutes", True, "minutes of sub-01_pet is True, no number"),
    ],
)
def test_a_record_with_a_value_of_another_type_is_named(tmp_path: Path, field: str, value: object, found: str) -> None:
    update_status(tmp_path, {"sub-01_pet": ScanStatus("sub-01_pet")})
    path = status_path(tmp_path, "01")
    content = json.loads(path.read_text())
    content["scans"]["sub-01_pet"][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match=found) as caught:
        all_statuses(tmp_path)
    assert str(path) in str(caught.value)


def test_a_damaged_record_does_not_stop_a_new_one(tmp_path: Path) -> None:
    path = status_path(tmp_path, "01")
    path.parent.mkdir(parents=True)
    path.write_text("{")
    update_status(tmp_path, {"sub-01_pet": ScanStatus("sub-01_pet")})
    assert all_statuses(tmp_path)["sub-01_pet"].reason == NOT_FINISHED


def test_a_scan_is_done_or_failed_by_what_its_process_says(job: ParticipantJob, tmp_path: Path) -> None:
    (key,) = job.keys
    assert job.statuses()[key].state == "failed"
    assert job.statuses()[key].reason == NOT_FINISHED
    assert job.statuses()[key].stem == "sub-01_trc-AV1451"
    conclude(job, str(tmp_path / "job.pkl"), {key: {"message": "the disk is full"}})
    assert all_statuses(tmp_path)[key].reason == "the disk is full"
    conclude(job, str(tmp_path / "job.pkl"), {})
    assert outcome_path(tmp_path / "job.pkl").is_file()
    done = all_statuses(tmp_path)[key]
    assert (done.state, done.reason, done.manufacturer) == ("done", "", "GE")


def test_of_a_scan_that_fails_no_map_or_table_of_an_earlier_run_stays(
    job: ParticipantJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(participant, "run_participant", fail)
    monkeypatch.setattr(participant, "preload", list)
    pet, again, synthetic = (
        kind(tmp_path, {"sub": "01", "trc": "AV1451", **more})
        for kind, more in ((PetNames, {}), (PetNames, {"run": "2"}), (SyntheticNames, {}))
    )
    own = [pet.suvr(), pet.suvr("Pons"), pet.rois, pet.standardized(), pet.corrected("gtm")]
    others = [again.suvr(), again.rois, synthetic.suvr(), synthetic.rois, pet.to_t1w]
    for path in (*own, *map(sidecar_path, own), *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of an earlier run")
    job_file = tmp_path / "job.pkl"
    job_file.write_bytes(pickle.dumps(job))
    assert participant.main(str(job_file)) == 1
    assert sorted(pet.rois.parent.iterdir()) == sorted(others)
    assert all_statuses(tmp_path)[job.keys[0]].state == "failed"


def test_a_folder_of_records_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Scans that failed would count as done."""
    assert all_statuses(tmp_path) == {}
    update_status(tmp_path, {"sub-01_pet": ScanStatus("sub-01_pet")})
    with closed(tmp_path / "logs/status"), pytest.raises(MissingInputError, match="cannot read the folder"):
        all_statuses(tmp_path)
