"""From a T1w derivative to synthetic SUVR on its own grid, by one model or several together.

The T1w goes to the model's grid as in training; each member of the ensemble (a model, with or without a test-time flip)
predicts; its target scaling is inverted, so that members are averaged as SUVR; the mean comes back to the T1w in one
interpolation. How far the members differ is the raw uncertainty, which `tau_pipeline.synthesis.model.calibration`
calibrates.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from tau_pipeline.errors import ImageError, SettingError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA
from tau_pipeline.imaging.volume import Volume
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.settings.training import Device, Training
from tau_pipeline.synthesis.data.anatomy import Anatomy, anatomy_of
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.placement import Placement
from tau_pipeline.synthesis.data.prepare import PlacedT1w, prepare_t1w
from tau_pipeline.synthesis.model.ensemble import Ensemble, require_manufacturer, to_suvr
from tau_pipeline.synthesis.model.folder import LoadedModel
from tau_pipeline.synthesis.model.regression import RegionalRegression

#: Networks whose positional embedding fixes the size of their input.
_WHOLE_ONLY = ("unetr",)
#: A test-time flip turns the first axis, left-right, round: brains are nearly symmetric in it, and in no other.
_LEFT_RIGHT = 2
#: Peak memory of a forward pass without gradients, in units of the largest output of one layer: its input, its output,
#: a skip connection and what the convolution works in (docs/decisions/synthetic-uncertainty.md has the measurement).
_LARGEST_LAYERS = 8.0
#: Two members say little about a voxel's variance; their variance is averaged over this distance (Gaussian FWHM).
_VARIANCE_FWHM_MM = 8.0


@dataclass(frozen=True)
class Prediction:
    """Prediction of an ensemble for one T1w.

    Attributes
    ----------
    members
        ``(M, I, J, K)`` SUVR on the model's grid, one volume a member; 0 outside the brain.
    brain
        ``(I, J, K)`` brain mask there.
    t1w
        ``(I, J, K)`` what the network saw, from -1 to 1.
    placement
        Where the grid lies on the T1w's.
    owners
        Of each member, the place of its model in the ensemble.
    remarks
        Sentences on what was done otherwise than usual: brain cut by the grid, windows.
    """

    members: NDArray[np.float32]
    brain: NDArray[np.bool_]
    t1w: NDArray[np.float32]
    placement: Placement
    owners: tuple[int, ...]
    remarks: tuple[str, ...] = ()

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean over members, ``(I, J, K)`` SUVR on the model's grid."""
        return self.members.mean(axis=0, dtype=np.float64).astype(np.float32)

    @property
    def sd(self) -> NDArray[np.float32]:
        """Standard deviation over members (ddof 1), its square averaged over `_VARIANCE_FWHM_MM` within the brain.

        ``(I, J, K)`` on the model's grid, not calibrated; NaN for one member.
        """
        if len(self.members) < 2:
            return np.full(self.brain.shape, np.nan, np.float32)
        variance = np.where(self.brain, self.members.var(axis=0, ddof=1, dtype=np.float64), 0.0)
        sigma = _VARIANCE_FWHM_MM / FWHM_PER_SIGMA / np.array(self.placement.grid.voxel_mm)
        smoothed, weight = (ndimage.gaussian_filter(x, sigma, mode="constant") for x in (variance, self.brain * 1.0))
        return np.where(self.brain, np.sqrt(smoothed / np.maximum(weight, 1e-9)), 0).astype(np.float32)


def predict(
    ensemble: Ensemble,
    t1w_img: Volume,
    mask_img: Volume,
    manufacturer: str | None,
    settings: Synthesis | None = None,
    device: Device = Training.device,
    mem_mb: int | None = None,
) -> Prediction:
    """Predict SUVR for one T1w.

    Parameters
    ----------
    ensemble
        The models.
    t1w_img, mask_img
        Bias-corrected T1w and brain mask on one grid.
    manufacturer
        Whose scale the SUVR gets (`require_manufacturer`).
    settings
        Read here: ``test_time_flips``, ``prediction_memory``, ``window_side`` and ``window_overlap``.
    device
        ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.
    mem_mb
        Memory that ``prediction_memory`` ``auto`` allows for, in MB. None asks the system.

    Raises
    ------
    GridMismatchError, ImageError
        The images cannot be used (`tau_pipeline.synthesis.data.prepare.prepare_t1w`), or the network's output is not
        finite.
    SettingError
        Windows were asked of a network that takes only whole volumes, or a GPU where there is none.
    UnknownNameError
        The manufacturer is not known to a model.
    """
    percentiles = ensemble.first.card.t1w_percentiles
    placed = prepare_t1w(t1w_img, mask_img, ensemble.grid, "the participant", percentiles)
    return predict_placed(ensemble, placed, manufacturer, settings, device, mem_mb)


def predict_pair(
    ensemble: Ensemble,
    pair: Pair,
    manufacturer: str | None,
    settings: Synthesis | None = None,
    device: Device = Training.device,
) -> Prediction:
    """Predict SUVR for the T1w of a pair, with the labels and covariates that a regression needs; see `predict`.

    Parameters
    ----------
    pair
        Its files are read, but for the PET.
    ensemble, manufacturer, settings, device
        As in `predict`, and so are the errors.
    """
    t1w, mask, dseg = (load_volume(path, ndim=3) for path in (pair.t1w_file, pair.mask_file, pair.dseg_file))
    percentiles = ensemble.first.card.t1w_percentiles
    placed = prepare_t1w(t1w, mask, ensemble.grid, pair.participant_id, percentiles, dseg)
    placed = placed._replace(subject=pair.subject)
    anatomy = anatomy_of(dseg, mask, placed.placement, pair.covariates)
    return predict_placed(ensemble, placed, manufacturer, settings, device, anatomy=anatomy)


def predict_placed(
    ensemble: Ensemble,
    placed: PlacedT1w,
    manufacturer: str | None,
    settings: Synthesis | None = None,
    device: Device = Training.device,
    mem_mb: int | None = None,
    anatomy: Anatomy | None = None,
) -> Prediction:
    """Predict SUVR for a T1w that is on the model's grid already; see `predict`.

    Parameters
    ----------
    placed
        From `tau_pipeline.synthesis.data.prepare.prepare_t1w`.
    ensemble, manufacturer, settings, device, mem_mb
        As in `predict`, and so are the errors.
    anatomy
        Labels and covariates of the participant, which a regional regression needs.

    Raises
    ------
    MissingInputError
        A model is a regional regression, and there is no anatomy.
    """
    settings = settings or Synthesis()
    t1w, brain, placement = placed.t1w, placed.brain, placed.placement
    canonical = require_manufacturer(ensemble, manufacturer)
    members, owners, windowed = [], [], False
    for n, model in enumerate(ensemble.models):
        if isinstance(model.system, RegionalRegression):
            maps, in_windows = model.system.maps(anatomy, brain, placement.grid.voxel_mm), False
        else:
            maps, in_windows = predict_on_grid(model, model.inputs(placed), settings, device, mem_mb)
        members += [np.where(brain, to_suvr(model, z, canonical), np.float32(0)) for z in maps]
        owners += [n] * len(maps)
        windowed |= in_windows
    stacked = np.stack(members).astype(np.float32)
    if not np.isfinite(stacked).all():
        raise ImageError("the network's output is not finite for this T1w; look at the T1w and at the model's training")
    remarks = [placement.cut_sentence("the participant")]
    remarks += ["The network was run in overlapping windows, because memory was limited."] if windowed else []
    return Prediction(stacked, brain, t1w, placement, tuple(owners), tuple(text for text in remarks if text))


def predict_on_grid(
    model: LoadedModel,
    inputs: NDArray[np.float32],
    settings: Synthesis,
    device: Device = Training.device,
    mem_mb: int | None = None,
) -> tuple[list[NDArray[np.float32]], bool]:
    """Run one model on inputs that are on its grid: normalized predictions, and whether windows were used.

    Parameters
    ----------
    model
        The model; it is moved to the device and back.
    inputs
        ``(C, I, J, K)``, from `LoadedModel.inputs`.
    settings, device, mem_mb
        As in `predict`.
    """
    processor = chosen_device(device)
    windows = _needs_windows(model, inputs.shape, settings, mem_mb or _free_mb(processor))
    volume = torch.from_numpy(np.ascontiguousarray(inputs))[None].to(processor)  # (1, C, I, J, K)
    with _on_device(model.system, processor) as system, torch.inference_mode():
        found = [_run(system, volume, settings, windows)]
        if settings.test_time_flips:
            found.append(_run(system, volume.flip(_LEFT_RIGHT), settings, windows).flip(_LEFT_RIGHT))
    return [z[0, 0].float().cpu().numpy() for z in found], windows


def _run(system: nn.Module, volume: Tensor, settings: Synthesis, windows: bool) -> Tensor:
    if not windows:
        return system(volume)
    sides = [min(settings.window_side, n) for n in volume.shape[2:]]
    found = sliding_window_inference(volume, sides, 1, system, overlap=settings.window_overlap, mode="gaussian")
    return torch.as_tensor(found)


def chosen_device(device: Device) -> torch.device:
    """Return the device of a setting.

    Raises
    ------
    SettingError
        A GPU was requested, and there is none that torch can use.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingError("device is 'cuda', and torch finds no GPU; expected: cpu or auto here")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def _on_device(system: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    home = next((p.device for p in system.parameters()), torch.device("cpu"))
    try:
        yield system.to(device).eval()
    finally:
        system.to(home)


def _needs_windows(model: LoadedModel, shape: Sequence[int], settings: Synthesis, available_mb: float) -> bool:
    whole_only = model.card.network in _WHOLE_ONLY
    if settings.prediction_memory == "windows" and whole_only:
        raise SettingError(
            f"prediction_memory is 'windows', and the network {model.card.network} takes only whole volumes; expected: "
            "whole or auto"
        )
    if settings.prediction_memory != "auto" or whole_only:
        return settings.prediction_memory == "windows"
    available = available_mb * 2**20
    # The estimate loads a large part of torch, which takes seconds; the bound is often enough.
    if 0 < most_bytes(model.system, shape[1:]) <= available:
        return False
    return peak_bytes(model.system, shape[1:], shape[0]) > available


def _free_mb(device: torch.device) -> float:
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return float(free / 2**20)


def most_bytes(system: nn.Module, shape: Sequence[int]) -> float:
    """Return an upper bound of `peak_bytes`, for a layer as wide as the widest one on the whole grid; 0 if unknown."""
    widths = [getattr(module, name, 0) for module in system.modules() for name in ("out_channels", "out_features")]
    return _LARGEST_LAYERS * max(widths, default=0) * math.prod(shape) * 4


def peak_bytes(system: nn.Module, shape: Sequence[int], n_channels: int = 1) -> float:
    """Estimate the memory of a forward pass without gradients, in bytes; 0 if unknown.

    The input is ``(1, n_channels, I, J, K)`` with ``shape`` ``(I, J, K)``.

    The pass is made on torch's ``meta`` device, which knows shapes and holds no numbers.
    """
    sizes: list[int] = []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    ghost = copy.deepcopy(system).to("meta").eval()
    for module in ghost.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    try:
        with torch.inference_mode():
            ghost(torch.empty((1, n_channels, *shape), device="meta"))
    except (RuntimeError, NotImplementedError):
        return 0.0
    return _LARGEST_LAYERS * max(sizes, default=0)
