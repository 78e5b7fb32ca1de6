"""Interface over `tau_pipeline.pvc`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits
from numpy.typing import NDArray

from tau_pipeline.atlas import label_array
from tau_pipeline.files import read_tsv, write_tsv
from tau_pipeline.imaging.foreground import box_around
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.transforms import load_itk
from tau_pipeline.imaging.volume import (
    Affine,
    Volume,
    image_on,
    part_of,
    require_same_grid,
    save_volume,
    voxel_size_mm,
)
from tau_pipeline.pet.resolution import image_resolution, uniform_resolution_mm
from tau_pipeline.pvc import correct as pvc
from tau_pipeline.pvc import psf as spread
from tau_pipeline.pvc.cerebellum import with_lobules
from tau_pipeline.pvc.correct import Correction
from tau_pipeline.pvc.hot_spots import with_hot_spots
from tau_pipeline.pvc.maps import METHODS_WITH_MAPS, ROOM_MM, CorrectedMaps, blur_on_t1w
from tau_pipeline.pvc.regions import Box, RegionModel, region_model
from tau_pipeline.settings.participant import Settings
from tau_workflows.interfaces.base import LibraryInterface


class _PvcIn(BaseInterfaceInputSpec):
    static_file = File(exists=True, mandatory=True, desc="PET, 3-D, on its own grid")
    pet2t1w_xfm = File(exists=True, mandatory=True, desc="ITK transform for resampling PET onto the T1w")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the T1w grid")
    dseg_file = File(exists=True, mandatory=True, desc="labels on the T1w grid, FreeSurfer numbers")
    template_regions_file = File(exists=True, desc="cerebellar lobules on the T1w grid")
    reference_file = traits.List(File(exists=True), mandatory=True, desc="masks of the reference regions")
    reference = traits.List(traits.Dict(), mandatory=True, desc="names and descriptions of the reference regions")
    rois_file = File(exists=True, mandatory=True, desc="region table without correction")
    quality = traits.List(traits.Dict(), mandatory=True, desc="quality measures of each SUVR map")
    activity_file = File(exists=True, mandatory=True, desc="activity on the T1w grid")
    smoothing_fwhm = traits.Float(mandatory=True, desc="FWHM of the filter that the activity was smoothed with, mm")
    pvc = traits.List(traits.Str(), mandatory=True, desc="methods, the first one first in the table")
    min_measured_fraction = traits.Float(
        Settings.min_measured_fraction, usedefault=True, desc="share of a region that must be measured"
    )
    pet_metadata = traits.Dict(
        {}, usedefault=True, desc="the PET's sidecar: a resolution it was smoothed to in advance"
    )
    pvc_extracerebral = traits.Bool(
        Settings.pvc_extracerebral, usedefault=True, desc="hot spots around the brain are regions of their own"
    )
    with_weights = traits.Bool(False, usedefault=True, desc="also write what maps in other spaces are made with")
    psf = traits.List(traits.Float(), desc="FWHM of the point spread, one or three values, mm")
    psf_source = traits.Str(
        Settings.psf_source, usedefault=True, desc="image or scanner: what gives the point spread without psf"
    )


class _PvcOut(TraitedSpec):
    rois_file = File(desc="region table with the corrected columns")
    quality = traits.List(traits.Dict(), desc="quality measures of each SUVR map, and the sidecar's keys of correction")
    corrected_files = traits.Dict(desc="corrected map of each method that has one, by the first reference region")
    weight_files = traits.Dict(desc="offset and slope of each method, on the T1w grid: map = offset + slope * activity")
    assumptions = traits.List(traits.Str(), desc="where the point spread comes from")


@dataclass(frozen=True)
class _Head:
    """The part of the T1w grid around the brain: a whole head in high resolution takes three times the memory."""

    box: Box
    dseg: Volume
    in_parts: Volume
    mask: Volume
    whole_shape: tuple[int, ...]
    whole_affine: Affine

    def save(self, image: Volume, path: Path) -> str:
        """Write an image of the part on the whole grid, with NaN around it; returns the path."""
        whole = np.full(self.whole_shape, np.nan, np.float32)
        whole[self.box] = np.asanyarray(image.dataobj)
        return str(save_volume(image_on(whole, self.whole_affine), path))


class CorrectPartialVolume(LibraryInterface):
    """Partial volume correction of the regional values."""

    input_spec = _PvcIn
    output_spec = _PvcOut

    def call(self, folder: Path) -> dict[str, Any]:
        static, head = load_volume(self.inputs.static_file, ndim=3), self._head()
        model = region_model(static, head.in_parts, head.mask, load_itk(self.inputs.pet2t1w_xfm))
        values = np.asanyarray(static.dataobj)
        # The static image is 0 where no frame has measured anything.
        pet = model.cut(np.where(values == 0, np.nan, values))
        point_spread = self._point_spread(model, pet, static)
        if self.inputs.pvc_extracerebral:
            model = with_hot_spots(model, pet, point_spread.fwhm_mm)
        found = pvc.correct(model, pet, point_spread, self.inputs.pvc, self.inputs.min_measured_fraction)
        parts = label_array(head.in_parts)
        masks = {
            described["ReferenceRegion"]: np.asanyarray(part_of(load_volume(mask_file, ndim=3), head.box).dataobj)
            for mask_file, described in zip(self.inputs.reference_file, self.inputs.reference, strict=True)
        }
        table = pvc.add_columns(read_tsv(Path(self.inputs.rois_file)), found, label_array(head.dseg), masks, parts)
        shares = [pvc.reference_shares(model, parts, mask_of) for mask_of in masks.values()]
        measures = [own | pvc.sidecar(found, one) for own, one in zip(self.inputs.quality, shares, strict=True)]
        maps, weights = self._maps(folder, found, head, shares[0])
        return {
            "corrected_files": maps,
            "weight_files": weights,
            "rois_file": str(write_tsv(table, folder / "rois.tsv")),
            "quality": measures,
            "assumptions": [point_spread.source],
        }

    def _head(self) -> _Head:
        """Load labels, mask, and lobules where there are labels, brain, or reference regions."""
        dseg, mask = (load_volume(file, ndim=3) for file in (self.inputs.dseg_file, self.inputs.mask_file))
        require_same_grid(dseg=dseg, mask=mask)
        inside = (label_array(dseg) > 0) | (np.asanyarray(mask.dataobj) > 0)
        for file in self.inputs.reference_file:
            inside |= np.asanyarray(load_volume(file, ndim=3).dataobj) > 0
        box = box_around(inside, ROOM_MM / voxel_size_mm(dseg))
        labels, lobules_file = part_of(dseg, box), self.optional("template_regions_file")
        in_parts = with_lobules(labels, part_of(load_volume(lobules_file, ndim=3), box)) if lobules_file else labels
        return _Head(box, labels, in_parts, part_of(mask, box), dseg.shape[:3], dseg.affine)

    def _point_spread(self, model: RegionModel, pet: NDArray[np.float32], static: Volume) -> spread.PointSpread:
        """Return the point spread that was given or is stated, that of the scanner, or the one that is estimated."""
        given = tuple(self.optional("psf") or ())
        if given:
            text = f"The point spread was given: {' x '.join(f'{one:g}' for one in given)} mm."
            return spread.given_point_spread(given, text)
        uniform_mm = uniform_resolution_mm(self.inputs.pet_metadata)
        if uniform_mm is not None:
            text = f"The point spread is that to which the image was smoothed in advance (sidecar): {uniform_mm:g} mm."
            return spread.given_point_spread((uniform_mm,), text)
        found = None if self.inputs.psf_source == "image" else image_resolution(self.inputs.pet_metadata, static)
        if found is not None and not found.estimated:
            text = f"The point spread is the resolution of the scanner model. {found.source}"
            return spread.given_point_spread((found.fwhm_mm,), text)
        estimated = spread.estimate_point_spread(model, pet)
        if found is None:
            return estimated
        return replace(estimated, source=f"The scanner model is not in the table of resolutions. {estimated.source}")

    def _maps(
        self, folder: Path, found: Correction, head: _Head, shares: NDArray[np.float64]
    ) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Write the map of each method that has one, and its weights."""
        methods = [method for method in found.by_method if method in METHODS_WITH_MAPS]
        if not methods:
            return {}, {}
        activity, static = (load_volume(file, ndim=3) for file in (self.inputs.activity_file, self.inputs.static_file))
        xfm = load_itk(self.inputs.pet2t1w_xfm)
        blur = blur_on_t1w(found.point_spread.fwhm_mm, static, xfm, self.inputs.smoothing_fwhm)
        maps = CorrectedMaps(part_of(activity, head.box), head.in_parts, head.mask, blur)
        files: dict[str, str] = {}
        weights: dict[str, list[str]] = {}
        for method in methods:
            value = pvc.reference_value(found, method, shares)
            values = pvc.map_values(found, method)
            files[method] = head.save(maps.make(method, values, value), folder / f"{method}.nii")
            if self.inputs.with_weights:
                pair = zip(("offset", "slope"), maps.weights(method, values, value), strict=True)
                weights[method] = [head.save(one, folder / f"{method}_{name}.nii") for name, one in pair]
        return files, weights
