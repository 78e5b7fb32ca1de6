from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch
from monai.networks.nets.resnet import ResNetFeatures
from torch import nn

from tau_pipeline.errors import DamagedFileError, MissingInputError
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.losses import features as module
from tau_pipeline.synthesis.losses.features import (
    VGG16_FILES,
    find_resnet3d_features,
    find_vgg16_features,
    load_resnet3d_features,
    load_vgg16_features,
    random_features,
    random_resnet3d_features,
    vgg16_features,
)
from tau_pipeline.synthesis.losses.weighted import PlanePerceptualLoss, build_features

VGG16 = Path(__file__).resolve().parents[2] / "shared" / "data" / "vgg16" / "vgg16_features23_unit_fp16.pt"
needs_vgg16 = pytest.mark.skipif(not VGG16.is_file(), reason="../shared/data/vgg16 is not there")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"features.{key}": value for key, value in vgg16_features().state_dict().items()}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty hub cache of torch, beyond which there is no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(module, "_VGG16_URL", (tmp_path / "no-such-server").as_uri() + "/")
    return tmp_path / "checkpoints"


def saved(content: object, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def responses(features: nn.Module) -> torch.Tensor:
    return features(torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1)))


def test_the_network_has_the_layers_of_vgg16_up_to_relu4_3():
    layers = list(vgg16_features())
    kinds = "".join({nn.Conv2d: "c", nn.ReLU: "r", nn.MaxPool2d: "p"}[type(layer)] for layer in layers)
    # Simonyan & Zisserman 2015, table 1, column D: 2, 2, 3 and 3 convolutions with 64, 128, 256 and 512 channels.
    assert kinds == "crcrp" + "crcrp" + "crcrcrp" + "crcrcr"
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 3
    assert all((c.kernel_size, c.padding, c.stride) == ((3, 3), (1, 1), (1, 1)) for c in convolutions)
    assert responses(vgg16_features()).shape == (1, 512, 2, 3)


def test_weights_are_read_in_either_spelling_of_the_keys_and_either_precision(weights, tmp_path):
    whole = weights | {"classifier.0.weight": torch.ones(3), "features.24.weight": torch.ones(2)}
    expected = responses(load_vgg16_features(saved(whole, tmp_path / "whole.pth")))
    short = {key.removeprefix("features."): value for key, value in weights.items()}
    assert torch.equal(responses(load_vgg16_features(saved(short, tmp_path / "short.pt"))), expected)
    nested = saved({"state_dict": short, "epoch": 3}, tmp_path / "nested.pt")
    assert torch.equal(responses(load_vgg16_features(nested)), expected)
    half = {key: value.half() for key, value in weights.items()}
    found = load_vgg16_features(saved(half, tmp_path / "half.pt"))
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    torch.testing.assert_close(responses(found), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


def test_loaded_features_are_frozen_and_in_evaluation(weights, tmp_path):
    features = load_vgg16_features(saved(weights, tmp_path / "vgg16.pth"))
    assert not features.training
    assert not any(parameter.requires_grad for parameter in features.parameters())


def test_weights_for_images_up_to_255_give_a_255th_of_their_responses_to_images_up_to_1(weights, tmp_path):
    original = vgg16_features().eval()
    original.load_state_dict({key.removeprefix("features."): value for key, value in weights.items()})
    found = load_vgg16_features(saved(weights, tmp_path / VGG16_FILES[1]))
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(255 * found(images), original(255 * images), rtol=1e-4, atol=1e-4)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"there is no file .*nowhere.pth"):
        load_vgg16_features(tmp_path / "nowhere.pth")
    with pytest.raises(MissingInputError, match=r"there is no file .*nowhere.pth with the weights of VGG-16"):
        find_vgg16_features(tmp_path / "nowhere.pth")


def test_a_file_of_something_else_is_refused_in_one_sentence(weights, tmp_path):
    text = tmp_path / "text.pth"
    text.write_text("not weights")
    whole = saved(weights, tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    code = saved({"features.0.weight": pytest.raises}, tmp_path / "code.pth")
    # Torch reads these as the opcodes of a pickle and stumbles: IndexError, EOFError.
    (tmp_path / "table.pth").write_bytes(b"a\tb\n1\n")
    (tmp_path / "empty.pth").write_bytes(b"")
    odd = (tmp_path / f"{name}.pth" for name in ("cut", "table", "empty"))
    for path in (text, code, *odd):
        with pytest.raises(DamagedFileError, match=f"{path.name} cannot be read as a torch file of weights alone"):
            load_vgg16_features(path)
    with pytest.raises(DamagedFileError, match="holds a list; expected: a state dict"):
        load_vgg16_features(saved([1, 2], tmp_path / "list.pth"))
    with pytest.raises(DamagedFileError, match="holds a dict; expected: a state dict of tensors by name"):
        load_vgg16_features(saved({1: torch.ones(2)}, tmp_path / "numbered.pth"))
    with pytest.raises(DamagedFileError, match=r"20 of 20 tensors are missing.*'features\.0\.weight'.*layer1"):
        load_vgg16_features(saved({"layer1.weight": torch.ones(2)}, tmp_path / "other.pth"))
    shape = weights | {"features.5.weight": torch.ones(128, 64, 1, 1)}
    with pytest.raises(
        DamagedFileError, match=r"'features\.5\.weight' has the shape \(128, 64, 1, 1\); expected: \(128, 64, 3, 3\)"
    ):
        load_vgg16_features(saved(shape, tmp_path / "shape.pth"))
    nan = weights | {"features.7.bias": torch.full((128,), float("nan"))}
    with pytest.raises(DamagedFileError, match=r"NaN or infinite weights in 'features\.7\.bias'"):
        load_vgg16_features(saved(nan, tmp_path / "nan.pth"))


def test_the_users_file_comes_before_the_hub_cache_and_torchvisions_default_before_its_other(hub, tmp_path):
    mine = saved({}, tmp_path / "mine.pth")
    other = saved({}, hub / VGG16_FILES[1])
    assert find_vgg16_features() == other
    default = saved({}, hub / VGG16_FILES[0])
    assert find_vgg16_features() == default
    assert find_vgg16_features(mine) == mine


def test_without_network_the_message_says_what_to_put_where(hub):
    with pytest.raises(MissingInputError) as caught:
        find_vgg16_features()
    message = str(caught.value)
    assert str(hub) in message
    assert "put vgg16-397923af.pth" in message
    assert "give the path of a copy" in message
    assert not list(hub.iterdir())


def test_a_refused_connection_is_told_in_the_same_sentence(hub, monkeypatch):
    def refused(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    with pytest.raises(MissingInputError, match=r"no route to host.*put vgg16-397923af.pth"):
        find_vgg16_features()


def test_a_download_with_another_checksum_is_thrown_away(hub, tmp_path, monkeypatch):
    server = tmp_path / "server"
    saved({"wrong": torch.ones(1)}, server / VGG16_FILES[0])
    monkeypatch.setattr(module, "_VGG16_URL", server.as_uri() + "/")
    with pytest.raises(MissingInputError, match=r"cannot be downloaded.*hash"):
        find_vgg16_features()
    assert not list(hub.iterdir())


def test_a_download_with_the_right_checksum_is_kept(hub, tmp_path, monkeypatch):
    import hashlib

    content = b"weights"
    name = f"vgg16-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / name).write_bytes(content)
    monkeypatch.setattr(module, "_VGG16_URL", (tmp_path / "server").as_uri() + "/")
    monkeypatch.setattr(module, "VGG16_FILES", (name,))
    assert find_vgg16_features() == hub / name
    assert (hub / name).read_bytes() == content


def test_random_features_depend_on_the_seed_alone_and_leave_torchs_own_seed():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for build in (random_features, random_resnet3d_features):
        one, same, other = build(1), build(1), build(2)
        states = [torch.cat([value.flatten().float() for value in n.state_dict().values()]) for n in (one, same, other)]
        assert torch.equal(states[0], states[1])
        assert not torch.equal(states[0], states[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_medicalnets_weights_are_read_and_only_those_of_depths_that_pass_the_gradient_on(tmp_path):
    torch.manual_seed(0)
    network = ResNetFeatures("resnet10", pretrained=False, spatial_dims=3, in_channels=1).eval()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    features = load_resnet3d_features(saved({"state_dict": state}, tmp_path / "resnet_10.pth"))
    volume = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(features(volume), network(volume)[-1])
    assert not any(parameter.requires_grad for parameter in features.parameters())
    eighteen = ResNetFeatures("resnet18", pretrained=False, spatial_dims=3, in_channels=1).state_dict()
    with pytest.raises(DamagedFileError, match=r"10 or 50 layers; expected: resnet_10_23dataset.pth"):
        load_resnet3d_features(saved(eighteen, tmp_path / "resnet_18.pth"))


def test_the_shortcut_of_the_18_layers_does_stop_the_gradient_so_that_it_is_rightly_refused():
    torch.manual_seed(0)
    network = ResNetFeatures("resnet18", pretrained=False, spatial_dims=3, in_channels=1).eval().double()
    volume = torch.randn(1, 1, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(volume)[-1].square().sum(), volume)
    step = torch.randn_like(volume)
    with torch.no_grad():
        ahead, behind = (network(volume + h * step)[-1].square().sum() for h in (1e-6, -1e-6))
    true = ((ahead - behind) / 2e-6).item()
    assert (gradient * step).sum().item() != pytest.approx(true, rel=0.01)


def test_the_3d_network_without_a_file_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(MissingInputError, match="no file was given; give the path of MedicalNet's resnet_10_23dataset"):
        build_features(Training(loss="3d"))
    with pytest.raises(MissingInputError, match=r"there is no file .*none.pth"):
        find_resnet3d_features(tmp_path / "none.pth")


@needs_vgg16
def test_vgg16_tells_an_image_from_a_blurred_one_more_than_from_a_brighter_one():
    features = load_vgg16_features(VGG16)
    torch.manual_seed(0)
    target = nn.functional.avg_pool3d(torch.rand(1, 1, 18, 34, 34), 3, stride=1)
    blurred = nn.functional.avg_pool3d(target, 3, stride=1, padding=1)
    loss = PlanePerceptualLoss(features)
    assert loss(blurred, target, "sagittal") > 100 * loss(1.5 * target + 2, target, "sagittal")
