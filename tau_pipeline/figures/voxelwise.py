"""Draw maps of a statistic on slices of a template."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from tau_pipeline.atlas import atlas_files
from tau_pipeline.imaging.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Heights of the axial slices, mm.
_HEIGHTS_MM = (-36, -24, -12, 0, 12, 24, 36, 48, 60)


def statistic_figure(image: Volume, mask: Volume, space: str, title: str) -> Figure:
    """Return axial slices of a map in color over the template.

    Parameters
    ----------
    image
        Map in the space of a template; 0 is not shown.
    mask
        Where it was computed; gives the scale of colors: symmetric, up to the 99.9th percentile.
    space
        Of the map, as `tau_pipeline.settings.spaces.OutputSpace` is spelled.
    title
        What the colors are.
    """
    from matplotlib.figure import Figure
    from nilearn.plotting import plot_stat_map

    files = atlas_files()
    template = files.template_brain_2009c if space.startswith("MNI152NLin2009cAsym") else files.template_brain
    values = np.abs(np.asanyarray(image.dataobj)[np.asanyarray(mask.dataobj) > 0])
    figure = Figure(figsize=(11, 2.4))
    with warnings.catch_warnings():
        # A map without any significant voxel is no reason for a warning.
        warnings.simplefilter("ignore")
        plot_stat_map(
            image,
            bg_img=str(template),
            display_mode="z",
            cut_coords=list(_HEIGHTS_MM),
            figure=figure,
            title=title,
            threshold=1e-6,
            vmax=max(float(np.percentile(values, 99.9)), 1e-6),
            symmetric_cbar=True,
            cmap="RdBu_r",
            black_bg=False,
        )
    return figure
