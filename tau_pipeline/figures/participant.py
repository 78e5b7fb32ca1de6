"""One function per figure: images in, a matplotlib Figure out.

Every picture is sampled on planes of the world (`tau_pipeline.figures.planes`), so that the same head looks the same on every
grid. Slices are spread over the bounding box of the brain, not of the volume. Left of the picture is left
of the head (neurological view); each figure says so.

Figures are made without pyplot, so that nothing is shared between threads or left open in a worker process. Only the
slices that are shown are computed, which keeps a figure at about a second and a few MB beside its images on any grid.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import SettingError
from tau_pipeline.figures.planes import ENDS, PLANES, View, sample, spread_views, world_box
from tau_pipeline.files import complete_file
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Perceptually uniform (van der Walt & Smith, SciPy 2015), dark where there is no uptake.
UPTAKE_MAP = "inferno"
#: Diverging, pale at no difference, told apart by colour-blind readers (Brewer, colorbrewer2.org).
DIFFERENCE_MAP = "PuOr_r"
#: Outlines: bright, absent from the colour map beneath, and told apart by colour-blind readers
#: (after Okabe & Ito, Color Universal Design, 2008).
ON_GREY, ON_COLOUR, ON_PALE = "#ffb000", "#56e0ff", "#404040"

#: Opacity of the inside of labels: enough to tell grey-matter regions apart, little over white matter and CSF.
FILL_MEASURED, FILL_OTHER = 0.45, 0.1
#: Red, green, blue and opacity of a label without a colour of its own.
OTHER_LABEL = (0.5, 0.5, 0.5, FILL_OTHER)

CONVENTION = "Axial, coronal: left is left of the head (neurological). Positions: world coordinates in mm, RAS+."
NO_VALUE = " Grey beside the colours: no value there."

WIDTH_IN, DPI = 14.0, 120
SIDE_IN, TOP_IN, BOTTOM_IN, CAPTION_IN, GAP_IN, BAR_IN = 0.08, 0.42, 0.3, 0.2, 0.05, 1.0


def brain_mask_figure(t1w: Volume, mask: Volume) -> Figure:
    """T1w with the outline of the brain mask: seven axial, coronal and sagittal slices.

    Parameters
    ----------
    t1w
        3-D T1w image.
    mask
        Brain mask on the same grid.

    Raises
    ------
    GridMismatchError
        The two are not on one grid.
    ImageError
        The mask is empty.
    """
    require_same_grid(t1w=t1w, mask=mask)
    figure, panels = _sheet(_mosaic(world_box(mask), 7), "Brain mask (outline) on T1w")
    window = grey_window(t1w, mask)
    for axes, view in panels:
        _show_grey(axes, t1w, view, window)
        _outline(axes, mask, view, ON_GREY)
    return figure


def parcellation_figure(t1w: Volume, dseg: Volume, colours: pd.DataFrame) -> Figure:
    """T1w with the parcellation: each label in its colour, faint inside and opaque at its border.

    Parameters
    ----------
    t1w
        3-D T1w image.
    dseg
        Labels on the same grid, 0 where there is none.
    colours
        One row per label with the columns ``index`` (label number), ``kind``, ``red``, ``green``, ``blue`` (0-255),
        as `tau_pipeline.atlas.label_table` gives. A label that is not listed is grey.

    Raises
    ------
    GridMismatchError
        The two are not on one grid.
    ImageError
        There is no label.
    """
    require_same_grid(t1w=t1w, dseg=dseg)
    rows = _mosaic(world_box(dseg), 7, margin_mm=12.0, step_mm=0.5)
    figure, panels = _sheet(rows, "Parcellation on T1w")
    window = grey_window(t1w, dseg)
    table = _colour_table(dseg, colours)
    for axes, view in panels:
        _show_grey(axes, t1w, view, window)
        labels = sample(dseg, view, order=0, outside=0).astype(np.int64)
        axes.imshow(_paint(labels, table), extent=view.extent, origin="lower", interpolation="nearest")
    return figure


def coregistration_figure(t1w: Volume, pet_on_t1w: Volume, mask: Volume, unit: str = "Bq/mL") -> Figure:
    """T1w and PET side by side at the same places, with T1w edges and the brain outline drawn on the PET.

    Parameters
    ----------
    t1w
        3-D T1w image.
    pet_on_t1w
        3-D PET resampled onto the T1w grid.
    mask
        Brain mask of the T1w, on the same grid.
    unit
        Unit of the PET, for the colour bar; empty if it is not known.

    Raises
    ------
    GridMismatchError
        The three are not on one grid.
    ImageError
        The mask is empty.
    """
    require_same_grid(t1w=t1w, pet_on_t1w=pet_on_t1w, mask=mask)
    rows = _repeat(_mosaic(world_box(mask), 3), ("T1w", "PET"))
    figure, panels = _sheet(rows, "Coregistration: T1w, and PET with edges of the T1w (white) and brain outline", True)
    window, top = grey_window(t1w, mask), _upper(pet_on_t1w, mask)
    for axes, view in panels:
        if view.note == "T1w":
            _show_grey(axes, t1w, view, window)
            _outline(axes, mask, view, ON_GREY)
        else:
            _show_uptake(axes, pet_on_t1w, view, (0.0, top))
            _edges(axes, t1w, mask, view)
            _outline(axes, mask, view, ON_COLOUR)
    _colour_bar(figure, *_activity_scale(top, unit))
    return figure


def flicker_figures(t1w: Volume, pet_on_t1w: Volume, mask: Volume, unit: str = "Bq/mL") -> tuple[Figure, Figure]:
    """T1w alone and PET alone, the same slices at the same places of two figures of one size, to blend or flicker.

    Parameters and errors as in `coregistration_figure`.
    """
    require_same_grid(t1w=t1w, pet_on_t1w=pet_on_t1w, mask=mask)
    rows = _mosaic(world_box(mask), 5)
    # One title for both: they are shown on top of each other.
    of_t1w, t1w_panels = _sheet(rows, "T1w and PET at the same places", bar=True)
    of_pet, pet_panels = _sheet(rows, "T1w and PET at the same places", bar=True)
    window, top = grey_window(t1w, mask), _upper(pet_on_t1w, mask)
    for (t1w_axes, view), (pet_axes, _) in zip(t1w_panels, pet_panels, strict=True):
        _show_grey(t1w_axes, t1w, view, window)
        _show_uptake(pet_axes, pet_on_t1w, view, (0.0, top))
    for figure in (of_t1w, of_pet):
        _colour_bar(figure, *_activity_scale(top, unit))
    return of_t1w, of_pet


def suvr_figure(
    suvr: Volume,
    t1w: Volume,
    vmin: float = 0.0,
    vmax: float = 3.0,
    *,
    mask: Volume | None = None,
    reference: str = "CerebellarGM",
) -> Figure:
    """SUVR on one fixed colour scale, with the T1w of the axial slices above and the brain outline.

    The scale is the same for every participant unless the caller changes it, so that pictures can be compared.

    Parameters
    ----------
    suvr
        3-D SUVR map; NaN is drawn grey.
    t1w
        3-D T1w image on the same grid.
    vmin, vmax
        Ends of the colour scale; values beyond them take the colour of the end.
    mask
        Brain mask on the same grid; without one, slices are spread over the head as the T1w shows it.
    reference
        Name of the reference region, for the colour bar.

    Raises
    ------
    GridMismatchError
        The images are not on one grid.
    SettingError
        ``vmin`` is not below ``vmax``.
    """
    if not vmin < vmax:
        raise SettingError(
            f"the colour scale runs from {vmin:g} to {vmax:g}; its lower end must be below its upper end"
        )
    brain = _foreground(t1w) if mask is None else mask
    require_same_grid(suvr=suvr, t1w=t1w, mask=brain)
    axial, coronal, sagittal = _mosaic(world_box(brain), 7)
    rows = [[replace(view, note="T1w") for view in axial], axial, coronal, sagittal]
    figure, panels = _sheet(rows, f"SUVR, fixed scale {vmin:g} to {vmax:g}", True)
    window = grey_window(t1w, brain)
    for axes, view in panels:
        if view.note == "T1w":
            _show_grey(axes, t1w, view, window)
        else:
            _show_uptake(axes, suvr, view, (vmin, vmax))
        if mask is not None:
            _outline(axes, mask, view, ON_GREY if view.note == "T1w" else ON_COLOUR)
    _colour_bar(figure, (vmin, vmax), f"SUVR (reference: {reference})")
    return figure


def synthetic_figure(
    synthetic: Volume, t1w: Volume, mask: Volume, *, measured: Volume | None = None, reference: str = "CerebellarGM"
) -> Figure:
    """Axial slices of a synthetic SUVR map below the T1w and, if it is there, the measured map and the difference.

    Same places and colour scale (0 to 3) as `suvr_figure`; differences in the brain, synthetic less measured, from -1
    to 1. A model is trained and scored in the brain alone, so that differences outside would only draw the eye there.

    Parameters
    ----------
    synthetic
        3-D SUVR map made from the T1w; NaN is drawn grey.
    t1w, mask
        3-D T1w image and its brain mask on the same grid.
    measured
        3-D SUVR map from the PET on the same grid.
    reference
        Name of the reference region, for the colour bar.

    Raises
    ------
    GridMismatchError
        The images are not on one grid.
    ImageError
        The mask is empty.
    """
    scale, off = (0.0, 3.0), (-1.0, 1.0)
    require_same_grid(synthetic=synthetic, t1w=t1w, mask=mask, measured=synthetic if measured is None else measured)
    shown = {"T1w": t1w, "synthetic": synthetic}
    if measured is not None:
        less = np.asanyarray(synthetic.dataobj, np.float32) - np.asanyarray(measured.dataobj, np.float32)
        less[np.asanyarray(mask.dataobj) == 0] = 0
        shown = {"T1w": t1w, "measured": measured, "synthetic": synthetic, "difference": image_like(less, t1w)}
    axial = _mosaic(world_box(mask), 7)[0]
    rows = [[replace(view, note=note) for view in axial] for note in shown]
    figure, panels = _sheet(rows, "Synthetic SUVR: made from the T1w by a model, not measured", bar=True)
    window = grey_window(t1w, mask)
    for axes, view in panels:
        if view.note == "T1w":
            _show_grey(axes, t1w, view, window)
        elif view.note == "difference":
            _show_uptake(axes, shown[view.note], view, off, DIFFERENCE_MAP)
        else:
            _show_uptake(axes, shown[view.note], view, scale)
        _outline(axes, mask, view, {"T1w": ON_GREY, "difference": ON_PALE}.get(view.note, ON_COLOUR))
    if measured is None:
        _colour_bar(figure, scale, f"SUVR (reference: {reference})")
    else:
        _colour_bar(figure, scale, f"SUVR (reference: {reference})", span=(0.53, 0.9))
        _colour_bar(figure, off, "Synthetic less measured SUVR", span=(0.07, 0.43), colours=DIFFERENCE_MAP)
    return figure


def reference_region_figure(image: Volume, mask: Volume, name: str, *, suvr: Volume | None = None) -> Figure:
    """Outline of a reference region, close up, on the T1w and, if given, on the SUVR below it.

    Parameters
    ----------
    image
        3-D T1w image (or another grey image) to draw on.
    mask
        Reference region on the same grid.
    name
        Name of the region, for the title.
    suvr
        3-D SUVR map on the same grid; shows spill-in from neighbours at the border of the region. Scale 0 to 2:
        a reference region lies at 1.

    Raises
    ------
    GridMismatchError
        The images are not on one grid.
    ImageError
        The region is empty.
    """
    scale = (0.0, 2.0)
    require_same_grid(image=image, mask=mask, suvr=mask if suvr is None else suvr)
    box = world_box(mask)
    notes = ("T1w",) if suvr is None else ("T1w", "SUVR")
    rows = _repeat(_mosaic(box, 6 // len(notes), margin_mm=25.0, step_mm=0.75), notes)
    figure, panels = _sheet(rows, f"Reference region {name} (outline)", suvr is not None)
    window = grey_window(image, mask, headroom=1.5)
    for axes, view in panels:
        if view.note == "T1w" or suvr is None:
            _show_grey(axes, image, view, window)
        else:
            _show_uptake(axes, suvr, view, scale)
        _outline(axes, mask, view, ON_GREY if view.note == "T1w" else ON_COLOUR)
    if suvr is not None:
        _colour_bar(figure, scale, f"SUVR (reference: {name})")
    return figure


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


def _upper(pet: Volume, mask: Volume) -> float:
    """Upper end of the colour scale of an image without a natural scale: 99.5th percentile inside the mask."""
    values = _inside(pet, mask)
    return max(float(np.percentile(values, 99.5)), 1e-6) if values.size else 1.0


def _foreground(t1w: Volume) -> Volume:
    """The head: what is brighter than a tenth of the 99th percentile."""
    data = np.asanyarray(t1w.dataobj)
    return image_like(data > 0.1 * np.nanpercentile(data[::3, ::3, ::3], 99), t1w)


def _mosaic(box: NDArray[np.float64], count: int, margin_mm: float = 16.0, step_mm: float = 1.0) -> list[list[View]]:
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


def _repeat(rows: list[list[View]], notes: Sequence[str]) -> list[list[View]]:
    """Each view once per note, side by side."""
    return [[replace(view, note=note) for view in row for note in notes] for row in rows]


def _sheet(rows: Sequence[Sequence[View]], title: str, bar: bool = False) -> tuple[Figure, list[tuple[Axes, View]]]:
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


def _show_grey(axes: Axes, img: Volume, view: View, window: tuple[float, float]) -> None:
    shown = sample(img, view)
    axes.imshow(shown, cmap="gray", vmin=window[0], vmax=window[1], **_placed(view))


def _show_uptake(axes: Axes, img: Volume, view: View, scale: tuple[float, float], colours: str = UPTAKE_MAP) -> None:
    """Draw on the colour scale; pixels without a value (NaN, or outside the grid) are grey."""
    axes.set_facecolor("#404040")
    axes.imshow(sample(img, view), cmap=colours, vmin=scale[0], vmax=scale[1], **_placed(view))


def _placed(view: View) -> dict[str, Any]:
    return {"extent": view.extent, "origin": "lower", "interpolation": "nearest", "aspect": "auto"}


def _outline(axes: Axes, mask: Volume, view: View, colour: str) -> None:
    """Draw the border of a mask where its linear interpolation crosses one half."""
    inside = sample(mask, view, outside=0.0)
    if inside.max() > 0.5:
        axes.contour(view.across_mm, view.up_mm, inside, levels=[0.5], colors=[colour], linewidths=0.9)


def _edges(axes: Axes, t1w: Volume, mask: Volume, view: View) -> None:
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


def _activity_scale(top: float, unit: str) -> tuple[tuple[float, float], str]:
    """Ends and label of the colour bar of an activity from 0 to ``top``; Bq/mL becomes kBq/mL for short numbers."""
    if unit == "Bq/mL":
        return (0.0, top / 1000), "Activity (kBq/mL)"
    return (0.0, top), f"Uptake ({unit or 'unit not stated'})"


def _colour_bar(
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


def _colour_table(dseg: Volume, colours: pd.DataFrame) -> NDArray[np.float32]:
    """Look-up table ``(highest label + 1, 4)``: red, green, blue and opacity of the inside of each label, 0 to 1."""
    table = np.empty((int(np.asanyarray(dseg.dataobj).max()) + 1, 4), np.float32)
    table[:] = OTHER_LABEL
    known = colours[colours["index"].between(1, len(table) - 1)]
    measured = known["kind"].isin(("cortical", "subcortical"))
    table[known["index"], :3] = known[["red", "green", "blue"]] / 255
    table[known["index"], 3] = np.where(measured, FILL_MEASURED, FILL_OTHER)
    return table


def _paint(labels: NDArray[np.int64], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Labels ``(V, H)`` as RGBA ``(V, H, 4)``: opaque at a border with another label, faint inside, clear at 0."""
    picture = table[labels]
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis, append=np.take(labels, [-1], axis=axis)) != 0
        picture[differs, 3] = 1.0
    picture[labels <= 0, 3] = 0.0
    return picture
