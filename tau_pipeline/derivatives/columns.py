"""Columns of the tables, and what each one means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

#: Columns of a synthetic region table beside those of `tau_pipeline.derivatives.columns.COLUMNS`.
UNCERTAINTY_COLUMNS = {
    "suvr_mean_sd": {
        "Description": "Standard deviation of suvr_mean: spread of the ensemble, calibrated on the "
        "validation split if the sidecar of the map says so.",
        "Units": "1",
    },
    "suvr_mean_low": {
        "Description": "Lower end of the 90% interval of suvr_mean; n/a if not calibrated.",
        "Units": "1",
    },
    "suvr_mean_high": {
        "Description": "Upper end of the 90% interval of suvr_mean; n/a if not calibrated.",
        "Units": "1",
    },
}


#: Statistics of a region beside those of `COLUMNS`.
STATISTICS_COLUMNS = {
    "suvr_p90": {"Description": "90th percentile of SUVR over voxels.", "Units": "1"},
    "suvr_extent": {
        "Description": "Share of the measured voxels whose SUVR is above the setting extent_suvr, 0 to 1. The row "
        "cortex (both) has the share of all cortical voxels.",
        "Units": "1",
    },
}


#: Names of the methods of partial volume correction, by their name in the settings.
PVC_METHODS = {
    "sgtm": "symmetric geometric transfer matrix",
    "gtm": "geometric transfer matrix",
    "rbv": "region-based voxelwise correction",
    "iy": "iterative Yang",
    "mg": "Müller-Gärtner",
    "meltzer": "Meltzer",
}


def pvc_columns(method: str, *, first: bool) -> tuple[str, str]:
    """Return the columns of the mean and its standard error by a method; the first one asked for has the plain names.

    Examples
    --------
    >>> pvc_columns("sgtm", first=True), pvc_columns("rbv", first=False)
    (('suvr_pvc_mean', 'suvr_pvc_se'), ('suvr_pvc_rbv_mean', 'suvr_pvc_rbv_se'))
    """
    start = "suvr_pvc" if first else f"suvr_pvc_{method}"
    return f"{start}_mean", f"{start}_se"


def _pvc_descriptions() -> dict[str, dict[str, str]]:
    found = {}
    for method in ("", *PVC_METHODS):
        mean, error = pvc_columns(method, first=not method)
        how = f"by the {PVC_METHODS[method]} method" if method else "by the first method in PVCMethods of the sidecar"
        found[mean] = {
            "Description": f"Mean SUVR corrected for partial volume effects {how}, over the corrected reference "
            "region; n/a if less than half of the region is measured, or the method gives no value.",
            "Units": "1",
        }
        found[error] = {
            "Description": f"Standard error of {mean} by the noise and misfit in the PET; errors of labels and point "
            "spread are not in it.",
            "Units": "1",
        }
    return found


#: Columns of a region table beside `COLUMNS` where partial volume correction was asked for.
PVC_COLUMNS = _pvc_descriptions()
#: All columns that only some region tables have.
FURTHER_COLUMNS = {**STATISTICS_COLUMNS, **UNCERTAINTY_COLUMNS, **PVC_COLUMNS}


#: Columns of the tables of agreement between synthetic and measured scans.
_AGREEMENT_COLUMNS = {
    "participant_id": "Participant.",
    "session_id": "Session of the measured scan.",
    "scan": "The measured scan.",
    "tracer": "Of the measured scan.",
    "manufacturer": "Of the PET scanner of the measured scan.",
    "diagnosis": "Of the participant.",
    "reference_region": "Reference region of the SUVR.",
    "split": "Data split this participant belonged to when the model was trained; none if not in the training data.",
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
    "positive_suvr": "SUVR threshold for tau positivity of a region: mean plus 2 SD of the controls trained on.",
    "n_positive": "Participants whose measured SUVR is tau-positive.",
    "auc": "Area under the ROC curve of synthetic SUVR for measured tau positivity.",
    "measure": "Metric; braak_kappa (weighted) and braak_same measure the agreement in Braak stage.",
    "n_participants": "Participants with a value.",
    "estimate": "Mean over participants, or agreement.",
    "low": "Lower end of the bootstrap interval over participants; n/a if not available.",
    "high": "Upper end of the bootstrap interval over participants; n/a if not available.",
    "confidence": "Of the interval.",
    "n_resamples": "Of the bootstrap.",
}


#: The same for names that hold a threshold of SUVR, by their beginning.
_HOT_SPOT_COLUMNS = {
    "dice_": "Dice coefficient of the voxels above this SUVR; n/a if neither map has any.",
    "lesion_sensitivity_": "Fraction of measured connected clusters above this SUVR that are detected in the map.",
    "lesion_precision_": "Fraction of connected clusters of the map above this SUVR that are present in the "
    "measured map.",
    "n_lesions_": "Number of measured connected clusters above this SUVR.",
}


_ENDINGS = {
    "_axial": "Mean over axial slices, weighted by their voxels in the mask, of",
    "_low": "Lower end of the 95% bootstrap interval over participants of",
    "_high": "Upper end of the 95% bootstrap interval over participants of",
}


def agreement_columns(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the data dictionary of a table of agreement that has these columns.

    >>> agreement_columns(["auc_low"])["auc_low"]["Description"]
    'Lower end of the 95% bootstrap interval over participants of auc'

    Raises
    ------
    KeyError
        There is no such column.
    """
    return {name: {"Description": _description(name)} for name in names}


def _description(name: str) -> str:
    if name in _AGREEMENT_COLUMNS:
        return _AGREEMENT_COLUMNS[name]
    if hot := [text for start, text in _HOT_SPOT_COLUMNS.items() if name.startswith(start)]:
        return hot[0]
    ending = next(ending for ending in (*_ENDINGS, "") if name.endswith(ending))
    base = name.removesuffix(ending)
    return f"{_ENDINGS[ending]} {base}" if base in _AGREEMENT_COLUMNS else _AGREEMENT_COLUMNS[base]


#: Columns of a ``*_rois.tsv``, in order.
COLUMNS = (
    "participant_id",
    "session_id",
    "tracer",
    "manufacturer",
    "source",
    "region",
    "index",
    "hemisphere",
    "kind",
    "n_voxels",
    "volume_mm3",
    "suvr_mean",
    "suvr_sd",
    "suvr_median",
    "suvr_z",
    "reference_region",
    "quality",
    "measured_fraction",
)


#: The worst verdict of the quality checks of the scan, in every table of regions and scans.
QUALITY_COLUMN: dict[str, Any] = {
    "Description": "Quality of the scan: the worst verdict of its quality checks, which the sidecar of the SUVR map "
    "lists in QualityChecks.",
    "Levels": {
        "pass": "no doubt",
        "warn": "doubtful: look at the scan",
        "fail": "left out of standardization, group figures, tests, and training, unless they are asked to include it",
        "n/a": "not judged",
    },
}

#: What the caller says of the scan; the same in every row.
IDENTITY = ("participant_id", "session_id", "tracer", "manufacturer", "source")


def column_descriptions() -> dict[str, dict[str, Any]]:
    """Return the data dictionary of a regional table: the JSON that BIDS wants beside a TSV file."""
    return {
        "participant_id": {"Description": "Participant, with the prefix sub-."},
        "session_id": {"Description": "Session of the PET scan, with the prefix ses-; n/a without sessions."},
        "tracer": {"Description": "Tracer, from the PET sidecar or the file name."},
        "manufacturer": {"Description": "Manufacturer of the PET scanner, from the sidecar."},
        "source": {
            "Description": "Source of the SUVR.",
            "Levels": {"measured": "a PET scan", "synthetic": "predicted from the T1w"},
        },
        "region": {"Description": "Region: FreeSurfer name, name of the reference region, or of the composite."},
        "index": {"Description": "FreeSurfer number of the region; n/a for reference regions and composites."},
        "hemisphere": {
            "Description": "Side of the brain.",
            "Levels": {"left": "left", "right": "right", "both": "both sides pooled"},
        },
        "kind": {
            "Description": "Kind of region.",
            "Levels": {
                "cortical": "one of the 68 Desikan-Killiany regions",
                "subcortical": "gray matter of FreeSurfer's aseg, including the cerebellar cortex",
                "reference": "the reference region, after limiting spill-in",
                "composite": "several regions combined: Braak stages, meta-temporal regions, and the whole cortex. "
                "braak12 contains the hippocampus, which gets spill-in from off-target binding in the choroid plexus",
            },
        },
        "n_voxels": {
            "Description": "Number of voxels of the T1w grid in the region that the PET measured: those with an SUVR. "
            "Voxels outside its field of view do not count."
        },
        "volume_mm3": {"Description": "Volume of these voxels.", "Units": "mm^3"},
        "suvr_mean": {
            "Description": "Mean SUVR over the measured voxels; of the composite metatemporal_jack2017, mean of the "
            "medians of its regions, weighted by their numbers of voxels. n/a if measured_fraction is below the "
            "setting min_measured_fraction.",
            "Units": "1",
        },
        "suvr_sd": {"Description": "Sample standard deviation of the SUVR over voxels (ddof 1).", "Units": "1"},
        "suvr_median": {"Description": "Median SUVR over voxels.", "Units": "1"},
        "suvr_z": {
            "Description": "Mean SUVR standardized by manufacturer, computed at the group level; n/a before.",
            "Units": "1",
        },
        "reference_region": {"Description": "Reference region (mean SUVR of 1)."},
        "quality": QUALITY_COLUMN,
        "measured_fraction": {
            "Description": "Share of the voxels of the region that the PET measured, 0 to 1; of a composite, share of "
            "the voxels of all its regions. n/a if the region is empty.",
            "Units": "1",
        },
    }


def column_name(region: str, hemisphere: str, kind: str) -> str:
    """Return the name of a region's column in the wide table, the same in pandas and R.

    Examples
    --------
    >>> column_name("ctx-lh-entorhinal", "left", "cortical"), column_name("braak34", "right", "composite")
    ('ctx_lh_entorhinal', 'braak34_right')
    """
    name = re.sub(r"[^0-9A-Za-z]+", "_", region)
    if kind == "composite" and hemisphere != "both":
        return f"{name}_{hemisphere}"
    # By what it is for, so that scans by several reference regions share the column.
    return "reference" if kind == "reference" else name
