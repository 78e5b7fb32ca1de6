"""Standardization by scanner manufacturer: mean 0 and standard deviation 1 over the brain voxels of its participants.

SUVR of the same brain differs between manufacturers. Standardizing SUVR by manufacturer, as Moon et al. do before
training (arXiv 2406.12632), removes what all participants of a manufacturer have in common: fit on a set of
participants (such as a training split), then apply to any scan, and invert exactly.

Every participant weighs the same, whatever the size of the brain or the number of scans. What was fitted, and on whom,
is a table that people can read.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.bids.manufacturers import canonical_manufacturer
from tau_pipeline.errors import DamagedFileError, ImageError, SettingError, UnknownNameError
from tau_pipeline.files import read_tsv, write_tsv
from tau_pipeline.settings.cohort import Group, UnknownManufacturer
from tau_pipeline.words import counted

if TYPE_CHECKING:
    import pandas as pd

Values = TypeVar("Values", float, NDArray)

#: Value outside the brain after standardization: the mean of the brain. A constant that stands out least, so that
#: filters and interpolation across the border of the brain change least, and that padding of arrays brings too.
BACKGROUND = 0.0
#: Name of the row of all manufacturers together.
POOLED = "pooled"

COLUMNS = (
    *("tracer", "reference_region", "manufacturer", "n_participants", "mean", "sd"),
    *("participants_hash", "participants"),
)


@dataclass(frozen=True)
class ScanMoments:
    """First two moments of the SUVR over the brain voxels of one scan: all that fitting needs.

    ``manufacturer`` as the sidecar spells it, or None. ``mean_square`` is the mean of the squares. ``tracer`` and
    ``reference_region`` keep apart what must not be mixed.
    """

    participant: str
    manufacturer: str | None
    mean: float
    mean_square: float
    n_voxels: int
    tracer: str = ""
    reference_region: str = ""


def scan_moments(
    suvr: NDArray, brain_mask: NDArray, participant: str, manufacturer: str | None, **kind: str
) -> ScanMoments:
    """Return the moments of one scan.

    Parameters
    ----------
    suvr
        ``(I, J, K)``; voxels that are not finite do not count.
    brain_mask
        ``(I, J, K)``, above 0 in the brain.
    participant, manufacturer
        Whose, and from what scanner, in any spelling.
    **kind
        ``tracer`` and ``reference_region``.

    Raises
    ------
    ImageError
        The arrays differ in shape, or no voxel of the mask has a value.
    """
    if np.shape(suvr) != np.shape(brain_mask):
        raise ImageError(f"the SUVR has shape {np.shape(suvr)} and the mask {np.shape(brain_mask)}; one grid is needed")
    values = np.asarray(suvr)[np.asarray(brain_mask) > 0]
    values = values[np.isfinite(values)].astype(np.float64)
    if not values.size:
        raise ImageError(f"no voxel of the brain mask of {participant} has an SUVR")
    return ScanMoments(
        participant, manufacturer, float(values.mean()), float(np.square(values).mean()), values.size, **kind
    )


@dataclass(frozen=True)
class ManufacturerFit:
    """Mean and standard deviation of SUVR over the brain voxels of one manufacturer's participants."""

    mean: float
    sd: float
    participants: tuple[str, ...]


@dataclass(frozen=True)
class Standardization:
    """Result of `fit_standardization`: a mean and a standard deviation for each manufacturer.

    Attributes
    ----------
    groups
        By the canonical name of the manufacturer; only those with enough participants.
    pooled
        All participants together.
    unknown
        What to do with a manufacturer that is not in ``groups``: an error, or take ``pooled``.
    tracer, reference_region
        Of the SUVR that was fitted; empty if unknown.
    """

    groups: dict[str, ManufacturerFit]
    pooled: ManufacturerFit
    unknown: UnknownManufacturer = Group.unknown_manufacturer
    tracer: str = ""
    reference_region: str = ""

    @property
    def known(self) -> tuple[str, ...]:
        """Manufacturers with a separate mean and standard deviation."""
        return tuple(self.groups)

    @property
    def participants(self) -> tuple[str, ...]:
        """Participants of the fit, sorted."""
        return self.pooled.participants

    @property
    def hash(self) -> str:
        """Twelve digits that identify a fit: its participants and parameters."""
        lines = self.table().to_csv(sep="\t", index=False, float_format="%.17g")
        return hashlib.sha256(lines.encode()).hexdigest()[:12]

    def group_of(self, manufacturer: str | None) -> ManufacturerFit:
        """Return mean and standard deviation for a manufacturer, in any spelling.

        Raises
        ------
        UnknownNameError
            It is not among the fitted ones and ``unknown`` is not ``pooled``; the message lists the fitted ones.
        """
        try:
            name: str | None = canonical_manufacturer(manufacturer)
        except UnknownNameError:
            name = None
        if name in self.groups:
            return self.groups[name]
        if self.unknown == "pooled":
            return self.pooled
        known = ", ".join(self.known) or "none"
        raise UnknownNameError(
            f"the standardization was fitted without scans of manufacturer {manufacturer!r}; fitted are: {known}. "
            "Pool all manufacturers (--unknown-manufacturer pooled) to standardize it anyway"
        )

    def apply(self, suvr: Values, manufacturer: str | None, brain_mask: NDArray | None = None) -> Values:
        """Standardize SUVR: subtract the manufacturer's mean, divide by its standard deviation.

        Parameters
        ----------
        suvr
            A number or an array of any shape.
        manufacturer
            In any spelling.
        brain_mask
            Array of the same shape; where it is 0 the result is `BACKGROUND`, which `invert` cannot undo.

        Returns
        -------
        float or ndarray
            Of the input's precision (float32 stays float32; computed in float64).
        """
        group = self.group_of(manufacturer)
        z = _like(suvr, (np.asarray(suvr, np.float64) - group.mean) / group.sd)
        if brain_mask is None:
            return z
        return _like(suvr, np.where(np.asarray(brain_mask) > 0, z, BACKGROUND))

    def invert(self, z: Values, manufacturer: str | None) -> Values:
        """Return SUVR from standardized values: the inverse of `apply` to the precision of the input."""
        group = self.group_of(manufacturer)
        return _like(z, np.asarray(z, np.float64) * group.sd + group.mean)

    def with_unknown(self, unknown: UnknownManufacturer) -> Standardization:
        """Return the same fit with another policy for manufacturers that it does not know."""
        return replace(self, unknown=unknown)

    def table(self) -> pd.DataFrame:
        """Return one row per manufacturer and one for all, with the columns `COLUMNS`."""
        import pandas as pd

        rows = [
            {
                "tracer": self.tracer,
                "reference_region": self.reference_region,
                "manufacturer": name,
                "n_participants": len(group.participants),
                "mean": group.mean,
                "sd": group.sd,
                "participants_hash": participants_hash(group.participants),
                "participants": " ".join(group.participants),
            }
            for name, group in {**self.groups, POOLED: self.pooled}.items()
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as TSV; numbers in full, so that `load` gives back the same to the last bit."""
        save_standardizations([self], path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], tracer: str | None = None, reference_region: str | None = None
    ) -> Standardization:
        """Read what `save` wrote; of several fits in one file, that of a tracer and reference region.

        Raises
        ------
        MissingInputError, DamagedFileError
            The file is not there, is no such table, or its participants do not match their hash.
        UnknownNameError
            It holds no fit, or more than one, of that tracer and reference region; the message lists them.
        """
        fits = load_standardizations(path)
        wanted = [
            fit for fit in fits if tracer in (None, fit.tracer) and reference_region in (None, fit.reference_region)
        ]
        if len(wanted) != 1:
            there = "; ".join(f"{fit.tracer or 'n/a'} by {fit.reference_region or 'n/a'}" for fit in fits)
            raise UnknownNameError(
                f"{path} holds {len(wanted)} fits of tracer {tracer or 'any'} and reference region "
                f"{reference_region or 'any'}, and one is needed; there are: {there}"
            )
        return wanted[0]


def _like(given: Values, found: NDArray) -> Values:
    """Return ``found`` in the precision of ``given``; a plain float for a number."""
    if np.ndim(given) == 0:
        return float(found)  # type: ignore[return-value]
    dtype = np.asarray(given).dtype
    return found.astype(dtype if dtype.kind == "f" else np.float64)  # type: ignore[return-value]


def participants_hash(participants: Iterable[str]) -> str:
    """Return ``sha256:`` and twelve digits that are equal exactly for the same set of participants."""
    return "sha256:" + hashlib.sha256("\n".join(sorted(set(participants))).encode()).hexdigest()[:12]


def fit_standardization(
    scans: Iterable[ScanMoments],
    participants: Collection[str] | None = None,
    *,
    min_participants: int = Group.min_participants,
    unknown: UnknownManufacturer = Group.unknown_manufacturer,
) -> Standardization:
    """Fit mean and standard deviation of SUVR by manufacturer.

    Parameters
    ----------
    scans
        Moments of scans of one tracer and one reference region, in any order. Scans of one participant with one
        manufacturer are averaged first, so that every participant weighs the same.
    participants
        Only these are used: a training split. None uses all.
    min_participants
        A manufacturer with fewer is not fitted.
    unknown
        Treatment of manufacturers that are unknown or have too few participants: ``error``; ``pooled``, they
        are standardized with all participants together; ``exclude``, they are left out.

    Raises
    ------
    UnknownNameError
        ``unknown`` is ``error`` and there is such a manufacturer.
    SettingError
        No scan is left, one of the participants has none, or the scans are of several tracers or reference regions.
    """
    used = _chosen(scans, participants)
    by_manufacturer: dict[str, list[ScanMoments]] = defaultdict(list)
    problems: list[str] = []
    for scan in used:
        try:
            by_manufacturer[canonical_manufacturer(scan.manufacturer)].append(scan)
        except UnknownNameError as exc:
            problems.append(f"{scan.participant}: {exc}")
    groups = {}
    for name in sorted(by_manufacturer):
        group = _fitted(by_manufacturer[name])
        if len(group.participants) >= min_participants:
            groups[name] = group
        else:
            problems.append(
                f"{name} has {counted(len(group.participants), 'participant')} ({', '.join(group.participants)}), "
                f"and at least {min_participants} are needed"
            )
    if problems and unknown == "error":
        fitted = ", ".join(groups) or "none"
        raise UnknownNameError(
            f"cannot standardize by manufacturer: {'; '.join(problems)}. With enough participants: {fitted}. Pool such "
            "manufacturers (--unknown-manufacturer pooled), exclude them (exclude), or lower --min-participants"
        )
    known = [scan for name in groups for scan in by_manufacturer[name]]
    everybody = used if unknown == "pooled" else known
    if not everybody:
        raise SettingError(f"no manufacturer has {min_participants} participants, so nothing can be fitted")
    return Standardization(groups, _fitted(everybody), unknown, used[0].tracer, used[0].reference_region)


def _chosen(scans: Iterable[ScanMoments], participants: Collection[str] | None) -> list[ScanMoments]:
    """Return the scans that are used, in an order that does not depend on that of the input."""
    used = sorted(scans, key=lambda scan: (scan.participant, scan.mean, scan.mean_square))
    if participants is not None:
        wanted = {f"sub-{label.removeprefix('sub-')}" for label in participants}
        used = [scan for scan in used if f"sub-{scan.participant.removeprefix('sub-')}" in wanted]
        absent = wanted - {f"sub-{scan.participant.removeprefix('sub-')}" for scan in used}
        if absent:
            raise SettingError(f"there is no scan of {', '.join(sorted(absent))}, who should be used for the fit")
    if not used:
        raise SettingError("there is no scan to fit the standardization on")
    kinds = sorted({(scan.tracer, scan.reference_region) for scan in used})
    if len(kinds) > 1:
        several = "; ".join(f"{tracer} by {region}" for tracer, region in kinds)
        raise SettingError(f"SUVR of several kinds cannot be fitted together: {several}")
    return used


def _fitted(scans: Iterable[ScanMoments]) -> ManufacturerFit:
    """Average moments within each participant, then over participants."""
    by_participant: dict[str, list[ScanMoments]] = defaultdict(list)
    for scan in scans:
        by_participant[scan.participant].append(scan)
    own = [
        (np.mean([scan.mean for scan in found]), np.mean([scan.mean_square for scan in found]))
        for found in by_participant.values()
    ]
    mean, mean_square = np.mean(own, axis=0)
    variance = float(mean_square - mean**2)
    participants = tuple(sorted(by_participant))
    if not variance > 0:
        raise ImageError(f"the SUVR of {', '.join(participants)} is the same everywhere, so it cannot be standardized")
    return ManufacturerFit(float(mean), float(np.sqrt(variance)), participants)


def save_standardizations(fits: Iterable[Standardization], path: str | os.PathLike[str]) -> None:
    """Write several fits into one TSV; rows as in `Standardization.table`."""
    import pandas as pd

    table = pd.concat([fit.table() for fit in fits], ignore_index=True)
    # %.17g gives back the same double; write_tsv would cut numbers to seven digits.
    for column in ("mean", "sd"):
        table[column] = [f"{value:.17g}" for value in table[column]]
    write_tsv(table.replace("", "n/a"), path)


def load_standardizations(path: str | os.PathLike[str]) -> list[Standardization]:
    """Read all fits of a TSV that `save_standardizations` wrote."""
    table = read_tsv(path)
    if absent := [name for name in COLUMNS if name not in table.columns]:
        raise DamagedFileError(f"{path} has no column {', '.join(absent)}; a table of a standardization is needed")
    texts = ["tracer", "reference_region", "participants"]
    table[texts] = table[texts].astype("string").fillna("")
    fits = []
    for (tracer, region), rows in table.groupby(["tracer", "reference_region"], sort=False):
        groups = {str(row.manufacturer): _fit_of_row(row, path) for row in rows.itertuples()}
        if POOLED not in groups:
            raise DamagedFileError(f"{path} has no row {POOLED!r}; a table of a standardization is needed")
        pooled = groups.pop(POOLED)
        fits.append(Standardization(groups, pooled, "error", str(tracer), str(region)))
    return fits


def _fit_of_row(row: Any, path: str | os.PathLike[str]) -> ManufacturerFit:
    manufacturer = row.manufacturer
    participants = tuple(str(row.participants).split())
    try:
        mean, sd = float(row.mean), float(row.sd)
    except (TypeError, ValueError):
        mean, sd = np.nan, np.nan
    if not (np.isfinite(mean) and sd > 0):
        raise DamagedFileError(
            f"{path}: mean and sd of {manufacturer} are not a number and a number above 0; correct the table"
        )
    if participants_hash(participants) != str(row.participants_hash):
        raise DamagedFileError(
            f"{path}: the participants of {manufacturer} do not match their hash; the table was modified"
        )
    return ManufacturerFit(mean, sd, participants)
