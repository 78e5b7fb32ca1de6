"""Results do not depend on where the world of an image has its origin, or on which way its axes point."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
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


@pytest.fixture(scope="module", autouse=True)
def _coarse() -> Iterator[None]:
    """Run participants with coarse steps: results need not be good to depend on nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(participant, "MODULE", "coarse_participant")
        patch.setenv("PYTHONPATH", SEARCHED)
        yield


def world(shift_mm=(0, 0, 0), axis="x", degrees=0) -> Affine:
    """A quarter turn about an axis, then a shift."""
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix().round()
    moved[:3, 3] = shift_mm
    return moved


#: Worlds of T1w and PET; each participant beside the first has the same images as the first.
WORLDS = {
    "01": (world(), world()),
    "02": (world((1000, 0, 1000), "z", 90), world((-400, 300, -1000), "x", 90)),
    "03": (world((-300, -1000, 0), "y", 90), world((0, 500, 0), "y", -90)),
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


def table_of(out: Path, label: str) -> pd.DataFrame:
    return pd.read_csv(next((out / f"sub-{label}/pet").glob("*_rois.tsv")), sep="\t", na_values="n/a")


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all of them were processed, one after the other, with one thread."""
    root = tmp_path_factory.mktemp("worlds")
    places = [str(dataset(root / "bids")), str(root / "out"), "participant", "--work-dir", str(root / "work")]
    assert main([*places, "--nprocs", "1", "--omp-nthreads", "1", "--skip-bids-validation"]) == DONE
    return root


def test_moved_and_turned_worlds_give_the_same_table(processed):
    tables = {label: table_of(processed / "out", label) for label in WORLDS}
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
        sidecar = json.loads(next((processed / f"out/sub-{label}/pet").glob("*desc-suvr_pet.json")).read_text())
        assert not [sentence for sentence in sidecar["Assumptions"] if "must not be trusted" in sentence]


def test_processes_and_threads_do_not_change_the_table(processed, tmp_path):
    places = [str(processed / "bids"), str(tmp_path / "out"), "participant", "--work-dir", str(tmp_path / "work")]
    spread = ["--participant-label", "01", "--nprocs", "4", "--omp-nthreads", "4", "--skip-bids-validation"]
    assert main([*places, *spread]) == DONE
    pd.testing.assert_frame_equal(table_of(tmp_path / "out", "01"), table_of(processed / "out", "01"), rtol=1e-5)


def test_labels_of_freesurfer_go_with_a_t1w_whose_world_is_elsewhere(tmp_path):
    bids = simulate_dataset(tmp_path / "bids", Simulation(1, seed=3, voxel_mm=4.0, pet="static"))
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
