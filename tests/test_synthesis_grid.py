import itertools

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from synthesis_cohort import CENTRE_MM, head, oblique, oriented, world_of

from tau_pipeline.errors import DamagedFileError, GridMismatchError, ImageError, SettingError
from tau_pipeline.imaging.volume import Volume, image_on
from tau_pipeline.synthesis.data.grid import Grid, common_grid, covering_sides, require_side_multiple
from tau_pipeline.synthesis.data.placement import Placement, from_grid, place, to_grid

SHAPE = (20, 22, 18)
CODES = ("RAS", "LAS", "LPS", "LIA", "PIR", "SRA")
SMALL, LARGE = Grid((16, 12, 8), (2, 2, 2)), Grid((32, 48, 64), (2, 2, 2))
DIRECTION = np.array([0.3, -0.2, 0.5])


def noise(shape, dtype=np.float32):
    return np.random.default_rng(1).normal(size=shape).astype(dtype)


def ramp(shape, affine):
    """An image that is a linear function of the world, which linear interpolation gives back exactly."""
    return image_on((world_of(shape, affine) @ DIRECTION + 7).astype(np.float32), affine)


def far_from_the_edge(values, n=4):
    return values[n:-n, n:-n, n:-n]


# --- the grid itself ---


def test_the_grid_has_its_middle_at_world_zero_and_axes_right_anterior_superior():
    grid = Grid((4, 5, 6), (1, 2, 3))
    corners = grid.affine @ np.array([[0, 0, 0, 1], [3, 4, 5, 1]]).T
    np.testing.assert_allclose(corners[:3].sum(axis=1), 0)
    np.testing.assert_array_equal(np.diag(grid.affine)[:3], [1, 2, 3])


def test_without_a_shape_the_grid_covers_the_papers_field_and_divides_as_the_network_needs():
    assert common_grid(1.0).shape == (160, 192, 160)
    for voxel_mm, multiple in itertools.product((1.0, 1.3, 1.6, 2.0, 2.5), (16, 32)):
        grid = common_grid(voxel_mm, side_multiple=multiple)
        for n, field in zip(grid.shape, (160, 192, 160), strict=True):
            assert n % multiple == 0
            assert n * voxel_mm >= field - 1e-3
            assert (n - multiple) * voxel_mm < field


def test_a_shape_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(SettingError, match=r"100 x 112 x 96 voxels.*divide by 16; take 112 x 112 x 96"):
        common_grid(2.0, (100, 112, 96))
    with pytest.raises(SettingError, match=r"swinunetr needs .* 32; take 96 x 96 x 96"):
        require_side_multiple(Grid((80, 96, 80), (2, 2, 2)), 32, "swinunetr")


@pytest.mark.parametrize("voxel_mm", [0, -1.0, float("nan"), float("inf")])
def test_a_voxel_size_that_is_no_size_is_refused(voxel_mm):
    with pytest.raises(SettingError, match="not possible"):
        Grid((16, 16, 16), (1, 1, voxel_mm))


@pytest.mark.parametrize("shape", [(16, 16), (16, 0, 16), (16, -16, 16)])
def test_a_shape_that_is_no_shape_is_refused(shape):
    with pytest.raises(SettingError):
        common_grid(1.0, shape)


def test_the_fewest_sides_cover_a_field_to_the_voxel():
    assert covering_sides((10, 11, 9), (2, 2, 2)) == (5, 6, 5)
    assert covering_sides((160, 160, 160), (1.6, 1.6, 1.6), 10) == (100, 100, 100)


def test_grid_and_placement_survive_json():
    placement = place(head(SHAPE, oblique(SHAPE)).mask, SMALL, most_cut_mm=99)
    assert Placement.from_dict(placement.as_dict()) == placement
    assert Grid.from_dict(SMALL.as_dict()) == SMALL


@pytest.mark.parametrize(
    "content", [{}, {"shape": [1, 2, 3]}, {"shape": 3, "voxel_mm": 2}, {"shape": "abc", "voxel_mm": [1, 1, 1]}]
)
def test_a_damaged_grid_or_placement_is_named(content):
    with pytest.raises(DamagedFileError, match="grid"):
        Grid.from_dict(content)
    with pytest.raises(DamagedFileError, match="grid"):
        Placement.from_dict({"grid": content, "source_shape": [1, 2, 3], "brain_mm": [1, 2, 3]})


# --- exact: swapped and turned axes, crop and pad ---


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("grid", [SMALL, LARGE, Grid((16, 64, 10), (2, 2, 2))])
def test_each_voxel_of_the_grid_has_the_value_at_its_place_in_the_world(codes, grid):
    affine = oriented(codes, SHAPE)
    placement = place(head(SHAPE, affine).mask, grid, most_cut_mm=99)
    values = noise(SHAPE)
    found = to_grid(image_on(values, affine), placement, fill=-7)
    assert placement.exact
    to_voxel = np.linalg.inv(affine)
    voxels = np.rint(world_of(grid.shape, placement.affine) @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
    inside = ((voxels >= 0) & (voxels < SHAPE)).all(axis=-1)
    expected = np.full(grid.shape, -7, np.float32)
    expected[inside] = values[tuple(voxels[inside].T)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("codes", CODES)
def test_the_axes_of_the_array_are_right_anterior_superior_with_the_voxel_size_of_the_grid(codes):
    affine = oriented(codes, SHAPE)
    placement = place(head(SHAPE, affine).mask, LARGE)
    np.testing.assert_allclose(placement.affine[:3, :3], np.diag([2.0, 2, 2]), atol=1e-9)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8])
def test_going_to_a_grid_that_covers_the_image_and_back_gives_the_same_bits(codes, dtype):
    affine = oriented(codes, SHAPE)
    img = image_on((noise(SHAPE) * 50).astype(dtype), affine)
    placement = place(head(SHAPE, affine).mask, LARGE)
    back = from_grid(to_grid(img, placement, labels=dtype != np.float32), placement)
    np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(img.dataobj))
    assert np.asarray(back.dataobj).dtype == dtype
    np.testing.assert_allclose(back.affine, affine)


@pytest.mark.parametrize("codes", CODES)
def test_going_to_a_smaller_grid_and_back_keeps_what_is_inside_and_fills_the_rest(codes):
    affine = oriented(codes, SHAPE)
    img = image_on(noise(SHAPE), affine)
    placement = place(head(SHAPE, affine).mask, SMALL, most_cut_mm=99)
    back = np.asarray(from_grid(to_grid(img, placement), placement, fill=-9).dataobj)
    inside = np.asarray(from_grid(np.ones(SMALL.shape, bool), placement).dataobj) > 0
    assert inside.sum() == np.prod(SMALL.shape)
    np.testing.assert_array_equal(back[inside], np.asarray(img.dataobj)[inside])
    assert (back[~inside] == -9).all()


@pytest.mark.parametrize("codes", CODES)
def test_coming_from_the_grid_and_going_to_it_again_gives_the_same_bits(codes):
    affine = oriented(codes, SHAPE)
    placement = place(head(SHAPE, affine).mask, SMALL, most_cut_mm=99)
    prediction = noise(SMALL.shape)
    np.testing.assert_array_equal(to_grid(from_grid(prediction, placement), placement), prediction)


@pytest.mark.parametrize("codes", CODES)
def test_the_same_head_stored_in_another_orientation_gives_the_same_array(codes):
    ras = head(SHAPE, oriented("RAS", SHAPE))
    turn = ornt_transform(io_orientation(ras.t1w.affine), axcodes2ornt(tuple(codes)))
    turned_t1w, turned_mask = (img.as_reoriented(turn) for img in (ras.t1w, ras.mask))
    assert turned_t1w.shape == apply_orientation(np.empty(SHAPE), turn).shape
    found = [to_grid(t1w, place(mask, LARGE)) for t1w, mask in ((ras.t1w, ras.mask), (turned_t1w, turned_mask))]
    np.testing.assert_array_equal(found[0], found[1])


def test_a_voxel_size_that_is_off_by_rounding_needs_no_interpolation():
    affine = oriented("LIA", SHAPE) @ np.diag([0.9995, 1.0004, 1, 1])
    img = image_on(noise(SHAPE), affine)
    placement = place(head(SHAPE, affine).mask, LARGE)
    assert placement.exact
    np.testing.assert_array_equal(
        np.asarray(from_grid(to_grid(img, placement), placement).dataobj), np.asarray(img.dataobj)
    )


# --- one interpolation: other voxel sizes, oblique grids ---

RESAMPLED = {
    "oblique": oblique((30, 32, 34)),
    "finer": oriented("LPS", (30, 32, 34), 1.0),
    "coarser": oriented("RAS", (30, 32, 34), 3.1),
    "oblique and finer": oblique((30, 32, 34), 1.3),
}


@pytest.mark.parametrize("case", RESAMPLED)
def test_a_linear_function_of_the_world_is_the_same_function_on_the_grid(case):
    img = ramp((30, 32, 34), RESAMPLED[case])
    placement = place(head((30, 32, 34), RESAMPLED[case]).mask, Grid((8, 8, 8), (2, 2, 2)), most_cut_mm=99)
    expected = world_of((8, 8, 8), placement.affine) @ DIRECTION + 7
    assert not placement.exact
    np.testing.assert_allclose(to_grid(img, placement), expected, atol=2e-4)


@pytest.mark.parametrize("case", RESAMPLED)
def test_a_linear_function_on_the_grid_comes_back_as_the_same_function_of_the_world(case):
    affine = RESAMPLED[case]
    placement = place(head((30, 32, 34), affine).mask, Grid((64, 64, 64), (2, 2, 2)))
    on_grid = (world_of((64, 64, 64), placement.affine) @ DIRECTION + 7).astype(np.float32)
    back = from_grid(on_grid, placement, fill=np.nan)
    expected = np.asarray(ramp((30, 32, 34), affine).dataobj)
    known = np.isfinite(np.asarray(back.dataobj))
    assert known.mean() > 0.5
    np.testing.assert_allclose(np.asarray(back.dataobj)[known], expected[known], atol=2e-4)


def test_an_oblique_image_gives_nearly_the_array_of_an_upright_one():
    upright, turned = (head((30, 32, 34), affine) for affine in (oriented("RAS", (30, 32, 34)), oblique((30, 32, 34))))
    grid = Grid((16, 20, 14), (2, 2, 2))
    arrays = [to_grid(each.t1w, place(each.mask, grid)) for each in (upright, turned)]
    # The two boxes are found to a voxel, so the heads lie within a voxel of each other; the T1w changes by 60 a voxel.
    assert np.abs(far_from_the_edge(arrays[0] - arrays[1])).max() < 60


def test_a_pattern_that_is_finer_than_the_grid_vanishes_instead_of_aliasing():
    shape = (40, 40, 40)
    affine = oriented("RAS", shape, 1.0)
    checks = np.where(np.indices(shape).sum(axis=0) % 2, 1.0, -1.0).astype(np.float32)
    placement = place(head(shape, affine).mask, Grid((8, 8, 8), (2, 2, 2)), most_cut_mm=99)
    assert np.abs(to_grid(image_on(checks, affine), placement)).max() < 0.01


@pytest.mark.parametrize("case", RESAMPLED)
def test_labels_keep_their_type_and_no_new_one_appears(case):
    labels = head((30, 32, 34), RESAMPLED[case]).dseg
    placement = place(head((30, 32, 34), RESAMPLED[case]).mask, Grid((24, 24, 24), (1.5, 1.5, 1.5)))
    found = to_grid(labels, placement, labels=True)
    back = np.asarray(from_grid(found, placement, labels=True).dataobj)
    assert found.dtype == back.dtype == np.int16
    assert set(np.unique(found)) == set(np.unique(back)) == {0, 1006, 1015, 2006, 2015}


def test_the_brain_comes_back_from_the_grid_where_it_was():
    affine = oblique((30, 32, 34), 1.5)
    mask = head((30, 32, 34), affine).mask
    placement = place(mask, Grid((48, 48, 48), (1, 1, 1)))
    back = np.asarray(from_grid(to_grid(mask, placement, labels=True), placement, labels=True).dataobj) > 0
    original = np.asarray(mask.dataobj) > 0
    assert 2 * (back & original).sum() / (back.sum() + original.sum()) > 0.95


# --- placing ---


@pytest.mark.parametrize("affine", [oriented("LIA", SHAPE), oblique((30, 30, 30)), oriented("RAS", SHAPE, 3.0)])
def test_the_middle_of_the_brains_box_lies_within_a_voxel_of_the_grids_middle(affine):
    placement = place(head((30, 30, 30), affine).mask, LARGE)
    middle = placement.affine @ [*LARGE.middle, 1]
    edge_mm = np.abs(affine[:3, :3]).sum(axis=1).max()
    assert np.abs(middle[:3] - CENTRE_MM).max() <= edge_mm


def test_the_brains_size_is_that_of_its_box_in_the_world():
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:9, 5:15, 2:6] = 1
    assert place(Volume(mask, oriented("LPS", SHAPE, 1.5)), LARGE).brain_mm == pytest.approx((9, 15, 6))
    assert place(Volume(mask, oriented("PIR", SHAPE, 1.5)), LARGE).brain_mm == pytest.approx((6, 9, 15))


def test_a_brain_that_is_cut_a_little_is_said_with_axis_and_millimetres():
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:18, 3:17, 4:14] = 1
    placement = place(Volume(mask, oriented("RAS", SHAPE)), Grid((16, 12, 8), (2, 2, 2)), "sub-07")
    np.testing.assert_allclose(placement.cut_mm, [0, 4, 4])
    assert placement.cut_sentence("sub-07") == (
        "The brain of sub-07 is larger than the grid of 32 x 24 x 16 mm: 4 mm of 28 mm along posterior-anterior and "
        "4 mm of 20 mm along inferior-superior are cut."
    )


def test_a_brain_that_fits_needs_no_sentence():
    assert place(head(SHAPE, oriented("RAS", SHAPE)).mask, LARGE).cut_sentence("sub-07") == ""


def test_a_brain_that_is_much_too_large_is_an_error_that_says_what_to_do():
    mask = Volume(np.ones(SHAPE, np.uint8), oriented("RAS", SHAPE))
    with pytest.raises(
        ImageError, match=r"sub-07 .* 28 mm of 44 mm along posterior-anterior.*larger shape or larger voxels"
    ):
        place(mask, Grid((16, 8, 16), (2, 2, 2)), "sub-07")


def test_an_empty_mask_is_refused_with_the_name():
    with pytest.raises(ImageError, match="brain mask of sub-07 is empty"):
        place(Volume(np.zeros(SHAPE, np.uint8), np.eye(4)), LARGE, "sub-07")


def test_a_mask_of_four_dimensions_is_refused():
    with pytest.raises(ImageError, match="of shape"):
        place(Volume(np.ones((*SHAPE, 2), np.uint8), np.eye(4)), LARGE)


def test_an_image_on_another_grid_than_the_placed_one_is_refused():
    placement = place(head(SHAPE, oriented("RAS", SHAPE)).mask, LARGE)
    for affine, shape in ((oriented("LAS", SHAPE), SHAPE), (oriented("RAS", SHAPE), (20, 22, 19))):
        with pytest.raises(GridMismatchError, match="not on the grid"):
            to_grid(image_on(noise(shape), affine), placement)
    with pytest.raises(GridMismatchError, match=r"shape \(3, 3, 3\)"):
        from_grid(np.zeros((3, 3, 3), np.float32), placement)


@pytest.mark.parametrize("affine", [oriented("LIA", SHAPE), oblique(SHAPE)])
def test_inputs_are_unchanged_and_results_are_no_views_of_them(affine):
    values = noise(SHAPE)
    img, before = image_on(values, affine), values.copy()
    placement = place(head(SHAPE, affine).mask, LARGE)
    found = to_grid(img, placement)
    found += 1
    kept = found.copy()
    np.asarray(from_grid(found, placement).dataobj)[:] = 0
    np.testing.assert_array_equal(np.asarray(img.dataobj), before)
    np.testing.assert_array_equal(found, kept)
