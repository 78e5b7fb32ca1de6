"""Contradictory and missing orientations in NIfTI headers."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.head_size import read_head_shape
from tau_pipeline.imaging.header_orientation import mirror, readings, template_space
from tau_pipeline.imaging.load import load_volume

SHAPE = (8, 9, 10)
RAS = np.array([[2.0, 0, 0, -7], [0, 2, 0, -8], [0, 0, 3, -11], [0, 0, 0, 1]])
LAS = np.array([[-2.0, 0, 0, 7], [0, 2, 0, -8], [0, 0, 3, -11], [0, 0, 0, 1]])


def written(path: Path, sform, qform, codes=(1, 1), shape=SHAPE) -> Path:
    img = nib.Nifti1Image(np.zeros(shape, np.float32), sform)
    img.header.set_sform(sform, codes[0])
    img.header.set_qform(qform, codes[1])
    img.header["sform_code"], img.header["qform_code"] = codes
    return with_header_as_it_is(img, path)


def with_header_as_it_is(img: nib.Nifti1Image, path: Path) -> Path:
    """Write an image without nibabel's corrections of its header, which are made on saving."""
    img.header["vox_offset"], img.header["magic"] = 352, b"n+1"
    block = img.header.binaryblock[:348]
    raw = bytearray(img.to_bytes())
    raw[:348] = block
    path.write_bytes(raw)
    return path


def test_a_header_without_contradiction_has_one_reading(tmp_path):
    for codes in ((1, 1), (1, 0), (0, 1)):
        found = readings(written(tmp_path / "a.nii", RAS, RAS, codes))
        np.testing.assert_allclose(found.affine, RAS, atol=1e-5)
        assert (found.reason, found.other) == ("", None)


def test_forms_that_differ_in_handedness_are_two_mirrored_readings(tmp_path):
    found = readings(written(tmp_path / "a.nii", RAS, LAS))
    np.testing.assert_allclose(found.affine, RAS, atol=1e-5)
    np.testing.assert_allclose(found.other, LAS, atol=1e-5)
    assert found.mirrored
    assert "left and right" in found.reason


def test_forms_that_differ_by_a_shift_are_told_but_not_mirrored(tmp_path):
    moved = RAS.copy()
    moved[:3, 3] += [0, 20, 0]
    found = readings(written(tmp_path / "a.nii", RAS, moved))
    assert not found.mirrored
    assert "20 mm" in found.reason


def test_voxel_sizes_of_the_sform_that_are_not_those_of_the_header_are_told(tmp_path):
    larger = RAS.copy()
    larger[:3, :3] *= 1.25
    found = readings(written(tmp_path / "a.nii", larger, RAS, (1, 0)))
    np.testing.assert_allclose(found.affine, larger)
    np.testing.assert_allclose(found.other[:3, :3], RAS[:3, :3])
    middle = [*(np.array(SHAPE) - 1) / 2, 1]
    np.testing.assert_allclose(found.other @ middle, larger @ middle)
    assert found.resized
    assert not found.mirrored
    assert "2.5 x 2.5 x 3.75 mm by the sform, but 2 x 2 x 3 mm by pixdim" in found.reason
    assert readings(tmp_path / "a.nii", "qform").reason == ""


def test_without_codes_the_fields_come_first_and_the_standard_reading_is_the_other(tmp_path):
    path = written(tmp_path / "a.nii", RAS, RAS, (0, 0))
    found = readings(path)
    np.testing.assert_allclose(found.affine, RAS, atol=1e-5)
    np.testing.assert_allclose(found.other, load_volume(path).affine, atol=1e-5)
    assert np.linalg.det(found.affine[:3, :3]) * np.linalg.det(found.other[:3, :3]) < 0
    assert found.mirrored
    assert "codes are 0" in found.reason


def test_without_anything_the_other_reading_is_the_mirror_image(tmp_path):
    img = nib.Nifti1Image(np.zeros(SHAPE, np.float32), None)
    img.header.set_zooms((2, 2, 3))
    for name in ("srow_x", "srow_y", "srow_z"):
        img.header[name] = 0
    img.header["sform_code"] = img.header["qform_code"] = 0
    found = readings(with_header_as_it_is(img, tmp_path / "a.nii"))
    assert found.mirrored
    assert found.other is not None
    center = [*((np.array(SHAPE) - 1) / 2), 1]
    np.testing.assert_allclose(found.affine @ center, found.other @ center, atol=1e-4)


def test_a_choice_settles_it_and_a_singular_form_is_refused(tmp_path):
    path = written(tmp_path / "a.nii", RAS, LAS)
    for choice, wanted in (("sform", RAS), ("qform", LAS)):
        found = readings(path, choice)
        np.testing.assert_allclose(found.affine, wanted, atol=1e-5)
        assert found.reason == ""
    img = nib.Nifti1Image(np.zeros(SHAPE, np.float32), RAS)
    for name in ("srow_x", "srow_y", "srow_z"):
        img.header[name] = 0
    img.header["sform_code"] = 0
    with_header_as_it_is(img, tmp_path / "b.nii")
    with pytest.raises(ImageError, match="no usable sform"):
        readings(tmp_path / "b.nii", "sform")


def test_a_mirrored_affine_mirrors_about_the_middle():
    again = mirror(mirror(RAS, SHAPE), SHAPE)
    np.testing.assert_allclose(again, RAS)
    ends = [mirror(RAS, SHAPE) @ [end, 0, 0, 1] for end in (0, SHAPE[0] - 1)]
    np.testing.assert_allclose([ends[0][0], ends[1][0]], [7, -7])


def test_template_space_is_known_by_its_code_or_its_grid(tmp_path):
    mni = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    assert "MNI" in template_space(written(tmp_path / "a.nii", mni, mni, shape=(91, 109, 91)))
    assert "sform_code of its header is 4" in template_space(written(tmp_path / "b.nii", RAS, RAS, (4, 1)))
    assert template_space(written(tmp_path / "c.nii", RAS, RAS)) == ""
    # a scanner's grid of that size lies elsewhere
    far = mni.copy()
    far[:3, 3] += [0, 0, -600]
    assert template_space(written(tmp_path / "d.nii", far, far, shape=(91, 109, 91))) == ""


def test_an_affine_that_is_the_identity_says_nothing(tmp_path):
    """Programs write it that have lost the true one; the other description is taken, or none is certain."""
    for sform, qform, used in ((np.eye(4), LAS, "qform"), (LAS, np.eye(4), "sform")):
        found = readings(written(tmp_path / "a.nii", sform, qform))
        np.testing.assert_allclose(found.affine, LAS, atol=1e-5)
        assert (found.used, found.mirrored, found.lost) == (used, False, False)
        assert "identity" in found.reason
    for codes in ((1, 1), (2, 0), (0, 1)):
        found = readings(written(tmp_path / "a.nii", np.eye(4), np.eye(4), codes))
        assert found.mirrored
        assert found.lost
    assert readings(written(tmp_path / "a.nii", np.eye(4), np.eye(4)), "sform").reason == ""


@pytest.mark.parametrize(("factor", "said"), [(0.001, "in meters"), (1000, "in microns")])
def test_lengths_in_meters_or_micrometers_without_a_unit_are_recognized(tmp_path, factor, said):
    affine = np.diag([*(factor * np.array([2.5, 2.5, 3.0])), 1.0])
    with pytest.raises(ImageError, match=rf"which no head has; correct .* \(its lengths seem to be {said}\)"):
        read_head_shape(written(tmp_path / "a.nii", affine, affine, shape=(96, 96, 60)))


@pytest.mark.parametrize(
    ("factor", "said"), [(0.1, "in cm"), (1 / 25.4, "in inches"), (0.4, "voxel sizes are too small")]
)
def test_an_image_that_is_smaller_than_a_head_is_refused_by_its_header(tmp_path, factor, said):
    shape, affine = (96, 96, 60), np.diag([2.5, 2.5, 3.0, 1.0])
    assert read_head_shape(written(tmp_path / "a.nii", affine, affine, shape=shape)) == shape
    small = np.diag([*(factor * np.diag(affine)[:3]), 1.0])
    with pytest.raises(ImageError, match=rf"96 x 96 x 60 voxels.* at least 100 mm: its .*{said}; correct"):
        read_head_shape(written(tmp_path / "a.nii", small, small, shape=shape))
    with pytest.raises(ImageError, match="identity"):
        read_head_shape(written(tmp_path / "a.nii", np.eye(4), np.eye(4), shape=shape))
    # One description that is right is enough.
    assert read_head_shape(written(tmp_path / "a.nii", np.eye(4), affine, shape=shape)) == shape
