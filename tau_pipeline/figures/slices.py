"""Slices of images on the panels of a sheet: grayscale, uptake on a color scale, outlines, and edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.figures.planes import ENDS, PLANES, View, sample, spread_views
from tau_pipeline.figures.sheet import UPTAKE_MAP, Box, Sheet, in_rows
from tau_pipeline.imaging.volume import Volume

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

#: Outlines: bright, absent from the color map beneath, and distinct for color-blind readers
#: (after Okabe & Ito, Color Universal Design, 2008).
ON_GRAY, ON_COLOR, ON_PALE = "#ffb000", "#56e0ff", "#404040"
#: Pixels without a value.
NO_VALUE = "#404040"
_CONVENTION = "Axial, coronal: left is left of the head (neurological). Positions: world coordinates in mm, RAS+."


def gray_window(img: Volume, mask: Volume, headroom: float = 1.15) -> tuple[float, float]:
    """Return black and white level of a gray image from inside the mask: bright fat must not darken the brain.

    Black is 0, or the first percentile if that is negative; white is ``headroom`` times the 99th percentile.
    """
    values = _inside(img, mask)
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [1, 99])
    black = min(0.0, float(low))
    return black, max(black + headroom * (float(high) - black), black + 1e-6)


def _inside(img: Volume, mask: Volume) -> NDArray:
    """Return the finite values inside a mask, in any order."""
    # Images come from files with the first axis fastest; transposed, NumPy walks through them in that order.
    values = np.asanyarray(img.dataobj).T[np.asanyarray(mask.dataobj).T > 0]
    return values[np.isfinite(values)]


def upper(pet: Volume, mask: Volume) -> float:
    """Return the upper end of the scale of an image without a natural one: 99.5th percentile inside the mask."""
    values = _inside(pet, mask)
    return max(float(np.percentile(values, 99.5)), 1e-6) if values.size else 1.0


def mosaic(box: NDArray[np.float64], count: int, margin_mm: float = 16.0, step_mm: float = 1.0) -> list[list[View]]:
    """Return one row of slices for each plane, all of one width: the wider of left-right and posterior-anterior."""
    half = np.ceil((box[:2, 1] - box[:2, 0]).max() / 2)
    center = np.round(box[:2].mean(axis=1))
    shown = np.stack([np.append(center - half, box[2, 0]), np.append(center + half, box[2, 1])], axis=1)
    rows = []
    for plane, (_, _, through) in PLANES.items():
        spread = shown.copy()
        spread[through] = box[through]
        rows.append(spread_views(spread, plane, count, margin_mm, step_mm))
    return rows


def repeat(rows: list[list[View]], notes: Sequence[str]) -> list[list[View]]:
    """Repeat each view once per note, side by side."""
    return [[replace(view, note=note) for view in row for note in notes] for row in rows]


def slice_sheet(
    rows: Sequence[Sequence[View]],
    title: str,
    *,
    bar: bool = False,
    aside: str = "",
    legend: Sequence[Artist] = (),
) -> tuple[Sheet, list[tuple[Axes, View]]]:
    """Lay views out in rows at one scale (mm per inch), each under its caption.

    Parameters
    ----------
    rows
        Views from left to right.
    title, aside
        Text at the top left and the top right.
    bar
        Whether there are color bars at the right.
    legend
        What the line under the title shows; each artist has a label.

    Returns
    -------
    sheet, panels
        The sheet, and its axes with their views in the order of the views.
    """
    boxes, height = in_rows([[size_of(view) for view in row] for row in rows], bar=bar)
    note = _CONVENTION + " Gray beside the colors: no value there." * bar
    sheet = Sheet(height, title, note=note, aside=aside, legend=legend, bar=bar)
    panels = []
    for row, places in zip(rows, boxes, strict=True):
        for k, (view, box) in enumerate(zip(row, places, strict=True)):
            panels.append((_panel(sheet, box, view, letters=k == 0 or row[k - 1].plane != view.plane), view))
    return sheet, panels


def size_of(view: View) -> tuple[float, float]:
    """Return width and height of a view, mm."""
    left, right, bottom, top = view.extent
    return right - left, top - bottom


def _panel(sheet: Sheet, box: Box, view: View, letters: bool) -> Axes:
    """Add empty black axes in mm, with the caption above and, if requested, letters for the ends of the two axes."""
    from matplotlib.patheffects import withStroke

    axes = sheet.axes(box, facecolor="black", label=f"{view.plane} {view.caption}")
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


def show_gray(axes: Axes, img: Volume, view: View, window: tuple[float, float]) -> None:
    """Show one slice of a T1w in gray; ``window`` gives the values that are black and white."""
    shown = sample(img, view)
    axes.imshow(shown, cmap="gray", vmin=window[0], vmax=window[1], **_placed(view))


def show_uptake(axes: Axes, img: Volume, view: View, scale: tuple[float, float], colors: str = UPTAKE_MAP) -> None:
    """Draw on the color scale; pixels without a value (NaN, or outside the grid) are gray."""
    axes.set_facecolor(NO_VALUE)
    axes.imshow(sample(img, view), cmap=colors, vmin=scale[0], vmax=scale[1], **_placed(view))


def _placed(view: View) -> dict[str, Any]:
    return {"extent": view.extent, "origin": "lower", "interpolation": "nearest", "aspect": "auto"}


def outline(axes: Axes, mask: Volume, view: View, color: str) -> None:
    """Draw the border of a mask where its linear interpolation crosses one half."""
    inside = sample(mask, view, outside=0.0)
    if inside.max() > 0.5:
        axes.contour(view.across_mm, view.up_mm, inside, levels=[0.5], colors=[color], linewidths=0.9)


def edges(axes: Axes, t1w: Volume, mask: Volume, view: View) -> None:
    """Draw the strongest edges of the T1w inside the brain (`canny_edges`), as thin lines."""
    found = canny_edges(t1w, mask, view)
    picture = np.zeros((*found.shape, 4), np.float32)
    picture[found] = (1.0, 1.0, 1.0, 0.7)
    axes.imshow(picture, **_placed(view))


def canny_edges(t1w: Volume, mask: Volume, view: View) -> NDArray[np.bool_]:
    """Return the strongest edges of a slice inside the brain, ``(up, across)`` (Canny, IEEE PAMI 1986)."""
    from skimage.feature import canny

    slice_t1w = np.nan_to_num(sample(t1w, view))
    inside = sample(mask, view, outside=0.0) > 0.5
    if not inside.any():
        return inside
    found: NDArray[np.bool_] = canny(
        slice_t1w, sigma=2.0, mask=inside, low_threshold=0.7, high_threshold=0.88, use_quantiles=True
    )
    return found


def activity_scale(top: float, unit: str) -> tuple[tuple[float, float], str]:
    """Return ends and label of the color bar of an activity from 0 to ``top``; Bq/mL becomes kBq/mL."""
    if unit == "Bq/mL":
        return (0.0, top / 1000), "Activity (kBq/mL)"
    return (0.0, top), f"Uptake ({unit or 'unit not stated'})"
