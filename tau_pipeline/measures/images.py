"""Image agreement: how close a predicted volume comes to the measured one, inside a mask.

SSIM, PSNR, MAE and RMSE on the volume and by axial slice, and detection of suprathreshold clusters. The same error
gives a PSNR of 24 or 31 dB depending on range and mask, so both are arguments without default, and are part of the
results. Agreement across participants is in `tau_pipeline.measures.agreement`.

What cannot be computed is NaN (``n/a`` in tables), never an exception: an empty mask, or no cluster to detect.
Wrong calls (shapes that differ, a data range of 0) raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity

from tau_pipeline.errors import GridMismatchError, ImageError, SettingError

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

#: SSIM as Wang et al. 2004 (IEEE Trans Image Process 13:600) define it: Gaussian weights of SD 1.5 voxels, cut off
#: to 11 voxels a side.
_SSIM_SIGMA, _SSIM_WINDOW = 1.5, 11


@dataclass(frozen=True)
class ImageAgreement:
    """Agreement of two images, with the mask and the data range that it holds for.

    ``ssim`` has no unit, ``psnr`` is in dB, ``mae`` and ``rmse`` are in the images' unit. Without voxels all are NaN.
    """

    ssim: float
    psnr: float
    mae: float
    rmse: float
    n_voxels: int
    data_range: float
    mask: str


def image_agreement(
    prediction: NDArray, target: NDArray, mask: NDArray, data_range: float, mask_name: str = "mask"
) -> ImageAgreement:
    """Return SSIM, PSNR, MAE and RMSE of two volumes inside a mask.

    Parameters
    ----------
    prediction, target
        Arrays ``(I, J, K)`` of one unit, e.g. SUVR.
    mask
        ``(I, J, K)``, above 0 inside. Voxels where one of the images is not finite are left out.
    data_range
        Span of the values that the unit is taken to have, e.g. 3.0 for SUVR from 0 to 3.
    mask_name
        The mask in words, for the result.

    Raises
    ------
    GridMismatchError
        The shapes differ.
    ImageError
        The images are not 3-D, or a side is shorter than the window of the SSIM.
    SettingError
        The data range is not positive and finite.
    """
    a, b, inside = _aligned(prediction, target, mask, 3)
    return ImageAgreement(
        ssim=ssim(a, b, inside, data_range),
        psnr=psnr(a, b, inside, data_range),
        mae=mae(a, b, inside),
        rmse=rmse(a, b, inside),
        n_voxels=int(inside.sum()),
        data_range=float(data_range),
        mask=mask_name,
    )


def slice_agreement(prediction: NDArray, target: NDArray, mask: NDArray, data_range: float) -> pd.DataFrame:
    """Return the same measures for each axial slice; the SSIM of a slice has a 2-D window.

    Parameters
    ----------
    prediction, target, mask, data_range
        As in `image_agreement`; axial slices are those along the last axis K, so the arrays must be in RAS order.

    Returns
    -------
    DataFrame
        One row a slice that has voxels of the mask: ``slice`` (index along K), ``n_voxels``, ``ssim``, ``psnr``,
        ``mae``, ``rmse``, ``data_range``.

    Raises
    ------
    GridMismatchError, ImageError, SettingError
        As in `image_agreement`.
    """
    import pandas as pd

    a, b, inside = _aligned(prediction, target, mask, 3)
    _require_range(data_range)
    rows = []
    for k in np.flatnonzero(inside.any(axis=(0, 1))):
        of_slice = a[:, :, k], b[:, :, k], inside[:, :, k]
        rows.append(
            {
                "slice": int(k),
                "n_voxels": int(of_slice[2].sum()),
                "ssim": ssim(*of_slice, data_range),
                "psnr": psnr(*of_slice, data_range),
                "mae": mae(*of_slice),
                "rmse": rmse(*of_slice),
                "data_range": float(data_range),
            }
        )
    return pd.DataFrame(rows, columns=["slice", "n_voxels", "ssim", "psnr", "mae", "rmse", "data_range"])


def ssim(prediction: NDArray, target: NDArray, mask: NDArray, data_range: float) -> float:
    """Return structural similarity: the mean over the mask of scikit-image's local map (Gaussian, see `_SSIM_SIGMA`).

    Outside of the mask both images are set to 0 first, so that nothing there counts, though windows reach over the
    border of the mask; the border voxels see the same background in both images, as they do in a network's training.

    Parameters
    ----------
    prediction, target, mask
        Arrays of one shape, 2-D or 3-D.
    data_range
        The L of the constants ``(0.01 L)²`` and ``(0.03 L)²``.

    Returns
    -------
    float
        At most 1, which is reached by equal images; NaN for an empty mask.

    Raises
    ------
    GridMismatchError, ImageError, SettingError
        As in `image_agreement`.
    """
    a, b, inside = _aligned(prediction, target, mask)
    _require_range(data_range)
    if min(a.shape) < _SSIM_WINDOW:
        raise ImageError(f"images of shape {a.shape} have no SSIM; each side needs {_SSIM_WINDOW} voxels or more")
    if not inside.any():
        return float("nan")
    box = _box(inside)
    a, b, inside = (np.where(inside, x, 0.0)[box] for x in (a, b, inside))
    _, local = structural_similarity(
        a,
        b,
        data_range=float(data_range),
        gaussian_weights=True,
        sigma=_SSIM_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    return float(local[inside > 0].mean())


def psnr(prediction: NDArray, target: NDArray, mask: NDArray, data_range: float) -> float:
    """Return the PSNR in dB, ``20 log10(data_range / RMSE)``, inside the mask; infinite for equal images."""
    _require_range(data_range)
    error = rmse(prediction, target, mask)
    return float("inf") if error == 0 else float(20 * np.log10(data_range / error))


def mae(prediction: NDArray, target: NDArray, mask: NDArray) -> float:
    """Return the mean absolute error inside the mask, in the images' unit; NaN for an empty mask."""
    difference = _difference(prediction, target, mask)
    return float(np.abs(difference).mean()) if difference.size else float("nan")


def rmse(prediction: NDArray, target: NDArray, mask: NDArray) -> float:
    """Return the root of the mean squared error inside the mask, in the images' unit; NaN for an empty mask."""
    difference = _difference(prediction, target, mask)
    return float(np.sqrt(np.square(difference).mean())) if difference.size else float("nan")


def _difference(prediction: NDArray, target: NDArray, mask: NDArray) -> Floats:
    a, b, inside = _aligned(prediction, target, mask)
    return a[inside] - b[inside]


def _aligned(
    prediction: NDArray, target: NDArray, mask: NDArray, ndim: int | None = None
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return both images as float64, and the voxels of the mask where both are finite."""
    a, b, inside = np.asarray(prediction, np.float64), np.asarray(target, np.float64), np.asarray(mask) > 0
    if not a.shape == b.shape == inside.shape:
        raise GridMismatchError(
            f"prediction, target and mask have the shapes {a.shape}, {b.shape} and {inside.shape}; one grid is needed"
        )
    if ndim is not None and a.ndim != ndim:
        raise ImageError(f"images of shape {a.shape} were given; {ndim}-D ones are needed")
    return a, b, inside & np.isfinite(a) & np.isfinite(b)


def _require_range(data_range: float) -> None:
    if not (np.isfinite(data_range) and data_range > 0):
        raise SettingError(f"the data range is {data_range!r}; expected: a number above 0, in the images' unit")


def _box(inside: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the mask's bounding box with a window around it; no window of a voxel in the mask reaches further."""
    (found,) = ndimage.find_objects(inside.astype(np.uint8))
    return tuple(slice(max(0, s.start - _SSIM_WINDOW), s.stop + _SSIM_WINDOW) for s in found)


@dataclass(frozen=True)
class SuprathresholdAgreement:
    """Agreement of voxels and clusters above an SUVR threshold.

    ``dice`` is that of the two sets of voxels, NaN if both are empty. ``sensitivity`` is the fraction of the target's
    clusters that the prediction detects, ``precision`` the fraction of the prediction's clusters that the target has;
    NaN without clusters.
    """

    dice: float
    sensitivity: float
    precision: float
    n_clusters: int
    n_predicted: int
    threshold: float
    min_voxels: int
    min_overlap: float


def suprathreshold_agreement(
    prediction: NDArray,
    target: NDArray,
    mask: NDArray,
    threshold: float,
    min_voxels: int = 1,
    min_overlap: float = 0.5,
) -> SuprathresholdAgreement:
    """Compare voxels and clusters above an SUVR threshold.

    A cluster is a connected component (26 neighbors) of ``min_voxels`` or more voxels above the threshold. It is
    detected if at least the fraction ``min_overlap`` of its voxels is above the threshold in the other image.

    Parameters
    ----------
    prediction, target
        Arrays ``(I, J, K)`` of SUVR.
    mask
        ``(I, J, K)``, above 0 where voxels are compared.
    threshold
        SUVR that suprathreshold voxels exceed.
    min_voxels
        Minimum size of a cluster, to exclude noise.
    min_overlap
        Fraction of a cluster, above 0 and up to 1.

    Raises
    ------
    GridMismatchError, ImageError
        As in `image_agreement`.
    """
    a, b, inside = _aligned(prediction, target, mask, 3)
    found, true = (a > threshold) & inside, (b > threshold) & inside
    n_clusters, n_found = _clusters_detected(true, found, min_voxels, min_overlap)
    n_predicted, n_right = _clusters_detected(found, true, min_voxels, min_overlap)
    return SuprathresholdAgreement(
        dice=_ratio(2 * int((found & true).sum()), int(found.sum() + true.sum())),
        sensitivity=_ratio(n_found, n_clusters),
        precision=_ratio(n_right, n_predicted),
        n_clusters=n_clusters,
        n_predicted=n_predicted,
        threshold=float(threshold),
        min_voxels=min_voxels,
        min_overlap=min_overlap,
    )


def _clusters_detected(
    suprathreshold: NDArray[np.bool_], other: NDArray[np.bool_], min_voxels: int, min_overlap: float
) -> tuple[int, int]:
    """Return the number of clusters, and how many of them ``other`` contains."""
    labels, _ = ndimage.label(suprathreshold, structure=np.ones((3, 3, 3)))
    size = np.bincount(labels.ravel())[1:]
    shared = np.bincount(labels[other], minlength=size.size + 1)[1:]
    counted = size >= min_voxels
    return int(counted.sum()), int((counted & (shared >= min_overlap * size)).sum())


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
