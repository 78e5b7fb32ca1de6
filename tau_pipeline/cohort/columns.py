"""What the columns of the cohort's tables mean: the data dictionary that BIDS wants beside each table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tau_pipeline.cohort.tables import OUTLIERS
from tau_pipeline.derivatives.columns import UNCERTAINTY_COLUMNS, column_descriptions
from tau_pipeline.measures.quality import PERCENTILES

if TYPE_CHECKING:
    import pandas as pd

PERSON_COLUMNS: dict[str, Any] = {
    "scan": {"Description": "Stem of the names of the scan's files."},
    "manufacturer": {
        "Description": "Manufacturer of the PET scanner, by one name for all spellings; as the sidecar spells it where "
        "it is not a known one."
    },
    "age": {"Description": "Age, from participants.tsv or sessions.tsv.", "Units": "year"},
    "sex": {"Description": "Sex, as participants.tsv or sessions.tsv spells it."},
    "diagnosis": {"Description": "Diagnosis, as participants.tsv or sessions.tsv spells it."},
}
STATUS_COLUMNS: dict[str, Any] = {
    "scan": {"Description": "The scan that was asked for: stem of the raw file's name."},
    "model": {"Description": "Model of the scanner."},
    "state": {
        "Description": "What has become of the scan.",
        "Levels": {"done": "complete", "failed": "see reason", "skipped": "nothing to do for it; see reason"},
    },
    "reason": {"Description": "Why it is not done."},
    "mask_volume_ml": {"Description": "Volume of the brain mask.", "Units": "mL"},
    "registration_nmi": {"Description": "Normalised mutual information of PET and T1w after coregistration."},
    "motion_mm": {"Description": "Largest mean displacement of the brain between frames.", "Units": "mm"},
    "reference_value": {"Description": "Mean activity of the reference region, in the unit of the PET."},
    "reference_volume_ml": {"Description": "Volume of the reference region.", "Units": "mL"},
    "noise": {"Description": "Standard deviation over the mean in the reference region.", "Units": "1"},
    "effective_fwhm_mm": {"Description": "Effective resolution of the SUVR map.", "Units": "mm"},
    "brain_mean": {"Description": "Mean SUVR over the brain mask.", "Units": "1"},
    "brain_sd": {"Description": "Standard deviation of SUVR over the voxels of the brain mask.", "Units": "1"},
    **{
        f"cortex_p{percent}": {"Description": f"{percent}th percentile of SUVR over cortical voxels.", "Units": "1"}
        for percent in PERCENTILES
    },
    **{
        f"cortex_p{percent}_z": {"Description": f"{percent}th percentile, standardised by manufacturer.", "Units": "1"}
        for percent in PERCENTILES
    },
    "n_assumptions": {"Description": "How many values the input did not state and were assumed."},
    "minutes": {"Description": "Run time of the participant, all its scans together.", "Units": "min"},
    **{
        outlier: {"Description": f"z-score of {figure} among done scans of the same tracer, region and source."}
        for figure, outlier in OUTLIERS.items()
    },
}

STANDARDIZATION_COLUMNS: dict[str, Any] = {
    "tracer": {"Description": "Tracer, by its common name."},
    "reference_region": {"Description": "Reference region of the SUVR."},
    "manufacturer": {"Description": "One name for all spellings; pooled: all participants together."},
    "n_participants": {"Description": "How many participants were used."},
    "mean": {"Description": "Mean SUVR over brain voxels, every participant weighing the same.", "Units": "1"},
    "sd": {"Description": "Standard deviation of SUVR over the same voxels.", "Units": "1"},
    "participants_hash": {"Description": "Hash of the participants that were used."},
    "participants": {"Description": "The participants that were used."},
}


def dictionary(name: str, table: pd.DataFrame) -> dict[str, Any]:
    """What the columns of a cohort table mean."""
    of_status = STATUS_COLUMNS if name == "status" else {}
    known = {**column_descriptions(), **UNCERTAINTY_COLUMNS, **PERSON_COLUMNS, **of_status}
    known["suvr_z"] = {
        "Description": "SUVR mean standardised by manufacturer: minus the mean, over the standard deviation, of the "
        "brain voxels of the participants fitted (standardization.tsv); n/a where there is no fit.",
        "Units": "1",
    }
    found: dict[str, Any] = {}
    for column in table.columns:
        if column in known:
            found[column] = known[column]
        elif column.endswith("_z"):
            found[column] = {"Description": f"{column[:-2]}, standardised by manufacturer.", "Units": "1"}
        else:
            how = "Mean SUVR, harmonised by ComBat," if "combat" in name else "Mean SUVR"
            found[column] = {"Description": f"{how} of {column}.", "Units": "1"}
    return found
