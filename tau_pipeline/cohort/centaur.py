"""SUVR in the CenTauR masks, and CenTauRz by the published lines.

CenTauRz (Villemagne et al. 2023, Alzheimer's & Dementia: DADM 15:e12454) is a line of the SUVR in a mask over that in
the mask of cerebellar gray matter, for images processed by the Centiloid pipeline of SPM8. The masks are the user's own
download (gaain.org). They are carried to the T1w by the transform that the participant level saved, in one
interpolation. Values of this pipeline are uncalibrated: see docs/decisions/centaur.md.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.anatomy.template import warp_labels
from tau_pipeline.bids.manufacturers import common_name
from tau_pipeline.bids.tracers import tracer_name
from tau_pipeline.cohort.scans import is_included
from tau_pipeline.derivatives.index import DoneScan
from tau_pipeline.errors import ImageError, MissingInputError, TauPipelineError
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import image_like, require_same_grid, save_volume
from tau_pipeline.settings.participant import Settings

if TYPE_CHECKING:
    import pandas as pd

#: Names of the masks' files without ending, by the names in our table.
MASKS = {
    "universal": "CenTauR",
    "mesial_temporal": "Mesial_CenTauR",
    "meta_temporal": "Meta_CenTauR",
    "temporo_parietal": "TP_CenTauR",
    "frontal": "Frontal_CenTauR",
}
REFERENCE = "voi_CerebGry_tau_2mm"
#: Slope and intercept of CenTauRz by tracer and mask, in the order of `MASKS` (Villemagne 2023).
LINES: dict[str, tuple[tuple[float, float], ...]] = {
    "RO-948": ((13.05, -15.57), (11.76, -13.08), (13.16, -16.19), (13.05, -15.62), (12.61, -13.45)),
    "flortaucipir": ((13.63, -15.85), (10.42, -12.11), (12.95, -15.37), (13.75, -15.92), (11.61, -13.01)),
    "MK-6240": ((10.08, -10.06), (7.28, -7.01), (9.36, -10.60), (9.98, -10.15), (10.05, -8.91)),
    "GTP1": ((10.67, -11.92), (7.88, -8.75), (9.60, -11.10), (10.84, -12.27), (9.41, -9.71)),
    "florzolotau": ((16.73, -15.34), (7.97, -7.83), (11.78, -11.21), (16.16, -14.68), (15.70, -13.18)),
    "PI-2620": ((8.45, -9.61), (6.03, -6.83), (7.78, -9.33), (8.21, -9.52), (9.07, -9.01)),
}


def centaurz(suvr: float, tracer: str | None, mask: str) -> float:
    """Return CenTauRz of an SUVR by the published line; NaN for a tracer that has none.

    Parameters
    ----------
    suvr
        Mean in the mask, over that in the mask of cerebellar gray matter.
    tracer
        Common name.
    mask
        A key of `MASKS`.

    Examples
    --------
    >>> round(centaurz(1.31, "flortaucipir", "universal"), 2)
    2.01
    """
    if tracer not in LINES:
        return float("nan")
    slope, intercept = LINES[tracer][list(MASKS).index(mask)]
    return slope * suvr + intercept


def find_masks(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the files of the masks by the keys of `MASKS`, and that of the reference as ``reference``.

    Raises
    ------
    MissingInputError
        The folder lacks one.
    """
    found, absent = {}, []
    for name, stem in {**MASKS, "reference": REFERENCE}.items():
        paths = [Path(folder) / f"{stem}{ending}" for ending in (".nii", ".nii.gz")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            absent.append(f"{stem}.nii")
        else:
            found[name] = path
    if absent:
        raise MissingInputError(
            f"the folder {folder} has no {', '.join(absent)}; --centaur-masks needs the five CenTauR masks and the "
            "mask of cerebellar gray matter as downloaded from gaain.org"
        )
    return found


def joined_masks(files: Mapping[str, Path], target: Path) -> Path:
    """Write all masks as one label image, in which mask k of the mapping is bit k, so that all are carried at once.

    Parameters
    ----------
    files
        As `find_masks` gives them; all on one grid, in the space of the template.
    target
        Where to write.

    Raises
    ------
    ImageError
        A mask is empty.
    GridMismatchError
        The masks are not on one grid.
    """
    images = {name: load_volume(path, ndim=3) for name, path in files.items()}
    require_same_grid(**images)
    first = next(iter(images.values()))
    bits = np.zeros(first.shape, np.int16)
    for place, (name, image) in enumerate(images.items()):
        inside = np.nan_to_num(np.asanyarray(image.dataobj)) > 0.5
        if not inside.any():
            raise ImageError(f"the mask {files[name]} is empty; download it again")
        bits |= (inside << place).astype(np.int16)
    return save_volume(image_like(bits, first), target)


def mask_means(
    suvr: NDArray[np.floating], bits: NDArray[np.integer], least_measured: float = Settings.min_measured_fraction
) -> dict[str, float]:
    """Return the mean in each mask over that in the reference, by the keys of `MASKS`; NaN if too little is measured.

    Parameters
    ----------
    suvr
        ``(I, J, K)`` by any reference region, which cancels; NaN where nothing was measured.
    bits
        Masks on the same grid, as `joined_masks` codes them.
    least_measured
        Share of a mask that must be measured.
    """
    means = []
    for place in range(len(MASKS) + 1):
        values = suvr[bits >> place & 1 > 0]
        known = np.isfinite(values)
        enough = values.size > 0 and known.mean() >= least_measured
        means.append(float(values[known].mean(dtype=np.float64)) if enough else float("nan"))
    reference = means.pop()
    return {name: mean / reference if reference > 0 else float("nan") for name, mean in zip(MASKS, means, strict=True)}


def centaur_table(
    scans: Sequence[DoneScan],
    folder: str | os.PathLike[str],
    *,
    include_failed: bool = False,
    processes: int = 1,
    done: Callable[[], Any] = lambda: None,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return SUVR and CenTauRz of each measured scan in each mask, and why scans have none, by their name.

    Parameters
    ----------
    scans
        Of the cohort; of several reference regions the first is read.
    folder
        With the masks.
    include_failed
        Whether scans of failed quality count.
    processes
        How many scans at a time.
    done
        Called after each scan.

    Raises
    ------
    MissingInputError, ImageError, GridMismatchError
        A mask is not there or cannot be used.
    """
    import pandas as pd

    files = find_masks(folder)
    first = {scan.key: scan for scan in reversed(scans) if scan.source == "measured"}
    chosen = [scan for scan in reversed(first.values()) if is_included(scan, include_failed=include_failed)]
    rows, failed = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        joined = joined_masks(files, Path(scratch) / "masks.nii")

        def values_of(scan: DoneScan) -> dict[str, float] | str:
            try:
                return _values(scan, joined)
            except TauPipelineError as exc:
                return str(exc)
            finally:
                done()

        with ThreadPoolExecutor(processes) as pool:
            for scan, found in zip(chosen, pool.map(values_of, chosen), strict=True):
                row = _row(scan, {} if isinstance(found, str) else found)
                rows.append(row)
                if isinstance(found, str):
                    failed[scan.key] = found
    return pd.DataFrame(rows, columns=list(centaur_columns())), failed


def centaur_columns() -> dict[str, Any]:
    """Return the columns of the table and what they mean."""
    found: dict[str, Any] = {
        "participant_id": {"Description": "Participant, with the prefix sub-."},
        "session_id": {"Description": "Session of the PET scan, with the prefix ses-."},
        "scan": {"Description": "Stem of the file names of the scan."},
        "tracer": {"Description": "Tracer, by its common name."},
        "manufacturer": {"Description": "Manufacturer of the PET scanner, by its common name."},
        "included": {"Description": "Whether the scan counts; scans that do not are left out."},
    }
    for name, stem in MASKS.items():
        found[f"{name}_suvr"] = {
            "Description": f"Mean in the mask {stem} over the mean in the mask {REFERENCE}, both carried to the T1w.",
            "Units": "1",
        }
        found[f"{name}_centaurz"] = {
            "Description": f"CenTauRz of {name}_suvr by the line of Villemagne 2023, uncalibrated unless the column "
            "calibration says otherwise: the line is for images processed by SPM8; n/a for a tracer without a line.",
            "Units": "1",
        }
    found["calibration"] = {
        "Description": "Calibration of the CenTauRz.",
        "Levels": {"uncalibrated": "none; else mask and file of --calibration-line"},
    }
    return found


def _values(scan: DoneScan, joined: Path) -> dict[str, float]:
    """Return the mean in each mask over that in the reference of one scan.

    Raises
    ------
    TauPipelineError
        A file is not there or cannot be read.
    """
    transform = scan.anat.from_template()
    if not transform.is_file():
        raise MissingInputError(f"{transform} is not there; run the participant level again for {scan.participant_id}")
    suvr = load_volume(scan.suvr_file, ndim=3)
    bits = warp_labels(joined, suvr, (transform,))
    return mask_means(np.asanyarray(suvr.dataobj), bits)


def _row(scan: DoneScan, values: Mapping[str, float]) -> dict[str, Any]:
    session = scan.names.entities.get("ses")
    tracer = tracer_name(scan.stated("TracerName")) or scan.stated("TracerName")
    row: dict[str, Any] = {
        "participant_id": scan.participant_id,
        "session_id": f"ses-{session}" if session else None,
        "scan": scan.key,
        "tracer": tracer,
        "manufacturer": common_name(scan.stated("Manufacturer")),
        "included": "yes",
        "calibration": "uncalibrated",
    }
    for name in MASKS:
        row[f"{name}_suvr"] = values.get(name, float("nan"))
        row[f"{name}_centaurz"] = centaurz(row[f"{name}_suvr"], tracer, name)
    return row
