"""Maps in the spaces of templates, against closed forms."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tau_pipeline.anatomy import template as anat
from tau_pipeline.anatomy.spaces import between_templates, template_grid
from tau_pipeline.atlas import atlas_files
from tau_pipeline.errors import DamagedFileError, MissingInputError
from tau_pipeline.imaging.greedy import Schedule
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.transforms import save_itk
from tau_pipeline.imaging.volume import image_on, same_grid, save_volume
from tau_pipeline.imaging.warp import points_through, sample, sample_measured, volume_change
from tau_pipeline.pet.frames import plan_frames
from tau_pipeline.settings.spaces import parse_space, template_spaces
from tau_workflows.interfaces.spaces import PetInSpaces

#: T1w world to template world, and PET world to T1w world.
TO_TEMPLATE = np.array([[1.1, 0.02, 0.0, 3.0], [0.0, 0.95, -0.03, -2.0], [0.01, 0.0, 1.05, 1.5], [0, 0, 0, 1]])
TO_T1W = np.array([[1.0, 0.0, 0.0, 4.0], [0.0, 0.0, -1.0, 2.0], [0.0, 1.0, 0.0, -5.0], [0, 0, 0, 1]])
SLOPE, BIAS = np.array([2.0, -1.0, 3.0]), 1000.0
MNI = parse_space("MNI152NLin6Asym")


def world(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


def linear_pet(frames: int = 1) -> nib.Nifti1Image:
    """Values that are a linear function of world coordinates, which linear interpolation gives back exactly."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -80
    data = world(affine, (41, 41, 41)) @ SLOPE + BIAS
    return image_on(np.stack([data] * frames, axis=-1).astype(np.float32) if frames > 1 else data, affine)


def test_names_of_spaces_are_read_as_fmriprep_spells_them() -> None:
    texts = ["anat", "MNI152NLin6Asym", "MNI152NLin6Asym:res-02", "MNI152NLin2009cAsym:res-1"]
    assert list(map(str, template_spaces(texts))) == ["MNI152NLin6Asym:res-2", "MNI152NLin2009cAsym:res-1"]
    assert parse_space("fsaverage").kind == "surface"


@pytest.mark.parametrize("name", ["MNI152NLin6Asym", "MNI152NLin2009cAsym"])
def test_the_grids_are_those_of_the_templates_that_are_installed(name: str) -> None:
    files = atlas_files()
    file = {"MNI152NLin6Asym": files.template_brain, "MNI152NLin2009cAsym": files.template_brain_2009c}[name]
    fine, coarse = (template_grid(parse_space(f"{name}:res-{mm}")) for mm in (1, 2))
    assert same_grid(fine, nib.as_closest_canonical(load_volume(file, ndim=3)))
    in_fine = world(np.linalg.inv(fine.affine) @ coarse.affine, coarse.shape)
    assert np.array_equal(in_fine, np.rint(in_fine))
    assert in_fine.min() >= 0
    assert (in_fine.max(axis=(0, 1, 2)) >= np.array(fine.shape) - 2).all()


def test_points_go_through_transforms_last_first(tmp_path: Path) -> None:
    grid = image_on(np.zeros((3, 4, 5)), np.diag([-2.0, 3.0, 4.0, 1.0]))
    files = [save_itk(one, tmp_path / f"{i}.txt") for i, one in enumerate((TO_T1W, TO_TEMPLATE))]
    expected = world(np.linalg.inv(TO_T1W) @ np.linalg.inv(TO_TEMPLATE) @ grid.affine, grid.shape)
    np.testing.assert_allclose(points_through(grid, files), expected, atol=1e-4)


def test_means_over_the_template_weighted_by_the_volume_change_are_those_over_the_head() -> None:
    """A warp along one axis, x = 60 u + 50 u^3 with -1 < u < 1, whose volume change is known in closed form."""
    size = np.array([0.02, 0.5, 0.5])
    grid = image_on(np.zeros((100, 4, 4)), np.diag([*size, 1.0]))
    at = world(grid.affine, grid.shape) + np.array([-0.99, 0, 0])
    points = at.astype(np.float32)
    points[..., 0] = 60 * at[..., 0] + 50 * at[..., 0] ** 3
    found = volume_change(grid, points)
    inner = slice(1, -1)
    np.testing.assert_allclose(found[inner], (60 + 150 * at[..., 0] ** 2)[inner], rtol=1e-3)
    # A map that is x^2 in the head has a mean of 110^2 / 3 there; over the template it has another.
    values = points[..., 0].astype(float) ** 2
    assert np.average(values, weights=found) == pytest.approx(110**2 / 3, rel=0.01)
    assert abs(values.mean() / (110**2 / 3) - 1) > 0.3


def test_a_warp_of_known_determinant_changes_volumes_by_it() -> None:
    grid = image_on(np.zeros((5, 6, 7), np.float32), np.diag([-2.0, 2.0, 2.0, 1.0]))
    matrix = np.array([[1.1, 0.2, 0.0], [0.0, 0.9, 0.1], [0.3, 0.0, 1.2]])
    points = (world(grid.affine, grid.shape) @ matrix.T).astype(np.float32)
    np.testing.assert_allclose(volume_change(grid, points), np.linalg.det(matrix), rtol=1e-5)


def test_a_missing_and_a_damaged_transform_are_told(tmp_path: Path) -> None:
    grid = image_on(np.zeros((3, 4, 5)), np.eye(4))
    with pytest.raises(MissingInputError, match="there is no transform"):
        points_through(grid, [tmp_path / "no.h5"])
    (tmp_path / "bad.txt").write_text("no transform")
    with pytest.raises(DamagedFileError, match="is not an ITK transform"):
        points_through(grid, [tmp_path / "bad.txt"])


def test_labels_are_never_mixed_and_what_was_not_measured_stays_nan() -> None:
    img = linear_pet()
    labels = image_on((np.indices(img.shape).sum(axis=0) % 7).astype(np.int16) * 100, img.affine)
    points = world(img.affine, (40, 40, 40)).astype(np.float32) + np.float32(0.9)
    found = sample(labels, points, order=0)
    assert found.dtype == np.int16
    assert np.array_equal(found, np.asanyarray(labels.dataobj)[:40, :40, :40])
    values = np.asanyarray(img.dataobj).copy()
    values[:, :, :10] = np.nan
    measured = sample_measured(image_on(values, img.affine), points, np.eye(4))
    assert np.isnan(measured[:, :, :10]).all()
    np.testing.assert_allclose(measured[:, :, 10:], (points @ SLOPE + BIAS)[:, :, 10:], rtol=1e-5)


def test_each_frame_is_interpolated_once_from_its_own_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pet = linear_pet(frames=2)
    pet_file = save_volume(pet, tmp_path / "pet.nii")
    metadata = {
        "FrameTimesStart": [4800, 5100],
        "FrameDuration": [300, 300],
        "InjectionStart": 0,
        "TracerName": "AV1451",
    }
    plan = plan_frames(pet.shape, metadata)
    moved = np.eye(4)
    moved[:3, 3] = [1.0, -2.0, 0.5]
    head = np.diag([10.0, 10.0, 10.0, 1.0])
    head[:3, 3] = -150
    weights = [
        save_volume(image_on(np.full((31, 31, 31), value, np.float32), head), tmp_path / f"weight{value}.nii")
        for value in (0.5, 0.002)
    ]
    interpolated: list[np.ndarray] = []

    def counting(function: Any) -> Any:
        def counted(data: np.ndarray, *args: Any, **options: Any) -> Any:
            if options.get("order", 3) > 0:
                interpolated.append(data)
            return function(data, *args, **options)

        return counted

    for name in ("map_coordinates", "affine_transform", "zoom", "shift", "spline_filter"):
        monkeypatch.setattr(ndimage, name, counting(getattr(ndimage, name)))
    step = PetInSpaces(
        pet_file=str(pet_file),
        frames=asdict(plan),
        frame_xfms=[np.eye(4).tolist(), moved.tolist()],
        pet2t1w_xfm=str(save_itk(TO_T1W, tmp_path / "pet.txt")),
        smoothing_fwhm=0.0,
        reference_value=[500.0, 250.0],
        output_spaces=[str(MNI)],
        template_from_t1w=str(save_itk(TO_TEMPLATE, tmp_path / "t1w.txt")),
        templates_dir=str(tmp_path),
        weight_files={"rbv": [str(file) for file in weights]},
    )
    found_files = step.call(tmp_path)["space_files"][str(MNI)]
    files = found_files["suvr"]
    assert len(interpolated) == 2
    for frame in interpolated:
        np.testing.assert_array_equal(frame, np.asanyarray(pet.dataobj)[..., 0])
    first, second = (load_volume(file, ndim=3) for file in files)
    assert same_grid(first, template_grid(MNI))
    corrected = load_volume(found_files["corrected"]["rbv"], ndim=3).get_fdata()
    inside = np.isfinite(corrected)
    assert 0.2 < inside.mean() < 1
    np.testing.assert_allclose(corrected[inside], (0.5 + 0.002 * 500 * first.get_fdata())[inside], rtol=1e-5)
    np.testing.assert_allclose(second.get_fdata(), 2 * first.get_fdata(), rtol=1e-6)
    expected = []
    for move in (np.eye(4), moved):
        at = world(np.linalg.inv(TO_TEMPLATE @ TO_T1W @ move) @ first.affine, first.shape)
        inside = (np.abs(at + 0.0) <= 82.0).all(axis=-1)
        clipped = np.clip(at, -80.0, 80.0)
        expected.append(np.where(inside, clipped @ SLOPE + BIAS, np.nan))
    found, true = first.get_fdata(), np.mean(expected, axis=0) / 500
    known = np.isfinite(true)
    assert 0.2 < known.mean() < 0.98
    assert (np.isfinite(found) == known).mean() > 0.999
    both = known & np.isfinite(found)
    np.testing.assert_allclose(found[both], true[both], atol=2e-3)


@pytest.mark.slow
def test_the_two_templates_are_brought_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNI152NLin6Asym, moved to the 2009c template, is more like it than where it was."""
    monkeypatch.setattr(anat, "REGISTRATION_MM", 4.0)
    monkeypatch.setattr(anat, "_DEFORMABLE", Schedule("NCC 2x2x2", (20, 10), "1.5vox 0.5vox"))
    file = between_templates(tmp_path)
    made = file.stat().st_mtime_ns
    assert between_templates(tmp_path).stat().st_mtime_ns == made
    files = atlas_files()
    old, new = load_volume(files.template_brain, ndim=3), load_volume(files.template_brain_2009c, ndim=3)
    grid = template_grid(parse_space("MNI152NLin2009cAsym"))
    points = points_through(grid, [file])
    there = world(grid.affine, grid.shape).astype(np.float32)
    target = sample(new, there, order=1)
    inside = target > 0
    before, after = (np.corrcoef(sample(old, at, order=1)[inside], target[inside])[0, 1] for at in (there, points))
    assert after > before + 0.05
