"""Interfaces over `tau_pipeline.pet` and `tau_pipeline.measures`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from tau_pipeline.atlas import label_array
from tau_pipeline.bids.off_target import meningeal_note
from tau_pipeline.files import write_tsv
from tau_pipeline.imaging.header_orientation import readings, template_space
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.transforms import load_itk, save_itk
from tau_pipeline.imaging.volume import Volume, image_like, save_volume, voxel_volume_mm3
from tau_pipeline.measures import quality, quality_figures
from tau_pipeline.measures import regions as roi
from tau_pipeline.pet import coregister, field_of_view, motion, resolution, uniformity
from tau_pipeline.pet import quantification as pet
from tau_pipeline.pet import reference_check as reference
from tau_pipeline.pet.frames import FramePlan, Window
from tau_pipeline.pvc.psf import resolution_by_regions
from tau_pipeline.settings.participant import Orientation, Settings
from tau_workflows.interfaces.base import LibraryInterface, quality_figures_trait

if TYPE_CHECKING:
    import pandas as pd

#: If a larger share of the brain was not measured, a note says so; the rim of a mask may always stick out.
_LARGEST_CUT = 0.01


def frame_plan(fields: dict[str, Any]) -> FramePlan:
    """Rebuild a plan from ``dataclasses.asdict``, the form in which it travels between nodes."""
    lists = {name: tuple(value) for name, value in fields.items() if name != "window"}
    return FramePlan(window=Window(**fields["window"]), **lists)


class _MotionIn(BaseInterfaceInputSpec):
    pet_file = File(exists=True, mandatory=True, desc="PET, 3-D or 4-D")
    frames = traits.Dict(mandatory=True, desc="fields of a FramePlan")
    motion_correction = traits.Bool(
        Settings.motion_correction, usedefault=True, desc="register the frames to each other"
    )


class _MotionOut(TraitedSpec):
    static_file = File(desc="weighted mean of the frames, 3-D, on the PET grid")
    frames = traits.Dict(desc="fields of the FramePlan without frames that hold no measurement")
    frame_xfms = traits.List(desc="a 4 x 4 matrix for each frame used: its world to the reference frame's, RAS+ mm")
    quality_figures = quality_figures_trait()
    assumptions = traits.List(traits.Str(), desc="what was assumed or looks odd, in words")


class CorrectMotion(LibraryInterface):
    """Find the head's motion between the frames used, and average them."""

    input_spec = _MotionIn
    output_spec = _MotionOut

    def call(self, folder: Path) -> dict[str, Any]:
        img = load_volume(self.inputs.pet_file)
        plan, notes = field_of_view.with_measured_frames(img, frame_plan(self.inputs.frames))
        found = motion.correct_motion(img, plan, enabled=self.inputs.motion_correction)
        static = motion.static_image(img, plan, found)
        figures: dict[str, Any] = uniformity.same_maximum(img, plan.indices)
        notes = (*notes, *uniformity.describe(figures))
        # Neither a single frame nor frames whose motion is not corrected tell how far the head moved.
        figures["FrameMotion"] = None
        if len(found.frame_xfms) > 1 and self.inputs.motion_correction:
            figures |= quality_figures.motion_between(found.frame_xfms, quality_figures.center_of(static))
            displacements = list(found.displacement_mm)
            figures["FrameMotion"] = displacements
            figures["FrameMotionMean"] = float(np.mean(displacements))
            figures["FrameMotionLargest"] = float(np.max(displacements))
        return {
            "static_file": str(save_volume(static, folder / "static.nii")),
            "frames": asdict(plan),
            "frame_xfms": [xfm.tolist() for xfm in found.frame_xfms],
            "quality_figures": figures,
            "assumptions": [*notes, *found.assumptions],
        }


class _CoregisterIn(BaseInterfaceInputSpec):
    static_file = File(exists=True, mandatory=True, desc="PET, 3-D")
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the T1w grid")
    pet_file = File(exists=True, mandatory=True, desc="raw PET; only its header is read")
    orientation = traits.Enum(*get_args(Orientation), usedefault=True, desc="which description of the axes to take")


class _CoregisterOut(TraitedSpec):
    pet2t1w_xfm = File(desc="ITK transform for resampling PET onto the T1w")
    registration_metric = traits.Float(desc="normalized mutual information after coregistration")
    quality_figures = quality_figures_trait()
    assumptions = traits.List(traits.Str(), desc="a warning where the fit must not be trusted")


class Coregister(LibraryInterface):
    """Rigid coregistration of the PET with the T1w."""

    input_spec = _CoregisterIn
    output_spec = _CoregisterOut

    def call(self, folder: Path) -> dict[str, Any]:
        static, mask = load_volume(self.inputs.static_file, ndim=3), load_volume(self.inputs.mask_file, ndim=3)
        t1w = load_volume(self.inputs.t1w_preproc_file, ndim=3)
        pet_file = self.inputs.pet_file
        judged = coregister.coregister_scan(
            static, t1w, mask, readings(pet_file, self.inputs.orientation), template_space=template_space(pet_file)
        )
        found, warnings = judged.rigid, list(judged.notes)
        if not found.plausible:
            warnings.append(f"CHECK THE COREGISTRATION of PET and T1w, it must not be trusted: {found.reason}.")
        values = uniformity.value_figures(static, t1w, mask, found.matrix, fits=found.plausible)
        moved = quality_figures.move(judged.move, mask)
        warnings += [*coregister.doubts_text({**judged.figures, **moved}), *uniformity.describe(values)]
        return {
            "pet2t1w_xfm": str(save_itk(found.matrix, folder / "pet2t1w.txt")),
            "registration_metric": float(found.metric),
            "quality_figures": {
                "RegistrationTrusted": float(found.plausible),
                **judged.figures,
                **moved,
                **quality_figures.noise(static, found.matrix, mask),
                **values,
            },
            "assumptions": warnings,
        }


class _ResampleIn(BaseInterfaceInputSpec):
    pet_file = File(exists=True, mandatory=True, desc="PET, 3-D or 4-D")
    static_file = File(exists=True, mandatory=True, desc="mean of the frames, to estimate the resolution from")
    pet_metadata = traits.Dict(mandatory=True, desc="the PET's sidecar")
    frames = traits.Dict(mandatory=True, desc="fields of a FramePlan")
    frame_xfms = traits.List(mandatory=True, desc="a 4 x 4 matrix for each frame used")
    pet2t1w_xfm = File(exists=True, mandatory=True, desc="ITK transform for resampling PET onto the T1w")
    t1w_preproc_file = File(exists=True, mandatory=True, desc="gives the grid")
    smooth_fwhm = traits.Float(Settings.smooth_fwhm, usedefault=True, desc="FWHM of a Gaussian, mm")
    target_fwhm = traits.Float(desc="effective resolution to reach, mm; the image's own where this is not set")
    mask_file = File(exists=True, desc="brain mask on the T1w grid, to estimate the resolution with the regions")
    dseg_file = File(exists=True, desc="labels on the T1w grid, likewise")


class _ResampleOut(TraitedSpec):
    activity_file = File(desc="mean activity in the window, on the T1w grid, in the unit of the PET")
    smoothing_fwhm = traits.Float(desc="FWHM of the filter that was applied, mm; 0 for none")
    effective_fwhm = traits.Float(desc="resolution of the result, mm")
    quality_figures = quality_figures_trait()
    assumptions = traits.List(traits.Str(), desc="where the resolution comes from")


class PetOnT1w(LibraryInterface):
    """Smooth if requested, then resample each frame to the T1w grid in one interpolation."""

    input_spec = _ResampleIn
    output_spec = _ResampleOut

    def call(self, folder: Path) -> dict[str, Any]:
        static = load_volume(self.inputs.static_file, ndim=3)
        stated = native = resolution.image_resolution(self.inputs.pet_metadata, static)
        kernel: float = self.inputs.smooth_fwhm
        notes: list[str] = []
        if isdefined(self.inputs.target_fwhm):
            native = self._estimated(static, stated)
            kernel, notes = _kernel_mm(self.inputs.target_fwhm, native.fwhm_mm, stated.fwhm_mm)
        activity = pet.pet_on_t1w(
            load_volume(self.inputs.pet_file),
            frame_plan(self.inputs.frames),
            [np.array(xfm) for xfm in self.inputs.frame_xfms],
            load_itk(self.inputs.pet2t1w_xfm),
            load_volume(self.inputs.t1w_preproc_file, ndim=3),
            fwhm_mm=kernel,
        )
        return {
            "activity_file": str(save_volume(activity, folder / "activity.nii")),
            "smoothing_fwhm": float(kernel),
            "effective_fwhm": float(np.hypot(native.fwhm_mm, kernel)),
            "quality_figures": resolution.resolution_figures(stated, static),
            "assumptions": [native.source, *notes],
        }

    def _estimated(self, static: Volume, stated: resolution.Resolution) -> resolution.Resolution:
        """Return the resolution with which the regions explain the image best; the stated one where there is none."""
        files = [self.optional(name) for name in ("dseg_file", "mask_file")]
        if None in files or resolution.uniform_resolution_mm(self.inputs.pet_metadata) is not None:
            return stated
        dseg, mask = (load_volume(file, ndim=3) for file in files)
        found = resolution_by_regions(static, dseg, mask, load_itk(self.inputs.pet2t1w_xfm))
        if found is None:
            return stated
        text = f"The resolution was taken as {found:.1f} mm, with which the regions explain the image best."
        return resolution.Resolution(found, text, True)


def _kernel_mm(target_mm: float, native_mm: float, stated_mm: float) -> tuple[float, list[str]]:
    """Return the FWHM of the filter that leads to the target resolution, and what must be said about it."""
    if native_mm > target_mm >= stated_mm:
        return 0.0, [
            f"The image was not smoothed: its resolution of {native_mm:.1f} mm is coarser than the target of "
            f"{target_mm:g} mm already."
        ]
    return resolution.smoothing_kernel_mm(target_mm, native_mm), []


class _QuantifyIn(BaseInterfaceInputSpec):
    activity_file = File(exists=True, mandatory=True, desc="activity on the T1w grid")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the T1w grid")
    dseg_file = File(exists=True, mandatory=True, desc="labels on the T1w grid, FreeSurfer numbers")
    reference_file = traits.List(File(exists=True), mandatory=True, desc="masks of the reference regions")
    reference = traits.List(traits.Dict(), mandatory=True, desc="names and descriptions of the reference regions")
    identity = traits.Dict(mandatory=True, desc="participant_id, session_id, tracer, manufacturer, source")
    min_measured_fraction = traits.Float(
        Settings.min_measured_fraction, usedefault=True, desc="share of a region that the PET must have measured"
    )
    head_up = traits.List(
        traits.Float(), [0.0, 0.0, 1.0], usedefault=True, desc="direction to the top of the head in the T1w's world"
    )
    extent_suvr = traits.Float(desc="SUVR above which a voxel counts for the extent; no extent where this is not set")


class _QuantifyOut(TraitedSpec):
    suvr_file = traits.List(File(), desc="an SUVR map for each reference region")
    reference_value = traits.List(traits.Float(), desc="mean activity in each reference region")
    rois_file = File(desc="the region table: the rows of all reference regions")
    quality = traits.List(traits.Dict(), desc="quality measures of each SUVR map, as in its sidecar")
    assumptions = traits.List(traits.Str(), desc="what looks odd about the reference regions or was not measured")


class Quantify(LibraryInterface):
    """SUVR by each reference region, and its regional statistics."""

    input_spec = _QuantifyIn
    output_spec = _QuantifyOut

    def call(self, folder: Path) -> dict[str, Any]:
        import pandas as pd

        activity = load_volume(self.inputs.activity_file, ndim=3)
        dseg = load_volume(self.inputs.dseg_file, ndim=3)
        brain = np.asanyarray(load_volume(self.inputs.mask_file, ndim=3).dataobj) > 0
        suvr_files, values, tables, measures = [], [], [], []
        share, extent = self.inputs.min_measured_fraction, self.optional("extent_suvr")
        measured = np.isfinite(np.asanyarray(activity.dataobj))
        lost = field_of_view.not_measured(brain, measured, activity.affine, self.inputs.head_up)
        assumptions: list[str] = []
        for mask_file, described in zip(self.inputs.reference_file, self.inputs.reference, strict=True):
            name, mask = described["ReferenceRegion"], load_volume(mask_file, ndim=3)
            data, parts = np.asanyarray(activity.dataobj), np.asanyarray(mask.dataobj)
            inside = parts > 0
            assumptions += reference.check_reference(data, parts, brain, name, share)
            covered = float(measured[inside].mean())
            inside = reference.measured_part(data, inside)
            values.append(pet.mean_of_parts(data, np.where(inside, parts, 0)))
            suvr: Volume = image_like((data / values[-1]).astype(np.float32, copy=False), activity)
            suvr_files.append(str(save_volume(suvr, folder / f"suvr_{name}.nii")))
            found = np.asanyarray(suvr.dataobj), brain, label_array(dseg), inside
            figures = {
                **lost,
                "ReferenceRegionMeasured": covered,
                **quality_figures.hot_share(found[0], inside),
                **quality_figures.shell_uptake(found[0], brain, suvr),
            }
            if extent is not None:
                figures["ExtentThreshold"] = extent
            measures.append({**quality.map_quality(*found, voxel_volume_mm3(suvr)), **figures})
            tables.append(roi.regional_table(suvr, dseg, mask, name, self.inputs.identity, share, extent))
        if note := meningeal_note(self.inputs.identity.get("tracer"), measures[0].get("MeningealSUVR")):
            assumptions.append(note)
        if sum(lost.values()) > _LARGEST_CUT:
            assumptions.append(_cut_text(lost, tables[0]))
        rois_file = write_tsv(pd.concat(tables, ignore_index=True), folder / "rois.tsv")
        return {
            "suvr_file": suvr_files,
            "reference_value": values,
            "rois_file": str(rois_file),
            "quality": measures,
            "assumptions": assumptions,
        }


def _cut_text(lost: Mapping[str, float], table: pd.DataFrame) -> str:
    """Return a sentence on how much of the brain was not measured, and on the regions that have no value for it."""
    absent = table[(table["measured_fraction"] < 1) & table["suvr_mean"].isna()]
    names = [
        f"{row.region} ({row.hemisphere})" if row.kind == "composite" else row.region for row in absent.itertuples()
    ]
    top, bottom = lost["BrainNotMeasuredTop"], lost["BrainNotMeasuredBottom"]
    which = f"; no value for {', '.join(names)}" if names else ""
    return (
        f"{top + bottom:.0%} of the brain was not measured by the PET, {top:.0%} in the upper half and {bottom:.0%} in "
        "the lower half: it is outside its field of view, or filled with 0 or NaN. SUVR has no value there, and "
        f"regions are means of what was measured{which}."
    )
