"""Names of the outputs, and contents of their sidecars.

The names are BIDS derivatives' as far as BIDS has them; what it does not have yet (transforms, region tables, reports)
is listed in ``.bidsignore``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

from tau_pipeline.files import name_parts
from tau_pipeline.settings.spaces import OutputSpace

SOFTWARE = "tau-pipeline"
BIDS_VERSION = "1.10.0"
_TEMPLATE = "MNI152NLin6Asym"
_PARCELLATION = "DesikanKilliany"
_HEMISPHERES = {"left": "L", "right": "R"}

Datatype = Literal["anat", "pet", "figures"]
Source = Literal["measured", "synthetic"]

#: The order of entities in a name (BIDS 1.10, appendix "entities"); from, to and mode as in fMRIPrep.
ENTITY_ORDER = (
    *("sub", "ses", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec", "dir", "run"),
    *("mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk", "atlas"),
    *("seg", "scale", "res", "den", "label", "from", "to", "mode", "desc"),
)

#: Entities that identify a T1w or PET scan of a participant; the others identify outputs made from it.
SCAN_ENTITIES = ("ses", "task", "acq", "ce", "trc", "rec", "run", "echo", "part", "chunk")
#: Entities of the raw names that BIDS allows in the derivatives' names too.
_KEPT_ENTITIES = {
    "anat": ("sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "part", "chunk"),
    "pet": ("sub", "ses", "task", "trc", "rec", "run"),
    "figures": ("sub", *SCAN_ENTITIES),
}


def derivative_path(
    output_dir: Path,
    entities: Mapping[str, str],
    datatype: Datatype,
    suffix: str,
    ending: str = ".nii.gz",
    **changes: str,
) -> Path:
    """Return the path of an output: the source's entities that BIDS keeps, and ``changes``, in BIDS order.

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
    parts = {key: label for key, label in entities.items() if key in _KEPT_ENTITIES[datatype]}
    parts |= {key.rstrip("_"): label for key, label in changes.items()}
    for key, label in parts.items():
        if key not in ENTITY_ORDER or not re.fullmatch(r"[0-9A-Za-z+]+", label):
            raise ValueError(f"{key}-{label} is not a BIDS entity with a label of letters and digits")
    name = "_".join(f"{key}-{parts[key]}" for key in ENTITY_ORDER if key in parts)
    return derivative_folder(output_dir, parts, datatype) / f"{name}_{suffix}{ending}"


def derivative_folder(output_dir: Path, entities: Mapping[str, str], datatype: str) -> Path:
    """Return the folder of an output; figures have one folder for all sessions of a participant."""
    folder = Path(output_dir) / f"sub-{entities['sub']}"
    if "ses" in entities and datatype != "figures":
        folder /= f"ses-{entities['ses']}"
    return folder / datatype


def scan_entities(path: Path) -> dict[str, str]:
    """Return those entities of an output's name that identify its scan, without those of the output itself.

    Examples
    --------
    >>> scan_entities(Path("sub-01_trc-AV1451_space-T1w_desc-suvr_pet.nii.gz"))
    {'sub': '01', 'trc': 'AV1451'}
    """
    return {key: label for key, label in name_parts(path)[0].items() if key in ("sub", *SCAN_ENTITIES)}


def sidecar_path(file: Path) -> Path:
    """Return the JSON sidecar of an image or table."""
    return file.with_name(file.name.split(".", 1)[0] + ".json")


@dataclass(frozen=True)
class _Names:
    """The names of everything that is written for one T1w or scan, with the entities of its raw name."""

    output_dir: Path
    entities: Mapping[str, str]

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the names that an output in ``anat`` or ``pet`` belongs to, from its path."""
        own = scan_entities(path)
        return cls(path.parents[3 if "ses" in own else 2], own)


@dataclass(frozen=True)
class AnatNames(_Names):
    """The names of everything that is written for one T1w."""

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
        return self._path("dseg", seg=_PARCELLATION)

    @property
    def dseg_table(self) -> Path:
        """Numbers, names and colors of the parcellation."""
        return self._path("dseg", ".tsv", seg=_PARCELLATION)

    def t1w_in(self, space: OutputSpace) -> Path:
        """Return the bias-corrected T1w in another space."""
        return self._path("T1w", desc="preproc", **space.entities)

    def dseg_in(self, space: OutputSpace) -> Path:
        """Return the parcellation in another space."""
        return self._path("dseg", seg=_PARCELLATION, **space.entities)

    def jacobian_in(self, space: OutputSpace) -> Path:
        """Return the volume in the T1w of what each voxel of another space shows, over the volume of the voxel."""
        return self._path("jacobian", **space.entities)

    def reference_mask(self, region: str) -> Path:
        """Mask of a reference region, by the name that it has in tables (``CerebellarGM``)."""
        return self._path("mask", label=region)

    def to_template(self, ending: str = ".h5") -> Path:
        """Return the ITK transform that moves the T1w onto the template."""
        return self._path("xfm", ending, from_="T1w", to=_TEMPLATE, mode="image")

    def from_template(self, ending: str = ".h5") -> Path:
        """Return the ITK transform that moves template images onto the T1w."""
        return self._path("xfm", ending, from_=_TEMPLATE, to="T1w", mode="image")

    def surface(self, side: Literal["left", "right"], kind: str) -> Path:
        """Return a file of the surface of one hemisphere.

        ``kind`` is midthickness, white, or pial; sphere, which is registered to fsaverage; thickness; or labels.
        """
        hemi = _HEMISPHERES[side]
        if kind == "sphere":
            return self._path("sphere", ".surf.gii", hemi=hemi, space="fsaverage", desc="reg")
        if kind == "labels":
            return self._path("dseg", ".label.gii", hemi=hemi, seg=_PARCELLATION)
        return self._path(kind, ".shape.gii" if kind == "thickness" else ".surf.gii", hemi=hemi)

    @property
    def thickness_table(self) -> Path:
        """The table of the thickness of the cortex by region."""
        return self._path("rois", ".tsv", desc="thickness")

    def figure(self, desc: str, suffix: str = "T1w", ending: str = ".png") -> Path:
        """Return the path of a figure of the anatomy."""
        return derivative_path(self.output_dir, self.entities, "figures", suffix, ending, desc=desc)


@dataclass(frozen=True)
class HalfwayNames(_Names):
    """The names of what the longitudinal stream writes, of a participant (``sub`` alone), T1w, or PET scan."""

    @property
    def t1w(self) -> Path:
        """Median of the T1w images of all visits in the halfway space; of the participant."""
        return derivative_path(self.output_dir, self._participant, "anat", "T1w", desc="halfway")

    @property
    def mask(self) -> Path:
        """Brain mask of `t1w`."""
        return derivative_path(self.output_dir, self._participant, "anat", "mask", desc="halfway")

    @property
    def dseg(self) -> Path:
        """Parcellation of `t1w`."""
        return derivative_path(self.output_dir, self._participant, "anat", "dseg", seg=_PARCELLATION, desc="halfway")

    @property
    def figure(self) -> Path:
        """Figure of `t1w` with the outline of the brain at each visit."""
        return derivative_path(self.output_dir, self._participant, "figures", "T1w", ".png", desc="halfway")

    @property
    def to_halfway(self) -> Path:
        """ITK transform that moves the T1w of a visit onto the halfway image."""
        changes = {"from_": "T1w", "to": "halfway", "mode": "image"}
        return derivative_path(self.output_dir, self.entities, "anat", "xfm", ".txt", **changes)

    def suvr(self, further_region: str = "") -> Path:
        """Return the SUVR map of a scan in the halfway space; of a further reference region if one is named."""
        changes = {"space": "halfway", "desc": f"suvr{further_region}"}
        return derivative_path(self.output_dir, self.entities, "pet", "pet", **changes)

    @property
    def _participant(self) -> dict[str, str]:
        return {"sub": self.entities["sub"]}


@dataclass(frozen=True)
class _ScanNames(_Names):
    """The names that measured and synthetic scans share: SUVR map, standardized map, and table of regions.

    The map of the first reference region has the plain name; those of further ones carry the region in ``desc``
    (``desc-suvrPons``), since BIDS has no label entity for PET. The table holds the rows of all of them.
    """

    #: Where the SUVR comes from, and ``desc`` of SUVR and standardized maps.
    source: ClassVar[Source]
    _desc: ClassVar[str]
    _standardized_desc: ClassVar[str]

    def _path(self, suffix: str, ending: str = ".nii.gz", **changes: str) -> Path:
        return derivative_path(self.output_dir, self.entities, "pet", suffix, ending, **changes)

    @cached_property
    def stem(self) -> str:
        """Start of all names of the scan: ``sub-01_ses-a_trc-AV1451``."""
        return self.rois.name.removesuffix(f"_desc-{self._desc}_rois.tsv")

    def suvr(self, further_region: str = "") -> Path:
        """Return the SUVR map on the T1w grid; of a further reference region if one is named."""
        return self._path("pet", space="T1w", desc=f"{self._desc}{further_region}")

    def standardized(self, further_region: str = "") -> Path:
        """Return the map of `suvr`, standardized by manufacturer."""
        return self._path("pet", space="T1w", desc=f"{self._standardized_desc}{further_region}")

    @property
    def rois(self) -> Path:
        """The table of regions."""
        return self._path("rois", ".tsv", desc=self._desc)


@dataclass(frozen=True)
class PetNames(_ScanNames):
    """The names of everything that is written for one PET scan."""

    source = "measured"
    _desc = "suvr"
    _standardized_desc = "std"

    def corrected(self, method: str) -> Path:
        """Return the SUVR map corrected for partial volume effects, by the first reference region."""
        return self._path("pet", space="T1w", desc=f"pvc{method.upper()}")

    def suvr_in(self, space: OutputSpace, further_region: str = "") -> Path:
        """Return the SUVR map in another space; of a further reference region if one is named."""
        return self._path("pet", desc=f"{self._desc}{further_region}", **space.entities)

    def corrected_in(self, space: OutputSpace, method: str) -> Path:
        """Return the map of `corrected` in another space."""
        return self._path("pet", desc=f"pvc{method.upper()}", **space.entities)

    def surface_suvr(self, side: Literal["left", "right"] | None, space: OutputSpace, further_region: str = "") -> Path:
        """Return the SUVR on an average surface: one hemisphere, or both in one CIFTI file for ``side`` None."""
        return self._on_surface(side, space, f"{self._desc}{further_region}")

    def surface_corrected(self, side: Literal["left", "right"] | None, space: OutputSpace, method: str) -> Path:
        """Return the map of `corrected` on an average surface, as `surface_suvr`."""
        return self._on_surface(side, space, f"pvc{method.upper()}")

    def _on_surface(self, side: Literal["left", "right"] | None, space: OutputSpace, desc: str) -> Path:
        hemi = {"hemi": _HEMISPHERES[side]} if side else {}
        return self._path("pet", ".func.gii" if side else ".dscalar.nii", **hemi, **space.entities, desc=desc)

    @property
    def to_t1w(self) -> Path:
        """ITK transform for moving the PET onto the T1w."""
        return self._path("xfm", ".txt", from_="pet", to="T1w", mode="image")

    def figure(self, desc: str, suffix: str = "pet", ending: str = ".png") -> Path:
        """Return the path of a figure of the PET."""
        return derivative_path(self.output_dir, self.entities, "figures", suffix, ending, desc=desc)


def report_path(output_dir: Path, participant: str) -> Path:
    """Return the HTML report of a participant."""
    return Path(output_dir) / f"sub-{participant}.html"


def error_path(output_dir: Path, key: str) -> Path:
    """Return the record of a failed scan or participant; ``key`` is the stem of the raw file's name, or ``sub-01``."""
    return Path(output_dir) / "logs" / "errors" / f"{key}.json"


@dataclass(frozen=True)
class SyntheticNames(_ScanNames):
    """The names of everything that is written for one synthetic scan.

    ``entities`` are those of the PET that the scan stands for: sub, ses, trc.
    """

    source = "synthetic"
    _desc = "synthSUVR"
    _standardized_desc = "synthStd"

    @property
    def key(self) -> str:
        """One of a kind among the synthetic scans: ``sub-01_trc-AV1451_desc-synthSUVR``."""
        return self.rois.name.removesuffix("_rois.tsv")

    @property
    def uncertainty(self) -> Path:
        """Standard deviation of the synthetic SUVR, on the T1w grid."""
        return self._path("pet", space="T1w", desc="synthSUVRsd")

    @property
    def agreement(self) -> Path:
        """Agreement with the measured PET, where there is one."""
        return self._path("agreement", ".tsv", desc=self._desc)

    @property
    def figure(self) -> Path:
        """T1w, measured, synthetic and error."""
        return derivative_path(self.output_dir, self.entities, "figures", "pet", ".png", desc=self._desc)
