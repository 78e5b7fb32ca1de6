"""Data dictionaries of the cohort's tables, which BIDS wants beside each table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tau_pipeline.cohort.reference_group import FEWEST
from tau_pipeline.cohort.visits import YEARS_COLUMN
from tau_pipeline.derivatives.columns import FURTHER_COLUMNS, PVC_COLUMNS, QUALITY_COLUMN, column_descriptions
from tau_pipeline.derivatives.quality_checks import CHECKS
from tau_pipeline.derivatives.quality_measures import IN_TABLE

if TYPE_CHECKING:
    import pandas as pd


def _described(description: str, unit: str = "") -> dict[str, str]:
    return {"Description": description, **({"Units": unit} if unit else {})}


PERSON_COLUMNS: dict[str, Any] = {
    "scan": {"Description": "Stem of the file names of the scan."},
    "manufacturer": {
        "Description": "Manufacturer of the PET scanner, by its common name; as in the sidecar if it is unknown."
    },
    "age": {"Description": "Age, from participants.tsv or sessions.tsv.", "Units": "year"},
    "sex": {"Description": "Sex, from participants.tsv or sessions.tsv: F or M for words and letters that mean them."},
    "included": {
        "Description": "Whether the scan counts in standardization, group figures, and tests.",
        "Levels": {"yes": "it does", "no": "its quality is fail"},
    },
    "diagnosis": {"Description": "Diagnosis, as in participants.tsv or sessions.tsv."},
    "window_start_min": _described("Start of the time that the SUVR stands for, after injection.", "min"),
    "window_end_min": _described("End of that time.", "min"),
    "effective_fwhm_mm": _described("Effective resolution of the SUVR map.", "mm"),
    "settings_hash": {"Description": "Hash of the settings that change results."},
    "pet_t1w_days": _described("Days between PET and T1w, by the tables of the dataset.", "d"),
}
#: Columns of the values of the quality checks, with their limits.
CHECK_COLUMNS: dict[str, Any] = {
    f"check_{one.name}": {
        **_described(f"Quality check {one.name}: {one.description}", "" if one.unit == "1" else one.unit),
        **one.limits(),
        "LimitSource": one.limit_source,
    }
    for one in CHECKS
}
STATUS_COLUMNS: dict[str, Any] = {
    "scan": {
        "Description": "Requested scan: stem of the raw file name. With a slash, an image or folder of the raw dataset "
        "that is not used."
    },
    "model": {"Description": "Model of the scanner."},
    "state": {
        "Description": "Processing status of the scan.",
        "Levels": {
            "done": "complete",
            "failed": "see reason",
            "skipped": "nothing to do; see reason",
            "interrupted": "the run was interrupted before the scan was finished",
        },
    },
    "reason": {"Description": "Reason why it is not done, or why it was done without surfaces."},
    "quality": QUALITY_COLUMN,
    "quality_failed": {"Description": "Names of the quality checks that failed, separated by commas."},
    "quality_warned": {"Description": "Names of the quality checks that warn, separated by commas."},
    "quality_decisions": {
        "Description": "What people decided about the quality of the scan (quality_override.tsv, --exclude): check, "
        "verdict, by whom, and why."
    },
    **{one.column: _described(one.description, one.unit) for one in IN_TABLE},
    **{
        one.z_column: _described(f"{one.percent}th percentile, standardized by manufacturer.", "1")
        for one in IN_TABLE
        if one.standardized
    },
    "n_assumptions": {"Description": "Number of values that were missing from the input and had to be assumed."},
    "minutes": {"Description": "Run time of the participant, for all scans together.", "Units": "min"},
    **{one.outlier: _described(one.outlier_description) for one in IN_TABLE if one.outlier},
    **CHECK_COLUMNS,
}

STANDARDIZATION_COLUMNS: dict[str, Any] = {
    "tracer": {"Description": "Tracer, by its common name."},
    "reference_region": {"Description": "Reference region of the SUVR."},
    "manufacturer": {"Description": "Common name of the manufacturer; pooled: all participants together."},
    "n_participants": {"Description": "Number of participants used."},
    "mean": {"Description": "Mean SUVR over brain voxels, with equal weight for each participant.", "Units": "1"},
    "sd": {"Description": "Standard deviation of SUVR over the same voxels.", "Units": "1"},
    "participants_hash": {"Description": "Hash of the participants used."},
    "participants": {"Description": "Participants used."},
}


_ZSCORE_COLUMNS: dict[str, Any] = {
    "suvr_zscore": {
        "Description": "z-score of the standardized mean SUVR against the reference group (--reference-group): minus "
        "its mean, divided by its standard deviation (ddof 1) over participants, within region, tracer, and reference "
        f"region; n/a for fewer than {FEWEST} participants.",
        "Units": "1",
    },
    "zscore_n": {"Description": "Number of participants of the reference group that suvr_zscore refers to."},
}


_WSCORE_COLUMNS: dict[str, Any] = {
    "suvr_wscore": {
        "Description": "W-score of the mean SUVR: minus what the covariates (--w-scores) predict by linear regression "
        "in the reference group (--reference-group), divided by the standard deviation of the residuals, within "
        "region, tracer, and reference region; n/a for too few participants.",
        "Units": "1",
    },
    "wscore_n": {"Description": "Number of participants of the reference group that suvr_wscore is by."},
}
_ANSWERS: dict[str, Any] = {
    "_positive": {
        "Description": "Whether the mean SUVR of the region reaches its threshold (thresholds.tsv); n/a for scans that "
        "do not count.",
        "Levels": {"yes": "tau-positive", "no": "tau-negative"},
    },
    "_probability": {
        "Description": "Probability of the upper of two normal components (thresholds.tsv), given the mean SUVR of the "
        "region; n/a for scans that do not count.",
        "Units": "1",
    },
}
_STAGE_COLUMNS: dict[str, Any] = {
    "braak_stage": {
        "Description": "Highest Braak stage whose composite is tau-positive; n/a if one of the three is not known.",
        "Levels": {"0": "none", "I": "braak1", "III-IV": "braak34", "V-VI": "braak56"},
    },
    "braak_order": {
        "Description": "Order of the positive stages.",
        "Levels": {"typical": "all stages before are positive", "atypical": "an earlier stage is negative"},
    },
}
#: A column of values that a line has brought to another scale.
CALIBRATED_COLUMN: dict[str, Any] = {
    "Description": "Value of the column without _calibrated, by the line that --calibration-line gave; n/a for other "
    "tracers and reference regions."
}
#: Columns that thresholds add to the wide table.
ANSWER_COLUMNS = (*(f"REGION{ending}" for ending in _ANSWERS), *_STAGE_COLUMNS)
#: Columns of the wide table by what stands behind the name of the region.
_OF_REGION: dict[str, Any] = {
    "_zscore": _ZSCORE_COLUMNS["suvr_zscore"],
    "_wscore": _WSCORE_COLUMNS["suvr_wscore"],
    **_ANSWERS,
    "_calibrated": CALIBRATED_COLUMN,
}
#: Columns of ``group/suvr_bilateral.tsv`` that other tables do not have, or have with another meaning.
BILATERAL: dict[str, Any] = {
    "region": {"Description": "Structure or composite, without its side."},
    "volume_mm3": {"Description": "Measured volume of both sides.", "Units": "mm^3"},
    "suvr_left": {"Description": "Mean SUVR of the left side.", "Units": "1"},
    "suvr_right": {"Description": "Mean SUVR of the right side.", "Units": "1"},
    "suvr_mean": {
        "Description": "Mean SUVR of both sides, weighted by their measured volumes; of a composite, its value for "
        "both sides. n/a if a side has none.",
        "Units": "1",
    },
    "asymmetry_index": {
        "Description": "Left minus right side, over the mean of both (not weighted): positive where the left side has "
        "more.",
        "Units": "1",
    },
}


def dictionary(name: str, table: pd.DataFrame) -> dict[str, Any]:
    """Return the data dictionary of a cohort table."""
    of_status = STATUS_COLUMNS if name == "status" else {}
    known = {**column_descriptions(), **FURTHER_COLUMNS, **PERSON_COLUMNS, **of_status}
    known["suvr_z"] = {
        "Description": "Mean SUVR standardized by manufacturer: minus the mean, divided by the standard "
        "deviation, of single brain voxels of the participants fitted (standardization.tsv); n/a if there is no fit. "
        "This is no z-score against controls (suvr_zscore).",
        "Units": "1",
    }
    known |= {**_ZSCORE_COLUMNS, **_WSCORE_COLUMNS, **_STAGE_COLUMNS, "years_from_first": YEARS_COLUMN}
    if name == "suvr_bilateral":
        known |= BILATERAL
    found: dict[str, Any] = {}
    for column in table.columns:
        if column in known:
            found[column] = known[column]
        elif corrected := next((name for name in PVC_COLUMNS if column.endswith(name.removeprefix("suvr"))), ""):
            region = column.removesuffix(corrected.removeprefix("suvr"))
            found[column] = {"Description": f"{corrected} of {region}.", "Units": "1"}
        elif scored := next((one for one in _OF_REGION if column.endswith(one)), ""):
            found[column] = {**_OF_REGION[scored], "Region": column.removesuffix(scored)}
        elif column.endswith("_standardized"):
            region = column.removesuffix("_standardized")
            found[column] = {
                "Description": f"Mean SUVR of {region}, standardized by manufacturer by the mean and the standard "
                "deviation of single brain voxels; no z-score against controls.",
                "Units": "1",
            }
        else:
            how = "Mean SUVR, harmonized with ComBat," if "combat" in name else "Mean SUVR"
            found[column] = {"Description": f"{how} of {column}.", "Units": "1"}
    return found
