"""One function per figure: images in, a matplotlib Figure out.

Every picture is sampled on planes of the world (`tau_pipeline.figures.planes`), so that the same head looks the same
on every grid. Slices are spread over the bounding box of the brain, not of the volume. Left of the picture is left
of the head (neurological view); each figure says so.

Figures are made without pyplot, so that nothing is shared between threads or left open in a worker process. Only the
slices that are shown are computed, which keeps a figure at about a second and a few MB beside its images on any grid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import SettingError
from tau_pipeline.figures.planes import sample, world_box
from tau_pipeline.figures.slices import (
    ON_COLOR,
    ON_GRAY,
    activity_scale,
    edges,
    gray_window,
    mosaic,
    outline,
    repeat,
    show_gray,
    show_uptake,
    slice_sheet,
    upper,
)
from tau_pipeline.imaging.foreground import box_around
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


#: Opacity of the inside of labels: enough to distinguish gray matter regions, little over white matter and CSF.
_FILL_MEASURED, _FILL_OTHER = 0.45, 0.1
#: Red, green, blue, and opacity of a label that has no color in its table.
_OTHER_LABEL = (0.5, 0.5, 0.5, _FILL_OTHER)


def brain_mask_figure(t1w: Volume, mask: Volume) -> Figure:
    """Draw the T1w with the outline of the brain mask: seven axial, coronal and sagittal slices.

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
    sheet, panels = slice_sheet(mosaic(world_box(mask), 7), "Brain mask (outline) on T1w")
    window = gray_window(t1w, mask)
    for axes, view in panels:
        show_gray(axes, t1w, view, window)
        outline(axes, mask, view, ON_GRAY)
    return sheet.figure


def parcellation_figure(t1w: Volume, dseg: Volume, colors: pd.DataFrame) -> Figure:
    """Draw the T1w with the parcellation: each label in its color, faint inside and opaque at its border.

    Parameters
    ----------
    t1w
        3-D T1w image.
    dseg
        Labels on the same grid, 0 where there is none.
    colors
        One row per label with the columns ``index`` (label number), ``kind``, ``red``, ``green``, ``blue`` (0-255),
        as `tau_pipeline.atlas.label_table` gives. A label that is not listed is gray.

    Raises
    ------
    GridMismatchError
        The two are not on one grid.
    ImageError
        There is no label.
    """
    require_same_grid(t1w=t1w, dseg=dseg)
    rows = mosaic(world_box(dseg), 7, margin_mm=12.0, step_mm=0.5)
    sheet, panels = slice_sheet(rows, "Parcellation on T1w")
    window = gray_window(t1w, dseg)
    table = _color_table(dseg, colors)
    for axes, view in panels:
        show_gray(axes, t1w, view, window)
        labels = sample(dseg, view, order=0, outside=0).astype(np.int64)
        axes.imshow(_paint(labels, table), extent=view.extent, origin="lower", interpolation="nearest")
    return sheet.figure


def tissue_figure(t1w: Volume, tissue: Volume, mask: Volume) -> Figure:
    """Draw the T1w with the borders of gray matter (outer line) and white matter (inner line).

    Parameters
    ----------
    t1w
        3-D T1w image.
    tissue
        Fractions of CSF, gray and white matter, ``(I, J, K, 3)`` on the same grid.
    mask
        Brain mask on the same grid.

    Raises
    ------
    GridMismatchError
        The images are not on one grid.
    ImageError
        The mask is empty.
    """
    require_same_grid(t1w=t1w, tissue=tissue, mask=mask)
    sheet, panels = slice_sheet(mosaic(world_box(mask), 5), "Tissue: borders of gray and white matter")
    # There is no tissue outside of the brain; three fractions of a whole head take half of a gigabyte.
    near = tissue.slicer[box_around(np.asanyarray(mask.dataobj) > 0, np.ones(3))]
    gray_matter, white_matter = np.moveaxis(np.asanyarray(near.dataobj)[..., 1:], -1, 0)
    brain, white = image_like(gray_matter + white_matter, near), image_like(np.ascontiguousarray(white_matter), near)
    window = gray_window(t1w, mask)
    for axes, view in panels:
        show_gray(axes, t1w, view, window)
        outline(axes, brain, view, ON_GRAY)
        outline(axes, white, view, ON_COLOR)
    return sheet.figure


def template_figure(t1w: Volume, template: Volume, mask: Volume) -> Figure:
    """Draw T1w and template side by side at the same places, with the edges of the T1w drawn on the template.

    Parameters
    ----------
    t1w
        3-D T1w image.
    template
        Brain of the template, warped to the T1w; on any grid.
    mask
        Brain mask on the grid of the T1w.

    Raises
    ------
    GridMismatchError
        T1w and mask are not on one grid.
    ImageError
        The mask is empty.
    """
    require_same_grid(t1w=t1w, mask=mask)
    rows = repeat(mosaic(world_box(mask), 3), ("T1w", "template"))
    sheet, panels = slice_sheet(rows, "Registration: T1w, and template warped to it with edges of the T1w (white)")
    window, top = gray_window(t1w, mask), upper(template, _foreground(template))
    for axes, view in panels:
        if view.note == "T1w":
            show_gray(axes, t1w, view, window)
        else:
            show_gray(axes, template, view, (0.0, 1.15 * top))
            edges(axes, t1w, mask, view)
        outline(axes, mask, view, ON_GRAY)
    return sheet.figure


def coregistration_figure(t1w: Volume, pet_on_t1w: Volume, mask: Volume, unit: str = "Bq/mL") -> Figure:
    """Draw T1w and PET side by side at the same places, with T1w edges and the brain outline drawn on the PET.

    Parameters
    ----------
    t1w
        3-D T1w image.
    pet_on_t1w
        3-D PET resampled onto the T1w grid.
    mask
        Brain mask of the T1w, on the same grid.
    unit
        Unit of the PET, for the color bar; empty if it is not known.

    Raises
    ------
    GridMismatchError
        The three are not on one grid.
    ImageError
        The mask is empty.
    """
    require_same_grid(t1w=t1w, pet_on_t1w=pet_on_t1w, mask=mask)
    rows = repeat(mosaic(world_box(mask), 3), ("T1w", "PET"))
    sheet, panels = slice_sheet(
        rows, "Coregistration: T1w, and PET with edges of the T1w (white) and brain outline", bar=True
    )
    window, top = gray_window(t1w, mask), upper(pet_on_t1w, mask)
    for axes, view in panels:
        if view.note == "T1w":
            show_gray(axes, t1w, view, window)
            outline(axes, mask, view, ON_GRAY)
        else:
            show_uptake(axes, pet_on_t1w, view, (0.0, top))
            edges(axes, t1w, mask, view)
            outline(axes, mask, view, ON_COLOR)
    sheet.color_bar(*activity_scale(top, unit))
    return sheet.figure


def flicker_figures(t1w: Volume, pet_on_t1w: Volume, mask: Volume, unit: str = "Bq/mL") -> tuple[Figure, Figure]:
    """Draw T1w alone and PET alone, the same slices at the same places of two figures of one size, to blend or flicker.

    Parameters and errors as in `coregistration_figure`.
    """
    require_same_grid(t1w=t1w, pet_on_t1w=pet_on_t1w, mask=mask)
    rows = mosaic(world_box(mask), 5)
    # One title for both: they are shown on top of each other.
    of_t1w, t1w_panels = slice_sheet(rows, "T1w and PET at the same places", bar=True)
    of_pet, pet_panels = slice_sheet(rows, "T1w and PET at the same places", bar=True)
    window, top = gray_window(t1w, mask), upper(pet_on_t1w, mask)
    for (t1w_axes, view), (pet_axes, _) in zip(t1w_panels, pet_panels, strict=True):
        show_gray(t1w_axes, t1w, view, window)
        show_uptake(pet_axes, pet_on_t1w, view, (0.0, top))
    for sheet in (of_t1w, of_pet):
        sheet.color_bar(*activity_scale(top, unit))
    return of_t1w.figure, of_pet.figure


def suvr_figure(
    suvr: Volume,
    t1w: Volume,
    vmin: float = 0.5,
    vmax: float = 2.5,
    *,
    mask: Volume | None = None,
    reference: str = "CerebellarGM",
) -> Figure:
    """Draw SUVR on one fixed color scale, with the T1w of the axial slices above and the brain outline.

    The scale is the same for every participant unless the caller changes it, so that pictures can be compared.

    Parameters
    ----------
    suvr
        3-D SUVR map; NaN is drawn gray.
    t1w
        3-D T1w image on the same grid.
    vmin, vmax
        Ends of the color scale; values beyond them take the color of the end.
    mask
        Brain mask on the same grid; without one, slices are spread over the head as the T1w shows it.
    reference
        Name of the reference region, for the color bar.

    Raises
    ------
    GridMismatchError
        The images are not on one grid.
    SettingError
        ``vmin`` is not below ``vmax``.
    """
    if not vmin < vmax:
        raise SettingError(f"the color scale runs from {vmin:g} to {vmax:g}; its lower end must be below its upper end")
    brain = _foreground(t1w) if mask is None else mask
    require_same_grid(suvr=suvr, t1w=t1w, mask=brain)
    axial, coronal, sagittal = mosaic(world_box(brain), 7)
    rows = [[replace(view, note="T1w") for view in axial], axial, coronal, sagittal]
    sheet, panels = slice_sheet(rows, f"SUVR, fixed scale {vmin:g} to {vmax:g}", bar=True)
    window = gray_window(t1w, brain)
    for axes, view in panels:
        if view.note == "T1w":
            show_gray(axes, t1w, view, window)
        else:
            show_uptake(axes, suvr, view, (vmin, vmax))
        if mask is not None:
            outline(axes, mask, view, ON_GRAY if view.note == "T1w" else ON_COLOR)
    sheet.color_bar((vmin, vmax), f"SUVR (reference: {reference})")
    return sheet.figure


def reference_region_figure(image: Volume, mask: Volume, name: str, *, suvr: Volume | None = None) -> Figure:
    """Draw the outline of a reference region, close up, on the T1w and, if given, on the SUVR below it.

    Parameters
    ----------
    image
        3-D T1w image (or another gray image) to draw on.
    mask
        Reference region on the same grid.
    name
        Name of the region, for the title.
    suvr
        3-D SUVR map on the same grid; shows spill-in from neighbors at the border of the region. Scale 0 to 2:
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
    rows = repeat(mosaic(box, 6 // len(notes), margin_mm=25.0, step_mm=0.75), notes)
    sheet, panels = slice_sheet(rows, f"Reference region {name} (outline)", bar=suvr is not None)
    window = gray_window(image, mask, headroom=1.5)
    for axes, view in panels:
        if view.note == "T1w" or suvr is None:
            show_gray(axes, image, view, window)
        else:
            show_uptake(axes, suvr, view, scale)
        outline(axes, mask, view, ON_GRAY if view.note == "T1w" else ON_COLOR)
    if suvr is not None:
        sheet.color_bar(scale, f"SUVR (reference: {name})")
    return sheet.figure


def _foreground(t1w: Volume) -> Volume:
    """Find the head: what is brighter than a tenth of the 99th percentile."""
    data = np.asanyarray(t1w.dataobj)
    return image_like(data > 0.1 * np.nanpercentile(data[::3, ::3, ::3], 99), t1w)


def _color_table(dseg: Volume, colors: pd.DataFrame) -> NDArray[np.float32]:
    """Return a look-up table ``(highest label + 1, 4)``: red, green, blue and opacity of each label, 0 to 1."""
    table = np.empty((int(np.asanyarray(dseg.dataobj).max()) + 1, 4), np.float32)
    table[:] = _OTHER_LABEL
    known = colors[colors["index"].between(1, len(table) - 1)]
    measured = known["kind"].isin(("cortical", "subcortical"))
    table[known["index"], :3] = known[["red", "green", "blue"]] / 255
    table[known["index"], 3] = np.where(measured, _FILL_MEASURED, _FILL_OTHER)
    return table


def _paint(labels: NDArray[np.int64], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Paint labels ``(V, H)`` as RGBA ``(V, H, 4)``: opaque at a border, faint inside, clear at 0."""
    picture = table[labels]
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis, append=np.take(labels, [-1], axis=axis)) != 0
        picture[differs, 3] = 1.0
    picture[labels <= 0, 3] = 0.0
    return picture
