"""Channels beside the T1w: covariates, shares of labels, and the prior that a network corrects."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from tau_pipeline.atlas import region_numbers
from tau_pipeline.cohort.demographics import Demographics
from tau_pipeline.errors import DamagedFileError, SettingError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.settings.training_inputs import LABEL_CHANNELS, channel_names
from tau_pipeline.synthesis.data.covariates import CovariateScale, as_number, unread_text, unused_text
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.pairs import Pair, Subject
from tau_pipeline.synthesis.data.placement import on_t1w_grid, place
from tau_pipeline.synthesis.data.prepare import PlacedT1w
from tau_pipeline.synthesis.data.scaling import MinMax
from tau_pipeline.synthesis.evaluation.outputs import unknown_covariates
from tau_pipeline.synthesis.model.card import ModelCard
from tau_pipeline.synthesis.model.channels import InputChannels, cached_label_shares, label_shares
from tau_pipeline.synthesis.model.correction import fit_level_weight, on_t1w
from tau_pipeline.synthesis.model.ensemble import Ensemble
from tau_pipeline.synthesis.model.folder import LoadedModel
from tau_pipeline.synthesis.model.predict import predict_pair, predict_placed
from tau_pipeline.synthesis.model.regression import RegionalRegression, painted
from tau_pipeline.synthesis.networks.networks import AddedToPrior, build_network
from tau_pipeline.synthesis.networks.systems import Options, build_system


def placed(tmp_path: Path, voxel_mm: float = 2.0, **covariates: float) -> PlacedT1w:
    """A box of a head with cortex on its right half and white matter on its left, on voxels of 1 mm."""
    dseg = np.zeros((32, 32, 32), np.int16)
    dseg[4:17, 4:28, 4:28], dseg[17:28, 4:28, 4:28] = 2, 1006
    nib.save(nib.Nifti1Image(dseg, np.eye(4)), tmp_path / "dseg.nii.gz")
    mask = Volume((dseg > 0).astype(np.uint8), np.eye(4))
    grid = Grid((round(32 / voxel_mm),) * 3, (voxel_mm,) * 3)
    placement = place(mask, grid)
    brain = np.ones(grid.shape, bool)
    t1w = np.full(grid.shape, 0.25, np.float32)
    return PlacedT1w(t1w, brain, placement, Subject(tmp_path / "dseg.nii.gz", tmp_path / "mask.nii.gz", covariates))


@pytest.mark.parametrize(
    ("name", "value", "number"),
    [
        *(("apoe", spelled, 1.0) for spelled in ("e3/e4", "34", "3,4", "APOE ε3ε4", 1, "1.0")),
        *(("apoe", spelled, 2.0) for spelled in ("44", "E4/E4", 2)),
        *(("apoe", spelled, 0.0) for spelled in ("3/3", 23, 0)),
        *(("sex", spelled, 1.0) for spelled in ("F", "female", "Woman")),
        *(("diagnosis", spelled, 2.0) for spelled in ("AD", "Alzheimer's dementia")),
        ("p_tau217", "0,5", math.log(0.5)),
        ("age", 71, 71.0),
    ],
)
def test_spellings_of_a_covariate_are_one_number(name: str, value: object, number: float) -> None:
    assert as_number(name, value) == pytest.approx(number)


@pytest.mark.parametrize(
    ("name", "value"), [("apoe", "yes"), ("apoe", 7), ("sex", "?"), ("p_tau217", 0), ("p_tau217", "-"), ("age", None)]
)
def test_what_cannot_be_understood_is_missing(name: str, value: object) -> None:
    assert math.isnan(as_number(name, value))


def test_a_value_that_is_stated_and_cannot_be_read_is_told() -> None:
    stated = {
        "sub-01": {"p_tau217": "<0.1", "sex": "F"},
        "sub-02": {"p_tau217": "0.3", "sex": "2"},
        "sub-03": {"p_tau217": "high", "apoe": "carrier"},
        "sub-04": {"p_tau217": ">2"},
        "sub-05": {"p_tau217": "0.41 pg/mL"},
    }
    people = Demographics(stated, {("sub-02", "ses-1"): {"p_tau217": "-1"}})
    said = unread_text(("age", "sex", "p_tau217", "thickness_1006"), people)
    assert said == [
        "participants.tsv: sex of 1 participant cannot be read and counts as missing: sub-02 '2'; expected: F or M",
        "participants.tsv: p_tau217 of 5 participants cannot be read and counts as missing: sub-01 '<0.1', "
        "sub-02 '-1', sub-03 'high', …; expected: a number above 0",
    ]


def test_covariates_are_standardized_on_training_participants_and_their_absence_is_a_channel(tmp_path: Path) -> None:
    people = {"a": {"age": 60.0, "sex": 1.0}, "b": {"age": 80.0}, "c": {}}
    scale = CovariateScale.fit(("age", "sex"), people)
    assert (scale.means, scale.sds, scale.known) == ((70.0, 1.0), (10.0, 1.0), (2, 1))
    names = channel_names({"covariates": ["age", "sex"]})
    channels = InputChannels(names, scale)
    found = channels.stacked(placed(tmp_path, age=90.0))
    assert found.shape == (5, 16, 16, 16)
    assert [float(channel[8, 8, 8]) for channel in found] == [0.25, 2.0, 1.0, 0.0, 0.0]
    channels.save(tmp_path)
    assert InputChannels.load(tmp_path, {"covariates": ["age", "sex"]}) == channels
    # What no training participant had counts as missing, too: nothing was learned of it.
    assert CovariateScale.fit(("apoe",), people).values({"apoe": 2.0}) == [0.0, 0.0]


def test_a_covariate_that_no_training_participant_has_is_named_in_the_card() -> None:
    people = {"sub-01": {"age": 70.0}, "sub-02": {"age": 71.0, "sex": 1.0}}
    assert unused_text(("age", "sex"), people) == ()
    (said,) = unused_text(("age", "p_tau217", "apoe"), people)
    assert said.startswith("Not used, although the model has a place for it: p_tau217, apoe;")


def test_what_a_model_does_not_know_of_a_participant_is_said_once() -> None:
    channels = InputChannels(covariates=CovariateScale.fit(["p_tau217", "age"], {}), prior=regression_of({2: 1.0}))
    state = {**channels.prior.state_dict(), "thickness_labels": torch.tensor([1006, 2006])}
    thick = RegionalRegression(
        {**state, "center": torch.zeros(6), "scale": torch.ones(6), "weight": torch.zeros(1, 1, 6)}
    )
    card = ModelCard("unet", "laptop", Grid((16, 16, 16), (2.0, 2.0, 2.0)), {}, 0)
    models = [
        LoadedModel(system, card, MinMax(0.0, 4.0), pd.DataFrame(), own)
        for system, own in ((torch.nn.Identity(), channels), (thick, InputChannels()))
    ]
    ensemble = Ensemble(tuple(models), (Path("a"), Path("b")), ("a", "b"))
    (said,) = unknown_covariates(ensemble, {"age": 70.0, "thickness_1006": 2.5})
    assert said.endswith(": p_tau217, sex, thickness of the cortex (1 region).")
    known = {"age": 70.0, "sex": 1.0, "p_tau217": 0.3, "thickness_1006": 2.5, "thickness_2006": 2.5}
    assert unknown_covariates(ensemble, known) == []


def test_shares_of_labels_keep_their_volume_on_coarse_voxels_and_come_back_from_the_cache(tmp_path: Path) -> None:
    one = placed(tmp_path, voxel_mm=4.0)
    shares = dict(zip(LABEL_CHANNELS, label_shares(one), strict=True))
    volumes = {"cortical": 11 * 24 * 24, "braak1": 11 * 24 * 24, "white": 13 * 24 * 24, "csf": 0}
    for name, volume in volumes.items():
        assert shares[name].sum() * 4**3 == pytest.approx(volume, rel=0.02), name
    assert 1006 in region_numbers("cortical")
    first = cached_label_shares(one, tmp_path / "kept.npz")
    (tmp_path / "dseg.nii.gz").unlink()
    # To the last bit, or the same training would come out otherwise when its cache is filled.
    np.testing.assert_array_equal(cached_label_shares(one, tmp_path / "kept.npz"), first)
    with pytest.raises(SettingError, match="labels"):
        label_shares(one._replace(subject=None))


def test_a_network_on_a_prior_begins_with_the_prior_and_can_leave_it() -> None:
    torch.manual_seed(0)
    network = build_network("unet", "laptop", (16, 16, 16), "group", in_channels=2, residual=True)
    assert isinstance(network, AddedToPrior)
    inputs = torch.rand(1, 2, 16, 16, 16)
    assert torch.equal(network(inputs), inputs[:, 1:2])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(30):
        loss = (network(inputs) - inputs[:, :1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.7 * float((inputs[:, 1:2] - inputs[:, :1]).square().mean())


@pytest.mark.parametrize("name", ["unet", "pix2pix", "cyclegan"])
def test_systems_take_further_channels_and_discriminators_do_not_see_outside_of_the_mask(name: str) -> None:
    torch.manual_seed(0)
    options = Options.of({"start_from": "regression", "covariates": ["age"], "norm_layer": "group"})
    system = build_system(name, "laptop", (24, 24, 24), options)
    inputs, pet = torch.rand(2, 4, 24, 24, 24), torch.rand(2, 1, 24, 24, 24)
    nowhere = torch.zeros(pet.shape, dtype=torch.bool)

    def content(prediction: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        return (prediction - target).square().mean(), {}

    for phase in system.phases:
        value, _ = system.step_loss(phase, inputs, pet, content, nowhere)
        value.backward()
        assert all(p.grad is not None for p in system.parameters_of(phase))
    if name == "pix2pix":
        # Measured and made are the same there: ((d - 1)**2 + d**2) / 2 of one judgement.
        judged = system.discriminator(torch.cat([inputs[:, :1], pet], 1))
        expected = ((judged - 1).square().mean() + judged.square().mean()) / 2
        found, _ = system.step_loss("discriminator", inputs, pet, content, nowhere)
        torch.testing.assert_close(found, expected)


def regression_of(values: dict[int, float]) -> RegionalRegression:
    """A regression that predicts the same values for everybody, and blurs them by 2 mm."""
    n = len(values)
    state = {
        "labels": torch.tensor(list(values)),
        "feature_labels": torch.tensor([2]),
        "center": torch.zeros(4, dtype=torch.float64),
        "scale": torch.ones(4, dtype=torch.float64),
        "weight": torch.zeros(1, n, 4),
        "bias": torch.tensor([list(values.values())]),
        "fwhm_mm": torch.tensor([2.0]),
    }
    return RegionalRegression(state)


class Slope(torch.nn.Module):
    """A network that adds 0.2 and a slope along the second axis to the prior, which is its second channel."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        slope = torch.linspace(-0.3, 0.3, inputs.shape[3])[:, None]
        return inputs[:, 1:2] + 0.2 + slope


def correcting(tmp_path: Path, values: dict[int, float]) -> tuple[Ensemble, Pair]:
    """A model that corrects a regression by `Slope`, and a validation participant whose files are in ``tmp_path``."""
    one = placed(tmp_path)
    dseg = np.asarray(nib.load(tmp_path / "dseg.nii.gz").dataobj)
    nib.save(nib.Nifti1Image((dseg > 0).astype(np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    rng = np.random.default_rng(0)
    nib.save(nib.Nifti1Image(rng.random(dseg.shape, np.float32), np.eye(4)), tmp_path / "t1w.nii.gz")
    settings = {"start_from": "regression", "norm_layer": "group"}
    channels = InputChannels(channel_names(settings), prior=regression_of(values))
    splits = pd.DataFrame({"participant_id": ["sub-01", "sub-02", "sub-03"], "split": "validation"})
    card = ModelCard("unet", "laptop", one.placement.grid, settings, 0)
    model = LoadedModel(Slope(), card, MinMax(0.0, 4.0), splits, channels)
    files = (tmp_path / f"{name}.nii.gz" for name in ("t1w", "mask", "dseg", "suvr"))
    pair = Pair("01", None, "sub-01", "GE", "CN", *files, rois_file=None)
    return Ensemble((model,), (tmp_path,), ("x",)), pair


def test_the_weight_of_levels_scales_regional_means_and_leaves_the_pattern(tmp_path: Path) -> None:
    values = {2: -0.5, 1006: 0.5}
    ensemble, pair = correcting(tmp_path, values)
    mask, labels = load_volume(pair.mask_file), np.asarray(nib.load(pair.dseg_file).dataobj)
    found = predict_pair(ensemble, pair, None, Synthesis(test_time_flips=False), "cpu")
    maps = {}
    for weight in (0.0, 0.5, 1.0):
        model = replace(ensemble.first, card=replace(ensemble.first.card, level_weight=weight))
        one = replace(ensemble, models=(model,))
        maps[weight] = np.asarray(on_t1w(one, found, mask, pair.subject, None).dataobj)
        for number, value in values.items():
            # 2 + 2 z is SUVR; both regions are centered on the slope, so that its mean is 0 there.
            expected = 2 + 2 * (value + weight * 0.2)
            assert maps[weight][labels == number].mean() == pytest.approx(expected, abs=0.02)
    steps = [np.diff(one[10, 10:-10, 16]).mean() for one in maps.values()]
    np.testing.assert_allclose(steps, 2 * 0.6 / 30, rtol=0.1)


@pytest.mark.parametrize("true_weight", [0.0, 0.3, 1.0, 1.8])
def test_the_weight_of_levels_is_that_of_the_measured_means(tmp_path: Path, true_weight: float) -> None:
    values = {2: -0.5, 1006: 0.5}
    ensemble, pair = correcting(tmp_path, values)
    labels = np.asarray(nib.load(pair.dseg_file).dataobj)
    measured = sum((labels == number) * (2 + 2 * (value + true_weight * 0.2)) for number, value in values.items())
    nib.save(nib.Nifti1Image(np.asarray(measured, np.float32), np.eye(4)), pair.suvr_file)
    people = [replace(pair, participant=name) for name in ("01", "02", "03")]
    assert fit_level_weight(ensemble, people, "cpu") == pytest.approx(min(true_weight, 1.0), abs=0.02)
    assert fit_level_weight(ensemble, people[:2], "cpu") == 1


def test_a_prior_that_is_not_corrected_comes_back_as_it_is_painted_on_the_grid_of_the_t1w(tmp_path: Path) -> None:
    one, values = placed(tmp_path), {2: -0.5, 1006: 0.5}
    dseg = np.asarray(nib.load(tmp_path / "dseg.nii.gz").dataobj)
    nib.save(nib.Nifti1Image((dseg > 0).astype(np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    mask, grid = Volume((dseg > 0).astype(np.uint8), np.eye(4)), one.placement.grid
    settings = {"start_from": "regression", "norm_layer": "group"}
    channels = InputChannels(channel_names(settings), prior=regression_of(values))
    # A network that was not trained yet corrects nothing.
    system = build_system("unet", "laptop", grid.shape, Options.of(settings)).eval()
    model = LoadedModel(
        system, ModelCard("unet", "laptop", grid, settings, 0), MinMax(0.0, 4.0), pd.DataFrame(), channels
    )
    ensemble = Ensemble((model,), (tmp_path,), ("x",))
    found = predict_placed(ensemble, one, None, Synthesis(test_time_flips=False), "cpu")
    suvr = np.asarray(on_t1w(ensemble, found, mask, one.subject, None).dataobj)
    expected = 2.0 + 2.0 * painted(values, dseg, dseg > 0, 2.0, (1.0, 1.0, 1.0))
    np.testing.assert_allclose(suvr[dseg > 0], expected[dseg > 0], atol=1e-3)
    assert (suvr[dseg == 0] == 0).all()
    coarse = np.asarray(on_t1w_grid(found.mean, found.brain, found.placement, mask).dataobj)
    assert np.abs(coarse - expected)[dseg > 0].max() > 0.1


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_prior_gets_the_permissions_that_the_umask_leaves(tmp_path: Path, mask: int) -> None:
    channels = InputChannels(("t1w", "prior"), prior=regression_of({2: 1.0}))
    before = os.umask(mask)
    try:
        (written,) = channels.save(tmp_path)
    finally:
        os.umask(before)
    assert written.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_damaged_prior_is_named(tmp_path: Path) -> None:
    (written,) = InputChannels(("t1w", "prior"), prior=regression_of({2: 1.0})).save(tmp_path)
    written.write_bytes(written.read_bytes()[:50])
    with pytest.raises(DamagedFileError, match=rf"{written.name} is damaged"):
        InputChannels.load(tmp_path, {"start_from": "regression"})
