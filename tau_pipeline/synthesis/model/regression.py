"""Regional regression: SUVR of each label, predicted from a table, painted on the participant's own labels and blurred.

The table holds the volumes of the participant's labels, the thickness of the cortex where the T1w has surfaces, age,
sex, and the other covariates of the training. A network that does not predict better than this has learned nothing
that the table does not say, so that the regression is a baseline of every network; and since it needs few participants,
it can be used as a model itself. The map is made so that its regional means are the predicted ones: the values that are
painted are corrected for what the blur mixes from the neighbors, in a few steps (Van Cittert's iteration over regions
instead of voxels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from tau_pipeline.errors import DamagedFileError, MissingInputError
from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA
from tau_pipeline.settings.training_inputs import Covariate
from tau_pipeline.synthesis.data.anatomy import AGE, SEX, Anatomy, thickness_name

Floats = NDArray[np.float64]

#: Name of the system in settings and model cards.
REGRESSION = "regression"
#: Covariates among the features of every regression, after the volumes.
COVARIATES = (AGE, SEX)
#: Every covariate that a regression can have; a model folder stores places in this order, so that it only grows.
_EVERY_COVARIATE: tuple[str, ...] = get_args(Covariate)
#: Corrections of the painted values for the blur; each takes most of what is left of the difference away.
_CORRECTIONS = 3


def features(anatomy: Anatomy, feature_labels: Sequence[int], covariates: Sequence[str] = COVARIATES) -> Floats:
    """Return the features of one participant; NaN where something is not known.

    Parameters
    ----------
    anatomy
        Of the participant.
    feature_labels
        Labels whose volumes are features.
    covariates
        Names of further features.

    Returns
    -------
    ndarray
        ``(L + 1 + C,)``: natural logarithms of the volume of each label as a part of the brain, and of the volume of
        the brain in mm3; then the covariates.
    """
    total = sum(anatomy.volumes.values())
    volumes = np.array([anatomy.volumes.get(int(number), 0.0) for number in feature_labels])
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log([*(volumes / total if total else volumes * np.nan), total])
    logs[~np.isfinite(logs)] = np.nan
    return np.array([*logs, *(anatomy.covariates.get(name, np.nan) for name in covariates)])


class RegionalRegression(nn.Module):
    """A linear model of regional values, in the interface of a system, so that a model folder can hold it.

    Parameters
    ----------
    state
        Tensors by name: ``labels`` ``(R,)`` that get a value, 0 for brain without a label; ``feature_labels`` ``(L,)``;
        ``center`` and ``scale`` ``(F,)`` of the features; ``weight`` ``(M, R, F)`` and ``bias`` ``(M, R)`` of M
        members, whose mean is the prediction; ``fwhm_mm`` ``(1,)`` of the blur; ``covariates`` ``(C,)``, places among
        all covariates of a training (models of earlier versions have none, and use age and sex); ``thickness_labels``
        ``(T,)``, whose thickness is a feature (earlier versions have none).

    Raises
    ------
    DamagedFileError
        A tensor is missing, or their shapes do not fit together.
    """

    NAMES = (
        *("labels", "feature_labels", "center", "scale", "weight", "bias", "fwhm_mm"),
        *("covariates", "thickness_labels"),
    )
    name = REGRESSION
    labels: Tensor
    feature_labels: Tensor
    center: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    fwhm_mm: Tensor
    covariates: Tensor
    thickness_labels: Tensor

    def __init__(self, state: Mapping[str, Tensor], preset: str = "laptop") -> None:
        super().__init__()
        self.preset = preset
        nowhere = torch.empty(0, dtype=torch.int64)
        state = {"covariates": covariate_places(COVARIATES), "thickness_labels": nowhere, **state}
        if set(state) != set(self.NAMES):
            odd = sorted(set(state) ^ set(self.NAMES))[0]
            raise DamagedFileError(f"the weights are not those of a regional regression: {odd} is missing or unknown")
        for name, value in state.items():
            self.register_buffer(name, value.clone())
        n_members, n_labels, n_features = self.weight.shape
        wanted = {"labels": (n_labels,), "bias": (n_members, n_labels), "fwhm_mm": (1,)}
        wanted |= {"feature_labels": (n_features - 1 - len(self.covariate_names),), "center": (n_features,)}
        for name, shape in {**wanted, "scale": (n_features,)}.items():
            if tuple(state[name].shape) != shape:
                raise DamagedFileError(f"{name} of the regression has shape {tuple(state[name].shape)}, not {shape}")

    @property
    def generator(self) -> RegionalRegression:
        """Return the model itself, which is what predicts."""
        return self

    @property
    def probe_shape(self) -> tuple[int, ...]:
        """Return the shape of the input that a model folder probes the model with: its features."""
        return tuple(self.center.shape)

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """Return the names of the covariates among the features, in order."""
        known = (_EVERY_COVARIATE[place] for place in self.covariates.tolist())
        return (*known, *map(thickness_name, self.thickness_labels.tolist()))

    @property
    def n_numbers(self) -> int:
        """Return how many numbers were fitted, of one member."""
        return int(self.weight[0].numel() + self.bias[0].numel())

    def forward(self, standardized: Tensor) -> Tensor:
        """Return values ``(..., M, R)`` for standardized features ``(..., F)``."""
        return torch.einsum("mrf,...f->...mr", self.weight, standardized) + self.bias

    def regional(self, anatomy: Anatomy) -> Floats:
        """Predict the value of each label, ``(M, R)``, on the scale of the targets; what is not known is average."""
        found = features(anatomy, self.feature_labels.tolist(), self.covariate_names)
        standardized = (found - self.center.numpy()) / self.scale.numpy()
        x = torch.from_numpy(np.nan_to_num(standardized)).to(self.weight.dtype)
        with torch.inference_mode():
            return self(x).numpy().astype(np.float64)

    def maps(self, anatomy: Anatomy | None, brain: NDArray[np.bool_], voxel_mm: Sequence[float]) -> list[NDArray]:
        """Predict a map per member: ``(I, J, K)`` on the scale of the targets; 0 outside the brain.

        Parameters
        ----------
        anatomy
            Of the participant.
        brain
            ``(I, J, K)`` brain mask on the grid of the labels.
        voxel_mm
            Edges of that grid's voxels.

        Raises
        ------
        MissingInputError
            There is no anatomy.
        """
        if anatomy is None:
            raise MissingInputError("a regional regression needs the labels of the participant, and none were given")
        numbers, fwhm = self.labels.tolist(), float(self.fwhm_mm)
        return [
            painted(dict(zip(numbers, v, strict=True)), anatomy.labels, brain, fwhm, voxel_mm)
            for v in self.regional(anatomy)
        ]

    def mean_map(self, anatomy: Anatomy, brain: NDArray[np.bool_], voxel_mm: Sequence[float]) -> NDArray[np.float32]:
        """Predict one map, from the mean over members; as `maps`."""
        values = self.regional(anatomy).mean(axis=0)
        of_label = dict(zip(self.labels.tolist(), values, strict=True))
        return painted(of_label, anatomy.labels, brain, float(self.fwhm_mm), voxel_mm)


def covariate_places(names: Sequence[str]) -> Tensor:
    """Return where covariates stand among all, as a regression stores them."""
    return torch.tensor([_EVERY_COVARIATE.index(name) for name in names], dtype=torch.int64)


def painted(
    values: Mapping[int, float],
    labels: NDArray[np.integer],
    brain: NDArray[np.bool_],
    fwhm_mm: float,
    voxel_mm: Sequence[float],
) -> NDArray[np.float32]:
    """Paint values on labels and blur them, so that the mean over each label is close to its value.

    Parameters
    ----------
    values
        By label; 0 is brain without a label, and stands for labels without a value.
    labels, brain
        ``(I, J, K)`` on one grid.
    fwhm_mm
        FWHM of the Gaussian blur, which stays within the brain.
    voxel_mm
        Edges of the grid's voxels.

    Returns
    -------
    ndarray
        ``(I, J, K)`` float32; 0 outside the brain.
    """
    found = np.zeros(brain.shape, np.float32)
    if not brain.any():
        return found
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    inside, own = brain[box], labels[box]
    numbers = np.array(sorted({0, *values}))
    place = np.searchsorted(numbers, own).clip(max=len(numbers) - 1)
    place = np.where(numbers[place] == own, place, np.searchsorted(numbers, 0))
    rest = float(np.mean(list(values.values()))) if values else 0.0
    target = np.array([values.get(int(number), rest) for number in numbers])
    sigma = fwhm_mm / FWHM_PER_SIGMA / np.asarray(voxel_mm, float)
    weight = np.maximum(ndimage.gaussian_filter(inside.astype(np.float32), sigma, mode="constant"), 1e-6)
    counts = np.maximum(np.bincount(place[inside], minlength=len(numbers)), 1)
    paint, blurred = target.copy(), np.zeros(inside.shape, np.float32)
    for step in range(_CORRECTIONS + 1):
        field = np.where(inside, paint[place], 0).astype(np.float32)
        blurred = ndimage.gaussian_filter(field, sigma, mode="constant") / weight
        if step < _CORRECTIONS:
            paint += target - np.bincount(place[inside], blurred[inside], minlength=len(numbers)) / counts
    found[box] = np.where(inside, blurred, 0)
    return found
