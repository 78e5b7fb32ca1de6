"""Interfaces over `tau_pipeline.surface`: surfaces of a head, labels by folding, and their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from tau_pipeline.derivatives.names import AnatNames, sidecar_path
from tau_pipeline.figures.sheet import save_figure
from tau_pipeline.figures.surfaces import surfaces_figure
from tau_pipeline.files import write_json, write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.transforms import load_itk
from tau_pipeline.imaging.volume import save_volume
from tau_pipeline.surface import average, cat, freesurfer, mesh
from tau_pipeline.surface.folded_atlas import folded_labels
from tau_pipeline.surface.labels import hybrid_labels
from tau_pipeline.surface.mesh import SIDES, Side
from tau_pipeline.surface.scale import hemisphere_scale
from tau_pipeline.surface.spheres import labels_on
from tau_pipeline.surface.thickness import COLUMNS, Cortex, thickness_table
from tau_workflows.interfaces.base import LibraryInterface
from tau_workflows.interfaces.outputs import save_copy
from tau_workflows.interfaces.own_process import in_own_process

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
        given = self.inputs
        make = partial(_reconstruct, given.tissue_file, given.dseg_file, given.side, folder)
        return {"files": in_own_process(make, f"the surface of the {given.side} hemisphere")}


def _reconstruct(tissue_file: str, dseg_file: str, side: Side, folder: Path) -> list[str]:
    """Write the surfaces of a hemisphere, its unregistered sphere, and its thickness; returns the files."""
    tissue, dseg = load_volume(tissue_file, ndim=4), load_volume(dseg_file, ndim=3)
    scale = hemisphere_scale(tissue, dseg, side)
    central = cat.central_surface(scale)
    white, pial = cat.white_and_pial(central, scale)
    meshes = (central.mesh, white, pial, cat.to_sphere(central.mesh))
    files = [
        mesh.save_mesh(one, folder / f"{kind}.surf.gii", side, kind) for kind, one in zip(MESHES, meshes, strict=True)
    ]
    files.append(mesh.save_values(central.thickness, folder / "thickness.shape.gii", side, "thickness"))
    return [str(path) for path in files]


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
        given = self.inputs
        places = (folder, Path(given.cache_dir), self.optional("fsaverage_dir"))
        register = partial(_register, list(given.files), given.side, *places)
        what = f"the registration of the folds of the {given.side} hemisphere"
        return {"files": in_own_process(register, what)}


def _register(made: list[str], side: Side, folder: Path, cache: Path, fsaverage_dir: str | None) -> list[str]:
    """Write the registered sphere and the labels of a hemisphere; returns all of its files."""
    files = _files_of(made)
    central, sphere = mesh.read_mesh(files["midthickness"]), mesh.read_mesh(files["sphere"])
    target = average.fsaverage(side)
    registered = cat.register_sphere(central, sphere, target.mesh, target.sphere)
    known = average.fsaverage_labels(Path(fsaverage_dir), side) if fsaverage_dir else None
    if known is None:
        known = folded_labels(side, cache)
    found = labels_on(registered, target.sphere, known)
    files["sphere"] = mesh.save_mesh(registered, folder / "sphere.surf.gii", side, "sphere")
    files["labels"] = mesh.save_labels(found, folder / "labels.label.gii", side)
    return [str(files[name]) for name in _FILES]


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
        for side, files in files_of_both(self.inputs).items():
            labels = mesh.read_values(files["labels"]).astype(np.int32)
            surfaces[side] = (mesh.read_mesh(files["midthickness"]), labels)
        named = hybrid_labels(load_volume(self.inputs.dseg_file, ndim=3), surfaces)
        return {"dseg_file": str(save_volume(named, folder / "dseg.nii"))}


def files_of_both(inputs: Any) -> dict[Side, dict[str, Path]]:
    """Return the files of both hemispheres by their kind, from inputs with ``left_files`` and ``right_files``."""
    return {side: _files_of(getattr(inputs, f"{side}_files")) for side in SIDES}


class SaveSurfacesIn(_HemispheresIn):
    """Inputs of a step that writes something on surfaces."""

    output_dir = traits.Str(mandatory=True, desc="root of the derivatives")
    entities = traits.Dict(mandatory=True, desc="entities of the source's name")


class SaveOut(TraitedSpec):
    """Outputs of such a step."""

    out_files = traits.List(File(), desc="what was written, without sidecars")


class _DrawSurfacesIn(_HemispheresIn):
    t1w_preproc_file = File(exists=True, mandatory=True, desc="T1w, bias-corrected")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")


class _DrawSurfacesOut(TraitedSpec):
    figure_file = File(desc="picture of the surfaces on slices")


class DrawSurfaces(LibraryInterface):
    """Draw white and pial surface of both hemispheres on the T1w."""

    input_spec = _DrawSurfacesIn
    output_spec = _DrawSurfacesOut

    def call(self, folder: Path) -> dict[str, Any]:
        t1w, mask = load_volume(self.inputs.t1w_preproc_file, ndim=3), load_volume(self.inputs.mask_file, ndim=3)
        read = {
            kind: [mesh.read_mesh(files[kind]) for files in files_of_both(self.inputs).values()]
            for kind in ("white", "pial")
        }
        white, pial = ([(one.vertices, one.faces) for one in read[kind]] for kind in ("white", "pial"))
        figure = surfaces_figure(t1w, mask, white, pial)
        return {"figure_file": str(save_figure(figure, folder / "surfaces.png"))}


class _SaveSurfacesIn(SaveSurfacesIn):
    figure_file = File(exists=True, mandatory=True, desc="picture of the surfaces")
    made_by = traits.Str(mandatory=True, desc="software that made the surfaces")


class SaveSurfaces(LibraryInterface):
    """Write the surfaces of a T1w, their figure, and the table of thickness."""

    _always_run = True
    input_spec = _SaveSurfacesIn
    output_spec = SaveOut

    def call(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        names = AnatNames(Path(given.output_dir), dict(given.entities))
        written, cortex = [], {}
        for side, files in files_of_both(given).items():
            targets = {name: names.surface(side, name) for name in _FILES}
            for name, target in targets.items():
                save_copy(files[name], target)
            written += list(targets.values())
            thickness = mesh.read_values(files["thickness"]).astype(np.float64)
            labels = mesh.read_values(files["labels"]).astype(np.int32)
            cortex[side] = Cortex(mesh.read_mesh(files["midthickness"]), thickness, labels)
        save_copy(given.figure_file, names.figure("surfaces"))
        session = given.entities.get("ses")
        table = thickness_table(cortex, f"sub-{given.entities['sub']}", f"ses-{session}" if session else None)
        write_tsv(table, names.thickness_table)
        described = {**COLUMNS, "thickness_mean": {**COLUMNS["thickness_mean"], "MadeBy": given.made_by}}
        write_json(described, sidecar_path(names.thickness_table))
        return {"out_files": [str(path) for path in (*written, names.thickness_table)]}
