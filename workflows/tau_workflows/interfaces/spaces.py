"""Interfaces that write images in the spaces of templates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits
from numpy.typing import NDArray

from tau_pipeline.anatomy.spaces import template_grid, transforms_to
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.transforms import load_itk
from tau_pipeline.imaging.volume import Volume, image_like, save_volume
from tau_pipeline.imaging.warp import Points, points_through, sample, volume_change
from tau_pipeline.pet.quantification import pet_at
from tau_pipeline.settings.spaces import parse_space
from tau_workflows.interfaces.base import LibraryInterface
from tau_workflows.interfaces.pet import frame_plan


class _SpacesIn(BaseInterfaceInputSpec):
    output_spaces = traits.List(traits.Str(), mandatory=True, desc="templates, as NAME:res-VALUE")
    template_from_t1w = File(exists=True, mandatory=True, desc="ITK transform, T1w to the template it is registered to")
    templates_dir = traits.Str(mandatory=True, nohash=True, desc="where transforms between templates are kept")


class _SpacesOut(TraitedSpec):
    space_files = traits.Dict(desc="for each space: files by what they show")


def _in_each(
    inputs: Any, folder: Path, write: Callable[[Volume, Points, Path], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the files that ``write`` makes for each space from its grid, the points on the T1w, and a folder."""
    found = {}
    for text in inputs.output_spaces:
        space = parse_space(text)
        grid = template_grid(space)
        transforms = transforms_to(space, Path(inputs.template_from_t1w), Path(inputs.templates_dir))
        own = folder / text.replace(":", "_")
        own.mkdir(exist_ok=True)
        found[text] = write(grid, points_through(grid, transforms), own)
    return found


class _AnatIn(_SpacesIn):
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    dseg_file = File(exists=True, mandatory=True, desc="labels on the T1w grid")


class AnatInSpaces(LibraryInterface):
    """T1w by linear interpolation, labels by nearest neighbor, and the volume change, on the grids of templates."""

    input_spec = _AnatIn
    output_spec = _SpacesOut

    def call(self, folder: Path) -> dict[str, Any]:
        return {"space_files": _in_each(self.inputs, folder, self._write)}

    def _write(self, grid: Volume, points: Points, folder: Path) -> dict[str, Any]:
        t1w, dseg = load_volume(self.inputs.t1w_preproc_file, ndim=3), load_volume(self.inputs.dseg_file, ndim=3)
        images = {
            "t1w": sample(t1w, points, order=1),
            "dseg": sample(dseg, points, order=0),
            "jacobian": volume_change(grid, points),
        }
        return {name: str(save_volume(image_like(data, grid), folder / f"{name}.nii")) for name, data in images.items()}


class SampledPetIn(BaseInterfaceInputSpec):
    """Inputs of a step that samples PET at points of the T1w's world (`activity_at`, `corrected_at`)."""

    pet_file = File(exists=True, mandatory=True, desc="PET, 3-D or 4-D")
    frames = traits.Dict(mandatory=True, desc="fields of a FramePlan")
    frame_xfms = traits.List(mandatory=True, desc="a 4 x 4 matrix for each frame used")
    pet2t1w_xfm = File(exists=True, mandatory=True, desc="ITK transform for resampling PET onto the T1w")
    smoothing_fwhm = traits.Float(mandatory=True, desc="FWHM of the filter to apply, mm")
    reference_value = traits.List(traits.Float(), mandatory=True, desc="mean activity in each reference region")
    weight_files = traits.Dict(desc="offset and slope of the corrected map of each method, on the T1w grid")
    rois_file = File(exists=True, desc="table of the correction; it changes when the weights do")


def activity_at(inputs: Any, points: Points) -> NDArray[np.float32]:
    """Return the activity at points: one interpolation of each raw frame (`tau_pipeline.pet.quantification.pet_at`)."""
    return pet_at(
        load_volume(inputs.pet_file),
        frame_plan(inputs.frames),
        [np.array(xfm) for xfm in inputs.frame_xfms],
        load_itk(inputs.pet2t1w_xfm),
        points,
        fwhm_mm=inputs.smoothing_fwhm,
    )


def corrected_at(
    activity: NDArray[np.float32], points: Points, weight_files: Mapping[str, Sequence[str]] | None
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each method with its corrected SUVR at points: weights on the T1w grid, and the activity sampled there.

    Weights are taken from the nearest voxel, as the labels are that they come from: at borders of regions they have
    steps, which interpolation would mix. Outside of the T1w the slope is 0, which it is nowhere else.
    """
    for method, pair in (weight_files or {}).items():
        offset, slope = (sample(load_volume(file, ndim=3), points, order=0) for file in pair)
        yield method, np.where(slope == 0, np.float32(np.nan), offset + slope * activity)


class _PetIn(SampledPetIn, _SpacesIn):
    pass


class PetInSpaces(LibraryInterface):
    """SUVR by each reference region on the grids of templates: one interpolation of each raw frame."""

    input_spec = _PetIn
    output_spec = _SpacesOut

    def call(self, folder: Path) -> dict[str, Any]:
        return {"space_files": _in_each(self.inputs, folder, self._write)}

    def _write(self, grid: Volume, points: Points, folder: Path) -> dict[str, Any]:
        activity = activity_at(self.inputs, points)
        files = []
        for rank, value in enumerate(self.inputs.reference_value):
            suvr = image_like((activity / value).astype(np.float32), grid)
            files.append(str(save_volume(suvr, folder / f"suvr_{rank}.nii")))
        corrected = {
            method: str(save_volume(image_like(found, grid), folder / f"{method}.nii"))
            for method, found in corrected_at(activity, points, self.optional("weight_files"))
        }
        return {"suvr": files, "corrected": corrected}
