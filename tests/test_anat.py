import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tau_pipeline.anatomy import bias, brain_mask, tissue
from tau_pipeline.anatomy import template as anat
from tau_pipeline.anatomy.grid import working_grid
from tau_pipeline.atlas import atlas_files
from tau_pipeline.errors import GridMismatchError, ImageError
from tau_pipeline.imaging import resample
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import image_like, image_on, to_ants, voxel_size_mm

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIMTAU = SHARED / "data" / "ds-simtau"
THICK = SHARED / "data" / "heads_thick_slices"
needs_heads = pytest.mark.skipif(not SIMTAU.is_dir(), reason="needs ../shared/data/ds-simtau")
needs_thick = pytest.mark.skipif(not THICK.is_dir(), reason="needs ../shared/data/heads_thick_slices")

FLUID, GRAY, WHITE = 30.0, 60.0, 100.0


def distance_from_centre(shape, voxel_mm):
    axes = [(np.arange(n) - (n - 1) / 2) * voxel_mm for n in shape]
    return np.sqrt(sum(g**2 for g in np.meshgrid(*axes, indexing="ij")))


def ball(radius_mm, voxel_mm=3.0, shape=(72, 72, 72), inside=100.0, outside=0.0):
    data = np.where(distance_from_centre(shape, voxel_mm) <= radius_mm, inside, outside)
    return image_on(data.astype(np.float32), np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0]))


def layered_brain(shape=(60, 60, 60)):
    """White ball under 5 mm of grey under 4 mm of fluid, 1 mm voxels, and the atlas that fits it exactly."""
    r = distance_from_centre(shape, 1.0)
    intensity = np.select([r < 16, r < 21, r < 25], [WHITE, GRAY, FLUID], 0.0).astype(np.float32)
    atlas = np.select([r < 16, r < 21], [2, 1024], 0).astype(np.int32)
    return intensity, r < 25, atlas


def test_a_ball_of_the_size_of_a_brain_in_a_zero_background_is_stripped():
    assert brain_mask.is_skull_stripped(ball(70.0))


def test_a_ball_of_the_size_of_a_head_is_not_stripped():
    assert not brain_mask.is_skull_stripped(ball(98.0))


def test_an_object_that_fills_the_field_of_view_is_not_stripped():
    assert not brain_mask.is_skull_stripped(ball(70.0, shape=(40, 40, 40)))


def test_a_background_of_noise_is_not_stripped():
    t1w = ball(70.0)
    noise = np.abs(np.random.default_rng(0).normal(0, 3, t1w.shape))
    assert not brain_mask.is_skull_stripped(image_like(np.asarray(t1w.dataobj) + noise, t1w))


@needs_heads
@pytest.mark.parametrize(("participant", "stripped"), [("sub-01", False), ("sub-03", True), ("sub-04", False)])
def test_real_heads_are_recognised_as_stripped_or_not(participant, stripped):
    t1w = load_volume(SIMTAU / participant / "anat" / f"{participant}_T1w.nii.gz", 3)
    assert brain_mask.is_skull_stripped(t1w) is stripped


def test_the_mask_of_a_stripped_head_is_its_object_with_holes_filled():
    t1w = ball(70.0)
    data = np.asarray(t1w.dataobj).copy()
    data[34:38, 34:38, 34:38] = 0
    found = brain_mask.stripped_mask(image_like(data, t1w))
    np.testing.assert_array_equal(np.asarray(found.dataobj) > 0, np.asarray(t1w.dataobj) > 0)


def test_an_object_too_small_for_a_brain_is_refused_with_its_volume():
    with pytest.raises(ImageError, match=r"the brain mask has \d+ ml, a human brain 500 to 2300 ml"):
        brain_mask.stripped_mask(ball(30.0))


def test_an_image_of_zeros_is_refused():
    with pytest.raises(ImageError, match="0 ml"):
        brain_mask.stripped_mask(ball(70.0, inside=0.0))


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "LIA"])
def test_the_working_grid_has_canonical_cubes_and_holds_the_mask_whatever_the_orientation(codes):
    mask = image_on((np.asarray(ball(50.0).dataobj) > 0).astype(np.uint8), np.diag([0.7, 1.0, 3.0, 1.0]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(mask.affine), nib.orientations.axcodes2ornt(codes))
    turned = mask.as_reoriented(turn)
    grid = working_grid(turned)
    np.testing.assert_allclose(voxel_size_mm(grid), 1.0)
    assert nib.aff2axcodes(grid.affine) == ("R", "A", "S")
    corners = np.argwhere(np.asarray(turned.dataobj) > 0) @ turned.affine[:3, :3].T + turned.affine[:3, 3]
    voxels = (corners - grid.affine[:3, 3]) @ np.linalg.inv(grid.affine[:3, :3]).T
    assert voxels.min() >= 0
    assert (voxels.max(axis=0) <= np.array(grid.shape) - 1).all()


def test_the_working_grid_of_an_empty_mask_is_an_error():
    with pytest.raises(ImageError, match="the brain mask is empty"):
        working_grid(ball(70.0, inside=0.0))


def test_resampling_onto_the_same_grid_changes_nothing_and_a_linear_image_stays_linear():
    affine = np.array([[0.0, -1.2, 0.1, 5.0], [1.1, 0.0, 0.0, -3.0], [0.0, 0.1, 0.9, 2.0], [0, 0, 0, 1]])
    i, j, k = np.indices((20, 22, 24)).astype(np.float32)
    img = image_on(2 * i - j + 3 * k, affine)
    np.testing.assert_allclose(resample.resample_onto_data(img, img), np.asarray(img.dataobj), atol=1e-4)
    shift = np.eye(4)
    shift[:3, 3] = [4.5, 3.25, 2.75]
    like = image_on(np.zeros((8, 8, 8), np.uint8), affine @ shift)
    i, j, k = np.indices((8, 8, 8))
    expected = 2 * (i + 4.5) - (j + 3.25) + 3 * (k + 2.75)
    np.testing.assert_allclose(resample.resample_onto_data(img, like), expected, atol=1e-3)


@pytest.mark.slow
def test_a_bias_field_is_taken_out_and_the_head_around_the_brain_stays():
    r = distance_from_centre((74, 74, 74), 2.5)
    tissue = np.select([r < 45, r < 65, r < 80], [WHITE, GRAY, 80.0], 0.0)
    mask = r < 65
    i = np.indices(r.shape)[0]
    field = np.exp(0.4 * np.sin(i / 74 * np.pi))
    t1w = image_on((tissue * field).astype(np.float32), np.diag([2.5, 2.5, 2.5, 1.0]))
    found = np.asarray(bias.correct_bias(t1w, image_like(mask, t1w)).dataobj)
    before, after = ((x[r < 45].std() / x[r < 45].mean()) for x in (np.asarray(t1w.dataobj), found))
    assert after < before / 3
    assert (found[(r > 70) & (r < 78)] > 0).all()
    assert not found[tissue == 0].any()


def test_a_mask_on_another_grid_is_refused():
    with pytest.raises(GridMismatchError, match="mask"):
        bias.correct_bias(ball(70.0), ball(70.0, voxel_mm=2.0))


def test_a_brain_of_three_intensities_is_put_at_0_1_and_2():
    intensity, inside, atlas = layered_brain()
    scale = tissue.tissue_scale(intensity, inside, atlas)
    for value, number in ((FLUID, 0), (GRAY, 1), (WHITE, 2)):
        np.testing.assert_allclose(scale[inside & (intensity == value)], number, atol=1e-5)


def test_the_scale_does_not_depend_on_the_unit_of_the_intensities():
    intensity, inside, atlas = layered_brain()
    noisy = intensity + np.random.default_rng(1).normal(0, 3, intensity.shape).astype(np.float32) * (intensity > 0)
    expected = tissue.tissue_scale(noisy, inside, atlas)
    np.testing.assert_allclose(tissue.tissue_scale(17 * noisy, inside, atlas), expected, atol=1e-4)


def test_bright_fat_and_vessels_in_the_mask_do_not_move_the_tissues():
    intensity, inside, atlas = layered_brain()
    rng = np.random.default_rng(2)
    noisy = intensity + rng.normal(0, 3, intensity.shape).astype(np.float32) * (intensity > 0)
    r = distance_from_centre(intensity.shape, 1.0)
    fat = inside & (((r > 23) & (rng.random(r.shape) < 0.5)) | (rng.random(r.shape) < 0.02))
    bright = np.where(fat, 250.0, noisy).astype(np.float32)
    assert fat.sum() > 0.1 * inside.sum()
    clean = tissue.tissue_scale(noisy, inside, atlas)
    found = tissue.tissue_scale(bright, inside, atlas)
    white, gray = r < 14, (r > 17.5) & (r < 19.5)
    assert (found[white] > 1.5).mean() > 0.95
    assert (np.abs(found[gray] - 1) < 0.5).mean() > 0.9
    assert abs(np.median(found[gray]) - np.median(clean[gray])) < 0.1


def test_cerebellum_is_scaled_by_its_own_intensities():
    intensity, inside, atlas = layered_brain()
    half = np.zeros_like(inside)
    half[:, :, :30] = True
    own = np.where(half, 0.8 * intensity, intensity).astype(np.float32)
    labels = np.where(half & (atlas == 2), 7, np.where(half & (atlas == 1024), 8, atlas))
    scale = tissue.tissue_scale(own, inside, labels)
    deep = np.zeros_like(half)
    deep[:, :, :25] = True
    np.testing.assert_allclose(np.median(scale[deep & (labels == 7)]), 2, atol=0.01)
    np.testing.assert_allclose(np.median(scale[deep & (labels == 8)]), 1, atol=0.05)


def test_an_image_in_which_white_matter_is_dark_is_refused():
    intensity, inside, atlas = layered_brain()
    with pytest.raises(ImageError, match="each must be brighter than the one before"):
        tissue.tissue_scale((130 - intensity) * inside, inside, atlas)


def test_an_atlas_beside_the_brain_is_refused():
    intensity, inside, atlas = layered_brain()
    with pytest.raises(ImageError, match="does not overlap"):
        tissue.tissue_scale(intensity, inside, np.zeros_like(atlas))


def overlap(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.slow
def test_the_network_of_the_brain_mask_gives_the_same_bits_in_any_number_of_threads() -> None:
    torch, deepbet = pytest.importorskip("torch"), pytest.importorskip("deepbet.bet")
    head = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 64, 64, 64)).astype(np.float32))
    found = []
    for threads in (1, 2, 4):
        model = brain_mask._in_threads(deepbet.BrainExtraction(no_gpu=True).model, threads)
        seen: list[int] = []
        model.register_forward_pre_hook(lambda *_, seen=seen: seen.append(torch.get_num_threads()))
        with torch.no_grad():
            found.append(model(head))
        assert (seen, torch.get_num_threads()) == ([threads], 1)
    assert all(torch.equal(found[0], one) for one in found[1:])


@needs_heads
@pytest.mark.slow
@pytest.mark.parametrize("participant", ["sub-01", "sub-02", "sub-03"])
def test_brain_masks_of_real_heads_overlap_the_true_ones(participant):
    t1w = load_volume(SIMTAU / participant / "anat" / f"{participant}_T1w.nii.gz", 3)
    found = brain_mask.stripped_mask(t1w) if brain_mask.is_skull_stripped(t1w) else brain_mask.extract_brain(t1w)
    truth = load_volume(SIMTAU / "truth" / f"{participant}_mask.nii.gz", 3)
    on_t1w = resample.resample_onto_data(truth, t1w, order=0) > 0
    assert overlap(np.asarray(found.dataobj) > 0, on_t1w) >= 0.95


@needs_thick
@pytest.mark.slow
def test_the_brain_mask_of_a_head_with_3_mm_slices_overlaps_the_drawn_one():
    t1w = load_volume(THICK / "patient04_study1_T1W.nii.gz", 3)
    truth = load_volume(THICK / "patient04_study1_brainmask.nii.gz", 3)
    found = np.asarray(brain_mask.extract_brain(t1w).dataobj) > 0
    assert overlap(found, np.asarray(truth.dataobj) > 0) >= 0.94


@pytest.mark.slow
def test_a_template_registered_to_itself_comes_back_and_the_result_repeats(tmp_path):
    template = load_volume(atlas_files().template_brain, 3)
    turned = np.array([[1.0, 0, 0, 8], [0, 0, -1, -5], [0, 1, 0, 6], [0, 0, 0, 1]])
    elsewhere = turned @ template.affine
    moved = image_on(np.asarray(template.dataobj).astype(np.float32), elsewhere)
    mask = image_on(np.asarray(template.dataobj) > 0, elsewhere)
    import ants

    digests = set()
    for attempt in ("a", "b"):
        found = anat.register_to_template(moved, mask, atlas_files().template_brain, tmp_path / attempt)
        labels = anat.warp_labels(atlas_files().desikan_killiany, moved, found.t1w_from_template)
        digests.add(hashlib.sha256(labels.tobytes()).hexdigest())
    assert len(digests) == 1
    np.testing.assert_allclose(found.head_up, turned[:3, 2], atol=0.02)
    like = image_on(np.zeros(template.shape, np.uint8), template.affine)
    straight = resample.resample_onto_data(load_volume(atlas_files().desikan_killiany, 3), like, order=0)
    assert (labels == straight)[(straight > 0) & (np.asarray(mask.dataobj) > 0)].mean() > 0.9
    there = ants.apply_transforms(
        to_ants(template), to_ants(moved), [str(p) for p in found.template_from_t1w], interpolator="linear"
    ).numpy()
    inside = np.asarray(mask.dataobj) > 0
    assert np.corrcoef(there[inside], np.asarray(template.dataobj)[inside])[0, 1] > 0.95
