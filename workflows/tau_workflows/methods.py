"""The methods paragraph, made from what was asked for: steps, versions, papers."""

from __future__ import annotations

import tau_pipeline
from tau_pipeline.config import Settings
from tau_pipeline.reference import definition

PAPERS = {
    "N4": "Tustison et al. 2010, IEEE Trans Med Imaging 29:1310",
    "deepbet": "Fisch et al. 2023, arXiv 2308.07003",
    "SyN": "Avants et al. 2008, Med Image Anal 12:26",
    "Desikan-Killiany": "Desikan et al. 2006, NeuroImage 31:968",
    "CVS atlas": "Postelnicu et al. 2009, IEEE Trans Med Imaging 28:508",
    "mutual information": "Mattes et al. 2003, IEEE Trans Med Imaging 22:120",
    "Nipype": "Gorgolewski et al. 2011, Front Neuroinform 5:13",
    "BIDS PET": "Norgaard et al. 2022, Sci Data 9:65",
}


def methods_text(settings: Settings) -> str:
    """Markdown that says what was done and whom to cite."""
    skull = {
        "auto": "The brain was extracted with deepbet, except where the T1w was already skull-stripped.",
        "skip": "The T1w images were taken as already skull-stripped.",
        "force": "The brain was extracted with deepbet.",
    }[settings.skull_strip_t1w]
    window = "the tracer's usual window" if settings.suvr_window is None else f"{settings.suvr_window} minutes"
    smoothing = f"smoothed with a Gaussian of {settings.smooth_fwhm:g} mm FWHM, " if settings.smooth_fwhm else ""
    if settings.target_fwhm is not None:
        smoothing = f"brought to an effective resolution of {settings.target_fwhm:g} mm FWHM, "
    moved = "registered to each other and " if settings.motion_correction else ""
    regions = "; ".join(f"{name} ({definition(name).description})" for name in settings.ref_region)
    papers = "\n".join(f"- {name}: {paper}" for name, paper in PAPERS.items())
    return f"""# Methods

Images were processed with tau-pipeline {tau_pipeline.__version__} (settings {settings.hash()}), a Nipype workflow
over ANTs. {skull} Intensity non-uniformity of the T1w was corrected with N4. The T1w was registered to the
MNI152NLin6Asym template (affine, then SyN), and the Desikan-Killiany and aseg labels of FreeSurfer's CVS atlas in
that space were given to this head's own grey matter; where FreeSurfer's or FastSurfer's labels were given, those were
used instead. PET frames in {window} after injection were {moved}averaged by the time that they overlap it,
{smoothing}coregistered to the T1w (rigid, mutual information, several starts), and brought to the T1w grid in one
interpolation. SUVR is relative to the mean of: {regions}. Each output's sidecar lists what was assumed.

## Papers

{papers}
"""
