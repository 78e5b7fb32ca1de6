"""Bad days of a cohort: what is killed or broken takes down nobody else, and the same command again goes on.

Four small simulated heads with a static PET each, through coarse steps (`coarse_participant`).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
from coarse_program import PROGRAM, SEARCHED
from slurm import Slurm, missing

from tau_pipeline.imaging.load import load_volume
from tau_pipeline.simulate.dataset import Simulation, simulate_dataset
from tau_workflows.cli import main
from tau_workflows.execution.task import NOT_BEGUN

pytestmark = pytest.mark.slow

KILLED, BROKEN = "sub-05", "sub-02"
#: Longer than a whole cohort takes, so that a hang fails.
LIMIT_S = 600


def command(root: Path, name: str, *options: str) -> list[str]:
    places = [str(root / "bids"), str(root / name), "participant", "--work-dir", str(root / f"work_{name}")]
    return [sys.executable, "-c", PROGRAM, *places, "--skip-bids-validation", "--nprocs", "2", *options]


def start(root: Path, name: str, *options: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start the program; what it says goes into a file beside its output."""
    with (root / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command(root, name, *options),
            env={**os.environ, **(env or {}), "PYTHONPATH": SEARCHED},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finish(program: subprocess.Popen[bytes]) -> int:
    try:
        return program.wait(LIMIT_S)
    finally:
        program.kill()


def process_of(participant: str, program: subprocess.Popen[bytes], seconds: float = LIMIT_S) -> psutil.Process:
    """The process of a participant, as soon as it runs a step."""
    words = list(program.args)
    progress = Path(words[words.index("--work-dir") + 1]) / "jobs" / f"{participant}.progress"
    end = time.monotonic() + seconds
    while time.monotonic() < end and program.poll() is None:
        told = read(progress)
        if '"running"' in told:
            return psutil.Process(json.loads(told.splitlines()[0])["pid"])
        time.sleep(0.02)
    raise AssertionError(f"{participant} did not start")


def worker_of(participant: psutil.Process, seconds: float = 60) -> psutil.Process:
    """A process of Nipype that computes a step: a child of the participant's, which tells a step before it begins."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if workers := participant.children():
            return max(workers, key=lambda worker: sum(worker.cpu_times()[:2]))
        time.sleep(0.01)
    raise AssertionError("no step has a process")


def read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def computed(root: Path, name: str) -> dict[str, set[str]]:
    """Steps that the last run computed, by participant, without those that only save."""
    times = {file.stem: json.loads(file.read_text()) for file in (root / f"work_{name}" / "times").glob("*.json")}
    return {who: {step for step in entry["steps_s"] if "save" not in step} for who, entry in times.items()}


def states(root: Path) -> pd.DataFrame:
    """The cohort's table of states, which the group level writes."""
    options = ["--unknown-manufacturer", "pooled", "--min-participants", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tau_workflows.levels.group.write_group_report", lambda out, *_: out / "group/report.html")
        assert main([str(root / "bids"), str(root / "out"), "group", *options]) == 1
    table = pd.read_csv(root / "out" / "group" / "status.tsv", sep="\t", na_values="n/a").set_index("participant_id")
    # The anatomy of the one with the broken PET is done all the same, and is no scan.
    return table[table["state"] != "skipped"]


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four participants with a PET each; that of one is cut short."""
    root = tmp_path_factory.mktemp("faults")
    dataset = simulate_dataset(root / "bids", Simulation(5, seed=1, voxel_mm=4.0, pet="static"))
    shutil.rmtree(dataset / "sub-04")  # the one that never has a PET
    table = pd.read_csv(dataset / "participants.tsv", sep="\t", dtype=str, keep_default_na=False)
    table[table["participant_id"] != "sub-04"].to_csv(dataset / "participants.tsv", sep="\t", index=False)
    pet = next((dataset / BROKEN / "pet").glob("*_pet.nii.gz"))
    pet.write_bytes(pet.read_bytes()[: pet.stat().st_size // 2])
    return root


@pytest.fixture(scope="module")
def first(bids: Path) -> tuple[Path, int, pd.DataFrame]:
    """The folder, exit code and states after a run in which the process of one participant is killed."""
    program = start(bids, "out")
    process_of(KILLED, program).send_signal(signal.SIGKILL)
    code = finish(program)
    return bids, code, states(bids)


@pytest.fixture(scope="module")
def second(first: tuple[Path, int, pd.DataFrame]) -> tuple[Path, int, pd.DataFrame]:
    """The same after the same command again."""
    root = first[0]
    code = finish(start(root, "out"))
    return root, code, states(root)


def test_one_killed_and_one_broken_leave_the_others_complete(first: tuple[Path, int, pd.DataFrame]) -> None:
    root, code, table = first
    assert code == 1
    assert len(table) == 4
    assert set(table.index[table["state"] == "failed"]) == {KILLED, BROKEN}
    assert (table["state"] == "done").sum() == 2
    assert "SIGKILL" in table.loc[KILLED, "reason"]
    assert "damaged" in table.loc[BROKEN, "reason"]
    for who in table.index:
        maps = list((root / "out" / who / "pet").glob("*_desc-suvr_pet.nii.gz"))
        assert len(maps) == (table.loc[who, "state"] == "done")
    assert not list((root / "out").rglob(".partial-*"))


def test_the_record_of_the_killed_one_names_its_step(first: tuple[Path, int, pd.DataFrame]) -> None:
    said = (first[0] / "out.log").read_text()
    assert f"FAILED {KILLED}_trc-AV1451_pet: its process ended with SIGKILL" in said


def test_the_same_command_again_finishes_the_killed_one_only(second: tuple[Path, int, pd.DataFrame]) -> None:
    root, code, table = second
    assert code == 1
    assert set(table.index[table["state"] == "failed"]) == {BROKEN}
    steps = computed(root, "out")
    assert "anat template" in steps.pop(KILLED)
    assert set().union(*steps.values()) == set()
    assert not list((root / "out/logs/errors").glob(f"{KILLED}*"))


def region_table(root: Path, name: str, who: str) -> pd.DataFrame:
    """A participant's region table, without what the group level fills in."""
    table = next((root / name / who / "pet").glob("*_rois.tsv"))
    return pd.read_csv(table, sep="\t", na_values="n/a").drop(columns="suvr_z")


def test_a_program_killed_at_any_moment_goes_on_to_the_results_of_an_undisturbed_run(
    second: tuple[Path, int, pd.DataFrame],
) -> None:
    root, moments = second[0], random.Random(0)
    option = ["--participant-label", "01"]
    for _ in range(3):
        program = start(root, "killed", *option)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(moments.uniform(1, 12))
        program.kill()
        program.wait(60)
    code = finish(start(root, "killed", *option))
    said = (root / "killed.log").read_text()
    assert code in (0, 3), said  # 3: there was nothing left to do
    assert "Traceback" not in said
    pd.testing.assert_frame_equal(region_table(root, "killed", "sub-01"), region_table(root, "out", "sub-01"))
    assert (root / "killed/sub-01.html").is_file()
    assert not [path for folder in ("killed", "work_killed") for path in (root / folder).rglob(".partial-*")]


def test_a_step_whose_process_is_killed_fails_its_scan_and_the_same_command_goes_on(
    second: tuple[Path, int, pd.DataFrame],
) -> None:
    root, option = second[0], ["--participant-label", "01"]
    program = start(root, "step", *option)
    worker_of(process_of("sub-01", program)).send_signal(signal.SIGKILL)
    code = finish(program)
    said = (root / "step.log").read_text()
    assert code == 1, said
    assert "FAILED sub-01_trc-AV1451_pet: the process of this step, or of one beside it, was ended" in said
    assert "Traceback" not in said
    (record,) = (root / "step/logs/errors").glob("sub-01*.json")
    first = ("anat read_t1w", "anat brain", "anat bias", "pet_sub_01_trc_AV1451 motion")
    assert json.loads(record.read_text())["step"] in first
    assert finish(start(root, "step", *option)) == 0
    pd.testing.assert_frame_equal(region_table(root, "step", "sub-01"), region_table(root, "out", "sub-01"))


def test_after_the_first_failure_no_participant_is_begun_where_that_is_asked(bids: Path) -> None:
    options = ["--participant-label", "01", "03", "05", "--nprocs", "1", "--stop-on-first-crash"]
    program = start(bids, "stopped", *options)
    process_of("sub-03", program).send_signal(signal.SIGKILL)
    assert finish(program) == 1
    said = (bids / "stopped.log").read_text()
    assert "FAILED sub-03_trc-AV1451_pet: its process ended with SIGKILL" in said
    assert f"FAILED sub-05_trc-AV1451_pet: {NOT_BEGUN}" in said
    assert {file.stem for file in (bids / "work_stopped" / "times").glob("*.json")} == {"sub-01"}
    assert not list((bids / "stopped/logs/errors").glob("sub-05*"))


def test_what_cannot_be_done_is_a_failure_before_anything_is_begun(bids: Path) -> None:
    options = ["--participant-label", "01", BROKEN, "--stop-on-first-crash"]
    assert finish(start(bids, "input", *options)) == 1
    said = (bids / "input.log").read_text()
    assert f"FAILED sub-01_trc-AV1451_pet: {NOT_BEGUN}" in said
    assert "0 of " in said
    assert not list((bids / "input").rglob("*_rois.tsv"))


@pytest.fixture
def small_disks(bids: Path) -> Iterator[Callable[[str, str], None]]:
    """Gives a folder a file system of its own, or another size to it."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("file systems of a set size can be made by root on Linux alone")
    mounted: list[str] = []

    def size(folder: str, to: str) -> None:
        place = str(bids / folder)
        Path(place).mkdir(exist_ok=True)
        options = f"remount,size={to}" if place in mounted else f"size={to}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(place)

    yield size
    for place in set(mounted):
        subprocess.run(["umount", "-l", place], check=False)


def test_full_disks_leave_nothing_half_written_and_the_same_command_goes_on(
    second: tuple[Path, int, pd.DataFrame], small_disks: Callable[[str, str], None]
) -> None:
    root, option = second[0], ["--participant-label", "01"]
    small_disks("work_full", "1500k")
    small_disks("full", "400k")
    for enlarged, words in (("work_full", "in the work folder"), ("full", "among the results")):
        assert finish(start(root, "full", *option)) == 1, words
        said = (root / "full.log").read_text()
        assert f"cannot write {root / enlarged}" in said, words
        assert "No space left on device" in said
        assert "Traceback" not in said
        assert not list((root / "full").rglob(".partial-*"))
        # What is small may have found room: then it is whole.
        if list((root / "full").rglob("*_rois.tsv")):
            pd.testing.assert_frame_equal(region_table(root, "full", "sub-01"), region_table(root, "out", "sub-01"))
        small_disks(enlarged, "200m")
    assert finish(start(root, "full", *option)) == 0
    pd.testing.assert_frame_equal(region_table(root, "full", "sub-01"), region_table(root, "out", "sub-01"))
    assert computed(root, "full")["sub-01"] == set()  # all that was left to do was to save


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    if missing():
        pytest.skip(f"no SLURM: {missing()}")
    cluster = Slurm(tmp_path / "slurm")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def test_slurm_and_an_undisturbed_run_give_the_same_tables(
    second: tuple[Path, int, pd.DataFrame], slurm: Slurm
) -> None:
    root = second[0]
    others = ["--participant-label", "01", KILLED, BROKEN, "--worker", "slurm", "--worker-args=--time=30"]
    others += ["--poll-interval", "1"]
    code = finish(start(root, "slurm", *others, env=slurm.env))
    said = (root / "slurm.log").read_text()
    assert code == 1, said
    jobs = [line.split() for line in slurm.run("sacct", "-n", "-X", "-o", "JobID,State,AllocCPUS").splitlines()]
    assert len(jobs) >= 2
    assert {(state, cpus) for _, state, cpus in jobs} == {("COMPLETED", "2")}, jobs
    assert "damaged" in said
    for who in ("sub-01", KILLED):
        pd.testing.assert_frame_equal(region_table(root, "slurm", who), region_table(root, "out", who))


def test_two_runs_on_the_same_output_are_refused(bids: Path) -> None:
    program = start(bids, "twice", "--participant-label", "01")
    try:
        process_of("sub-01", program)
        other = subprocess.run(
            command(bids, "twice", "--participant-label", "03", "01"),
            env={**os.environ, "PYTHONPATH": SEARCHED},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert other.returncode == 2
        said = f"tau-pipeline: sub-01 in {bids / 'twice'} is in use by the level participant, process {program.pid} on "
        assert other.stderr.startswith(said)
        assert "Traceback" not in other.stderr
    finally:
        program.kill()
        program.wait(60)


def results(root: Path, name: str) -> set[str]:
    """Return the files of the participants in an output folder, without maps of the group level."""
    out = root / name
    files = (path for path in out.glob("sub-*/**/*") if path.is_file() and "_desc-std_" not in path.name)
    return {path.relative_to(out).as_posix() for path in files}


def test_of_calls_side_by_side_two_that_are_killed_lose_nothing(second: tuple[Path, int, pd.DataFrame]) -> None:
    root, moments = second[0], random.Random(2)
    labels = ("01", BROKEN.removeprefix("sub-"), "03", KILLED.removeprefix("sub-"))
    killed = ("03", labels[-1])
    calls = {who: start(root, "side", "--participant-label", who, "--nprocs", "1") for who in labels}
    try:
        for who in killed:
            with contextlib.suppress(subprocess.TimeoutExpired):
                calls[who].wait(moments.uniform(4, 15))
            calls[who].kill()
        codes = {who: finish(calls[who]) for who in labels if who not in killed}
        assert codes == {"01": 0, labels[1]: 1}, (root / "side.log").read_text()
        # The file of the description is whole whichever call came first, and others task on while two are killed.
        assert json.loads((root / "side/dataset_description.json").read_text())["DatasetType"] == "derivative"
        again = [start(root, "side", "--participant-label", who, "--nprocs", "1") for who in killed]
        # 3: there was nothing left to do.
        assert {finish(call) for call in again} <= {0, 3}, (root / "side.log").read_text()
    finally:
        for call in calls.values():
            call.kill()
    for who in ("sub-01", "sub-03", KILLED):
        pd.testing.assert_frame_equal(region_table(root, "side", who), region_table(root, "out", who))
    assert results(root, "side") == results(root, "out")
    for name in results(root, "side"):
        if name.endswith(".json"):
            json.loads((root / "side" / name).read_text())
        elif name.endswith(".nii.gz"):
            load_volume(root / "side" / name)


def test_a_run_with_another_plugin_writes_nothing_outside_of_its_folders(bids: Path, tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    (tmp_path / "linear.json").write_text('{"plugin": "Linear"}')
    before = sorted(path for path in (bids / "bids").rglob("*"))
    keys = ("MPLCONFIGDIR", "NIPYPE_CONFIG_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    env = {key: value for key, value in os.environ.items() if key not in keys}
    env |= {"PYTHONPATH": SEARCHED, "HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["--participant-label", "01", "--use-plugin", "linear.json"]
    done = subprocess.run(
        command(bids, "linear", *options),
        env=env, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "anat template" in computed(bids, "linear")["sub-01"]
    assert [path for folder in (home, temporary) for path in folder.rglob("*") if path.is_file()] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "linear.json", "tmp"]
    assert sorted(path for path in (bids / "bids").rglob("*")) == before
