"""Scripts of an array job: run with stand-ins for the scheduler and the container engine."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tau_pipeline.files import write_text
from tau_pipeline.settings.configuration import Configuration, configuration
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import Selection, Settings
from tau_workflows.levels import participant
from tau_workflows.plan.array import write_array

LABELS = ("01", "02", "a3", "04", "05")
#: Numbers of a task by scheduler, and how its program is asked to wait for the array.
SCHEDULERS = {
    "slurm": ("SLURM_ARRAY_TASK_ID", "sbatch", "#SBATCH --array=1-3%7", "--parsable --dependency=afterany:12"),
    "sge": ("SGE_TASK_ID", "qsub", "#$ -t 1-3", "-terse -hold_jid 12"),
    "pbs": ("PBS_ARRAY_INDEX", "qsub", "#PBS -J 1-3%7", "-W depend=afterany:12"),
}


def written(folder: Path, labels: tuple[str, ...] = LABELS, **execution: object) -> Configuration:
    """Write an array to ``folder / "array 1"``; returns the settings of the call."""
    (folder / "bin").mkdir(exist_ok=True)
    config = Configuration(
        settings=Settings(smooth_fwhm=3.0, ref_region=("CerebellarGM", "Pons"), suvr_window=(80.0, 100.0)),
        selection=Selection(participant_label=labels, tracer_label=("AV1451",)),
        execution=Execution(write_array=folder / "array 1", work_dir=folder / "work", **execution),  # type: ignore[arg-type]
    )
    write_array(labels, folder / "my bids", folder / "out", config, 2, 3000)
    return config


def stand_in(folder: Path, name: str, answer: str = "") -> Path:
    """Write a program that notes its arguments, and lets the shell find it first; returns the notes."""
    notes = folder / f"{name}.txt"
    (folder / "bin" / name).write_text(f'#!/bin/bash\necho "$@" >> "{notes}"\necho "{answer}"\n')
    (folder / "bin" / name).chmod(0o755)
    return notes


def run(script: Path, **env: str) -> str:
    path = f"{script.parent.parent / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(script)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PATH": path, **env},
    )
    return done.stdout


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_each_task_runs_its_participants_and_the_group_level_waits(tmp_path: Path, scheduler: str) -> None:
    number, program, header, waits = SCHEDULERS[scheduler]
    written(tmp_path, container="tau:1", array_chunk=2, array_limit=7, array_scheduler=scheduler, worker_args="-p long")
    calls, submitted = (
        stand_in(tmp_path, "docker"),
        stand_in(tmp_path, program, "12.1-3:1" if scheduler == "sge" else "12"),
    )
    folder = tmp_path / "array 1"
    for task in "123":
        run(folder / "array.sh", **{number: task})
    run(folder / "group.sh")
    lines = calls.read_text().splitlines()
    assert [line.split("--participant-label ")[1] for line in lines[:3]] == ["01 02", "a3 04", "05"]
    at = f"{tmp_path}/my bids"
    assert f"-v {at}:{at}:ro -v {tmp_path}/out:{tmp_path}/out" in lines[0]
    assert f"tau:1 {at} {tmp_path}/out participant --config-file {folder}/settings.toml" in lines[0]
    assert lines[3].endswith(f"{at} {tmp_path}/out group --config-file {folder}/settings.toml")
    script = (folder / "array.sh").read_text()
    assert header in script.splitlines()
    # The folder has a space in its name, at which a line of options is divided.
    (logs,) = (line for line in script.splitlines() if f"{folder}/logs/" in line)
    assert sum(f"{folder}/logs/" in word for word in shlex.split(logs)) == 1
    assert "-p long" in script
    run(folder / "submit.sh")
    array, group = submitted.read_text().splitlines()
    assert array.endswith(f"{folder}/array.sh")
    assert group == f"{waits} {folder}/group.sh"


def test_the_tasks_read_the_settings_of_the_call(tmp_path: Path) -> None:
    config = written(tmp_path, stop_on_first_crash=True, worker="slurm", worker_args="-p long")
    found = configuration(tmp_path / "array 1" / "settings.toml")
    assert found.settings == config.settings
    assert found.selection == replace(config.selection, participant_label=())
    assert found.execution == Execution(
        work_dir=tmp_path / "work", nprocs=2, mem_mb=3000, stop_on_first_crash=True, skip_bids_validation=True
    )


def test_a_single_task_is_no_array_of_pbs_which_refuses_it(tmp_path: Path) -> None:
    written(tmp_path, ("a3",), container="tau:1", array_scheduler="pbs")
    calls = stand_in(tmp_path, "docker")
    assert "#PBS -J" not in (tmp_path / "array 1" / "array.sh").read_text()
    run(tmp_path / "array 1" / "array.sh")
    assert calls.read_text().endswith("--participant-label a3\n")


def test_a_large_cohort_has_no_more_tasks_than_schedulers_allow(tmp_path: Path) -> None:
    written(tmp_path, tuple(f"{n:05d}" for n in range(2500)))
    lines = (tmp_path / "array 1" / "participants.txt").read_text().splitlines()
    assert len(lines) <= 1000
    assert " ".join(lines).split() == [f"{n:05d}" for n in range(2500)]


@pytest.mark.parametrize(("labels", "many", "kept"), [(("01",), 2, True), (("01",), 3, False), ((), 2, False)])
def test_a_task_of_a_large_cohort_does_not_read_all_sidecars_for_the_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: tuple[str, ...], many: int, kept: bool
) -> None:
    monkeypatch.setattr(participant, "_MANY_RESULTS", many)
    for name in ("CITATION.md", "status/sub-01.json", "status/sub-02.json"):
        write_text("earlier", tmp_path / "logs" / name)
    file = participant._write_methods(tmp_path, Configuration(selection=Selection(participant_label=labels)))
    assert (file.read_text() == "earlier") == kept


@pytest.mark.slow
def test_without_a_container_the_tasks_use_this_environment(tmp_path: Path) -> None:
    written(tmp_path)
    assert "\n#SBATCH \n" not in (tmp_path / "array 1" / "array.sh").read_text()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(tmp_path / "array 1" / "array.sh", SLURM_ARRAY_TASK_ID="1")
    assert f"tau-pipeline: {tmp_path}/my bids is not a folder" in caught.value.stderr
