"""Contents of a dry run: what is done already, what the rest takes, in seconds for a large dataset."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.pipeline import engine as pe

from tau_pipeline.bids.scans import Scan, find_participants
from tau_pipeline.files import write_json, write_text
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import Settings
from tau_workflows.cli import main
from tau_workflows.execution.nipype_engine import own_work_dir
from tau_workflows.graphs.job import ParticipantJob
from tau_workflows.graphs.subject import init_subject_wf
from tau_workflows.plan import costs, earlier
from tau_workflows.plan.dry_run import plan_table
from tau_workflows.plan.jobs import plan_participants

SIDECAR = {"FrameTimesStart": [4800, 5400], "FrameDuration": [600, 600], "TracerName": "AV1451", "Units": "Bq/mL"}


def write_dataset(root: Path, participants: int) -> Path:
    """Participants with tiny images: one T1w, and one PET of two frames."""
    t1w = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    pet = nib.Nifti1Image(np.ones((4, 4, 4, 2), np.int16), np.eye(4)).to_bytes()
    for k in range(participants):
        stem = f"sub-{k:04d}"
        for folder, name, image in (("anat", "T1w", t1w), ("pet", "trc-AV1451_pet", pet)):
            place = root / stem / folder
            place.mkdir(parents=True)
            (place / f"{stem}_{name}.nii").write_bytes(image)
        (root / stem / "pet" / f"{stem}_trc-AV1451_pet.json").write_text(json.dumps(SIDECAR))
    (root / "dataset_description.json").write_text(json.dumps({"Name": "tiny", "BIDSVersion": "1.10.0"}))
    return root


def planned(root: Path, **settings: object) -> ParticipantJob:
    config = Configuration(settings=Settings(**settings), execution=Execution(work_dir=root / "work"))
    return plan_participants(find_participants(root / "bids"), root / "bids", root / "out", config).jobs[0]


def record_as_done(job: ParticipantJob) -> None:
    """Leave for every step of the real graph the record that Nipype leaves when it has ended, without running it."""
    work, (t1w_job,) = own_work_dir(job.execution.work_dir), job.t1ws
    # What an input node hands on while the graph runs.
    handed = {"t1w_file": t1w_job.t1w.path, "pet_file": t1w_job.scans[0].scan.pet_file}
    for place, node in steps_of(init_subject_wf(job)):
        for name in handed.keys() & set(node.inputs.copyable_trait_names()):
            setattr(node.inputs, name, str(handed[name]))
        values, digits = node.interface.inputs.get_hashval(hash_method="content")
        write_text(json.dumps(values), work / place / f"_0x{digits}.json")


def steps_of(wf: pe.Workflow, above: Path = Path()) -> Iterator[tuple[Path, pe.Node]]:
    """Every node of a workflow, with its folder in the work folder."""
    for node in wf._graph.nodes():
        if isinstance(node, pe.Workflow):
            yield from steps_of(node, above / wf.name)
        else:
            yield above / wf.name / node.name, node


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "bids", 1)
    time.sleep(0.02)
    record_as_done(planned(tmp_path))
    return tmp_path


def state(root: Path, **settings: object) -> str:
    return str(plan_table([planned(root, **settings)], {})["state"].item())


def test_a_scan_is_done_where_every_step_of_the_graph_has_ended_with_the_same_inputs(finished: Path) -> None:
    assert state(finished) == "done"


@pytest.mark.parametrize(
    "settings",
    [
        {"skull_strip_t1w": "force"},
        {"orientation": "sform"},
        {"suvr_window": (80.0, 90.0)},
        {"ref_region": ("Pons",)},
        {"smooth_fwhm": 4.0},
        {"target_fwhm": 8.0},
        {"motion_correction": False},
        {"random_seed": 7},
        {"min_measured_fraction": 0.9},
    ],
)
def test_another_setting_makes_a_scan_to_be_done(finished: Path, settings: dict[str, object]) -> None:
    assert state(finished, **settings) == "to do"


def test_a_setting_of_the_pet_leaves_the_anatomy_done(finished: Path) -> None:
    table = plan_table([planned(finished, smooth_fwhm=4.0)], {})
    alone = costs.cost(planned(finished).t1ws[0], planned(finished).t1ws[0].scans[0], anatomy=False)
    assert table["minutes"].item() == round(alone.minutes, 1)


def test_another_image_makes_a_scan_to_be_done_and_the_same_image_again_does_not(finished: Path) -> None:
    for image in sorted(finished.glob("bids/sub-*/*/*.nii")):
        whole = image.read_bytes()
        image.write_bytes(whole)
        assert state(finished) == "done"
        image.write_bytes(whole[:-2] + b"\x05\x00")
        # A copy that keeps the old time is another image all the same.
        os.utime(image, (1e9, 1e9))
        assert state(finished) == "to do"
        image.write_bytes(whole)


def test_another_value_of_the_sidecar_makes_a_scan_to_be_done(finished: Path) -> None:
    (sidecar,) = finished.glob("bids/sub-*/pet/*.json")
    sidecar.write_text(json.dumps({**SIDECAR, "ReconFilterSize": 5}))
    assert state(finished) == "to do"


def test_a_step_that_has_not_ended_makes_a_scan_to_be_done(finished: Path) -> None:
    job = planned(finished)
    (record,) = own_work_dir(finished / "work").rglob("save_sub_0000_trc_AV1451/_0x*.json")
    record.rename(record.with_name(record.stem + "_unfinished.json"))
    assert not earlier.scan_is_done(job, job.t1ws[0], job.t1ws[0].scans[0])
    assert earlier.anatomy_is_done(job, job.t1ws[0])


def test_outputs_that_are_missing_will_be_put_back(finished: Path) -> None:
    assert "put back" in plan_table([planned(finished)], {})["notes"].item()


def test_earlier_runs_scale_the_minutes(tmp_path: Path) -> None:
    write_dataset(tmp_path / "bids", 1)
    job = planned(tmp_path)
    assert costs.measured_speed([job]) == (1.0, 0)
    t1w_job = job.t1ws[0]
    expected_s = 60 * costs.cost(t1w_job, t1w_job.scans[0], anatomy=True).minutes
    steps = {"anat template": 2 * expected_s, "pet_sub_0000_trc_AV1451 coregister": expected_s}
    write_json({"steps_s": steps}, tmp_path / "work/times/sub-0000.json")
    speed, runs = costs.measured_speed([job])
    assert (speed, runs) == (pytest.approx(3), 1)
    # A run that found most of its results there already says nothing of the time that all of it takes.
    write_json({"steps_s": {"save_anat": 0.1}}, tmp_path / "work/times/sub-0000.json")
    assert costs.measured_speed([job]) == (1.0, 0)


def test_larger_images_and_more_frames_take_more(job: ParticipantJob) -> None:
    t1w_job = job.t1ws[0]
    small = replace(t1w_job, t1w=replace(t1w_job.t1w, shape=(100, 100, 100)))
    scan = t1w_job.scans[0]
    more = replace(scan, frames=replace(scan.frames, indices=(0, 1, 2)))
    a, b = (costs.cost(one, scan, anatomy=True) for one in (small, t1w_job))
    assert (a.minutes < b.minutes, a.memory_mb < b.memory_mb, a.disk_mb < b.disk_mb) == (True, True, True)
    surfaces = costs.cost(t1w_job, scan, anatomy=True, surfaces=True)
    assert surfaces.minutes > b.minutes + 3
    assert costs.cost(t1w_job, scan, anatomy=False, surfaces=True).minutes < b.minutes
    longer = costs.cost(t1w_job, more, anatomy=True)
    assert longer.minutes - b.minutes == pytest.approx(2 * costs.FRAME_S / 60)


def test_a_dry_run_hashes_no_image_that_has_not_been_touched(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: str) -> str:
        raise AssertionError("an image was read")

    monkeypatch.setattr(earlier, "hash_infile", read)
    assert state(finished) == "done"


def test_the_scan_of_the_fixture_is_whole(finished: Path) -> None:
    scan = planned(finished).t1ws[0].scans[0].scan
    assert isinstance(scan, Scan)
    assert scan.n_frames == 2


@pytest.mark.slow
def test_a_thousand_participants_take_seconds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "bids", 1000)
    places = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work")]
    (tmp_path / "work").mkdir()
    began = time.process_time()
    assert main([*places, "--dry-run", "--skip-bids-validation"]) == 0
    seconds = time.process_time() - began
    assert "1000 scans: 1000 to do" in capfd.readouterr().out
    assert len((tmp_path / "work/dry_run.tsv").read_text().splitlines()) == 1001
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["dry_run.tsv"]
    assert seconds < 30
