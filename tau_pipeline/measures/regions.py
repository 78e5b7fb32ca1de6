"""Regional statistics of an SUVR map: one row per region, always the same rows in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import composite_rules, composites, label_array, label_table
from tau_pipeline.derivatives.columns import COLUMNS, IDENTITY
from tau_pipeline.errors import ImageError, ReferenceRegionError
from tau_pipeline.imaging.volume import Volume, require_same_grid, voxel_volume_mm3
from tau_pipeline.settings.participant import Settings

if TYPE_CHECKING:
    import pandas as pd


_FLOATS = ("volume_mm3", "measured_fraction", "suvr_mean", "suvr_sd", "suvr_median", "suvr_z")


def regional_table(
    suvr: Volume,
    dseg: Volume,
    reference_mask: Volume,
    reference_name: str,
    identity: Mapping[str, str | None],
    min_measured_fraction: float = Settings.min_measured_fraction,
    extent_suvr: float | None = None,
) -> pd.DataFrame:
    """Compute statistics of an SUVR map in every region.

    Parameters
    ----------
    suvr
        SUVR ``(I, J, K)``. Voxels that are not finite were not measured: they count neither in the statistics nor in
        ``n_voxels`` and ``volume_mm3``, and lower ``measured_fraction``.
    dseg
        Labels ``(I, J, K)``, FreeSurfer numbers, on the grid of ``suvr``.
    reference_mask
        The reference region, above 0 inside, on the same grid. If it has several numbers, they are parts that count
        equally: ``suvr_mean`` of its row is the mean of their means.
    reference_name
        Its name.
    identity
        Values of the columns `IDENTITY`; a value that is missing or None becomes ``n/a``.
    min_measured_fraction
        A row with a smaller ``measured_fraction`` has no statistics.
    extent_suvr
        Where given, the table has the column ``suvr_extent``: the share of the measured voxels above this SUVR.

    Returns
    -------
    DataFrame
        The columns `COLUMNS` and ``suvr_p90`` (90th percentile over voxels), and always the same 120 rows: 68
        cortical, 18 subcortical (gray matter of aseg, with cerebellar cortex), the reference region, and 11
        composites for left, right and both hemispheres. A region without voxels has ``n_voxels`` and ``volume_mm3`` 0
        and missing statistics. A composite pools the measured voxels of its members, so that each member weighs by its
        measured volume, whether or not the member itself has a value; its ``measured_fraction`` is that of all their
        voxels. ``suvr_mean`` of a composite with the rule ``medians`` is `composite_value`; its other statistics are
        pooled. ``suvr_sd`` is the sample standard deviation over voxels (ddof 1), missing for a single voxel.
        ``suvr_z`` is missing: the group level fills it; so is ``quality``, which is known once the sidecar of the map
        is.

    Raises
    ------
    GridMismatchError
        The images are not on one grid.
    ImageError
        The SUVR is not 3-D, or the labels are not whole numbers.
    ReferenceRegionError
        The reference mask is empty.
    """
    import pandas as pd

    require_same_grid(suvr=suvr, dseg=dseg, reference_mask=reference_mask)
    values = np.asanyarray(suvr.dataobj)
    if values.ndim != 3:
        raise ImageError(f"the SUVR image has shape {values.shape}; a 3-D image is needed")
    parts = np.asanyarray(reference_mask.dataobj)
    inside = parts > 0
    if not inside.any():
        raise ReferenceRegionError(f"reference region {reference_name} is empty; no SUVR can be reported")
    by_label = values_by_label(values, label_array(dseg), measured_only=False)
    voxel_mm3 = voxel_volume_mm3(suvr)
    rows = [
        {**place, **_statistics(place, parts, voxel_mm3, min_measured_fraction, extent_suvr)}
        for place, parts in _regions(
            by_label, [values[parts == number] for number in np.unique(parts[inside])], reference_name
        )
    ]
    table = pd.DataFrame(rows)
    for name in IDENTITY:
        table[name] = pd.Series([identity.get(name) or pd.NA] * len(table), dtype="string")
    table["reference_region"] = reference_name
    table["suvr_z"] = np.nan
    table["quality"] = pd.Series([pd.NA] * len(table), dtype="string")
    types = {"index": "Int64", "n_voxels": "int64", **dict.fromkeys(_FLOATS, "Float64")}
    further = ["suvr_p90"] if extent_suvr is None else ["suvr_p90", "suvr_extent"]
    return table.astype(types | dict.fromkeys(further, "Float64"))[[*COLUMNS, *further]]


def values_by_label(
    values: NDArray, labels: NDArray[np.integer], *, measured_only: bool = True
) -> dict[int, NDArray[np.float64]]:
    """Return the values of each region of the label table, in one pass.

    Parameters
    ----------
    values, labels
        Arrays ``(I, J, K)``. Labels that are not cortical or subcortical in the label table are passed over.
    measured_only
        Whether to leave out values that are not finite.

    Returns
    -------
    dict
        From FreeSurfer number to a 1-D array, empty where the label has no voxel.
    """
    numbers = _single_regions()["index"].to_numpy()
    # A small code for each label makes the sort a radix sort over one byte per voxel.
    codes = np.zeros(int(numbers.max()) + 1, dtype=np.uint8)
    codes[numbers] = np.arange(1, len(numbers) + 1)
    candidate = (labels > 0) & (labels < codes.size)
    code, found = codes[labels[candidate]], values[candidate]
    wanted = (code > 0) & np.isfinite(found) if measured_only else code > 0
    code, found = code[wanted], found[wanted]
    sorted_values = found[np.argsort(code, kind="stable")].astype(np.float64)
    counts = np.bincount(code, minlength=len(numbers) + 1)[1:]
    parts = np.split(sorted_values, np.cumsum(counts)[:-1])
    return {int(number): part for number, part in zip(numbers, parts, strict=True)}


def _single_regions() -> pd.DataFrame:
    """Return the rows of the label table that become rows of a regional table: the cortex first."""
    table = label_table()
    return table[table["kind"].isin(["cortical", "subcortical"])].sort_values(["kind", "index"])


def composite_value(name: str, members: Sequence[NDArray]) -> float:
    """Return the value of a composite region by its rule (`tau_pipeline.atlas.composite_rules`).

    Parameters
    ----------
    name
        Of the composite.
    members
        Values of the voxels of each member, finite; a member may have none.

    Returns
    -------
    float
        NaN without voxels.
    """
    counts = [values.size for values in members]
    if not any(counts):
        return float("nan")
    if composite_rules()[name].rule == "medians":
        medians = [float(np.median(values)) for values in members if values.size]
        return float(np.average(medians, weights=[count for count in counts if count]))
    return float(np.concatenate(members).mean(dtype=np.float64))


def _regions(
    by_label: Mapping[int, NDArray], in_reference: list[NDArray], reference_name: str
) -> Iterator[tuple[dict[str, Any], list[NDArray]]]:
    """Yield each row's place (region, index, hemisphere, kind) and the values of its parts, in the order of the table.

    Only a composite, and a reference region that is one, has more than one part.
    """
    for row in _single_regions().itertuples():
        number = int(row.index)
        yield _place(row.region, number, row.hemisphere, row.kind), [by_label[number]]
    yield _place(reference_name, None, "both", "reference"), in_reference
    for name, hemispheres in composites().items():
        for hemisphere, members in hemispheres.items():
            yield _place(name, None, hemisphere, "composite"), [by_label[number] for number in members]


def _mean(place: Mapping[str, Any], parts: Sequence[NDArray]) -> float:
    """Return the mean of a row by its rule: of a reference region, the mean of the means of its parts."""
    if place["kind"] == "composite":
        return composite_value(place["region"], parts)
    return float(np.mean([part.mean(dtype=np.float64) for part in parts if part.size]))


def _place(region: str, index: int | None, hemisphere: str, kind: str) -> dict[str, Any]:
    return {"region": region, "index": index, "hemisphere": hemisphere, "kind": kind}


def _statistics(
    place: Mapping[str, Any],
    parts: Sequence[NDArray],
    voxel_mm3: float,
    min_measured_fraction: float,
    extent: float | None,
) -> dict[str, float | int]:
    """Return the statistics of one row from all voxels of its parts, of which those not measured are not finite."""
    of_parts = [part[np.isfinite(part)] for part in parts]
    size, values = sum(part.size for part in parts), np.concatenate(of_parts)
    n, nothing = values.size, float("nan")
    share = n / size if size else nothing
    found: dict[str, float | int] = {"n_voxels": n, "volume_mm3": n * voxel_mm3, "measured_fraction": share}
    if not n or share < min_measured_fraction:
        return found | dict.fromkeys(("suvr_mean", "suvr_sd", "suvr_median", "suvr_p90", "suvr_extent"), nothing)
    return found | {
        "suvr_mean": _mean(place, of_parts),
        "suvr_sd": float(values.std(dtype=np.float64, ddof=1)) if n > 1 else nothing,
        "suvr_median": float(np.median(values)),
        "suvr_p90": float(np.percentile(values, 90)),
        "suvr_extent": nothing if extent is None else float((values > extent).mean()),
    }
