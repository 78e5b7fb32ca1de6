"""The figure of a synthetic SUVR map: T1w, measured, synthetic and error in the same slices, with SSIM and PSNR."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tau_pipeline.figures.planes import world_box
from tau_pipeline.figures.sheet import SIDE_IN, WIDTH_IN
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
from tau_pipeline.figures.sheet import (
    DIFFERENCE_MAP,
    ON_COLOUR,
    ON_GREY,
    ON_PALE,
    color_bar,
    grey_window,
    mosaic,
    outline,
    sheet_figure,
    show_grey,
    show_uptake,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def agreement_figure(
    synthetic: Volume, t1w: Volume, mask: Volume, measured: Volume | None, reference: str, said: str = ""
) -> Figure:
    """Draw `tau_pipeline.figures.synthesis.synthetic_figure` with a line of text at the top right.

    Parameters
    ----------
    synthetic, t1w, mask, measured, reference
        As there; ``measured`` is None where there is no PET.
    said
        What the line says: SSIM and PSNR with their mask and data range (`figures_of_merit`).

    Raises
    ------
    GridMismatchError, ImageError
        As there.
    """
    figure = synthetic_figure(synthetic, t1w, mask, measured=measured, reference=reference)
    x, y = 1 - SIDE_IN / WIDTH_IN, 1 - 0.13 / figure.get_figheight()
    figure.text(x, y, said, ha="right", va="top", fontsize=10, parse_math=False)
    return figure


def figures_of_merit(ssim: float, psnr: float, data_range: float) -> str:
    """SSIM and PSNR in words, with what they depend on.

    >>> figures_of_merit(0.9123, 28.04, 3.0)
    'SSIM 0.912, PSNR 28.0 dB (volume, in the brain; data range 3 SUVR)'
    """
    return f"SSIM {ssim:.3f}, PSNR {psnr:.1f} dB (volume, in the brain; data range {data_range:g} SUVR)"


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
    axial = mosaic(world_box(mask), 7)[0]
    rows = [[replace(view, note=note) for view in axial] for note in shown]
    figure, panels = sheet_figure(rows, "Synthetic SUVR: made from the T1w by a model, not measured", bar=True)
    window = grey_window(t1w, mask)
    for axes, view in panels:
        if view.note == "T1w":
            show_grey(axes, t1w, view, window)
        elif view.note == "difference":
            show_uptake(axes, shown[view.note], view, off, DIFFERENCE_MAP)
        else:
            show_uptake(axes, shown[view.note], view, scale)
        outline(axes, mask, view, {"T1w": ON_GREY, "difference": ON_PALE}.get(view.note, ON_COLOUR))
    if measured is None:
        color_bar(figure, scale, f"SUVR (reference: {reference})")
    else:
        color_bar(figure, scale, f"SUVR (reference: {reference})", span=(0.53, 0.9))
        color_bar(figure, off, "Synthetic less measured SUVR", span=(0.07, 0.43), colours=DIFFERENCE_MAP)
    return figure
