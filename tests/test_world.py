"""Results do not depend on where the world of an image has its origin, or on which way its axes point."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from coarse_program import SEARCHED
from scipy.spatial.transform import Rotation

from tau_pipeline.anatomy.freesurfer import labels_from_freesurfer
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.volume import Affine, image_on, save_volume
from tau_pipeline.simulate.dataset import Simulation, simulate_dataset
from tau_workflows.cli import main
from tau_workflows.levels import participant
from tau_workflows.levels.call import DONE

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run participants with coarse steps: results need not be good to depend on nothing."""
    monkeypatch.setattr(participant, "MODULE", "coarse_participant")
    monkeypatch.setenv("PYTHONPATH", SEARCHED)


def world(shift_mm=(0, 0, 0), axis="x", degrees=0) -> Affine:
    """A quarter turn about an axis, then a shift."""
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix().round()
    moved[:3, 3] = shift_mm
    return moved


#: Worlds of T1w and PET; each participant beside the first has the same images as the first.
WORLDS = {
    "01": (world(), world()),
    "02": (world((1000, 0, 0)), world()),
    "03": (world(), world((0, -1000, 0), "x", 90)),
    "04": (world((0, 0, 1000), "z", 90), world((-400, 300, -1000))),
    "05": (world((-300, 0, 0), "y", 90), world((0, 500, 0), "y", -90)),
}


def move(file: Path, moved: Affine) -> None:
    img = load_volume(file)
    save_volume(image_on(np.asanyarray(img.dataobj), moved @ img.affine), file)


def dataset(folder: Path) -> Path:
    """One simulated participant under several names, whose headers put its T1w and its PET elsewhere."""
    bids = simulate_dataset(folder, Simulation(1, seed=3, voxel_mm=4.0, pet="dynamic"))
    for label, (of_t1w, of_pet) in WORLDS.items():
        if label != "01":
            shutil.copytree(bids / "sub-01", bids / f"sub-{label}")
            for file in sorted((bids / f"sub-{label}").rglob("sub-01*"), reverse=True):
                file.rename(file.with_name(file.name.replace("sub-01", f"sub-{label}")))
        move(next((bids / f"sub-{label}/anat").glob("*_T1w.nii.gz")), of_t1w)
        move(next((bids / f"sub-{label}/pet").glob("*_pet.nii.gz")), of_pet)
    return bids


def test_moved_and_turned_worlds_give_the_same_table(tmp_path):
    bids = dataset(tmp_path / "bids")
    places = [str(bids), str(tmp_path / "out"), "participant", "--work-dir", str(tmp_path / "work")]
    assert main([*places, "--skip-bids-validation"]) == DONE
    tables = {
        label: pd.read_csv(next((tmp_path / f"out/sub-{label}/pet").glob("*_rois.tsv")), sep="\t", na_values="n/a")
        for label in WORLDS
    }
    reference = tables.pop("01")
    seen = reference["n_voxels"] > 20
    assert seen.sum() > 80
    for label, table in tables.items():
        assert list(table["region"]) == list(reference["region"])
        # Where the border of two labels runs through the middle of a voxel, rounding decides; voxels of 4 mm are so few
        # that one of them shows, and it may change no region by more than its share.
        moved = (table["n_voxels"] - reference["n_voxels"]).abs()[seen]
        assert moved.max() <= 2
        allowed = np.where(moved == 0, 1e-3, moved / reference["n_voxels"][seen])
        ratio = table["suvr_mean"][seen] / reference["suvr_mean"][seen]
        worst = ratio.sub(1).abs()
        assert (worst < allowed).all(), (label, worst.nlargest(3).to_dict())
        assert (moved == 0).mean() > 0.8
        sidecar = json.loads(next((tmp_path / f"out/sub-{label}/pet").glob("*desc-suvr_pet.json")).read_text())
        assert not [sentence for sentence in sidecar["Assumptions"] if "must not be trusted" in sentence]


def test_runs_with_any_number_of_threads_give_equal_tables(tmp_path):
    bids = simulate_dataset(tmp_path / "bids", Simulation(1, seed=3, voxel_mm=4.0, pet="dynamic"))
    tables = []
    for nprocs, threads in ((1, 1), (2, 2), (4, 4)):
        out = tmp_path / f"out{len(tables)}"
        places = [str(bids), str(out), "participant", "--work-dir", str(tmp_path / f"work{len(tables)}")]
        spread = ["--nprocs", str(nprocs), "--omp-nthreads", str(threads), "--skip-bids-validation"]
        assert main([*places, *spread]) == DONE
        tables.append(pd.read_csv(next((out / "sub-01/pet").glob("*_rois.tsv")), sep="\t", na_values="n/a"))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], rtol=1e-5)


def test_labels_of_freesurfer_go_with_a_t1w_whose_world_is_elsewhere(tmp_path):
    bids = simulate_dataset(tmp_path / "bids", Simulation(1, seed=3, voxel_mm=3.0, pet="static"))
    t1w = load_volume(next((bids / "sub-01/anat").glob("*_T1w.nii.gz")), 3)
    truth = load_volume(next((bids / "truth").glob("sub-01*_labels.nii.gz")))
    labels = resample(truth, t1w, np.eye(4), "nearest")
    inside = np.asanyarray(labels.dataobj) > 0
    brain = image_on(np.asanyarray(t1w.dataobj) * inside, t1w.affine)
    files = [save_volume(image, tmp_path / f"{n}.nii.gz") for n, image in enumerate((labels, brain))]
    moved = world((900, -500, 200), "z", 90)
    found = labels_from_freesurfer(files[0], files[1], t1w)
    elsewhere = labels_from_freesurfer(files[0], files[1], image_on(np.asanyarray(t1w.dataobj), moved @ t1w.affine))
    np.testing.assert_array_equal(np.asanyarray(found.dseg.dataobj), np.asanyarray(labels.dataobj))
    np.testing.assert_array_equal(np.asanyarray(elsewhere.dseg.dataobj), np.asanyarray(found.dseg.dataobj))
