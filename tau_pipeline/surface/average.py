"""Average surfaces: fsaverage with its Desikan-Killiany labels, and fsLR."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tau_pipeline.atlas import label_table
from tau_pipeline.errors import MissingInputError
from tau_pipeline.settings.spaces import OutputSpace
from tau_pipeline.surface.mesh import SIDES, Labels, Mesh, Points, Side, read_mesh

#: Density of the mesh of fsaverage that is installed, and the number of vertices of all of its meshes.
INSTALLED_DENSITY = "10k"
_VERTICES = {"10k": 10_242, "41k": 40_962, "164k": 163_842}
_LETTER: dict[Side, str] = {"left": "L", "right": "R"}
_HEMI: dict[Side, str] = {"left": "lh", "right": "rh"}


@dataclass(frozen=True)
class Average:
    """One hemisphere of an average head: central surface, and its sphere in the space of fsaverage."""

    mesh: Mesh
    sphere: Mesh


def fsaverage(side: Side) -> Average:
    """Return fsaverage (Fischl et al. 1999, Hum Brain Mapp 8:272) with 10,242 vertices, which nilearn installs."""
    white, pial, sphere = (_nilearn_mesh(name, side) for name in ("white", "pial", "sphere"))
    return Average(pial.moved((white.vertices + pial.vertices) / 2), sphere)


def fsaverage_labels(subject_dir: Path, side: Side) -> Labels | None:
    """Return the Desikan-Killiany numbers of the vertices of `fsaverage`, from FreeSurfer's own folder ``fsaverage``.

    Vertices of its coarser meshes are the first ones of its finest, so that the annotation of 163,842 vertices serves.

    Parameters
    ----------
    subject_dir
        ``fsaverage`` or ``fsaverage5`` in a subjects directory.

    Returns
    -------
    Labels or None
        ``(10242,)``, 0 where there is no cortex; None if the folder has no annotation.
    """
    file = subject_dir / "label" / f"{_HEMI[side]}.aparc.annot"
    if not file.is_file():
        return None
    return annotation_numbers(file, side)[: len(fsaverage(side).mesh.vertices)]


def annotation_numbers(file: Path, side: Side) -> Labels:
    """Return the FreeSurfer number of each vertex of an annotation ``(V,)``; 0 for what is none of the 68 regions."""
    import nibabel as nib

    annotation, _, names = nib.freesurfer.read_annot(file)
    table = label_table()
    cortical = table[table["kind"] == "cortical"]
    numbers = dict(zip(cortical["region"], cortical["index"].astype(int), strict=True))
    of_entry = np.array([numbers.get(f"ctx-{_HEMI[side]}-{name.decode()}", 0) for name in names] + [0], dtype=np.int32)
    found: Labels = of_entry[annotation]
    return found


def target_spheres(space: OutputSpace, fsaverage_dir: Path | None, fslr_dir: Path | None) -> dict[Side, Points]:
    """Return the vertices of the spheres that maps are brought to, ``(V, 3)``, in the space of fsaverage.

    Parameters
    ----------
    space
        fsaverage or fsLR, with its density.
    fsaverage_dir
        FreeSurfer's own folder ``fsaverage``, for meshes that are finer than the one that is installed. The vertices
        of its coarser meshes are the first ones of its finest.
    fslr_dir
        As in `fslr_sphere`.

    Raises
    ------
    MissingInputError
        A sphere is not there; the message says where to put it.
    """
    if space.name == "fsLR":
        return {side: fslr_sphere(fslr_dir, side).vertices for side in SIDES}
    if space.value == INSTALLED_DENSITY:
        return {side: fsaverage(side).sphere.vertices for side in SIDES}
    files = {side: Path(fsaverage_dir or "fsaverage", "surf", f"{_HEMI[side]}.sphere.reg") for side in SIDES}
    if fsaverage_dir is None or not all(file.is_file() for file in files.values()):
        raise MissingInputError(
            f"{space} needs FreeSurfer's fsaverage, and {files['left']} or {files['right'].name} is missing; put the "
            "folder fsaverage of FreeSurfer into the one given with -d freesurfer=FOLDER, or ask for fsaverage:den-10k"
        )
    import nibabel as nib

    points = {side: np.asarray(nib.freesurfer.read_geometry(file)[0], np.float64) for side, file in files.items()}
    return {side: found[: _VERTICES[space.value]] for side, found in points.items()}


def fslr_sphere(folder: Path | None, side: Side) -> Mesh:
    """Return the sphere of fsLR with 32,492 vertices in the space of fsaverage.

    Parameters
    ----------
    folder
        Holds the file under its name in TemplateFlow, ``tpl-fsLR_space-fsaverage_hemi-L_den-32k_sphere.surf.gii``, or
        in the HCP pipelines, ``fs_LR-deformed_to-fsaverage.L.sphere.32k_fs_LR.surf.gii``; or in a folder inside it. If
        None, TemplateFlow's own: ``tpl-fsLR`` in ``$TEMPLATEFLOW_HOME``, or in ``~/.cache/templateflow``.

    Raises
    ------
    MissingInputError
        It holds neither.
    """
    letter = _LETTER[side]
    names = (
        f"tpl-fsLR_space-fsaverage_hemi-{letter}_den-32k_sphere.surf.gii",
        f"fs_LR-deformed_to-fsaverage.{letter}.sphere.32k_fs_LR.surf.gii",
    )
    home = Path(os.environ.get("TEMPLATEFLOW_HOME") or Path.home() / ".cache" / "templateflow")
    place = Path(folder) if folder is not None else home / "tpl-fsLR"
    found = [path for name in names for path in sorted(place.rglob(name))]
    if not found:
        raise MissingInputError(
            f"fsLR needs its spheres; {place} has neither {names[0]} (TemplateFlow) nor {names[1]} (HCP pipelines); "
            "put those of both hemispheres there, or give their folder with --fslr-dir"
        )
    return read_mesh(found[0])


def _nilearn_mesh(name: str, side: Side) -> Mesh:
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    mesh = load_surf_mesh(str(fetch_surf_fsaverage("fsaverage5")[f"{name}_{side}"]))
    return Mesh(np.asarray(mesh.coordinates, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int32))
