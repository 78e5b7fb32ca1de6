"""What the outputs of the synthesize level are called, and what stands in the sidecar of a synthetic map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tau_pipeline.derivatives import derivative_path, image_sidecar


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


#: Columns of a synthetic region table beside those of `tau_pipeline.roi.COLUMNS`.
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
