"""Image agreement against slow loops that anyone can check, exact cases and scikit-image's own whole-image figures."""

import itertools
import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from tau_pipeline.errors import GridMismatchError, ImageError, SettingError
from tau_pipeline.measures import images as metrics


def two_images(seed=0, shape=(13, 14, 15)):
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.5, 2.5, shape)
    mask = np.zeros(shape, bool)
    mask[3:-2, 2:-3, 4:-4] = rng.random((shape[0] - 5, shape[1] - 5, shape[2] - 8)) > 0.2
    return target + rng.normal(0, 0.2, shape), target, mask


def slow_ssim(prediction, target, mask, data_range):
    """Wang's formula, window by window, in as many dimensions as the images have."""
    reach = 5
    offsets = list(itertools.product(range(-reach, reach + 1), repeat=target.ndim))
    weights = np.array([math.exp(-sum(o * o for o in offset) / (2 * 1.5**2)) for offset in offsets])
    weights /= weights.sum()
    a, b = (np.pad(np.where(mask, x, 0.0), reach, mode="symmetric") for x in (prediction, target))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for centre in np.argwhere(mask):
        places = [tuple(int(c) + reach + o for c, o in zip(centre, offset, strict=True)) for offset in offsets]
        x, y = np.array([a[place] for place in places]), np.array([b[place] for place in places])
        mx, my = (weights * x).sum(), (weights * y).sum()
        vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
        cov = (weights * (x - mx) * (y - my)).sum()
        values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return sum(values) / len(values)


def test_the_ssim_of_a_volume_is_the_mean_over_the_mask_of_a_slow_loop_over_windows():
    prediction, target, mask = two_images()
    few = mask & (np.random.default_rng(1).random(mask.shape) < 0.05)
    few[3, 2, 4] = True
    assert metrics.ssim(prediction, target, few, 3.0) == pytest.approx(
        slow_ssim(prediction, target, few, 3.0), abs=1e-9
    )


def test_the_ssim_of_a_slice_is_that_of_a_slow_loop_over_windows_in_the_plane():
    prediction, target, mask = two_images()
    table = metrics.slice_agreement(prediction, target, mask, 3.0).set_index("slice")
    for k in (5, 8):
        expected = slow_ssim(prediction[..., k], target[..., k], mask[..., k], 3.0)
        assert table.loc[k, "ssim"] == pytest.approx(expected, abs=1e-9)


def test_what_lies_outside_of_the_mask_does_not_count():
    prediction, target, mask = two_images()
    other = np.where(mask, prediction, 100.0)
    assert metrics.image_agreement(other, target, mask, 3.0) == metrics.image_agreement(prediction, target, mask, 3.0)


def test_a_large_empty_surround_changes_no_figure():
    prediction, target, mask = (np.pad(x, 20) for x in two_images())
    wider = metrics.image_agreement(*(np.pad(x, ((30, 3), (0, 9), (12, 0))) for x in (prediction, target, mask)), 3.0)
    narrow = metrics.image_agreement(prediction, target, mask, 3.0)
    for name in ("ssim", "psnr", "mae", "rmse"):
        assert getattr(wider, name) == pytest.approx(getattr(narrow, name), rel=1e-12)


def test_errors_inside_the_mask_are_those_of_a_loop():
    prediction, target, mask = two_images(2)
    differences = [float(prediction[v] - target[v]) for v in map(tuple, np.argwhere(mask))]
    n = len(differences)
    found = metrics.image_agreement(prediction, target, mask, 2.0, "brain mask")
    assert found.n_voxels == n
    assert (found.data_range, found.mask) == (2.0, "brain mask")
    assert found.mae == pytest.approx(sum(abs(d) for d in differences) / n)
    assert found.rmse == pytest.approx(math.sqrt(sum(d * d for d in differences) / n))
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(target[mask], prediction[mask], data_range=2.0))


def test_the_psnr_of_a_constant_error_is_exact_and_rises_with_the_data_range():
    target = np.ones((12, 12, 12))
    mask = np.ones_like(target)
    assert metrics.psnr(target + 0.3, target, mask, 3.0) == pytest.approx(20.0)
    assert metrics.psnr(target + 0.3, target, mask, 30.0) == pytest.approx(40.0)


def test_equal_images_have_an_ssim_of_one_and_no_error():
    _, target, mask = two_images()
    found = metrics.image_agreement(target, target, mask, 3.0)
    assert found.ssim == pytest.approx(1.0)
    assert (found.mae, found.rmse, found.psnr) == (0.0, 0.0, math.inf)


def test_constant_images_have_the_ssim_of_their_means_alone():
    one = np.ones((40, 40, 40))
    mask = np.zeros(one.shape, bool)
    mask[20, 20, 20] = True
    whole = np.ones(one.shape, bool)
    c1 = (0.01 * 3.0) ** 2
    assert metrics.ssim(2 * one, one, whole, 3.0) == pytest.approx((4 + c1) / (5 + c1))
    assert np.isfinite(metrics.ssim(one, one, mask, 3.0))


def test_without_voxels_there_is_no_figure_and_no_error():
    prediction, target, mask = two_images()
    found = metrics.image_agreement(prediction, target, np.zeros_like(mask), 3.0)
    assert found.n_voxels == 0
    assert all(math.isnan(value) for value in (found.ssim, found.psnr, found.mae, found.rmse))
    assert metrics.slice_agreement(prediction, target, np.zeros_like(mask), 3.0).empty


def test_voxels_that_are_not_finite_leave_the_mask():
    prediction, target, mask = two_images()
    without = mask.copy()
    without[5, 5, 5] = without[6, 6, 6] = False
    prediction[5, 5, 5], target[6, 6, 6] = np.nan, np.inf
    assert metrics.image_agreement(prediction, target, mask, 3.0) == metrics.image_agreement(
        prediction, target, without, 3.0
    )


def test_slices_without_mask_have_no_row_and_the_voxels_add_up():
    prediction, target, mask = two_images()
    table = metrics.slice_agreement(prediction, target, mask, 3.0)
    assert list(table["slice"]) == [k for k in range(mask.shape[2]) if mask[:, :, k].any()]
    assert table["n_voxels"].sum() == mask.sum()
    assert (table["mae"] * table["n_voxels"]).sum() / mask.sum() == pytest.approx(metrics.mae(prediction, target, mask))


def test_wrong_calls_are_refused_with_what_was_found():
    prediction, target, mask = two_images()
    with pytest.raises(GridMismatchError, match="one grid"):
        metrics.image_agreement(prediction[1:], target, mask, 3.0)
    with pytest.raises(ImageError, match="3-D"):
        metrics.image_agreement(prediction[0], target[0], mask[0], 3.0)
    with pytest.raises(ImageError, match="11 voxels"):
        metrics.ssim(prediction[:7], target[:7], mask[:7], 3.0)
    for data_range in (0.0, -1.0, math.nan):
        with pytest.raises(SettingError, match="data range"):
            metrics.image_agreement(prediction, target, mask, data_range)


def lesions_by_flood_fill(hot):
    left, found = set(map(tuple, np.argwhere(hot))), []
    while left:
        lesion, edge = set(), [left.pop()]
        while edge:
            voxel = edge.pop()
            lesion.add(voxel)
            for step in itertools.product((-1, 0, 1), repeat=3):
                beside = tuple(int(v + s) for v, s in zip(voxel, step, strict=True))
                if beside in left:
                    left.remove(beside)
                    edge.append(beside)
        found.append(lesion)
    return found


@pytest.mark.parametrize(("min_voxels", "min_overlap"), [(1, 0.5), (3, 0.01), (2, 1.0)])
def test_lesions_found_are_those_of_a_flood_fill(min_voxels, min_overlap):
    rng = np.random.default_rng(3)
    target = rng.random((14, 12, 13))
    prediction = np.where(rng.random(target.shape) < 0.5, target, rng.random(target.shape))
    mask = rng.random(target.shape) < 0.9
    found = metrics.suprathreshold_agreement(prediction, target, mask, 0.93, min_voxels, min_overlap)
    hot, predicted = (target > 0.93) & mask, (prediction > 0.93) & mask
    lesions = [lesion for lesion in lesions_by_flood_fill(hot) if len(lesion) >= min_voxels]
    hits = [x for x in lesions if sum(bool(predicted[v]) for v in x) >= min_overlap * len(x)]
    assert found.n_clusters == len(lesions) > 5
    assert found.sensitivity == pytest.approx(len(hits) / len(lesions))
    sets = [set(map(tuple, np.argwhere(x))) for x in (hot, predicted)]
    assert found.dice == pytest.approx(2 * len(sets[0] & sets[1]) / (len(sets[0]) + len(sets[1])))
    swapped = metrics.suprathreshold_agreement(target, prediction, mask, 0.93, min_voxels, min_overlap)
    assert (swapped.sensitivity, swapped.precision) == (found.precision, found.sensitivity)


def test_one_of_two_lesions_found_and_one_made_up():
    target, prediction, mask = (np.zeros((20, 20, 20)) for _ in range(3))
    mask[1:] = 1
    target[2:4, 2:4, 2:4] = target[10:12, 10:12, 10:12] = 2.0
    prediction[2:4, 2:4, 2:4] = prediction[15:17, 15:17, 15:17] = prediction[7, 7, 7] = 2.0
    found = metrics.suprathreshold_agreement(prediction, target, mask, 1.5, min_voxels=4)
    assert (found.n_clusters, found.n_predicted, found.sensitivity, found.precision) == (2, 2, 0.5, 0.5)
    assert found.dice == pytest.approx(2 * 8 / (16 + 17))


def test_where_nothing_is_hot_there_is_nothing_to_find():
    cold = np.ones((12, 12, 12))
    nothing = metrics.suprathreshold_agreement(cold, cold, cold, 1.5)
    assert all(math.isnan(v) for v in (nothing.dice, nothing.sensitivity, nothing.precision))
    hot = cold.copy()
    hot[3:5] = 2.0
    missed, made_up = (
        metrics.suprathreshold_agreement(cold, hot, cold, 1.5),
        metrics.suprathreshold_agreement(hot, cold, cold, 1.5),
    )
    assert (missed.dice, missed.sensitivity, made_up.dice, made_up.precision) == (0.0, 0.0, 0.0, 0.0)
    assert math.isnan(missed.precision)
    assert math.isnan(made_up.sensitivity)
