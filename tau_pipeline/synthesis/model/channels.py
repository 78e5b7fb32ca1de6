"""Channels of a network's input: the T1w and, as the settings ask, a prior map, labels, and covariates.

The prior is the map of the regional regression, which the network corrects. Labels become the share of each voxel of
the common grid that a tissue or region takes, so that the thickness of cortex is not lost where the grid is too coarse
for it.
Covariates are constant within the brain; a second channel of each is 1 where it is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import composites, label_array, labels_mask, region_numbers
from tau_pipeline.errors import SettingError
from tau_pipeline.files import complete_file, read_json, write_json
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume
from tau_pipeline.settings.training_inputs import LABEL_CHANNELS, channel_names
from tau_pipeline.synthesis.data.covariates import CovariateScale
from tau_pipeline.synthesis.data.placement import to_grid
from tau_pipeline.synthesis.data.prepare import T1W_BACKGROUND, PlacedT1w

#: Scale of the covariates, in a model's folder.
FILE = "covariates.json"


_NO_COVARIATES = CovariateScale((), (), (), ())


class Prior(Protocol):
    """A model of regional SUVR that paints a map for a participant."""

    def suvr_on_grid(self, placed: PlacedT1w) -> NDArray[np.float32]:
        """Return SUVR ``(I, J, K)`` on the common grid; finite within the brain."""
        ...


@dataclass(frozen=True)
class InputChannels:
    """Channels of one model's input.

    Attributes
    ----------
    names
        In order (`tau_pipeline.settings.training_inputs.channel_names`); the first is the T1w.
    covariates
        Scale of the covariates among them.
    prior
        Of the channel ``prior``; None without one.
    """

    names: tuple[str, ...] = ("t1w",)
    covariates: CovariateScale = _NO_COVARIATES
    prior: Prior | None = None

    def stacked(
        self, placed: PlacedT1w, prior_z: NDArray | None = None, labels_file: Path | None = None
    ) -> NDArray[np.float32]:
        """Return the input ``(C, I, J, K)`` of a network.

        Parameters
        ----------
        placed
            T1w, brain mask, placement, and subject.
        prior_z
            ``(I, J, K)`` map of the prior on the network's scale, if there is such a channel.
        labels_file
            Where the shares of labels are kept; None keeps none.

        Raises
        ------
        SettingError
            The model needs labels or a prior, and there are none.
        """
        found: list[NDArray] = [placed.t1w]
        if "prior" in self.names:
            if prior_z is None:
                raise SettingError("the model corrects the map of a regression, and there is none for this T1w")
            found.append(prior_z)
        if LABEL_CHANNELS[0] in self.names:
            found += list(cached_label_shares(placed, labels_file))
        covariates = placed.subject.covariates if placed.subject else {}
        found += [np.where(placed.brain, value, 0.0) for value in self.covariates.values(covariates)]
        return np.stack(found).astype(np.float32)

    def backgrounds(self, target_background: float) -> tuple[float, ...]:
        """Return the value of each channel outside the brain; that of the prior is the target's."""
        known = {"t1w": T1W_BACKGROUND, "prior": target_background}
        return tuple(known.get(name, 0.0) for name in self.names)

    def save(self, folder: Path) -> Path | None:
        """Write the scale of the covariates, if there are any."""
        if not self.covariates.names:
            return None
        path = Path(folder) / FILE
        write_json(self.covariates.as_dict(), path)
        return path

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any], prior: Prior | None = None) -> InputChannels:
        """Read the channels of a model folder.

        Parameters
        ----------
        folder
            Of the model.
        settings
            Of its card.
        prior
            Its prior, if it has one.
        """
        path = Path(folder) / FILE
        scale = CovariateScale.from_dict(read_json(path), str(path)) if settings.get("covariates") else cls.covariates
        return cls(channel_names(settings), scale, prior)


def cached_label_shares(placed: PlacedT1w, path: Path | None) -> NDArray[np.float32]:
    """Return `label_shares`, from a file if it is there and whole, else written to it; None keeps nothing."""
    if path is None:
        return label_shares(placed)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return np.asarray(stored["shares"], np.float32)
    except (OSError, ValueError, KeyError, EOFError):
        shares = label_shares(placed)
        with complete_file(path) as partial:
            np.savez(partial, shares=shares.astype(np.float16))
        return shares


def label_shares(placed: PlacedT1w) -> NDArray[np.float32]:
    """Return the share of each voxel of the common grid that belongs to each of `LABEL_CHANNELS`.

    Returns
    -------
    ndarray
        ``(7, I, J, K)`` from 0 to 1; 0 outside the brain.

    Raises
    ------
    SettingError
        The labels of the participant were not given.
    """
    if placed.subject is None:
        raise SettingError("the model needs the labels of the participant; give a subject with its T1w")
    dseg_img = load_volume(placed.subject.dseg_file, ndim=3)
    labels = label_array(dseg_img)
    shares = []
    for name in LABEL_CHANNELS:
        numbers = composites()[name]["both"] if name in composites() else region_numbers(name)
        one = Volume(labels_mask(labels, numbers).astype(np.float32), dseg_img.affine)
        shares.append(np.where(placed.brain, to_grid(one, placed.placement), 0.0))
    return np.stack(shares).astype(np.float32)
