"""Section ``[group]``: what is done with the scans of a cohort."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tau_pipeline.settings.fields import Checked, documented, require
from tau_pipeline.settings.spaces import parse_space

UnknownManufacturer = Literal["error", "pooled", "exclude"]


Harmonize = Literal["none", "combat"]
Columns = Literal["own", "adni"]
Covariate = Literal["age", "sex"]
_THRESHOLD = re.compile(r"[^=]*\w[^=]*=(2sd|gmm|\d+(\.\d+)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Group(Checked):
    """Settings of the group level."""

    min_participants: int = field(
        default=5,
        metadata=documented(
            "Minimum number of participants for a manufacturer to be standardized separately.", at_least=1
        ),
    )
    unknown_manufacturer: UnknownManufacturer = field(
        default="error",
        metadata=documented(
            "Scans from manufacturers that are unknown or have too few participants: error stops before anything is "
            "written, pooled standardizes them with all participants together, exclude leaves them without "
            "standardized values."
        ),
    )
    fit_participants: tuple[str, ...] = field(
        default=(),
        metadata=documented(
            "Participants that the standardization, thresholds, z-scores, and W-scores are fitted on (such as a "
            "training split), with or without sub-. Default: all."
        ),
    )
    standardization: Path | None = field(
        default=None,
        metadata=documented(
            "standardization.tsv of an earlier fit (such as that of a model) to use instead of a new fit."
        ),
    )
    diagnosis_column: str | None = field(
        default=None,
        metadata=documented(
            "Column of participants.tsv or sessions.tsv with the diagnosis. Default: diagnosis, dx, group, or similar, "
            "whichever exists."
        ),
    )
    reference_group: str | None = field(
        default=None,
        metadata=documented(
            "Also write z-scores of regional SUVR against the participants for whom this holds: comparisons of columns "
            'of participants.tsv, joined by and, such as "diagnosis == CN". Default: no z-scores.'
        ),
    )
    threshold: tuple[str, ...] = field(
        default=(),
        metadata=documented(
            "Thresholds of tau positivity, REGION=HOW each: HOW is an SUVR, 2sd (mean plus 2 SD of the reference "
            "group), or gmm (mixture of two normal distributions); braak means braak1, braak34, and braak56, and gives "
            "stages. Default: none.",
            source="2sd: Weigand 2022, Alzheimer's & Dementia 18:1447",
        ),
    )
    w_scores: tuple[Covariate, ...] = field(
        default=(),
        metadata=documented(
            "Also write W-scores of regional SUVR: distance from what these covariates predict in the reference group, "
            "in standard deviations of its residuals. Default: none.",
            source="La Joie et al. 2012, J Neurosci 32:16265",
        ),
    )
    centaur_masks: Path | None = field(
        default=None,
        metadata=documented(
            "Folder with the CenTauR masks, downloaded from gaain.org: also write SUVR in them and uncalibrated "
            "CenTauRz. Default: none.",
            source="Villemagne et al. 2023, Alzheimer's & Dementia: DADM 15:e12454",
        ),
    )
    calibration_line: Path | None = field(
        default=None,
        metadata=documented(
            "calibration.json of the level calibrate: also write calibrated values of its column. Default: none."
        ),
    )
    voxelwise: str | None = field(
        default=None,
        metadata=documented(
            "Compare SUVR maps voxel by voxel: names of covariates joined by +, such as 'diagnosis + age + sex'. The "
            "first one is tested. They are age, sex, diagnosis, manufacturer, or columns of participants.tsv. "
            "Default: no comparison.",
            source="TFCE: Smith and Nichols 2009, NeuroImage 44:83",
        ),
    )
    contrast: str | None = field(
        default=None,
        metadata=documented(
            "What the voxelwise comparison tests: 'A - B' for two groups, or the name of a numeric covariate. Default: "
            "the first covariate."
        ),
    )
    voxelwise_space: str = field(
        default="MNI152NLin6Asym:res-2",
        metadata=documented("Space of the maps that are compared, as in output_spaces."),
    )
    voxelwise_fwhm: float = field(
        default=8.0,
        metadata=documented(
            "Effective resolution (FWHM) that maps are smoothed to before the voxelwise comparison.",
            unit="mm",
            at_least=0,
        ),
    )
    voxelwise_permutations: int = field(
        default=1000,
        metadata=documented(
            "Permutations of the voxelwise comparison; the smallest possible p is one over this number plus 1.",
            at_least=20,
        ),
    )
    columns: Columns = field(
        default="own",
        metadata=documented(
            "adni also writes one row per scan with the columns of ADNI's UC Berkeley tau PET tables: "
            "UCBERKELEY_TAU_6MM and, with partial volume correction, UCBERKELEY_TAUPVC_6MM.",
            source="UCBERKELEY_TAU_6MM, LONI",
        ),
    )
    allow_mixed_settings: bool = field(
        default=False,
        metadata=documented(
            "Pool scans that were made with different settings, versions, or windows. Otherwise they are refused."
        ),
    )
    harmonize: Harmonize = field(
        default="none",
        metadata=documented(
            "Also write regional SUVR harmonized between manufacturers with ComBat, preserving diagnosis, age, "
            "and sex.",
            source="Johnson, Li and Rabinovic 2007, Biostatistics 8:118; Fortin et al. 2018, NeuroImage 167:104",
        ),
    )

    exclude: Path | None = field(
        default=None,
        metadata=documented(
            "TSV file of scans to leave out: a column scan, or participant_id and perhaps session_id; who and why are "
            "kept if it has them."
        ),
    )
    include_failed_quality: bool = field(
        default=False,
        metadata=documented(
            "Use scans whose quality is fail, too, in standardization, group figures, tests, and training."
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        labels = tuple(label.removeprefix("sub-") for label in self.fit_participants)
        object.__setattr__(self, "fit_participants", tuple(dict.fromkeys(labels)))
        both = self.standardization is not None and bool(self.fit_participants)
        for text in self.threshold:
            expected = "REGION=SUVR, REGION=2sd, or REGION=gmm, such as metatemporal=1.32"
            require(_THRESHOLD.fullmatch(text) is not None, "threshold", text, expected)
        needing = [text for text in self.threshold if text.lower().endswith("=2sd")]
        needing += ["w_scores"] * bool(self.w_scores)
        expected = f"a filter such as diagnosis == CN, since {', '.join(needing)} is relative to a reference group"
        require(not needing or self.reference_group is not None, "reference_group", None, expected)
        space = parse_space(self.voxelwise_space)
        require(space.kind == "volume", "voxelwise_space", self.voxelwise_space, "a template, such as MNI152NLin6Asym")
        object.__setattr__(self, "voxelwise_space", str(space))
        require(
            self.contrast is None or self.voxelwise is not None, "contrast", self.contrast, "none without voxelwise"
        )
        object.__setattr__(self, "w_scores", tuple(dict.fromkeys(self.w_scores)))
        require(not both, "fit_participants", list(labels), "none where standardization gives a fit")
