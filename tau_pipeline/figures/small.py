"""Small pictures: a thumbnail of a coregistration, and whole volumes as gray pictures for the viewer of the report."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.errors import GridMismatchError
from tau_pipeline.figures.planes import sample, spread_views, world_box
from tau_pipeline.figures.sheet import UPTAKE_MAP
from tau_pipeline.figures.slices import canny_edges, gray_window, upper
from tau_pipeline.files import complete_file
from tau_pipeline.imaging.volume import Volume, require_same_grid

if TYPE_CHECKING:
    from PIL.Image import Image

#: Key of the description of a volume in its picture.
ABOUT = "tau-pipeline-volume"
#: Edge of a voxel of the viewer, mm; room around the brain, mm. With these, two volumes take less than 1 MB.
_VIEWER_MM, _ROOM_MM = 2.5, 10.0
#: Edge of a pixel of a thumbnail, mm, and room around the brain, mm.
_THUMB_MM, _THUMB_ROOM_MM = 1.5, 8.0
#: Thumbnails are this many pixels high; narrower or lower slices are filled up with black.
_THUMB_PIXELS = 136


def thumbnail(t1w: Volume, pet_on_t1w: Volume, mask: Volume) -> Image:
    """Return an axial, a coronal and a sagittal slice of the PET through the brain, with the edges of the T1w in white.

    Parameters
    ----------
    t1w, pet_on_t1w
        3-D images on one grid.
    mask
        Brain mask on the same grid.

    Raises
    ------
    GridMismatchError
        The three are not on one grid.
    ImageError
        The mask is empty.
    """
    from matplotlib import colormaps
    from PIL import Image

    require_same_grid(t1w=t1w, pet_on_t1w=pet_on_t1w, mask=mask)
    box, top = world_box(mask), upper(pet_on_t1w, mask)
    panels = []
    for plane in ("axial", "coronal", "sagittal"):
        (view,) = spread_views(box, plane, 1, _THUMB_ROOM_MM, _THUMB_MM)
        shown = np.nan_to_num(sample(pet_on_t1w, view)) / top
        colors = np.asarray(colormaps[UPTAKE_MAP](np.clip(shown, 0, 1)))[..., :3]
        colors[canny_edges(t1w, mask, view)] = 1.0
        panels.append(_filled((colors[::-1] * 255).astype(np.uint8)))
    return Image.fromarray(np.concatenate(panels, axis=1))


def _filled(panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a panel at the center of black, or its center, so that all panels have one size."""
    for axis in (0, 1):
        rest = _THUMB_PIXELS - panel.shape[axis]
        if rest < 0:
            panel = np.take(panel, np.arange(-rest // 2, -rest // 2 + _THUMB_PIXELS), axis=axis)
        else:
            widths = [(0, 0)] * panel.ndim
            widths[axis] = (rest // 2, rest - rest // 2)
            panel = np.pad(panel, widths)
    return panel


def volume_pictures(
    t1w: Volume, pet_on_t1w: Volume, mask: Volume, unit: str = "", least: float = 1e-6
) -> tuple[Image, Image]:
    """Return T1w and PET around the brain as 8-bit gray pictures that hold all their axial slices.

    Both are sampled on one grid of 2.5 mm along the axes of the world, RAS+. The slices lie in rows from left to right,
    the lowest first; within a slice the first row is the most anterior. The text `ABOUT` of each picture is a JSON
    object: ``shape`` (voxels along x, y, z), ``columns`` (slices per row), ``origin`` (mm, center of the first voxel),
    ``step`` (mm), and the values of gray 0 and 255 (``low``, ``high``) with their ``unit``.

    Parameters
    ----------
    t1w, pet_on_t1w
        3-D images on one grid.
    mask
        Brain mask on the same grid.
    unit
        Of the PET.
    least
        Gray 255 of the PET is this value at least, else the 99.5th percentile inside the mask.

    Raises
    ------
    GridMismatchError
        The three are not on one grid.
    ImageError
        The mask is empty.
    """
    require_same_grid(t1w=t1w, pet_on_t1w=pet_on_t1w, mask=mask)
    box = world_box(mask)
    window, top = gray_window(t1w, mask), max(upper(pet_on_t1w, mask), least)
    return _packed(t1w, box, window, ""), _packed(pet_on_t1w, box, (0.0, top), unit)


def _packed(image: Volume, box: NDArray[np.float64], scale: tuple[float, float], unit: str) -> Image:
    from PIL import Image

    low, high = box[:, 0] - _ROOM_MM, box[:, 1] + _ROOM_MM
    shape = np.ceil((high - low) / _VIEWER_MM).astype(int) + 1
    affine = np.diag([_VIEWER_MM] * 3 + [1.0])
    affine[:3, 3] = low
    values = np.nan_to_num(sample_grid(image, affine, tuple(shape)))
    gray = np.clip((values - scale[0]) / (scale[1] - scale[0]) * 255 + 0.5, 0, 255).astype(np.uint8)
    columns = math.ceil(math.sqrt(shape[2] * shape[1] / shape[0]))
    rows = math.ceil(shape[2] / columns)
    slices = np.zeros((rows * columns, shape[1], shape[0]), np.uint8)
    slices[: shape[2]] = gray.transpose(2, 1, 0)[:, ::-1]
    sheet = slices.reshape(rows, columns, shape[1], shape[0]).swapaxes(1, 2).reshape(rows * shape[1], -1)
    picture = Image.fromarray(sheet)
    picture.info[ABOUT] = json.dumps(
        {
            "shape": [int(n) for n in shape],
            "columns": columns,
            "origin": [round(float(mm), 3) for mm in low],
            "step": _VIEWER_MM,
            "low": float(f"{scale[0]:.6g}"),
            "high": float(f"{scale[1]:.6g}"),
            "unit": unit,
        }
    )
    return picture


def sample_grid(image: Volume, affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return linear samples of an image on a grid of the world, lightly smoothed where its voxels are smaller."""
    from scipy.ndimage import affine_transform, gaussian_filter

    if len(image.shape) != 3:
        raise GridMismatchError(f"an image of shape {image.shape} cannot be sampled; a 3-D image is needed")
    data = np.nan_to_num(np.asanyarray(image.dataobj).astype(np.float32))
    own = np.linalg.norm(image.affine[:3, :3], axis=0)
    step = float(np.linalg.norm(affine[:3, 0]))
    data = gaussian_filter(data, np.maximum(0.0, 0.4 * step / own - 0.4), truncate=2.0)
    index = np.linalg.inv(image.affine) @ affine
    found: NDArray[np.float32] = affine_transform(data, index[:3, :3], index[:3, 3], shape, order=1, output=np.float32)
    return found


def save_picture(picture: Image, path: str | os.PathLike[str]) -> Path:
    """Write a picture as PNG with its description, complete or not at all; the same picture gives the same bytes.

    Raises
    ------
    OutputError
        The folder cannot be written to, or the disk is full.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if ABOUT in picture.info:
        info.add_text(ABOUT, picture.info[ABOUT])
    with complete_file(path) as partial:
        picture.save(partial, format="PNG", optimize=True, pnginfo=info)
    return Path(path)


def about_volume(picture: Image) -> dict[str, Any] | None:
    """Return the description of a picture that `volume_pictures` made; None if it has none."""
    try:
        found = json.loads(picture.info[ABOUT])
        complete = {"shape", "columns", "origin", "step", "low", "high"} <= set(found)
    except (KeyError, ValueError, TypeError):
        return None
    return dict(found) if complete else None
