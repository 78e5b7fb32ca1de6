"""The script that compares the outputs of two versions: it finds what it looks for, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from compare_outputs import main


@pytest.fixture
def outputs(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal outputs of a made-up participant."""
    out = tmp_path / "before" / "static" / "out"
    out.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.arange(8, dtype=np.float32).reshape(2, 2, 2), np.eye(4)), out / "a_pet.nii.gz")
    (out / "a_pet.json").write_text(json.dumps({"Units": "1", "SoftwareVersion": "1.0", "Assumptions": ["4 frames"]}))
    (out / "a_rois.tsv").write_text("region\tsuvr_mean\nA\t1.5\n")
    (out / "status.tsv").write_text("scan\tminutes\na\t1.5\n")
    (out / "a.html").write_text("<p>SUVR 1.5</p>")
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    return tmp_path / "before", tmp_path / "after"


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a_pet.json", '"1.0"', '"2.0"'),
        ("a_pet.json", "4 frames", "there are 4 frames"),
        ("status.tsv", "1.5", "2.5"),
        ("a.html", "SUVR", "mean SUVR"),
        ("a.html", "SUVR", "the scan&#39;s SUVR"),
    ],
)
def test_versions_durations_and_wording_may_change(outputs: tuple[Path, Path], name: str, old: str, new: str) -> None:
    edited(outputs[1] / "static/out" / name, old, new)
    assert main(["compare", *map(str, outputs)]) == 0


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a_pet.json", '"Units": "1"', '"Units": "2"'),
        ("a_pet.json", "4 frames", "5 frames"),
        ("a_rois.tsv", "1.5", "1.50"),
        ("status.tsv", "\na", "\nb"),
        ("a.html", "1.5", "1.6"),
    ],
)
def test_values_may_not(
    outputs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], name: str, old: str, new: str
) -> None:
    edited(outputs[1] / "static/out" / name, old, new)
    assert main(["compare", *map(str, outputs)]) == 1
    assert f"static/out/{name}" in capsys.readouterr().out


def test_one_voxel_or_a_lost_file_is_found(outputs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    image = outputs[1] / "static/out/a_pet.nii.gz"
    data = np.asanyarray(nib.load(image).dataobj).copy()
    data[0, 0, 0] = np.nextafter(np.float32(0), np.float32(1))
    nib.save(nib.Nifti1Image(data, np.eye(4)), image)
    (outputs[1] / "static/out/a_rois.tsv").unlink()
    assert main(["compare", *map(str, outputs)]) == 1
    told = capsys.readouterr().out
    assert "a_pet.nii.gz: voxels differ" in told
    assert "a_rois.tsv: only before" in told
