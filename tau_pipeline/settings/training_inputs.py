"""Settings of a training that define what a network sees beside the T1w, and from where it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tau_pipeline.settings.fields import Checked, documented, require

Covariate = Literal["age", "sex", "diagnosis", "apoe", "p_tau217"]
StartFrom = Literal["nothing", "regression"]

#: Labels whose share of each voxel is a channel: regions of the Braak stages, and tissues.
LABEL_CHANNELS = ("braak1", "braak34", "braak56", "cortical", "subcortical", "white", "csf")


@dataclass(frozen=True)
class InputSettings(Checked):
    """Inputs beside the T1w; part of the section ``[training]``."""

    start_from: StartFrom = field(
        default="nothing",
        metadata=documented(
            "regression: the network corrects the map that the regional regression paints on the participant's labels, "
            "which is also one of its inputs; nothing: it predicts the whole map."
        ),
    )
    label_channels: bool = field(
        default=False,
        metadata=documented(
            "Give the network the share of gray matter of the Braak stages and of tissues in each voxel, from the "
            "labels of the participant."
        ),
    )
    covariates: tuple[Covariate, ...] = field(
        default=(),
        metadata=documented(
            "Columns of participants.tsv that the network gets as channels, each with one that states where it is "
            "missing: age, sex, diagnosis, APOE ε4 alleles, plasma p-tau217. The regional regression gets them too; it "
            "always has age and sex."
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(set(self.covariates)) == len(self.covariates), "covariates", list(self.covariates), "each once")


def channel_names(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the channels of a network's input, in order.

    Parameters
    ----------
    settings
        Settings of a training by name, as in a model card; those that are absent have their defaults.

    Examples
    --------
    >>> channel_names({"start_from": "regression", "covariates": ["age"]})
    ('t1w', 'prior', 'age', 'age_known')
    """
    names = ["t1w"]
    if settings.get("start_from", "nothing") == "regression":
        names.append("prior")
    if settings.get("label_channels"):
        names += LABEL_CHANNELS
    for covariate in settings.get("covariates") or ():
        names += [covariate, f"{covariate}_known"]
    return tuple(names)
