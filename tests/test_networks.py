from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from torch import nn

from tau_pipeline.errors import ImageError, SettingError, UnknownNameError
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.networks.networks import NETWORKS, SIDE_MULTIPLE, Discriminator, build_network

needs_einops = pytest.mark.skipif(importlib.util.find_spec("einops") is None, reason="einops is not installed")
#: The smallest volumes that each network takes in the preset "laptop".
SMALLEST = [
    pytest.param("unet", (16, 8, 8), id="unet"),
    pytest.param("unetr", (32, 16, 16), id="unetr", marks=needs_einops),
    pytest.param("swinunetr", (32, 32, 64), id="swinunetr", marks=[needs_einops, pytest.mark.slow]),
    pytest.param("pix2pix", (8, 16, 8), id="pix2pix"),
    pytest.param("cyclegan", (8, 8, 16), id="cyclegan"),
]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_unet_has_as_many_parameters_as_its_layers_say():
    down = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    # Each way up takes what comes from below beside what comes from the same level; the last ends in one channel.
    up = [(1024 + 512, 256), (256 + 256, 128), (128 + 128, 64), (64 + 64, 1)]
    weights = sum(27 * before * after + after for before, after in down + up)
    slopes = len(down + up) - 1  # one of PReLU for each layer but the last, which is linear
    with torch.device("meta"):
        found = n_parameters(build_network("unet", "paper"))
    assert found == weights + slopes
    assert round(found / 1e6, 1) == 31.6


def test_the_papers_unet_has_its_strides_dropout_and_linear_end():
    with torch.device("meta"):
        layers = list(build_network("unet", "paper").modules())
    strided = [m for m in layers if isinstance(m, nn.Conv3d) and m.stride == (2, 2, 2)]
    assert [conv.out_channels for conv in strided] == [64, 128, 256, 512]
    assert {m.p for m in layers if isinstance(m, nn.Dropout)} == {0.2}
    assert isinstance(layers[-1], nn.ConvTranspose3d)


@pytest.mark.slow
@needs_einops
@pytest.mark.parametrize(("name", "published"), [("unetr", 92.58e6), ("swinunetr", 61.98e6)])
def test_the_paper_presets_of_the_transformers_are_of_their_published_size(name, published):
    # Published for 96 x 96 x 96 voxels and 14 classes; ours end in one channel.
    assert n_parameters(build_network(name, "paper", (96, 96, 96))) == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize(("name", "size"), SMALLEST)
def test_a_volume_of_the_smallest_size_comes_out_as_it_went_in_and_trains_every_parameter(name, size):
    network = build_network(name, "laptop", size).train()
    out = network(torch.randn(1, 1, *size))
    assert out.shape == (1, 1, *size)
    out.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(("name", "size"), SMALLEST)
def test_the_last_layer_is_linear(name, size):
    network = build_network(name, "laptop", size).eval()
    last = [m for m in network.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d) and m.out_channels == 1][-1]
    volume = torch.randn(1, 1, *size)
    with torch.no_grad():
        before = network(volume)
        last.bias += 1000
        torch.testing.assert_close(network(volume) - before, torch.full_like(before, 1000), rtol=0, atol=0.01)


@pytest.mark.parametrize(("name", "size"), SMALLEST)
@pytest.mark.parametrize("preset", ["laptop", "paper"])
def test_sides_that_do_not_divide_are_refused_with_the_number(name, size, preset):
    multiple = NETWORKS[name].side_multiple[preset]
    assert SIDE_MULTIPLE[name] % multiple == 0
    for wrong in ((multiple, 2 * multiple, multiple + 1), (multiple,) * 3, (0, multiple, multiple), (64, 64)):
        with pytest.raises(
            ImageError, match=rf"do not fit the network '{name}'.*divide by {multiple}, not all of them"
        ):
            build_network(name, preset, wrong)


@needs_einops
@pytest.mark.parametrize(("name", "size"), SMALLEST)
def test_group_normalization_fits_every_layer_of_every_network(name, size):
    network = build_network(name, "laptop", size, "group").train()
    kinds = {type(module) for module in network.modules()}
    assert nn.GroupNorm in kinds
    assert nn.InstanceNorm3d not in kinds
    network(torch.randn(1, 1, *size)).square().mean().backward()


def test_only_the_unet_can_do_without_normalization():
    kinds = {type(module) for module in build_network("unet", norm_layer="none").modules()}
    assert not kinds & {nn.GroupNorm, nn.InstanceNorm3d}
    for name in ("unetr", "swinunetr"):
        with pytest.raises(SettingError, match="norm_layer"):
            build_network(name, image_size=(64, 64, 64), norm_layer="none")
        with pytest.raises(SettingError, match="norm_layer"):
            Training(network=name, norm_layer="none")


def test_names_that_do_not_exist_are_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="no network 'resnet'; known: unet, unetr, swinunetr, pix2pix, cyclegan"):
        build_network("resnet")
    with pytest.raises(SettingError, match="preset is 'big'; expected: one of laptop, paper"):
        build_network("unet", "big")


def test_the_same_seed_gives_the_same_network():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(torch.cat([value.flatten() for value in build_network("unet").state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize(("preset", "patch"), [("laptop", 34), ("paper", 70)])
def test_a_judgement_of_the_discriminator_sees_a_patch_of_the_stated_size(preset, patch):
    convolutions = [m for m in Discriminator(preset, 2).modules() if isinstance(m, nn.Conv3d)]
    seen = 1
    for convolution in reversed(convolutions):
        seen = (seen - 1) * convolution.stride[0] + convolution.kernel_size[0]
    assert seen == patch
    assert convolutions[0].in_channels == 2


def test_the_discriminator_judges_patches_of_the_smallest_volumes():
    judged = Discriminator("laptop", 1)(torch.randn(2, 1, 16, 16, 16))
    assert judged.shape[:2] == (2, 1)
    assert math.prod(judged.shape[2:]) > 1
