"""Systems that are trained together: a generator alone, or with discriminators and a second generator.

A system is one module with everything in it. Its training step has phases, and each phase has its parameters, so
that the loop gives each an optimizer and takes the phases in turn. The content loss (MSE, SSIM, perceptual) comes from
outside, so that every system can be trained with every loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tau_pipeline.errors import ImageError, SettingError
from tau_pipeline.settings.training import NormLayer, Training
from tau_pipeline.settings.training_inputs import channel_names
from tau_pipeline.synthesis.networks.networks import (
    DEFAULT_SIZE,
    Discriminator,
    ImageSize,
    Preset,
    build_network,
    check_sides,
)

#: From prediction and measured PET to a loss and its parts by name.
ContentLoss = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Options:
    """Options of a system beside network, preset, and size.

    Attributes
    ----------
    norm_layer
        Normalization of the generators: "instance", "group", or "none".
    in_channels
        Of the generator's input; channel 0 is the T1w.
    residual
        Whether the generator's output is added to channel 1 of its input.
    adversarial_weight, cycle_weight
        Of the terms of Pix2Pix and CycleGAN beside the content loss.
    """

    norm_layer: NormLayer = Training.norm_layer
    in_channels: int = 1
    residual: bool = False
    adversarial_weight: float = Training.adversarial_weight
    cycle_weight: float = Training.cycle_weight

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Options:
        """Return the options that the settings of a training imply; what an old card lacks has its default."""
        names = channel_names(settings)
        stated = {
            name: settings[name] for name in ("norm_layer", "adversarial_weight", "cycle_weight") if name in settings
        }
        return cls(in_channels=len(names), residual="prior" in names, **stated)


class System(nn.Module):
    """A generator that is trained by the content loss alone.

    Parameters
    ----------
    name
        One of `tau_pipeline.synthesis.networks.networks.NETWORKS`.
    preset
        "laptop" or "paper".
    image_size
        Voxels ``(I, J, K)`` of the volumes; None takes the preset's.
    options
        None takes the defaults.

    Attributes
    ----------
    generator : nn.Module
        The network that predicts PET from T1w and, where there are any, further channels.
    phases : tuple of str
        Phases of a training step, in order.
    """

    phases: tuple[str, ...] = ("generator",)

    def __init__(
        self,
        name: str,
        preset: Preset = Training.network_preset,
        image_size: ImageSize | None = None,
        options: Options | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.preset: Preset = preset
        self.options = options or Options()
        self.generator = build_network(
            name,
            preset,
            image_size,
            self.options.norm_layer,
            self.options.in_channels,
            self.options.residual,
        )
        self.image_size: ImageSize = DEFAULT_SIZE[preset] if image_size is None else image_size

    def forward(self, t1w: Tensor) -> Tensor:
        """Return predicted PET ``(B, 1, I, J, K)`` from T1w and further channels ``(B, C, I, J, K)``.

        Raises
        ------
        ImageError
            The shape is another than ``(B, C, I, J, K)``, a side does not divide as the network needs, or the volume is
            not of the size for which a UNETR was built.
        """
        self._check_volumes(t1w)
        prediction: Tensor = self.generator(t1w)
        return prediction

    def parameters_of(self, phase: str) -> list[nn.Parameter]:
        """Return the parameters that a phase trains.

        Raises
        ------
        SettingError
            There is no such phase.
        """
        self._check_phase(phase)
        return [parameter for module in self._trained_in(phase) for parameter in module.parameters()]

    def step_loss(
        self, phase: str, t1w: Tensor, pet: Tensor, content_loss: ContentLoss, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss that a phase minimizes, for one batch.

        Parameters
        ----------
        phase
            One of `phases`.
        t1w, pet
            Volumes ``(B, C, I, J, K)`` and ``(B, 1, I, J, K)``.
        content_loss
            Called with prediction and PET in the phase of the generator.
        mask
            ``(B, 1, I, J, K)`` boolean: discriminators see the background of the measured volumes outside it, so that
            they cannot tell generated volumes by their background. None: everywhere.

        Returns
        -------
        Tensor
            A scalar. Only the parameters of the phase get a gradient from it.
        dict
            Its parts by name, not weighted.

        Raises
        ------
        SettingError
            There is no such phase.
        ImageError
            The volumes do not fit the network.
        """
        self._check_phase(phase)
        return content_loss(self(t1w), pet)

    def _trained_in(self, _phase: str) -> list[nn.Module]:
        return [self.generator]

    def _check_phase(self, phase: str) -> None:
        if phase not in self.phases:
            raise SettingError(f"the system {self.name!r} has no phase {phase!r}; known: {', '.join(self.phases)}")

    def _check_volumes(self, t1w: Tensor) -> None:
        channels = self.options.in_channels
        if t1w.ndim != 5 or t1w.shape[1] != channels:
            raise ImageError(f"the T1w has the shape {tuple(t1w.shape)}; expected: (B, {channels}, I, J, K)")
        check_sides(self.name, self.preset, tuple(t1w.shape[2:]))
        if self.name == "unetr" and tuple(t1w.shape[2:]) != tuple(self.image_size):
            raise ImageError(
                f"this UNETR was built for volumes of {self.image_size} voxels and got {tuple(t1w.shape[2:])}; it "
                "knows no other size: crop or pad the volume, or build another"
            )


class Pix2Pix(System):
    """Generator and a discriminator that sees T1w and PET together (Isola et al. 2017), in 3-D.

    Parameters as `System`. The adversarial term is the squared one of Mao et al. 2017.
    """

    phases = ("generator", "discriminator")

    def __init__(
        self,
        name: str,
        preset: Preset = Training.network_preset,
        image_size: ImageSize | None = None,
        options: Options | None = None,
    ) -> None:
        super().__init__(name, preset, image_size, options)
        self.discriminator = Discriminator(preset, in_channels=2)

    def step_loss(
        self, phase: str, t1w: Tensor, pet: Tensor, content_loss: ContentLoss, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss as `System.step_loss`, with parts "adversarial" and "discriminator"."""
        self._check_phase(phase)
        if phase == "discriminator":
            with torch.no_grad():
                made = self(t1w)
            image = t1w[:, :1]
            judged = judgement(
                self.discriminator, torch.cat([image, pet], 1), torch.cat([image, _inside(made, pet, mask)], 1)
            )
            return judged, {"discriminator": judged.item()}
        prediction = self(t1w)
        content, parts = content_loss(prediction, pet)
        adversarial = persuasion(self.discriminator, torch.cat([t1w[:, :1], _inside(prediction, pet, mask)], 1))
        return content + self.options.adversarial_weight * adversarial, {**parts, "adversarial": adversarial.item()}

    def _trained_in(self, phase: str) -> list[nn.Module]:
        return [self.generator] if phase == "generator" else [self.discriminator]


class CycleGan(System):
    """Generators in both directions with a discriminator each (Zhu et al. 2017), in 3-D, on pairs.

    Parameters as `System`. PET made from T1w is judged, compared with the measured PET by the content loss, and turned
    back into a T1w, which must be the one that it began with; likewise from PET to T1w, without a content loss.

    Attributes
    ----------
    generator, back_generator : nn.Module
        From T1w to PET, and from PET to T1w.
    """

    phases = ("generator", "discriminator")

    def __init__(
        self,
        name: str,
        preset: Preset = Training.network_preset,
        image_size: ImageSize | None = None,
        options: Options | None = None,
    ) -> None:
        super().__init__(name, preset, image_size, options)
        self.back_generator = build_network(name, preset, self.image_size, self.options.norm_layer)
        self.pet_discriminator = Discriminator(preset, in_channels=1)
        self.t1w_discriminator = Discriminator(preset, in_channels=1)

    def step_loss(
        self, phase: str, t1w: Tensor, pet: Tensor, content_loss: ContentLoss, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss as `System.step_loss`, with parts "adversarial", "cycle" and "discriminator"."""
        self._check_phase(phase)
        if phase == "discriminator":
            return self._discriminator_loss(t1w, pet, mask)
        image, further = t1w[:, :1], t1w[:, 1:]
        made_pet, made_t1w = self(t1w), self.back_generator(pet)
        content, parts = content_loss(made_pet, pet)
        adversarial = persuasion(self.pet_discriminator, _inside(made_pet, pet, mask))
        adversarial = adversarial + persuasion(self.t1w_discriminator, _inside(made_t1w, image, mask))
        cycle = functional.l1_loss(self.back_generator(made_pet), image)
        cycle = cycle + functional.l1_loss(self.generator(torch.cat([made_t1w, further], 1)), pet)
        total = content + self.options.adversarial_weight * adversarial + self.options.cycle_weight * cycle
        return total, {**parts, "adversarial": adversarial.item(), "cycle": cycle.item()}

    def _discriminator_loss(self, t1w: Tensor, pet: Tensor, mask: Tensor | None) -> tuple[Tensor, dict[str, float]]:
        image = t1w[:, :1]
        with torch.no_grad():
            made_pet, made_t1w = _inside(self(t1w), pet, mask), _inside(self.back_generator(pet), image, mask)
        judged = judgement(self.pet_discriminator, pet, made_pet) + judgement(self.t1w_discriminator, image, made_t1w)
        return judged, {"discriminator": judged.item()}

    def _trained_in(self, phase: str) -> list[nn.Module]:
        if phase == "generator":
            return [self.generator, self.back_generator]
        return [self.pet_discriminator, self.t1w_discriminator]


#: The adversarial systems; all other networks are trained by the content loss alone.
SYSTEMS: dict[str, type[System]] = {"pix2pix": Pix2Pix, "cyclegan": CycleGan}


def build_system(
    name: str,
    preset: Preset = Training.network_preset,
    image_size: ImageSize | None = None,
    options: Options | None = None,
) -> System:
    """Build the system of a name, with freshly drawn parameters.

    Parameters
    ----------
    name
        "unet", "unetr", "swinunetr", "pix2pix" or "cyclegan".
    preset
        "laptop" or "paper".
    image_size
        Voxels ``(I, J, K)`` of the volumes; None takes the preset's.
    options
        Normalization, channels, and weights; None takes the defaults.

    Raises
    ------
    UnknownNameError
        There is no such system.
    SettingError
        There is no such preset, or the network cannot do without normalization.
    ImageError
        A side of the volumes does not divide as the network needs.
    """
    return SYSTEMS.get(name, System)(name, preset, image_size, options)


def _inside(made: Tensor, measured: Tensor, mask: Tensor | None) -> Tensor:
    """Return generated volumes with the measured ones' values outside a mask."""
    return made if mask is None else torch.where(mask, made, measured.to(made.dtype))


def persuasion(discriminator: nn.Module, made: Tensor) -> Tensor:
    """Return how far the discriminator is from taking a generator's volumes for measured ones.

    The gradient goes to the volumes and not to the discriminator.
    """
    with _without_gradient_for(discriminator):
        judged = discriminator(made).float()
    return (judged - 1).square().mean()


def judgement(discriminator: nn.Module, measured: Tensor, made: Tensor) -> Tensor:
    """Return how far the discriminator is from 1 for measured and 0 for generated volumes, on average."""
    on_measured, on_made = discriminator(measured).float(), discriminator(made.detach()).float()
    return ((on_measured - 1).square().mean() + on_made.square().mean()) / 2


@contextmanager
def _without_gradient_for(module: nn.Module) -> Iterator[None]:
    required = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in required:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in required:
            parameter.requires_grad_(True)
