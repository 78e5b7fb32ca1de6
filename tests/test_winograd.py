from __future__ import annotations

import pytest
import torch
from torch import nn

from tau_pipeline.synthesis.losses.winograd import (
    WinogradConvolution,
    convolve,
    is_suitable,
    responses_to_both,
    with_winograd,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def frozen_convolution(out_channels: int = 5, **settings) -> nn.Conv2d:
    return nn.Conv2d(3, out_channels, kernel_size=3, padding=1, **settings).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 7, 10), (3, 3, 5, 5), (1, 3, 1, 2)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_responses_and_gradient_are_those_of_the_direct_convolution(shape, layout, bias):
    direct = frozen_convolution(bias=bias)
    images = torch.randn(shape).to(memory_format=layout).requires_grad_()
    found, expected = WinogradConvolution(direct)(images), direct(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)
    outer = torch.randn_like(expected)
    gradients = [torch.autograd.grad(responses, images, outer)[0] for responses in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("out_channels", [5, 64, 150])
def test_small_whole_numbers_are_convolved_exactly(out_channels):
    direct = frozen_convolution(out_channels, bias=False)
    direct.weight.copy_(2 * torch.randint(-3, 4, direct.weight.shape))  # even, since the transform halves sums
    images = torch.randint(-9, 10, (2, 3, 6, 9)).float().requires_grad_()
    found, expected = WinogradConvolution(direct)(images), direct(images)
    assert torch.equal(found, expected)
    outer = torch.randint(-3, 4, expected.shape).float()
    assert torch.equal(*(torch.autograd.grad(responses, images, outer)[0] for responses in (found, expected)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 7, 9)])
def test_a_relu_in_place_may_follow(shape, bias):
    direct = frozen_convolution(bias=bias)
    images = torch.randn(shape).requires_grad_()
    found, expected = (nn.ReLU(inplace=True)(layer(images)) for layer in (WinogradConvolution(direct), direct))
    gradients = [torch.autograd.grad(responses.sum(), images)[0] for responses in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=5e-6)


def test_weights_that_change_are_used_as_they_are_now():
    direct = frozen_convolution()
    ours, images = WinogradConvolution(direct), torch.randn(1, 3, 8, 8)
    before = ours(images)
    direct.weight.mul_(2)
    torch.testing.assert_close(ours(images), direct(images), rtol=1e-5, atol=2e-6)
    assert not torch.allclose(ours(images), before)


def test_other_precisions_are_convolved_directly():
    direct = frozen_convolution().double()
    images = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(WinogradConvolution(direct)(images), direct(images))
    mixed = frozen_convolution()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert WinogradConvolution(mixed)(images.float()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(64, 256, 3, padding=1),
        nn.Conv2d(128, 128, 3, padding=1),
        nn.Conv2d(128, 256, 3),
        nn.Conv2d(128, 256, 3, padding=1, stride=2),
        nn.Conv2d(128, 256, 3, padding=1, groups=2),
        nn.Conv2d(128, 256, 1, padding=1),
        nn.Conv2d(128, 256, 3, padding=1, padding_mode="reflect"),
        nn.ReLU(),
    ],
)
def test_only_plain_convolutions_with_many_channels_are_replaced(other):
    plain = nn.Conv2d(128, 256, 3, padding=1)
    assert is_suitable(plain)
    assert not is_suitable(other)
    layers = with_winograd(nn.Sequential(other, plain))
    assert layers[0] is other
    assert layers[1].convolution is plain
    alone = nn.Sequential(other)
    assert with_winograd(alone) is alone


@pytest.mark.parametrize("side", [8, 24])
def test_two_batches_together_give_the_responses_and_the_gradient_of_each_alone(side):
    layers = nn.Sequential(frozen_convolution(4), nn.ReLU(inplace=True), frozen_convolution(), nn.ReLU(inplace=True))
    layers[2] = WinogradConvolution(nn.Conv2d(4, 6, kernel_size=3, padding=1).requires_grad_(False))
    images, others = torch.randn(2, 3, side, side, requires_grad=True), torch.randn(2, 3, side, side)
    found = responses_to_both(layers, images, others)
    expected = layers(images), layers(others)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6)
    assert not found[1].requires_grad
    gradients = [torch.autograd.grad(responses[0].sum(), images)[0] for responses in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=5e-6)


def test_what_was_made_in_inference_mode_does_not_stop_a_later_gradient():
    layer, images = WinogradConvolution(frozen_convolution()), torch.randn(1, 3, 40, 44)
    with torch.inference_mode():
        layer(images)
    layer(images.requires_grad_()).sum().backward()
    assert images.grad is not None


def test_images_stay_as_they_are():
    images = torch.randn(1, 2, 5, 5)
    before = images.clone()
    convolve(images, torch.randn(4, 2, 3, 3))
    assert torch.equal(images, before)
