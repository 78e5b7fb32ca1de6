"""The networks that turn a T1w volume into a PET volume, and the discriminators of the adversarial systems.

All take tensors ``(B, C, I, J, K)``, where channel 0 is the T1w, and give ``(B, 1, I, J, K)``. They end in a linear
layer, since standardized SUVR has no bounds. Each comes in two sizes: "paper" as published (where it was published; see
docs/decisions/networks.md), and "laptop", which trains on a processor with two cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from monai.networks.nets import UNETR, PatchDiscriminator, SwinUNETR, UNet
from torch import Tensor, nn

from tau_pipeline.errors import ImageError, SettingError, UnknownNameError, shown
from tau_pipeline.settings.training import NetworkPreset as Preset
from tau_pipeline.settings.training import NormLayer, Training

ImageSize = tuple[int, int, int]

#: Volumes for which UNETR is built where no size is given: it learns one vector for each place.
DEFAULT_SIZE: dict[Preset, ImageSize] = {"laptop": (48, 64, 48), "paper": (160, 192, 160)}


@dataclass(frozen=True)
class Network:
    """Construction of one network.

    Parameters
    ----------
    build
        From preset, image size, normalization layer, and number of input channels to the module.
    side_multiple
        What each side of the volumes must divide by, in each preset: 2 for each time that it is halved.
    """

    build: Callable[[Preset, ImageSize, NormLayer, int], nn.Module]
    side_multiple: dict[Preset, int]


#: Channels that are normalized together: it divides the channels of every layer of every preset.
_GROUP = 4


def _norm(kind: NormLayer, channels: int) -> tuple[str, dict[str, int]]:
    """Return MONAI's name and arguments of a normalization layer; ``channels`` is the number of the narrowest layer.

    Raises
    ------
    SettingError
        Without normalization the transformers cannot be built.
    """
    if kind == "none":
        raise SettingError("norm_layer is 'none', which only the U-Net can do without; expected: instance or group")
    return ("instance", {}) if kind == "instance" else ("group", {"num_groups": channels // _GROUP})


def unet(preset: Preset, _image_size: ImageSize, norm_layer: NormLayer, in_channels: int = 1) -> nn.Module:
    """Build the 3-D U-Net of strided convolutions (Kerfoot 2018), as in Moon et al. 2026: 31.6 million parameters."""
    channels = {"laptop": (16, 32, 64, 128), "paper": (64, 128, 256, 512, 1024)}[preset]
    dropout = {"laptop": 0.0, "paper": 0.2}[preset]
    strides = (2,) * (len(channels) - 1)
    # MONAI leaves the layer out for None, which its annotation does not allow.
    norm: Any = None if norm_layer == "none" else _norm(norm_layer, channels[0])
    return UNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=1,
        channels=channels,
        strides=strides,
        dropout=dropout,
        norm=norm,
    )


def unetr(preset: Preset, image_size: ImageSize, norm_layer: NormLayer, in_channels: int = 1) -> nn.Module:
    """Build a vision transformer on patches of 16 voxels with a convolutional decoder (Hatamizadeh et al. 2022)."""
    feature_size, hidden_size, n_heads = {"laptop": (8, 96, 4), "paper": (16, 768, 12)}[preset]
    network = UNETR(
        in_channels=in_channels,
        out_channels=1,
        img_size=image_size,
        feature_size=feature_size,
        hidden_size=hidden_size,
        mlp_dim=4 * hidden_size,
        num_heads=n_heads,
        norm_name=_norm(norm_layer, feature_size),
    )
    for block in network.vit.blocks:
        # MONAI makes this layer for cross-attention, which there is none of here: parameters that are never trained
        # would stop data-parallel training.
        block.norm_cross_attn = nn.Identity()
    return network


def swinunetr(preset: Preset, _image_size: ImageSize, norm_layer: NormLayer, in_channels: int = 1) -> nn.Module:
    """Build a transformer on shifted windows with a convolutional decoder (Hatamizadeh et al. 2022)."""
    feature_size = {"laptop": 12, "paper": 48}[preset]
    return SwinUNETR(
        in_channels=in_channels, out_channels=1, feature_size=feature_size, norm_name=_norm(norm_layer, feature_size)
    )


class AddedToPrior(nn.Module):
    """A network whose output is added to the prior, channel 1 of its input.

    The last layer of the network begins at 0, so that training starts from the prior itself.

    Parameters
    ----------
    network
        From ``(B, C, I, J, K)`` with two channels or more to ``(B, 1, I, J, K)``.

    Attributes
    ----------
    last
        Name of the last layer in ``network``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        convolutions = {k: v for k, v in network.named_modules() if isinstance(v, nn.Conv3d | nn.ConvTranspose3d)}
        self.last = list(convolutions)[-1]
        for parameter in convolutions[self.last].parameters():
            nn.init.zeros_(parameter)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return prior plus correction, ``(B, 1, I, J, K)``."""
        predicted: Tensor = inputs[:, 1:2] + self.network(inputs)
        return predicted


#: The networks by the name of their system. Pix2Pix and CycleGAN train the same generator as the U-Net system, so that
#: only the training differs.
NETWORKS: dict[str, Network] = {
    "unet": Network(unet, {"laptop": 8, "paper": 16}),
    "unetr": Network(unetr, {"laptop": 16, "paper": 16}),
    "swinunetr": Network(swinunetr, {"laptop": 32, "paper": 32}),
    "pix2pix": Network(unet, {"laptop": 8, "paper": 16}),
    "cyclegan": Network(unet, {"laptop": 8, "paper": 16}),
}
#: What sides divide by that fit both presets.
SIDE_MULTIPLE: dict[str, int] = {name: max(network.side_multiple.values()) for name, network in NETWORKS.items()}


def build_network(
    name: str,
    preset: Preset = Training.network_preset,
    image_size: ImageSize | None = None,
    norm_layer: NormLayer = Training.norm_layer,
    in_channels: int = 1,
    residual: bool = False,
) -> nn.Module:
    """Build the network that predicts PET from T1w; of the two adversarial systems, the generator.

    Parameters
    ----------
    name
        One of `NETWORKS`.
    preset
        "laptop" or "paper".
    image_size
        Voxels ``(I, J, K)`` of the volumes. Only UNETR depends on it; None takes the preset's.
    norm_layer
        "instance", "group", or "none".
    in_channels
        Of the input; channel 0 is the T1w.
    residual
        Add the output to channel 1 of the input, see `AddedToPrior`.

    Raises
    ------
    UnknownNameError
        There is no such network.
    SettingError
        There is no such preset, or the network cannot do without normalization.
    ImageError
        A side does not divide as the network needs.

    >>> sum(p.numel() for p in build_network("unet", "paper").parameters())
    31636937
    """
    if name not in NETWORKS:
        raise UnknownNameError(f"there is no network {shown(name)}; known: {', '.join(NETWORKS)}")
    if preset not in get_args(Preset):
        raise SettingError(f"preset is {shown(preset)}; expected: one of {', '.join(get_args(Preset))}")
    image_size = DEFAULT_SIZE[preset] if image_size is None else image_size
    check_sides(name, preset, image_size)
    network = NETWORKS[name].build(preset, image_size, norm_layer, in_channels)
    return AddedToPrior(network) if residual else network


class Discriminator(nn.Module):
    """Judges patches of volumes as measured (towards 1) or made (towards 0): PatchGAN (Isola et al. 2017) in 3-D.

    Parameters
    ----------
    preset
        "laptop" judges patches of 34 voxels with 16 channels in its first layer, "paper" of 70 with 64.
    in_channels
        1, or 2 where it sees the T1w beside the PET.
    """

    def __init__(self, preset: Preset, in_channels: int) -> None:
        super().__init__()
        channels, n_layers = {"laptop": (16, 2), "paper": (64, 3)}[preset]
        # Instance normalization, since with one volume a batch the statistics of a batch are the same but for drift.
        self.patches = PatchDiscriminator(
            spatial_dims=3, channels=channels, in_channels=in_channels, num_layers_d=n_layers, norm="INSTANCE"
        )

    def forward(self, volumes: Tensor) -> Tensor:
        """Return one number per patch, ``(B, 1, i, j, k)``, from ``(B, in_channels, I, J, K)``."""
        judged: Tensor = self.patches(volumes)[-1]
        return judged


def check_sides(name: str, preset: Preset, image_size: tuple[int, ...]) -> None:
    """Refuse volumes whose sides the network cannot halve as often as it must.

    Raises
    ------
    ImageError
        A side does not divide by the network's number, or only one voxel would be left; the message says the number.
    """
    multiple = NETWORKS[name].side_multiple[preset]
    # One voxel has no variance, and instance normalization divides by it.
    fits = len(image_size) == 3 and all(side > 0 and side % multiple == 0 for side in image_size)
    if not fits or math.prod(image_size) == multiple**3:
        found = " x ".join(str(side) for side in image_size)
        raise ImageError(
            f"volumes of {found} voxels do not fit the network {name!r}, preset {preset!r}; expected: three sides that "
            f"divide by {multiple}, not all of them {multiple}; crop or pad them"
        )
