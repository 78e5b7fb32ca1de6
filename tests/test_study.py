"""One graph from raw images to a model and to synthetic SUVR, on small simulated heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tau_pipeline.anatomy import grid as anatomy_grid
from tau_pipeline.anatomy import template as anat
from tau_pipeline.bids.scans import find_participants
from tau_pipeline.derivatives.dataset import write_dataset_files
from tau_pipeline.files import read_json
from tau_pipeline.imaging import rigid as registration
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import same_grid
from tau_pipeline.settings.configuration import Configuration
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import Selection
from tau_pipeline.settings.training import Training
from tau_pipeline.simulate.dataset import Simulation, simulate_dataset
from tau_pipeline.synthesis.model.folder import load_model
from tau_workflows.execution import nipype_engine as engine
from tau_workflows.graphs.study import init_study_wf
from tau_workflows.levels.participant import plan_participants

pytestmark = pytest.mark.slow


@pytest.fixture
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations at 5 mm: here it counts that every step is there, and that each finds what it needs."""
    monkeypatch.setattr(anat, "REGISTRATION_MM", 5.0)
    monkeypatch.setattr(anatomy_grid.working_grid, "__defaults__", (4.0,))
    for name, value in {"_FINE_MM": 4.0, "_COARSE_MM": 8.0, "_REFINED": 1}.items():
        monkeypatch.setattr(registration, name, value)


@pytest.mark.usefixtures("_coarse")
def test_one_graph_goes_from_raw_images_to_a_model_and_to_synthetic_suvr(tmp_path: Path) -> None:
    bids, out = simulate_dataset(tmp_path / "bids", Simulation(2, seed=1, voxel_mm=4.0, pet="static")), tmp_path / "out"
    training = Training(
        loss="mse_ssim",
        epochs=1,
        batch_size=1,
        grid_voxel=10.0,
        ssim_window=7,
        augmentation="off",
        normalisation="min-max",
        split_fractions=(0.5, 0.0, 0.5),
        device="cpu",
    )
    config = Configuration(execution=Execution(work_dir=tmp_path / "work", nprocs=2), training=training)
    write_dataset_files(out, bids)
    plan = plan_participants(find_participants(bids, Selection()), bids, out, config)
    wf = init_study_wf(plan.jobs, tmp_path / "model", config)
    engine.configure(wf, tmp_path / "work")
    times = engine.NodeTimes()
    engine.execute(wf, config.execution, times)
    assert times.failed == {}
    model = load_model(tmp_path / "model")
    assert sorted(model.splits["participant_id"]) == ["sub-01", "sub-02"]
    assert read_json(tmp_path / "model/model.json")["figures"]["test_scans"] == 1
    made = sorted((tmp_path / "work").rglob("synthSUVR.nii.gz"))
    t1ws = sorted(out.glob("sub-*/anat/*_desc-preproc_T1w.nii.gz"))
    assert len(made) == len(t1ws) == 2
    for synthetic, t1w in zip(made, t1ws, strict=True):
        assert same_grid(load_volume(synthetic), load_volume(t1w))
        assert np.count_nonzero(load_volume(synthetic).get_fdata()) > 1000
