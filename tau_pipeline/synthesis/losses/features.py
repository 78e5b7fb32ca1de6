"""Frozen feature networks whose responses the perceptual losses compare: VGG-16 for slices, a 3-D ResNet for volumes.

Weights come from a file of the user's, from torch's hub cache, or from a checksummed download; nothing else is
fetched. VGG-16 is Simonyan & Zisserman 2015 (arXiv 1409.1556), up to and with relu4_3 as in Moon et al. 2026; the 3-D
ResNet is that of MedicalNet (Chen, Ma & Zheng 2019, arXiv 1904.00625).
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from monai.networks.nets.resnet import ResNetFeatures
from torch import Tensor, nn

from tau_pipeline.errors import DamagedFileError, MissingInputError, shown
from tau_pipeline.synthesis.networks.weights import read_torch_file

logger = logging.getLogger(__name__)
_Network = TypeVar("_Network", bound=nn.Module)

#: Channels of the convolutions of VGG-16 ("D" in the publication) up to conv4_3; "pool" halves both sides.
_VGG16_LAYERS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512)
#: Files of torchvision, as its downloads are named: ``IMAGENET1K_V1``, then ``IMAGENET1K_FEATURES``. The eight digits
#: before the ending are the first of the SHA-256 of the file.
VGG16_FILES = ("vgg16-397923af.pth", "vgg16_features-amdegroot-88682ab5.pth")
#: torchvision's ``IMAGENET1K_FEATURES`` is for images from 0 to 255. Convolutions, ReLU and max-pooling scale with
#: their input and biases: with biases divided by 255 it does the same for images from 0 to 1, at a 255th of the size.
_SCALE_255 = "vgg16_features-amdegroot"
_VGG16_URL = "https://download.pytorch.org/models/"
#: Blocks in the four layers of the 3-D ResNets that can be used here. Those with 18 and 34 layers cannot: MedicalNet's
#: shortcut of them (and MONAI's) stops the gradient, so that a loss through them would have a wrong one.
_RESNETS: dict[tuple[int, ...], str] = {(1, 1, 1, 1): "resnet10", (3, 4, 6, 3): "resnet50"}


def vgg16_features() -> nn.Sequential:
    """Return VGG-16 up to and including relu4_3, with meaningless initial weights.

    Layers are numbered as in torchvision's ``vgg16().features[:23]``. Input ``(N, 3, H, W)`` with sides of 8 or more;
    output ``(N, 512, H // 8, W // 8)``.
    """
    layers: list[nn.Module] = []
    channels = 3
    for width in _VGG16_LAYERS:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        else:
            layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers)


def load_vgg16_features(path: str | os.PathLike[str]) -> nn.Sequential:
    """Load VGG-16 up to and including relu4_3, frozen, with the weights of a file.

    Parameters
    ----------
    path
        A torch state dict with the keys of torchvision's ``vgg16()`` (``features.0.weight``) or of its features alone
        (``0.weight``), in any floating-point type, for images from 0 to 1. Later layers may be there and are passed
        over. A file whose name starts with ``vgg16_features-amdegroot`` is for images from 0 to 255, and its biases
        are divided by 255.

    Raises
    ------
    MissingInputError
        There is no such file.
    DamagedFileError
        The file is not a torch state dict, or its tensors are not those of VGG-16.
    """
    path = Path(path)
    weights = _state_dict(path)
    if not any(key.startswith("features.") for key in weights):
        weights = OrderedDict((f"features.{key}", value) for key, value in weights.items())
    if path.name.startswith(_SCALE_255):
        weights = {key: value / 255 if key.endswith(".bias") else value for key, value in weights.items()}
    features = vgg16_features()
    wanted = {f"features.{key}": value for key, value in features.state_dict().items()}
    _check_weights(path, weights, wanted, "VGG-16")
    features.load_state_dict({key.removeprefix("features."): weights[key].float() for key in wanted})
    return frozen(features)


def find_vgg16_features(path: str | os.PathLike[str] | None = None) -> Path:
    """Find the file with the weights of VGG-16.

    Looked for in this order: ``path``; the folder ``checkpoints`` in torch's hub cache, where torchvision puts it too;
    a download into that folder, which is kept only if its checksum is right.

    Raises
    ------
    MissingInputError
        There is no such file, and it cannot be downloaded; the message says what to put where.
    """
    if path is not None:
        path = Path(path)
        if not path.is_file():
            raise MissingInputError(f"there is no file {path} with the weights of VGG-16; correct the path")
        return path
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in VGG16_FILES:
        if (folder / name).is_file():
            return folder / name
    return _downloaded(_VGG16_URL + VGG16_FILES[0], folder / VGG16_FILES[0])


def random_features(seed: int = 0, channels: int = 8) -> nn.Sequential:
    """Return a small frozen network of random weights with the layout of `vgg16_features`: stride 8, three channels in.

    For tests, and for those who ask for it by name: random features still see edges and texture, but no published
    result was made with them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate([(3, channels), (channels, channels), (channels, channels)]):
            layers += [nn.Conv2d(before, after, kernel_size=3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            nn.init.kaiming_normal_(layers[3 * level].weight, nonlinearity="relu")  # type: ignore[arg-type]
    return frozen(nn.Sequential(*layers))


class ResNetVolumeFeatures(nn.Module):
    """Responses of the last layer of MedicalNet's 3-D ResNet, of stride 32.

    Parameters
    ----------
    network
        MONAI's network, which returns the responses of all its layers.
    """

    def __init__(self, network: ResNetFeatures) -> None:
        super().__init__()
        self.network = network

    def forward(self, volumes: Tensor) -> Tensor:
        """Return responses ``(B, C, i, j, k)`` to volumes ``(B, 1, I, J, K)``."""
        responses: Tensor = self.network(volumes)[-1]
        return responses


def load_resnet3d_features(path: str | os.PathLike[str]) -> ResNetVolumeFeatures:
    """Load MedicalNet's 3-D ResNet with 10 or 50 layers, frozen; the file determines the depth.

    Parameters
    ----------
    path
        A file of MedicalNet (``resnet_10_23dataset.pth``, ``resnet_50_23dataset.pth``), or a state dict of MONAI's
        ``ResNet``; the classification layer, if there, is passed over.

    Raises
    ------
    MissingInputError
        There is no such file.
    DamagedFileError
        The file is not a torch state dict, or its tensors are not those of one of these networks.
    """
    path = Path(path)
    weights = {key.removeprefix("module."): value for key, value in _state_dict(path).items()}
    n_blocks = tuple(len({key.split(".")[1] for key in weights if key.startswith(f"layer{n}.")}) for n in range(1, 5))
    # Those with 34 and 50 layers have equally many blocks; a third convolution in each is the mark of the latter.
    name = _RESNETS.get(n_blocks)
    if name is None or (name == "resnet50") != ("layer1.0.conv3.weight" in weights):
        raise DamagedFileError(
            f"{path} does not hold the weights of a 3-D ResNet with 10 or 50 layers; expected: resnet_10_23dataset.pth "
            "or resnet_50_23dataset.pth of MedicalNet"
        )
    network = ResNetFeatures(name, pretrained=False, spatial_dims=3, in_channels=1)
    wanted = network.state_dict()
    _check_weights(path, weights, wanted, f"the 3-D ResNet with {name.removeprefix('resnet')} layers")
    network.load_state_dict({key: weights[key].to(value.dtype) for key, value in wanted.items()})
    return frozen(ResNetVolumeFeatures(network))


def find_resnet3d_features(path: str | os.PathLike[str] | None) -> Path:
    """Find the file with the weights of the 3-D feature network, which only the user can provide.

    Raises
    ------
    MissingInputError
        No path was given, or there is no such file; the message says where the weights come from.
    """
    if path is None:
        raise MissingInputError(
            "the 3-D perceptual loss needs the weights of a 3-D feature network, and no file was given; give the path "
            "of MedicalNet's resnet_10_23dataset.pth (github.com/Tencent/MedicalNet), or ask for random features"
        )
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"there is no file {path} with the weights of the 3-D feature network; correct it")
    return path


def random_resnet3d_features(seed: int = 0) -> ResNetVolumeFeatures:
    """Return the 3-D ResNet with 10 layers and random weights, frozen. Unpublished; only on explicit request."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResNetFeatures("resnet10", pretrained=False, spatial_dims=3, in_channels=1)
    return frozen(ResNetVolumeFeatures(network))


def frozen(network: _Network) -> _Network:
    """Return the same network in evaluation mode, without gradients for its parameters."""
    network.eval().requires_grad_(False)
    return network


def gray_input(features: nn.Module) -> nn.Module:
    """Return the same features for images of one channel, equal to the result for three equal channels.

    The first convolution is linear, so its weights for the three channels add up to those for one: the sum is the same
    but for rounding, and the largest maps are computed with a third of the operations. All other layers are shared with
    ``features``. A network that does not begin with a convolution of three channels gets the channel three times.
    """
    first = features[0] if isinstance(features, nn.Sequential) else None
    if not isinstance(first, nn.Conv2d) or first.groups != 1:
        return _RepeatedChannel(features)
    if first.in_channels == 1:
        return features
    folded = nn.Conv2d(
        1,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        stride=first.stride,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        dilation=first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
        padding_mode=first.padding_mode,
    )
    with torch.no_grad():
        folded.weight = nn.Parameter(first.weight.sum(dim=1, keepdim=True), requires_grad=False)
        folded.bias = first.bias
    return frozen(nn.Sequential(folded, *list(features)[1:]))  # type: ignore[call-overload]


class _RepeatedChannel(nn.Module):
    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        responses: Tensor = self.features(images.expand(-1, 3, -1, -1))
        return responses


def _state_dict(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise MissingInputError(f"there is no file {path} with the weights of a feature network")
    content = read_torch_file(path, str(path))
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise DamagedFileError(f"{path} holds a {type(content).__name__}; expected: a state dict of tensors by name")
    return content


def _check_weights(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], network: str) -> None:
    missing = [key for key in wanted if key not in found]
    if missing:
        raise DamagedFileError(
            f"{path} does not hold {network}: {len(missing)} of {len(wanted)} tensors are missing, the first is "
            f"{missing[0]!r}; found: {', '.join(map(shown, list(found)[:3])) or 'nothing'}, …"
        )
    for key, value in wanted.items():
        if found[key].shape != value.shape:
            raise DamagedFileError(
                f"{path} does not hold {network}: {key!r} has the shape {tuple(found[key].shape)}; expected: "
                f"{tuple(value.shape)}"
            )
        if not torch.isfinite(found[key]).all():
            raise DamagedFileError(f"{path} holds NaN or infinite weights in {key!r}; get the file again")


def _downloaded(url: str, target: Path) -> Path:
    digits = target.stem.rsplit("-", 1)[1]
    logger.info("Downloading the weights of VGG-16 (528 MB) from %s", url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Writes to a file beside the target, checks the SHA-256, and renames.
        torch.hub.download_url_to_file(url, str(target), hash_prefix=digits, progress=True)
    except (OSError, RuntimeError) as exc:
        raise MissingInputError(
            f"the weights of VGG-16 are not in {target.parent} and cannot be downloaded ({exc}); put {target.name} "
            f"(from {url}) into that folder, or give the path of a copy (perceptual_weights_file), or ask for random "
            "features (perceptual_features)"
        ) from exc
    return target
