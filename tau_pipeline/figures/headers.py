"""PET beside T1w at the places that their headers give, before any registration: what to look at when a scan failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import ImageError
from tau_pipeline.figures.planes import world_box
from tau_pipeline.figures.slices import (
    gray_window,
    mosaic,
    repeat,
    show_gray,
    show_uptake,
    slice_sheet,
    upper,
)
from tau_pipeline.imaging.volume import Volume, finite, image_like

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What is brighter than this share of the 99th percentile is shown for certain.
_BRIGHT = 0.1
#: Images farther apart than this, mm, are not shown in one box: each pixel would cover more than a voxel.
_FARTHEST_MM = 400.0


def headers_figure(t1w: Volume | None, pet: Volume | None) -> Figure:
    """Draw the raw T1w and PET at the same places of the world that their headers define.

    Parameters
    ----------
    t1w
        Raw 3-D T1w image; None if it cannot be read.
    pet
        Raw PET image, 3-D or 4-D; of several frames the mean is drawn. None if it cannot be read.

    Returns
    -------
    Figure
        Slices of each image that is given. Where the heads are more than 400 mm apart, the slices are spread over the
        T1w.

    Raises
    ------
    ImageError
        Neither image is given, or there is nothing but zeros in them.
    """
    given = {name: image for name, image in (("T1w", t1w), ("PET", pet)) if image is not None}
    if not given:
        raise ImageError("neither the T1w nor the PET can be drawn; look at the files")
    images = {name: _static(image) for name, image in given.items()}
    masks = {name: _bright(image) for name, image in images.items()}
    rows = repeat(mosaic(_box([world_box(mask) for mask in masks.values()]), 3, margin_mm=8.0), tuple(images))
    title = f"{' and '.join(images)} as the headers place them, before any registration"
    sheet, panels = slice_sheet(rows, title, bar="PET" in images)
    top = upper(images["PET"], masks["PET"]) if "PET" in images else 1.0
    for axes, view in panels:
        if view.note == "T1w":
            show_gray(axes, images["T1w"], view, gray_window(images["T1w"], masks["T1w"]))
        else:
            show_uptake(axes, images["PET"], view, (0.0, top))
    if "PET" in images:
        sheet.color_bar((0.0, top), "Uptake (as stored)")
    return sheet.figure


def _static(image: Volume) -> Volume:
    """Return an image as 3-D float32 without missing values; frames are averaged one after another."""
    data = np.asanyarray(image.dataobj)
    if data.ndim == 4:
        total = np.zeros(data.shape[:3], np.float32)
        for frame in range(data.shape[3]):
            total += finite(data[..., frame]) / data.shape[3]
        return image_like(total, image)
    return image_like(finite(data).astype(np.float32), image)


def _bright(image: Volume) -> Volume:
    data = np.asanyarray(image.dataobj)
    return image_like((data > _BRIGHT * np.percentile(data, 99)).astype(np.uint8), image)


def _box(boxes: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the box around all boxes, or the first one where that would be too large."""
    both = np.stack([np.min([box[:, 0] for box in boxes], axis=0), np.max([box[:, 1] for box in boxes], axis=0)], 1)
    return both if float((both[:, 1] - both[:, 0]).max()) <= _FARTHEST_MM else boxes[0]
