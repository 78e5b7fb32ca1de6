"""The section [training]: what it refuses, what its hash covers, and the paper's values."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import pytest

from tau_pipeline.errors import SettingError
from tau_pipeline.settings.configuration import configuration
from tau_pipeline.settings.training import Training


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"network": "u-net"},
            "network is 'u-net'; expected: one of auto, unet, unetr, swinunetr, pix2pix, cyclegan, regression",
        ),
        ({"loss": "perceptual"}, "loss is 'perceptual'"),
        ({"learning_rate": 0}, "learning_rate is 0.0; expected: a number above 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"perceptual_weight": -1}, "perceptual_weight is -1.0"),
        ({"cycle_factor": 1.5}, "cycle_factor is 1.5"),
        ({"ssim_window": 10}, "ssim_window is 10; expected: an odd number"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"grid_shape": [64, 80]}, "grid_shape is [64, 80]; expected: three whole numbers"),
        *[
            ({"split_fractions": parts}, "three shares that add up to 1")
            for parts in ([0.7, 0.2, 0.2], [0.5, 0.5], [0.0, 0.5, 0.5], [1.2, -0.1, -0.1])
        ],
        ({"split_fractions": [math.nan, 0.5, 0.5]}, "split_fractions is nan"),
        ({"folds": 2}, "folds is 2"),
        ({"folds": 5, "fold": 5}, "fold is 5; expected: a fold from 0 to 4"),
        ({"model_name": "../x"}, "without slashes"),
        ({"network": "regression", "init_from": "m"}, "init_from is 'm'; expected: none for the regional regression"),
        ({"network": "regression", "encoder_weights_file": "e.pt"}, "expected: none for the regional regression"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        Training(**values)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_the_hash_covers_what_changes_the_result_and_nothing_else() -> None:
    same = Training(epochs=7, device="cpu", loader_workers=3, checkpoint_minutes=0, model_name="x")
    assert same.hash() == Training().hash()
    for changed in (
        {"network": "unetr"},
        {"batch_size": 3},
        {"loss": "3d"},
        {"grid_voxel": 1.0},
        {"fold": 1, "folds": 5},
    ):
        assert Training(**changed).hash() != Training().hash()  # type: ignore[arg-type]


def test_the_number_of_epochs_counts_where_the_learning_rate_depends_on_it() -> None:
    once = [Training(learning_rate_schedule="cosine-once", epochs=epochs).hash() for epochs in (5, 6)]
    assert once[0] != once[1]


def test_the_folder_is_named_after_network_loss_and_fold_unless_a_name_is_given() -> None:
    assert Training().name == "unet-cyclic2.5d"
    assert Training(network="pix2pix", loss="3d", folds=5, fold=2).name == "pix2pix-3d-fold2"
    assert Training(model_name="mine").name == "mine"


def test_the_settings_load_without_torch() -> None:
    code = "import sys, tau_pipeline.settings.configuration; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_setting_of_training_can_be_given_as_an_override() -> None:
    values = {item.name: getattr(Training(), item.name) for item in dataclasses.fields(Training)}
    assert configuration(None, {**values, "epochs": 3}).training == Training(epochs=3)


@pytest.mark.parametrize(
    ("values", "people", "system"),
    [
        ({}, 3, "regression"),
        ({}, 199, "regression"),
        ({}, 200, "unet"),
        ({"covariates": ("p_tau217",)}, 8, "regression"),
        ({"epochs": 3}, 8, "unet"),
        ({"network": "unetr"}, 8, "unetr"),
    ],
)
def test_no_network_is_trained_on_few_participants_unless_it_is_asked_for(
    values: dict[str, Any], people: int, system: str
) -> None:
    assert Training(**values).resolved(people).network == system
