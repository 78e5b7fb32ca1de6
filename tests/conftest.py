"""Settings of every test: one thread, with which registrations repeat to the last bit, and no network."""

from __future__ import annotations

import os

# ANTs reads its number of threads when it is first used, so this stands before every import of the tests.
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ET", "1")
os.environ.setdefault("NIPYPE_NO_ET", "1")

import gc
import shutil
import tempfile
from pathlib import Path

import pytest
import remembered

from tau_pipeline.bids.scans import Scan, T1w
from tau_pipeline.pet.frames import plan_frames
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import Settings
from tau_workflows.graphs.job import ParticipantJob, ScanJob, T1wJob

#: Files that take minutes, longest first. A process that is free takes the next file, so the short ones fill the end.
LONGEST = tuple(
    f"test_{name}.py"
    for name in (
        *("docs", "faults", "planted_cohort", "parcellation", "training_cli", "participant", "world", "comparison"),
        *("registration", "interruption", "simulate", "pet", "fuzz_inputs", "longitudinal", "anat", "train", "group"),
        *("fit", "spread", "any_world", "baselines", "systems", "voxelwise"),
    )
)

remembered.remember_template()
# Looking for garbage takes a seventh of the time of the imports and of the tests, and finds little.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of `remembered` for this process and for those that it starts, which find it named."""
    if remembered.FOLDER not in os.environ:
        folder = os.environ[remembered.FOLDER] = tempfile.mkdtemp(prefix="tau-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish() -> None:
    """Keep what was imported out of the collection of garbage, which then looks at the objects of the tests alone."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first; the order within a file stays."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures out of pages: drawing them takes most of the time of a group level."""
    from matplotlib.figure import Figure

    from tau_workflows.reports import cohort, regions

    monkeypatch.setattr(cohort, "_figures", lambda *_: [])
    monkeypatch.setattr(regions, "cortex_figure", lambda *_, **__: Figure(figsize=(1, 1)))


@pytest.fixture
def job(tmp_path: Path) -> ParticipantJob:
    """A participant with one T1w and one static PET, whose files are empty: enough to build graphs."""
    for name in ("T1w.nii.gz", "pet.nii.gz", "aparc+aseg.mgz", "brain.mgz", "mask.mgz"):
        (tmp_path / name).touch()
    t1w = T1w("01", None, tmp_path / "T1w.nii.gz", {}, {"sub": "01"})
    metadata = {"FrameTimesStart": [4800], "FrameDuration": [1200], "InjectionStart": 0, "TracerName": "AV1451"}
    scan = Scan(
        participant="01",
        session=None,
        tracer="AV1451",
        rec=None,
        run=None,
        pet_file=tmp_path / "pet.nii.gz",
        pet_metadata=metadata,
        t1w=t1w,
        entities={"sub": "01", "trc": "AV1451"},
        n_frames=1,
        manufacturer="GE",
    )
    scan_job = ScanJob(scan, plan_frames((9, 9, 9), metadata))
    settings = Settings(ref_region=("CerebellarGM", "Pons"), target_fwhm=8.0)
    return ParticipantJob("01", (T1wJob(t1w, None, (scan_job,)),), tmp_path, tmp_path, settings, Execution())
