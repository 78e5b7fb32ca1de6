"""Everything that is written for one synthetic scan: map, uncertainty, region table, agreement, figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tau_pipeline.atlas import label_array
from tau_pipeline.cohort.standardize import POOLED
from tau_pipeline.derivatives import columns
from tau_pipeline.derivatives.columns import agreement_columns
from tau_pipeline.derivatives.names import sidecar_path
from tau_pipeline.derivatives.quality_checks import Quality, judge
from tau_pipeline.derivatives.quality_override import decided, read_decisions
from tau_pipeline.derivatives.sidecars import SyntheticSidecar, bids_uri
from tau_pipeline.errors import ImageError, MissingInputError, UnknownNameError
from tau_pipeline.figures.sheet import save_figure
from tau_pipeline.figures.synthesis import figures_of_merit, synthetic_figure
from tau_pipeline.files import read_json, write_json, write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume, image_on, require_same_grid, save_volume, voxel_volume_mm3
from tau_pipeline.measures import regions as roi
from tau_pipeline.measures.quality import map_quality
from tau_pipeline.settings.cohort import Group, UnknownManufacturer
from tau_pipeline.settings.synthesis import Synthesis
from tau_pipeline.settings.training import Device, Training
from tau_pipeline.synthesis.data.anatomy import anatomy_of, thickness_labels
from tau_pipeline.synthesis.data.pairs import Pair
from tau_pipeline.synthesis.data.placement import on_t1w_grid, to_grid
from tau_pipeline.synthesis.data.prepare import prepare_t1w
from tau_pipeline.synthesis.data.targets import Target
from tau_pipeline.synthesis.evaluation.scores import ScanScores, score_scan, with_regional_errors
from tau_pipeline.synthesis.model.baseline_scores import MODEL, baseline_keys, baseline_maps
from tau_pipeline.synthesis.model.baselines import TrainingStatistics, regional_values, t1w_measures, unlike_training
from tau_pipeline.synthesis.model.calibration import NORMAL_QUANTILE, Calibration, region_sd
from tau_pipeline.synthesis.model.card import CARD
from tau_pipeline.synthesis.model.correction import on_t1w
from tau_pipeline.synthesis.model.ensemble import Ensemble, namesakes, require_manufacturer
from tau_pipeline.synthesis.model.predict import Prediction, predict_placed

_NOT_CALIBRATED = (
    "The standard deviation is that of the ensemble's members, not calibrated: no measured scan of a validation split "
    "was at hand."
)
_NO_TRAINING_STATISTICS = (
    "Whether the T1w is like the training images was not looked at: the model folder does not say."
)


@dataclass(frozen=True)
class SynthesisContext:
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
    unknown_manufacturer: UnknownManufacturer = Group.unknown_manufacturer
    device: Device = Training.device
    mem_mb: int | None = None
    calibration: Calibration | None = None
    training_statistics: TrainingStatistics | None = None

    def used_for(self, participant_id: str) -> SynthesisContext:
        """Return the context with the models that predict a participant, and baselines from their training split."""
        own = self.ensemble.used_for(participant_id)
        statistics = self.training_statistics
        if own.folders[0] != self.ensemble.folders[0]:
            statistics = TrainingStatistics.load(own.folders[0])
        return replace(self, ensemble=own, training_statistics=statistics)


@dataclass(frozen=True)
class _Images:
    """Participant-level outputs of a T1w, on one grid."""

    t1w: Volume
    mask: Volume
    dseg: Volume
    reference: Volume


def manufacturer_of(target: Target, context: SynthesisContext) -> str | None:
    """Return the manufacturer whose scale a synthetic scan gets.

    Raises
    ------
    UnknownNameError
        None is known, or the models do not know it; the message lists what can be given.
    """
    given = context.synthesis.as_manufacturer or target.manufacturer
    try:
        return require_manufacturer(context.ensemble, given)
    except UnknownNameError:
        if context.unknown_manufacturer != "pooled" or context.synthesis.as_manufacturer is not None:
            raise
        return require_manufacturer(context.ensemble, POOLED)


def make_synthetic(target: Target, context: SynthesisContext) -> list[ScanScores]:
    """Make one synthetic scan, and compare it with the measured ones where there are any.

    Parameters
    ----------
    target
        Which.
    context
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
    scan = _predicted(target, context.used_for(target.participant_id))
    scores = [scan.compared_with(pair) for pair in target.measured]
    scan.write_maps()
    scan.write_region_table()
    scan.write_agreement(scores)
    scan.draw(scores)
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


def _predicted(target: Target, context: SynthesisContext) -> _SyntheticScan:
    """Predict the SUVR of a target, and refuse its T1w if it is unlike the training images and that is an error."""
    region = reference_region(target, context.ensemble)
    images = _load(target, region)
    manufacturer = manufacturer_of(target, context)
    percentiles = context.ensemble.first.card.t1w_percentiles
    placed = prepare_t1w(images.t1w, images.mask, context.ensemble.grid, "the participant", percentiles, images.dseg)
    placed = placed._replace(subject=target.subject)
    anatomy = anatomy_of(images.dseg, images.mask, placed.placement, target.covariates)
    prediction = predict_placed(
        context.ensemble, placed, manufacturer, context.synthesis, context.device, context.mem_mb, anatomy
    )
    return _SyntheticScan(
        target=target,
        context=context,
        reference_region=region,
        manufacturer=manufacturer,
        images=images,
        prediction=prediction,
        flags=_flags(prediction, target.covariates, context),
        suvr=on_t1w(context.ensemble, prediction, images.mask, target.subject, manufacturer),
    )


def _flags(prediction: Prediction, covariates: Mapping[str, float], context: SynthesisContext) -> tuple[str, ...]:
    """Return sentences on how the T1w is unlike the training images, and the participant unlike those."""
    if context.training_statistics is None:
        return ()
    figures = {**t1w_measures(prediction.t1w, prediction.brain, prediction.placement), **covariates}
    flags = tuple(unlike_training(figures, context.training_statistics.t1w_range))
    if flags and context.synthesis.unlike_training == "refuse":
        raise ImageError(f"{flags[0]} It is refused, as --unlike-training asks; flag would make the scan all the same")
    return flags


@dataclass(frozen=True)
class _SyntheticScan:
    """A synthetic scan, and what it was made from.

    Attributes
    ----------
    target, context
        Which scan, and how it was made.
    reference_region, manufacturer
        Of the SUVR.
    images
        The T1w and its parcellation.
    prediction
        On the model's grid.
    flags
        Sentences on how the T1w is unlike the training images.
    suvr
        The map on the T1w grid.
    """

    target: Target
    context: SynthesisContext
    reference_region: str
    manufacturer: str | None
    images: _Images
    prediction: Prediction
    flags: tuple[str, ...]
    suvr: Volume

    def compared_with(self, pair: Pair) -> ScanScores:
        """Score the map, and the trivial predictors where there are any, against a measured scan."""
        maps, context = {MODEL: self.suvr}, self.context
        if context.training_statistics is not None:
            maps |= baseline_maps(
                context.training_statistics,
                context.ensemble.first,
                self.images.mask,
                self.manufacturer,
                self.target.diagnosis,
                self.images.dseg,
                self.target.covariates,
            )
        return score_scan(pair, maps, context.synthesis)

    def sidecar(self) -> SyntheticSidecar:
        """Return the sidecar that the maps share."""
        target, context, ensemble, root = self.target, self.context, self.context.ensemble, self.context.output_dir
        t1w, mask, dseg = (bids_uri(path, root, "") for path in (target.anat.t1w, target.anat.mask, target.anat.dseg))
        assumptions = [*_about(target.anat.t1w), *self.prediction.remarks]
        assumptions += unknown_covariates(ensemble, target.covariates)
        assumptions += namesakes(ensemble, [target.participant_id], root)
        if not context.training_statistics:
            assumptions.append(_NO_TRAINING_STATISTICS)
        if context.synthesis.as_manufacturer is None and self.manufacturer == POOLED:
            assumptions.append("The manufacturer is not among those that the model knows; all pooled were taken.")
        models = [
            {"Folder": folder.name, "Card": _place(folder / CARD, root), "Hash": digest, "Network": model.card.network}
            for folder, digest, model in zip(ensemble.folders, ensemble.hashes, ensemble.models, strict=True)
        ]
        return SyntheticSidecar(
            sources=(t1w, mask, dseg),
            reference_image=t1w,
            settings_hash=context.settings_hash,
            reference_region=self.reference_region,
            tracer=target.tracer,
            manufacturer=self.manufacturer,
            models=tuple(models),
            model_hash=ensemble.hash,
            training_split=ensemble.split_of(target.participant_id),
            members=len(self.prediction.members),
            flags=self.flags,
            uncertainty=_NOT_CALIBRATED if context.calibration is None else context.calibration.as_dict(),
            assumptions=tuple(assumptions),
            baselines=baseline_keys(ensemble),
        )

    def write_maps(self) -> None:
        """Write the uncertainty first, and the map itself last, each after its sidecar."""
        names, images, sidecar, calibration = self.target.names, self.images, self.sidecar(), self.context.calibration
        quality = map_quality(
            np.asanyarray(self.suvr.dataobj),
            np.asanyarray(images.mask.dataobj),
            label_array(images.dseg),
            np.asanyarray(images.reference.dataobj),
            voxel_volume_mm3(self.suvr),
        )
        if len(self.prediction.members) > 1:
            sd = self.prediction.sd if calibration is None else calibration.sd(self.prediction.sd)
            sd_img = on_t1w_grid(sd, self.prediction.brain, self.prediction.placement, images.mask)
            write_json(sidecar.content("Standard deviation of synthetic SUVR"), sidecar_path(names.uncertainty))
            save_volume(sd_img, names.uncertainty)
        write_json(sidecar.content("Synthetic SUVR", **quality, **self._judged()), sidecar_path(names.suvr()))
        save_volume(self.suvr, names.suvr())

    def _judged(self) -> dict[str, Any]:
        """Return the quality of the scan, as in its sidecar."""
        checks = judge({"Flags": list(self.flags)}, "synthetic")
        name = f"{self.target.names.stem}_desc-synthSUVR"
        checks = decided(checks, read_decisions(self.context.output_dir), name)
        return {"Quality": Quality(tuple(checks)).verdict, "QualityChecks": checks}

    def write_region_table(self) -> None:
        """Write the region table with the uncertainty; n/a for the reference region, where it is not estimated."""
        target, dseg, calibration = self.target, self.images.dseg, self.context.calibration
        identity = {
            "participant_id": target.participant_id,
            "session_id": f"ses-{target.session}" if target.session else None,
            "tracer": target.tracer,
            "manufacturer": self.manufacturer,
            "source": "synthetic",
        }
        table = roi.regional_table(self.suvr, dseg, self.images.reference, self.reference_region, identity)
        labels_img = image_on(label_array(dseg).astype(np.int32), dseg.affine)
        raw = region_sd(self.prediction, to_grid(labels_img, self.prediction.placement, labels=True))
        sd = pd.Series(np.nan, index=table.index)
        sd[(table["kind"] != "reference").to_numpy()] = raw
        reach = pd.Series(np.nan, index=table.index)
        if calibration is not None:
            sd = pd.Series(calibration.sd(sd.to_numpy(), "region"), index=table.index)
            reach = NORMAL_QUANTILE * sd
        mean = table["suvr_mean"].astype(float)
        sd = sd.where(mean.notna())
        table["quality"] = self._judged()["Quality"]
        table = table.assign(suvr_mean_sd=sd, suvr_mean_low=mean - reach, suvr_mean_high=mean + reach)
        described = columns.column_descriptions() | columns.FURTHER_COLUMNS
        own = {name: described[name] for name in table.columns}
        write_json({**own, **baseline_keys(self.context.ensemble)}, sidecar_path(target.names.rois))
        write_tsv(table, target.names.rois)

    def write_agreement(self, scores: Sequence[ScanScores]) -> None:
        """Write the agreement with measured scans; remove that of an earlier run if there are none."""
        file = self.target.names.agreement
        for old in (file, sidecar_path(file)):
            old.unlink(missing_ok=True)
        if not scores:
            return
        measured = self.target.measured
        scored = [
            with_regional_errors(each, regional_values(pair)) for each, pair in zip(scores, measured, strict=True)
        ]
        table = pd.concat(scored, ignore_index=True)
        table.insert(4, "split", self.context.ensemble.split_of(self.target.participant_id))
        described = agreement_columns(map(str, table.columns))
        write_json({**described, **baseline_keys(self.context.ensemble)}, sidecar_path(file))
        write_tsv(table, file)

    def draw(self, scores: Sequence[ScanScores]) -> None:
        """Draw the map, beside the first measured scan if there is one."""
        measured, merit = None, ""
        if scores:
            measured = load_volume(self.target.measured[0].suvr_file, ndim=3)
            rows = scores[0].scans.set_index("predictor")
            own = rows.loc[MODEL]
            others = {str(name): float(value) for name, value in rows["ssim"].items() if name != MODEL}
            merit = figures_of_merit(float(own["ssim"]), float(own["psnr"]), float(own["data_range"]), others)
        images = self.images
        figure = synthetic_figure(
            self.suvr, images.t1w, images.mask, measured=measured, reference=self.reference_region, aside=merit
        )
        save_figure(figure, self.target.names.figure)


def unknown_covariates(ensemble: Ensemble, covariates: Mapping[str, float]) -> list[str]:
    """Return a sentence on covariates that the models use and that are not known of the participant."""
    missing = [name for name in ensemble.covariate_names if name not in covariates]
    thickness = [name for name in missing if thickness_labels([name])]
    named = [name for name in missing if name not in thickness]
    if thickness:
        named.append(f"thickness of the cortex ({len(thickness)} region{'s' * (len(thickness) != 1)})")
    return [f"Not known of the participant, so that the model takes the average: {', '.join(named)}."] if named else []


def _about(t1w: Path) -> list[str]:
    """Return the sentences of a T1w's own sidecar: its assumptions, and whether it is simulated."""
    sidecar = sidecar_path(t1w)
    said = read_json(sidecar).get("Assumptions") if sidecar.is_file() else None
    return [str(sentence) for sentence in said] if isinstance(said, list) else []


def _place(card: Path, root: Path) -> str:
    """Return where a card lies: a path within these derivatives, else on this machine."""
    return bids_uri(card, root, "") if card.is_relative_to(root) else str(card)
