"""What the outputs of the synthesize level are called, and what stands in the sidecar of a synthetic map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau_pipeline.derivatives.names import derivative_path, image_sidecar


@dataclass(frozen=True)
class SyntheticNames:
    """The names of everything that is written for one synthetic scan.

    ``entities`` are those of the PET that the scan stands for: sub, ses, trc.
    """

    output_dir: Path
    entities: Mapping[str, str]

    @property
    def key(self) -> str:
        """One of a kind among the synthetic scans: ``sub-01_trc-AV1451_desc-synthSUVR``."""
        return self.rois.name.removesuffix("_rois.tsv")

    @property
    def suvr(self) -> Path:
        """Synthetic SUVR on the T1w grid."""
        return derivative_path(self.output_dir, self.entities, "pet", "pet", space="T1w", desc="synthSUVR")

    @property
    def uncertainty(self) -> Path:
        """Standard deviation of the synthetic SUVR, on the T1w grid."""
        return derivative_path(self.output_dir, self.entities, "pet", "pet", space="T1w", desc="synthSUVRsd")

    @property
    def rois(self) -> Path:
        """The table of regions."""
        return derivative_path(self.output_dir, self.entities, "pet", "rois", ".tsv", desc="synthSUVR")

    @property
    def agreement(self) -> Path:
        """Agreement with the measured PET, where there is one."""
        return derivative_path(self.output_dir, self.entities, "pet", "agreement", ".tsv", desc="synthSUVR")

    @property
    def figure(self) -> Path:
        """T1w, measured, synthetic and error."""
        return derivative_path(self.output_dir, self.entities, "figures", "pet", ".png", desc="synthSUVR")


@dataclass(frozen=True)
class SyntheticSidecar:
    """Every field of a synthetic map's sidecar.

    Attributes
    ----------
    sources, reference_image
        BIDS URIs of T1w, mask and labels, and of the T1w whose grid the map has.
    reference_region, tracer, manufacturer
        Of the SUVR that the model learned, and whose scale it has here.
    models
        ``{"Folder": …, "Card": …, "Hash": …, "Network": …}`` of each model.
    model_hash
        Of all together.
    training_split
        ``train`` if any model was trained on the participant, else ``validation``, ``test`` or ``none``.
    members
        How many predictions were averaged.
    flags
        Sentences on how the T1w is unlike the training images.
    uncertainty
        The calibration, or why there is none.
    assumptions
        Sentences on what the input did not state.
    """

    sources: tuple[str, ...]
    reference_image: str
    settings_hash: str
    reference_region: str
    tracer: str | None
    manufacturer: str | None
    models: tuple[Mapping[str, str], ...]
    model_hash: str
    training_split: str
    members: int
    flags: tuple[str, ...]
    uncertainty: Mapping[str, Any] | str
    assumptions: tuple[str, ...] = ()

    def content(self, what: str, **more: Any) -> dict[str, Any]:
        """The JSON object.

        Parameters
        ----------
        what
            Begin of the description: "Synthetic SUVR" or "Standard deviation of synthetic SUVR".
        **more
            Further keys, in BIDS spelling.
        """
        return image_sidecar(
            self.sources,
            self.settings_hash,
            skull_stripped=True,
            assumptions=self.assumptions,
            Description=f"{what} by {self.reference_region}, made from the T1w by a model; not a measurement",
            Synthetic=True,
            Units="unitless",
            SpatialReference=self.reference_image,
            ReferenceRegion=self.reference_region,
            TracerName=self.tracer or "n/a",
            Manufacturer=self.manufacturer or "n/a",
            OutsideBrain=0,
            Models=[dict(model) for model in self.models],
            ModelHash=self.model_hash,
            ParticipantInTrainingSet=self.training_split == "train",
            TrainingSplit=self.training_split,
            EnsembleMembers=self.members,
            Flags=list(self.flags),
            Uncertainty=self.uncertainty if isinstance(self.uncertainty, str) else dict(self.uncertainty),
            **more,
        )


#: Columns of a synthetic region table beside those of `tau_pipeline.measures.regions.COLUMNS`.
UNCERTAINTY_COLUMNS = {
    "suvr_mean_sd": {
        "Description": "Standard deviation of suvr_mean: that of the members of the ensemble, calibrated on the "
        "validation split where the sidecar of the map says so.",
        "Units": "1",
    },
    "suvr_mean_low": {
        "Description": "Lower end of the 90 % interval of suvr_mean; n/a if not calibrated.",
        "Units": "1",
    },
    "suvr_mean_high": {
        "Description": "Upper end of the 90 % interval of suvr_mean; n/a if not calibrated.",
        "Units": "1",
    },
}

#: Columns of the tables of agreement between synthetic and measured scans.
AGREEMENT_COLUMNS = {
    "participant_id": "Participant.",
    "session_id": "Session of the measured scan.",
    "scan": "The measured scan.",
    "tracer": "Of the measured scan.",
    "manufacturer": "Of the PET scanner of the measured scan.",
    "diagnosis": "Of the participant.",
    "reference_region": "Reference region of the SUVR.",
    "split": "Split of the model's training that the participant was in; none for strangers.",
    "predictor": "model, or a baseline: mean image of the training split, or of those with the same diagnosis.",
    "ssim": "Structural similarity on the volume (Gaussian window, SD 1.5 voxels); of a slice in a table of slices.",
    "psnr": "Peak signal-to-noise ratio on the volume, in dB; of a slice in a table of slices.",
    "mae": "Mean absolute error of SUVR; over voxels in the mask, in a table of regions over participants.",
    "rmse": "Root of the mean squared error of SUVR.",
    "n_voxels": "Voxels in the mask.",
    "data_range": "Range of SUVR that SSIM and PSNR are for.",
    "mask": "Where they are computed.",
    "slice": "Number of the axial slice from below, counted from 0.",
    "regional_mae": "Mean absolute error of the means of the cortical and subcortical regions.",
    "regional_bias": "Mean of synthetic minus measured means of the cortical and subcortical regions.",
    "braak_measured": "Stage by the measured composites above their thresholds; n/a without thresholds.",
    "braak_predicted": "Stage by the synthetic composites above their thresholds; n/a without thresholds.",
    "region": "Region or composite.",
    "index": "FreeSurfer number; n/a for composites.",
    "hemisphere": "left, right, both or midline.",
    "kind": "cortical, subcortical, reference or composite.",
    "n": "Participants.",
    "pearson_r": "Pearson's correlation of regional SUVR across participants.",
    "icc21": "Intraclass correlation ICC(2,1), in which an offset counts.",
    "icc31": "Intraclass correlation ICC(3,1), in which an offset does not count.",
    "bias": "Mean of synthetic minus measured SUVR over participants (Bland-Altman).",
    "bias_sd": "Standard deviation of these differences.",
    "limit_low": "Lower limit of agreement: bias minus 1.96 SD.",
    "limit_high": "Upper limit of agreement: bias plus 1.96 SD.",
    "positive_suvr": "SUVR from which on a region is tau-positive: mean plus 2 SD of the controls trained on.",
    "n_positive": "Participants whose measured SUVR is tau-positive.",
    "auc": "Area under the ROC curve of synthetic SUVR for measured tau positivity.",
    "measure": "What is averaged over participants; braak_kappa (weighted) and braak_same tell agreement in stage.",
    "n_participants": "Participants with a value.",
    "estimate": "Mean over participants, or agreement.",
    "low": "Lower end of the bootstrap interval over participants; n/a where there is none.",
    "high": "Upper end of the bootstrap interval over participants; n/a where there is none.",
    "confidence": "Of the interval.",
    "n_resamples": "Of the bootstrap.",
}
#: The same for names that hold a threshold of SUVR, by their beginning.
HOT_SPOT_COLUMNS = {
    "dice_": "Dice coefficient of the voxels above this SUVR; n/a where neither map has any.",
    "lesion_sensitivity_": "Part of the measured connected hot spots above this SUVR that the map finds.",
    "lesion_precision_": "Part of the map's connected hot spots above this SUVR that were measured.",
    "n_lesions_": "Number of measured connected hot spots above this SUVR.",
}
_ENDINGS = {
    "_axial": "Mean over axial slices, weighted by their voxels in the mask, of",
    "_low": "Lower end of the 95 % bootstrap interval over participants of",
    "_high": "Upper end of the 95 % bootstrap interval over participants of",
}


def agreement_columns(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The data dictionary of a table of agreement that has these columns.

    >>> agreement_columns(["auc_low"])["auc_low"]["Description"]
    'Lower end of the 95 % bootstrap interval over participants of auc'

    Raises
    ------
    KeyError
        There is no such column.
    """
    return {name: {"Description": _description(name)} for name in names}


def _description(name: str) -> str:
    if name in AGREEMENT_COLUMNS:
        return AGREEMENT_COLUMNS[name]
    if hot := [text for start, text in HOT_SPOT_COLUMNS.items() if name.startswith(start)]:
        return hot[0]
    ending = next(ending for ending in (*_ENDINGS, "") if name.endswith(ending))
    base = name.removesuffix(ending)
    return f"{_ENDINGS[ending]} {base}" if base in AGREEMENT_COLUMNS else AGREEMENT_COLUMNS[base]
