"""The layout that all figures of slices share: rows of panels, captions, color bars, and legends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.figures.planes import ENDS, PLANES, View, sample, spread_views
from tau_pipeline.files import complete_file
from tau_pipeline.imaging.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


#: Perceptually uniform (van der Walt & Smith, SciPy 2015), dark where there is no uptake.
UPTAKE_MAP = "inferno"


#: Diverging, pale at no difference, told apart by colour-blind readers (Brewer, colorbrewer2.org).
DIFFERENCE_MAP = "PuOr_r"


#: Outlines: bright, absent from the colour map beneath, and told apart by colour-blind readers
#: (after Okabe & Ito, Color Universal Design, 2008).
ON_GREY, ON_COLOUR, ON_PALE = "#ffb000", "#56e0ff", "#404040"


CONVENTION = "Axial, coronal: left is left of the head (neurological). Positions: world coordinates in mm, RAS+."


NO_VALUE = " Grey beside the colours: no value there."


WIDTH_IN, DPI = 14.0, 120


SIDE_IN, TOP_IN, BOTTOM_IN, CAPTION_IN, GAP_IN, BAR_IN = 0.08, 0.42, 0.3, 0.2, 0.05, 1.0


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG, complete or not at all; the same figure gives the same bytes. Returns the path.

    Raises
    ------
    OutputError
        The folder cannot be written to, or the disk is full.
    """
    with complete_file(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI, metadata={"Software": None})
    return Path(path)


def grey_window(img: Volume, mask: Volume, headroom: float = 1.15) -> tuple[float, float]:
    """Black and white level of a grey image, from what lies inside the mask: bright fat must not darken the brain.

    Black is 0, or the first percentile if that is negative; white is ``headroom`` times the 99th percentile.
    """
    values = _inside(img, mask)
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [1, 99])
    black = min(0.0, float(low))
    return black, max(black + headroom * (float(high) - black), black + 1e-6)


def _inside(img: Volume, mask: Volume) -> NDArray:
    """The finite values inside a mask, in any order."""
    # Images come from files with the first axis fastest; transposed, NumPy walks through them in that order.
    values = np.asanyarray(img.dataobj).T[np.asanyarray(mask.dataobj).T > 0]
    return values[np.isfinite(values)]


def upper(pet: Volume, mask: Volume) -> float:
    """Upper end of the colour scale of an image without a natural scale: 99.5th percentile inside the mask."""
    values = _inside(pet, mask)
    return max(float(np.percentile(values, 99.5)), 1e-6) if values.size else 1.0


def mosaic(box: NDArray[np.float64], count: int, margin_mm: float = 16.0, step_mm: float = 1.0) -> list[list[View]]:
    """One row of slices for each plane, all of one width: the wider of left-right and posterior-anterior."""
    half = np.ceil((box[:2, 1] - box[:2, 0]).max() / 2)
    centre = np.round(box[:2].mean(axis=1))
    shown = np.stack([np.append(centre - half, box[2, 0]), np.append(centre + half, box[2, 1])], axis=1)
    rows = []
    for plane, (_, _, through) in PLANES.items():
        spread = shown.copy()
        spread[through] = box[through]
        rows.append(spread_views(spread, plane, count, margin_mm, step_mm))
    return rows


def repeat(rows: list[list[View]], notes: Sequence[str]) -> list[list[View]]:
    """Each view once per note, side by side."""
    return [[replace(view, note=note) for view in row for note in notes] for row in rows]


def sheet_figure(
    rows: Sequence[Sequence[View]], title: str, bar: bool = False
) -> tuple[Figure, list[tuple[Axes, View]]]:
    """Lay views out in rows at one scale (mm per inch), each under its caption; nothing can overlap.

    Returns the figure and its panels in the order of the views.
    """
    from matplotlib.figure import Figure

    across = [[view.extent[1] - view.extent[0] for view in row] for row in rows]
    up = [max(view.extent[3] - view.extent[2] for view in row) for row in rows]
    room = WIDTH_IN - 2 * SIDE_IN - (BAR_IN if bar else 0.0)
    inch = min((room - GAP_IN * (len(row) - 1)) / sum(row) for row in across)
    height = TOP_IN + BOTTOM_IN + sum(inch * mm + CAPTION_IN + GAP_IN for mm in up)
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor="white")
    figure.text(SIDE_IN / WIDTH_IN, 1 - 0.1 / height, title, va="top", fontsize=13, weight="bold", parse_math=False)
    figure.text(
        SIDE_IN / WIDTH_IN, 0.09 / height, CONVENTION + NO_VALUE * bar, va="bottom", fontsize=9, color="#444444"
    )
    panels = []
    top = height - TOP_IN
    for row, widths, row_height in zip(rows, across, up, strict=True):
        left = SIDE_IN
        top -= CAPTION_IN
        for k, (view, width) in enumerate(zip(row, widths, strict=True)):
            panel_height = inch * (view.extent[3] - view.extent[2])
            place = (left / WIDTH_IN, (top - panel_height) / height, inch * width / WIDTH_IN, panel_height / height)
            panels.append((_panel(figure, place, view, letters=k == 0 or row[k - 1].plane != view.plane), view))
            left += inch * width + GAP_IN
        top -= inch * row_height + GAP_IN
    return figure, panels


def _panel(figure: Figure, place: tuple[float, float, float, float], view: View, letters: bool) -> Axes:
    """Empty black axes in mm, with the caption above and, if asked for, letters for the ends of the two axes."""
    from matplotlib.patheffects import withStroke

    axes = figure.add_axes(place, facecolor="black", label=f"{view.plane} {view.caption}")
    axes.set(xticks=[], yticks=[], xlim=view.extent[:2], ylim=view.extent[2:])
    axes.spines[:].set_visible(False)
    axes.set_title(view.caption, fontsize=9, pad=2.5, parse_math=False)
    if letters:
        across, up, _ = PLANES[view.plane]
        style: dict[str, Any] = {"color": "white", "fontsize": 10, "weight": "bold", "transform": axes.transAxes}
        style |= {"path_effects": [withStroke(linewidth=2.5, foreground="black")], "zorder": 9}
        axes.text(0.02, 0.5, ENDS[across][0], ha="left", va="center", **style)
        axes.text(0.98, 0.5, ENDS[across][1], ha="right", va="center", **style)
        axes.text(0.5, 0.98, ENDS[up][1], ha="center", va="top", **style)
        axes.text(0.5, 0.02, ENDS[up][0], ha="center", va="bottom", **style)
    return axes


def show_grey(axes: Axes, img: Volume, view: View, window: tuple[float, float]) -> None:
    """Show one slice of a T1w in gray; ``window`` gives the values that are black and white."""
    shown = sample(img, view)
    axes.imshow(shown, cmap="gray", vmin=window[0], vmax=window[1], **_placed(view))


def show_uptake(axes: Axes, img: Volume, view: View, scale: tuple[float, float], colours: str = UPTAKE_MAP) -> None:
    """Draw on the colour scale; pixels without a value (NaN, or outside the grid) are grey."""
    axes.set_facecolor("#404040")
    axes.imshow(sample(img, view), cmap=colours, vmin=scale[0], vmax=scale[1], **_placed(view))


def _placed(view: View) -> dict[str, Any]:
    return {"extent": view.extent, "origin": "lower", "interpolation": "nearest", "aspect": "auto"}


def outline(axes: Axes, mask: Volume, view: View, colour: str) -> None:
    """Draw the border of a mask where its linear interpolation crosses one half."""
    inside = sample(mask, view, outside=0.0)
    if inside.max() > 0.5:
        axes.contour(view.across_mm, view.up_mm, inside, levels=[0.5], colors=[colour], linewidths=0.9)


def edges(axes: Axes, t1w: Volume, mask: Volume, view: View) -> None:
    """Draw the strongest edges of the T1w inside the brain (Canny, IEEE PAMI 1986), as thin lines."""
    from skimage.feature import canny

    slice_t1w = np.nan_to_num(sample(t1w, view))
    inside = sample(mask, view, outside=0.0) > 0.5
    if not inside.any():
        return
    edges = canny(slice_t1w, sigma=2.0, mask=inside, low_threshold=0.7, high_threshold=0.88, use_quantiles=True)
    picture = np.zeros((*edges.shape, 4), np.float32)
    picture[edges] = (1.0, 1.0, 1.0, 0.7)
    axes.imshow(picture, **_placed(view))


def activity_scale(top: float, unit: str) -> tuple[tuple[float, float], str]:
    """Ends and label of the colour bar of an activity from 0 to ``top``; Bq/mL becomes kBq/mL for short numbers."""
    if unit == "Bq/mL":
        return (0.0, top / 1000), "Activity (kBq/mL)"
    return (0.0, top), f"Uptake ({unit or 'unit not stated'})"


def color_bar(
    figure: Figure,
    scale: tuple[float, float],
    label: str,
    *,
    span: tuple[float, float] | None = None,
    colours: str = UPTAKE_MAP,
) -> None:
    """A colour bar at the right; ``span`` is its lower and upper end as parts of the height of the figure."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bottom, top = span or (0.25, 1 - 0.9 / figure.get_figheight())
    axes = figure.add_axes((1 - (BAR_IN - 0.15) / WIDTH_IN, bottom, 0.2 / WIDTH_IN, top - bottom))
    extend = "both" if scale[0] < 0 else "max"
    bar = figure.colorbar(ScalarMappable(Normalize(*scale), colours), cax=axes, extend=extend)
    bar.set_label(label, fontsize=10, parse_math=False)
    bar.ax.tick_params(labelsize=9)
    if scale[0] < 0:
        # Fewer digits, since the minus sign takes their room.
        ticks = np.linspace(*scale, 5).tolist()
        bar.set_ticks(ticks, labels=[f"{tick:.1f}" for tick in ticks])
