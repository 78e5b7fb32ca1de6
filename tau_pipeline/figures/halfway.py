"""The halfway image of a participant's visits with the outline of the brain at each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tau_pipeline.errors import ImageError
from tau_pipeline.figures.planes import world_box
from tau_pipeline.figures.sheet import COLORS, line_handle
from tau_pipeline.figures.slices import gray_window, mosaic, outline, show_gray, slice_sheet
from tau_pipeline.imaging.volume import Volume, require_same_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def halfway_figure(image: Volume, mask: Volume, outlines: Mapping[str, Volume]) -> Figure:
    """Draw the halfway image with the brain mask of each visit outlined in a different color.

    Parameters
    ----------
    image
        Median of the T1w images of all visits.
    mask
        Brain mask on the same grid, for the places of the slices and the gray levels.
    outlines
        Brain mask of each visit on the same grid, by the name of the visit.

    Raises
    ------
    GridMismatchError
        The images are not on one grid.
    ImageError
        The mask is empty, or there is no visit.
    """
    if not outlines:
        raise ImageError("no visit was given; expected: a brain mask for each visit")
    require_same_grid(image=image, mask=mask, **outlines)
    colors = {name: COLORS[place % len(COLORS)] for place, name in enumerate(outlines)}
    legend = [line_handle(name, color=color) for name, color in colors.items()]
    rows = mosaic(world_box(mask), 7)
    sheet, panels = slice_sheet(rows, "Median T1w halfway between visits, with the brain at each", legend=legend)
    window = gray_window(image, mask)
    for axes, view in panels:
        show_gray(axes, image, view, window)
        for name, own in outlines.items():
            outline(axes, own, view, colors[name])
    return sheet.figure
