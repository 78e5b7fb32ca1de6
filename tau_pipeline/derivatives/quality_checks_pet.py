"""Quality checks of the PET and of its fit to the T1w."""

from __future__ import annotations

from tau_pipeline.derivatives.quality_check import Check

_FIELD_OF_VIEW = "a rim of the mask may stick out, a tenth of the brain may not (docs/decisions/field-of-view.md)"
_MOTION = (
    "1 mm of misplaced attenuation correction is 1 % of the activity at the rim of the brain (0.096 per cm of water at "
    "511 keV, NIST XCOM; docs/decisions/quality-checks.md)"
)
_STEP = (
    "motion of over 5 mm within frames, of which steps between them are a sign, biases regions by 9 % (Jin et al. "
    "2013, Med Phys 40:102503; docs/decisions/quality-checks.md)"
)
_CHECK_TIMES = (
    "Check FrameTimesStart, FrameDuration, and InjectionStart; if the scan was made at another time on purpose, give "
    "its window with --suvr-window, and compare only scans of the same window."
)
_VALUES = "good scans, and scans with an offset or with steps between slices (docs/decisions/values-of-the-pet.md)"


def _not_measured(end: str, half: str) -> Check:
    """Return the check of what the PET did not measure in one half of the brain."""
    return Check(
        name=f"fov_missing_{end}_percent",
        key=f"BrainNotMeasured{end.title()}",
        factor=100.0,
        heading=f"Brain not measured at the {end}",
        description=f"Share of the brain that lies in its {half} half and that the PET did not measure: it is outside "
        "the field of view, or filled with 0 or NaN.",
        unit="%",
        digits=".1f",
        warn_above=1.0,
        fail_above=10.0,
        limit_source=_FIELD_OF_VIEW,
        action="Read measured_fraction in the table of regions; if the PET should cover the brain, check that its "
        "image is complete and that the coregistration is right.",
    )


#: In the order of the tables and pages.
PET_CHECKS: tuple[Check, ...] = (
    Check(
        name="coreg_trusted",
        key="RegistrationTrusted",
        heading="Fit of PET to T1w found",
        description="Whether the coregistration of PET and T1w found a fit that can be trusted (1) or not (0).",
        digits=".0f",
        fail_below=1.0,
        limit_source="tau_pipeline.imaging.rigid: a turned or foreign PET does not reach the fit of a PET of the head",
        action="Look at the figure PET on T1w; check that PET and T1w are of the same person, and their headers.",
    ),
    Check(
        name="coreg_shift_mm",
        key="RegistrationShift",
        heading="Move of the PET",
        description="Displacement of the center of the brain by the coregistration of PET and T1w.",
        unit="mm",
        digits=".1f",
        warn_above=35.0,
        limit_source="half the radius of a brain of 1400 mL: headers that state a common position put it nearer "
        "(docs/decisions/quality-checks.md)",
        action="Look at the figure PET on T1w: a large move is right if it fits, and the headers state no common "
        "position.",
    ),
    Check(
        name="coreg_angle_deg",
        key="RegistrationRotation",
        heading="Turn of the PET",
        description="Angle by which the coregistration turned the PET.",
        unit="°",
        digits=".1f",
        warn_above=30.0,
        fail_above=60.0,
        limit_source="heads in head rests lie within 30° of each other, and 60° is no position of a person who lies in "
        "a scanner (docs/decisions/quality-checks.md)",
        action="Look at the figure PET on T1w, left and right included: the header of PET or T1w may be wrong.",
    ),
    _not_measured("top", "upper"),
    _not_measured("bottom", "lower"),
    Check(
        name="ref_measured_percent",
        key="ReferenceRegionMeasured",
        factor=100.0,
        heading="Reference region measured",
        description="Share of the reference region that the PET measured. A scan with less than the setting "
        "min_measured_fraction is not finished.",
        unit="%",
        digits=".0f",
        warn_below=95.0,
        limit_source=_FIELD_OF_VIEW,
        action="Look at the figure of the reference region; use another with --ref-region that the PET covers.",
    ),
    Check(
        name="fd_mean_mm",
        key="FrameMotionMean",
        key_description="Mean of `FrameMotion`, in mm; missing for a single frame and without motion correction.",
        heading="Mean motion",
        description="Mean displacement of the brain over the frames.",
        unit="mm",
        digits=".1f",
        warn_above=5.0,
        fail_above=10.0,
        limit_source=_MOTION,
        action="Look at the motion of the frames; attenuation correction may not fit them.",
    ),
    Check(
        name="fd_max_mm",
        key="FrameMotionLargest",
        key_description="Largest of `FrameMotion`, in mm; missing for a single frame and without motion correction.",
        heading="Largest motion",
        description="Largest displacement of the brain in a frame.",
        unit="mm",
        digits=".1f",
        warn_above=7.0,
        fail_above=10.0,
        limit_source=_MOTION,
        action="Look at the motion of the frames; leave the frame out with --suvr-window if it is at the end.",
    ),
    Check(
        name="fd_between_mm",
        key="FrameMotionBetween",
        key_description="Mean displacement of points at 50 mm from the center of the head from each frame to the next, "
        "in mm.",
        kind="largest",
        heading="Largest motion between frames",
        description="Largest displacement of the head from one frame to the next.",
        unit="mm",
        digits=".1f",
        warn_above=8.0,
        fail_above=20.0,
        limit_source=_STEP,
        action="Look at the motion of the frames: so large a step happens within frames, too, and blurs them.",
    ),
    Check(
        name="noise_percent",
        key="NeighborNoise",
        key_description="Noise between neighboring voxels of the PET as a share of the brain's mean.",
        factor=100.0,
        heading="Noise between voxels",
        description="Noise between neighboring voxels of the PET, relative to the mean of the brain.",
        unit="%",
        digits=".1f",
        warn_above=10.0,
        fail_above=25.0,
        limit_source="25 % in voxels of 2 mm are 2 % in a region of 1 mL, nearly the test-retest difference of SUVR of "
        "3 %, and smoothed noise averages out less (docs/decisions/quality-checks.md)",
        action="Check dose, duration, and reconstruction; smooth with --smooth-fwhm or --target-fwhm.",
    ),
    Check(
        name="air_percent",
        key="AirActivity",
        key_description="Median of the PET above and beside the upper half of the brain, more than 25 mm from it, over "
        "the mean of the brain.",
        factor=100.0,
        heading="Activity of air",
        description="Activity of the air outside the head, relative to the mean of the brain.",
        unit="%",
        digits=".1f",
        warn_below=-5.0,
        fail_below=-15.0,
        warn_above=5.0,
        fail_above=15.0,
        limit_source=_VALUES,
        action="The background is not zero, so that ratios are wrong: convert the PET again (the intercept was lost), "
        "or subtract the offset.",
    ),
    Check(
        name="slice_step_percent",
        key="SliceStep",
        key_description="Largest change of the scale of the PET from one slice to the next within tissue, beyond what "
        "anatomy and chance explain, as a share of the scale.",
        factor=100.0,
        heading="Step between slices",
        description="Largest sudden change of the scale of the PET from one slice to the next, within tissue.",
        unit="%",
        digits=".1f",
        warn_above=5.0,
        fail_above=10.0,
        limit_source=_VALUES,
        action="The scale of a bed position, or the slope of a slice, is wrong: convert or stitch the PET again.",
    ),
    Check(
        name="slice_same_maximum_percent",
        key="SlicesOfOneMaximum",
        key_description="Share of the slices of a frame that have one and the same maximum.",
        factor=100.0,
        heading="Slices of one maximum",
        description="Share of the slices of the PET that have one and the same maximum.",
        unit="%",
        digits=".0f",
        warn_above=30.0,
        fail_above=60.0,
        limit_source=_VALUES,
        action="The slope of each slice was lost: convert the PET again.",
    ),
    Check(
        name="fwhm_difference_mm",
        key="FWHMDifference",
        key_description="Resolution found in the PET minus the one stated for its scanner and reconstruction, in mm.",
        heading="Resolution found minus stated",
        description="Resolution found in the PET (FWHM) minus the one stated for its scanner and reconstruction.",
        unit="mm",
        digits=".1f",
        warn_below=-3.5,
        warn_above=3.5,
        limit_source="good scans are up to 2.1 mm coarser than stated, and scans smoothed by a further 8 mm 4.8 mm or "
        "more (docs/decisions/resolution.md)",
        action="State the filter of the reconstruction (ReconFilterType, ReconFilterSize) if the PET was smoothed.",
    ),
    Check(
        name="window_overlap_percent",
        key="WindowOverlap",
        key_description="Time that the frames used and the window share, over the time that either covers. The window "
        "is the tracer's recommended one, another one in use, or one that was asked for: the one that agrees best.",
        factor=100.0,
        heading="Agreement with the tracer's window",
        description="Time that the frames used and the tracer's window share, over the time of either.",
        unit="%",
        digits=".0f",
        warn_below=75.0,
        fail_below=40.0,
        limit_source="the windows of the tracers (docs/reference/scanners.md), for 20 min: 75 % allows a start 3 min "
        "early or late, 40 % one of 8.5 min (docs/decisions/pooled-scans.md)",
        action=_CHECK_TIMES,
    ),
    Check(
        name="window_start_min",
        key="WindowStart",
        key_description="Start of the first frame used minus the start of the window that `WindowOverlap` compares, in "
        "min.",
        heading="Start against the tracer's window",
        description="Start of the frames used minus the start of the tracer's window.",
        unit="min",
        digits=".0f",
        warn_below=-5.0,
        warn_above=5.0,
        fail_below=-10.0,
        fail_above=10.0,
        limit_source="scans that start more than 10 min apart are not pooled (docs/decisions/pooled-scans.md)",
        action=_CHECK_TIMES,
    ),
    Check(
        name="pet_t1w_days",
        key="DaysBetweenPETAndT1w",
        key_description="Days between PET and T1w, by the tables or sidecars of the dataset.",
        heading="Days between PET and T1w",
        description="Days between PET and T1w, by the tables or sidecars of the dataset.",
        unit="d",
        digits=".0f",
        warn_above=365.0,
        limit_source="LEADS flags more than 365 days",
        action="Use a T1w that is nearer in time: atrophy moves regions.",
    ),
)
