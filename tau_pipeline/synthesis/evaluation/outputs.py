"""Everything that is written for one synthetic scan: map, uncertainty, region table, agreement, figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from tau_pipeline.atlas import label_array
from tau_pipeline.cohort.standardize import POOLED
from tau_pipeline.derivatives import columns
from tau_pipeline.derivatives.columns import UNCERTAINTY_COLUMNS, agreement_columns
from tau_pipeline.derivatives.names import sidecar_path
from tau_pipeline.derivatives.sidecars import SyntheticSidecar, bids_uri
from tau_pipeline.errors import ImageError, MissingInputError, UnknownNameError
from tau_pipeline.figures.sheet import save_figure
from tau_pipeline.figures.synthesis import figures_of_merit, synthetic_figure
from tau_pipeline.files import read_json, write_json, write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume, image_on, require_same_grid, save_volume, voxel_volume_mm3
from tau_pipeline.measures import regions as roi
from tau_pipeline.measures.quality import map_quality
from tau_pipeline.settings.cohort import UnknownManufacturer
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.synthesis.data.placement import to_grid
from tau_pipeline.synthesis.data.targets import Target
from tau_pipeline.synthesis.evaluation.scores import MODEL, ScanScores, baseline_maps, score_scan
from tau_pipeline.synthesis.model.baselines import TrainingStatistics, t1w_figures, unlike_training
from tau_pipeline.synthesis.model.calibration import NORMAL_QUANTILE, Calibration, region_sd
from tau_pipeline.synthesis.model.card import CARD
from tau_pipeline.synthesis.model.ensemble import Ensemble, require_manufacturer
from tau_pipeline.synthesis.model.predict import Prediction, on_t1w_grid, predict

_NOT_CALIBRATED = (
    "The standard deviation is that of the ensemble's members, not calibrated: no measured scan of a validation split "
    "was at hand."
)
_NO_TRAINING_STATISTICS = (
    "Whether the T1w is like the training images was not looked at: the model folder does not say."
)


@dataclass(frozen=True)
class Recipe:
    """Everything that all synthetic scans of a run share.

    Attributes
    ----------
    ensemble
        The models.
    output_dir
        Root of the derivatives.
    settings_hash
        For the sidecars.
    synthesis
        Whose scale the SUVR gets, how the network is run, and how its maps are judged.
    unknown_manufacturer
        ``pooled`` gives manufacturers that a model does not know the scale of all together; else they are an error.
    device, mem_mb
        As `tau_pipeline.synthesis.model.predict.predict` takes them.
    calibration, training_statistics
        None where there are none.
    """

    ensemble: Ensemble
    output_dir: Path
    settings_hash: str
    synthesis: Synthesis = field(default_factory=Synthesis)
    unknown_manufacturer: UnknownManufacturer = "error"
    device: str = "auto"
    mem_mb: int | None = None
    calibration: Calibration | None = None
    training_statistics: TrainingStatistics | None = None


@dataclass(frozen=True)
class _Images:
    """Participant-level outputs of a T1w, on one grid."""

    t1w: Volume
    mask: Volume
    dseg: Volume
    reference: Volume


def manufacturer_of(target: Target, recipe: Recipe) -> str | None:
    """Return the manufacturer whose scale a synthetic scan gets.

    Raises
    ------
    UnknownNameError
        None is known, or the models do not know it; the message lists what can be given.
    """
    given = recipe.synthesis.as_manufacturer or target.manufacturer
    try:
        return require_manufacturer(recipe.ensemble, given)
    except UnknownNameError:
        if recipe.unknown_manufacturer != "pooled" or recipe.synthesis.as_manufacturer is not None:
            raise
        return require_manufacturer(recipe.ensemble, POOLED)


def make_synthetic(target: Target, recipe: Recipe) -> list[ScanScores]:
    """Make one synthetic scan, and compare it with the measured ones where there are any.

    Parameters
    ----------
    target
        Which.
    recipe
        How.

    Returns
    -------
    list of ScanScores
        One for each measured scan.

    Raises
    ------
    TauPipelineError
        A derivative is missing or cannot be used, the manufacturer is not known, or the T1w is refused. No map of this
        scan has been written.
    """
    region = reference_region(target, recipe.ensemble)
    images = _load(target, region)
    maker = manufacturer_of(target, recipe)
    prediction = predict(
        recipe.ensemble, images.t1w, images.mask, maker, recipe.synthesis, recipe.device, recipe.mem_mb
    )
    flags = _flags(prediction, recipe)
    suvr = on_t1w_grid(prediction.mean, prediction.brain, prediction.placement, images.mask)
    scores = [_compared(target, n, suvr, images.mask, maker, recipe) for n in range(len(target.measured))]
    sidecar = _sidecar(target, recipe, prediction, (region, maker), flags)
    _write_maps(target, recipe, prediction, images, (suvr, sidecar))
    table = _region_table(target, recipe, prediction, images, (suvr, region, maker))
    write_json({**columns.column_descriptions(), **UNCERTAINTY_COLUMNS}, sidecar_path(target.names.rois))
    write_tsv(table, target.names.rois)
    _write_agreement(target, recipe, scores)
    _draw(target, images, suvr, (region, scores))
    return scores


def reference_region(target: Target, ensemble: Ensemble) -> str:
    """Return the reference region of the SUVR that the models learned or, failing that, of the target's PET."""
    named = ensemble.first.card.reference_region
    if named:
        return named
    return target.measured[0].reference_region if target.measured else "CerebellarGM"


def _load(target: Target, region: str) -> _Images:
    anat = target.anat
    files = {"t1w": anat.t1w, "mask": anat.mask, "dseg": anat.dseg, "reference": anat.reference_mask(region)}
    for what, path in files.items():
        if not path.is_file():
            raise MissingInputError(
                f"there is no {path}, which synthesis needs (what: {what}); run the participant level"
                + (f" with --ref-region {region}" if what == "reference" else " again")
            )
    images = {name: load_volume(path, ndim=3) for name, path in files.items()}
    require_same_grid(**images)
    return _Images(**images)


def _flags(prediction: Prediction, recipe: Recipe) -> tuple[str, ...]:
    """Sentences on how the T1w is unlike the training images."""
    if recipe.training_statistics is None:
        return ()
    figures = t1w_figures(prediction.t1w, prediction.brain, prediction.placement)
    flags = tuple(unlike_training(figures, recipe.training_statistics.t1w_range))
    if flags and recipe.synthesis.unlike_training == "refuse":
        raise ImageError(f"{flags[0]} It is refused, as --unlike-training asks; flag would make the scan all the same")
    return flags


def _compared(target: Target, number: int, suvr: Volume, mask: Volume, maker: str | None, recipe: Recipe) -> ScanScores:
    pair, maps = target.measured[number], {MODEL: suvr}
    if recipe.training_statistics is not None:
        maps |= baseline_maps(recipe.training_statistics, recipe.ensemble.first, mask, maker, target.diagnosis)
    return score_scan(pair, maps, recipe.synthesis)


def _sidecar(
    target: Target,
    recipe: Recipe,
    prediction: Prediction,
    kind: tuple[str, str | None],
    flags: Sequence[str],
) -> SyntheticSidecar:
    region, maker = kind
    ensemble, root = recipe.ensemble, recipe.output_dir
    t1w, mask, dseg = (bids_uri(path, root, "") for path in (target.anat.t1w, target.anat.mask, target.anat.dseg))
    assumptions = [
        *_about(target.anat.t1w),
        *prediction.remarks,
        *([] if recipe.training_statistics else [_NO_TRAINING_STATISTICS]),
    ]
    if recipe.synthesis.as_manufacturer is None and maker == POOLED:
        assumptions.append("The manufacturer is not among those that the model knows; all pooled were taken.")
    return SyntheticSidecar(
        sources=(t1w, mask, dseg),
        reference_image=t1w,
        settings_hash=recipe.settings_hash,
        reference_region=region,
        tracer=target.tracer,
        manufacturer=maker,
        models=tuple(
            {"Folder": folder.name, "Card": _place(folder / CARD, root), "Hash": digest, "Network": model.card.network}
            for folder, digest, model in zip(ensemble.folders, ensemble.hashes, ensemble.models, strict=True)
        ),
        model_hash=ensemble.hash,
        training_split=ensemble.split_of(target.participant_id),
        members=len(prediction.members),
        flags=tuple(flags),
        uncertainty=_NOT_CALIBRATED if recipe.calibration is None else recipe.calibration.as_dict(),
        assumptions=tuple(assumptions),
    )


def _about(t1w: Path) -> list[str]:
    """The sentences of a T1w's own sidecar: what was assumed of it, and whether it is simulated."""
    sidecar = sidecar_path(t1w)
    said = read_json(sidecar).get("Assumptions") if sidecar.is_file() else None
    return [str(sentence) for sentence in said] if isinstance(said, list) else []


def _place(card: Path, root: Path) -> str:
    """Return where a card lies: a path within these derivatives, else on this machine."""
    return bids_uri(card, root, "") if card.is_relative_to(root) else str(card)


def _write_maps(
    target: Target, recipe: Recipe, prediction: Prediction, images: _Images, made: tuple[Volume, SyntheticSidecar]
) -> None:
    """Uncertainty first, the map itself last, each after its sidecar."""
    suvr, sidecar = made
    brain, values = np.asanyarray(images.mask.dataobj), np.asanyarray(suvr.dataobj)
    quality = map_quality(
        values, brain, label_array(images.dseg), np.asanyarray(images.reference.dataobj), voxel_volume_mm3(suvr)
    )
    if len(prediction.members) > 1:
        sd = prediction.sd if recipe.calibration is None else recipe.calibration.sd(prediction.sd)
        sd_img = on_t1w_grid(sd, prediction.brain, prediction.placement, images.mask)
        write_json(sidecar.content("Standard deviation of synthetic SUVR"), sidecar_path(target.names.uncertainty))
        save_volume(sd_img, target.names.uncertainty)
    write_json(sidecar.content("Synthetic SUVR", **quality), sidecar_path(target.names.suvr()))
    save_volume(suvr, target.names.suvr())


def _region_table(
    target: Target,
    recipe: Recipe,
    prediction: Prediction,
    images: _Images,
    made: tuple[Volume, str, str | None],
) -> pd.DataFrame:
    """The region table with the columns of the uncertainty; n/a for the reference region, where it is not estimated."""
    suvr, region, maker = made
    identity = {
        "participant_id": target.participant_id,
        "session_id": f"ses-{target.session}" if target.session else None,
        "tracer": target.tracer,
        "manufacturer": maker,
        "source": "synthetic",
    }
    table = roi.regional_table(suvr, images.dseg, images.reference, region, identity)
    labels_img = image_on(label_array(images.dseg).astype(np.int32), images.dseg.affine)
    raw = region_sd(prediction, to_grid(labels_img, prediction.placement, labels=True))
    sd = pd.Series(np.nan, index=table.index)
    sd[(table["kind"] != "reference").to_numpy()] = raw
    reach = pd.Series(np.nan, index=table.index)
    if recipe.calibration is not None:
        sd = pd.Series(recipe.calibration.sd(sd.to_numpy(), "region"), index=table.index)
        reach = NORMAL_QUANTILE * sd
    mean = table["suvr_mean"].astype(float)
    sd = sd.where(mean.notna())
    return table.assign(suvr_mean_sd=sd, suvr_mean_low=mean - reach, suvr_mean_high=mean + reach)


def _write_agreement(target: Target, recipe: Recipe, scores: Sequence[ScanScores]) -> None:
    for old in (target.names.agreement, sidecar_path(target.names.agreement)):
        old.unlink(missing_ok=True)
    if not scores:
        return
    table = pd.concat([each.scans for each in scores], ignore_index=True)
    table.insert(4, "split", recipe.ensemble.split_of(target.participant_id))
    write_json(agreement_columns(map(str, table.columns)), sidecar_path(target.names.agreement))
    write_tsv(table, target.names.agreement)


def _draw(target: Target, images: _Images, suvr: Volume, about: tuple[str, Sequence[ScanScores]]) -> None:
    region, scores = about
    measured, said = None, ""
    if scores:
        measured = load_volume(target.measured[0].suvr_file, ndim=3)
        row = scores[0].scans.iloc[0]
        said = figures_of_merit(float(row["ssim"]), float(row["psnr"]), float(row["data_range"]))
    figure = synthetic_figure(suvr, images.t1w, images.mask, measured=measured, reference=region, aside=said)
    save_figure(figure, target.names.figure)
