"""Interfaces over the rooms of the anatomy: `anat`, `tissue`, `parcellation`, `reference`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from tau_pipeline.anatomy import bias, brain_mask, parcellation
from tau_pipeline.anatomy import template as anat
from tau_pipeline.anatomy.agreement import template_agreement
from tau_pipeline.anatomy.freesurfer import labels_from_freesurfer
from tau_pipeline.anatomy.tissue import segment_tissue
from tau_pipeline.anatomy.warped_atlas import warped_atlas
from tau_pipeline.atlas import atlas_files, template_regions
from tau_pipeline.imaging.foreground import with_dark_air
from tau_pipeline.imaging.header_orientation import readings, with_affine
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.transforms import save_itk
from tau_pipeline.imaging.volume import Volume, image_like, save_volume, voxel_size_mm
from tau_pipeline.measures.quality_figures import cut_area, tissue_contrast
from tau_pipeline.pet import reference_region as reference
from tau_pipeline.pet.field_of_view import measured_voxels
from tau_pipeline.settings.participant import Orientation, SkullStrip
from tau_workflows.interfaces.base import LibraryInterface, quality_figures_trait


class _ReadT1wIn(BaseInterfaceInputSpec):
    t1w_file = File(exists=True, mandatory=True, desc="T1w, 3-D; or 4-D with echoes, of which the first is taken")
    orientation = traits.Enum(*get_args(Orientation), usedefault=True, desc="which description of the axes to take")


class _ReadT1wOut(TraitedSpec):
    t1w_file = File(desc="the T1w: the file itself, or a copy with the axes that were chosen and air near 0")
    quality_figures = quality_figures_trait()
    assumptions = traits.List(traits.Str(), desc="what is contradictory in the header, or negative, in words")


class ReadT1w(LibraryInterface):
    """Take the axes of the T1w from its header, say where it is contradictory, and bring its air to 0."""

    input_spec = _ReadT1wIn
    output_spec = _ReadT1wOut

    def call(self, folder: Path) -> dict[str, Any]:
        path = Path(self.inputs.t1w_file)
        header, img = readings(path, self.inputs.orientation), load_volume(path)
        same = img.ndim == 3 and np.allclose(header.affine, img.affine, atol=1e-3)
        if img.ndim > 3:
            img = image_like(np.asanyarray(img.dataobj)[..., 0], img)
        img, dark = with_dark_air(img)
        used = path if same and not dark else save_volume(with_affine(img, header.affine), folder / "t1w.nii")
        doubt = (2.0 if header.mirrored else 1.0) if header.reason else 0.0
        note = (
            f"The orientation of the T1w is not certain: {header.reason}. To decide, choose with --orientation sform "
            "or qform, or correct the header."
        )
        return {
            "t1w_file": str(used),
            "quality_figures": {"T1wOrientationDoubt": doubt},
            "assumptions": [note] * bool(header.reason) + [dark] * bool(dark),
        }


class _ExtractBrainIn(BaseInterfaceInputSpec):
    t1w_file = File(exists=True, mandatory=True, desc="T1w, 3-D")
    skull_strip_t1w = traits.Enum(*get_args(SkullStrip), usedefault=True, desc="whether to look for the brain")
    known_stripped = traits.Bool(False, usedefault=True, desc="the sidecar says SkullStripped")
    threads = traits.Int(1, usedefault=True, nohash=True, desc="threads; the result does not depend on them")


class _ExtractBrainOut(TraitedSpec):
    mask_file = File(desc="brain mask, uint8, on the T1w grid")
    skull_stripped = traits.Bool(desc="the T1w was taken as already stripped")
    quality_figures = quality_figures_trait()
    assumptions = traits.List(traits.Str(), desc="what was assumed, in words")


class ExtractBrain(LibraryInterface):
    """Find the brain, or take what is left of a head that was stripped before."""

    input_spec = _ExtractBrainIn
    output_spec = _ExtractBrainOut

    def call(self, folder: Path) -> dict[str, Any]:
        t1w = load_volume(self.inputs.t1w_file, ndim=3)
        mode, known = self.inputs.skull_strip_t1w, self.inputs.known_stripped
        stripped = mode == "skip" or (mode == "auto" and (known or brain_mask.is_skull_stripped(t1w)))
        assumptions = []
        if stripped and not known:
            why = (
                "as set by --skull-strip-t1w skip" if mode == "skip" else "because there is no signal around the brain"
            )
            assumptions.append(f"The T1w was assumed to be skull-stripped, {why}.")
        mask = brain_mask.stripped_mask(t1w) if stripped else brain_mask.extract_brain(t1w, self.inputs.threads)
        data = np.asanyarray(t1w.dataobj)
        # A head that was stripped is filled around the brain.
        measured = np.ones(data.shape, bool) if stripped else measured_voxels(data, voxel_size_mm(t1w))
        figures = cut_area(mask, measured)
        assumptions += [] if stripped else brain_mask.cut_note(figures["BrainCutArea"])
        mask_file = save_volume(mask, folder / "mask.nii")
        return {
            "mask_file": str(mask_file),
            "skull_stripped": stripped,
            "quality_figures": figures,
            "assumptions": assumptions,
        }


class _T1wMaskIn(BaseInterfaceInputSpec):
    t1w_file = File(exists=True, mandatory=True, desc="T1w, 3-D")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the T1w grid")


class _CorrectBiasOut(TraitedSpec):
    t1w_preproc_file = File(desc="T1w without intensity non-uniformity, full head, float32")


class CorrectBias(LibraryInterface):
    """Take out the slow change of intensity across the head (N4)."""

    input_spec = _T1wMaskIn
    output_spec = _CorrectBiasOut

    def call(self, folder: Path) -> dict[str, Any]:
        t1w, mask = load_volume(self.inputs.t1w_file, ndim=3), load_volume(self.inputs.mask_file, ndim=3)
        out = save_volume(bias.correct_bias(t1w, mask), folder / "t1w_preproc.nii")
        return {"t1w_preproc_file": str(out)}


class TissueIn(BaseInterfaceInputSpec):
    """Inputs of `SegmentTissue`."""

    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the T1w grid")
    atlas_file = File(exists=True, mandatory=True, desc="labels of the template warped to the head")


class _TissueOut(TraitedSpec):
    tissue_file = File(desc="probabilities of CSF, gray and white matter, 4-D")
    quality_figures = quality_figures_trait()


class _RegisterIn(BaseInterfaceInputSpec):
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the T1w grid")
    threads = traits.Int(1, usedefault=True, nohash=True, desc="threads; the result does not depend on them")


class _RegisterOut(TraitedSpec):
    t1w_from_template = File(desc="ITK transform for resampling template images onto the T1w")
    template_from_t1w = File(desc="ITK transform for resampling images on the T1w onto the template")
    head_up = traits.List(traits.Float(), desc="direction to the top of the head in the T1w's world, RAS+")
    atlas_file = File(desc="labels of the template warped to the head, on its working grid")
    quality_figures = quality_figures_trait()


class RegisterToTemplate(LibraryInterface):
    """Spatial normalization: affine, then deformable, to MNI152NLin6Asym."""

    input_spec = _RegisterIn
    output_spec = _RegisterOut

    def call(self, folder: Path) -> dict[str, Any]:
        t1w, mask = load_volume(self.inputs.t1w_preproc_file, ndim=3), load_volume(self.inputs.mask_file, ndim=3)
        template = atlas_files().template_brain
        found = anat.register_to_template(
            t1w,
            mask,
            template_brain=template,
            out_dir=folder,
            threads=self.inputs.threads,
        )
        (onto_t1w,), (onto_template,) = found.t1w_from_template, found.template_from_t1w
        transforms = {"t1w_from_template": str(onto_t1w), "template_from_t1w": str(onto_template)}
        atlas = warped_atlas(mask, atlas_files().desikan_killiany, found)
        figures = {"TemplateCorrelation": template_agreement(t1w, mask, template, found.t1w_from_template)}
        atlas_file = str(save_volume(atlas, folder / "atlas.nii"))
        return {
            **transforms,
            "head_up": list(found.head_up),
            "atlas_file": atlas_file,
            "quality_figures": figures,
        }


class _MirrorOut(TraitedSpec):
    mirror_atlas_file = File(desc="labels of the template's mirror image warped to the head, on its working grid")


class RegisterToMirrorImage(LibraryInterface):
    """Bring the labels of the template's mirror image to the head: a second opinion on where its regions are."""

    input_spec = _RegisterIn
    output_spec = _MirrorOut

    def call(self, folder: Path) -> dict[str, Any]:
        t1w, mask = load_volume(self.inputs.t1w_preproc_file, ndim=3), load_volume(self.inputs.mask_file, ndim=3)
        files = atlas_files()
        found = anat.register_to_mirror_image(t1w, mask, files.template_brain, folder, threads=self.inputs.threads)
        atlas = warped_atlas(mask, files.desikan_killiany, found)
        return {"mirror_atlas_file": str(save_volume(atlas, folder / "mirror_atlas.nii"))}


class SegmentTissue(LibraryInterface):
    """Tissue probabilities inside the brain mask."""

    input_spec = TissueIn
    output_spec = _TissueOut

    def call(self, folder: Path) -> dict[str, Any]:
        t1w, mask = load_volume(self.inputs.t1w_preproc_file, ndim=3), load_volume(self.inputs.mask_file, ndim=3)
        tissue = self.segment(t1w, mask, load_volume(self.inputs.atlas_file, ndim=3))
        return {
            "tissue_file": str(save_volume(tissue, folder / "tissue.nii")),
            "quality_figures": tissue_contrast(np.asanyarray(t1w.dataobj), np.asanyarray(tissue.dataobj)),
        }

    def segment(self, t1w: Volume, mask: Volume, atlas: Volume) -> Volume:
        """Return the fractions of tissue, ``(I, J, K, 3)``."""
        return segment_tissue(t1w, mask, atlas)


class _ParcellateIn(BaseInterfaceInputSpec):
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the T1w grid")
    tissue_file = File(exists=True, mandatory=True, desc="tissue probabilities on the T1w grid")
    atlas_file = File(exists=True, mandatory=True, desc="labels of the template warped to the head")
    mirror_atlas_file = File(exists=True, mandatory=True, desc="labels of its mirror image warped to the head")


class _ParcellateOut(TraitedSpec):
    dseg_file = File(desc="Desikan-Killiany and aseg labels, FreeSurfer numbers, on the T1w grid")


class Parcellate(LibraryInterface):
    """Desikan-Killiany labels from the template's, put on this head's own gray matter."""

    input_spec = _ParcellateIn
    output_spec = _ParcellateOut

    def call(self, folder: Path) -> dict[str, Any]:
        dseg = parcellation.parcellate(
            load_volume(self.inputs.t1w_preproc_file, ndim=3),
            load_volume(self.inputs.mask_file, ndim=3),
            load_volume(self.inputs.tissue_file, ndim=4),
            [load_volume(file, ndim=3) for file in (self.inputs.atlas_file, self.inputs.mirror_atlas_file)],
        )
        return {"dseg_file": str(save_volume(dseg, folder / "dseg.nii"))}


class _WarpRegionsIn(BaseInterfaceInputSpec):
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, gives the grid")
    t1w_from_template = File(exists=True, mandatory=True, desc="ITK transform, template to T1w")


class _WarpRegionsOut(TraitedSpec):
    template_regions_file = File(desc="cerebellar lobules and pons on the T1w grid")


class WarpTemplateRegions(LibraryInterface):
    """Bring the cerebellar lobules and the pons, which are defined on the template, to the T1w grid."""

    input_spec = _WarpRegionsIn
    output_spec = _WarpRegionsOut

    def call(self, folder: Path) -> dict[str, Any]:
        on_template = save_volume(template_regions(), folder / "on_template.nii")
        t1w = load_volume(self.inputs.t1w_preproc_file, ndim=3)
        warped = parcellation.labels_to_t1w(on_template, t1w, (Path(self.inputs.t1w_from_template),))
        return {"template_regions_file": str(save_volume(warped, folder / "template_regions.nii"))}


class _ReferenceIn(BaseInterfaceInputSpec):
    dseg_file = File(exists=True, mandatory=True, desc="labels, FreeSurfer numbers, on the T1w grid")
    tissue_file = File(exists=True, desc="tissue probabilities on the T1w grid")
    template_regions_file = File(exists=True, desc="cerebellar lobules and pons on the T1w grid")
    ref_region = traits.List(traits.Str(), mandatory=True, desc="names of the regions")


class _ReferenceOut(TraitedSpec):
    reference_file = traits.List(File(), desc="a mask for each region, uint8, on the T1w grid")
    reference = traits.List(traits.Dict(), desc="name, indices, volume and description of each region")
    assumptions = traits.List(traits.Str(), desc="a sentence for each guard that had to be relaxed")


class FindReference(LibraryInterface):
    """Reference regions, guarded against spill-in."""

    input_spec = _ReferenceIn
    output_spec = _ReferenceOut

    def call(self, folder: Path) -> dict[str, Any]:
        tissue_file, regions_file = self.optional("tissue_file"), self.optional("template_regions_file")
        dseg = load_volume(self.inputs.dseg_file, ndim=3)
        regions = load_volume(regions_file, ndim=3) if regions_file else None
        tissue = load_volume(tissue_file, ndim=4) if tissue_file else None
        found = [reference.find_reference(name, dseg, regions, tissue) for name in self.inputs.ref_region]
        return {
            "reference_file": [str(save_volume(one.mask, folder / f"{one.name}.nii")) for one in found],
            "reference": [_described(one) for one in found],
            "assumptions": [f"The guard was relaxed: {one.description}." for one in found if one.relaxed],
        }


def _described(region: reference.ReferenceRegion) -> dict[str, Any]:
    """Return fields of a sidecar that describe a reference region."""
    return {
        "ReferenceRegion": region.name,
        "ReferenceRegionIndices": list(region.labels),
        "ReferenceRegionVolume": round(region.volume_mm3, 1),
        "ReferenceRegionDescription": region.description,
        "ReferenceRegionSpillIn": round(region.spill_in, 4),
    }


class _FreeSurferIn(BaseInterfaceInputSpec):
    t1w_file = File(exists=True, mandatory=True, desc="T1w, 3-D")
    brain_mask_file = File(exists=True, mandatory=True, desc="our own brain mask, to check against")
    labels_file = File(exists=True, mandatory=True, desc="aparc+aseg of FreeSurfer or FastSurfer")
    brain_file = File(exists=True, desc="T1w on the grid of the labels")
    freesurfer_mask_file = File(exists=True, desc="above 0 inside the brain, on the same grid")


class _FreeSurferOut(TraitedSpec):
    dseg_file = File(desc="FreeSurfer's labels on the T1w grid")
    mask_file = File(desc="FreeSurfer's brain mask on the T1w grid")
    labels2t1w_xfm = File(desc="ITK transform for resampling images on the grid of the labels onto the T1w")


class FreeSurferLabels(LibraryInterface):
    """FreeSurfer's or FastSurfer's labels and brain mask, brought to the T1w grid by a checked registration."""

    input_spec = _FreeSurferIn
    output_spec = _FreeSurferOut

    def call(self, folder: Path) -> dict[str, Any]:
        found = labels_from_freesurfer(
            self.inputs.labels_file,
            self.optional("brain_file"),
            load_volume(self.inputs.t1w_file, ndim=3),
            load_volume(self.inputs.brain_mask_file, ndim=3),
            mask_file=self.optional("freesurfer_mask_file"),
        )
        return {
            "dseg_file": str(save_volume(found.dseg, folder / "dseg.nii")),
            "mask_file": str(save_volume(found.mask, folder / "mask.nii")),
            "labels2t1w_xfm": str(save_itk(found.rigid.matrix, folder / "labels2t1w.txt")),
        }
