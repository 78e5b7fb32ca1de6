from __future__ import annotations

import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn
from torch.nn import functional

from tau_pipeline.errors import ImageError, SettingError, UnknownNameError
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.losses import chunks
from tau_pipeline.synthesis.losses.features import (
    gray_input,
    load_vgg16_features,
    random_features,
    random_resnet3d_features,
)
from tau_pipeline.synthesis.losses.weighted import (
    CyclicPerceptualLoss,
    PlanePerceptualLoss,
    ThreePlanePerceptualLoss,
    VolumePerceptualLoss,
    build_loss,
)

VGG16 = Path(__file__).resolve().parents[2] / "shared/data/vgg16/vgg16_features23_unit_fp16.pt"
PLANES = ("sagittal", "coronal", "axial")
SIZES = [(1, 9, 10, 11), (2, 16, 8, 13), (3, 8, 9, 8)]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def features() -> nn.Module:
    return random_features(0)


def volumes(batch: int, *sides: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction and a target of Gaussian noise, on scales of their own."""
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randn(batch, 1, *sides, generator=generator)
    return prediction, 3.0 * torch.randn(batch, 1, *sides, generator=generator) + 5.0


def with_air(target: torch.Tensor) -> torch.Tensor:
    """The target with air in its first two slices along each axis, of which the second has a trace of noise."""
    air = target.clone()
    for axis in (2, 3, 4):
        air.narrow(axis, 0, 2).fill_(0.0)
    span = (air.amax() - air.amin()).item()
    air[:, :, 1, 1, 1] = 0.005 * span
    return air


def minmax(slice_2d: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return (slice_2d - low) / (high - low + 1e-8)


def obvious_loop(features, prediction, target, plane, *, skip=0.0, batchwise=False):
    """The loss as one would write it first: one call of the network per slice, three channels, autograd does it all."""
    axis = PLANES.index(plane) + 2
    items = []
    for b in range(len(prediction)):
        distances = []
        for i in range(prediction.shape[axis]):
            one, other = prediction.select(axis, i), target.select(axis, i)
            span = (other[b].max() - other[b].min()) / (target[b].max() - target[b].min())
            if span < skip:
                continue
            of = slice(None) if batchwise else b
            x = minmax(one[b, 0], one[of].min(), one[of].max())
            y = minmax(other[b, 0], other[of].min(), other[of].max())
            x, y = (image[None, None].repeat(1, 3, 1, 1) for image in (x, y))
            distances.append(((features(x) - features(y)) ** 2).mean())
        items.append(torch.stack(distances).mean())
    return torch.stack(items).mean()


def value_and_gradient(loss, prediction: torch.Tensor, *args) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = prediction.clone().requires_grad_()
    value = loss(leaf, *args)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def assert_same(found: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Equal to 1e-5 of the value, and of the length of the gradient."""
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
    assert (found[1] - expected[1]).norm() <= 1e-5 * expected[1].norm()
    assert expected[1].norm() > 0


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("size", SIZES)
def test_value_and_gradient_are_those_of_the_obvious_loop(features, size, plane):
    prediction, target = volumes(*size)
    expected = value_and_gradient(lambda p: obvious_loop(features, p, target, plane), prediction)
    for empty_slices in ("skip", "paper"):
        loss = PlanePerceptualLoss(features, empty_slices=empty_slices)
        assert_same(value_and_gradient(loss, prediction, target, plane), expected)


@pytest.mark.parametrize("plane", PLANES)
def test_batch_wise_scaling_is_that_of_the_obvious_loop_over_the_batch(features, plane):
    prediction, target = volumes(3, 9, 8, 10)
    expected = value_and_gradient(lambda p: obvious_loop(features, p, target, plane, batchwise=True), prediction)
    batchwise = PlanePerceptualLoss(features, scaling="batch")
    assert_same(value_and_gradient(batchwise, prediction, target, plane), expected)
    item = PlanePerceptualLoss(features)
    assert item(prediction, target, plane).item() != pytest.approx(expected[0].item(), rel=1e-3)
    assert item(prediction[:1], target[:1], plane) == batchwise(prediction[:1], target[:1], plane)


@pytest.mark.parametrize("plane", PLANES)
def test_empty_slices_are_left_out_of_value_gradient_and_cost(features, plane):
    prediction, target = volumes(2, 12, 12, 12)
    target = with_air(target)
    counted = _Counting(features)
    loss = PlanePerceptualLoss(counted)
    expected = value_and_gradient(lambda p: obvious_loop(features, p, target, plane, skip=0.01), prediction)
    found = value_and_gradient(loss, prediction, target, plane)
    assert_same(found, expected)
    axis = PLANES.index(plane) + 2
    assert found[1].narrow(axis, 0, 2).abs().max() == 0
    assert found[1].narrow(axis, 2, 10).abs().amax(dim=[a for a in range(5) if a != axis]).min() > 0
    counted.images.clear()
    loss(prediction, target, plane)
    assert sum(counted.images) == 2 * 2 * 10  # prediction and target, two items, ten slices


@pytest.mark.parametrize("plane", PLANES)
def test_the_papers_way_counts_empty_slices_and_scales_their_noise_up(features, plane):
    prediction, target = volumes(1, 10, 10, 10)
    target = with_air(target)
    found = value_and_gradient(PlanePerceptualLoss(features, empty_slices="paper"), prediction, target, plane)
    assert_same(found, value_and_gradient(lambda p: obvious_loop(features, p, target, plane), prediction))
    assert found[1].narrow(PLANES.index(plane) + 2, 0, 1).abs().max() > 0


def test_a_target_without_any_contrast_costs_nothing_and_gives_no_gradient(features):
    prediction, _ = volumes(1, 8, 8, 8)
    value, gradient = value_and_gradient(PlanePerceptualLoss(features), prediction, torch.ones(1, 1, 8, 8, 8), "axial")
    assert value == 0
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("plane", PLANES)
def test_equal_images_have_no_loss_and_no_gradient(features, plane):
    _, target = volumes(2, 9, 10, 8)
    value, gradient = value_and_gradient(PlanePerceptualLoss(features), target, target.clone(), plane)
    assert value == 0
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("plane", PLANES)
def test_an_item_has_the_same_loss_and_gradient_whoever_its_neighbours_are(features, plane):
    prediction, target = volumes(3, 10, 9, 8)
    target[1] = with_air(target[1:2])[0]
    together, gradients = value_and_gradient(PlanePerceptualLoss(features), prediction, target, plane)
    singles = [
        value_and_gradient(PlanePerceptualLoss(features), prediction[b : b + 1], target[b : b + 1], plane)
        for b in range(3)
    ]
    assert together.item() == pytest.approx(np.mean([value.item() for value, _ in singles]), rel=1e-6)
    torch.testing.assert_close(3 * gradients, torch.cat([gradient for _, gradient in singles]))


@pytest.mark.parametrize(("plane", "other"), [("axial", "sagittal"), ("coronal", "axial"), ("sagittal", "coronal")])
def test_another_plane_is_the_same_as_swapped_axes(features, plane, other):
    prediction, target = volumes(2, 9, 10, 11)
    axis, its_new_place = PLANES.index(plane) + 2, PLANES.index(other) + 2
    # The two axes of the slice keep their order, so that the image is not transposed.
    order = [a for a in range(5) if a != axis]
    order.insert(its_new_place, axis)
    loss = PlanePerceptualLoss(features)
    value, gradient = value_and_gradient(loss, prediction, target, plane)
    swapped = value_and_gradient(loss, prediction.permute(order), target.permute(order), other)
    assert swapped[0] == value
    assert torch.equal(swapped[1], gradient.permute(order))


def test_the_loss_sees_neither_scale_nor_offset(features):
    prediction, target = volumes(1, 9, 9, 9)
    loss = PlanePerceptualLoss(features)
    value = loss(prediction, target, "coronal").item()
    assert loss(7 * prediction - 3, 0.2 * target + 1, "coronal").item() == pytest.approx(value, rel=1e-4)


def test_the_gradient_is_that_of_finite_differences_also_at_minimum_and_maximum():
    features = random_features(1, channels=2).double()
    prediction, target = (volume.double() for volume in volumes(1, 8, 8, 9))
    loss = PlanePerceptualLoss(features)
    flat = prediction[0, 0, :, :, 0].flatten()
    _, gradient = value_and_gradient(loss, prediction, target, "axial")
    extremes = [flat.argmin().item(), flat.argmax().item()]
    for index in [*extremes, 5, 40]:
        place = (0, 0, index // 8, index % 8, 0)
        step = torch.zeros_like(prediction)
        step[place] = 1e-6
        difference = (loss(prediction + step, target, "axial") - loss(prediction - step, target, "axial")) / 2e-6
        assert gradient[place].item() == pytest.approx(difference.item(), rel=1e-4, abs=1e-9)
    assert all(gradient[0, 0, :, :, 0].flatten()[i].abs() > 0 for i in extremes)


# In double precision no ReLU and no maximum hangs on the last bit, so that hardly anything may differ.
@pytest.mark.skipif(not VGG16.is_file(), reason="../shared/data/vgg16 is not there")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.slow
def test_with_the_true_vgg16_value_and_gradient_are_those_of_the_obvious_loop(plane, dtype, tolerance):
    vgg16 = load_vgg16_features(VGG16).to(dtype)
    sides = (10, 8, 9) if dtype is torch.float64 else (17, 12, 16)
    noise = torch.randn(2, 1, *sides, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    smooth = functional.avg_pool3d(noise[:1], 5, stride=1, padding=2)
    prediction, target = (smooth + 0.02 * noise[1:]).to(dtype), smooth.to(dtype)
    found = value_and_gradient(PlanePerceptualLoss(vgg16), prediction, target, plane)
    expected = value_and_gradient(lambda p: obvious_loop(vgg16, p, target, plane), prediction)
    assert found[0].item() == pytest.approx(expected[0].item(), rel=tolerance)
    assert (found[1] - expected[1]).norm() <= tolerance * expected[1].norm()


@pytest.fixture
def set_threads():
    """Sets torch's number of threads; afterwards it is what it was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def slices_alone(monkeypatch):
    """Lets a slice of the tests be as many pixels as a thread takes at a time."""
    monkeypatch.setattr(chunks, "_PIXELS_OF_A_THREAD", 81)


@pytest.mark.usefixtures("slices_alone")
def test_chunks_change_nothing_and_no_more_slices_than_a_chunk_are_alive(features, set_threads):
    set_threads(1)
    prediction, target = volumes(2, 9, 9, 11)
    expected = value_and_gradient(PlanePerceptualLoss(features, chunk=22), prediction, target, "axial")
    for chunk in (1, 3, 7, None):
        counted = _Counting(features)
        assert_same(
            value_and_gradient(PlanePerceptualLoss(counted, chunk=chunk), prediction, target, "axial"), expected
        )
        assert max(counted.images) == (chunk or 1)


def test_small_slices_pass_through_the_network_together(features, set_threads, monkeypatch):
    set_threads(1)
    monkeypatch.setattr(chunks, "_PIXELS_OF_A_THREAD", 4 * 81 + 80)
    prediction, target = volumes(1, 9, 9, 9)
    counted = _Counting(features)
    PlanePerceptualLoss(counted)(prediction, target, "axial")
    assert max(counted.images) == 4


@pytest.mark.usefixtures("slices_alone")
def test_any_number_of_threads_gives_the_same_to_the_last_bit(features, set_threads):
    prediction, target = volumes(2, 9, 10, 11)
    loss = PlanePerceptualLoss(features)
    found = []
    for threads in (1, 2, 3):
        set_threads(threads)
        found.append(value_and_gradient(loss, prediction, target, "axial"))
        assert torch.get_num_threads() == threads
    for value, gradient in found[1:]:
        assert value == found[0][0]
        assert torch.equal(gradient, found[0][1])


class _Crowd(nn.Module):
    """Features that know how many slices were with them at the same time, and in which precision."""

    def __init__(self, features):
        super().__init__()
        self.features, self.here, self.most, self.precisions = features, 0, 0, set()

    def forward(self, images):
        self.here += len(images)
        self.most = max(self.most, self.here)
        time.sleep(0.02)
        self.here -= len(images)
        responses = self.features(images)
        self.precisions.add(torch.is_autocast_enabled("cpu"))
        return responses


@pytest.mark.slow
@pytest.mark.usefixtures("slices_alone")
def test_threads_share_a_chunk_and_keep_autocast(features, set_threads):
    set_threads(2)
    prediction, target = volumes(1, 9, 9, 11)
    for chunk, most in ((None, 2), (1, 1), (4, 4)):
        crowd = _Crowd(features)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value_and_gradient(PlanePerceptualLoss(crowd, chunk=chunk), prediction, target, "axial")
        assert crowd.most == most
        assert crowd.precisions == {True}


@pytest.mark.usefixtures("slices_alone")
def test_an_error_in_a_thread_reaches_the_caller(features, set_threads):
    set_threads(2)
    prediction, target = volumes(1, 9, 9, 11)

    class Broken(nn.Module):
        def forward(self, images):
            raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError, match="broken"):
        PlanePerceptualLoss(nn.Sequential(features, Broken()))(prediction, target, "axial")
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("slices_alone")
def test_the_chunk_shrinks_with_free_memory(features, monkeypatch, set_threads):
    set_threads(2)
    prediction, target = volumes(1, 9, 9, 9)
    for free, most in ((10**12, 2), (1, 1)):
        monkeypatch.setattr(chunks, "_free_bytes", lambda _device, free=free: free)
        crowd = _Crowd(features)
        PlanePerceptualLoss(crowd)(prediction, target, "axial")
        assert crowd.most == most


def test_without_need_of_a_gradient_none_is_computed_and_the_value_is_the_same(features):
    prediction, target = volumes(1, 9, 9, 9)
    counted = _Counting(features)
    loss = PlanePerceptualLoss(counted)
    value = loss(prediction, target, "axial")
    with torch.no_grad():
        assert loss(prediction.clone().requires_grad_(), target, "axial") == value
    assert not value.requires_grad
    assert not any(counted.with_gradient)
    assert value_and_gradient(loss, prediction, target, "axial")[0] == value
    assert any(counted.with_gradient)


def test_nothing_that_was_given_is_changed(features):
    prediction, target = volumes(1, 9, 9, 9)
    before = prediction.clone(), target.clone()
    leaf = prediction.requires_grad_()
    PlanePerceptualLoss(features)(leaf, target.requires_grad_(), "axial").backward()
    assert torch.equal(leaf, before[0])
    assert torch.equal(target, before[1])
    assert target.grad is None
    assert all(parameter.grad is None for parameter in features.parameters())


def test_the_gradient_of_a_larger_sum_is_scaled_as_it_should_be(features):
    prediction, target = volumes(1, 9, 9, 9)
    loss = PlanePerceptualLoss(features)
    _, gradient = value_and_gradient(loss, prediction, target, "axial")
    _, scaled = value_and_gradient(lambda p: 1024 * loss(2 * p, target, "axial") + p.sum(), prediction)
    torch.testing.assert_close(scaled, 1024 * gradient + 1, rtol=1e-4, atol=1e-5)


def test_mixed_precision_is_close_to_full_and_gives_the_gradient_in_the_predictions_type(features):
    prediction, target = volumes(1, 16, 16, 16)
    loss = PlanePerceptualLoss(features)
    value, gradient = value_and_gradient(loss, prediction, target, "axial")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = value_and_gradient(loss, prediction, target, "axial")
    half = value_and_gradient(loss, prediction.bfloat16(), target, "axial")
    assert mixed[0].dtype == half[0].dtype == torch.float32
    assert (mixed[1].dtype, half[1].dtype) == (torch.float32, torch.bfloat16)
    for other in (mixed, half):
        assert other[0].item() == pytest.approx(value.item(), rel=0.05)
        cosine = nn.functional.cosine_similarity(other[1].float().flatten(), gradient.flatten(), dim=0)
        assert cosine > 0.95
    assert mixed[0] != value  # the network did run in bfloat16


def test_a_second_derivative_is_refused_in_one_sentence(features):
    prediction, target = volumes(1, 8, 8, 8)
    leaf = prediction.requires_grad_()
    with pytest.raises(SettingError, match=r"no second derivative.*without create_graph"):
        torch.autograd.grad(PlanePerceptualLoss(features)(leaf, target, "axial"), leaf, create_graph=True)


def test_features_stay_frozen_and_in_evaluation_when_the_loss_is_put_into_training():
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    loss = PlanePerceptualLoss(features).train()
    assert loss.training
    assert not any(layer.training for layer in loss.features.modules())
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    prediction, target = volumes(1, 8, 8, 8)
    assert loss(prediction, target, "axial") == loss(prediction, target, "axial")


def test_folding_the_three_equal_channels_into_one_gives_the_same_responses():
    first = nn.Conv2d(3, 5, 3, stride=2, padding=1, dilation=2, bias=False, padding_mode="reflect")
    images = torch.randn(2, 1, 12, 13)
    for features in (nn.Sequential(first, nn.ReLU()), nn.Sequential(nn.AvgPool2d(2), first), random_features(3)):
        torch.testing.assert_close(gray_input(features)(images), features(images.repeat(1, 3, 1, 1)))
    assert gray_input(nn.Sequential(first))[0].in_channels == 1
    one_channel = nn.Sequential(nn.Conv2d(1, 5, 3))
    assert gray_input(one_channel) is one_channel


@pytest.mark.parametrize(
    ("prediction", "target", "plane", "message"),
    [
        ((1, 1, 9, 9, 9), (1, 1, 9, 9, 8), "axial", r"prediction has the shape \(1, 1, 9, 9, 9\) and the target"),
        ((1, 9, 9, 9), (1, 9, 9, 9), "axial", r"shape \(1, 9, 9, 9\); expected: \(B, 1, I, J, K\)"),
        ((1, 2, 9, 9, 9), (1, 2, 9, 9, 9), "axial", r"expected: \(B, 1, I, J, K\)"),
        ((0, 1, 9, 9, 9), (0, 1, 9, 9, 9), "axial", r"expected: \(B, 1, I, J, K\)"),
        ((1, 1, 9, 7, 9), (1, 1, 9, 7, 9), "axial", "axial slices of 9 x 7 pixels are too small.*8 x 8 or more"),
        ((1, 1, 7, 9, 9), (1, 1, 7, 9, 9), "coronal", "coronal slices of 7 x 9"),
    ],
)
def test_volumes_that_cannot_be_compared_are_refused(features, prediction, target, plane, message):
    with pytest.raises(ImageError, match=message):
        PlanePerceptualLoss(features)(torch.rand(prediction), torch.rand(target), plane)


def test_slices_too_small_in_one_plane_can_be_compared_in_another(features):
    prediction, target = volumes(1, 3, 8, 8)
    assert PlanePerceptualLoss(features)(prediction, target, "sagittal") > 0


def test_a_plane_that_does_not_exist_is_refused_with_the_known_ones(features):
    with pytest.raises(UnknownNameError, match="no plane 'transverse'; known: axial, coronal, sagittal"):
        PlanePerceptualLoss(features)(*volumes(1, 8, 8, 8), "transverse")


def test_a_target_with_nan_is_refused_and_a_prediction_with_nan_gives_nan(features):
    prediction, target = volumes(1, 8, 8, 8)
    broken = target.clone()
    broken[0, 0, 0, 0, 0] = float("nan")
    loss = PlanePerceptualLoss(features)
    with pytest.raises(ImageError, match="target holds NaN or infinite values"):
        loss(prediction, broken, "axial")
    with pytest.raises(ImageError, match=r"the target holds torch.int32; expected: floating-point numbers"):
        loss(prediction, target.int(), "axial")
    target[:, :, :, :, 0] = 0  # also where the NaN lies in a slice that has no weight
    for bad in (float("nan"), float("inf")):
        prediction[0, 0, 0, 0, 0] = bad
        value, gradient = value_and_gradient(loss, prediction, target, "axial")
        assert value.isnan()
        assert gradient.isnan().all()
        assert loss(prediction, target, "axial").isnan()


def test_settings_of_the_plane_loss_out_of_range_are_refused(features):
    for call, message in (
        ({"chunk": 0}, "chunk is 0; expected: a whole number above 0"),
        ({"chunk": 2.0}, r"chunk is 2\.0"),
        ({"empty_slices": "no"}, "empty_slices is 'no'; expected: skip or paper"),
        ({"empty_fraction": 1.0}, r"empty_fraction is 1\.0"),
        ({"scaling": "volume"}, "scaling is 'volume'; expected: item or batch"),
    ):
        with pytest.raises(SettingError, match=message):
            PlanePerceptualLoss(features, **call)
    with pytest.raises(SettingError, match="load_vgg16_features"):
        PlanePerceptualLoss("vgg16.pth")


def test_three_planes_in_a_step_are_the_mean_of_the_planes(features):
    prediction, target = volumes(1, 8, 9, 10)
    plane_loss = PlanePerceptualLoss(features)
    planes = [value_and_gradient(plane_loss, prediction, target, plane) for plane in PLANES]
    value, gradient = value_and_gradient(ThreePlanePerceptualLoss(plane_loss), prediction, target)
    assert value.item() == pytest.approx(sum(v.item() for v, _ in planes) / 3, rel=1e-6)
    torch.testing.assert_close(gradient, sum(g for _, g in planes) / 3)


def test_the_cyclic_loss_looks_at_the_plane_of_the_epoch(features):
    prediction, target = volumes(1, 8, 9, 10)
    cyclic = CyclicPerceptualLoss(features, first_cycle=2, factor=0.5)
    planes = ["axial"] * 2 + ["coronal"] * 2 + ["sagittal"] * 2 + ["axial", "coronal", "sagittal", "axial"]
    expected = {plane: PlanePerceptualLoss(features)(prediction, target, plane).item() for plane in PLANES}
    assert len(set(expected.values())) == 3
    assert [cyclic(prediction, target, epoch).item() for epoch in range(10)] == [expected[plane] for plane in planes]
    with pytest.raises(SettingError, match="first_cycle is 0"):
        CyclicPerceptualLoss(features, first_cycle=0)


def test_the_loss_of_volumes_is_its_formula_and_zero_for_equal_ones():
    features = nn.Sequential(nn.Conv3d(1, 3, 3, stride=2), nn.ReLU()).eval()
    prediction, target = volumes(2, 9, 8, 7)

    def responses(volume: torch.Tensor) -> np.ndarray:
        standard = (volume - volume.mean()) / volume.std(unbiased=False)
        found = features(standard[None])[0].detach().double().numpy()
        return found / np.sqrt((found**2).sum(axis=0) + 1e-8)

    expected = np.mean(
        [((responses(p) - responses(t)) ** 2).sum(axis=0).mean() for p, t in zip(prediction, target, strict=True)]
    )
    loss = VolumePerceptualLoss(features)
    assert loss(prediction, target).item() == pytest.approx(expected, rel=1e-4)
    value, gradient = value_and_gradient(loss, target, target.clone())
    assert value == 0
    assert gradient.abs().max() == 0
    assert loss(3 * prediction + 2, target).item() == pytest.approx(expected, rel=1e-3)


def test_the_3d_loss_reaches_every_voxel_and_no_other_item():
    loss = VolumePerceptualLoss(random_resnet3d_features(0))
    prediction, target = volumes(2, 17, 16, 18)
    leaf = prediction.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, target), leaf)
    assert (gradient != 0).float().mean() > 0.99
    singles = [loss(leaf[b : b + 1], target[b : b + 1]).item() for b in range(2)]
    assert loss(leaf, target).item() == pytest.approx(np.mean(singles), rel=1e-5)


@pytest.mark.parametrize("kind", ["mse_ssim", "2.5d", "3d", "cyclic2.5d"])
def test_the_total_is_the_weighted_sum_of_the_parts_and_has_a_gradient(kind):
    weights = {"mse": 2.0, "ssim": 0.25, "perceptual": 3.0}
    loss = build_loss(
        Training(
            loss=kind,
            perceptual_features="random",
            ssim_window=7,
            **{f"{name}_weight": value for name, value in weights.items()},
        )
    )
    prediction, target = volumes(1, 16, 17, 16)
    total, gradient = value_and_gradient(lambda p: loss(p, target, 0)[0], prediction)
    parts = loss(prediction, target, 0)[1]
    assert set(parts) == {"mse", "ssim"} | ({"perceptual"} if kind != "mse_ssim" else set())
    assert total.item() == pytest.approx(sum(weights[name] * value for name, value in parts.items()), rel=1e-6)
    assert all(value > 0 for value in parts.values())
    assert (gradient != 0).float().mean() > 0.9


def test_mse_and_ssim_are_those_of_numpy_and_skimage():
    prediction, target = volumes(1, 13, 14, 15)
    target = target - 5
    _, parts = build_loss(Training(loss="mse_ssim"))(prediction, target, 0)
    one, other = prediction[0, 0].double().numpy(), target[0, 0].double().numpy()
    assert parts["mse"] == pytest.approx(((one - other) ** 2).mean(), rel=1e-5)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2.0}
    _, similarity = structural_similarity(one, other, full=True, **window)
    inside = (slice(5, -5),) * 3  # where the window of 11 lies within the volume
    assert 1 - parts["ssim"] == pytest.approx(similarity[inside].mean(), abs=1e-4)


def test_a_term_of_weight_zero_is_not_computed():
    prediction, target = volumes(1, 8, 8, 8)
    settings = Training(mse_weight=0, ssim_weight=0, perceptual_weight=1.0, perceptual_features="random")
    assert set(build_loss(settings)(prediction, target, 0)[1]) == {"perceptual"}
    without = Training(ssim_weight=0, perceptual_weight=0)
    assert set(build_loss(without)(prediction, target, 0)[1]) == {"mse"}


def test_the_weighted_loss_stays_in_full_precision_under_autocast():
    prediction, target = volumes(1, 12, 12, 12)
    loss = build_loss(Training(loss="mse_ssim"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, parts = loss(prediction, target, 0)
    assert total.dtype == torch.float32
    assert parts == loss(prediction, target, 0)[1]


def test_a_volume_smaller_than_the_window_of_ssim_is_refused():
    with pytest.raises(ImageError, match="sides of 11 or more, the window of SSIM"):
        build_loss(Training(loss="mse_ssim"))(*volumes(1, 12, 10, 12), 0)


def test_a_perceptual_loss_without_features_is_refused():
    from tau_pipeline.synthesis.losses.weighted import WeightedLoss

    with pytest.raises(SettingError, match=r"'2.5d' needs a feature network"):
        WeightedLoss(Training(loss="2.5d"), None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", "2d"), ("mse_weight", -1.0), ("ssim_weight", float("nan")), ("perceptual_weight", float("inf")),
        ("first_cycle", 0), ("cycle_factor", 2.0), ("empty_slices", "none"), ("perceptual_scaling", "all"),
        ("ssim_window", 10), ("ssim_sigma", 0.0), ("ssim_range", -2.0), ("perceptual_features", "resnet"),
        ("perceptual_chunk", 0),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(SettingError, match=f"{name} is {re.escape(repr(value))}; expected: "):
        Training(**{name: value})


def test_a_loss_of_nothing_is_refused():
    with pytest.raises(SettingError, match="at least one weight above 0"):
        Training(loss="mse_ssim", mse_weight=0, ssim_weight=0)


class _Counting(nn.Module):
    """Features that note how many images came in each call, and whether with a gradient."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.images: list[int] = []
        self.with_gradient: list[bool] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images.append(len(images))
        self.with_gradient.append(torch.is_grad_enabled() and images.requires_grad)
        return self.features(images)


def test_a_share_of_the_slices_estimates_the_loss_of_all_and_validation_compares_all() -> None:
    torch.manual_seed(0)
    prediction, target = torch.rand(1, 1, 16, 16, 16, requires_grad=True), torch.rand(1, 1, 16, 16, 16)
    loss = PlanePerceptualLoss(random_features(0))
    whole = loss(prediction, target, "axial")
    loss.slice_share = 0.25
    drawn = [loss(prediction, target, "axial") for _ in range(60)]
    values = np.array([float(value.detach()) for value in drawn])
    assert values.std() > 0
    assert abs(values.mean() - float(whole.detach())) < 4 * values.std() / math.sqrt(len(values))
    (gradient,) = torch.autograd.grad(drawn[0], prediction)
    assert int((gradient.abs().amax(dim=(0, 1, 2, 3)) > 0).sum()) == 4
    with torch.no_grad():
        torch.testing.assert_close(loss(prediction, target, "axial"), whole.detach())


def test_the_gradient_in_half_precision_is_scaled_before_it_is_cast() -> None:
    torch.manual_seed(0)
    start, target = torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 16)
    loss = PlanePerceptualLoss(random_features(0))
    scale, gradients = 2.0**16, []
    for dtype in (torch.float32, torch.float16):
        prediction = start.to(dtype, copy=True).requires_grad_()
        # Weights that make the gradient too small for half precision until it is scaled.
        (loss(prediction, target, "axial") * 1e-4 * scale).backward()
        assert prediction.grad is not None
        gradients.append(prediction.grad.float())
    kept = (gradients[0] - gradients[1]).abs().sum() / gradients[0].abs().sum()
    assert float(kept) < 0.05
