"""Not measured is never a number: field of view, filled slabs, frames without values, regions, and their consumers."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from tau_pipeline.atlas import composites, label_table
from tau_pipeline.cohort.maps import MapPlan, write_map
from tau_pipeline.cohort.standardize import BACKGROUND, ManufacturerFit, Standardization
from tau_pipeline.errors import ImageError, ReferenceRegionError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample_measured
from tau_pipeline.imaging.volume import image_on, save_volume
from tau_pipeline.measures.regions import regional_table
from tau_pipeline.pet.field_of_view import frame_of, measured_voxels, not_measured, with_measured_frames
from tau_pipeline.pet.frames import plan_frames
from tau_pipeline.pet.motion import correct_motion, static_image
from tau_pipeline.pet.quantification import pet_on_t1w
from tau_pipeline.pet.reference_check import check_reference

SIZE = np.array([4.0, 4.0, 4.0])
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
SHAPE = (40, 44, 40)
DYNAMIC = {
    "TracerName": "AV1451",
    "FrameTimesStart": [4800, 5100, 5400, 5700],
    "FrameDuration": [300, 300, 300, 300],
    "InjectionStart": 0,
}


def head(clipped: bool = True) -> np.ndarray:
    """Activity of an ellipsoid of 1000 with a cold middle, blurred, noisy, and without negative values."""
    at = np.indices(SHAPE) - np.array(SHAPE).reshape(3, 1, 1, 1) / 2
    radius = np.sqrt(((at / np.array([14, 17, 14]).reshape(3, 1, 1, 1)) ** 2).sum(axis=0))
    sharp = np.where(radius < 1, 1000.0, 0.0) - np.where(radius < 0.2, 700.0, 0.0)
    blurred = ndimage.gaussian_filter(sharp, 0.7)
    noisy = blurred + np.random.default_rng(0).normal(0, 1, SHAPE) * np.sqrt(blurred)
    return (noisy.clip(0) if clipped else noisy).astype(np.float32)


def oblique() -> np.ndarray:
    i, _, k = np.indices(SHAPE)
    return k + 0.4 * i > 34


def slab(axis: int, *planes: int) -> np.ndarray:
    where = np.zeros(SHAPE, bool)
    where[(slice(None),) * axis + (list(planes),)] = True
    return where


LOST = {
    "top": slab(2, *range(27, 40)),
    "bottom": slab(2, *range(14)),
    "left": slab(0, *range(15)),
    "through the head": slab(2, 14, 15, 16, 17),
    "one plane": slab(2, 20),
    "oblique": oblique(),
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("fill", [0.0, np.nan, np.inf, -1.0, -1000.0])
def test_filled_parts_of_the_head_are_found(name, fill):
    data, lost = head(), LOST[name]
    inside = ndimage.binary_fill_holes(data > 500)
    data[lost] = fill
    measured = measured_voxels(data, SIZE)
    assert (~measured[lost & inside]).mean() > 0.99
    assert measured[~lost].all()


def test_a_part_filled_with_another_dark_value_is_found_and_a_bright_one_is_not():
    data = head() + 20
    data[:, :, 27:] = 30
    measured = measured_voxels(data, SIZE)
    inside = ndimage.binary_fill_holes(head() > 500)
    assert (~measured[:, :, 27:][inside[:, :, 27:]]).mean() > 0.99
    assert measured[:, :, :27].all()
    clipped = np.minimum(head(), 600)
    assert measured_voxels(clipped, SIZE).all(), "a scan that saturates"
    offset = head() - 200
    assert measured_voxels(offset, SIZE).all(), "air below 0"


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("kind", [np.int16, np.uint8])
def test_whole_numbers_are_measured_where_the_same_fractions_are(name, kind):
    whole = (head() / 8).round().astype(kind)
    whole[LOST[name]] = 1
    assert measured_voxels(whole, SIZE).tolist() == measured_voxels(whole.astype(np.float64), SIZE).tolist()


def test_air_of_zeros_counts_as_measured_and_a_scan_without_zeros_is_whole():
    assert measured_voxels(head(), SIZE).all()
    assert measured_voxels(head() + 1, SIZE).all()
    tight = head()
    tight[tight < 1] = 0
    assert measured_voxels(tight, SIZE).all(), "nor is a scan whose air was set to 0"


def test_a_constant_scan_keeps_its_value_at_the_edge_of_the_field_of_view_and_has_none_beyond():
    pet = image_on(np.full((10, 10, 10), 7.0, np.float32), AFFINE)
    like = image_on(
        np.zeros((60, 60, 60), np.uint8), np.array([[1.0, 0, 0, -10], [0, 1, 0, -10], [0, 0, 1, -10], [0, 0, 0, 1]])
    )
    for interpolation in ("nearest", "linear", "cubic"):
        out = np.asanyarray(resample_measured(pet, like, np.eye(4), interpolation).dataobj)
        known = np.isfinite(out)
        np.testing.assert_allclose(out[known], 7.0, rtol=1e-5)
        world = np.indices(out.shape) - 10.0
        expected = ((world > -2) & (world < 38)).all(axis=0)
        border = ((world == -2) | (world == 38)).any(axis=0)
        np.testing.assert_array_equal(known[~border], expected[~border])


@pytest.mark.parametrize("fwhm_mm", [0.0, 8.0])
@pytest.mark.parametrize("fill", [0.0, np.nan])
def test_neither_interpolation_nor_smoothing_mixes_with_what_was_not_measured(fill, fwhm_mm):
    whole = head(clipped=False)
    cut = whole.copy()
    cut[:, :, 27:] = fill
    like = image_on(np.zeros((80, 88, 80), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    plan = plan_frames(SHAPE, {"TracerName": "AV1451"})
    out, truth = (
        np.asanyarray(pet_on_t1w(image_on(x, AFFINE), plan, [np.eye(4)], np.eye(4), like, fwhm_mm).dataobj)
        for x in (cut, whole)
    )
    middle = (slice(34, 46), slice(38, 50))  # 500 to 1000 throughout
    assert np.isnan(out[(*middle, slice(54, None))]).all()
    last = out[(*middle, 52)] / truth[(*middle, 52)]
    assert np.abs(last - 1).max() < 0.25, "a mean with zeros would be half of it"
    np.testing.assert_allclose(out[(*middle, slice(0, 36))], truth[(*middle, slice(0, 36))], rtol=0.01)


def test_a_slab_lost_in_one_frame_has_no_mean_over_the_window():
    frames = np.stack([head(clipped=False)] * 4, axis=-1)
    frames[:, :, 27:, 1] = 0
    pet, plan = image_on(frames, AFFINE), plan_frames((*SHAPE, 4), DYNAMIC)
    out = np.asanyarray(pet_on_t1w(pet, plan, [np.eye(4)] * 4, np.eye(4), image_on(frames[..., 0], AFFINE)).dataobj)
    brain = frames[..., 0] > 500
    assert np.isnan(out[:, :, 27:][brain[:, :, 27:]]).all()
    np.testing.assert_allclose(out[:, :, :27], frames[:, :, :27, 0], rtol=1e-5)
    static = np.asanyarray(static_image(pet, plan, correct_motion(pet, plan, enabled=False)).dataobj)
    np.testing.assert_allclose(static[brain], frames[..., 0][brain], rtol=1e-5)


def test_a_frame_without_values_is_left_out_of_the_window_and_named():
    frames = np.stack([head() * factor for factor in (1, 2, 3, 4)], axis=-1)
    frames[..., 2] = np.nan
    frames[..., 3] = 0
    pet, plan = image_on(frames, AFFINE), plan_frames((*SHAPE, 4), DYNAMIC)
    left, (sentence,) = with_measured_frames(pet, plan)
    assert left.indices == (0, 1)
    assert left.weights == (0.5, 0.5)
    assert left.starts_s == (4800, 5100)
    assert sentence.startswith("PET frame 2, 3 (counted from 0) holds no measurement")
    with pytest.raises(ImageError, match="no PET frame of the window holds a value"):
        with_measured_frames(
            image_on(frames[..., 2:], AFFINE),
            plan_frames((*SHAPE, 2), {**DYNAMIC, "FrameTimesStart": [4800, 5100], "FrameDuration": [300, 300]}),
        )
    assert with_measured_frames(image_on(frames[..., 0], AFFINE), plan_frames(SHAPE, {"TracerName": "AV1451"}))[1] == ()


def test_a_frame_is_float_and_holds_nan_where_nothing_was_measured():
    data = np.rint(head()).astype(np.int16)
    data[:, :, 27:] = 0
    frame = np.asanyarray(frame_of(image_on(data, AFFINE), 0).dataobj)
    assert frame.dtype == np.float32
    assert np.isnan(frame[20, 22, 30])
    assert frame[20, 22, 20] == data[20, 22, 20]


def test_the_part_of_the_brain_that_was_not_measured_is_counted_above_and_below():
    brain = np.zeros((10, 10, 10), bool)
    brain[2:8, 2:8, 0:10] = True
    measured = np.ones(brain.shape, bool)
    measured[:, :, 8:] = False
    measured[:, :, 0] = False
    expected = {"BrainNotMeasuredTop": 0.2, "BrainNotMeasuredBottom": 0.1}
    assert not_measured(brain, measured, np.eye(4)) == pytest.approx(expected)
    upside_down = np.diag([1.0, 1.0, -1.0, 1.0])
    assert not_measured(brain, measured, upside_down)["BrainNotMeasuredTop"] == pytest.approx(0.1)
    assert not_measured(brain, measured, upside_down, (0.0, 0.6, -0.8)) == pytest.approx(expected)
    on_its_side = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    assert not_measured(brain, measured, on_its_side, (1.0, 0.0, 0.0)) == pytest.approx(expected)
    with pytest.raises(ImageError, match="brain mask is empty"):
        not_measured(brain & False, measured, np.eye(4))


def strips(lost: dict[int, int]):
    """SUVR and labels in which every region has 10 voxels, of which some were not measured."""
    numbers = label_table().query("kind in ['cortical', 'subcortical']")["index"].to_numpy()
    labels = np.repeat(numbers, 10).reshape(-1, 10, 1).astype(np.int32)
    suvr = labels.astype(np.float32) / 1000
    for number, count in lost.items():
        suvr[(labels[:, 0, 0] == number), :count] = np.nan
    return image_on(suvr, np.eye(4)), image_on(labels, np.eye(4)), image_on(np.isin(labels, (8, 47)), np.eye(4))


def test_a_region_is_the_mean_of_what_was_measured_and_missing_below_the_share():
    suvr, labels, reference = strips({1006: 6, 1007: 5, 8: 10})
    rows = regional_table(suvr, labels, reference, "CerebellarGM", {}).set_index(["region", "hemisphere"])
    entorhinal, fusiform = rows.loc["ctx-lh-entorhinal", "left"], rows.loc["ctx-lh-fusiform", "left"]
    assert (entorhinal["n_voxels"], entorhinal["measured_fraction"]) == (4, 0.4)
    assert rows.loc[("ctx-lh-entorhinal", "left"), ["suvr_mean", "suvr_sd", "suvr_median"]].isna().all()
    assert (fusiform["n_voxels"], fusiform["measured_fraction"], fusiform["volume_mm3"]) == (5, 0.5, 5)
    assert fusiform["suvr_mean"] == pytest.approx(1.007)
    assert rows.loc[("CerebellarGM", "both"), "measured_fraction"] == 0.5
    assert rows.loc[("CerebellarGM", "both"), "suvr_mean"] == pytest.approx(0.047)
    low = regional_table(suvr, labels, reference, "CerebellarGM", {}, 0.4).set_index(["region", "hemisphere"])
    assert low.loc[("ctx-lh-entorhinal", "left"), "suvr_mean"] == pytest.approx(1.006)


def test_a_composite_pools_what_was_measured_of_its_regions():
    suvr, labels, reference = strips({1006: 6})
    table = regional_table(suvr, labels, reference, "CerebellarGM", {}).astype({"suvr_mean": float})
    rows = table.set_index(["region", "hemisphere"])
    values = np.asanyarray(suvr.dataobj)
    for name, sides in composites().items():
        for side, members in sides.items():
            inside = np.isin(np.asanyarray(labels.dataobj), members)
            measured = values[inside & np.isfinite(values)]
            row = rows.loc[(name, side)]
            assert row["measured_fraction"] == pytest.approx(measured.size / inside.sum())
            expected = float(measured.mean()) if measured.size / inside.sum() >= 0.5 else float("nan")
            np.testing.assert_allclose(float(row["suvr_mean"]), expected, rtol=1e-6)


@pytest.mark.parametrize(("share", "refused"), [(0.4, True), (0.5, False)])
def test_a_reference_region_that_was_not_measured_stops_the_scan(share, refused):
    activity = np.random.default_rng(1).normal(1000, 10, (10, 10, 10))
    region = np.zeros(activity.shape, bool)
    region[:, :, 0] = True
    activity[: round(10 * (1 - share)), :, 0] = np.nan
    if refused:
        with pytest.raises(ReferenceRegionError, match=r"measured 40% of reference region X, and at least 50% "):
            check_reference(activity, region, np.ones(activity.shape, bool), "X")
    else:
        (sentence,) = check_reference(activity, region, np.ones(activity.shape, bool), "X")
        assert sentence.startswith("50 % of reference region X has no PET activity")


def test_a_standardized_map_has_no_value_where_suvr_has_none(tmp_path):
    scan = SimpleNamespace(suvr_file=tmp_path / "suvr.nii.gz", stated=lambda key: "GE")
    suvr, brain = np.full((6, 6, 6), 1.4, np.float32), np.zeros((6, 6, 6), np.uint8)
    brain[1:5, 1:5, 1:5] = 1
    suvr[:, :, 3:] = np.nan
    save_volume(image_on(suvr, AFFINE), scan.suvr_file)
    save_volume(image_on(brain, AFFINE), tmp_path / "mask.nii.gz")
    own = ManufacturerFit(1.0, 0.2, ("sub-01",))
    plan = MapPlan(scan, tmp_path / "mask.nii.gz", tmp_path / "std.nii.gz", {}, Standardization({"GE": own}, own))
    z = np.asanyarray(load_volume(write_map(plan)).dataobj)
    lost = (brain > 0) & np.isnan(suvr)
    assert np.isnan(z[lost]).all()
    np.testing.assert_allclose(z[(brain > 0) & ~lost], 2.0, rtol=1e-5)
    assert (z[brain == 0] == BACKGROUND).all()
