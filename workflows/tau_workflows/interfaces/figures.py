"""Interfaces over `tau_pipeline.figures.participant`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from tau_pipeline.anatomy.template import template_in
from tau_pipeline.atlas import atlas_files, label_table
from tau_pipeline.figures import participant as figures
from tau_pipeline.figures import sheet, small
from tau_pipeline.imaging.load import load_volume
from tau_workflows.interfaces.base import LibraryInterface


class _FiguresOut(TraitedSpec):
    figure_files = traits.Dict(desc="path of each figure by its `desc` label")


class _EarlyFiguresIn(BaseInterfaceInputSpec):
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")
    tissue_file = File(exists=True, desc="fractions of CSF, gray and white matter, 4-D")
    t1w_from_template = File(exists=True, desc="ITK transform, template to T1w")


class _EarlyFiguresOut(TraitedSpec):
    early_figure_files = traits.Dict(desc="path of each figure by its `desc` label")


class EarlyFigures(LibraryInterface):
    """Draw brain mask and tissue on the T1w, and the template that was registered to it: what needs no labels."""

    input_spec = _EarlyFiguresIn
    output_spec = _EarlyFiguresOut

    def call(self, folder: Path) -> dict[str, Any]:
        t1w, mask = load_volume(self.inputs.t1w_preproc_file, ndim=3), load_volume(self.inputs.mask_file, ndim=3)
        drawn = {"brainMask": figures.brain_mask_figure(t1w, mask)}
        if tissue_file := self.optional("tissue_file"):
            drawn["tissue"] = figures.tissue_figure(t1w, load_volume(tissue_file, ndim=4), mask)
        if transform := self.optional("t1w_from_template"):
            template = template_in(mask, atlas_files().template_brain, (Path(transform),))
            drawn["template"] = figures.template_figure(t1w, template, mask)
        return {"early_figure_files": _saved(drawn, folder)}


class _AnatFiguresIn(BaseInterfaceInputSpec):
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    dseg_file = File(exists=True, mandatory=True, desc="labels")
    early_figure_files = traits.Dict(mandatory=True, desc="figures drawn before, by their `desc` label")


class AnatFigures(LibraryInterface):
    """Draw the parcellation on the T1w, and give all figures of the T1w."""

    input_spec = _AnatFiguresIn
    output_spec = _FiguresOut

    def call(self, folder: Path) -> dict[str, Any]:
        t1w, dseg = load_volume(self.inputs.t1w_preproc_file, ndim=3), load_volume(self.inputs.dseg_file, ndim=3)
        drawn = {"parcellation": figures.parcellation_figure(t1w, dseg, label_table())}
        return {"figure_files": {**self.inputs.early_figure_files, **_saved(drawn, folder)}}


class _ActivityFiguresIn(BaseInterfaceInputSpec):
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")
    activity_file = File(exists=True, mandatory=True, desc="activity on the T1w grid")
    units = traits.Str("Bq/mL", usedefault=True, desc="unit of the activity")


class _ActivityFiguresOut(TraitedSpec):
    activity_figure_files = traits.Dict(desc="path of each figure by its `desc` label")


class ActivityFigures(LibraryInterface):
    """Draw PET on T1w, the two to blend, and both as a thumbnail: what needs no labels."""

    input_spec = _ActivityFiguresIn
    output_spec = _ActivityFiguresOut

    def call(self, folder: Path) -> dict[str, Any]:
        t1w, mask = load_volume(self.inputs.t1w_preproc_file, ndim=3), load_volume(self.inputs.mask_file, ndim=3)
        activity = load_volume(self.inputs.activity_file, ndim=3)
        drawn: dict[str, Any] = {
            "coregistration": figures.coregistration_figure(t1w, activity, mask, unit=self.inputs.units),
            "thumbnail": small.thumbnail(t1w, activity, mask),
        }
        drawn["blendT1w"], drawn["blendPET"] = figures.flicker_figures(t1w, activity, mask, unit=self.inputs.units)
        return {"activity_figure_files": _saved(drawn, folder)}


class _PetFiguresIn(BaseInterfaceInputSpec):
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")
    activity_figure_files = traits.Dict(mandatory=True, desc="figures drawn before, by their `desc` label")
    suvr_scale = traits.List([0.5, 2.5], traits.Float(), usedefault=True, desc="ends of the color scale of SUVR")
    suvr_file = traits.List(File(exists=True), mandatory=True, desc="SUVR maps, one a reference region")
    reference_file = traits.List(File(exists=True), mandatory=True, desc="masks of the reference regions")
    reference = traits.List(traits.Dict(), mandatory=True, desc="names of the reference regions")
    corrected_files = traits.Dict(desc="maps corrected for partial volume effects, by method")


class PetFigures(LibraryInterface):
    """Draw the first SUVR map, also as small volumes, and each reference region; give all figures of the scan."""

    input_spec = _PetFiguresIn
    output_spec = _FiguresOut

    def call(self, folder: Path) -> dict[str, Any]:
        t1w, mask = load_volume(self.inputs.t1w_preproc_file, ndim=3), load_volume(self.inputs.mask_file, ndim=3)
        names = [described["ReferenceRegion"] for described in self.inputs.reference]
        suvr = load_volume(self.inputs.suvr_file[0], ndim=3)
        drawn: dict[str, Any] = {
            "suvr": figures.suvr_figure(suvr, t1w, *self.inputs.suvr_scale, mask=mask, reference=names[0])
        }
        drawn["viewT1w"], drawn["viewPET"] = small.volume_pictures(
            t1w, suvr, mask, f"SUVR ({names[0]})", self.inputs.suvr_scale[1]
        )
        for method, file in (self.optional("corrected_files") or {}).items():
            # The same scale and slices as the plain map, for comparison.
            corrected = load_volume(file, ndim=3)
            drawn[f"pvc{method.upper()}"] = figures.suvr_figure(
                corrected, t1w, *self.inputs.suvr_scale, mask=mask, reference=names[0]
            )
        for name, mask_file, suvr_file in zip(names, self.inputs.reference_file, self.inputs.suvr_file, strict=True):
            region, own_suvr = load_volume(mask_file, ndim=3), load_volume(suvr_file, ndim=3)
            drawn[f"reference{name}"] = figures.reference_region_figure(t1w, region, name, suvr=own_suvr)
        return {"figure_files": {**self.inputs.activity_figure_files, **_saved(drawn, folder)}}


def _saved(drawn: dict[str, Any], folder: Path) -> dict[str, str]:
    return {desc: str(_save(one, folder / f"{desc}.png")) for desc, one in drawn.items()}


def _save(drawn: Any, path: Path) -> Path:
    """Save a figure of matplotlib, or a picture."""
    from matplotlib.figure import Figure

    return sheet.save_figure(drawn, path) if isinstance(drawn, Figure) else small.save_picture(drawn, path)
