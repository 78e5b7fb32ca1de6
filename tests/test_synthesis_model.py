import dataclasses
import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tau_pipeline
from tau_pipeline.cohort.standardize import ManufacturerFit, Standardization
from tau_pipeline.errors import (
    DamagedFileError,
    MissingInputError,
    OutputError,
    SettingError,
    UnknownNameError,
)
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.scaling import ByManufacturer, MinMax
from tau_pipeline.synthesis.data.splits import split_participants
from tau_pipeline.synthesis.model import folder as model_room
from tau_pipeline.synthesis.model.card import CARD, RANDOM_FEATURES_LIMIT, ModelCard, read_card
from tau_pipeline.synthesis.model.folder import AVERAGE, WEIGHTS, load_model, save_model
from tau_pipeline.synthesis.model.tensor_file import write_tensors
from tau_pipeline.synthesis.networks.systems import Options, build_system

GRID = Grid((32, 32, 64), (2, 2, 2))
SPLITS = split_participants([Pair(f"{n:02d}", None, f"sub-{n:02d}", "GE", "CN", *[Path("x")] * 5) for n in range(10)])
TRAIN = tuple(SPLITS.loc[SPLITS["split"] == "train", "participant_id"])
STANDARDISATION = ByManufacturer(
    Standardization(
        {"GE": ManufacturerFit(1 / 3, 0.1, TRAIN[:4])},
        ManufacturerFit(1.1, 0.2, TRAIN),
        "pooled",
        "flortaucipir",
        "CerebellarGM",
    )
)
needs_einops = pytest.mark.skipif(importlib.util.find_spec("einops") is None, reason="einops is not installed")


def card(network="unet", **changes):
    settings = {"epochs": 3, "loss": "cyclic2.5d", "nothing": None}
    return ModelCard(network, "laptop", GRID, settings, seed=7, figures={"ssim": 0.5}, **changes)


def system(network="unet", seed=0):
    torch.manual_seed(seed)
    return build_system(network, "laptop", image_size=GRID.shape)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder, and the system that is in it."""
    folder = tmp_path_factory.mktemp("models") / "unet"
    built = system()
    save_model(folder, built, card(), STANDARDISATION, SPLITS)
    return folder, built


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the folder that a test may damage."""
    shutil.copytree(saved[0], tmp_path / "model")
    return tmp_path / "model"


def rewrite_card(folder, change):
    content = json.loads((folder / CARD).read_text(encoding="utf-8"))
    change(content)
    (folder / CARD).write_text(json.dumps(content), encoding="utf-8")


def with_fitting_hash(folder, name):
    """Let the card accept a file that was changed."""
    rewrite_card(folder, lambda content: content["files"].update({name: model_room._sha256(folder / name)}))


# --- what was saved comes back ---


@pytest.mark.parametrize(
    "network",
    [
        *("unet", "pix2pix", "cyclegan", pytest.param("unetr", marks=needs_einops)),
        pytest.param("swinunetr", marks=[needs_einops, pytest.mark.slow]),
    ],
)
@pytest.mark.slow
def test_every_system_comes_back_with_all_its_networks_and_the_same_output(tmp_path, network):
    built = system(network)
    save_model(tmp_path / "model", built, card(network), STANDARDISATION, SPLITS)
    torch.manual_seed(99)
    loaded = load_model(tmp_path / "model")
    ours, theirs = built.state_dict(), loaded.system.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    t1w = torch.rand(1, 1, *GRID.shape)
    with torch.no_grad():
        assert torch.equal(built.eval()(t1w), loaded.system(t1w))
    assert not loaded.system.training


def test_the_normalization_layer_comes_back_and_older_cards_mean_instance(tmp_path):
    torch.manual_seed(0)
    built = build_system("unet", "laptop", GRID.shape, Options(norm_layer="group"))
    settings = {"norm_layer": "group"}
    save_model(tmp_path / "m", built, dataclasses.replace(card(), settings=settings), STANDARDISATION, SPLITS)
    loaded = load_model(tmp_path / "m")
    kinds = {type(module) for module in loaded.system.generator.modules()}
    assert nn.GroupNorm in kinds
    volume = torch.randn(1, 1, *GRID.shape)
    with torch.no_grad():
        torch.testing.assert_close(loaded.system(volume), built.eval()(volume))


def test_card_target_scaling_grid_and_splits_come_back(saved):
    folder, built = saved
    loaded = load_model(folder)
    assert loaded.grid == GRID
    assert loaded.target_scaling == STANDARDISATION
    assert loaded.splits.equals(SPLITS.astype(loaded.splits.dtypes))
    found = loaded.card
    assert found == read_card(folder)
    assert (found.network, found.preset, found.seed, found.figures) == ("unet", "laptop", 7, {"ssim": 0.5})
    assert found.settings == {"epochs": 3, "loss": "cyclic2.5d", "nothing": None}
    assert (found.training_participants, found.manufacturers) == (TRAIN, ("GE",))
    assert (found.tracer, found.reference_region, found.unknown_manufacturer) == (
        "flortaucipir",
        "CerebellarGM",
        "pooled",
    )
    assert found.n_parameters == sum(weights.numel() for weights in built.parameters())
    assert (found.code_version, found.torch_version) == (tau_pipeline.__version__, torch.__version__)


def test_the_card_says_that_maps_are_synthetic_and_what_they_are_not_for(saved):
    content = json.loads((saved[0] / CARD).read_text(encoding="utf-8"))
    assert "Not for diagnosis" in content["intended_use"]
    assert any("labeled as synthetic" in limit for limit in content["limits"])
    assert content["training_participants_hash"].startswith("sha256:")
    assert content["format"] == 3


def test_a_card_of_the_first_format_uses_all_of_a_correction(saved):
    content = json.loads((saved[0] / CARD).read_text(encoding="utf-8"))
    del content["level_weight"]
    with pytest.raises(DamagedFileError, match="level_weight"):
        ModelCard.from_dict(content)
    assert ModelCard.from_dict({**content, "format": 1}).level_weight == 1


def test_a_card_of_the_second_format_has_its_scaling_under_the_former_name(saved):
    content = json.loads((saved[0] / CARD).read_text(encoding="utf-8"))
    assert content["target_scaling"] == "manufacturer"
    del content["target_scaling"]
    with pytest.raises(DamagedFileError, match="target_scaling"):
        ModelCard.from_dict(content)
    assert ModelCard.from_dict({**content, "format": 2, "normalisation": "minmax"}).target_scaling == "minmax"


@pytest.mark.parametrize("random_features", [False, True])
def test_the_card_repeats_that_random_features_were_used(tmp_path, random_features):
    save_model(tmp_path / "m", system(), card(random_features=random_features), STANDARDISATION, SPLITS)
    found = read_card(tmp_path / "m")
    assert found.random_features is random_features
    assert (RANDOM_FEATURES_LIMIT in found.limits) is random_features


def test_a_model_with_a_range_instead_of_a_standardisation_comes_back(tmp_path):
    found = MinMax(0.1 + 0.2, 2.7, TRAIN)
    save_model(tmp_path / "m", system(), card(), found, SPLITS)
    assert load_model(tmp_path / "m").target_scaling == found
    assert not (tmp_path / "m" / "standardization.tsv").exists()


@pytest.mark.parametrize("of_whole_system", [False, True])
def test_averaged_weights_are_used_for_prediction_where_there_are_any(tmp_path, of_whole_system):
    built, averaged = system("pix2pix", 0), system("pix2pix", 1)
    average = (averaged if of_whole_system else averaged.generator).state_dict()
    save_model(tmp_path / "m", built, card("pix2pix"), STANDARDISATION, SPLITS, average)
    t1w = torch.rand(1, 1, *GRID.shape)
    with torch.no_grad():
        own, mean = built.eval()(t1w), averaged.eval()(t1w)
        assert torch.equal(load_model(tmp_path / "m").system(t1w), mean)
        assert torch.equal(load_model(tmp_path / "m", use_average=True).system(t1w), mean)
        assert torch.equal(load_model(tmp_path / "m", use_average=False).system(t1w), own)
    assert not torch.equal(own, mean)


def test_averaged_weights_that_are_asked_for_and_not_there_are_refused(saved):
    with pytest.raises(SettingError, match="no averaged weights"):
        load_model(saved[0], use_average=True)


def test_averaged_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(SettingError, match="do not fit the generator of unet"):
        save_model(tmp_path / "m", system(), card(), STANDARDISATION, SPLITS, {"a.weight": torch.zeros(1)})
    assert not (tmp_path / "m" / CARD).exists()


def test_saving_leaves_the_system_as_it_was(tmp_path):
    built = system("pix2pix").train()
    before = {name: value.clone() for name, value in built.state_dict().items()}
    average = system("pix2pix", 1).generator.state_dict()
    save_model(tmp_path / "m", built, card("pix2pix"), STANDARDISATION, SPLITS, average)
    assert all(module.training for module in built.modules())
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


def test_a_tensor_with_two_names_is_saved_under_both(tmp_path):
    built = system()
    built.again = built.generator
    path = write_tensors(built.state_dict(), tmp_path / "w.safetensors")
    assert load_file(path).keys() == built.state_dict().keys()


# --- writing ---


def test_other_files_of_the_folder_stay(tmp_path):
    folder = tmp_path / "m"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").write_text("x")
    save_model(folder, system(), card(), STANDARDISATION, SPLITS)
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert found == [
        *("checkpoints/last.pt", "model.json", "splits.tsv", "standardization.tsv", "weights.safetensors"),
    ]
    assert all(os.access(path, os.R_OK) and path.stat().st_mode & 0o044 for path in folder.glob("*.*"))


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_all_files_of_a_model_get_the_permissions_that_the_umask_leaves(tmp_path, mask):
    built = system()
    before = os.umask(mask)
    try:
        save_model(tmp_path / "m", built, card(), STANDARDISATION, SPLITS, average=built.state_dict())
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "m").iterdir()}
    assert {WEIGHTS, AVERAGE, CARD} < set(modes)
    assert set(modes.values()) == {0o666 & ~mask}


def test_a_model_replaces_an_older_one_completely(tmp_path):
    folder = tmp_path / "m"
    save_model(folder, system(seed=0), card(), STANDARDISATION, SPLITS, system(seed=1).generator.state_dict())
    newer = system(seed=2)
    save_model(folder, newer, card(), MinMax(0, 2, TRAIN), SPLITS)
    loaded = load_model(folder)
    assert torch.equal(next(loaded.system.parameters()), next(newer.parameters()))
    assert not (folder / AVERAGE).exists()
    assert not (folder / "standardization.tsv").exists()


def test_whatever_step_of_writing_fails_no_card_stands_for_half_a_model(tmp_path, monkeypatch):
    """Each rename and each deletion is the last one that happens, in turn."""
    replace, unlink = Path.replace, Path.unlink
    steps = {"left": 0}

    def counted(what):
        def step(self, *args, **named):
            steps["left"] -= 1
            if steps["left"] < 0:
                raise OSError(28, "No space left on device")
            return what(self, *args, **named)

        return step

    monkeypatch.setattr(Path, "replace", counted(replace))
    monkeypatch.setattr(Path, "unlink", counted(unlink))
    old, newer = system(seed=0), system(seed=2)
    average = system(seed=1).generator.state_dict()
    failures = 0
    for allowed in range(100):
        folder = tmp_path / str(allowed)
        steps["left"] = 1000
        save_model(folder, old, card(), STANDARDISATION, SPLITS, average)
        steps["left"] = allowed
        try:
            save_model(folder, newer, card(), MinMax(0, 2, TRAIN), SPLITS)
            break
        except OutputError:
            failures += 1
        finally:
            steps["left"] = 1000
        if (folder / CARD).exists():
            # The old one or the new one, and whole.
            assert load_model(folder).target_scaling in (STANDARDISATION, MinMax(0, 2, TRAIN))
    assert failures >= 5
    assert load_model(folder).target_scaling == MinMax(0, 2, TRAIN)


def test_what_a_killed_process_left_behind_is_cleared_away(tmp_path):
    (tmp_path / "m" / ".partial-x").mkdir(parents=True)
    (tmp_path / "m" / ".partial-x" / WEIGHTS).write_text("half")
    save_model(tmp_path / "m", system(), card(), STANDARDISATION, SPLITS)
    assert not list((tmp_path / "m").glob(".partial-*"))


@pytest.mark.parametrize("name", ["created", "grid", "seed"])
def test_a_long_odd_value_in_the_card_is_told_shortly(folder, name):
    rewrite_card(folder, lambda content: content.update({name: {"x" * 5000: 1}}))
    with pytest.raises(DamagedFileError, match=r"is \{'x|describe a grid") as caught:
        read_card(folder)
    assert len(str(caught.value)) < 500


def test_a_fit_or_a_training_on_somebody_outside_the_training_split_is_refused(tmp_path):
    test = SPLITS.loc[SPLITS["split"] == "test", "participant_id"].iloc[0]
    with pytest.raises(SettingError, match=f"the target scaling saw {test}, not in the training split"):
        save_model(tmp_path / "m", system(), card(), MinMax(0, 2, (*TRAIN, test)), SPLITS)
    with pytest.raises(SettingError, match=f"the network saw {test}, not in the training split"):
        save_model(tmp_path / "m", system(), card(training_participants=(test,)), STANDARDISATION, SPLITS)
    assert not (tmp_path / "m").exists()


def test_a_card_of_another_network_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"card says unetr \(laptop\), and the system is unet"):
        save_model(tmp_path / "m", system(), card("unetr"), STANDARDISATION, SPLITS)


def test_a_network_that_gives_no_finite_values_is_no_model(tmp_path):
    built = system()
    nn.init.constant_(next(built.parameters()), float("nan"))
    with pytest.raises(OutputError, match="not finite"):
        save_model(tmp_path / "m", built, card(), STANDARDISATION, SPLITS)
    assert list((tmp_path / "m").iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write the model folder"):
        save_model(tmp_path / "file" / "m", system(), card(), STANDARDISATION, SPLITS)


# --- folders that are no model ---


def test_a_folder_that_is_not_there_or_holds_no_card_is_refused(tmp_path):
    with pytest.raises(MissingInputError, match="there is no model folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(MissingInputError, match=r"is no model folder: it holds no model\.json"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, "standardization.tsv", "splits.tsv"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(MissingInputError, match=rf"lacks .*{name}"):
        load_model(folder)


@pytest.mark.parametrize("name", [WEIGHTS, "standardization.tsv", "splits.tsv"])
def test_a_truncated_or_changed_file_is_named(folder, name):
    whole = (folder / name).read_bytes()
    for damaged in (whole[:-10], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        (folder / name).write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=rf"{name} is not the file that was written"):
            load_model(folder)


def test_weights_that_were_truncated_before_they_were_hashed_are_damaged_all_the_same(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    with_fitting_hash(folder, WEIGHTS)
    with pytest.raises(DamagedFileError, match=rf"{WEIGHTS} is damaged"):
        load_model(folder)


def test_a_card_from_a_newer_program_says_which_and_what_to_do(folder):
    rewrite_card(folder, lambda content: content.update(format=4, code_version="9.1"))
    with pytest.raises(SettingError, match=r"format 4, from tau-pipeline 9\.1; .*up to format 3: install a newer one"):
        load_model(folder)


def test_a_card_that_is_no_json_or_no_card_is_damaged(folder):
    for text, said in (("{", "not valid JSON"), ("[]", "a JSON object"), ("{}", "no format number")):
        (folder / CARD).write_text(text, encoding="utf-8")
        with pytest.raises(DamagedFileError, match=said):
            load_model(folder)


@pytest.mark.parametrize("name", [item.name for item in dataclasses.fields(ModelCard)])
def test_a_card_without_one_of_its_values_or_with_another_type_is_damaged(folder, name):
    rewrite_card(folder, lambda content: content.update({name: 1.5}))
    with pytest.raises(DamagedFileError, match=f"{name} is 1.5"):
        load_model(folder)
    rewrite_card(folder, lambda content: content.pop(name))
    with pytest.raises(DamagedFileError, match=f"no '{name}'"):
        load_model(folder)


def test_a_card_may_have_more_values_than_this_version_knows(folder):
    rewrite_card(folder, lambda content: content.update(note="mine"))
    assert load_model(folder).card.seed == 7


def test_a_card_that_names_a_file_elsewhere_is_refused(folder):
    rewrite_card(folder, lambda content: content["files"].update({"../secret": "0"}))
    with pytest.raises(DamagedFileError, match="outside of the model folder"):
        load_model(folder)


@pytest.mark.parametrize("name", [WEIGHTS, "splits.tsv"])
def test_a_card_that_does_not_vouch_for_a_file_is_damaged(folder, name):
    rewrite_card(folder, lambda content: content["files"].pop(name))
    with pytest.raises(DamagedFileError, match=f"does not name {name}"):
        load_model(folder)


def test_a_network_or_preset_that_does_not_exist_is_refused_with_the_known_ones(folder):
    rewrite_card(folder, lambda content: content.update(network="vnet"))
    with pytest.raises(UnknownNameError, match=r"vnet.*unet"):
        load_model(folder)
    rewrite_card(folder, lambda content: content.update(network="unet", preset="huge"))
    with pytest.raises(SettingError, match=r"huge.*laptop"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop(sorted(state)[0]), "is missing"),
        (lambda state: state.update({"more.weight": torch.zeros(1)}), "more.weight is unknown"),
        (lambda state: state.update({sorted(state)[0]: torch.zeros(3, 3)}), r"has shape \(3, 3\) instead of"),
    ],
)
def test_weights_that_do_not_fit_the_network_are_refused_with_the_first_difference(folder, change, said):
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)
    with_fitting_hash(folder, WEIGHTS)
    with pytest.raises(DamagedFileError, match=rf"does not fit the network unet \(laptop\).*{said}"):
        load_model(folder)


def test_a_network_that_has_the_same_weights_but_computes_something_else_is_noticed(folder, monkeypatch):
    def other_slope(*args, **named):
        built = build_system(*args, **named)
        for module in built.modules():
            if isinstance(module, nn.PReLU):
                module.register_forward_hook(lambda _module, _inputs, output: output.clamp(min=0))
        return built

    monkeypatch.setattr(model_room, "build_system", other_slope)
    with pytest.raises(DamagedFileError, match=r"does not compute what it computed.*tau-pipeline .* torch .* MONAI"):
        load_model(folder)


@pytest.mark.parametrize("probes", [{}, {WEIGHTS: "x"}, {WEIGHTS: ["x"]}, {WEIGHTS: [1.0]}])
def test_a_card_without_a_usable_probe_is_refused(folder, probes):
    rewrite_card(folder, lambda content: content.update(probes=probes))
    with pytest.raises(DamagedFileError, match=r"probe|compute"):
        load_model(folder)


def test_loading_draws_no_random_numbers_from_what_a_script_seeded(saved):
    # Building a network draws its first weights; a script that seeds, loads and draws must not depend on their number.
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_model(saved[0])
    assert torch.equal(torch.rand(1), expected)
