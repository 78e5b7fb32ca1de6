"""Surfaces of the cortex on slices of the T1w."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.figures.planes import PLANES, View, world_box
from tau_pipeline.figures.sheet import line_handle
from tau_pipeline.figures.slices import ON_COLOR, ON_GRAY, gray_window, mosaic, show_gray, slice_sheet
from tau_pipeline.imaging.volume import Volume, require_same_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Vertices ``(V, 3)`` in the world of the T1w, mm, and triangles ``(F, 3)``.
Surface = tuple[NDArray[Any], NDArray[Any]]


def surfaces_figure(t1w: Volume, mask: Volume, white: Sequence[Surface], pial: Sequence[Surface]) -> Figure:
    """Draw the T1w with the lines in which the inner and the outer surface of the cortex cut each slice.

    Parameters
    ----------
    t1w
        3-D T1w image.
    mask
        Brain mask on the same grid.
    white, pial
        Inner and outer surface of each hemisphere.

    Raises
    ------
    GridMismatchError
        The images are not on one grid.
    ImageError
        The mask is empty.
    """
    from matplotlib.collections import LineCollection

    require_same_grid(t1w=t1w, mask=mask)
    drawn = {"white surface": (ON_COLOR, white), "pial surface": (ON_GRAY, pial)}
    legend = [line_handle(name, color=color) for name, (color, _) in drawn.items()]
    sheet, panels = slice_sheet(mosaic(world_box(mask), 5), "Surfaces of the cortex on T1w", legend=legend)
    window = gray_window(t1w, mask)
    for axes, view in panels:
        show_gray(axes, t1w, view, window)
        for color, surfaces in drawn.values():
            for surface in surfaces:
                axes.add_collection(LineCollection(list(cut(surface, view)), colors=[color], linewidths=0.6))
    return sheet.figure


def cut(surface: Surface, view: View) -> NDArray[np.float64]:
    """Return the line in which a plane cuts a surface, as one segment for each triangle that it cuts.

    Parameters
    ----------
    surface
        Vertices and triangles.
    view
        Names the plane.

    Returns
    -------
    ndarray
        ``(N, 2, 2)``: segment, end, and mm across and up.
    """
    vertices, faces = surface
    across, up, through = PLANES[view.plane]
    above = vertices[:, through] >= view.position_mm
    count = above[faces].sum(axis=1)
    cut_faces = faces[(count == 1) | (count == 2)]
    sides = above[cut_faces]
    # One corner lies on one side of the plane, the two others on the other.
    alone = np.where(sides.sum(axis=1) == 1, sides.argmax(axis=1), sides.argmin(axis=1))
    rows = np.arange(len(cut_faces))
    corner = vertices[cut_faces[rows, alone]]
    ends = []
    for step in (1, 2):
        other = vertices[cut_faces[rows, (alone + step) % 3]]
        share = (view.position_mm - corner[:, through]) / (other[:, through] - corner[:, through])
        ends.append((corner + share[:, None] * (other - corner))[:, [across, up]])
    return np.stack(ends, axis=1)
