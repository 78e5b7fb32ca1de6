"""Interface that samples PET in the middle of the cortex and in subcortical voxels, and writes surface files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, traits

from tau_pipeline.anatomy.spaces import template_grid, transforms_to
from tau_pipeline.derivatives.names import PetNames, sidecar_path
from tau_pipeline.files import read_json, write_json
from tau_pipeline.imaging.warp import points_through
from tau_pipeline.settings.spaces import OutputSpace, parse_space
from tau_pipeline.surface import mesh
from tau_pipeline.surface.average import target_spheres
from tau_pipeline.surface.cifti import SUBCORTICAL_SPACE, save_dscalar, subcortical_model
from tau_pipeline.surface.mesh import SIDES, Side, Values
from tau_pipeline.surface.spheres import values_on
from tau_workflows.interfaces.base import LibraryInterface
from tau_workflows.interfaces.spaces import SampledPetIn, activity_at, corrected_at
from tau_workflows.interfaces.surface import SaveOut, SaveSurfacesIn, files_of_both

#: A map of the participant: reference region, method of correction or nothing, values at the vertices by side, and in
#: the subcortical voxels.
_Map = tuple[str, str, dict[Side, Values], Values]


class _SaveSurfacePetIn(SampledPetIn, SaveSurfacesIn):
    saved_files = traits.List(File(exists=True), mandatory=True, desc="outputs of the scan, whose sidecars are there")
    reference = traits.List(traits.Dict(), mandatory=True, desc="descriptions of the reference regions")
    surfaces = traits.List(traits.Str(), mandatory=True, desc="average surfaces, as NAME:den-VALUE")
    template_from_t1w = File(exists=True, mandatory=True, desc="ITK transform, T1w to the template it is registered to")
    fsaverage_dir = traits.Str(desc="folder fsaverage of FreeSurfer")
    fslr_dir = traits.Str(desc="folder with the spheres of fsLR")


class SaveSurfacePet(LibraryInterface):
    """Sample SUVR and its corrected maps at the middle of the cortex, and write them on average surfaces.

    Each raw frame is interpolated once, at the vertices of the participant and at the subcortical voxels of the
    template. Values then go from the vertices to those of the average surface as means over neighbors on the sphere.
    """

    _always_run = True
    input_spec = _SaveSurfacePetIn
    output_spec = SaveOut

    def call(self, folder: Path) -> dict[str, Any]:
        both = files_of_both(self.inputs)
        spheres = {side: mesh.read_mesh(files["sphere"]).vertices for side, files in both.items()}
        maps = self._sampled(both)
        written: list[Path] = []
        for text in self.inputs.surfaces:
            space = parse_space(text)
            targets = self._targets(space)
            for region, method, native, subcortex in maps:
                values = {side: values_on(targets[side], spheres[side], native[side]) for side in SIDES}
                written += self._save(space, (region, method, values, subcortex))
        return {"out_files": [str(path) for path in written]}

    def _sampled(self, both: dict[Side, dict[str, Path]]) -> list[_Map]:
        """Return SUVR by each reference region, then the corrected maps by the first; NaN outside of the cortex."""
        given = self.inputs
        central = {side: mesh.read_mesh(files["midthickness"]).vertices for side, files in both.items()}
        cortex = np.concatenate([mesh.read_values(both[side]["labels"]) > 0 for side in SIDES])
        vertices = [central[side] for side in SIDES]
        points = np.concatenate([*vertices, self._subcortex()]).astype(np.float32)[:, None, None]
        activity = activity_at(given, points)
        n_left = len(central["left"])

        def parts(values: Any) -> tuple[dict[Side, Values], Values]:
            found, subcortex = np.split(np.ravel(values), [len(cortex)])
            found = np.where(cortex, found, np.nan)
            return {"left": found[:n_left], "right": found[n_left:]}, subcortex

        names = [described["ReferenceRegion"] for described in given.reference]
        maps = [(name, "", *parts(activity / value)) for name, value in zip(names, given.reference_value, strict=True)]
        corrected = corrected_at(activity, points, self.optional("weight_files"))
        return maps + [(names[0], method, *parts(found)) for method, found in corrected]

    def _subcortex(self) -> mesh.Points:
        """Return where the subcortical voxels of the template are in the T1w's world, ``(N, 3)``, mm."""
        space = parse_space(SUBCORTICAL_SPACE)
        template_from_t1w = Path(self.inputs.template_from_t1w)
        points = points_through(template_grid(space), transforms_to(space, template_from_t1w, template_from_t1w.parent))
        return points[tuple(subcortical_model().voxel.T)]

    def _targets(self, space: OutputSpace) -> dict[Side, mesh.Points]:
        folders = [Path(text) if text else None for text in map(self.optional, ("fsaverage_dir", "fslr_dir"))]
        return target_spheres(space, folders[0], folders[1])

    def _save(self, space: OutputSpace, found: _Map) -> list[Path]:
        region, method, values, subcortex = found
        names = PetNames(Path(self.inputs.output_dir), dict(self.inputs.entities))
        further = region if region != self.inputs.reference[0]["ReferenceRegion"] else ""
        source = names.corrected(method) if method else names.suvr(further)

        def path_of(side: Side | None) -> Path:
            if method:
                return names.surface_corrected(side, space, method)
            return names.surface_suvr(side, space, further)

        written = [mesh.save_values(values[side], path_of(side), side, "SUVR") for side in SIDES]
        together = save_dscalar(values, subcortex, path_of(None), f"SUVR by {region}")
        stated = {key: value for key, value in read_json(sidecar_path(source)).items() if key != "SpatialReference"}
        corrected = f", corrected for partial volume effects ({method.upper()})" if method else ""
        stated |= {
            "Description": f"SUVR by {region} in the middle of the cortex, on the surface {space.name}{corrected}",
            "Density": f"{len(values['left'])} vertices for each hemisphere",
            "SubcorticalVoxels": f"{len(subcortex)} voxels of {SUBCORTICAL_SPACE}, in the CIFTI file only",
        }
        # Without the entity hemi, the sidecar is that of both hemispheres and of the CIFTI file.
        write_json(stated, sidecar_path(together))
        return [*written, together]
