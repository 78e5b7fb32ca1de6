"""Interfaces of the longitudinal stream: the halfway space of a participant's T1w images, and the way back to each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from tau_pipeline.anatomy import halfway
from tau_pipeline.anatomy.visit_tissue import segment_visit
from tau_pipeline.derivatives.names import HalfwayNames
from tau_pipeline.derivatives.sidecars import bids_uri, image_sidecar
from tau_pipeline.figures.halfway import halfway_figure
from tau_pipeline.figures.sheet import save_figure
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.transforms import load_itk, save_itk
from tau_pipeline.imaging.volume import Volume, finite, image_like, save_volume
from tau_pipeline.pet import quantification as pet
from tau_workflows.interfaces.anat import SegmentTissue, TissueIn
from tau_workflows.interfaces.base import LibraryInterface
from tau_workflows.interfaces.outputs import save_copy
from tau_workflows.interfaces.pet import frame_plan

#: Displacement of a visit in the last registration to the median image (mm) above which there is a warning.
_LARGEST_MOVE_MM = 1.0


class _HalfwayIn(BaseInterfaceInputSpec):
    t1w_files = traits.List(File(exists=True), mandatory=True, desc="T1w of each visit, bias-corrected")
    mask_files = traits.List(File(exists=True), mandatory=True, desc="brain mask of each visit")
    names = traits.List(traits.Str(), mandatory=True, desc="names of the visits")


class _HalfwayOut(TraitedSpec):
    t1w_preproc_file = File(desc="median of the visits in the halfway space")
    mask_file = File(desc="brain mask by majority in the halfway space")
    xfm_files = traits.List(File(), desc="for each visit, ITK transform for resampling its T1w onto the halfway image")
    disagreement_mm = traits.List(traits.Float(), desc="for each visit, the last correction of its registration, mm")
    assumptions = traits.List(traits.Str(), desc="a warning where the registrations do not agree")


class FindHalfway(LibraryInterface):
    """Find the rigid space halfway between all visits, and the median of their T1w images in it."""

    input_spec = _HalfwayIn
    output_spec = _HalfwayOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        t1ws, masks = ([load_volume(file, ndim=3) for file in files] for files in (given.t1w_files, given.mask_files))
        found = halfway.halfway_space(t1ws, masks, given.names)
        saved = [save_itk(move, folder / f"visit_{place}.txt") for place, move in enumerate(found.to_halfway)]
        return {
            "t1w_preproc_file": str(save_volume(found.image, folder / "t1w_preproc.nii")),
            "mask_file": str(save_volume(found.mask, folder / "mask.nii")),
            "xfm_files": [str(path) for path in saved],
            "disagreement_mm": list(found.disagreement_mm),
            "assumptions": [
                f"CHECK THE HALFWAY IMAGE: the T1w of {name} still moved by {moved:.1f} mm in the last registration to "
                "the median of all visits; look at the figure of all visits."
                for name, moved in zip(given.names, found.disagreement_mm, strict=True)
                if moved > _LARGEST_MOVE_MM
            ],
        }


class _CarryIn(BaseInterfaceInputSpec):
    place = traits.Int(mandatory=True, desc="place of the visit in the lists")
    xfm_files = traits.List(File(exists=True), mandatory=True, desc="ITK transforms of all visits to the halfway image")
    t1w_from_template = File(exists=True, mandatory=True, desc="ITK transform, template to halfway image")
    template_from_t1w = File(exists=True, mandatory=True, desc="ITK transform, halfway image to template")
    atlas_file = File(exists=True, mandatory=True, desc="labels of the template warped to the halfway image")
    mirror_atlas_file = File(exists=True, mandatory=True, desc="labels of its mirror image warped to it")
    head_up = traits.List(traits.Float(), mandatory=True, desc="direction to the top of the head in the halfway world")


class _CarryOut(TraitedSpec):
    xfm_file = File(desc="ITK transform of this visit to the halfway image")
    t1w_from_template = File(desc="ITK transform, template to T1w of the visit")
    template_from_t1w = File(desc="ITK transform, T1w of the visit to template")
    atlas_file = File(desc="the warped labels in the world of the visit, not interpolated")
    mirror_atlas_file = File(desc="the same of the mirror image")
    head_up = traits.List(traits.Float(), desc="direction to the top of the head in the world of the visit")


class CarryBack(LibraryInterface):
    """Carry the registration of the halfway image to the template back to one visit; nothing is interpolated."""

    input_spec = _CarryIn
    output_spec = _CarryOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        xfm_file = given.xfm_files[given.place]
        move = load_itk(xfm_file)
        files = (Path(given.t1w_from_template), Path(given.template_from_t1w))
        onto_t1w, onto_template = halfway.template_transforms(*files, move, folder)
        found: dict[str, Any] = {"xfm_file": xfm_file, "head_up": (move[:3, :3].T @ given.head_up).tolist()}
        found |= {"t1w_from_template": str(onto_t1w), "template_from_t1w": str(onto_template)}
        for name in ("atlas_file", "mirror_atlas_file"):
            moved = halfway.carried_back(load_volume(getattr(given, name), ndim=3), move)
            found[name] = str(save_volume(moved, folder / f"{name.removesuffix('_file')}.nii"))
        return found


class _OnCommonVoxelsIn(BaseInterfaceInputSpec):
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w of the visit")
    xfm_file = File(exists=True, mandatory=True, desc="ITK transform of the visit to the halfway image")
    common_mask_file = File(exists=True, mandatory=True, desc="brain mask of all visits on the halfway image")


class _OnCommonVoxelsOut(TraitedSpec):
    t1w_preproc_file = File(desc="T1w of the visit on the voxels of the halfway image, in the world of the visit")
    mask_file = File(desc="the brain mask of all visits, not interpolated")


class OnCommonVoxels(LibraryInterface):
    """Bring the T1w of a visit to the voxels of the halfway image, on which labels then need no interpolation.

    Labels brought to the voxels of the T1w instead, by nearest neighbor, would be read up to half a voxel away from
    where the halfway image has them, over a whole region in the same direction.
    """

    input_spec = _OnCommonVoxelsIn
    output_spec = _OnCommonVoxelsOut

    def call(self, folder: Path) -> dict[str, Any]:
        mask = halfway.carried_back(load_volume(self.inputs.common_mask_file, ndim=3), load_itk(self.inputs.xfm_file))
        t1w = resample(load_volume(self.inputs.t1w_preproc_file, ndim=3), mask, np.eye(4), "cubic")
        positive = image_like(np.maximum(finite(np.asanyarray(t1w.dataobj)), 0).astype(np.float32), t1w)
        return {
            "t1w_preproc_file": str(save_volume(positive, folder / "t1w_preproc.nii")),
            "mask_file": str(save_volume(mask, folder / "mask.nii")),
        }


class _VisitTissueIn(TissueIn):
    halfway_file = File(exists=True, mandatory=True, desc="halfway image, on the voxels of the visit")


class SegmentVisit(SegmentTissue):
    """Tissue of a visit: that of the halfway image, with its boundaries where they are in the visit."""

    input_spec = _VisitTissueIn

    def segment(self, t1w: Volume, mask: Volume, atlas: Volume) -> Volume:
        # The voxels of the visit are those of the halfway image, in the world of the visit.
        median = image_like(np.asanyarray(load_volume(self.inputs.halfway_file, ndim=3).dataobj), t1w)
        return segment_visit(t1w, median, mask, atlas)


class _CarryLabelsIn(BaseInterfaceInputSpec):
    xfm_file = File(exists=True, mandatory=True, desc="ITK transform of the visit to the halfway image")
    dseg_file = File(exists=True, mandatory=True, desc="labels on the halfway image")
    reference_file = traits.List(File(exists=True), mandatory=True, desc="reference regions on the halfway image")


class _CarryLabelsOut(TraitedSpec):
    dseg_file = File(desc="the labels in the world of the visit, not interpolated")
    reference_file = traits.List(File(), desc="the reference regions, likewise")


class CarryLabels(LibraryInterface):
    """Carry the labels and the reference regions of the halfway image back to one visit; nothing is interpolated."""

    input_spec = _CarryLabelsIn
    output_spec = _CarryLabelsOut

    def call(self, folder: Path) -> dict[str, Any]:
        move = load_itk(self.inputs.xfm_file)

        def carried(file: str, name: str) -> str:
            return str(save_volume(halfway.carried_back(load_volume(file, ndim=3), move), folder / name))

        references = self.inputs.reference_file
        return {
            "dseg_file": carried(self.inputs.dseg_file, "dseg.nii"),
            "reference_file": [carried(file, Path(file).name) for file in references],
        }


class _PetInHalfwayIn(BaseInterfaceInputSpec):
    pet_file = File(exists=True, mandatory=True, desc="PET, 3-D or 4-D")
    frames = traits.Dict(mandatory=True, desc="fields of a FramePlan")
    frame_xfms = traits.List(mandatory=True, desc="a 4 x 4 matrix for each frame used")
    pet2t1w_xfm = File(exists=True, mandatory=True, desc="ITK transform for resampling PET onto the T1w")
    xfm_file = File(exists=True, mandatory=True, desc="ITK transform of the T1w to the halfway image")
    halfway_file = File(exists=True, mandatory=True, desc="halfway image, gives the grid")
    smoothing_fwhm = traits.Float(mandatory=True, desc="FWHM of the filter that the SUVR map on the T1w grid has, mm")
    reference_value = traits.List(traits.Float(), mandatory=True, desc="mean activity in each reference region")


class _PetInHalfwayOut(TraitedSpec):
    suvr_files = traits.List(File(), desc="an SUVR map in the halfway space for each reference region")


class PetInHalfway(LibraryInterface):
    """Resample the frames of a PET scan to the halfway image in one interpolation, and divide by the reference."""

    input_spec = _PetInHalfwayIn
    output_spec = _PetInHalfwayOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        activity = pet.pet_on_t1w(
            load_volume(given.pet_file),
            frame_plan(given.frames),
            [np.array(xfm) for xfm in given.frame_xfms],
            load_itk(given.xfm_file) @ load_itk(given.pet2t1w_xfm),
            load_volume(given.halfway_file, ndim=3),
            fwhm_mm=given.smoothing_fwhm,
        )
        data = np.asanyarray(activity.dataobj)
        maps = [image_like((data / value).astype(np.float32), activity) for value in given.reference_value]
        saved = [save_volume(one, folder / f"suvr_{place}.nii") for place, one in enumerate(maps)]
        return {"suvr_files": [str(path) for path in saved]}


class _DrawHalfwayIn(BaseInterfaceInputSpec):
    t1w_preproc_file = File(exists=True, mandatory=True, desc="halfway image")
    mask_file = File(exists=True, mandatory=True, desc="brain mask by majority")
    mask_files = traits.List(File(exists=True), mandatory=True, desc="brain mask of each visit")
    xfm_files = traits.List(File(exists=True), mandatory=True, desc="ITK transforms of all visits to the halfway image")
    names = traits.List(traits.Str(), mandatory=True, desc="names of the visits")


class _DrawHalfwayOut(TraitedSpec):
    figure_file = File(desc="halfway image with the outline of each visit's brain")


class DrawHalfway(LibraryInterface):
    """Draw the halfway image with the outline of the brain of each visit."""

    input_spec = _DrawHalfwayIn
    output_spec = _DrawHalfwayOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        image = load_volume(given.t1w_preproc_file, ndim=3)
        outlines = {
            name: resample(load_volume(mask, ndim=3), image, load_itk(xfm), "nearest")
            for name, mask, xfm in zip(given.names, given.mask_files, given.xfm_files, strict=True)
        }
        figure = halfway_figure(image, load_volume(given.mask_file, ndim=3), outlines)
        return {"figure_file": str(save_figure(figure, folder / "halfway.png"))}


class _SaveHalfwayIn(BaseInterfaceInputSpec):
    output_dir = traits.Str(mandatory=True, desc="root of the derivatives")
    bids_dir = traits.Str(mandatory=True, desc="root of the raw dataset")
    participant = traits.Str(mandatory=True, desc="label without sub-")
    raw_files = traits.List(traits.Str(), mandatory=True, desc="raw T1w of each visit")
    settings_hash = traits.Str(mandatory=True, desc="hash of the settings")
    method = traits.Str(mandatory=True, desc="own-tissue or fixed-labels")
    names = traits.List(traits.Str(), mandatory=True, desc="names of the visits")
    disagreement_mm = traits.List(traits.Float(), mandatory=True, desc="last correction of each visit, mm")
    t1w_preproc_file = File(exists=True, mandatory=True, desc="halfway image")
    mask_file = File(exists=True, mandatory=True, desc="brain mask by majority")
    dseg_file = File(exists=True, mandatory=True, desc="labels of the halfway image")
    figure_file = File(exists=True, mandatory=True, desc="figure of it")


class _SaveOut(TraitedSpec):
    out_files = traits.List(File(), desc="what was written, without sidecars")


class SaveHalfway(LibraryInterface):
    """Write the halfway image of a participant, its mask, its labels, and its figure."""

    _always_run = True
    input_spec = _SaveHalfwayIn
    output_spec = _SaveOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        names = HalfwayNames(Path(given.output_dir), {"sub": given.participant})
        sources = [bids_uri(Path(file), Path(given.bids_dir)) for file in given.raw_files]
        about = {
            "LongitudinalMethod": given.method,
            "Visits": list(given.names),
            "RegistrationDisagreement": [round(value, 3) for value in given.disagreement_mm],
            "Description": "Median of the T1w images of all visits in the rigid space halfway between them",
        }
        outputs: dict[Path, tuple[str, dict[str, Any]]] = {
            names.t1w: (given.t1w_preproc_file, {"skull_stripped": False}),
            names.mask: (given.mask_file, {"skull_stripped": True, "Type": "Brain"}),
            names.dseg: (given.dseg_file, {"skull_stripped": True, "Manual": False}),
        }
        for target, (source, own) in outputs.items():
            save_copy(source, target, image_sidecar(sources, given.settings_hash, **own, **about))
        save_copy(given.figure_file, names.figure)
        return {"out_files": [str(path) for path in outputs]}


class _SaveVisitIn(BaseInterfaceInputSpec):
    output_dir = traits.Str(mandatory=True, desc="root of the derivatives")
    entities = traits.Dict(mandatory=True, desc="entities of the T1w's name")
    xfm_file = File(exists=True, mandatory=True, desc="ITK transform of the T1w to the halfway image")


class SaveVisit(LibraryInterface):
    """Write the transform of the T1w of a visit to the halfway image."""

    _always_run = True
    input_spec = _SaveVisitIn
    output_spec = _SaveOut

    def call(self, folder: Path) -> dict[str, Any]:
        target = HalfwayNames(Path(self.inputs.output_dir), dict(self.inputs.entities)).to_halfway
        save_copy(self.inputs.xfm_file, target)
        return {"out_files": [str(target)]}


class _SaveHalfwayPetIn(BaseInterfaceInputSpec):
    output_dir = traits.Str(mandatory=True, desc="root of the derivatives")
    bids_dir = traits.Str(mandatory=True, desc="root of the raw dataset")
    entities = traits.Dict(mandatory=True, desc="entities of the PET's name")
    raw_file = traits.Str(mandatory=True, desc="the raw PET")
    settings_hash = traits.Str(mandatory=True, desc="hash of the settings")
    reference = traits.List(traits.Dict(), mandatory=True, desc="descriptions of the reference regions")
    reference_value = traits.List(traits.Float(), mandatory=True, desc="mean activity in each reference region")
    suvr_files = traits.List(File(exists=True), mandatory=True, desc="SUVR maps in the halfway space")
    assumptions = traits.List(traits.Str(), mandatory=True, desc="what was assumed")


class SaveHalfwayPet(LibraryInterface):
    """Write the SUVR maps of a scan in the halfway space."""

    _always_run = True
    input_spec = _SaveHalfwayPetIn
    output_spec = _SaveOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        names = HalfwayNames(Path(given.output_dir), dict(given.entities))
        raw = bids_uri(Path(given.raw_file), Path(given.bids_dir))
        image = bids_uri(HalfwayNames(names.output_dir, {"sub": names.entities["sub"]}).t1w, names.output_dir, "")
        written = []
        for rank, described in enumerate(given.reference):
            region = described["ReferenceRegion"]
            about = {
                "Description": f"SUVR by {region} on the grid of the halfway image",
                "Units": "unitless",
                "SpatialReference": image,
                "ReferenceRegion": region,
                "ReferenceValue": given.reference_value[rank],
            }
            own = image_sidecar(
                [raw, image], given.settings_hash, skull_stripped=False, assumptions=given.assumptions, **about
            )
            target = names.suvr(region if rank else "")
            save_copy(given.suvr_files[rank], target, own)
            written.append(str(target))
        return {"out_files": written}
