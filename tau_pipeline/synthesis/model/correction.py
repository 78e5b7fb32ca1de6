"""A network's correction of a regression, on the grid of the T1w.

A network that starts from the map of the regional regression works on coarse voxels and learns from tens of
participants. Two things are known better without it. What coarse voxels lose of the map comes from the map itself, as
painted on the labels of the T1w. And the mean of each region, which the regression was fitted to, is corrected only as
far as the correction proved right on the validation split: its regional means are multiplied by one number, the least
squares estimate there (stacking, Breiman 1996, Mach Learn 24:49). The pattern within regions is the network's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import label_array
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume, image_like
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.settings.training import Device, Training
from tau_pipeline.synthesis.data.anatomy import label_means
from tau_pipeline.synthesis.data.pairs import Pair, Subject
from tau_pipeline.synthesis.data.placement import on_t1w_grid
from tau_pipeline.synthesis.data.prepare import PlacedT1w
from tau_pipeline.synthesis.model.channels import Prior, prior_on_grid, prior_on_t1w
from tau_pipeline.synthesis.model.ensemble import Ensemble, known_or_pooled, require_manufacturer, to_suvr
from tau_pipeline.synthesis.model.predict import Prediction, predict_pair
from tau_pipeline.synthesis.model.regression import RegionalRegression, painted

#: One number is fitted to the regional values of this many validation participants at least.
_LEAST_PARTICIPANTS = 3


def on_t1w(
    ensemble: Ensemble, prediction: Prediction, mask_img: Volume, subject: Subject | None, manufacturer: str | None
) -> Volume:
    """Bring the mean of a prediction to the grid of the T1w.

    The part of models that correct the map of a regression is the map as painted on the T1w's labels, with the
    network's correction interpolated and its regional means multiplied by the model's ``level_weight``.

    Parameters
    ----------
    ensemble
        What predicted.
    prediction
        Of it.
    mask_img
        Brain mask on the T1w's grid.
    subject
        Files of the participant; networks that correct a regression need them.
    manufacturer
        As in `tau_pipeline.synthesis.model.predict.predict`.

    Returns
    -------
    Volume
        SUVR as `tau_pipeline.synthesis.data.placement.on_t1w_grid` returns it.
    """
    found = on_t1w_grid(prediction.mean, prediction.brain, prediction.placement, mask_img)
    total = np.asanyarray(found.dataobj).astype(np.float32)
    canonical, owners = require_manufacturer(ensemble, manufacturer), np.array(prediction.owners)
    for n, model in enumerate(ensemble.models):
        regression = model.channels.prior
        if regression is None:
            continue
        placed = PlacedT1w(prediction.t1w, prediction.brain, prediction.placement, subject)
        prior = prior_on_t1w(regression, placed)
        fine, coarse = (to_suvr(model, z, canonical) for z in (prior.map_z, prior_on_grid(prior, placed)))
        own = prediction.members[owners == n].mean(axis=0, dtype=np.float64)
        start, corrected = (
            np.asanyarray(on_t1w_grid(array, placed.brain, placed.placement, mask_img).dataobj)
            for array in (coarse, own)
        )
        excess = (1 - model.card.level_weight) * regional_levels(corrected - start, prior, regression)
        total += (owners == n).mean() * (fine - start - excess).astype(np.float32)
    inside = np.asanyarray(mask_img.dataobj) > 0
    return image_like(np.where(inside, total, np.float32(0)), mask_img)


def regional_levels(correction: NDArray, prior: Prior, regression: RegionalRegression) -> NDArray[np.float32]:
    """Return the regional means of a correction, painted and blurred as the map of the regression is.

    Parameters
    ----------
    correction
        ``(I, J, K)`` on the grid of the T1w; NaN where it is not known.
    prior
        Labels and brain on that grid.
    regression
        Its labels get their own means, with the rest of the brain as one more.
    """
    known = prior.brain & np.isfinite(correction)
    if not known.any():
        return np.zeros(prior.brain.shape, np.float32)
    labels = np.where(np.isin(prior.labels, regression.labels.numpy()), prior.labels, 0)
    means = label_means(correction, labels, known)
    return painted(means, labels, prior.brain, float(regression.fwhm_mm), prior.voxel_mm)


def fit_level_weight(ensemble: Ensemble, pairs: Iterable[Pair], device: Device = Training.device) -> float:
    """Fit how much of a network's correction of regional means is right, on the validation split.

    Parameters
    ----------
    ensemble
        One model that corrects a regression.
    pairs
        Any; used are those of the validation split.
    device
        Where to predict.

    Returns
    -------
    float
        From 0 to 1; 1 where there are too few validation participants, or the network corrects nothing.
    """
    own = [pair for pair in pairs if ensemble.split_of(pair.participant_id) == "validation"]
    if len({pair.participant_id for pair in own}) < _LEAST_PARTICIPANTS:
        return 1.0
    product = square = 0.0
    for pair in own:
        without, whole, measured = _regional_values(ensemble, pair, device)
        product += float(np.sum((measured - without) * (whole - without)))
        square += float(np.sum((whole - without) ** 2))
    return float(np.clip(product / square, 0, 1)) if square else 1.0


def _regional_values(ensemble: Ensemble, pair: Pair, device: Device) -> list[NDArray[np.float64]]:
    """Return regional means without the correction of levels, with all of it, and of the measured SUVR."""
    manufacturer = known_or_pooled(ensemble, pair.manufacturer)
    mask, dseg, suvr = (load_volume(path, ndim=3) for path in (pair.mask_file, pair.dseg_file, pair.suvr_file))
    found = predict_pair(ensemble, pair, manufacturer, Synthesis(test_time_flips=False), device)
    maps = [on_t1w(_weighted(ensemble, weight), found, mask, pair.subject, manufacturer) for weight in (0.0, 1.0)]
    arrays = [np.asanyarray(img.dataobj).astype(np.float64) for img in (*maps, suvr)]
    # Earlier versions of the participant level wrote 0 where it now writes NaN.
    known = (np.asanyarray(mask.dataobj) > 0) & np.isfinite(arrays).all(axis=0) & (arrays[-1] != 0)
    labels = label_array(dseg)
    of_label = [label_means(array, labels, known) for array in arrays]
    return [np.array([means[number] for number in of_label[0] if number]) for means in of_label]


def _weighted(ensemble: Ensemble, level_weight: float) -> Ensemble:
    models = (replace(model, card=replace(model.card, level_weight=level_weight)) for model in ensemble.models)
    return replace(ensemble, models=tuple(models))
