"""From files to arrays on the model's grid, kept in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import label_array
from tau_pipeline.cohort.standardize import (
    ScanMoments,
    fit_standardization,
    scan_moments,
)
from tau_pipeline.errors import DamagedFileError, ImageError, SettingError, TauPipelineError
from tau_pipeline.files import complete_file
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume, finite, require_same_grid
from tau_pipeline.settings.cohort import Group, UnknownManufacturer
from tau_pipeline.settings.training import TargetScalingKind
from tau_pipeline.synthesis.data.anatomy import Anatomy, label_means, label_volumes
from tau_pipeline.synthesis.data.cache import read_arrays
from tau_pipeline.synthesis.data.grid import Grid
from tau_pipeline.synthesis.data.pairs import UNKNOWN, Pair, Subject
from tau_pipeline.synthesis.data.placement import Placement, place, to_grid
from tau_pipeline.synthesis.data.scaling import ByManufacturer, MinMax, TargetScaling

#: Percentiles of the T1w inside the brain mask that become -1 and 1; what lies beyond is clipped. The paper scales to
#: [-1, 1] and does not say from where; a single bright voxel (a vessel) must not squeeze the contrast of all others.
T1W_PERCENTILES = (0.5, 99.5)


#: The T1w outside the brain mask.
T1W_BACKGROUND = -1.0


#: Goes up whenever `prepare` gives other arrays for the same files, so that no old cache is read.
CACHE_VERSION = 3


class PlacedT1w(NamedTuple):
    """A T1w as network input on the common grid.

    ``t1w`` ``(I, J, K)`` from -1 to 1, with -1 outside the brain; ``brain``, the mask; ``placement``, where the common
    grid lies on the T1w's; ``subject``, labels and covariates, for models that use them.
    """

    t1w: NDArray[np.float32]
    brain: NDArray[np.bool_]
    placement: Placement
    subject: Subject | None = None


@dataclass(frozen=True)
class Prepared:
    """One pair on the common grid, before SUVR is scaled.

    Arrays are ``(I, J, K)`` of the common grid.

    Attributes
    ----------
    t1w
        float32 from -1 to 1; -1 outside the brain.
    suvr
        float32; 0 where it is not known.
    brain
        Boolean brain mask.
    known
        Boolean: brain voxels that the PET measured. Elsewhere the SUVR map is not finite (or 0, by earlier versions).
    labels
        Desikan-Killiany labels, FreeSurfer numbers.
    placement
        Where the common grid lies on the T1w's.
    moments
        Of the SUVR in known brain voxels, on the T1w's own grid.
    suvr_range
        Least and largest SUVR there.
    volumes, uptake
        Volume in mm3 of each label in the brain (0 is brain without a label), and its mean SUVR over known voxels, both
        on the T1w's own grid; labels without a known voxel have no mean.
    subject
        Labels and covariates, for models that use them.
    """

    t1w: NDArray[np.float32]
    suvr: NDArray[np.float32]
    brain: NDArray[np.bool_]
    known: NDArray[np.bool_]
    labels: NDArray[np.integer]
    placement: Placement
    moments: ScanMoments
    suvr_range: tuple[float, float]
    volumes: Mapping[int, float]
    uptake: Mapping[int, float]
    subject: Subject | None = None

    @property
    def placed_t1w(self) -> PlacedT1w:
        """Return the T1w as `prepare_t1w` gives it."""
        return PlacedT1w(self.t1w, self.brain, self.placement, self.subject)

    def anatomy(self, covariates: Mapping[str, float]) -> Anatomy:
        """Return what a regional regression knows of the participant, as `anatomy_of` gives it."""
        return Anatomy(self.labels, self.volumes, covariates)


def scale_t1w(
    t1w: NDArray, brain: NDArray, name: str, percentiles: tuple[float, float] = T1W_PERCENTILES
) -> NDArray[np.float32]:
    """Scale a T1w so that two percentiles of the brain become -1 and 1, and clip it there.

    Parameters
    ----------
    t1w, brain
        ``(I, J, K)``; the brain mask is above 0 inside.
    name
        Whose, for messages.
    percentiles
        Of the voxels in the brain.

    Raises
    ------
    ImageError
        The T1w has one value in the whole brain, or none.
    """
    values = finite(t1w)
    inside = values[np.asarray(brain) > 0]
    low, high = np.percentile(inside, percentiles) if inside.size else (0.0, 0.0)
    if not low < high:
        raise ImageError(f"the T1w of {name} has no contrast inside the brain mask; look at both images")
    return np.clip((values - low) * np.float32(2 / (high - low)) - 1, -1, 1).astype(np.float32)


def prepare_t1w(
    t1w_img: Volume,
    mask_img: Volume,
    grid: Grid,
    name: str,
    percentiles: tuple[float, float] = T1W_PERCENTILES,
    dseg_img: Volume | None = None,
) -> PlacedT1w:
    """Prepare a T1w as network input; training and synthesis both use this.

    Parameters
    ----------
    t1w_img, mask_img
        T1w and brain mask on one grid.
    grid
        The common grid of the model.
    name
        Whose, for messages.
    percentiles
        As in `scale_t1w`, which works on the T1w's own grid, so that the scale does not depend on the common grid.
    dseg_img
        Labels on the grid of the T1w, for a common grid in the space of the template.

    Raises
    ------
    GridMismatchError, ImageError, MissingInputError
        The images differ in grid, the mask is empty, the T1w has no contrast or the brain does not fit; or the grid
        needs labels.
    """
    require_same_grid(t1w=t1w_img, mask=mask_img)
    placement = place(mask_img, grid, name, dseg_img=dseg_img)
    scaled = scale_t1w(np.asanyarray(t1w_img.dataobj), np.asanyarray(mask_img.dataobj), name, percentiles)
    brain = to_grid(mask_img, placement, labels=True) > 0
    t1w = to_grid(Volume(scaled, t1w_img.affine), placement, fill=T1W_BACKGROUND)
    return PlacedT1w(np.where(brain, t1w, np.float32(T1W_BACKGROUND)), brain, placement)


def prepare(pair: Pair, grid: Grid, cache_dir: Path | None = None) -> Prepared:
    """Bring a pair onto the common grid, or take it from the cache.

    The name of a file in the cache holds a hash of the pair's files (path, size, time of change), the grid and
    `CACHE_VERSION`: another input is another file. Files appear whole or not at all, so that processes can share a
    folder; one that is damaged is made anew.

    Parameters
    ----------
    pair
        Whose files are read.
    grid
        The common grid.
    cache_dir
        Where arrays are kept; None keeps none.

    Raises
    ------
    TauPipelineError
        A file of the pair is missing, damaged or does not fit the others; the message starts with the scan.
    """
    try:
        if cache_dir is None:
            return _prepare(pair, grid)
        path = Path(cache_dir) / f"{pair.scan}_{cache_key(pair, grid)}.npz"
        found = _from_cache(path, pair)
        if found is None:
            found = _prepare(pair, grid)
            _into_cache(found, path)
        return found
    except TauPipelineError as exc:
        raise type(exc)(f"{pair.scan}: {exc}") from exc


def cache_key(pair: Pair, grid: Grid) -> str:
    """Return sixteen hexadecimal digits of everything that the prepared arrays depend on.

    Raises
    ------
    DamagedFileError
        One of the pair's files is not there any more.
    """
    files = []
    for path in (pair.t1w_file, pair.mask_file, pair.dseg_file, pair.suvr_file):
        try:
            found = path.stat()
        except OSError as exc:
            raise DamagedFileError(f"{path} cannot be read ({exc.strerror})") from exc
        files.append([os.fspath(path.resolve()), found.st_size, found.st_mtime_ns])
    content = json.dumps([CACHE_VERSION, T1W_PERCENTILES, grid.as_dict(), files])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _prepare(pair: Pair, grid: Grid) -> Prepared:
    images = {
        name: load_volume(path, ndim=3)
        for name, path in (("t1w", pair.t1w_file), ("mask", pair.mask_file), ("dseg", pair.dseg_file))
    }
    suvr_img = load_volume(pair.suvr_file, ndim=3)
    require_same_grid(**images, suvr=suvr_img)
    t1w, brain, placement, _ = prepare_t1w(
        images["t1w"], images["mask"], grid, pair.participant_id, dseg_img=images["dseg"]
    )
    suvr = np.asanyarray(suvr_img.dataobj).astype(np.float32)
    # Earlier versions of the participant level wrote 0 where it now writes NaN; no brain voxel has exactly that.
    covered = np.isfinite(suvr) & (suvr != 0)
    known_img = Volume((covered & (np.asanyarray(images["mask"].dataobj) > 0)).astype(np.uint8), suvr_img.affine)
    inside = np.asanyarray(known_img.dataobj) > 0
    moments = scan_moments(
        suvr,
        inside,
        pair.participant_id,
        None if pair.manufacturer == UNKNOWN else pair.manufacturer,
        tracer="" if pair.tracer == UNKNOWN else pair.tracer,
        reference_region="" if pair.reference_region == UNKNOWN else pair.reference_region,
    )
    known = brain & (to_grid(known_img, placement, labels=True) > 0)
    on_grid = _measured_to_grid(suvr, covered, suvr_img, placement)
    on_t1w = label_array(images["dseg"])
    labels = to_grid(Volume(on_t1w, suvr_img.affine), placement, labels=True)
    return Prepared(
        t1w=t1w,
        suvr=np.where(known, on_grid, np.float32(0)),
        brain=brain,
        known=known,
        labels=labels,
        placement=placement,
        moments=moments,
        suvr_range=(float(suvr[inside].min()), float(suvr[inside].max())),
        volumes=label_volumes(images["dseg"], images["mask"]),
        uptake=label_means(suvr, on_t1w, inside),
        subject=pair.subject,
    )


def _measured_to_grid(
    suvr: NDArray[np.float32], covered: NDArray[np.bool_], like: Volume, placement: Placement
) -> NDArray[np.float32]:
    """Bring SUVR onto the common grid as the weighted mean of what was measured; 0 where nothing was."""
    total, weight = (
        to_grid(Volume(one.astype(np.float32), like.affine), placement) for one in (np.where(covered, suvr, 0), covered)
    )
    partly = (weight > 1e-3) & (weight < 1 - 1e-6)
    total[partly] /= weight[partly]
    return total


_ARRAYS = ("t1w", "suvr", "brain", "known", "labels")


def _into_cache(found: Prepared, path: Path) -> None:
    record = {
        "placement": found.placement.as_dict(),
        "moments": [found.moments.mean, found.moments.mean_square, found.moments.n_voxels],
        "suvr_range": list(found.suvr_range),
        "volumes": {str(number): value for number, value in found.volumes.items()},
        "uptake": {str(number): value for number, value in found.uptake.items()},
    }
    with complete_file(path) as partial:
        arrays = {name: getattr(found, name) for name in _ARRAYS}
        np.savez(partial, record=np.array(json.dumps(record)), **arrays)


def _from_cache(path: Path, pair: Pair) -> Prepared | None:
    """Return the cached arrays; None if absent or incomplete."""
    try:
        record, arrays = read_arrays(path, _ARRAYS)
        mean, mean_square, n_voxels = record["moments"]
        low, high = record["suvr_range"]
        volumes, uptake = ({int(k): float(v) for k, v in record[name].items()} for name in ("volumes", "uptake"))
        placement = Placement.from_dict(record["placement"])
    except (OSError, ValueError, KeyError, EOFError, struct.error, zipfile.BadZipFile):
        return None
    moments = ScanMoments(
        pair.participant_id,
        None if pair.manufacturer == UNKNOWN else pair.manufacturer,
        mean,
        mean_square,
        n_voxels,
        "" if pair.tracer == UNKNOWN else pair.tracer,
        "" if pair.reference_region == UNKNOWN else pair.reference_region,
    )
    return Prepared(
        placement=placement,
        moments=moments,
        suvr_range=(low, high),
        volumes=volumes,
        uptake=uptake,
        subject=pair.subject,
        **arrays,
    )


def check_pairs(pairs: Iterable[Pair], grid: Grid, cache_dir: Path | None = None) -> list[str]:
    """Read every pair once, before hours of training, and fill the cache.

    Returns
    -------
    list of str
        A sentence for each brain that the grid cuts.

    Raises
    ------
    TauPipelineError
        A pair cannot be used; the message starts with the scan.
    """
    said = [prepare(pair, grid, cache_dir).placement.cut_sentence(pair.participant_id) for pair in pairs]
    return list(dict.fromkeys(sentence for sentence in said if sentence))


def fit_target_scaling(
    target_scaling: TargetScalingKind,
    pairs: Sequence[Pair],
    grid: Grid,
    cache_dir: Path | None = None,
    *,
    min_participants: int = Group.min_participants,
    unknown_manufacturer: UnknownManufacturer = Group.unknown_manufacturer,
) -> TargetScaling:
    """Fit the scaling of SUVR on training pairs: give only those, and nothing of the others can leak.

    Parameters
    ----------
    target_scaling
        ``by-manufacturer`` or ``min-max``.
    pairs
        Of the training split.
    grid, cache_dir
        As in `prepare`. What is fitted comes from voxels of the T1w's own grid, so that the grid makes no difference;
        with a cache each image is read only once for this and for training.
    min_participants, unknown_manufacturer
        As in `tau_pipeline.cohort.standardize.fit_standardization`, for ``by-manufacturer``.

    Raises
    ------
    SettingError
        There is no pair.
    UnknownNameError
        A manufacturer is unknown or has too few participants, and ``unknown_manufacturer`` is ``error``.
    """
    # One pair at a time: the images of a large cohort do not fit into memory.
    ranges, moments = [], []
    for pair in pairs:
        found = prepare(pair, grid, cache_dir)
        ranges.append(found.suvr_range)
        moments.append(found.moments)
    if not ranges:
        raise SettingError("there is no training pair to fit the scaling of SUVR on")
    if target_scaling == "min-max":
        low, high = min(least for least, _ in ranges), max(most for _, most in ranges)
        return MinMax(low, high, tuple(sorted({pair.participant_id for pair in pairs})))
    return ByManufacturer(fit_standardization(moments, min_participants=min_participants, unknown=unknown_manufacturer))
