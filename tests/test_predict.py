"""Prediction with models whose output is known: scale, geometry in every orientation, ensembles, windows, errors."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import nibabel.processing
import numpy as np
import pytest
import torch
from synthesis_cohort import Person, head
from test_networks import needs_einops
from toy_models import BY_MANUFACTURER, GRID, POOLED, SCALES, toy_ensemble, toy_model

from tau_pipeline.errors import (
    DamagedFileError,
    ImageError,
    MissingInputError,
    SettingError,
    TauPipelineError,
    UnknownNameError,
)
from tau_pipeline.imaging.volume import image_like, image_on
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.placement import on_t1w_grid
from tau_pipeline.synthesis.data.scaling import MinMax
from tau_pipeline.synthesis.data.splits import split_participants
from tau_pipeline.synthesis.model.card import ModelCard
from tau_pipeline.synthesis.model.ensemble import load_ensemble, require_manufacturer
from tau_pipeline.synthesis.model.folder import save_model
from tau_pipeline.synthesis.model.predict import most_bytes, peak_bytes, predict
from tau_pipeline.synthesis.networks.systems import build_system

WHOLE = Synthesis(test_time_flips=False, prediction_memory="whole")
ORIENTATIONS = ("RAS", "LAS", "LPS", "SAR", "oblique")


def images(orientation="RAS", shape=(26, 28, 24)):
    made = head(shape, Person("01", orientation, shape=shape).affine)
    return made.t1w, made.mask, made.dseg


def ramp(axis):
    """Values that rise along an axis of the grid, whatever the T1w is."""

    def function(t1w):
        shape = [1] * 5
        shape[axis + 2] = -1
        return torch.linspace(-1, 1, t1w.shape[axis + 2]).reshape(shape).expand(t1w.shape)

    return function


def constant(value):
    return lambda t1w: torch.full_like(t1w, value)


def map_of(prediction, mask):
    return np.asarray(on_t1w_grid(prediction.mean, prediction.brain, prediction.placement, mask).dataobj)


# --- scale ---


@pytest.mark.parametrize(
    ("given", "expected"),
    [("GE MEDICAL SYSTEMS", SCALES["GE"]), ("SIEMENS", SCALES["Siemens"]), ("pooled", POOLED), ("Pooled", POOLED)],
)
def test_the_map_has_the_scale_of_the_manufacturer_and_is_zero_outside_of_the_brain(given, expected):
    t1w, mask, _ = images()
    found = map_of(predict(toy_ensemble(toy_model(constant(2.0))), t1w, mask, given, WHOLE), mask)
    inside = np.asarray(mask.dataobj) > 0
    np.testing.assert_allclose(found[inside], expected[0] + 2 * expected[1], rtol=1e-6)
    assert not found[~inside].any()


@pytest.mark.parametrize("given", [None, "Mediso", "Philips"])
def test_a_manufacturer_that_the_model_does_not_know_is_refused_with_those_it_knows(given):
    with pytest.raises(UnknownNameError, match=r"--as-manufacturer .*\(GE, Siemens\), or pooled"):
        require_manufacturer(toy_ensemble(toy_model(constant(0.0))), given)


def test_min_max_models_need_no_manufacturer():
    ensemble = toy_ensemble(toy_model(constant(0.5), target_scaling=MinMax(0.0, 4.0)))
    assert require_manufacturer(ensemble, None) is None
    t1w, mask, _ = images()
    found = map_of(predict(ensemble, t1w, mask, None, WHOLE), mask)
    np.testing.assert_allclose(found[np.asarray(mask.dataobj) > 0], 3.0, rtol=1e-6)


# --- geometry ---


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_region_means_are_those_of_the_prediction_resampled_by_nibabel_to_half_a_percent(orientation):
    t1w, mask, dseg = images(orientation)
    # Smooth, different in every direction, and not what the T1w's own grid would give.
    pattern = toy_model(lambda t1w: t1w + ramp(0)(t1w) + 2 * ramp(1)(t1w) ** 2 - ramp(2)(t1w))
    prediction = predict(toy_ensemble(pattern), t1w, mask, "GE", WHOLE, "cpu")
    found = map_of(prediction, mask)
    on_grid = image_on(prediction.mean, prediction.placement.affine)
    independent = nibabel.processing.resample_from_to(on_grid, (t1w.shape, t1w.affine), order=1).get_fdata()
    # One voxel of the model's grid inside the brain, so that the other tool does not mix in what lies outside of it.
    brain = image_on(prediction.brain.astype(np.float32), prediction.placement.affine)
    deep = nibabel.processing.resample_from_to(brain, (t1w.shape, t1w.affine), order=1).get_fdata() > 0.999
    for label in np.unique(dseg.dataobj)[1:]:
        region = (np.asarray(dseg.dataobj) == label) & deep
        assert region.sum() > 100
        assert found[region].mean() == pytest.approx(independent[region].mean(), rel=0.005)


@pytest.mark.parametrize("orientation", ["LAS", "LPS", "SAR", "oblique"])
def test_the_same_head_stored_otherwise_has_the_same_region_means(orientation):
    model = toy_ensemble(toy_model(lambda t1w: t1w + ramp(0)(t1w) + 2 * ramp(1)(t1w) ** 2 - ramp(2)(t1w)))
    means = []
    for each in ("RAS", orientation):
        shape = (26, 28, 24) if each != "SAR" else (24, 28, 26)
        t1w, mask, dseg = images(each, (32, 34, 32) if each == "oblique" else shape)
        found = map_of(predict(model, t1w, mask, "GE", WHOLE, "cpu"), mask)
        labels = np.asarray(dseg.dataobj)
        means.append([found[labels == label].mean() for label in (1006, 1015, 2006, 2015)])
    # Voxels of an oblique grid sample the same regions at other places.
    np.testing.assert_allclose(means[1], means[0], rtol=0.02 if orientation == "oblique" else 0.005)


def test_a_network_that_returns_the_t1w_gives_back_the_scaled_t1w_in_place():
    t1w, mask, _ = images("LAS")
    prediction = predict(toy_ensemble(toy_model(lambda t1w: t1w)), t1w, mask, "GE", WHOLE, "cpu")
    assert prediction.placement.exact
    inside, values = np.asarray(mask.dataobj) > 0, np.asarray(t1w.dataobj, np.float64)
    low, high = np.percentile(values[inside], (0.5, 99.5))
    z = np.clip(2 * (values - low) / (high - low) - 1, -1, 1)
    np.testing.assert_allclose(map_of(prediction, mask)[inside], 1.0 + 0.5 * z[inside], atol=1e-5)


def test_a_brain_larger_than_the_grid_has_no_value_where_the_grid_does_not_reach_and_says_so():
    model = toy_model(constant(0.0), grid=Grid((12, 32, 32), (2, 2, 2)))
    t1w, mask, _ = images()
    prediction = predict(toy_ensemble(model), t1w, mask, "GE", WHOLE, "cpu")
    found = map_of(prediction, mask)
    assert np.isnan(found).any()
    assert not np.isnan(found[np.asarray(mask.dataobj) == 0]).any()
    assert any("cut" in remark for remark in prediction.remarks)


# --- ensembles and flips ---


def test_members_are_averaged_as_suvr_and_their_spread_is_the_raw_uncertainty():
    t1w, mask, _ = images()
    models = [toy_model(constant(value)) for value in (0.0, 1.0, 5.0)]
    prediction = predict(toy_ensemble(*models), t1w, mask, "GE", WHOLE, "cpu")
    assert prediction.members.shape == (3, *GRID.shape)
    np.testing.assert_allclose(prediction.mean[prediction.brain], 1.0 + 0.5 * 2.0, rtol=1e-6)
    np.testing.assert_allclose(prediction.sd[prediction.brain], 0.5 * np.std([0, 1, 5], ddof=1), rtol=1e-4)
    only = predict(toy_ensemble(models[2]), t1w, mask, "GE", WHOLE, "cpu")
    np.testing.assert_allclose(only.mean[only.brain], 3.5, rtol=1e-6)
    assert np.isnan(only.sd).all()


def test_a_flipped_member_is_the_prediction_of_the_mirrored_t1w_turned_back():
    t1w, mask, _ = images()
    model = toy_ensemble(toy_model(lambda t1w: t1w * (1 + ramp(0)(t1w))))
    prediction = predict(model, t1w, mask, "GE", Synthesis(prediction_memory="whole"), "cpu")
    weight = np.linspace(-1, 1, GRID.shape[0])[:, None, None]
    for member, sign in zip(prediction.members, (1, -1), strict=True):
        expected = 1.0 + 0.5 * prediction.t1w * (1 + sign * weight)
        np.testing.assert_allclose(member, np.where(prediction.brain, expected, 0), atol=1e-5)


def test_models_together_must_have_one_grid(tmp_path):
    for name, grid in (("a", Grid((32, 32, 32), (2, 2, 2))), ("b", Grid((32, 32, 32), (3, 3, 3)))):
        write_model(tmp_path / name, grid)
    said = r"b has the grid of 32 x 32 x 32 voxels of 3 x 3 x 3 mm, and .* must agree"
    with pytest.raises(SettingError, match=said):
        load_ensemble([tmp_path / "a", tmp_path / "b"])


# --- memory ---


def test_windows_give_what_the_whole_gives_where_the_network_looks_at_single_voxels():
    t1w, mask, _ = images()
    model = toy_ensemble(toy_model(lambda t1w: t1w**2, grid=Grid((48, 48, 48), (2, 2, 2))))
    whole = predict(model, t1w, mask, "GE", WHOLE, "cpu")
    windows = predict(
        model, t1w, mask, "GE", Synthesis(test_time_flips=False, prediction_memory="windows", window_side=32), "cpu"
    )
    np.testing.assert_allclose(windows.mean, whole.mean, atol=1e-5)
    assert any("windows" in remark for remark in windows.remarks)
    assert not whole.remarks


class Wide(torch.nn.Module):
    """A layer with 64 channels, 8 MB for a volume of 32 voxels a side; notes the shapes that it is given."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = torch.nn.Conv3d(1, 64, 1), torch.nn.Conv3d(64, 1, 1)
        self.seen = []

    def forward(self, t1w):
        self.seen.append(tuple(t1w.shape[2:]))
        return self.outer(self.inner(t1w))


def test_windows_are_used_where_the_whole_would_not_fit():
    t1w, mask, _ = images()
    shapes = []
    for mem_mb in (1, 1000):
        model = replace(toy_model(constant(0.0), grid=Grid((48, 48, 48), (2, 2, 2))), system=Wide())
        settings = Synthesis(test_time_flips=False, window_side=32)
        predict(toy_ensemble(model), t1w, mask, "GE", settings, "cpu", mem_mb)
        shapes.append(set(model.system.seen))
    assert shapes == [{(32, 32, 32)}, {(48, 48, 48)}]


def test_the_memory_of_a_pass_grows_with_its_largest_layer():
    layers = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 1), torch.nn.Conv3d(8, 1, 1))
    assert peak_bytes(layers, (32, 32, 32)) == 8 * peak_bytes(torch.nn.Conv3d(1, 1, 1), (32, 32, 32)) > 0
    assert peak_bytes(layers, (64, 32, 32)) == 2 * peak_bytes(layers, (32, 32, 32))


@needs_einops
@pytest.mark.parametrize("network", ["unet", "unetr", "swinunetr"])
def test_no_network_needs_more_memory_than_the_bound(network):
    system = build_system(network, "laptop", (64, 64, 64))
    assert 0 < peak_bytes(system, (64, 64, 64)) <= most_bytes(system, (64, 64, 64))


def test_a_network_of_one_size_refuses_windows():
    t1w, mask, _ = images()
    model = toy_model(constant(0.0))
    object.__setattr__(model.card, "network", "unetr")
    with pytest.raises(SettingError, match="whole"):
        predict(toy_ensemble(model), t1w, mask, "GE", Synthesis(prediction_memory="windows"), "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said():
    t1w, mask, _ = images()
    with pytest.raises(SettingError, match="no GPU"):
        predict(toy_ensemble(toy_model(constant(0.0))), t1w, mask, "GE", device="cuda")


# --- what cannot be used ---


def test_an_output_that_is_not_finite_is_refused():
    t1w, mask, _ = images()
    with pytest.raises(ImageError, match="not finite"):
        predict(toy_ensemble(toy_model(constant(np.nan))), t1w, mask, "GE", WHOLE, "cpu")


def test_inputs_are_left_as_they_are():
    t1w, mask, _ = images()
    before = np.array(t1w.dataobj), np.array(mask.dataobj)
    predict(toy_ensemble(toy_model(lambda t1w: t1w.mul_(2))), t1w, mask, "GE", WHOLE, "cpu")
    np.testing.assert_array_equal(t1w.dataobj, before[0])
    np.testing.assert_array_equal(mask.dataobj, before[1])


def write_model(folder, grid=GRID):
    pairs = [Pair(f"{n:02d}", None, f"sub-{n:02d}", "GE", "CN", *[Path("x")] * 5) for n in range(1, 9)]
    splits = split_participants(pairs)
    splits.loc[splits["participant_id"].isin(["sub-01", "sub-02"]), "split"] = "train"
    torch.manual_seed(0)
    system = build_system("unet", "laptop", image_size=grid.shape)
    return save_model(folder, system, ModelCard("unet", "laptop", grid, {}, 0), BY_MANUFACTURER, splits)


def no_card(folder):
    (folder / "model.json").unlink()


def card_of_another_grid(folder):
    card = json.loads((folder / "model.json").read_text())
    card["grid"]["shape"] = [30, 30, 30]
    (folder / "model.json").write_text(json.dumps(card))


def corrupted_weights(folder):
    (path,) = folder.glob("weights*")
    content = bytearray(path.read_bytes())
    content[-10] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (shutil.rmtree, MissingInputError),
        (no_card, MissingInputError),
        (card_of_another_grid, TauPipelineError),
        (corrupted_weights, DamagedFileError),
    ],
)
def test_a_model_folder_that_is_not_whole_gives_one_sentence(tmp_path, damage, error):
    folder = write_model(tmp_path / "model")
    assert load_ensemble([folder]).grid == GRID
    damage(folder)
    with pytest.raises(error) as caught:
        load_ensemble([folder])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 20


def test_the_hash_of_a_model_changes_with_its_card_and_tells_ensembles_apart(tmp_path):
    first, second = write_model(tmp_path / "a"), write_model(tmp_path / "b")
    with pytest.raises(SettingError, match="hold the same model, which would count twice"):
        load_ensemble([first, second])
    other = json.loads((second / "model.json").read_text())
    (second / "model.json").write_text(json.dumps({**other, "seed": 7}))
    before = load_ensemble([first])
    assert load_ensemble([first]).hash == before.hash
    both = load_ensemble([first, second])
    assert both.hash not in both.hashes
    card = json.loads((first / "model.json").read_text())
    (first / "model.json").write_text(json.dumps({**card, "seed": 5}))
    assert load_ensemble([first]).hash != before.hash


def test_the_split_of_a_participant_is_the_one_that_counts_most_against_an_ensemble():
    ensemble = toy_ensemble(
        toy_model(constant(0.0), {"sub-01": "train", "sub-02": "validation", "sub-03": "test"}),
        toy_model(constant(0.0), {"sub-01": "test", "sub-02": "test", "sub-03": "test"}),
    )
    assert [ensemble.split_of(f"sub-0{n}") for n in (1, 2, 3, 4)] == ["train", "validation", "test", "none"]
    assert [ensemble.models_not_trained_on(f"sub-0{n}").models for n in (1, 2)] == [
        ensemble.models[1:],
        ensemble.models,
    ]


def test_maps_come_back_on_the_grid_of_the_mask():
    t1w, mask, _ = images("oblique", (32, 34, 32))
    prediction = predict(toy_ensemble(toy_model(constant(1.0))), t1w, mask, "GE", WHOLE, "cpu")
    found = on_t1w_grid(prediction.mean, prediction.brain, prediction.placement, mask)
    assert found.shape == mask.shape
    np.testing.assert_array_equal(found.affine, mask.affine)
    assert nib.aff2axcodes(found.affine) == nib.aff2axcodes(t1w.affine)
    assert image_like(found.dataobj, mask).get_data_dtype() == np.float32
