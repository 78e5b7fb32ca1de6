"""Networks that start from the weights of another training, as far as names and shapes fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tau_pipeline.errors import DamagedFileError, MissingInputError, SettingError
from tau_pipeline.settings.training import Training
from tau_pipeline.synthesis.networks.networks import AddedToPrior, build_network
from tau_pipeline.synthesis.networks.pretrained import load_pretrained
from tau_pipeline.synthesis.training.source import require_source


def unet(seed: int, in_channels: int = 1, *, residual: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    return build_network("unet", "laptop", (16, 16, 16), "group", in_channels, residual)


@pytest.mark.parametrize("prefix", ["", "module.", "student.encoder."])
@pytest.mark.parametrize("within", [None, "state_dict"])
def test_tensors_of_the_same_name_and_shape_are_taken(tmp_path: Path, prefix: str, within: str | None) -> None:
    source, network = unet(1), unet(2)
    state = {prefix + name: value for name, value in source.state_dict().items()}
    file = tmp_path / "a.pt"
    torch.save(state if within is None else {"epoch": 3, within: state}, file)
    found = load_pretrained(network, file)
    assert (found["file"], found["loaded"], found["total"]) == ("a.pt", len(state), len(state))
    for name, value in network.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_layers_of_another_shape_keep_their_random_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, network = unet(1), unet(2, in_channels=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.save(source.state_dict(), tmp_path / "a.pt")
    with caplog.at_level("INFO"):
        found = load_pretrained(network, tmp_path / "a.pt")
    other = {name for name, value in before.items() if value.shape != source.state_dict()[name].shape}
    assert other
    assert found["loaded"] == found["total"] - len(other)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name] if name in other else source.state_dict()[name]), name
    assert f"{found['loaded']} of {found['total']} tensors of the network start from a.pt; random: " in caplog.text


def test_a_network_that_corrects_a_prior_still_starts_from_the_prior(tmp_path: Path) -> None:
    torch.save(unet(1, 2).state_dict(), tmp_path / "a.pt")
    network = unet(2, 2, residual=True)
    assert isinstance(network, AddedToPrior)
    load_pretrained(network, tmp_path / "a.pt")
    inputs = torch.randn(1, 2, 16, 16, 16)
    assert torch.equal(network(inputs), inputs[:, 1:2])
    first = next(iter(network.network.state_dict().items()))
    assert torch.equal(first[1], unet(1, 2).state_dict()[first[0]])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    torch.save({"head.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(SettingError, match=r"no tensor of .*other\.pt fits this network \(it has head\.weight"):
        load_pretrained(unet(1), tmp_path / "other.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(DamagedFileError, match="holds no tensors by name"):
        load_pretrained(unet(1), tmp_path / "none.pt")
    with pytest.raises(MissingInputError, match=r"encoder_weights_file is .*gone"):
        require_source(Training(encoder_weights_file=tmp_path / "gone.pt"))
    with pytest.raises(SettingError, match=r"encoder_weights_file is .*; expected: none beside init_from"):
        Training(encoder_weights_file=tmp_path / "a.pt", init_from=tmp_path)
