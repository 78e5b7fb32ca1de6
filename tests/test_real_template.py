"""Uncorrected uptake of putamen and pallidum on a real PET template, held to a plain computation.

The deep gray matter of real scans has uptake that simulated ones do not have (off-target binding of flortaucipir).
Labels are those of the atlas, in the space that the template shares. The steps are those of the workflow; the oracle
interpolates and averages voxel by voxel.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tau_pipeline.atlas import atlas_files
from tau_pipeline.files import read_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.transforms import rotation, save_itk
from tau_pipeline.imaging.volume import image_on, save_volume
from tau_pipeline.pet.frames import plan_frames
from tau_workflows.interfaces.anat import FindReference
from tau_workflows.interfaces.pet import CorrectMotion, PetOnT1w, Quantify
from tau_workflows.interfaces.pvc import CorrectPartialVolume

REAL_PET = Path(__file__).resolve().parents[2] / "shared" / "data" / "real_pet" / "spm_PET.nii.gz"
pytestmark = pytest.mark.skipif(not REAL_PET.is_file(), reason="needs ../shared/data/real_pet")

DEEP = {"Left-Putamen": 12, "Right-Putamen": 51, "Left-Pallidum": 13, "Right-Pallidum": 52}
REFERENCES = {"CerebellarGM": (8, 47), "ADNIWholeCerebellum": (7, 8, 46, 47)}
#: FreeSurfer's numbers of cerebral gray matter, and of what is no tissue: the guard of CerebellarGM looks at both.
GRAY = (*range(1000, 1036), *range(2000, 2036), 3, 42, *(10, 11, 12, 13, 17, 18, 26, 28), *range(49, 55), 58, 60)
NO_TISSUE = (0, 4, 5, 14, 15, 24, 43, 44, 72, 30, 31, 62, 63)
#: Voxels of the labels.
EDGE_MM = 3.0
METADATA = {"TracerName": "flortaucipir", "FrameTimesStart": [4800], "FrameDuration": [1200]}
IDENTITY = {"participant_id": "sub-01", "session_id": None, "tracer": "flortaucipir", "manufacturer": None}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The template in a moved world with the transform back, and the atlas's labels at every third voxel."""
    folder = tmp_path_factory.mktemp("real")
    atlas = load_volume(atlas_files().desikan_killiany, ndim=3)
    labels = np.asanyarray(atlas.dataobj)[::3, ::3, ::3].astype(np.int16)
    affine = atlas.affine @ np.diag([EDGE_MM, EDGE_MM, EDGE_MM, 1.0])
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = rotation(np.radians([5.0, -8.0, 12.0])), (7.0, -11.0, 4.0)
    pet = load_volume(REAL_PET, ndim=3)
    values = np.asanyarray(pet.dataobj, np.float32) * np.float32(1e4)
    dseg = save_volume(image_on(labels, affine), folder / "dseg.nii")
    return {
        "folder": folder,
        "labels": labels,
        "values": values,
        "to_pet": np.linalg.inv(pet.affine) @ affine,
        "dseg_file": str(dseg),
        "mask_file": str(save_volume(image_on((labels > 0).astype(np.uint8), affine), folder / "mask.nii")),
        "pet_file": str(save_volume(image_on(values, moved @ pet.affine), folder / "pet.nii")),
        "pet2t1w_xfm": str(save_itk(np.linalg.inv(moved), folder / "xfm.txt")),
    }


@pytest.fixture(scope="module")
def tables(scan: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of the workflow's steps in its order, without and with partial volume correction."""
    folder, dseg_file, mask_file = scan["folder"], scan["dseg_file"], scan["mask_file"]
    frames = asdict(plan_frames(scan["values"].shape, METADATA))
    found = CorrectMotion(pet_file=scan["pet_file"], frames=frames).call(folder)
    regions = FindReference(dseg_file=dseg_file, ref_region=list(REFERENCES)).call(folder)
    regions.pop("assumptions")
    moved = {"static_file": found["static_file"], "pet2t1w_xfm": scan["pet2t1w_xfm"]}
    activity = PetOnT1w(
        pet_file=scan["pet_file"],
        pet_metadata=METADATA,
        t1w_preproc_file=dseg_file,
        frames=found["frames"],
        frame_xfms=found["frame_xfms"],
        **moved,
    ).call(folder)
    labeled = {"dseg_file": dseg_file, "mask_file": mask_file, "activity_file": activity["activity_file"], **regions}
    measured = Quantify(identity=IDENTITY, **labeled).call(folder)
    without = read_tsv(Path(measured["rois_file"]))
    further = {"rois_file": measured["rois_file"], "quality": measured["quality"], "smoothing_fwhm": 0.0}
    (folder / "pvc").mkdir()
    corrected = CorrectPartialVolume(pvc=["gtm"], psf=[6.0], **moved, **labeled, **further).call(folder / "pvc")
    return without, read_tsv(Path(corrected["rois_file"]))


def mean_in(scan: dict[str, Any], inside: np.ndarray) -> float:
    """Mean of the PET over labeled voxels: for each, its eight neighbors on the PET's grid, weighted by nearness."""
    found = []
    for place in np.argwhere(inside):
        at = scan["to_pet"][:3, :3] @ place + scan["to_pet"][:3, 3]
        first = np.floor(at).astype(int)
        total = 0.0
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod([after if one else 1 - after for one, after in zip(corner, at - first, strict=True)])
            if weight > 1e-9:
                total += weight * float(scan["values"][tuple(first + corner)])
        found.append(total)
    return float(np.mean(found))


def share_of(labels: np.ndarray, numbers: tuple[int, ...]) -> np.ndarray:
    """Share of a voxel's signal from labels at a resolution of 6 mm: shifted copies, weighted by a Gaussian."""
    share = np.isin(labels, numbers).astype(float)
    reach = np.arange(-3, 4)
    weights = np.exp(-0.5 * (reach * EDGE_MM * np.sqrt(8 * np.log(2)) / 6.0) ** 2)
    for axis in range(3):
        places = np.arange(labels.shape[axis])
        copies = [share.take(np.clip(places + step, 0, len(places) - 1), axis) for step in reach]
        share = sum(weight * copy for weight, copy in zip(weights / weights.sum(), copies, strict=True))
    return share


@pytest.fixture(scope="module")
def expected(scan: dict[str, Any]) -> dict[str, dict[str, float]]:
    """SUVR of the deep regions by each reference region."""
    labels = scan["labels"]
    guarded = (share_of(labels, GRAY) <= 0.1) & (share_of(labels, NO_TISSUE) <= 0.45)
    deep = {name: mean_in(scan, labels == number) for name, number in DEEP.items()}
    found = {}
    for name, numbers in REFERENCES.items():
        inside = np.isin(labels, numbers)
        below = mean_in(scan, inside & guarded if name == "CerebellarGM" else inside)
        found[name] = {region: value / below for region, value in deep.items()}
    return found


@pytest.mark.parametrize("reference", list(REFERENCES))
def test_putamen_and_pallidum_are_means_over_labels_by_the_mean_of_the_reference(
    tables: tuple[pd.DataFrame, pd.DataFrame], expected: dict[str, dict[str, float]], reference: str
) -> None:
    own = tables[0][tables[0]["reference_region"] == reference].set_index("region")
    found = {name: float(own.loc[name, "suvr_mean"]) for name in DEEP}
    assert found == pytest.approx(expected[reference], rel=1e-4)
    assert float(own.loc[reference, "suvr_mean"]) == pytest.approx(1.0, abs=1e-6)
    assert float(own.loc["Left-Putamen", "volume_mm3"]) > 3000


def test_partial_volume_correction_leaves_the_uncorrected_columns_as_they_are(
    tables: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    without, corrected = tables
    pd.testing.assert_frame_equal(corrected[without.columns], without)
    own = corrected.set_index(["reference_region", "region"]).loc["CerebellarGM"].loc[list(DEEP)]
    assert (abs(own["suvr_pvc_mean"].astype(float) / own["suvr_mean"].astype(float) - 1) > 0.01).all()
