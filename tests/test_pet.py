from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tau_pipeline.anatomy.freesurfer import labels_from_freesurfer
from tau_pipeline.errors import GridMismatchError, ImageError, ReferenceRegionError, RegistrationError
from tau_pipeline.imaging import rigid
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.smooth import smooth
from tau_pipeline.imaging.transforms import displacement_mm, rotation_matrix
from tau_pipeline.imaging.volume import image_on, save_volume
from tau_pipeline.pet.coregister import coregister
from tau_pipeline.pet.frames import plan_frames
from tau_pipeline.pet.motion import correct_motion, static_image
from tau_pipeline.pet.quantification import pet_on_t1w, reference_value, suvr
from tau_workflows.interfaces.pet import CorrectMotion

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "ds-simtau"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/ds-simtau")

STATIC = {
    "TracerName": "AV1451",
    "Units": "Bq/mL",
    "InjectionStart": 0,
    "FrameTimesStart": [4800],
    "FrameDuration": [1200],
}


def dynamic(frames=4, length=300):
    return STATIC | {
        "FrameTimesStart": [4800 + length * i for i in range(frames)],
        "FrameDuration": [length] * frames,
    }


def move(angles_deg=(3.0, -2.0, 4.0), shift_mm=(2.0, -1.5, 3.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix(*angles_deg)
    matrix[:3, 3] = shift_mm
    return matrix


def activity_at(points):
    """A smooth lopsided activity, in world mm, that is nothing at the edge of the field of view."""
    x, y, z = np.moveaxis(points, -1, 0)
    spots = [
        (0, 0, 0, 14, 1000),
        (12, 5, -4, 7, 900),
        (-9, -14, 6, 6, 1400),
        (4, 16, 9, 6, 700),
        (-12, 10, -12, 5, 600),
    ]
    return sum(a * np.exp(-((x - i) ** 2 + (y - j) ** 2 + (z - k) ** 2) / (2 * s**2)) for i, j, k, s, a in spots)


def pet_on_grid(affine, shape, of_world=None):
    """The activity on a grid; ``of_world`` moves the content: PET world to the world where `activity_at` is defined."""
    points = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    if of_world is not None:
        points = points @ of_world[:3, :3].T + of_world[:3, 3]
    return image_on(activity_at(points).astype(np.float32), affine)


def grid(spacing=2.0, shape=(48, 52, 50)):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    return affine, shape


def t1w_grid():
    affine = move((4, -3, 2), (-33.0, -40.0, -35.0)) @ np.diag([1.5, 1.6, 1.4, 1.0])
    return image_on(np.zeros((46, 50, 48), np.float32), affine)


def truth_on(like):
    points = np.moveaxis(np.indices(like.shape), 0, -1) @ like.affine[:3, :3].T + like.affine[:3, 3]
    return activity_at(points)


def data_of(img):
    return np.asanyarray(img.dataobj)


# SUVR


def test_suvr_does_not_change_when_pet_is_scaled():
    rng = np.random.default_rng(0)
    activity, region = rng.random((6, 7, 8)) + 0.5, rng.random((6, 7, 8)) > 0.7
    np.testing.assert_allclose(suvr(activity * 12345.6, region), suvr(activity, region), rtol=1e-6)


def test_suvr_is_one_on_average_in_its_reference_region_and_leaves_its_input_alone():
    rng = np.random.default_rng(0)
    activity, region = rng.random((6, 7, 8)) - 0.1, rng.random((6, 7, 8)) > 0.7
    before = activity.copy()
    out = suvr(activity, region)
    assert out[region].mean() == pytest.approx(1.0, abs=1e-6)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(activity, before)
    assert reference_value(activity, region.astype(np.uint8)) == pytest.approx(activity[region].mean())


def test_an_impossible_reference_region_is_refused_in_one_sentence():
    activity, region = np.ones((3, 3, 3)), np.zeros((3, 3, 3), bool)
    with pytest.raises(ReferenceRegionError, match="is empty"):
        suvr(activity, region)
    with pytest.raises(ReferenceRegionError, match="on one grid"):
        suvr(activity, np.ones((3, 3, 4), bool))
    region[1] = True
    with pytest.raises(ReferenceRegionError, match="is -2; a positive one"):
        suvr(-2 * activity, region)
    with pytest.raises(ReferenceRegionError, match="other than 0 and 1"):
        suvr(activity, region * 8)
    activity[1, 1, 1] = np.nan
    with pytest.raises(ReferenceRegionError, match="1 of 9 voxels"):
        suvr(activity, region)


# one interpolation onto the T1w grid


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "PIR", "oblique"])
def test_pet_stored_in_any_orientation_gives_the_same_activity_on_the_t1w_grid(axes):
    affine, shape = grid(1.5, (64, 68, 66))
    if axes == "oblique":
        pet = pet_on_grid(move((10, -15, 20), (3, 2, -1)) @ affine, shape)
    else:
        ras = nib.Nifti1Image(data_of(pet_on_grid(affine, shape)), affine)
        turned = ras.as_reoriented(nib.orientations.axcodes2ornt(axes))
        assert "".join(nib.aff2axcodes(turned.affine)) == "".join(
            nib.orientations.ornt2axcodes(nib.io_orientation(turned.affine))
        )
        pet = image_on(data_of(turned), turned.affine)
    like = t1w_grid()
    out = data_of(pet_on_t1w(pet, plan_frames(pet.shape, STATIC), [np.eye(4)], np.eye(4), like))
    truth = truth_on(like)
    known = np.isfinite(out)
    assert np.abs(out - truth)[known].max() < 0.02 * truth.max()
    assert np.all(truth[~known] < 0.02 * truth.max()), "only the rim of the grid, far from the head, has no value"


def test_reorienting_the_pet_changes_nothing_beyond_rounding():
    affine, shape = grid()
    ras = nib.Nifti1Image(data_of(pet_on_grid(affine, shape)), affine)
    like, plan = t1w_grid(), plan_frames(shape, STATIC)
    first = data_of(pet_on_t1w(image_on(data_of(ras), affine), plan, [np.eye(4)], move(), like))
    for code in ("LAS", "LPS", "SAL"):
        ornt = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(code))
        turned = ras.as_reoriented(ornt)
        assert "".join(nib.aff2axcodes(turned.affine)) == code
        out = data_of(pet_on_t1w(image_on(data_of(turned), turned.affine), plan, [np.eye(4)], move(), like))
        np.testing.assert_allclose(out, first, atol=0.05)


def test_a_moved_pet_comes_back_through_its_transform():
    affine, shape = grid(1.5, (64, 68, 66))
    pet2t1w = move()
    pet = pet_on_grid(affine, shape, of_world=pet2t1w)
    like = t1w_grid()
    out = data_of(pet_on_t1w(pet, plan_frames(shape, STATIC), [np.eye(4)], pet2t1w, like))
    truth = truth_on(like)
    known = np.isfinite(out)
    assert np.abs(out - truth)[known].max() < 0.02 * truth.max()
    assert np.all(truth[~known] < 0.02 * truth.max()), "only the rim of the grid, far from the head, has no value"


def test_frames_and_coregistration_are_joined_into_one_interpolation():
    affine, shape = grid()
    first, second = move((2, 1, -3), (1, 2, -1)), np.eye(4)
    frames = [pet_on_grid(affine, shape, of_world=move() @ m) for m in (first, second)]
    pet = image_on(np.stack([data_of(f) for f in frames], -1), affine)
    plan, like = plan_frames(pet.shape, dynamic(2, 600)), t1w_grid()
    out = data_of(pet_on_t1w(pet, plan, [first, second], move(), like))
    separately = [data_of(resample(f, like, move() @ m)) for f, m in zip(frames, (first, second), strict=True)]
    np.testing.assert_allclose(out, np.mean(separately, axis=0), atol=1e-2)


def test_on_the_own_grid_without_a_move_the_activity_is_untouched():
    affine, shape = grid()
    pet = pet_on_grid(affine, shape)
    out = pet_on_t1w(pet, plan_frames(shape, STATIC), [np.eye(4)], np.eye(4), pet)
    np.testing.assert_allclose(data_of(out), data_of(pet), rtol=1e-6)


def test_static_3d_gives_exactly_what_4d_with_one_frame_gives():
    affine, shape = grid()
    three = pet_on_grid(affine, shape)
    four = image_on(data_of(three)[..., None], affine)
    results = []
    for pet in (three, four):
        plan = plan_frames(pet.shape, STATIC)
        motion = correct_motion(pet, plan)
        static = static_image(pet, plan, motion)
        results.append((data_of(static), data_of(pet_on_t1w(pet, plan, motion.frame_xfms, move(), t1w_grid()))))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_the_ending_of_the_file_and_its_scale_factor_do_not_matter(tmp_path):
    affine, shape = grid()
    pet = pet_on_grid(affine, shape)
    scaled = nib.Nifti1Image(np.zeros(shape, np.int16), affine)
    scaled.header.set_data_dtype(np.int16)
    scaled = nib.Nifti1Image(data_of(pet).astype(np.float64), affine, scaled.header)  # stored as int16 with a slope
    nib.save(scaled, tmp_path / "scaled.nii.gz")
    assert nib.load(tmp_path / "scaled.nii.gz").dataobj.slope not in (0, 1)
    save_volume(pet, tmp_path / "pet.nii")
    save_volume(pet, tmp_path / "pet.nii.gz")
    plan, like = plan_frames(shape, STATIC), t1w_grid()
    plain, packed, integer = (
        data_of(pet_on_t1w(load_volume(tmp_path / name), plan, [np.eye(4)], move(), like))
        for name in ("pet.nii", "pet.nii.gz", "scaled.nii.gz")
    )
    np.testing.assert_array_equal(plain, packed)
    np.testing.assert_allclose(integer, plain, atol=plain.max() / 30000)


def test_smoothing_on_the_pet_grid_equals_smoothing_on_the_t1w_grid():
    affine, shape = grid()
    pet, like, plan = pet_on_grid(affine, shape), t1w_grid(), plan_frames(shape, STATIC)
    before = data_of(pet_on_t1w(pet, plan, [np.eye(4)], move(), like, 6.0))
    after = data_of(smooth(pet_on_t1w(pet, plan, [np.eye(4)], move(), like), 6.0))
    inner = (slice(8, -8),) * 3
    assert np.abs(before - after)[inner].max() < 0.02 * after.max()


def test_nan_and_outside_the_field_of_view_have_no_value_and_negative_values_are_kept():
    affine, shape = grid()
    data = np.full(shape, -3.0, np.float32)
    data[:, :, :10] = np.nan
    pet = image_on(data, affine)
    far = image_on(np.zeros((4, 4, 4)), np.diag([300.0, 300.0, 300.0, 1.0]))
    out = data_of(pet_on_t1w(pet, plan_frames(shape, STATIC), [np.eye(4)], np.eye(4), pet))
    assert np.isnan(out[:, :, :10]).all()
    assert (out[:, :, 10:] == -3).all()
    beyond = data_of(pet_on_t1w(pet, plan_frames(shape, STATIC), [np.eye(4)], np.eye(4), far))
    assert np.isnan(beyond[3, 3, 3])


def test_a_wrong_number_of_moves_is_refused():
    affine, shape = grid()
    with pytest.raises(ImageError, match="2 frame transforms were given for 1 frames"):
        pet_on_t1w(pet_on_grid(affine, shape), plan_frames(shape, STATIC), [np.eye(4)] * 2, np.eye(4), t1w_grid())


# motion


def moving_pet(moves, noise=0.05):
    """Frames of a lopsided brain with sharp parts, each seen through one move, with noise."""
    affine, shape = grid(3.0, (38, 44, 38))
    points = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    parts = [((0, 0, 0), (42, 54, 38), 1.0), ((6, -4, 2), (28, 38, 22), -0.5), ((20, 24, 8), (9, 12, 8), 0.8)]
    parts += [((-22, -26, -8), (8, 9, 10), 0.8), ((-12, 30, 10), (7, 8, 7), 0.7), ((14, -30, 12), (8, 7, 8), -0.4)]
    rng = np.random.default_rng(0)
    frames = []
    for m in moves:
        at = points @ m[:3, :3].T + m[:3, 3]
        image = sum(level * ((((at - centre) / radii) ** 2).sum(-1) < 1) for centre, radii, level in parts)
        frames.append(ndimage.gaussian_filter(image, 0.8) + noise * rng.normal(size=shape))
    return image_on(1000 * np.stack(frames, -1).astype(np.float32), affine)


@pytest.mark.slow
def test_motion_between_frames_is_found_and_the_reference_stays_in_place():
    moves = [move((1, 2, -2), (2, -1, 1)), np.eye(4), move((-2, 0, 1), (-1, 2, 1))]
    pet = moving_pet(moves)
    before = np.array(pet.dataobj)
    plan = plan_frames(pet.shape, dynamic(3, 400))
    found = correct_motion(pet, plan)
    assert found.reference == 1
    np.testing.assert_array_equal(found.frame_xfms[1], np.eye(4))
    points = np.random.default_rng(1).uniform(-25, 25, (100, 3))
    for expected, got in zip(moves, found.frame_xfms, strict=True):
        assert displacement_mm(expected, got, points).mean() < 0.6
    np.testing.assert_array_equal(np.asanyarray(pet.dataobj), before)


def test_without_correction_every_move_is_the_identity():
    pet = moving_pet([np.eye(4), move()])
    found = correct_motion(pet, plan_frames(pet.shape, dynamic(2, 600)), enabled=False)
    assert all(np.array_equal(m, np.eye(4)) for m in found.frame_xfms)


@pytest.mark.parametrize(("frames", "corrected"), [(1, True), (2, False), (2, True)])
def test_motion_that_was_not_measured_is_no_number(tmp_path, frames, corrected):
    pet = moving_pet([np.eye(4), move()][:frames])
    path = str(save_volume(pet, tmp_path / "pet.nii"))
    plan = asdict(plan_frames(pet.shape, dynamic(frames, 1200 // frames)))
    figures = CorrectMotion(pet_file=path, frames=plan, motion_correction=corrected).call(tmp_path)["quality_figures"]
    measured = frames == 2 and corrected
    assert (figures["FrameMotion"] is not None) == measured
    assert ("FrameMotionMean" in figures) == measured
    if measured:
        assert len(figures["FrameMotion"]) == 2
        assert max(figures["FrameMotion"]) > 0.5


def test_large_motion_is_said():
    pet = moving_pet([np.eye(4), move((0, 0, 3), (8, 0, 0))])
    found = correct_motion(pet, plan_frames(pet.shape, dynamic(2, 600)))
    assert any("moved by" in sentence for sentence in found.assumptions)


def test_only_frames_in_the_window_are_looked_at():
    pet = moving_pet([np.eye(4), np.eye(4), np.eye(4)])
    data = np.array(pet.dataobj)
    data[..., 0] = np.nan
    plan = plan_frames(data.shape, dynamic(3, 600) | {"FrameTimesStart": [600, 4800, 5400]})
    assert plan.indices == (1, 2)
    found = correct_motion(image_on(data, pet.affine), plan)
    assert len(found.frame_xfms) == 2
    assert np.isfinite(data_of(static_image(image_on(data, pet.affine), plan, found))).all()


def test_an_empty_frame_is_refused():
    pet = image_on(np.zeros((20, 20, 20, 2), np.float32), np.diag([4.0, 4.0, 4.0, 1.0]))
    with pytest.raises(ImageError, match="empty"):
        correct_motion(pet, plan_frames(pet.shape, dynamic(2, 600)))


# FreeSurfer's labels


def freesurfer_head(tmp_path):
    """A blocky head: labels with numbers above 255, the brain, and the T1w with a skull around it."""
    shape = (44, 50, 42)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -1.5 * np.array(shape)
    x, y, z = (np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]).transpose(3, 0, 1, 2)
    brain = (x / 46) ** 2 + (y / 56) ** 2 + (z / 42) ** 2 < 1
    white = ((x - 5) / 33) ** 2 + ((y + 4) / 40) ** 2 + ((z - 3) / 26) ** 2 < 1
    fluid = ((x - 8) / 9) ** 2 + ((y - 6) / 14) ** 2 + ((z - 4) / 8) ** 2 < 1
    skull = ((x / 58) ** 2 + (y / 68) ** 2 + (z / 54) ** 2 < 1) & ~((x / 52) ** 2 + (y / 62) ** 2 + (z / 48) ** 2 < 1)
    labels = np.where(brain, np.where(x > 0, 2024, 1024), 0)
    labels[white] = np.where(x > 0, 41, 2)[white]
    labels[fluid] = 43
    intensity = 70.0 * brain + 40.0 * (white & ~fluid) - 40.0 * fluid
    full = ndimage.gaussian_filter(intensity + 90.0 * skull, 0.5) + np.random.default_rng(0).normal(size=shape)
    labels_file = save_volume(image_on(labels.astype(np.int32), affine), tmp_path / "aparc+aseg.nii.gz")
    brain_file = save_volume(image_on((intensity * brain).astype(np.float32), affine), tmp_path / "brain.nii.gz")
    return labels_file, brain_file, image_on(full.astype(np.float32), affine), image_on(brain, affine)


@pytest.fixture
def coarse_steps(monkeypatch):
    """A registration as coarse as `freesurfer_head`."""
    monkeypatch.setattr(rigid, "_FINE_MM", 4.0)


@pytest.mark.usefixtures("coarse_steps")
def test_labels_on_the_t1w_grid_are_taken_as_they_are(tmp_path):
    labels_file, brain_file, t1w, mask = freesurfer_head(tmp_path)
    found = labels_from_freesurfer(labels_file, brain_file, t1w, mask)
    np.testing.assert_array_equal(data_of(found.dseg), data_of(load_volume(labels_file)))
    np.testing.assert_array_equal(found.rigid.matrix, np.eye(4))
    assert found.dseg.get_data_dtype().kind == "i"
    inside, own = data_of(found.mask) > 0, data_of(mask) > 0
    assert 2 * (inside & own).sum() / (inside.sum() + own.sum()) > 0.98


@pytest.mark.usefixtures("coarse_steps")
def test_a_mask_file_makes_a_brain_of_an_image_with_skull(tmp_path):
    labels_file, _, t1w, mask = freesurfer_head(tmp_path)
    with_skull = save_volume(t1w, tmp_path / "orig_nu.nii.gz")
    mask_file = save_volume(mask, tmp_path / "mask.nii.gz")
    found = labels_from_freesurfer(labels_file, with_skull, t1w, mask, mask_file=mask_file)
    np.testing.assert_array_equal(data_of(found.dseg), data_of(load_volume(labels_file)))
    inside, own = data_of(found.mask) > 0, data_of(mask) > 0
    assert 2 * (inside & own).sum() / (inside.sum() + own.sum()) > 0.98


def test_a_mask_file_on_another_grid_is_an_error(tmp_path):
    labels_file, brain_file, t1w, mask = freesurfer_head(tmp_path)
    cut = save_volume(image_on(data_of(mask)[1:], t1w.affine), tmp_path / "mask.nii.gz")
    with pytest.raises(GridMismatchError, match="mask"):
        labels_from_freesurfer(labels_file, brain_file, t1w, mask, mask_file=cut)


@pytest.mark.usefixtures("coarse_steps")
def test_labels_on_another_grid_land_where_the_head_is(tmp_path):
    labels_file, _, t1w, _ = freesurfer_head(tmp_path)
    like = image_on(np.zeros((50, 56, 48)), move((0, 4, 0), (-70.0, -78.0, -66.0)) @ np.diag([2.8, 2.8, 2.8, 1.0]))
    elsewhere = resample(t1w, like, np.eye(4))
    found = labels_from_freesurfer(labels_file, None, elsewhere)
    expected = data_of(resample(load_volume(labels_file), elsewhere, np.eye(4), "nearest"))
    assert (data_of(found.dseg) == expected).mean() > 0.995
    assert set(np.unique(data_of(found.dseg))) == {0, 2, 41, 43, 1024, 2024}


@pytest.mark.slow
def test_labels_of_another_image_are_an_error(tmp_path):
    labels_file, brain_file, t1w, _ = freesurfer_head(tmp_path)
    noise = image_on(np.random.default_rng(1).random(t1w.shape).astype(np.float32), t1w.affine)
    with pytest.raises(RegistrationError, match="does not fit the T1w"):
        labels_from_freesurfer(labels_file, brain_file, noise)


@pytest.mark.usefixtures("coarse_steps")
def test_a_mask_that_does_not_overlap_the_labels_is_an_error(tmp_path):
    labels_file, brain_file, t1w, mask = freesurfer_head(tmp_path)
    half = np.array(mask.dataobj)
    half[:22] = 0
    with pytest.raises(RegistrationError, match="Dice"):
        labels_from_freesurfer(labels_file, brain_file, t1w, image_on(half, t1w.affine))


def test_an_empty_label_file_is_an_error(tmp_path):
    _, brain_file, t1w, _ = freesurfer_head(tmp_path)
    empty = save_volume(image_on(np.zeros(t1w.shape, np.int32), t1w.affine), tmp_path / "empty.nii.gz")
    with pytest.raises(ImageError, match="no labels"):
        labels_from_freesurfer(empty, brain_file, t1w)


@pytest.mark.slow
@needs_data
def test_the_freesurfer_labels_of_another_participant_are_refused_and_the_own_ones_taken():
    mri = DATA / "derivatives" / "freesurfer" / "sub-03" / "mri"
    own = load_volume(DATA / "sub-03" / "anat" / "sub-03_T1w.nii.gz", 3)
    found = labels_from_freesurfer(mri / "aparc+aseg.mgz", mri / "brain.mgz", own)
    np.testing.assert_array_equal(data_of(found.dseg), data_of(load_volume(mri / "aparc+aseg.mgz")))
    other = load_volume(DATA / "sub-01" / "anat" / "sub-01_T1w.nii.gz", 3)
    with pytest.raises(RegistrationError, match=r"aparc\+aseg.mgz does not fit the T1w"):
        labels_from_freesurfer(mri / "aparc+aseg.mgz", mri / "brain.mgz", other)


@pytest.mark.slow
@needs_data
def test_coregistration_of_a_shared_scan_is_the_same_for_the_same_seed_and_plausible():
    pet = load_volume(DATA / "sub-03" / "pet" / "sub-03_trc-AV1451_pet.nii.gz")
    t1w = load_volume(DATA / "sub-03" / "anat" / "sub-03_T1w.nii.gz", 3)
    mask = image_on((data_of(t1w) > 0).astype(np.uint8), t1w.affine)
    plan = replace(plan_frames(pet.shape, STATIC), assumptions=())
    static = static_image(pet, plan, correct_motion(pet, plan))
    first, second = coregister(static, t1w, mask), coregister(static, t1w, mask)
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert first.plausible
