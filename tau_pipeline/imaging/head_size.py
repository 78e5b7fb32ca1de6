"""Room for a head in an image, by its header."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from tau_pipeline.errors import ImageError
from tau_pipeline.imaging.header_orientation import readings
from tau_pipeline.imaging.load import read_affine, read_shape
from tau_pipeline.imaging.volume import Affine

#: An image of a head is at least so long along its longest axis, mm; those of PET and MRI have some 200 mm.
_LEAST_MM = 100.0
#: Images of fewer voxels along their longest axis are no scans, so that nothing is known of their units.
_LEAST_VOXELS = 32
#: Units that are taken for millimeters, and how many millimeters they have.
_UNITS = {"cm": 10.0, "inches": 25.4}
#: A field of view of a head scanner, and of a whole body, lies within these lengths, mm.
_FIELD_OF_VIEW_MM = (150.0, 600.0)


def read_head_shape(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return the shape of a scan of a head, as `read_shape`, after a check that a head has room in it.

    Raises
    ------
    ImageError
        The image is smaller than a head by its header.
    MissingInputError, DamagedFileError, ImageError
        As `read_shape`.
    """
    shape = read_shape(path)
    if max(shape[:3]) < _LEAST_VOXELS or _longest(shape, read_affine(path)) >= _LEAST_MM:
        return shape
    # Only now, since it reads the header again: one description of the axes may be right where the other is lost.
    header = readings(path)
    if _longest(shape, header.affine) >= _LEAST_MM:
        return shape
    edges = np.linalg.norm(header.affine[:3, :3], axis=0)
    raise ImageError(
        f"{path} is {_times(edges * shape[:3])} mm in size by its header ({_times(shape[:3])} voxels of "
        f"{_times(edges)} mm), and a head needs at least {_LEAST_MM:.0f} mm: {_cause(header.lost, shape, edges)}; "
        "correct the voxel sizes in the header (sform, qform, pixdim), or convert the scan again"
    )


def _longest(shape: tuple[int, ...], affine: Affine) -> float:
    return float((np.linalg.norm(affine[:3, :3], axis=0) * shape[:3]).max())


def _cause(lost: bool, shape: tuple[int, ...], edges: np.ndarray) -> str:
    """Return what is probably wrong with voxel sizes that are too small."""
    if lost:
        return "its affine is the identity, as if the true one were not known"
    longest = float((edges * shape[:3]).max())
    low, high = _FIELD_OF_VIEW_MM
    units = [unit for unit, mm in _UNITS.items() if low <= longest * mm <= high]
    return f"its lengths seem to be in {units[0]}" if units else "its voxel sizes are too small"


def _times(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
