from __future__ import annotations

import pytest
import torch
from test_networks import needs_einops
from torch import nn

from tau_pipeline.errors import ImageError, SettingError, UnknownNameError
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.losses.weighted import build_loss
from tau_pipeline.synthesis.networks.systems import (
    build_system,
    judgement,
    persuasion,
)

SIZES = {
    "unet": (16, 16, 16),
    "unetr": (32, 16, 16),
    "swinunetr": (64, 32, 32),
    "pix2pix": (16, 16, 16),
    "cyclegan": (16, 16, 16),
}
TRANSFORMERS = ["unetr", "swinunetr"]
#: A SwinUNETR takes seconds for each test; tests/test_networks.py has its quick ones.
MARKS = {"unetr": [needs_einops], "swinunetr": [needs_einops, pytest.mark.slow]}
SYSTEMS = [pytest.param(name, marks=MARKS.get(name, [])) for name in SIZES]
ADVERSARIAL = ["pix2pix", "cyclegan"]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def pair(name: str, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A T1w, and a PET that follows from it."""
    t1w = nn.functional.avg_pool3d(torch.randn(batch, 1, *SIZES[name]), 3, stride=1, padding=1) * 3
    return t1w, 2 * t1w.abs() - 1


def squares(prediction: torch.Tensor, pet: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    value = (prediction - pet).square().mean()
    return value, {"mse": value.item()}


def nothing(prediction: torch.Tensor, _pet: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    return 0 * prediction.sum(), {}


def steps(system, n: int, t1w, pet, content=squares, rate: float = 2e-3) -> list[dict[str, float]]:
    """Train by turns of the phases, as the training loop does, and give the parts of each step."""
    optimizers = {phase: torch.optim.Adam(system.parameters_of(phase), lr=rate) for phase in system.phases}
    history = []
    for _ in range(n):
        parts = {}
        for phase, optimizer in optimizers.items():
            optimizer.zero_grad()
            loss, found = system.step_loss(phase, t1w, pet, content)
            loss.backward()
            optimizer.step()
            parts |= found
        history.append(parts)
    return history


def build(name: str):
    return build_system(name, "laptop", SIZES[name])


@pytest.mark.parametrize("name", SYSTEMS)
def test_prediction_has_the_shape_of_the_t1w_and_comes_from_the_generator(name):
    system = build(name).eval()
    t1w, _ = pair(name)
    assert system(t1w).shape == t1w.shape
    assert torch.equal(system(t1w), system.generator(t1w))
    assert (system.name, system.preset) == (name, "laptop")


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_parameter_belongs_to_one_phase(name):
    system = build(name)
    owned = [id(parameter) for phase in system.phases for parameter in system.parameters_of(phase)]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(parameter) for parameter in system.parameters()}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_phase_gives_a_gradient_to_its_parameters_and_to_no_others_and_leaves_its_inputs(name):
    system = build(name)
    t1w, pet = pair(name)
    before = t1w.clone(), pet.clone()
    for phase in system.phases:
        system.zero_grad()
        system.step_loss(phase, t1w, pet, squares)[0].backward()
        mine = {id(parameter) for parameter in system.parameters_of(phase)}
        for parameter in system.parameters():
            reached = parameter.grad is not None
            assert reached == (id(parameter) in mine)
        assert all(parameter.requires_grad for parameter in system.parameters())
    assert torch.equal(t1w, before[0])
    assert torch.equal(pet, before[1])
    assert t1w.grad is None


@pytest.mark.parametrize(
    "name",
    ["unet", *ADVERSARIAL, *(pytest.param(name, marks=[needs_einops, pytest.mark.slow]) for name in TRANSFORMERS)],
)
def test_training_makes_the_content_loss_fall_and_the_state_restores_the_system(name):
    system = build(name)
    t1w, pet = pair(name)
    history = steps(system, 8, t1w, pet)
    assert history[-1]["mse"] < 0.8 * history[0]["mse"]
    other = build(name)
    other.load_state_dict(system.state_dict())
    assert torch.equal(other.eval()(t1w), system.eval()(t1w))


@pytest.mark.parametrize("kind", ["mse_ssim", "2.5d", "3d", "cyclic2.5d"])
@pytest.mark.parametrize("name", ["unet", *ADVERSARIAL])
def test_every_system_trains_with_every_loss(name, kind):
    loss = build_loss(Training(loss=kind, perceptual_features="random"))
    history = steps(build(name), 6, *pair(name), content=lambda prediction, pet: loss(prediction, pet, 0))
    assert {"mse", "ssim"} <= set(history[0])
    assert ("perceptual" in history[0]) == (kind != "mse_ssim")
    assert history[-1]["mse"] + history[-1]["ssim"] < history[0]["mse"] + history[0]["ssim"]


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_total_of_the_generators_is_the_weighted_sum_of_its_parts(name):
    system = build(name).eval()
    total, parts = system.step_loss("generator", *pair(name), squares)
    expected = parts["mse"] + 0.01 * parts["adversarial"] + 0.1 * parts.get("cycle", 0)
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert ("cycle" in parts) == (name == "cyclegan")


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_adversarial_term_alone_moves_the_generator(name):
    system = build(name)
    system.step_loss("generator", *pair(name), nothing)[0].backward()
    assert sum(parameter.grad.abs().sum() for parameter in system.generator.parameters()) > 0


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_discriminators_learn_to_tell_measured_from_made_when_the_generator_stands_still(name):
    system = build(name)
    t1w, pet = pair(name)
    optimizer = torch.optim.Adam(system.parameters_of("discriminator"), lr=2e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss, parts = system.step_loss("discriminator", t1w, pet, squares)
        loss.backward()
        optimizer.step()
        losses.append(parts["discriminator"])
    n_discriminators = 1 if name == "pix2pix" else 2
    assert losses[-1] < 0.5 * 0.25 * n_discriminators  # a quarter each is what guessing costs


def test_a_discriminator_that_calls_everything_measured_is_persuaded_and_judges_half_of_it_wrong():
    volumes = torch.randn(2, 1, 4, 4, 4)
    assert persuasion(_Constant(1.0), volumes) == 0
    assert judgement(_Constant(1.0), volumes, volumes) == 0.5
    assert persuasion(_Constant(0.0), volumes) == 1
    assert judgement(_Constant(0.5), volumes, volumes) == 0.25


def test_a_way_there_and_back_that_changes_nothing_has_no_cycle_loss():
    system = build("cyclegan")
    system.generator = system.back_generator = nn.Identity()
    assert system.step_loss("generator", *pair("cyclegan"), squares)[1]["cycle"] == 0


def test_the_discriminator_of_pix2pix_sees_the_t1w():
    system = build("pix2pix").eval()
    t1w, pet = pair("pix2pix")
    one = judgement(system.discriminator, torch.cat([t1w, pet], 1), torch.cat([t1w, -pet], 1))
    other = judgement(system.discriminator, torch.cat([t1w.flip(2), pet], 1), torch.cat([t1w.flip(2), -pet], 1))
    assert one != other


def test_what_does_not_fit_is_refused_in_one_sentence():
    system = build("unet")
    with pytest.raises(SettingError, match="the system 'unet' has no phase 'discriminator'; known: generator"):
        system.step_loss("discriminator", *pair("unet"), squares)
    with pytest.raises(SettingError, match="no phase 'train'"):
        build("pix2pix").parameters_of("train")
    with pytest.raises(ImageError, match=r"T1w has the shape \(1, 2, 16, 16, 16\); expected: \(B, 1, I, J, K\)"):
        system(torch.randn(1, 2, 16, 16, 16))
    with pytest.raises(ImageError, match="volumes of 16 x 16 x 12 voxels do not fit the network 'unet'"):
        system(torch.randn(1, 1, 16, 16, 12))
    with pytest.raises(UnknownNameError, match="no network 'gan'"):
        build_system("gan")
    with pytest.raises(SettingError, match="preset is 'tiny'"):
        build_system("unet", "tiny")


@needs_einops
def test_a_unetr_refuses_volumes_of_another_size_than_it_was_built_for():
    with pytest.raises(ImageError, match=r"built for volumes of \(32, 16, 16\) voxels and got \(16, 32, 16\)"):
        build("unetr")(torch.randn(1, 1, 16, 32, 16))


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        return self.value.expand(len(volumes), 1, 2, 2, 2)
