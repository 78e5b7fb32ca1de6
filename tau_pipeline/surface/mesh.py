"""Triangle meshes of the cortex and values on their vertices, and their GIFTI files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import label_table
from tau_pipeline.files import complete_file

Points = NDArray[np.float64]
Faces = NDArray[np.int32]
Values = NDArray[np.float64]
Labels = NDArray[np.int32]
Side = Literal["left", "right"]
#: Both sides, in the order in which tables and CIFTI files have them.
SIDES: tuple[Side, Side] = ("left", "right")

_STRUCTURES: dict[Side, str] = {"left": "CortexLeft", "right": "CortexRight"}
#: How GIFTI files call a surface: geometric type, and what it is the surface of.
_GEOMETRY = {
    "white": ("Anatomical", "GrayWhite"),
    "midthickness": ("Anatomical", "MidThickness"),
    "pial": ("Anatomical", "Pial"),
    "sphere": ("Spherical", "MidThickness"),
}


@dataclass(frozen=True)
class Mesh:
    """Closed surface of triangles.

    Attributes
    ----------
    vertices
        ``(V, 3)``, mm, RAS+ world.
    faces
        ``(F, 3)``, numbers of vertices, anticlockwise seen from outside.
    """

    vertices: Points
    faces: Faces

    @property
    def euler_number(self) -> int:
        """Vertices minus edges plus faces: 2 for a surface without holes or handles."""
        edges = np.sort(np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]]), axis=1)
        return len(self.vertices) - len(np.unique(edges, axis=0)) + len(self.faces)

    @property
    def vertex_areas(self) -> Values:
        """Area that belongs to each vertex ``(V,)``, mm²: a third of each of its triangles."""
        a, b, c = (self.vertices[self.faces[:, corner]] for corner in range(3))
        third = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
        areas = np.bincount(self.faces.ravel(), weights=np.repeat(third, 3), minlength=len(self.vertices))
        return np.asarray(areas, dtype=np.float64)

    def moved(self, vertices: Points) -> Mesh:
        """Return the surface with its vertices elsewhere."""
        return Mesh(np.asarray(vertices, dtype=np.float64), self.faces)


def save_mesh(mesh: Mesh, path: Path, side: Side, kind: str) -> Path:
    """Write a surface as ``.surf.gii``, float32; ``kind`` is white, midthickness, pial, or sphere."""
    geometric, secondary = _GEOMETRY[kind]
    meta = {
        "AnatomicalStructurePrimary": _STRUCTURES[side],
        "AnatomicalStructureSecondary": secondary,
        "GeometricType": geometric,
    }
    points = _array(mesh.vertices.astype(np.float32), "NIFTI_INTENT_POINTSET", meta, _scanner_space())
    triangles = _array(mesh.faces.astype(np.int32), "NIFTI_INTENT_TRIANGLE", {})
    return _save([points, triangles], path, side)


def save_values(values: Values, path: Path, side: Side, name: str) -> Path:
    """Write one value per vertex as ``.shape.gii`` or ``.func.gii``, float32; NaN is not measured."""
    return _save([_array(values.astype(np.float32), "NIFTI_INTENT_SHAPE", {"Name": name})], path, side)


def save_labels(labels: Labels, path: Path, side: Side) -> Path:
    """Write FreeSurfer numbers as ``.label.gii`` with the names and colors of the label table."""
    from nibabel.gifti import GiftiLabel, GiftiLabelTable

    names = label_table().set_index("index")
    table = GiftiLabelTable()
    for number in np.unique(labels):
        known = number in names.index
        red, green, blue = names.loc[number, ["red", "green", "blue"]] / 255 if known else (0.0, 0.0, 0.0)
        entry: Any = GiftiLabel(key=int(number), red=red, green=green, blue=blue, alpha=float(known))
        entry.label = str(names.loc[number, "region"]) if known else "unknown"
        table.labels.append(entry)
    array = _array(labels.astype(np.int32), "NIFTI_INTENT_LABEL", {"Name": "Desikan-Killiany"})
    return _save([array], path, side, table)


def read_mesh(path: Path) -> Mesh:
    """Read a surface in GIFTI, with the transform that the file states applied to nothing: vertices are as stored."""
    import nibabel as nib

    image: Any = nib.load(path)
    points, triangles = image.agg_data(("pointset", "triangle"))
    return Mesh(np.asarray(points, dtype=np.float64), np.asarray(triangles, dtype=np.int32))


def read_values(path: Path) -> NDArray[Any]:
    """Read the values or labels of the vertices from GIFTI."""
    import nibabel as nib

    image: Any = nib.load(path)
    return np.asarray(image.darrays[0].data)


def _array(data: NDArray[Any], intent: str, meta: dict[str, str], space: Any = None) -> Any:
    from nibabel.gifti import GiftiDataArray, GiftiMetaData

    return GiftiDataArray(data, intent=intent, datatype=data.dtype.name, meta=GiftiMetaData(meta), coordsys=space)


def _scanner_space() -> Any:
    from nibabel.gifti import GiftiCoordSystem

    return GiftiCoordSystem(dataspace=1, xformspace=1)


def _save(arrays: Sequence[Any], path: Path, side: Side, table: Any = None) -> Path:
    import nibabel as nib
    from nibabel.gifti import GiftiImage, GiftiMetaData

    meta = GiftiMetaData({"AnatomicalStructurePrimary": _STRUCTURES[side]})
    image = GiftiImage(darrays=list(arrays), meta=meta, labeltable=table)
    with complete_file(path) as partial:
        nib.save(image, partial)
    return Path(path)
