"""What the outputs are called, and what stands in their sidecars.

The names are BIDS derivatives' as far as BIDS has them; what it does not have yet (transforms, region tables, pages)
is listed in ``.bidsignore``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tau_pipeline
from tau_pipeline.errors import OutputError, TauPipelineError
from tau_pipeline.files import read_json, write_changed, write_json, write_text

SOFTWARE = "tau-pipeline"
BIDS_VERSION = "1.10.0"
TEMPLATE = "MNI152NLin6Asym"
PARCELLATION = "DesikanKilliany"

Datatype = Literal["anat", "pet", "figures"]

#: The order of entities in a name (BIDS 1.10, appendix "entities"); from, to and mode as in fMRIPrep.
ENTITY_ORDER = (
    *("sub", "ses", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec", "dir", "run"),
    *("mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk", "atlas"),
    *("seg", "scale", "res", "den", "label", "from", "to", "mode", "desc"),
)

#: Entities of the raw names that BIDS allows in the derivatives' names too.
KEPT_ENTITIES = {
    "anat": ("sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "part", "chunk"),
    "pet": ("sub", "ses", "task", "trc", "rec", "run"),
    "figures": ("sub", "ses", "task", "acq", "ce", "trc", "rec", "run", "echo", "part", "chunk"),
}

#: Without slashes, since the validator (3.0) does not match a folder against a pattern that ends with one.
BIDSIGNORE = (
    *("*.html", "*_xfm.*", "*_rois.tsv", "*_rois.json", "*_agreement.tsv", "*_agreement.json"),
    *("comparisons", "figures", "group", "logs", "models"),
)


def derivative_path(
    output_dir: Path,
    entities: Mapping[str, str],
    datatype: Datatype,
    suffix: str,
    ending: str = ".nii.gz",
    **changes: str,
) -> Path:
    """The path of an output: the source's entities that BIDS keeps, and ``changes``, in BIDS order.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    entities
        Those of the source's name, with BIDS keys: ``{"sub": "01", "trc": "AV1451"}``.
    datatype
        The folder; figures have one folder for all sessions of a participant.
    suffix, ending
        The end of the name.
    **changes
        Entities to add or replace: ``space="T1w", desc="suvr"``. ``from_`` stands for ``from``, a word of Python.

    Examples
    --------
    >>> derivative_path(Path("out"), {"sub": "01", "trc": "AV1451"}, "pet", "pet", space="T1w", desc="suvr").as_posix()
    'out/sub-01/pet/sub-01_trc-AV1451_space-T1w_desc-suvr_pet.nii.gz'

    Raises
    ------
    ValueError
        A change is no BIDS entity, or its label has other characters than letters, digits and ``+``.
    """
    parts = {key: label for key, label in entities.items() if key in KEPT_ENTITIES[datatype]}
    parts |= {key.rstrip("_"): label for key, label in changes.items()}
    for key, label in parts.items():
        if key not in ENTITY_ORDER or not re.fullmatch(r"[0-9A-Za-z+]+", label):
            raise ValueError(f"{key}-{label} is not a BIDS entity with a label of letters and digits")
    name = "_".join(f"{key}-{parts[key]}" for key in ENTITY_ORDER if key in parts)
    folder = Path(output_dir) / f"sub-{parts['sub']}"
    if "ses" in parts and datatype != "figures":
        folder /= f"ses-{parts['ses']}"
    return folder / datatype / f"{name}_{suffix}{ending}"


def sidecar_path(file: Path) -> Path:
    """The JSON sidecar of an image or table."""
    return file.with_name(file.name.split(".", 1)[0] + ".json")


@dataclass(frozen=True)
class AnatNames:
    """The names of everything that is written for one T1w."""

    output_dir: Path
    entities: Mapping[str, str]

    def _path(self, suffix: str, ending: str = ".nii.gz", **changes: str) -> Path:
        return derivative_path(self.output_dir, self.entities, "anat", suffix, ending, **changes)

    @property
    def t1w(self) -> Path:
        """Bias-corrected T1w, full head."""
        return self._path("T1w", desc="preproc")

    @property
    def mask(self) -> Path:
        """Brain mask."""
        return self._path("mask", desc="brain")

    @property
    def dseg(self) -> Path:
        """Desikan-Killiany parcellation with FreeSurfer numbers."""
        return self._path("dseg", seg=PARCELLATION)

    @property
    def dseg_table(self) -> Path:
        """Numbers, names and colours of the parcellation."""
        return self._path("dseg", ".tsv", seg=PARCELLATION)

    def reference_mask(self, region: str) -> Path:
        """Mask of a reference region, by the name that it has in tables (``CerebellarGM``)."""
        return self._path("mask", label=region)

    def to_template(self, ending: str = ".h5") -> Path:
        """ITK transform for moving the T1w onto the template."""
        return self._path("xfm", ending, from_="T1w", to=TEMPLATE, mode="image")

    def from_template(self, ending: str = ".h5") -> Path:
        """ITK transform for moving template images onto the T1w."""
        return self._path("xfm", ending, from_=TEMPLATE, to="T1w", mode="image")

    def figure(self, desc: str, suffix: str = "T1w", ending: str = ".png") -> Path:
        """A figure of the anatomy."""
        return derivative_path(self.output_dir, self.entities, "figures", suffix, ending, desc=desc)


@dataclass(frozen=True)
class PetNames:
    """The names of everything that is written for one PET scan.

    The SUVR map of the first reference region has the plain name; those of further ones carry the region in ``desc``
    (``desc-suvrPons``), since BIDS has no label entity for PET. The table holds the rows of all of them.
    """

    output_dir: Path
    entities: Mapping[str, str]

    def _path(self, suffix: str, ending: str = ".nii.gz", **changes: str) -> Path:
        return derivative_path(self.output_dir, self.entities, "pet", suffix, ending, **changes)

    def suvr(self, further_region: str = "") -> Path:
        """SUVR on the T1w grid; of a further reference region if one is named."""
        return self._path("pet", space="T1w", desc=f"suvr{further_region}")

    @property
    def rois(self) -> Path:
        """The table of regions."""
        return self._path("rois", ".tsv", desc="suvr")

    @property
    def to_t1w(self) -> Path:
        """ITK transform for moving the PET onto the T1w."""
        return self._path("xfm", ".txt", from_="pet", to="T1w", mode="image")

    def figure(self, desc: str, suffix: str = "pet", ending: str = ".png") -> Path:
        """A figure of the PET."""
        return derivative_path(self.output_dir, self.entities, "figures", suffix, ending, desc=desc)


def page_path(output_dir: Path, participant: str) -> Path:
    """The HTML page of a participant."""
    return Path(output_dir) / f"sub-{participant}.html"


def error_path(output_dir: Path, key: str) -> Path:
    """The record of a failed scan or participant; ``key`` is the stem of the raw file's name, or ``sub-01``."""
    return Path(output_dir) / "logs" / "errors" / f"{key}.json"


def bids_uri(file: Path, root: Path, dataset: str = "raw") -> str:
    """The BIDS URI of a file: ``bids:raw:sub-01/anat/sub-01_T1w.nii.gz``; ``dataset=""`` means these derivatives.

    Examples
    --------
    >>> bids_uri(Path("/data/sub-01/anat/sub-01_T1w.nii"), Path("/data"))
    'bids:raw:sub-01/anat/sub-01_T1w.nii'
    """
    return f"bids:{dataset}:{Path(file).absolute().relative_to(Path(root).absolute()).as_posix()}"


def image_sidecar(
    sources: Iterable[str],
    settings_hash: str,
    *,
    skull_stripped: bool,
    assumptions: Iterable[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """What stands in the sidecar of every image: where it comes from, what made it, what was assumed.

    Parameters
    ----------
    sources
        BIDS URIs (`bids_uri`) of the direct inputs.
    settings_hash
        `tau_pipeline.settings.configuration.Settings.hash`.
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
        Normalised mutual information after coregistration.
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
        """The JSON object, with every field of the contract."""

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


README = """\
Regional SUVR of tau PET, made by {software} {version}

sub-*/.../anat   T1w with its bias corrected, brain mask, Desikan-Killiany parcellation, reference regions, transforms
sub-*/.../pet    SUVR map on the grid of the T1w, table of regions, transform from PET to T1w
sub-*.html       one page of figures and figures of merit for each participant
group            tables of all participants
models           trained models, one folder each
logs             records of failed scans, citations

Every image has a JSON sidecar with its sources, the version, the hash of the settings, and in "Assumptions" every value
that the input did not state. Transforms are ITK files, for use with ANTs.
"""


def write_dataset_files(output_dir: Path, bids_dir: Path, derivatives: Mapping[str, Path] | None = None) -> None:
    """Write ``dataset_description.json``, ``README`` and ``.bidsignore`` of the output.

    Parameters
    ----------
    output_dir, bids_dir
        Roots of output and input. ``bids:raw:`` in the sidecars means the input.
    derivatives
        Further inputs by name; ``bids:NAME:`` means them.

    Raises
    ------
    OutputError
        The output folder holds another dataset, or cannot be written to.
    """
    output_dir = Path(output_dir)
    check_output_dir(output_dir, Path(bids_dir))
    links = {"raw": Path(bids_dir), **(derivatives or {})}
    description = {
        "Name": "Regional SUVR of tau PET",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": SOFTWARE, "Version": tau_pipeline.__version__}],
        "SourceDatasets": [{"URL": path.absolute().as_uri()} for path in links.values()],
        "DatasetLinks": {name: path.absolute().as_uri() for name, path in links.items()},
        "HowToAcknowledge": "See logs/CITATION.md.",
    }
    write_json(description, output_dir / "dataset_description.json")
    write_text(README.format(software=SOFTWARE, version=tau_pipeline.__version__), output_dir / "README")
    write_bidsignore(output_dir)


def write_bidsignore(output_dir: Path) -> None:
    """Name to the BIDS validator what BIDS has no names for; every level writes it, for its own files."""
    write_changed("\n".join(BIDSIGNORE) + "\n", Path(output_dir) / ".bidsignore")


def check_output_dir(output_dir: Path, bids_dir: Path) -> None:
    """Refuse an output folder that is the input, or that holds a dataset of something else.

    Raises
    ------
    OutputError
        With the reason; nothing has been written.
    """
    if output_dir.resolve() == bids_dir.resolve():
        raise OutputError(f"the output folder {output_dir} is the input dataset; give another folder")
    if output_dir.exists() and not output_dir.is_dir():
        raise OutputError(f"the output folder {output_dir} is a file; give another folder")
    if not (output_dir / "dataset_description.json").exists():
        return
    try:
        found = read_json(output_dir / "dataset_description.json")
    except TauPipelineError as exc:
        raise OutputError(f"the output folder is in use: {exc}") from exc
    makers = found.get("GeneratedBy")
    names = [maker.get("Name") for maker in makers if isinstance(maker, dict)] if isinstance(makers, list) else []
    if SOFTWARE not in names:
        made_by = f"made by {', '.join(map(str, names))}" if names else "not made by this program"
        raise OutputError(f"the output folder {output_dir} holds a dataset {made_by}; give another folder")
