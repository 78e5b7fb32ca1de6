"""Surfaces that FreeSurfer or FastSurfer made, brought to the T1w."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from tau_pipeline.imaging.volume import Affine
from tau_pipeline.surface.average import annotation_numbers
from tau_pipeline.surface.mesh import SIDES, Labels, Mesh, Side, Values

_HEMI: dict[Side, str] = {"left": "lh", "right": "rh"}
_FILES = ("surf/{}.white", "surf/{}.pial", "surf/{}.sphere.reg", "surf/{}.thickness", "label/{}.aparc.annot")


@dataclass(frozen=True)
class FreeSurferHemisphere:
    """Surfaces of one hemisphere, the sphere in the space of fsaverage, thickness in mm, and numbers of vertices."""

    midthickness: Mesh
    white: Mesh
    pial: Mesh
    sphere: Mesh
    thickness: Values
    labels: Labels


def has_surfaces(subject_dir: Path) -> bool:
    """Return whether a FreeSurfer folder has all files of both hemispheres that are read here."""
    return all((subject_dir / name.format(_HEMI[side])).is_file() for side in SIDES for name in _FILES)


def read_hemisphere(subject_dir: Path, labels_file: Path, side: Side, labels_to_t1w: Affine) -> FreeSurferHemisphere:
    """Read the surfaces of one hemisphere.

    Parameters
    ----------
    subject_dir
        Folder of FreeSurfer for which `has_surfaces` holds.
    labels_file
        Its ``mri/aparc+aseg.mgz``, on whose grid FreeSurfer's own coordinates of surfaces are defined.
    side
        Which hemisphere.
    labels_to_t1w
        ``(4, 4)``, world of that image to world of the T1w.
    """
    white, pial, sphere, thickness, annotation = (subject_dir / name.format(_HEMI[side]) for name in _FILES)
    grid: Any = nib.load(labels_file)
    to_t1w = labels_to_t1w @ grid.affine @ np.linalg.inv(grid.header.get_vox2ras_tkr())
    inner, outer = _mesh(white, to_t1w), _mesh(pial, to_t1w)
    return FreeSurferHemisphere(
        inner.moved((inner.vertices + outer.vertices) / 2),
        inner,
        outer,
        _mesh(sphere, np.eye(4)),
        np.asarray(nib.freesurfer.read_morph_data(thickness), dtype=np.float64),
        annotation_numbers(annotation, side),
    )


def _mesh(path: Path, affine: Affine) -> Mesh:
    points, faces = nib.freesurfer.read_geometry(path)[:2]
    return Mesh(apply_affine(affine, np.asarray(points, dtype=np.float64)), np.asarray(faces, dtype=np.int32))
