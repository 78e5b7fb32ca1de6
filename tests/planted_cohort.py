"""A simulated cohort with planted faults, and its participants through coarse steps.

The T1w are without their skulls, so that the brain masks are exact and no network is needed; N4 and the template are
coarse, and the coregistration is the real one. ``python -m planted_cohort JOB`` is what the cohort runs.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.volume import image_on
from tau_pipeline.simulate.dataset import Simulation, simulate_dataset

GOOD = ("sub-01", "sub-02")
VOXEL_MM = 3.0


def _rewrite(img: nib.Nifti1Image, data: np.ndarray, affine: np.ndarray | None = None) -> nib.Nifti1Image:
    return image_on(data.astype(np.float32), img.affine if affine is None else affine)


def mirrored(img: nib.Nifti1Image) -> nib.Nifti1Image:
    return _rewrite(img, img.get_fdata()[::-1])


def turned(img: nib.Nifti1Image) -> nib.Nifti1Image:
    """Headers that say that the face is behind: half a turn about the vertical through the middle."""
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    center = (img.affine @ [*(np.array(img.shape[:3]) - 1) / 2, 1])[:3]
    turn[:3, 3] = center - turn[:3, :3] @ center
    return _rewrite(img, img.get_fdata(), turn @ img.affine)


def moved(img: nib.Nifti1Image) -> nib.Nifti1Image:
    shift = np.eye(4)
    shift[:3, 3] = 20.0, 40.0, -40.0  # 60 mm
    return _rewrite(img, img.get_fdata(), shift @ img.affine)


def cut(img: nib.Nifti1Image) -> nib.Nifti1Image:
    """The upper part of the head was not scanned: what is above the lower two thirds of the bright part is 0."""
    data = img.get_fdata().copy()
    bright = np.flatnonzero((data > 0.3 * np.percentile(data, 99)).any(axis=(0, 1)))
    data[:, :, int(bright[0] + 0.75 * len(bright)) :] = 0
    return _rewrite(img, data)


def shaken(img: nib.Nifti1Image) -> nib.Nifti1Image:
    """Four frames, between which the head moves by 12 mm."""
    steps = np.array([[0, 0, 0], [0, 12, 0], [0, 0, 0], [0, 0, 12.0]]) / nib.affines.voxel_sizes(img.affine)
    frames = [ndimage.shift(img.get_fdata(), step, order=1) for step in steps]
    return _rewrite(img, np.stack(frames, axis=-1))


def noisy(img: nib.Nifti1Image) -> nib.Nifti1Image:
    data, rng = img.get_fdata(), np.random.default_rng(0)
    level = np.percentile(data, 95)
    return _rewrite(img, (data + 0.5 * level * rng.standard_normal(data.shape)).clip(0))


def same(img: nib.Nifti1Image) -> nib.Nifti1Image:
    return _rewrite(img, img.get_fdata())


#: By participant: the faults, what they do to the image, and the sidecar's fields.
FAULTS: dict[str, tuple[tuple[str, ...], Callable[[nib.Nifti1Image], nib.Nifti1Image], dict[str, object]]] = {
    "sub-05": (("another person",), same, {}),
    "sub-06": (("mirrored",), mirrored, {}),
    "sub-07": (("turned",), turned, {}),
    "sub-08": (("moved",), moved, {}),
    "sub-09": (("cut", "window"), cut, {"FrameTimesStart": [3600], "FrameDuration": [2400]}),
    "sub-10": (
        ("motion",),
        shaken,
        {"FrameTimesStart": [4800, 5100, 5400, 5700], "FrameDuration": [300, 300, 300, 300]},
    ),
    "sub-11": (("noise",), noisy, {}),
}


def write_planted(root: Path) -> Path:
    """Simulate nine people without skull, two of them with good scans and the others with faults."""
    bids = simulate_dataset(root / "bids", Simulation(11, seed=3, voxel_mm=VOXEL_MM, pet="static"))
    for left_out in ("sub-03", "sub-04"):
        shutil.rmtree(bids / left_out)
    for path in sorted(bids.glob("sub-*/anat/*_T1w.nii.gz")):
        img, mask = nib.load(path), nib.load(bids / "truth" / f"{path.name.split('_')[0]}_mask.nii.gz")
        inside = np.asanyarray(resample(mask, img, np.eye(4)).dataobj) > 0.5
        nib.save(_rewrite(img, img.get_fdata() * inside), path)
    for who, (faults, change, fields) in FAULTS.items():
        (pet_file,) = (bids / who / "pet").glob("*_pet.nii.gz")
        if "another person" in faults:
            (other,) = (bids / GOOD[1] / "pet").glob("*_pet.nii.gz")
            shutil.copyfile(other, pet_file)
        pet = nib.load(pet_file)
        nib.save(change(image_on(pet.get_fdata(dtype=np.float32), pet.affine)), pet_file)
        sidecar = pet_file.with_name(pet_file.name.replace(".nii.gz", ".json"))
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | fields))
    return bids


if __name__ == "__main__":
    from coarse_participant import coarsen_anatomy, draw_nothing
    from stand_ins import replace

    from tau_pipeline.anatomy import grid, template
    from tau_pipeline.imaging import rigid
    from tau_pipeline.imaging.greedy import Schedule
    from tau_workflows.execution import participant

    coarsen_anatomy()
    draw_nothing()
    replace(template, REGISTRATION_MM=4.0, _DEFORMABLE=Schedule("NCC 2x2x2", (8,)))
    replace(rigid, _FINE_MM=2.5, _COARSE_MM=8.0, _REFINED=4)
    grid.working_grid.__defaults__ = (3.0, None)
    sys.exit(participant.main(sys.argv[1]))
