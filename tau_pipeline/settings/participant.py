"""Sections ``[settings]`` and ``[selection]``: what changes results, and which files go in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tau_pipeline.settings.fields import Checked, documented, require
from tau_pipeline.settings.spaces import OutputSpace, parse_space, surface_spaces

SkullStrip = Literal["auto", "skip", "force"]
PvcMethod = Literal["sgtm", "gtm", "rbv", "iy", "mg", "meltzer"]
PsfSource = Literal["image", "scanner"]
Orientation = Literal["auto", "sform", "qform"]
CortexLabels = Literal["volume", "hybrid"]
Longitudinal = Literal["off", "own-tissue", "fixed-labels"]
#: Settings that add files and change no value of the others.
ADDITIONS = ("output_spaces", "surfaces")


@dataclass(frozen=True)
class Settings(Checked):
    """Settings that change results. Two runs with equal settings and equal inputs give equal outputs.

    Raises
    ------
    SettingError
        A value has the wrong type or lies outside its range; the message names the setting and the value.
    """

    skull_strip_t1w: SkullStrip = field(
        default="auto",
        metadata=documented(
            "Brain extraction of the T1w: auto skips it if the image is already skull-stripped (SkullStripped in the "
            "sidecar, or no signal around the brain), skip never runs it, force always runs it.",
            source="spelling and values of fMRIPrep",
        ),
    )
    orientation: Orientation = field(
        default="auto",
        metadata=documented(
            "Description of the axes to take from the headers of T1w and PET: auto takes what NIfTI prescribes, and "
            "tells left from right by the head where a header is contradictory; sform and qform take that description.",
        ),
    )
    suvr_window: tuple[float, float] | None = field(
        default=None,
        metadata=documented(
            "Start and end of the SUVR window after injection. Frames are weighted by their overlap with it. "
            "Default: the tracer's default window.",
            unit="min",
        ),
    )
    ref_region: tuple[str, ...] = field(
        default=("CerebellarGM",),
        metadata=documented(
            "Reference regions, by name or as FreeSurfer label numbers joined by + (8+47). Each gives an SUVR map "
            "and a set of table rows."
        ),
    )
    smooth_fwhm: float = field(
        default=0.0,
        metadata=documented(
            "FWHM of the Gaussian kernel that smooths the PET; 0 for no smoothing.", unit="mm", at_least=0
        ),
    )
    target_fwhm: float | None = field(
        default=None,
        metadata=documented(
            "Effective resolution to which PET from every scanner is smoothed, given the resolution of the scanner. "
            "Default: no smoothing.",
            unit="mm",
            source="Joshi, Koeppe and Fessler 2009, NeuroImage 46:154",
            above=0,
        ),
    )
    match_visits: bool = field(
        default=False,
        metadata=documented(
            "Smooth the scans of each participant to the coarsest resolution among them, given the resolutions of the "
            "scanners: for change between visits on different scanners."
        ),
    )
    min_measured_fraction: float = field(
        default=0.5,
        metadata=documented(
            "Minimum share of a region that the PET must have measured, that is, that lies inside its field of view. "
            "A region with less is n/a; a reference region with less stops the scan.",
            above=0,
            at_most=1,
        ),
    )
    extent_suvr: float | None = field(
        default=None,
        metadata=documented(
            "SUVR above which a voxel counts for the column suvr_extent, the share of such voxels in each region and "
            "in the cortex. It depends on the tracer; 1.4 is in use for flortaucipir. Default: no such column.",
            source="Maass et al. 2017, NeuroImage 157:448",
            above=0,
        ),
    )
    pvc: tuple[PvcMethod, ...] = field(
        default=(),
        metadata=documented(
            "Methods of partial volume correction: symmetric geometric transfer matrix (sgtm), geometric transfer "
            "matrix (gtm), region-based voxelwise correction (rbv), iterative Yang (iy), Müller-Gärtner (mg), Meltzer "
            "(meltzer). The first fills the columns suvr_pvc_mean and suvr_pvc_se. Default: none.",
            source="Rousset 1998, Sattarivand 2012, Thomas 2011, Erlandsson 2012, Müller-Gärtner 1992, Meltzer 1990; "
            "see docs/decisions/partial-volume.md",
        ),
    )
    psf: tuple[float, ...] = field(
        default=(),
        metadata=documented(
            "Point spread of the PET for partial volume correction, FWHM: one value, or one for each axis of the PET. "
            "Default: as psf_source says.",
            unit="mm",
        ),
    )
    psf_source: PsfSource = field(
        default="image",
        metadata=documented(
            "Where the point spread comes from if psf is not given: estimated from the image and the regions (image), "
            "or the resolution of the scanner model (scanner), which is that of a point source and mostly too small. "
            "Images that were smoothed to a stated resolution have that one."
        ),
    )
    pvc_extracerebral: bool = field(
        default=False,
        metadata=documented(
            "Make hot spots of uptake around the brain, in meninges and skull, regions of partial volume correction, "
            "so that they do not raise the cortex beside them.",
            source="Baker et al. 2017, Data in Brief 15:648",
        ),
    )
    output_spaces: tuple[str, ...] = field(
        default=("T1w",),
        metadata=documented(
            "Spaces to write maps in, beside T1w, which is always written: MNI152NLin6Asym and MNI152NLin2009cAsym, "
            "with :res-1 or :res-2 for voxels of 1 or 2 mm (2 by default); fsaverage and fsLR, which need surfaces or "
            "those of FreeSurfer, fsaverage with :den-10k, :den-41k, or :den-164k (10k by default). Values in tables "
            "do not depend on it.",
            source="spelling of fMRIPrep",
        ),
    )
    surfaces: bool = field(
        default=False,
        metadata=documented(
            "Make surfaces of the cortex: white, pial, and central surface, thickness, labels by folding, and SUVR on "
            "the surfaces among the output spaces (fsaverage if there is none). Needs the optional package cat-surf: "
            "pip install 'tau-pipeline[surface]'.",
            source="projection-based thickness: Dahnke et al. 2013, NeuroImage 65:336; see docs/decisions/surfaces.md",
        ),
    )
    cortex_labels: CortexLabels = field(
        default="volume",
        metadata=documented(
            "What names the cortex in the volume: the warped atlas (volume), or the folds of the surface on the "
            "lateral side and the warped atlas in medial temporal, medial, and insular cortex (hybrid), which needs "
            "surfaces. Labels of FreeSurfer stay as they are.",
        ),
    )
    longitudinal: Longitudinal = field(
        default="off",
        metadata=documented(
            "Processing of participants with T1w images of several sessions: own-tissue (also if no value is given) "
            "registers the median of all visits to the template once, and the gray matter of each visit decides where "
            "its labels are; fixed-labels gives each visit the same labels and reference regions; off processes each "
            "visit by itself.",
            source="Reuter et al. 2012, NeuroImage 61:1402",
        ),
    )
    motion_correction: bool = field(
        default=True,
        metadata=documented("Register the frames of dynamic PET to each other before averaging."),
    )
    random_seed: int = field(
        default=0,
        metadata=documented(
            "Random seed of everything that is drawn (splits, training); the same seed gives the same results. "
            "The participant level draws nothing.",
            at_least=0,
            at_most=2**32 - 1,
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.suvr_window is not None:
            start, end = self.suvr_window
            require(0 <= start < end, "suvr_window", [start, end], "two times in minutes, 0 <= start < end")
            require(end <= 24 * 60, "suvr_window", [start, end], "minutes after injection; these look like seconds")
        require(bool(self.ref_region), "ref_region", [], "at least one reference region")
        require(len(set(self.ref_region)) == len(self.ref_region), "ref_region", list(self.ref_region), "each once")
        require(len(set(self.pvc)) == len(self.pvc), "pvc", list(self.pvc), "each method once")
        require(len(self.psf) in (0, 1, 3), "psf", list(self.psf), "one value, or one for each of three axes")
        require(all(0 < one <= 30 for one in self.psf), "psf", list(self.psf), "FWHM above 0 and at most 30 mm")
        both = bool(self.psf) and self.psf_source == "scanner"
        require(not both, "psf_source", self.psf_source, "image where psf is given")
        spaces = [parse_space(text) for text in self.output_spaces]
        object.__setattr__(self, "output_spaces", tuple(dict.fromkeys(map(str, spaces))))
        if self.target_fwhm is not None:
            require(self.smooth_fwhm == 0, "smooth_fwhm", self.smooth_fwhm, "0 where target_fwhm is given")
        if self.longitudinal != "off":
            require(not self.surfaces, "surfaces", self.surfaces, "no surfaces where longitudinal is given")
            on_surfaces = list(map(str, surface_spaces(self.output_spaces)))
            require(not on_surfaces, "output_spaces", on_surfaces, "no surfaces where longitudinal is given")
        if self.match_visits:
            require(self.smooth_fwhm == 0, "smooth_fwhm", self.smooth_fwhm, "0 where match_visits is given")
            require(self.target_fwhm is None, "target_fwhm", self.target_fwhm, "none where match_visits is given")

    @property
    def sampled_surfaces(self) -> tuple[OutputSpace, ...]:
        """Return the surfaces to write maps on: those that are asked for, or fsaverage where surfaces are made."""
        asked = surface_spaces(self.output_spaces)
        return tuple(asked or surface_spaces(["fsaverage"] if self.surfaces else []))

    def hash(self) -> str:
        """Return twelve hexadecimal digits, equal exactly for equal settings, on every machine and Python.

        `ADDITIONS` are left out: which further files are written does not change any value, and scans that were
        processed before somebody asked for more may be pooled with the others.
        """
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in ADDITIONS}
        text = json.dumps(values, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]


@dataclass(frozen=True)
class Selection(Checked):
    """Files of the dataset to process. Empty means all. Labels are kept without their ``sub-``, ``ses-``, … prefix."""

    participant_label: tuple[str, ...] = field(
        default=(), metadata=documented("Participants to process, with or without sub-. Default: all.")
    )
    session_label: tuple[str, ...] = field(
        default=(),
        metadata=documented(
            "Sessions of PET scans to process, with or without ses-. The T1w may be from another session. Default: all."
        ),
    )
    tracer_label: tuple[str, ...] = field(
        default=(), metadata=documented("Tracers to process: the trc- label of the file names. Default: all.")
    )
    rec_label: tuple[str, ...] = field(
        default=(), metadata=documented("PET reconstructions to process: the rec- label. Default: all.")
    )
    run_label: tuple[str, ...] = field(
        default=(),
        metadata=documented("PET runs to process: the run- label, with or without leading zeros. Default: all."),
    )
    bids_filter_file: Path | None = field(
        default=None,
        metadata=documented('JSON file of pybids filters: {"t1w": {...}, "pet": {...}}.', source="form of fMRIPrep"),
    )
    derivatives: tuple[str, ...] = field(
        default=(),
        metadata=documented(
            "Existing derivatives to use, as NAME=PATH; freesurfer is the subjects directory of FreeSurfer or "
            "FastSurfer.",
            flags=("--derivatives", "-d"),
        ),
    )

    fslr_dir: Path | None = field(
        default=None,
        metadata=documented(
            "Folder with the spheres of fsLR in the space of fsaverage, as in TemplateFlow's tpl-fsLR or the HCP "
            "pipelines, for the output space fsLR. Default: tpl-fsLR in $TEMPLATEFLOW_HOME or ~/.cache/templateflow."
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        prefixes = {"participant": "sub-", "session": "ses-", "tracer": "trc-", "rec": "rec-", "run": "run-"}
        for name, prefix in prefixes.items():
            labels = tuple(label.removeprefix(prefix) for label in getattr(self, f"{name}_label"))
            for label in labels:
                require(
                    label.isalnum() or "+" in label,
                    f"{name}_label",
                    label,
                    "a BIDS label, letters and digits; several are separated by spaces",
                )
            object.__setattr__(self, f"{name}_label", tuple(dict.fromkeys(labels)))

    @property
    def takes_all_images(self) -> bool:
        """True if nothing but participants is selected."""
        return not (
            self.session_label or self.tracer_label or self.rec_label or self.run_label or self.bids_filter_file
        )
