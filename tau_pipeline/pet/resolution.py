"""Resolution of scanners, and smoothing of images from several scanners to one resolution.

Resolution is a full width at half maximum (FWHM) in mm of a Gaussian point spread. Gaussians add in quadrature, so an
image of FWHM ``n`` becomes one of FWHM ``t`` by a Gaussian of ``sqrt(t² - n²)``: the way ADNI brings its scanners to
8 mm (Joshi, Koeppe & Fessler 2009, NeuroImage 46:154).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from tau_pipeline.errors import ImageError, SettingError, UnknownNameError
from tau_pipeline.imaging.smooth import FWHM_PER_SIGMA
from tau_pipeline.imaging.volume import Volume, finite, voxel_size_mm

#: Power of a brain's activity falls as frequency to minus this, 0.02 to 0.12 per mm (docs/decisions/resolution.md).
_OBJECT_EXPONENT = 3.0
#: Within this distance of the ends of the image, it is faded out, mm.
_FADED_MM = 30.0


@dataclass(frozen=True)
class Scanner:
    """Resolution of one scanner model.

    Parameters
    ----------
    manufacturer, model
        As people write them.
    pattern
        Regular expression that finds the model in a sidecar's text, in which only letters and digits were kept,
        in small letters.
    transverse_mm, axial_mm
        FWHM of a point source within 1 cm of the axis.
    source
        Where the values were published. Unless it says otherwise: filtered back projection after NEMA NU 2, so the
        filter of the reconstruction comes on top.
    """

    manufacturer: str
    model: str
    pattern: str
    transverse_mm: float
    axial_mm: float
    source: str

    @property
    def fwhm_mm(self) -> float:
        """FWHM of the isotropic Gaussian with the same volume."""
        return float(np.cbrt(self.transverse_mm**2 * self.axial_mm))


#: Looked up from the top: the special model stands before the general one.
SCANNERS: tuple[Scanner, ...] = (
    Scanner("Siemens", "HRRT", r"hrrt|highresolutionresearchtomograph", 2.5, 2.5,
            "de Jong et al. 2007, Phys Med Biol 52:1505 (2.3-3.2 mm transaxial, 2.5-3.4 mm axial, OSEM)"),
    Scanner("Siemens", "ECAT EXACT HR+", r"hr\+|hrplus|exacthr|ecat962|^962$", 4.3, 4.1,
            "Brix et al. 1996, IEEE Nucl Sci Symp (centre, 3-D mode)"),
    Scanner("Siemens", "Biograph mMR", r"mmr", 4.3, 4.3, "Delso et al. 2011, J Nucl Med 52:1914"),
    Scanner("Siemens", "Biograph Vision", r"vision", 3.6, 3.5, "van Sluis et al. 2019, J Nucl Med 60:1031"),
    Scanner("Siemens", "Biograph mCT Flow", r"mctflow", 4.33, 4.25, "Rausch et al. 2015, EJNMMI Phys 2:26"),
    Scanner("Siemens", "Biograph mCT", r"mct", 4.4, 4.4, "Jakoby et al. 2011, Phys Med Biol 56:2375"),
    Scanner("Siemens", "Biograph TruePoint (6, 16, 40, 64)", r"truepoint|truev|biograph(40|64)|109[34]", 4.2, 4.5,
            "Jakoby et al. 2009, IEEE Trans Nucl Sci 56:633"),
    Scanner("Siemens", "Biograph HiRez (6, 16)", r"hirez|biograph(6|16)|1080", 4.61, 5.10,
            "Brambilla et al. 2005, J Nucl Med 46:2083"),
    Scanner("GE", "Discovery MI", r"discoverymi", 4.15, 4.48, "Hsu et al. 2017, J Nucl Med 58:1511"),
    Scanner("GE", "Signa PET/MR", r"signa", 4.27, 5.35, "Grant et al. 2016, Med Phys 43:2334"),
    Scanner("GE", "Discovery 690 / 710", r"(discovery|d)(690|710)", 4.70, 4.74,
            "Bettinardi et al. 2011, Med Phys 38:5394"),
    Scanner("GE", "Discovery 600", r"(discovery|d)(600|610)", 4.9, 5.6, "De Ponti et al. 2011, Med Phys 38:968"),
    Scanner("GE", "Discovery IQ", r"discoveryiq", 4.6, 4.8, "NEMA NU 2-2012 measurement in PMC6945355"),
    Scanner("GE", "Discovery STE / VCT", r"discovery(ste|vct)|dste", 5.12, 5.18,
            "Teräs et al. 2007, Eur J Nucl Med Mol Imaging 34:1683 (3-D mode)"),
    Scanner("GE", "Discovery RX", r"discoveryrx", 5.1, 5.2,
            "taken as that of the Discovery STE, to which Teräs et al. 2007 find it comparable"),
    Scanner("GE", "Discovery ST", r"discoveryst$|discoveryst[0-9]|dst$", 6.29, 6.3,
            "Bettinardi et al. 2004, Eur J Nucl Med Mol Imaging 31:867 (3-D mode)"),
    Scanner("GE", "Advance", r"advance", 3.8, 4.0, "DeGrado et al. 1994, J Nucl Med 35:1398 (centre, ramp filter)"),
    Scanner("Philips", "Vereos", r"vereos", 4.0, 4.0, "Rausch et al. 2019, EJNMMI Phys 6:26"),
    Scanner("Philips", "Ingenuity TF", r"ingenuity", 4.84, 4.73, "Kolthammer et al. 2014, Phys Med Biol 59:3843"),
    Scanner("Philips", "Gemini TF", r"gemini", 4.8, 4.8, "Surti et al. 2007, J Nucl Med 48:471"),
    Scanner("Philips", "Allegro / Guardian Allegro", r"allegro|guardian", 5.5, 5.5,
            "Surti & Karp 2004, J Nucl Med 45:1040"),
)  # fmt: skip


@dataclass(frozen=True)
class Resolution:
    """Effective resolution of an image, and in words where the value comes from."""

    fwhm_mm: float
    source: str
    estimated: bool


def scanner_fwhm(manufacturer: str | None, model: str | None) -> Scanner:
    """Find a scanner model in the table.

    Parameters
    ----------
    manufacturer, model
        ``Manufacturer`` and ``ManufacturersModelName`` of a BIDS sidecar; spelling, case and punctuation are free.

    Raises
    ------
    UnknownNameError
        No entry matches; the message lists the known models.

    >>> scanner_fwhm("Siemens", "Biograph mMR").fwhm_mm
    4.3
    """
    text = re.sub(r"[^a-z0-9+]", "", (model or "").lower())
    for scanner in SCANNERS:
        if text and re.search(scanner.pattern, text):
            return scanner
    known = ", ".join(f"{s.manufacturer} {s.model}" for s in SCANNERS)
    raise UnknownNameError(
        f"the resolution of the scanner model {model!r} of {manufacturer!r} is not known; known are {known}"
    )


#: Keys of a sidecar in which the common resolution of images that were smoothed in advance is stated.
_DESCRIPTIONS = ("ImageDescription", "SeriesDescription", "ProtocolName", "ImageComments", "ReconMethodName")
_UNIFORM = re.compile(
    r"uniform\s*(?:resolution|res)?[\s_:,=-]*(\d+(?:\.\d+)?)\s*mm|uniform\s+resolution", re.IGNORECASE
)
#: Resolution of ADNI's images that say "Uniform Resolution" without a number, mm; newer ones have "Uniform 6mm Res".
_ADNI_UNIFORM_MM = 8.0


def uniform_resolution_mm(metadata: Mapping[str, Any]) -> float | None:
    """Return the resolution to which an image was smoothed in advance, mm FWHM, as its sidecar states; else None.

    Parameters
    ----------
    metadata
        BIDS sidecar. ADNI's descriptions are read: ``Coreg, Avg, Std Img and Vox Siz, Uniform 6mm Res``, and
        ``… Uniform Resolution``, which is 8 mm.

    >>> uniform_resolution_mm({"SeriesDescription": "AV1451 Coreg, Avg, Std Img and Vox Siz, Uniform 6mm Res"})
    6.0
    """
    for key in _DESCRIPTIONS:
        found = _UNIFORM.search(str(metadata.get(key, "")))
        if found:
            return float(found[1] or _ADNI_UNIFORM_MM)
    return None


def image_resolution(metadata: Mapping[str, Any], pet_img: Volume) -> Resolution:
    """Return the effective resolution of a PET: from scanner and reconstruction filter, or estimated from the image.

    Parameters
    ----------
    metadata
        BIDS sidecar; `uniform_resolution_mm` or else ``ManufacturersModelName`` and, where it stands,
        ``ReconFilterSize`` (mm FWHM) are used.
    pet_img
        3-D PET image in its own grid, not smoothed; used only when the model is not in the table.

    Raises
    ------
    ImageError
        The model is not known, and the image does not let its resolution be estimated.
    """
    stated = stated_resolution(metadata)
    if stated is not None:
        return stated
    fwhm_mm = estimate_fwhm(pet_img)
    model = metadata.get("ManufacturersModelName") or "not stated"
    return Resolution(
        fwhm_mm,
        f"The scanner model ({model}) is not in the table; its resolution of {fwhm_mm:.1f} mm was estimated from "
        "the decay of the image's power spectrum, which is good to about 2 mm.",
        True,
    )


def stated_resolution(metadata: Mapping[str, Any]) -> Resolution | None:
    """Return the effective resolution of a PET by its sidecar alone; None if the scanner is not in the table.

    Parameters
    ----------
    metadata
        BIDS sidecar, as `image_resolution` reads it.
    """
    uniform_mm = uniform_resolution_mm(metadata)
    if uniform_mm is not None:
        text = f"The resolution was taken as {uniform_mm:g} mm, to which the image was smoothed in advance (sidecar)."
        return Resolution(uniform_mm, text, False)
    try:
        scanner = scanner_fwhm(metadata.get("Manufacturer"), metadata.get("ManufacturersModelName"))
    except UnknownNameError:
        return None
    filter_mm = _filter_mm(metadata)
    fwhm_mm = float(np.hypot(scanner.fwhm_mm, filter_mm))
    added = f" and a reconstruction filter of {filter_mm:g} mm" if filter_mm else ""
    return Resolution(
        fwhm_mm,
        f"The resolution was taken as {fwhm_mm:.1f} mm, from the {scanner.manufacturer} {scanner.model} near its axis "
        f"({scanner.source}){added}.",
        False,
    )


def resolution_figures(stated: Resolution, pet_img: Volume) -> dict[str, float]:
    """Return the resolution found in an image and its difference from the stated one, in mm FWHM.

    Parameters
    ----------
    stated
        As `image_resolution` gives it.
    pet_img
        3-D PET image in its own grid, not smoothed.

    Returns
    -------
    dict
        ``FWHMDifference``: found minus stated, mm. Empty where the stated resolution is an estimate itself, the
        voxels are too coarse to show it (a side of over the FWHM, unless the one found is two voxels or more), or the
        image does not let it be estimated.
    """
    if stated.estimated:
        return {}
    try:
        found_mm = estimate_fwhm(pet_img)
    except ImageError:
        return {}
    side_mm = float(voxel_size_mm(pet_img).max())
    shown = side_mm <= stated.fwhm_mm or found_mm >= 2 * side_mm
    return {"FWHMDifference": found_mm - stated.fwhm_mm} if shown and np.isfinite(found_mm) else {}


def _filter_mm(metadata: Mapping[str, Any]) -> float:
    """Sum in quadrature of the Gaussian reconstruction filters that the sidecar states, in mm; 0 when none."""
    kinds, sizes = metadata.get("ReconFilterType", "none"), metadata.get("ReconFilterSize", 0)
    kinds = kinds if isinstance(kinds, list) else [kinds]
    sizes = sizes if isinstance(sizes, list) else [sizes]
    gaussian = [
        float(size)
        for kind, size in zip(kinds, sizes, strict=False)
        if "gauss" in str(kind).lower() and isinstance(size, int | float) and size > 0
    ]
    return float(np.sqrt(np.square(gaussian).sum())) if gaussian else 0.0


def estimate_fwhm(pet_img: Volume) -> float:
    """Estimate the resolution of a brain PET image from its own power spectrum, in mm FWHM.

    A Gaussian point spread of standard deviation s multiplies the power at spatial frequency k with
    ``exp(-4 π² s² k²)``, so the logarithm of power against k² falls on a line whose slope is s: the logarithmic
    intensity plot (Carbonell et al. 2024, bioRxiv 2024.09.30.614929). The power of the object itself is taken as
    ``k**-3``, between that of sheets (2) and of solids with sharp edges (4), and the constant power of noise is
    subtracted. The band is from 0.02 to 0.12 per mm, where brain outweighs noise. The ends of the image are faded out,
    since neck or head that ends at full activity is an edge without blur. The tests state how far this is off on known
    blurs.

    Parameters
    ----------
    pet_img
        3-D image, unsmoothed, in its own grid.

    Raises
    ------
    ImageError
        The image is empty, or noise outweighs its structure, so that nothing honest can be said.
    """
    data = finite(np.asanyarray(pet_img.dataobj))
    if data.ndim != 3 or data.std() == 0:
        raise ImageError(f"the resolution of an empty image, or one of shape {data.shape}, cannot be estimated")
    frequency, power = _radial_power(_faded(data, voxel_size_mm(pet_img)), voxel_size_mm(pet_img))
    if not len(frequency):
        raise ImageError("the resolution cannot be estimated: the voxels are too large; state it in the sidecar")
    noise = power[frequency > 0.85 * frequency.max()].min()
    band = (frequency > 0.02) & (frequency < 0.12)
    drowned = band & (power < 4 * noise)
    if drowned.any():
        band &= frequency < frequency[drowned].min()
    if band.sum() < 8:
        raise ImageError("the resolution cannot be estimated: noise outweighs the structure of the image; state it")
    level = np.log(power[band] - noise) + _OBJECT_EXPONENT * np.log(frequency[band])
    slope = -np.polyfit(frequency[band] ** 2, level, 1)[0]
    if slope <= 0:
        raise ImageError("the resolution cannot be estimated: the image's power does not fall with frequency; state it")
    return float(FWHM_PER_SIGMA * np.sqrt(slope) / (2 * np.pi))


def _faded(data: NDArray[np.float32], voxel_mm: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return an image that falls to 0 at its ends along each axis, by half a cosine over `_FADED_MM`."""
    faded = data
    for axis, (size, mm) in enumerate(zip(data.shape, voxel_mm, strict=True)):
        width = min(size // 4, round(_FADED_MM / mm))
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / max(width, 1))
        weights = np.concatenate([ramp, np.ones(size - 2 * width), ramp[::-1]]).astype(np.float32)
        faded = faded * np.expand_dims(weights, [other for other in range(3) if other != axis])
    return faded


def _radial_power(data: NDArray[np.float32], voxel_mm: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Return the mean power in shells of spatial frequency (per mm), up to the lowest Nyquist frequency of the axes."""
    power = np.abs(fft.rfftn(data)) ** 2
    axes = [fft.fftfreq(n, d) ** 2 for n, d in zip(data.shape[:2], voxel_mm[:2], strict=True)]
    axes.append(fft.rfftfreq(data.shape[2], voxel_mm[2]) ** 2)
    frequency = np.sqrt(axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :])
    edges = np.arange(0.002, 0.5 / voxel_mm.max(), 0.004)
    shell = np.digitize(frequency.ravel(), edges)
    count = np.bincount(shell, minlength=len(edges) + 1)[1:-1]
    total = np.bincount(shell, power.ravel(), len(edges) + 1)[1:-1]
    return (edges[1:] + edges[:-1])[count > 0] / 2, total[count > 0] / count[count > 0]


def smoothing_kernel_mm(target_fwhm_mm: float, native_fwhm_mm: float) -> float:
    """Return the FWHM of the Gaussian that brings an image of ``native_fwhm_mm`` to ``target_fwhm_mm``.

    Raises
    ------
    SettingError
        The image is already coarser than the target, or a value is not positive and finite.

    >>> smoothing_kernel_mm(5.0, 4.0)
    3.0
    """
    if not (np.isfinite([target_fwhm_mm, native_fwhm_mm]).all() and target_fwhm_mm > 0 and native_fwhm_mm > 0):
        raise SettingError(f"resolutions must be positive, not {target_fwhm_mm} and {native_fwhm_mm} mm")
    if native_fwhm_mm > target_fwhm_mm:
        raise SettingError(
            f"the image's own resolution of {native_fwhm_mm:.1f} mm is coarser than the target of {target_fwhm_mm:g} "
            "mm, and smoothing cannot sharpen; choose a larger target"
        )
    return float(np.sqrt(target_fwhm_mm**2 - native_fwhm_mm**2))
