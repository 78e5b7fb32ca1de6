"""The figure of a synthetic SUVR map: T1w, measured, synthetic and error in the same slices, with SSIM and PSNR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tau_pipeline.figures.planes import world_box
from tau_pipeline.figures.sheet import DIFFERENCE_MAP
from tau_pipeline.figures.slices import (
    ON_COLOR,
    ON_GRAY,
    ON_PALE,
    gray_window,
    mosaic,
    outline,
    show_gray,
    show_uptake,
    slice_sheet,
)
from tau_pipeline.imaging.volume import Volume, image_like, require_same_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures_of_merit(ssim: float, psnr: float, data_range: float, baselines: Mapping[str, float] | None = None) -> str:
    """Describe SSIM and PSNR, with what they depend on, and the SSIM of simple predictors of the same scan.

    >>> figures_of_merit(0.9123, 28.04, 3.0)
    'SSIM 0.912, PSNR 28.0 dB (volume, in the brain; data range 3 SUVR)'
    >>> figures_of_merit(0.9, 28.0, 3.0, {"training mean": 0.85})
    'SSIM 0.900, PSNR 28.0 dB (volume, in the brain; data range 3 SUVR). SSIM of the training mean 0.850'
    """
    stated = f"SSIM {ssim:.3f}, PSNR {psnr:.1f} dB (volume, in the brain; data range {data_range:g} SUVR)"
    others = ", ".join(f"{name} {value:.3f}" for name, value in (baselines or {}).items())
    return f"{stated}. SSIM of the {others}" if others else stated


def synthetic_figure(
    synthetic: Volume,
    t1w: Volume,
    mask: Volume,
    *,
    measured: Volume | None = None,
    reference: str = "CerebellarGM",
    aside: str = "",
) -> Figure:
    """Draw axial slices of a synthetic SUVR map below the T1w and, if it is there, the measured map and the difference.

    Same places and color scale (0 to 3) as `suvr_figure`; differences in the brain, synthetic minus measured, from -1
    to 1. A model is trained and scored in the brain alone, so that differences outside would only draw the eye there.

    Parameters
    ----------
    synthetic
        3-D SUVR map made from the T1w; NaN is drawn gray.
    t1w, mask
        3-D T1w image and its brain mask on the same grid.
    measured
        3-D SUVR map from the PET on the same grid.
    reference
        Name of the reference region, for the color bar.
    aside
        Text at the top right, such as SSIM and PSNR (`figures_of_merit`).

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
        error = np.asanyarray(synthetic.dataobj, np.float32) - np.asanyarray(measured.dataobj, np.float32)
        error[np.asanyarray(mask.dataobj) == 0] = 0
        shown = {"T1w": t1w, "measured": measured, "synthetic": synthetic, "difference": image_like(error, t1w)}
    axial = mosaic(world_box(mask), 7)[0]
    rows = [[replace(view, note=note) for view in axial] for note in shown]
    sheet, panels = slice_sheet(
        rows, "Synthetic SUVR: made from the T1w by a model, not measured", bar=True, aside=aside
    )
    window = gray_window(t1w, mask)
    for axes, view in panels:
        if view.note == "T1w":
            show_gray(axes, t1w, view, window)
        elif view.note == "difference":
            show_uptake(axes, shown[view.note], view, off, DIFFERENCE_MAP)
        else:
            show_uptake(axes, shown[view.note], view, scale)
        outline(axes, mask, view, {"T1w": ON_GRAY, "difference": ON_PALE}.get(view.note, ON_COLOR))
    if measured is None:
        sheet.color_bar(scale, f"SUVR (reference: {reference})")
    else:
        sheet.color_bar(scale, f"SUVR (reference: {reference})", part=(0, 2))
        sheet.color_bar(off, "Synthetic minus measured SUVR", part=(1, 2), colors=DIFFERENCE_MAP)
    return sheet.figure
