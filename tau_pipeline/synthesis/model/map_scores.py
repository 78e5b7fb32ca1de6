"""Scores of synthetic maps beside measured ones on the grid of the T1w, scan by scan, and what they come to.

The tables of the held-out scans lie in the model folder, so that the report is drawn from them and models are compared
scan by scan without predicting again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import label_array, label_table, region_numbers
from tau_pipeline.files import read_tsv, write_tsv
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.volume import Volume
from tau_pipeline.measures.agreement import pearson
from tau_pipeline.measures.images import mae, ssim
from tau_pipeline.synthesis.data.anatomy import label_means
from tau_pipeline.synthesis.data.pairs import Pair

if TYPE_CHECKING:
    import pandas as pd

_CORTICAL = region_numbers("cortical")
#: Labels whose means are compared, in the order of `MapScores`: cortical, then subcortical.
REGIONS = (*_CORTICAL, *region_numbers("subcortical"))
#: SUVR is taken to lie between 0 and this for SSIM.
_SUVR_RANGE = 3.0
#: A correlation over fewer participants says nothing.
LEAST_FOR_R = 3
#: In a model folder: scores of each held-out scan, and its regional values.
_SCANS, _REGIONS = "held_out.tsv", "held_out_regions.tsv"


@dataclass(frozen=True)
class MapScores:
    """Scores of one map of one scan.

    Attributes
    ----------
    participant, scan
        Who, as ``sub-…``; and the entities of the PET.
    ssim, mae
        In the brain, where the PET has a value.
    synthetic, measured
        Regional means ``(R,)`` of `REGIONS`; NaN for a region without voxels.
    """

    participant: str
    scan: str
    ssim: float
    mae: float
    synthetic: NDArray[np.float64]
    measured: NDArray[np.float64]


def score_maps(pair: Pair, maps: Mapping[str, Volume], mask_img: Volume, dseg_img: Volume) -> dict[str, MapScores]:
    """Compare maps on the T1w's grid with the measured one of a pair; by predictor."""
    measured = np.asanyarray(load_volume(pair.suvr_file, ndim=3).dataobj).astype(np.float64)
    # Earlier versions of the participant level wrote 0 where it now writes NaN.
    known = np.isfinite(measured) & (measured != 0) & (np.asanyarray(mask_img.dataobj) > 0)
    labels, rows = label_array(dseg_img), {}
    for name, img in maps.items():
        synthetic = np.asanyarray(img.dataobj).astype(np.float64)
        inside = known & np.isfinite(synthetic)
        a, b = (np.where(inside, values, 0.0) for values in (synthetic, measured))
        means = [_regional(values, labels, inside) for values in (a, b)]
        rows[name] = MapScores(
            pair.participant_id, pair.scan, ssim(a, b, inside, _SUVR_RANGE), mae(a, b, inside), *means
        )
    return rows


def _regional(values: NDArray, labels: NDArray, inside: NDArray) -> NDArray[np.float64]:
    of_label = label_means(values, labels, inside)
    return np.array([of_label.get(number, math.nan) for number in REGIONS])


def figures_of(rows: Sequence[MapScores]) -> dict[str, float | None]:
    """Return the measures by which a model is judged, of one predictor over scans.

    These are ``ssim``, ``mae``, ``regional_mae``, and ``regional_r``; None where one is not defined.
    """
    synthetic, measured = (np.array([getattr(row, name) for row in rows]) for name in ("synthetic", "measured"))
    r = np.nan
    if len(rows) >= LEAST_FOR_R:
        cortex = slice(0, len(_CORTICAL))
        both = np.isfinite(synthetic[:, cortex]).all(axis=0) & np.isfinite(measured[:, cortex]).all(axis=0)
        of_region = pearson(synthetic[:, cortex][:, both].T, measured[:, cortex][:, both].T)
        r = float(np.nanmean(of_region)) if np.isfinite(of_region).any() else np.nan
    error = np.abs(synthetic - measured)
    found = {
        "ssim": float(np.mean([row.ssim for row in rows])),
        "mae": float(np.mean([row.mae for row in rows])),
        "regional_mae": float(np.nanmean(error)) if np.isfinite(error).any() else np.nan,
        "regional_r": r,
    }
    return {name: round(value, 6) if math.isfinite(value) else None for name, value in found.items()}


@dataclass(frozen=True)
class HeldOutTables:
    """Scores of the held-out scans.

    Attributes
    ----------
    scans
        One row per predictor and scan: ``predictor``, ``participant_id``, ``scan``, ``ssim``, ``mae``, and
        ``regional_mae``.
    regions
        One row per predictor, scan, and region: ``predictor``, ``participant_id``, ``scan``, ``index``,
        ``region``, ``hemisphere``, ``kind``, and mean ``measured`` and ``synthetic`` SUVR.
    """

    scans: pd.DataFrame
    regions: pd.DataFrame

    def save(self, folder: Path) -> None:
        """Write both tables to a model folder."""
        write_tsv(self.scans, Path(folder) / _SCANS)
        write_tsv(self.regions, Path(folder) / _REGIONS)

    @classmethod
    def load(cls, folder: Path) -> HeldOutTables | None:
        """Read the tables of a model folder; None where there are none, as in that of an older model.

        Raises
        ------
        DamagedFileError
            A table cannot be read.
        """
        paths = [Path(folder) / name for name in (_SCANS, _REGIONS)]
        if not all(path.is_file() for path in paths):
            return None
        return cls(*(read_tsv(path, ("participant_id", "scan")) for path in paths))


def tables_of(rows: Mapping[str, Sequence[MapScores]]) -> HeldOutTables:
    """Arrange scores by predictor as tables."""
    import pandas as pd

    labels = label_table().set_index("index").loc[list(REGIONS)]
    scans, regions = [], []
    for predictor, own in rows.items():
        for row in own:
            who = {"predictor": predictor, "participant_id": row.participant, "scan": row.scan}
            error = np.abs(row.synthetic - row.measured)
            known = np.isfinite(error)
            regional = float(error[known].mean()) if known.any() else math.nan
            scans.append({**who, "ssim": row.ssim, "mae": row.mae, "regional_mae": regional})
            places = {"index": REGIONS, **{name: labels[name].to_numpy() for name in ("region", "hemisphere", "kind")}}
            values = {"measured": row.measured, "synthetic": row.synthetic}
            regions.append(pd.DataFrame({**who, **places, **values}))
    return HeldOutTables(pd.DataFrame(scans), pd.concat(regions, ignore_index=True))
