from pathlib import Path

import numpy as np
import pytest

from tau_pipeline.anatomy import bias, brain_mask, parcellation
from tau_pipeline.anatomy import template as anat
from tau_pipeline.anatomy.tissue import segment_tissue
from tau_pipeline.anatomy.warped_atlas import warped_atlas
from tau_pipeline.atlas import atlas_files
from tau_pipeline.errors import GridMismatchError
from tau_pipeline.imaging import resample
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import image_like, image_on

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIMTAU = SHARED / "data" / "ds-simtau"
needs_heads = pytest.mark.skipif(not SIMTAU.is_dir(), reason="needs ../shared/data/ds-simtau")


@pytest.fixture
def no_change(tmp_path):
    """An ITK file that moves nothing."""
    import ants

    path = tmp_path / "identity.mat"
    ants.write_transform(ants.create_ants_transform("AffineTransform", dimension=3), str(path))
    return (path,)


def slab_head(shape=(40, 40, 40)):
    """From below: 12 mm of white matter, 4 of grey, 3 of fluid, 2 of something as bright as grey (dura)."""
    k = np.indices(shape)[2]
    white, gray, dura = k < 12, (k >= 12) & (k < 16), (k >= 19) & (k < 21)
    left = np.indices(shape)[0] < 20
    atlas = np.where(k < 10, np.where(left, 2, 41), np.where(k < 16, np.where(left, 1024, 2024), 0)).astype(np.int32)
    return atlas, gray | dura, white, dura


def test_votes_are_the_sums_of_gaussian_weights():
    rng = np.random.default_rng(0)
    atlases = [
        np.where(rng.random((9, 10, 11)) < share, rng.choice(numbers, (9, 10, 11)), 0).astype(np.int32)
        for share, numbers in ((0.3, [1, 7, 2035]), (0.2, [1, 7]))
    ]
    sd = 1.5
    found = parcellation.vote(atlases, np.ones(atlases[0].shape, bool), sd)
    reach = int(3 * sd + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sd) ** 2)
    for place in [(4, 5, 5), (5, 5, 5), (4, 4, 6)]:
        sums = dict.fromkeys((1, 7, 2035), 0.0)
        for a, wa in zip(offsets, weights, strict=True):
            for b, wb in zip(offsets, weights, strict=True):
                for c, wc in zip(offsets, weights, strict=True):
                    q = (place[0] + a, place[1] + b, place[2] + c)
                    within = all(0 <= x < n for x, n in zip(q, found.shape, strict=True))
                    for labels in atlases if within else ():
                        if labels[q]:
                            sums[int(labels[q])] += wa * wb * wc
        assert found[place] == max(sums, key=sums.__getitem__)


def test_votes_are_averaged_with_the_mean_over_the_column():
    rng = np.random.default_rng(5)
    sd, inner = 1.2, (slice(9, 16),) * 3
    reach = int(3 * sd + 0.5)
    labels, where, columns = np.zeros((25,) * 3, np.int32), np.zeros((25,) * 3, bool), np.full((25,) * 3, -1, np.int32)
    labels[inner] = np.where(rng.random((7, 7, 7)) < 0.3, rng.choice([3, 1010], (7, 7, 7)), 0)
    where[inner] = rng.random((7, 7, 7)) < 0.7
    columns[where] = rng.permutation(np.arange(np.count_nonzero(where)) // 4)
    found = parcellation.vote([labels], where, sd, columns)
    steps = np.indices((2 * reach + 1,) * 3) - reach
    weights = np.exp(-0.5 * (steps**2).sum(axis=0) / sd**2)
    sums = np.zeros((2, *labels.shape))
    for one, number in zip(sums, (3, 1010), strict=True):
        for voter in np.argwhere(labels == number):
            one[tuple(slice(x - reach, x + reach + 1) for x in voter)] += weights
    shared = sums.copy()
    for column in np.unique(columns[where]):
        members = columns == column
        shared[:, members] = (sums[:, members] + sums[:, members].mean(axis=1, keepdims=True)) / 2
    clear = where & (np.abs(shared[0] - shared[1]) > 1e-4)
    assert clear.sum() > 100
    np.testing.assert_array_equal(found[clear], np.where(shared[0] > shared[1], 3, 1010)[clear])


def test_a_column_goes_straight_through_a_flat_cortex():
    k = np.indices((6, 7, 12))[2]
    columns = parcellation.nearest_white((k >= 4) & (k < 8), k < 4)
    assert (columns[:, :, :4] == -1).all()
    assert (columns[:, :, 8:] == -1).all()
    np.testing.assert_array_equal(columns[:, :, 4:8], np.arange(42).reshape(6, 7, 1).repeat(4, axis=2))


def test_without_white_matter_each_voxel_is_its_own_column():
    cortex = np.zeros((4, 4, 4), bool)
    cortex[1:3, 2, 2] = True
    columns = parcellation.nearest_white(cortex, np.zeros_like(cortex))
    assert sorted(columns[cortex]) == [0, 1]


def test_the_banks_of_a_sulcus_without_fluid_keep_their_own_labels_when_the_atlas_is_a_voxel_off():
    k = np.indices((20, 20, 18))[2]
    white, gray = (k < 4) | (k >= 14), (k >= 4) & (k < 14)
    atlas = np.where(k < 4, 2, np.where(k < 10, 1024, np.where(k < 14, 1022, 2))).astype(np.int32)
    found = parcellation.label_tissue(atlas, gray, white, np.ones(atlas.shape, bool))
    inner = found[6:14, 6:14]
    assert (inner[:, :, 4:9] == 1024).all()
    assert (inner[:, :, 9:14] == 1022).all()


def test_a_voxel_beyond_all_votes_gets_none():
    labels = np.zeros((30, 9, 9), np.int32)
    labels[2, 4, 4] = 1035
    found = parcellation.vote([labels], np.ones(labels.shape, bool), 1.5)
    assert found[2, 4, 4] == 1035
    assert not found[12:].any()


def test_cortex_is_reached_and_dura_behind_fluid_is_not():
    _, gray, white, dura = slab_head()
    reached = parcellation.reached_cortex(gray, white)
    np.testing.assert_array_equal(reached, gray & ~dura)


def test_cortex_ends_where_it_would_be_too_thick():
    k = np.indices((30, 30, 30))[2]
    reached = parcellation.reached_cortex(k >= 10, k < 10, steps=4)
    np.testing.assert_array_equal(reached, (k >= 10) & (k < 14))


def test_bright_spots_carry_no_cortex():
    k = np.indices((40, 40, 40))[2]
    white = k < 5
    white[20:22, 20:22, 30:32] = True
    reached = parcellation.reached_cortex(~white, white, steps=4)
    assert not reached[:, :, 20:].any()


def test_labels_go_to_the_grey_matter_of_the_head_on_their_own_side():
    atlas, gray, white, dura = slab_head()
    inside = np.ones(atlas.shape, bool)
    inside[:, :, 25:] = False
    found = parcellation.label_tissue(atlas, gray, white, inside)
    left = np.indices(atlas.shape)[0] < 20
    cortex = gray & ~dura
    np.testing.assert_array_equal(found[cortex], np.where(left, 1024, 2024)[cortex])
    np.testing.assert_array_equal(found[white], np.where(left, 2, 41)[white])
    assert not found[dura].any()
    assert not found[~inside].any()


def test_deep_structures_stay_where_the_atlas_has_them():
    atlas, gray, white, _ = slab_head()
    atlas[15:25, 15:25, 2:6] = 10
    found = parcellation.label_tissue(atlas, gray, white, np.ones(atlas.shape, bool))
    np.testing.assert_array_equal(found == 10, atlas == 10)


def test_cerebellum_is_split_by_tissue_and_grows_into_grey_matter():
    shape = (40, 40, 40)
    i, _, k = np.indices(shape)
    atlas = np.where((k >= 10) & (k < 20), np.where(i < 20, 8, 47), 0).astype(np.int32)
    white, gray = (k >= 10) & (k < 14), (k >= 14) & (k < 30)
    found = parcellation.label_tissue(atlas, gray, white, np.ones(shape, bool))
    np.testing.assert_array_equal(np.isin(found, (7, 46)), white)
    np.testing.assert_array_equal(np.isin(found, (8, 47)), (k >= 14) & (k < 22))
    assert set(np.unique(found[:20])) == {0, 7, 8}
    assert set(np.unique(found[20:])) == {0, 46, 47}


def test_two_atlases_meet_half_way_at_the_outline_of_the_cerebellum():
    i, _, k = np.indices((40, 40, 40))
    low, high = (np.where((k >= 10) & (k < end), np.where(i < 20, 8, 47), 0).astype(np.int32) for end in (20, 24))
    none = np.zeros(low.shape, bool)
    for one, other in ((low, high), (high, low)):
        found = parcellation.label_tissue(one, none, none, ~none, [other])
        np.testing.assert_array_equal(np.isin(found, (8, 47)), (k >= 10) & (k < 22))
        assert set(np.unique(found[:20])) == {0, 8}


@pytest.mark.parametrize("voxels_at_a_time", [10_000, 500, 1])
def test_labels_above_255_arrive_unchanged_on_the_grid_of_the_t1w(tmp_path, no_change, monkeypatch, voxels_at_a_time):
    monkeypatch.setattr(anat, "_SLAB_VOXELS", voxels_at_a_time)
    labels = np.random.default_rng(3).choice([0, 8, 1035, 2035, 9170], (12, 13, 14)).astype(np.int32)
    affine = np.array([[-1.0, 0, 0, 30], [0, 0, 1.2, -20], [0, -1.1, 0, 10], [0, 0, 0, 1]])
    img = image_on(labels, affine)
    path = tmp_path / "labels.nii.gz"
    img.to_filename(path)
    np.testing.assert_array_equal(np.asarray(parcellation.labels_to_t1w(path, img, no_change).dataobj), labels)


def phantom_images():
    atlas, gray, white, _ = slab_head()
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    inside = np.zeros(atlas.shape, bool)
    inside[2:-2, 2:-2, :24] = True
    fluid = inside & ~gray & ~white
    tissue = np.stack([fluid, gray & inside, white & inside], axis=-1).astype(np.float32)
    return atlas, image_on(inside.astype(np.uint8), affine), tissue


def test_a_flipped_t1w_gives_the_flipped_parcellation(tmp_path, no_change):
    atlas, mask, tissue = phantom_images()
    path = tmp_path / "atlas.nii.gz"
    image_on(atlas, mask.affine).to_filename(path)
    upright = anat.TemplateRegistration(tuple(no_change), (), np.eye(4))
    straight = parcellation.parcellate(mask, mask, image_like(tissue, mask), [warped_atlas(mask, path, upright)])
    turned = np.diag([-1.0, -1.0, 1.0, 1.0])
    turned[:2, 3] = atlas.shape[0] - 1
    flipped_mask = image_on(np.asarray(mask.dataobj)[::-1, ::-1].copy(), turned)
    flipped = parcellation.parcellate(
        flipped_mask,
        flipped_mask,
        image_like(tissue[::-1, ::-1].copy(), flipped_mask),
        [warped_atlas(flipped_mask, path, upright)],
    )
    assert straight.get_data_dtype() == np.int16
    assert set(np.unique(np.asarray(straight.dataobj))) == {0, 2, 41, 1024, 2024}
    np.testing.assert_array_equal(np.asarray(flipped.dataobj)[::-1, ::-1], np.asarray(straight.dataobj))


def test_images_on_different_grids_are_refused():
    _, mask, tissue = phantom_images()
    other = image_on(tissue[:-1], mask.affine)
    with pytest.raises(GridMismatchError, match="tissue"):
        parcellation.parcellate(mask, mask, other, [mask])
    with pytest.raises(GridMismatchError, match="atlas 2"):
        parcellation.parcellate(mask, mask, image_like(tissue, mask), [mask, image_on(tissue[1:, ..., 0], mask.affine)])


def overlap(a, b):
    return 2 * np.count_nonzero(a & b) / max(1, np.count_nonzero(a) + np.count_nonzero(b))


@needs_heads
@pytest.mark.slow
@pytest.mark.parametrize(("participant", "cortical", "cerebellar"), [("sub-01", 0.70, 0.84), ("sub-03", 0.74, 0.87)])
def test_real_heads_are_parcellated_as_well_as_promised(participant, cortical, cerebellar, tmp_path):
    files = atlas_files()
    t1w = load_volume(SIMTAU / participant / "anat" / f"{participant}_T1w.nii.gz", 3)
    mask = brain_mask.stripped_mask(t1w) if brain_mask.is_skull_stripped(t1w) else brain_mask.extract_brain(t1w)
    t1w = bias.correct_bias(t1w, mask)
    atlases = [
        warped_atlas(mask, files.desikan_killiany, register(t1w, mask, files.template_brain, tmp_path))
        for register in (anat.register_to_template, anat.register_to_mirror_image)
    ]
    tissue = segment_tissue(t1w, mask, atlases[0])
    found = np.asarray(parcellation.parcellate(t1w, mask, tissue, atlases).dataobj)
    labels = load_volume(SIMTAU / "truth" / f"{participant}_labels.nii.gz", 3)
    truth = np.round(resample.resample_onto_data(labels, t1w, order=0)).astype(int)
    regions = [hemisphere + k for hemisphere in (1000, 2000) for k in range(1, 36) if k != 4]
    assert np.mean([overlap(found == k, truth == k) for k in regions if (truth == k).any()]) >= cortical
    assert overlap(np.isin(found, (8, 47)), np.isin(truth, (8, 47))) >= cerebellar
    assert not found[np.asarray(mask.dataobj) == 0].any()
