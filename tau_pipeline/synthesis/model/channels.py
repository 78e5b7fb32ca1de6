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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import composites, label_array, labels_mask, region_numbers
from tau_pipeline.errors import SettingError
from tau_pipeline.files import complete_file, read_json, write_json
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume
from tau_pipeline.settings.training_inputs import LABEL_CHANNELS, channel_names
from tau_pipeline.synthesis.data.anatomy import anatomy_of
from tau_pipeline.synthesis.data.covariates import CovariateScale
from tau_pipeline.synthesis.data.placement import to_grid
from tau_pipeline.synthesis.data.prepare import T1W_BACKGROUND, PlacedT1w
from tau_pipeline.synthesis.model.regression import RegionalRegression, painted
from tau_pipeline.synthesis.model.tensor_file import read_tensors, write_tensors

#: Scale of the covariates, and weights of the regression whose map is corrected, in a model's folder.
FILE, PRIOR_FILE = "covariates.json", "prior.safetensors"


_NO_COVARIATES = CovariateScale((), (), (), ())


class Prior(NamedTuple):
    """Map of the regression on the grid of the T1w.

    Attributes
    ----------
    map_z
        ``(I, J, K)`` on the network's scale.
    labels, brain
        ``(I, J, K)`` labels that it is painted on, and brain mask.
    affine
        Of that grid.
    """

    map_z: NDArray[np.float32]
    labels: NDArray[np.integer]
    brain: NDArray[np.bool_]
    affine: NDArray

    @property
    def voxel_mm(self) -> list[float]:
        """Edges of the voxels."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).tolist()


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
    prior: RegionalRegression | None = None

    def stacked(
        self, placed: PlacedT1w, prior_z: NDArray | None = None, labels_file: Path | None = None
    ) -> NDArray[np.float32]:
        """Return the input ``(C, I, J, K)`` of a network.

        Parameters
        ----------
        placed
            T1w, brain mask, placement, and subject.
        prior_z
            ``(I, J, K)`` map of the prior on the network's scale; None paints it, if there is such a channel.
        labels_file
            Where the shares of labels are kept; None keeps none.

        Raises
        ------
        SettingError
            The model needs labels or a prior, and there are none.
        """
        found: list[NDArray] = [placed.t1w]
        if "prior" in self.names:
            found.append(self._painted(placed) if prior_z is None else prior_z)
        if LABEL_CHANNELS[0] in self.names:
            found += list(cached_label_shares(placed, labels_file))
        covariates = placed.subject.covariates if placed.subject else {}
        found += [np.where(placed.brain, value, 0.0) for value in self.covariates.values(covariates)]
        return np.stack(found).astype(np.float32)

    def _painted(self, placed: PlacedT1w) -> NDArray[np.float32]:
        if self.prior is None:
            raise SettingError("the model corrects the map of a regression, and has none; copy the model folder again")
        return painted_prior(self.prior, placed)

    def backgrounds(self, target_background: float) -> tuple[float, ...]:
        """Return the value of each channel outside the brain; that of the prior is the target's."""
        known = {"t1w": T1W_BACKGROUND, "prior": target_background}
        return tuple(known.get(name, 0.0) for name in self.names)

    def save(self, folder: Path) -> list[Path]:
        """Write the scale of the covariates and the prior, as far as there are any; returns the files."""
        written = []
        if self.covariates.names:
            written.append(Path(folder) / FILE)
            write_json(self.covariates.as_dict(), written[-1])
        if self.prior is not None:
            written.append(Path(folder) / PRIOR_FILE)
            write_tensors(self.prior.state_dict(), written[-1])
        return written

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> InputChannels:
        """Read the channels of a model folder.

        Parameters
        ----------
        folder
            Of the model; its files were checked.
        settings
            Of its card.
        """
        names = channel_names(settings)
        prior = RegionalRegression(read_tensors(Path(folder) / PRIOR_FILE)) if "prior" in names else None
        path = Path(folder) / FILE
        scale = CovariateScale.from_dict(read_json(path), str(path)) if settings.get("covariates") else cls.covariates
        return cls(names, scale, prior)


def painted_prior(regression: RegionalRegression, placed: PlacedT1w) -> NDArray[np.float32]:
    """Return the map of a regression on the common grid, ``(I, J, K)`` on the network's scale; 0 outside the brain.

    It is painted on the grid of the T1w, whose labels are finer, and then brought to the common grid.

    Parameters
    ----------
    regression
        Fitted on the network's scale; the mean over its members is taken.
    placed
        With the subject's labels and mask.

    Raises
    ------
    SettingError
        The labels of the participant were not given.
    """
    return prior_on_grid(prior_on_t1w(regression, placed), placed)


def prior_on_t1w(regression: RegionalRegression, placed: PlacedT1w) -> Prior:
    """Return the map of a regression on the grid of the T1w, and the brain mask there; see `painted_prior`."""
    if placed.subject is None:
        raise SettingError("the model needs the labels of the participant; give a subject with its T1w")
    dseg_img, mask_img = (load_volume(path, ndim=3) for path in (placed.subject.dseg_file, placed.subject.mask_file))
    anatomy = anatomy_of(dseg_img, mask_img, placed.placement, placed.subject.covariates)
    values = regression.regional(anatomy).mean(axis=0)
    of_label = dict(zip(regression.labels.tolist(), values, strict=True))
    labels, brain = label_array(dseg_img), np.asanyarray(mask_img.dataobj) > 0
    found = Prior(np.zeros(brain.shape, np.float32), labels, brain, dseg_img.affine)
    return found._replace(map_z=painted(of_label, labels, brain, float(regression.fwhm_mm), found.voxel_mm))


def prior_on_grid(prior: Prior, placed: PlacedT1w) -> NDArray[np.float32]:
    """Bring the map of a regression from the grid of the T1w to the common grid; see `painted_prior`."""
    total, weight = (
        to_grid(Volume(array.astype(np.float32), prior.affine), placed.placement)
        for array in (prior.map_z, prior.brain)
    )
    # The blur to coarse voxels takes in what lies outside of the brain, which is not counted.
    return np.where(placed.brain, total / np.maximum(weight, 0.05), 0.0).astype(np.float32)


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
        ``(7, I, J, K)`` from 0 to 1; 0 outside the brain. Rounded as in the cache, so that a training whose cache is
        new, one that finds it filled, and a prediction without one see the same.

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
    return np.stack(shares).astype(np.float16).astype(np.float32)
