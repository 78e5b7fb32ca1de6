"""Draw maps of a statistic on slices of a template."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tau_pipeline.atlas import atlas_files
from tau_pipeline.imaging.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Heights of the axial slices, mm. Where there are clusters, the nearest ones are moved to the peaks.
_HEIGHTS_MM = (-36, -24, -12, 0, 12, 24, 36, 48, 60)


def statistic_figure(image: Volume, mask: Volume, space: str, label: str, peaks_mm: Iterable[float] = ()) -> Figure:
    """Return axial slices of a map in color over the template.

    Parameters
    ----------
    image
        Map in the space of a template; 0 is not shown.
    mask
        Where it was computed; gives the scale of colors: symmetric, up to the 99.9th percentile.
    space
        Of the map, as `tau_pipeline.settings.spaces.OutputSpace` is spelled.
    label
        What the colors are.
    peaks_mm
        Heights of the peaks that should be seen, the most important one first.
    """
    from matplotlib.figure import Figure
    from nilearn.plotting import plot_stat_map

    files = atlas_files()
    template = files.template_brain_2009c if space.startswith("MNI152NLin2009cAsym") else files.template_brain
    values = np.abs(np.asanyarray(image.dataobj)[np.asanyarray(mask.dataobj) > 0])
    figure = Figure(figsize=(11, 1.9))
    with warnings.catch_warnings():
        # A map without any significant voxel is no reason for a warning.
        warnings.simplefilter("ignore")
        shown = plot_stat_map(
            image,
            bg_img=str(template),
            display_mode="z",
            cut_coords=slice_heights(peaks_mm),
            figure=figure,
            threshold=1e-6,
            vmax=max(float(np.percentile(values, 99.9)), 1e-6),
            symmetric_cbar=True,
            cmap="RdBu_r",
            black_bg=False,
            annotate=False,
        )
        shown.annotate(size=8)
    figure.text(0.01, 0.98, label, ha="left", va="top", fontsize=10, weight="bold")
    return figure


def slice_heights(peaks_mm: Iterable[float]) -> list[float]:
    """Return heights of slices in mm, rising: the usual ones, each moved to the first peak that is nearest to it.

    >>> slice_heights([-16.0, 59.0, -14.0])[:3]
    [-36.0, -24.0, -16.0]
    """
    heights = np.array(_HEIGHTS_MM, dtype=np.float64)
    free = np.ones(heights.size, bool)
    for peak in peaks_mm:
        nearest = int(np.abs(np.array(_HEIGHTS_MM) - peak).argmin())
        if free[nearest]:
            heights[nearest], free[nearest] = peak, False
    return sorted(heights.tolist())
