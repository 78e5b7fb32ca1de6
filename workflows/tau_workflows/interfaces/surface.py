"""Interfaces over `tau_pipeline.surface`: surfaces of a head, labels by folding, and their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from tau_pipeline.derivatives.names import AnatNames, PetNames, sidecar_path
from tau_pipeline.derivatives.sidecars import bids_uri
from tau_pipeline.files import read_json, write_json, write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.transforms import load_itk
from tau_pipeline.imaging.volume import save_volume
from tau_pipeline.surface import average, cat, freesurfer, mesh
from tau_pipeline.surface.cifti import save_dscalar
from tau_pipeline.surface.folded_atlas import folded_labels
from tau_pipeline.surface.labels import hybrid_labels
from tau_pipeline.surface.mesh import SIDES, Mesh, Side
from tau_pipeline.surface.sample import at_vertices
from tau_pipeline.surface.scale import hemisphere_scale
from tau_pipeline.surface.spheres import labels_on, values_on
from tau_pipeline.surface.thickness import COLUMNS, Cortex, thickness_table
from tau_workflows.interfaces.base import LibraryInterface
from tau_workflows.interfaces.outputs import save_copy

#: Files of a hemisphere, in the order of the lists that the interfaces hand on.
MESHES = ("midthickness", "white", "pial", "sphere")
_FILES = (*MESHES, "thickness", "labels")


def _files_of(files: Sequence[str]) -> dict[str, Path]:
    return dict(zip(_FILES, map(Path, files), strict=False))


class _ReconstructIn(BaseInterfaceInputSpec):
    tissue_file = File(exists=True, mandatory=True, desc="fractions of CSF, gray and white matter, 4-D")
    dseg_file = File(exists=True, mandatory=True, desc="FreeSurfer numbers on the T1w grid")
    side = traits.Enum(*SIDES, mandatory=True, desc="which hemisphere")


class _FilesOut(TraitedSpec):
    files = traits.List(File(), desc="midthickness, white, pial, sphere, thickness, and labels where they are known")


class ReconstructHemisphere(LibraryInterface):
    """Surfaces of one hemisphere, the thickness of its cortex, and its sphere."""

    input_spec = _ReconstructIn
    output_spec = _FilesOut

    def call(self, folder: Path) -> dict[str, Any]:
        side: Side = self.inputs.side
        tissue, dseg = load_volume(self.inputs.tissue_file, ndim=4), load_volume(self.inputs.dseg_file, ndim=3)
        scale = hemisphere_scale(tissue, dseg, side)
        central = cat.central_surface(scale)
        white, pial = cat.white_and_pial(central, scale)
        meshes = (central.mesh, white, pial, cat.to_sphere(central.mesh))
        files = [
            mesh.save_mesh(one, folder / f"{kind}.surf.gii", side, kind)
            for kind, one in zip(MESHES, meshes, strict=True)
        ]
        files.append(mesh.save_values(central.thickness, folder / "thickness.shape.gii", side, "thickness"))
        return {"files": [str(path) for path in files]}


class _RegisterIn(BaseInterfaceInputSpec):
    files = traits.List(File(exists=True), mandatory=True, desc="of ReconstructHemisphere")
    side = traits.Enum(*SIDES, mandatory=True, desc="which hemisphere")
    fsaverage_dir = traits.Str(desc="folder fsaverage of FreeSurfer, for its annotation")
    cache_dir = traits.Str(mandatory=True, nohash=True, desc="where the labels of the template are kept")


class RegisterHemisphere(LibraryInterface):
    """Registration of the folds to fsaverage, and Desikan-Killiany labels from there."""

    input_spec = _RegisterIn
    output_spec = _FilesOut

    def call(self, folder: Path) -> dict[str, Any]:
        side: Side = self.inputs.side
        files = _files_of(self.inputs.files)
        central, sphere = mesh.read_mesh(files["midthickness"]), mesh.read_mesh(files["sphere"])
        target, given = average.fsaverage(side), self.optional("fsaverage_dir")
        registered = cat.register_sphere(central, sphere, target.mesh, target.sphere)
        known = average.fsaverage_labels(Path(given), side) if given else None
        if known is None:
            known = folded_labels(side, Path(self.inputs.cache_dir))
        found = labels_on(registered, target.sphere, known)
        files["sphere"] = mesh.save_mesh(registered, folder / "sphere.surf.gii", side, "sphere")
        files["labels"] = mesh.save_labels(found, folder / "labels.label.gii", side)
        return {"files": [str(files[name]) for name in _FILES]}


class _FreeSurferIn(BaseInterfaceInputSpec):
    subject_dir = traits.Str(mandatory=True, desc="folder of FreeSurfer with surfaces")
    labels_file = File(exists=True, mandatory=True, desc="aparc+aseg of it")
    labels2t1w_xfm = File(exists=True, mandatory=True, desc="ITK transform, labels to T1w")
    side = traits.Enum(*SIDES, mandatory=True, desc="which hemisphere")


class FreeSurferHemisphere(LibraryInterface):
    """Surfaces, thickness, and labels that FreeSurfer made, on the T1w."""

    input_spec = _FreeSurferIn
    output_spec = _FilesOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        found = freesurfer.read_hemisphere(
            Path(given.subject_dir), Path(given.labels_file), given.side, load_itk(given.labels2t1w_xfm)
        )
        files = [mesh.save_mesh(getattr(found, kind), folder / f"{kind}.surf.gii", given.side, kind) for kind in MESHES]
        files.append(mesh.save_values(found.thickness, folder / "thickness.shape.gii", given.side, "thickness"))
        files.append(mesh.save_labels(found.labels, folder / "labels.label.gii", given.side))
        return {"files": [str(path) for path in files]}


class _HemispheresIn(BaseInterfaceInputSpec):
    left_files = traits.List(File(exists=True), mandatory=True, desc="of RegisterHemisphere")
    right_files = traits.List(File(exists=True), mandatory=True, desc="of RegisterHemisphere")


class _NameCortexIn(_HemispheresIn):
    dseg_file = File(exists=True, mandatory=True, desc="labels of the volume")


class _NameCortexOut(TraitedSpec):
    dseg_file = File(desc="labels of the volume, most of the cortex named by the surface")


class NameCortexBySurface(LibraryInterface):
    """Labels of the volume whose cortex is named by the surface, except where the surface is not to be trusted."""

    input_spec = _NameCortexIn
    output_spec = _NameCortexOut

    def call(self, folder: Path) -> dict[str, Any]:
        surfaces = {}
        for side, files in _both(self.inputs).items():
            labels = mesh.read_values(files["labels"]).astype(np.int32)
            surfaces[side] = (mesh.read_mesh(files["midthickness"]), labels)
        named = hybrid_labels(load_volume(self.inputs.dseg_file, ndim=3), surfaces)
        return {"dseg_file": str(save_volume(named, folder / "dseg.nii"))}


def _both(inputs: Any) -> dict[Side, dict[str, Path]]:
    return {side: _files_of(getattr(inputs, f"{side}_files")) for side in SIDES}


class _SaveIn(_HemispheresIn):
    output_dir = traits.Str(mandatory=True, desc="root of the derivatives")
    entities = traits.Dict(mandatory=True, desc="entities of the source's name")


class _SaveOut(TraitedSpec):
    out_files = traits.List(File(), desc="what was written, without sidecars")


class SaveSurfaces(LibraryInterface):
    """Write the surfaces of a T1w, and the table of thickness."""

    _always_run = True
    input_spec = _SaveIn
    output_spec = _SaveOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        names = AnatNames(Path(given.output_dir), dict(given.entities))
        written, cortex = [], {}
        for side, files in _both(given).items():
            targets = {name: names.surface(side, name) for name in _FILES}
            for name, target in targets.items():
                save_copy(files[name], target)
            written += list(targets.values())
            thickness = mesh.read_values(files["thickness"]).astype(np.float64)
            labels = mesh.read_values(files["labels"]).astype(np.int32)
            cortex[side] = Cortex(mesh.read_mesh(files["midthickness"]), thickness, labels)
        session = given.entities.get("ses")
        table = thickness_table(cortex, f"sub-{given.entities['sub']}", f"ses-{session}" if session else None)
        write_tsv(table, names.thickness_table)
        write_json(COLUMNS, sidecar_path(names.thickness_table))
        return {"out_files": [str(path) for path in (*written, names.thickness_table)]}


class _SaveSurfaceSuvrIn(_SaveIn):
    saved_files = traits.List(File(exists=True), mandatory=True, desc="outputs of the scan, whose sidecars are there")
    suvr_file = traits.List(File(exists=True), mandatory=True, desc="SUVR maps, one for each reference region")
    reference = traits.List(traits.Dict(), mandatory=True, desc="descriptions of the reference regions")
    fslr_dir = traits.Str(desc="folder with the spheres of fsLR")


class SaveSurfaceSuvr(LibraryInterface):
    """Sample SUVR at the middle of the cortex and write it on fsaverage, and on fsLR if its spheres are given."""

    _always_run = True
    input_spec = _SaveSurfaceSuvrIn
    output_spec = _SaveOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        written: list[Path] = []
        both = _both(given)
        central = {side: mesh.read_mesh(files["midthickness"]) for side, files in both.items()}
        spheres = {side: mesh.read_mesh(files["sphere"]) for side, files in both.items()}
        labels = {side: mesh.read_values(files["labels"]).astype(np.int32) for side, files in both.items()}
        for rank, (suvr_file, described) in enumerate(zip(given.suvr_file, given.reference, strict=True)):
            suvr = load_volume(suvr_file, ndim=3)
            native = {side: np.where(labels[side] > 0, at_vertices(suvr, central[side]), np.nan) for side in SIDES}
            for space, targets in self._targets().items():
                on_target = {side: values_on(targets[side], spheres[side], native[side]) for side in SIDES}
                region = described["ReferenceRegion"]
                written += self._save(space, on_target, region, region if rank else "")
        return {"out_files": [str(path) for path in written]}

    def _targets(self) -> dict[tuple[str, str], dict[Side, Mesh]]:
        found = {average.FSAVERAGE: {side: average.fsaverage(side).sphere for side in SIDES}}
        folder = self.optional("fslr_dir")
        if folder:
            found[average.FSLR] = {side: average.fslr_sphere(Path(folder), side) for side in SIDES}
        return found

    def _save(
        self, space: tuple[str, str], values: dict[Side, mesh.Values], region: str, further_region: str
    ) -> list[Path]:
        given = self.inputs
        names = PetNames(Path(given.output_dir), dict(given.entities))
        written = [names.surface_suvr(side, space, further_region) for side in SIDES]
        for side, path in zip(SIDES, written, strict=True):
            mesh.save_values(values[side], path, side, "SUVR")
        together = names.surface_suvr(None, space, further_region)
        save_dscalar(values, together, f"SUVR by {region}")
        stated = read_json(sidecar_path(names.suvr(further_region)))
        stated |= {
            "Description": f"SUVR by {region}, at the middle of the cortex, on the surface {space[0]}",
            "Density": f"{len(values['left'])} vertices for each hemisphere",
            "Sources": [bids_uri(names.suvr(further_region), names.output_dir, "")],
        }
        # Without the entity hemi, the sidecar is that of both hemispheres and of the CIFTI file.
        write_json({key: value for key, value in stated.items() if key != "SpatialReference"}, sidecar_path(together))
        return [*written, together]
