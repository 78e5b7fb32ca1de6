"""Participants in processes of their own: what counts as done, and what is said when a process dies."""

from __future__ import annotations

import json
import pickle
import signal
import threading
from pathlib import Path

import pytest

from tau_pipeline.bids.validator import ValidationReport
from tau_pipeline.derivatives.names import error_path
from tau_pipeline.errors import InvalidDatasetError
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.execution import Execution
from tau_workflows.execution import participant
from tau_workflows.execution.task import ProgressWriter, outcome_path, tell_end
from tau_workflows.graphs.job import ParticipantJob
from tau_workflows.levels import participant as cohort
from tau_workflows.levels import validation

KEY = "sub-01_trc-AV1451_pet"


@pytest.fixture
def job_file(job: ParticipantJob, tmp_path: Path) -> Path:
    file = tmp_path / "sub-01.pkl"
    file.write_bytes(pickle.dumps(job))
    return file


def outcome(file: Path) -> dict[str, str]:
    return json.loads(outcome_path(file).read_text())["failures"]


def test_a_killed_process_fails_all_scans_of_its_participant_and_names_the_step(
    job: ParticipantJob, job_file: Path
) -> None:
    writer = ProgressWriter(job_file, 3)
    writer.tell("brain", "running")
    writer.tell("brain", "done")
    writer.tell("template", "running")
    tell_end(job_file, -signal.SIGKILL)
    assert set(cohort._failures(job, job_file)) == {KEY}
    record = json.loads(error_path(job.output_dir, KEY).read_text())
    assert "SIGKILL" in record["message"]
    assert record["step"] == "template"
    assert outcome(job_file) == {KEY: record["message"]}


def test_an_unexpected_error_of_the_graph_fails_the_scans_and_is_told(
    job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: ParticipantJob, __: str) -> dict[str, dict[str, str]]:
        raise ZeroDivisionError("a thing that nobody thought of")

    monkeypatch.setattr(participant, "run_participant", broken)
    monkeypatch.setattr(participant, "PRELOADED", ())
    assert participant.main(str(job_file)) == 1
    assert outcome(job_file) == {KEY: "a thing that nobody thought of"}


def test_a_job_without_an_outcome_does_not_count_as_done(job: ParticipantJob, job_file: Path) -> None:
    assert set(cohort._failures(job, job_file)) == {KEY}


def test_a_full_disk_does_not_hide_the_reason(
    job: ParticipantJob,
    job_file: Path,
) -> None:
    (job.output_dir / "logs").write_text("a file where the folder of the records should be")
    participant.conclude(job, str(job_file), {KEY: {"message": "no space left"}})
    assert outcome(job_file) == {KEY: "no space left"}


@pytest.mark.parametrize(
    ("n_jobs", "nprocs", "mem_mb", "expected"),
    [
        (1, 2, 24000, (1, 2, 24000)),
        (30, 2, 24000, (2, 1, 12000)),
        (30, 8, 9000, (3, 2, 3000)),
        (4, 8, 1000, (1, 8, 1000)),
        (2, 1, 24000, (1, 1, 24000)),
    ],
)
def test_memory_and_processors_are_shared_among_participants(
    n_jobs: int, nprocs: int, mem_mb: int, expected: tuple[int, int, int]
) -> None:
    assert cohort.shares(n_jobs, Execution(nprocs=nprocs, mem_mb=mem_mb)) == expected


def test_on_a_cluster_each_participant_asks_for_itself() -> None:
    assert cohort.shares(30, Execution(worker="slurm")) == (30, cohort.PROCESSES_OF_ONE, cohort.MEMORY_OF_ONE_MB)
    assert cohort.shares(30, Execution(worker="slurm", nprocs=4, mem_mb=8000)) == (30, 4, 8000)


def test_a_large_dataset_is_validated_while_its_scans_are_processed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    may_end = threading.Event()

    def slow(*_: object) -> ValidationReport:
        assert may_end.wait(30)
        return ValidationReport(errors=("there is no dataset_description.json",))

    monkeypatch.setattr(validation, "validate", slow)
    large = validation.Validation(tmp_path, Configuration())
    large.check(validation._MANY)
    may_end.set()
    assert large.tell() == 1
    assert "calls the input invalid: there is no dataset_description.json" in capfd.readouterr().err
    with pytest.raises(InvalidDatasetError, match="is not valid BIDS"):
        validation.Validation(tmp_path, Configuration()).check(validation._MANY - 1)
    # What only plans waits for the validator, however many participants there are.
    with pytest.raises(InvalidDatasetError):
        validation.Validation(tmp_path, Configuration(execution=Execution(dry_run=True))).check(validation._MANY)
    assert validation.Validation(tmp_path, Configuration(execution=Execution(skip_bids_validation=True))).tell() == 0
