"""The JSON sidecar of every output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tau_pipeline
from tau_pipeline.derivatives.names import SOFTWARE
from tau_pipeline.settings.spaces import OutputSpace

#: What the sidecar of a PET states of its reconstruction, which that of the SUVR map repeats.
RECONSTRUCTION = ("ReconMethodName", "ReconMethodParameterValues", "ReconFilterType", "ReconFilterSize")


def bids_uri(file: Path, root: Path, dataset: str = "raw") -> str:
    """Return the BIDS URI of a file: ``bids:raw:sub-01/anat/x.nii.gz``; ``dataset=""`` means these derivatives.

    Examples
    --------
    >>> bids_uri(Path("/data/sub-01/anat/sub-01_T1w.nii"), Path("/data"))
    'bids:raw:sub-01/anat/sub-01_T1w.nii'
    """
    return f"bids:{dataset}:{Path(file).absolute().relative_to(Path(root).absolute()).as_posix()}"


def space_fields(space: OutputSpace) -> dict[str, str]:
    """Return the fields that a file in the space of a template has in place of those of a file on the T1w grid."""
    image = f"tpl-{space.name}/tpl-{space.name}_res-0{space.value}_T1w.nii.gz"
    return {
        "SpatialReference": f"https://templateflow.s3.amazonaws.com/{image}",
        "Resolution": f"Cubes of {space.value} mm on TemplateFlow's grid of {space.name} (res-0{space.value})",
    }


def image_sidecar(
    sources: Iterable[str],
    settings_hash: str,
    *,
    skull_stripped: bool,
    assumptions: Iterable[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return the fields of every image's sidecar: sources, software, and assumptions.

    Parameters
    ----------
    sources
        BIDS URIs (`bids_uri`) of the direct inputs.
    settings_hash
        `tau_pipeline.settings.participant.Settings.hash`.
    skull_stripped
        Whether the image shows the brain alone.
    assumptions
        Sentences on what the input did not state.
    **more
        Further keys, in BIDS spelling.
    """
    return {
        **more,
        "SkullStripped": skull_stripped,
        "Sources": list(sources),
        "SoftwareName": SOFTWARE,
        "SoftwareVersion": tau_pipeline.__version__,
        "SettingsHash": settings_hash,
        "Assumptions": list(dict.fromkeys(assumptions)),
    }


@dataclass(frozen=True)
class SuvrSidecar:
    """Every field of an SUVR map's sidecar. None becomes ``n/a``.

    Attributes
    ----------
    sources, reference_image
        BIDS URIs of the direct inputs, and of the T1w whose grid the map has.
    reference_region_indices, reference_region_volume_mm3, reference_value
        Label numbers, volume, and mean activity (in the PET's units) of the reference region.
    frame_start_s, frame_duration_s
        Time after injection that the map stands for. The map is one frame, so BIDS wants one value of each; where the
        input states no time, the window that was assumed.
    frame_indices
        Which frames of the input went into the map, counted from 0.
    smoothing_fwhm_mm, effective_fwhm_mm
        The filter that was applied, and the resolution of the result.
    registration_metric
        Normalized mutual information after coregistration.
    labels
        Whose parcellation was used.
    assumptions
        Sentences on what the input did not state.
    """

    sources: tuple[str, ...]
    reference_image: str
    settings_hash: str
    reference_region: str
    reference_region_indices: tuple[int, ...]
    reference_region_volume_mm3: float
    reference_value: float
    frame_start_s: float
    frame_duration_s: float
    frame_indices: tuple[int, ...]
    tracer: str | None
    radionuclide: str | None
    manufacturer: str | None
    model: str | None
    smoothing_fwhm_mm: float | tuple[float, ...] | None
    effective_fwhm_mm: float | None
    registration_metric: float | None
    labels: str
    assumptions: tuple[str, ...] = ()
    skull_stripped: bool = False

    def content(self) -> dict[str, Any]:
        """Return the JSON object, with every documented field."""

        def known(value: Any) -> Any:
            return "n/a" if value is None else value

        return image_sidecar(
            self.sources,
            self.settings_hash,
            skull_stripped=self.skull_stripped,
            assumptions=self.assumptions,
            Description=f"SUVR by {self.reference_region} on the grid of the T1w",
            Units="unitless",
            SpatialReference=self.reference_image,
            ReferenceRegion=self.reference_region,
            ReferenceRegionIndices=list(self.reference_region_indices),
            ReferenceRegionVolume=self.reference_region_volume_mm3,
            ReferenceValue=self.reference_value,
            InjectionStart=0,
            FrameTimesStart=[self.frame_start_s],
            FrameDuration=[self.frame_duration_s],
            FrameIndices=list(self.frame_indices),
            TracerName=known(self.tracer),
            TracerRadionuclide=known(self.radionuclide),
            Manufacturer=known(self.manufacturer),
            ManufacturersModelName=known(self.model),
            SmoothingFWHM=known(self.smoothing_fwhm_mm),
            EffectiveFWHM=known(self.effective_fwhm_mm),
            RegistrationMetric=known(self.registration_metric),
            Labels=self.labels,
        )


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
    baselines
        ``BeatsBaselines`` and ``Baselines``: how the models do beside simple predictors.
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
    baselines: Mapping[str, Any] = field(default_factory=lambda: {"BeatsBaselines": "n/a", "Baselines": []})

    def content(self, what: str, **more: Any) -> dict[str, Any]:
        """Return the JSON object.

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
            **self.baselines,
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
