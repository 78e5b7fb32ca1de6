"""Thickness of the cortex by region: one row per region, composite, and hemisphere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tau_pipeline.atlas import composites, label_table
from tau_pipeline.surface.mesh import SIDES, Labels, Mesh, Side, Values

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the table, and what each one means.
COLUMNS: dict[str, dict[str, Any]] = {
    "participant_id": {"Description": "Participant, with the prefix sub-."},
    "session_id": {"Description": "Session of the T1w, with the prefix ses-; n/a without sessions."},
    "region": {"Description": "Region: FreeSurfer name, or name of the composite; cortex is all of it."},
    "index": {"Description": "FreeSurfer number of the region; n/a for composites."},
    "hemisphere": {"Description": "left, right, or both."},
    "n_vertices": {"Description": "Vertices of the surface in the region."},
    "area_mm2": {"Description": "Area of the region on the surface in the middle of the cortex.", "Units": "mm^2"},
    "thickness_mean": {
        "Description": "Mean thickness of the cortex, each vertex weighted by its area; n/a without vertices.",
        "Units": "mm",
    },
    "thickness_sd": {"Description": "Standard deviation of the thickness, weighted likewise.", "Units": "mm"},
}


@dataclass(frozen=True)
class Cortex:
    """The cortex of one hemisphere: central surface, thickness in mm, and FreeSurfer number of each vertex."""

    mesh: Mesh
    thickness: Values
    labels: Labels


def thickness_table(cortex: Mapping[Side, Cortex], participant: str, session: str | None) -> pd.DataFrame:
    """Return the table of thickness.

    Parameters
    ----------
    cortex
        Both hemispheres.
    participant, session
        With prefixes; None without a session.

    Returns
    -------
    DataFrame
        Columns are those of `COLUMNS`: the 68 regions, then the composites of cortical regions, of which ``cortex`` is
        all of them; left, right, and both. What has no vertex is n/a.
    """
    import pandas as pd

    labels = np.concatenate([cortex[side].labels for side in SIDES])
    thickness = np.concatenate([cortex[side].thickness for side in SIDES])
    areas = np.concatenate([cortex[side].mesh.vertex_areas for side in SIDES])
    rows = []
    for (region, index, hemisphere), numbers in _groups():
        own = np.isin(labels, numbers) & np.isfinite(thickness)
        row = {"participant_id": participant, "session_id": session, "region": region, "index": index}
        rows.append({**row, "hemisphere": hemisphere, **_statistics(thickness[own], areas[own])})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["index"] = table["index"].astype("Int64")
    return table


def _groups() -> Iterator[tuple[tuple[str, int | None, str], tuple[int, ...]]]:
    """Yield region, number, and hemisphere of each row, with the numbers of the labels in it."""
    table = label_table()
    for row in table[table["kind"] == "cortical"].itertuples():
        yield (str(row.region), int(row.index), str(row.hemisphere)), (int(row.index),)
    for name, sides in composites().items():
        for hemisphere, numbers in sides.items():
            cortical = tuple(number for number in numbers if number > 1000)
            if len(cortical) == len(numbers):
                yield (name, None, hemisphere), cortical


def _statistics(values: NDArray[Any], areas: NDArray[Any]) -> dict[str, float | int | None]:
    if not values.size:
        return {"n_vertices": 0, "area_mm2": 0.0, "thickness_mean": None, "thickness_sd": None}
    mean = float(np.average(values, weights=areas))
    variance = float(np.average((values - mean) ** 2, weights=areas))
    return {
        "n_vertices": int(values.size),
        "area_mm2": float(areas.sum()),
        "thickness_mean": mean,
        "thickness_sd": variance**0.5,
    }
