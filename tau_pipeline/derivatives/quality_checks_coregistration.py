"""Checks of the fit of PET and T1w, and of their headers: rows of `tau_pipeline.derivatives.quality_checks.CHECKS`."""

from __future__ import annotations

from tau_pipeline.derivatives.quality_check import Check

_FIT_VERDICT = "good, exchanged, mirrored and scaled PET scans (docs/decisions/fit-verdict.md)"
COREGISTRATION_CHECKS: tuple[Check, ...] = (
    Check(
        name="coreg_fit",
        key="RegistrationBelongs",
        key_description="Natural logarithm of the product of what the T1w leaves unexplained of the mirrored "
        "PET and of the PET deformed to match, over the square of what it leaves of the PET as it is.",
        heading="PET of this head",
        description="Whether the PET fits the T1w nearly as well as a deformation can make it fit, rather "
        "than as little as its mirror image does; about 0 and above for PET and T1w of one head.",
        digits=".2f",
        warn_below=-0.15,
        fail_below=-0.25,
        limit_source=_FIT_VERDICT,
        action="Look at the figure PET on T1w; check that PET and T1w are of the same person, and their headers.",
    ),
    Check(
        name="coreg_explained",
        key="RegistrationExplained",
        heading="PET explained by the T1w",
        description="Share of the variance of the PET in and around the brain that the tissues of the T1w explain.",
        digits=".2f",
        warn_below=0.75,
        fail_below=0.6,
        limit_source=_FIT_VERDICT,
        action="Look at the figure PET on T1w; check that PET and T1w are of the same person, and their headers.",
    ),
    Check(
        name="coreg_mirror",
        key="RegistrationMirror",
        key_description="Natural logarithm of what the T1w leaves unexplained of the mirrored PET, over that of the "
        "PET as it is; not there if the difference is too small to tell.",
        heading="PET against its mirror image",
        description="How much better the PET fits the T1w than its mirror image does; negative if it fits worse.",
        digits=".2f",
        fail_below=-0.15,
        limit_source=_FIT_VERDICT,
        action="The PET or the T1w is mirrored: compare the headers with the scanner's, or choose with --orientation.",
    ),
    Check(
        name="coreg_scale",
        key="RegistrationScale",
        heading="Size of the head in PET and T1w",
        description="Largest factor along an axis by which the head in the PET differs in size from that in the T1w.",
        digits=".2f",
        warn_above=1.12,
        fail_above=1.18,
        limit_source=_FIT_VERDICT,
        action="Check the voxel sizes in the headers of PET and T1w, and that both are of the same person.",
    ),
    Check(
        name="orientation",
        key="PetOrientationDoubt",
        heading="Orientation of the PET",
        description="Whether the header of the PET is contradictory: 0 no, 1 yes, but left and right are "
        "known, 2 left and right are not known.",
        digits=".0f",
        warn_above=0.5,
        fail_above=1.5,
        limit_source="qform and sform of the header (docs/decisions/fit-verdict.md)",
        action="Choose with --orientation sform or qform, or correct the header.",
    ),
    Check(
        name="orientation_t1w",
        key="T1wOrientationDoubt",
        heading="Orientation of the T1w",
        description="Whether the header of the T1w is contradictory: 0 no, 1 yes, but left and right are "
        "known, 2 left and right are not known.",
        digits=".0f",
        warn_above=0.5,
        fail_above=1.5,
        limit_source="qform and sform of the header (docs/decisions/fit-verdict.md)",
        action="Choose with --orientation sform or qform, or correct the header.",
    ),
    Check(
        name="pet_template_space",
        key="PetInTemplateSpace",
        heading="PET in template space",
        description="Whether the PET looks as if it were in template space (1) or not (0).",
        digits=".0f",
        warn_above=0.5,
        limit_source="code and grid of the header (tau_pipeline.imaging.header_orientation)",
        action="Use the PET in the scanner's space; a PET in template space has the shape of the template's head.",
    ),
)
