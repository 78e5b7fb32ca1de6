"""The cortex of an average head, and values of regions drawn on it.

The meshes are fsaverage5 (Fischl et al. 1999, Hum Brain Mapp 8:272), which nilearn installs. Their vertices get the
Desikan-Killiany regions of the installed atlas, so that one value a region can be painted on both sides of both
hemispheres. It is a picture of a table: nothing of a participant's own folds is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import CORTICAL_NUMBERS, atlas_files, label_array
from tau_pipeline.errors import SettingError, UnknownNameError
from tau_pipeline.figures.sheet import SIDE_IN, Box, Sheet, in_rows
from tau_pipeline.imaging.load import load_volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

#: The four pictures of a cortex, in the order in which they stand side by side: hemisphere and side that is seen.
VIEWS = (("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral"))
#: First FreeSurfer number of each hemisphere's cortical regions.
_FIRST_NUMBER = {"left": 1000, "right": 2000}
#: From MNI305, the space of fsaverage, to MNI152: the 4 x 4 matrix of FreeSurfer's wiki, page "CoordinateSystems".
_MNI305_TO_MNI152 = np.array(
    [
        [0.9975, -0.0073, 0.0176, -0.0429],
        [0.0146, 1.0009, -0.0024, 1.5496],
        [-0.0130, -0.0093, 0.9971, 1.1840],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
#: A vertex has the most frequent label among this many cortical voxels: within about 2 mm where it lies in the cortex.
_NEAREST = 40
#: Where fsaverage's cortex is thinner than this, there is none, mm.
_THINNEST_MM = 1.0
#: How far the drawn surface is inflated: 0 shows the folds and hides the sulci, 1 shows all of the cortex.
_INFLATED = 0.6
#: Cortex without a value, and no cortex (corpus callosum, thalamus).
NO_VALUE, NO_CORTEX, BORDER = "#c9ccd0", "#989da3", "#3a3a3a"
#: Faces this far behind the foremost one in the same spot of this width are hidden, mm.
_BEHIND_MM, _SPOT_MM = 12.0, 3.0

#: Width and height of one picture of a cortex; room for the names of the views, and for the heading of a row.
VIEW_SIZE, _NAME_IN, HEADING_IN = (3.1, 2.1), 0.22, 0.24


@dataclass(frozen=True)
class Hemisphere:
    """One half of the average cortex.

    ``vertices`` ``(V, 3)`` where they are drawn, mm, RAS+; ``faces`` ``(F, 3)`` numbers of vertices, anticlockwise seen
    from outside; ``labels`` ``(V,)`` FreeSurfer numbers of regions, 0 where there is no cortex.
    """

    side: str
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    labels: NDArray[np.int64]


@cache
def hemisphere(side: str) -> Hemisphere:
    """Read the left or the right hemisphere, once.

    The label of a vertex is the most frequent one among the cortical voxels of the atlas (MNI152) that are nearest to
    the point halfway between the white and the pial surface. Two in three vertices lie in a labeled voxel; the others
    do not, as the two average heads are not folded alike. So borders between regions are right to a few mm, which is
    enough for a picture and not for a measurement.

    Raises
    ------
    UnknownNameError
        ``side`` is neither.
    MissingInputError
        The atlas is not installed.
    """
    if side not in _FIRST_NUMBER:
        raise UnknownNameError(f"there is no hemisphere called {side!r}; known are {', '.join(_FIRST_NUMBER)}")
    pial, faces = _mesh("pial", side)
    white, _ = _mesh("white", side)
    inflated, _ = _mesh("infl", side)
    inflated = inflated + pial.mean(axis=0) - inflated.mean(axis=0)
    labels = _labels_around((pial + white) / 2, side)
    labels[_gifti("thick", side) < _THINNEST_MM] = 0
    return Hemisphere(side, (1 - _INFLATED) * pial + _INFLATED * inflated, faces, labels)


def cortex_figure(
    rows: Mapping[str, Mapping[int, float]], title: str, scale: tuple[float, float], label: str, colors: str
) -> Figure:
    """Draw one value per cortical region on the four `VIEWS` of the average cortex, one row of pictures per map.

    Parameters
    ----------
    rows
        By heading of the row: values by FreeSurfer number of the region. Regions without a value are gray.
    title
        What stands above.
    scale
        Ends of the color scale; values beyond them take the color of the end.
    label
        What the color bar says, with the unit.
    colors
        Name of a matplotlib color map.

    Raises
    ------
    SettingError
        There is no row, or the lower end of the scale is not below the upper one.
    """
    if not rows:
        raise SettingError("a cortex figure needs at least one row of values, and has none")
    if not scale[0] < scale[1]:
        raise SettingError(f"the color scale runs from {scale[0]:g} to {scale[1]:g}; the first must be the lower one")
    heading_in = HEADING_IN if any(rows) else 0.0
    boxes, height = in_rows([[VIEW_SIZE] * len(VIEWS)] * len(rows), bar=True, top_in=_NAME_IN, above_in=heading_in)
    note = "Average cortex (fsaverage5), partly inflated. Light gray: no value. Dark gray: no cortex."
    sheet = Sheet(height, title, note=note, bar=True)
    name_views(sheet, boxes[0])
    for (heading, values), places in zip(rows.items(), boxes, strict=True):
        sheet.text(SIDE_IN, places[0][1] - heading_in, heading, fontsize=11, weight="bold")
        draw_views(sheet, places, values, scale, colors, heading)
    sheet.color_bar(scale, label, colors=colors, extend=_extend(rows, scale))
    return sheet.figure


def name_views(sheet: Sheet, places: Sequence[Box]) -> None:
    """Write the name of each of the `VIEWS` at the top of the sheet, above its place."""
    for (side, seen_from), (left, _, width, _) in zip(VIEWS, places, strict=True):
        sheet.text(left + width / 2, 0.0, f"{side.capitalize()}, {seen_from}", ha="center", fontsize=10)


def draw_views(
    sheet: Sheet,
    places: Sequence[Box],
    values: Mapping[int, float],
    scale: tuple[float, float],
    colors: str,
    label: str,
) -> None:
    """Draw all `VIEWS` of one map of values.

    Parameters
    ----------
    sheet, places
        Where to draw.
    values, scale, colors
        As in `cortex_figure`.
    label
        Name of the map, with which the labels of the axes begin.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    for view, box in zip(VIEWS, places, strict=True):
        axes = sheet.axes(box, label=f"{label}: {view[0]} {view[1]}")
        draw_cortex(axes, view, values, Normalize(*scale), colormaps[colors])


def _extend(rows: Mapping[str, Mapping[int, float]], scale: tuple[float, float]) -> str:
    """Say at which ends of the color scale values lie beyond it."""
    values = np.array([value for row in rows.values() for value in row.values()] or [scale[0]], dtype=np.float64)
    below, above = bool((values < scale[0]).any()), bool((values > scale[1]).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]


def draw_cortex(
    axes: Axes, view: tuple[str, str], values: Mapping[int, float], norm: Normalize, colors: Colormap
) -> None:
    """Paint one value per region on one view of the cortex; equal scales, no frame.

    Parameters
    ----------
    axes
        Where to draw; it becomes as wide as the hemisphere is long.
    view
        One of `VIEWS`.
    values
        By FreeSurfer number of the region. Regions that are absent or not finite are gray (`NO_VALUE`).
    norm, colors
        From value to color.
    """
    from matplotlib.collections import LineCollection, PolyCollection

    half = hemisphere(view[0])
    flat, depth, seen = _project(half, view[1])
    of_face = _label_of_face(half)
    table = _color_table(values, norm, colors)
    shown = table[of_face[seen]]
    # Without antialiasing the colors are those of the color bar to the last bit, with no seams between faces.
    triangles: Any = flat[half.faces[seen]]
    polygons = PolyCollection(triangles, facecolors=shown, edgecolors=shown, linewidths=0.4)
    polygons.set_antialiased(False)
    axes.add_collection(polygons, autolim=False)
    borders: Any = flat[_borders(half, of_face, seen[_in_front(half, flat, depth, seen)])]
    axes.add_collection(LineCollection(borders, colors=BORDER, linewidths=0.7), autolim=False)
    low, high = flat.min(axis=0) - 2, flat.max(axis=0) + 2
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_axis_off()


def _mesh(name: str, side: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the vertices ``(V, 3)``, mm, and the faces ``(F, 3)`` of a surface of fsaverage5."""
    points, faces = _gifti(name, side)
    return np.asarray(points, dtype=np.float64), np.asarray(faces, dtype=np.int64)


def _gifti(name: str, side: str) -> Any:
    """Return the data of a file of fsaverage5, which comes with nilearn: nothing is downloaded.

    nibabel reads it, because nilearn's own reader loads scikit-learn first, which takes longer than all that is done
    here.
    """
    from nibabel.gifti import GiftiImage

    folder = files("nilearn") / "datasets" / "data" / "fsaverage5"
    return GiftiImage.from_filename(str(folder / f"{name}_{side}.gii.gz")).agg_data()


def _labels_around(points: NDArray[np.float64], side: str) -> NDArray[np.int64]:
    """Return the most frequent region among the atlas's cortical voxels nearest to each point ``(V, 3)`` in MNI305."""
    from nibabel.affines import apply_affine
    from scipy.spatial import cKDTree

    atlas = load_volume(atlas_files().desikan_killiany, ndim=3)
    labels, regions = label_array(atlas), np.add(CORTICAL_NUMBERS, _FIRST_NUMBER[side])
    voxels = np.argwhere(np.isin(labels, regions))
    # Midpoints of cells rather than medians: the tree is built in a third of the time, and voxels lie evenly.
    tree = cKDTree(apply_affine(atlas.affine, voxels), balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(apply_affine(_MNI305_TO_MNI152, points), k=_NEAREST)
    found = np.searchsorted(regions, labels[tuple(voxels.T)])[nearest]
    cells = found + len(regions) * np.arange(len(points))[:, None]
    counts = np.bincount(cells.ravel(), minlength=len(points) * len(regions)).reshape(len(points), len(regions))
    return np.asarray(regions[counts.argmax(axis=1)], dtype=np.int64)


def _project(half: Hemisphere, seen_from: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return vertices on the picture ``(V, 2)``, how near each face is ``(F,)``, and the faces that look at the viewer.

    The latter are numbers of faces, the farthest first, so that nearer ones are painted over them.
    """
    from_left = (half.side == "left") == (seen_from == "lateral")
    toward = np.array([-1.0 if from_left else 1.0, 0.0, 0.0])
    corners = half.vertices[half.faces]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) @ toward > 0
    depth = corners.mean(axis=1) @ toward
    order = np.argsort(depth, kind="stable")
    across = half.vertices[:, 1] * (-1.0 if from_left else 1.0)
    return np.stack([across, half.vertices[:, 2]], axis=1), depth, order[facing[order]]


def _in_front(
    half: Hemisphere, flat: NDArray[np.float64], depth: NDArray[np.float64], seen: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which of the faces that look at the viewer are not hidden behind others."""
    spot = np.floor(flat[half.faces[seen]].mean(axis=1) / _SPOT_MM).astype(np.int64)
    spot -= spot.min(axis=0)
    foremost = np.full(spot.max(axis=0) + 1, -np.inf)
    np.maximum.at(foremost, tuple(spot.T), depth[seen])
    return depth[seen] > foremost[tuple(spot.T)] - _BEHIND_MM


def _label_of_face(half: Hemisphere) -> NDArray[np.int64]:
    """Return the label of at least two of a face's corners, else of its first."""
    a, b, c = half.labels[half.faces].T
    return np.where(b == c, b, a)


def _borders(half: Hemisphere, of_face: NDArray[np.int64], seen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return edges ``(E, 2)`` between two faces of different labels of which one at least is seen."""
    faces = half.faces[seen]
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    labels = np.tile(of_face[seen], 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, labels = edges[order], labels[order]
    shared = (edges[1:] == edges[:-1]).all(axis=1) & (labels[1:] != labels[:-1])
    return edges[1:][shared]


def _color_table(values: Mapping[int, float], norm: Normalize, colors: Colormap) -> NDArray[np.float64]:
    """Return red, green, blue and opacity of each FreeSurfer number up to the last cortical one, 0 to 1."""
    from matplotlib.colors import to_rgba

    table = np.tile(to_rgba(NO_VALUE), (max(_FIRST_NUMBER.values()) + 100, 1))
    table[0] = to_rgba(NO_CORTEX)
    for number, value in values.items():
        if 0 < number < len(table) and np.isfinite(value):
            table[number] = colors(norm(value))
    return table
