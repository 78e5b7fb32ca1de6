"""Folders with spaces, brackets, and other signs that ANTs and greedy take for parts of a command line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ants
import numpy as np
import pytest

from tau_pipeline.anatomy.template import warp_labels
from tau_pipeline.errors import OutputError
from tau_pipeline.imaging import plain_paths
from tau_pipeline.imaging.greedy import Schedule, displacements, register_deformable
from tau_pipeline.imaging.transforms import save_itk
from tau_pipeline.imaging.volume import image_on, save_volume

ODD = 'it\'s (a) [b], "c" d'
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


def test_labels_are_warped_by_a_transform_in_a_folder_with_brackets(tmp_path: Path) -> None:
    labels = np.zeros((8, 8, 8), np.int32)
    labels[2:5, 3:6, 1:7] = 7
    image = image_on(labels, AFFINE)
    file = save_volume(image, tmp_path / ODD / "labels.nii.gz")
    move = np.eye(4)
    move[0, 3] = 4.0
    found = [
        warp_labels(file, image, [save_itk(move, tmp_path / folder / "a.txt")]) for folder in ("plain", f"{ODD}/x")
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[1] == 7).sum() > 0


def test_a_registration_runs_where_the_temporary_folder_has_a_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / ODD
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    at = np.indices((16, 16, 16)) - 8
    balls = [
        image_on(100 * np.exp(-((at - np.array([x, 0, 0]).reshape(3, 1, 1, 1)) ** 2).sum(axis=0) / 20), AFFINE)
        for x in (0, 1)
    ]
    mask = image_on(np.ones((16, 16, 16), np.uint8), AFFINE)
    field = register_deformable(*balls, mask, np.eye(4), schedule=Schedule("SSD", (4,), "2vox 1vox"))
    assert np.isfinite(displacements(field)).all()
    assert np.abs(displacements(field)).max() > 1


def test_links_go_and_no_plain_folder_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ODD / "x.h5"
    file.parent.mkdir()
    file.write_text("x")
    with plain_paths.plain_paths([file, tmp_path / "y.txt"]) as links:
        assert Path(links[0]).read_text() == "x"
        assert [Path(link).suffix for link in links] == [".h5", ".txt"]
    assert not Path(links[0]).parent.exists()
    monkeypatch.setattr(tempfile, "tempdir", str(file.parent))
    monkeypatch.setattr(plain_paths, "_FOLDERS", ())
    with pytest.raises(OutputError, match="set TMPDIR"), plain_paths.plain_folder():
        pass


def test_ants_still_does_not_take_brackets(tmp_path: Path) -> None:
    """The links are not needed any more where it does."""
    image = ants.from_numpy(np.ones((4, 4, 4), np.float32))
    with pytest.raises(RuntimeError):
        ants.apply_transforms(image, image, [str(save_itk(np.eye(4), tmp_path / "[x]" / "a.txt"))])
