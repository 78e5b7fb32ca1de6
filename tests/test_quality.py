"""Figures of an SUVR map: exact on images that are made so."""

from __future__ import annotations

import numpy as np
import pytest

from tau_pipeline.errors import ImageError
from tau_pipeline.measures.quality import map_quality


def made() -> dict[str, np.ndarray]:
    """A brain of 1000 voxels: 400 cortex (SUVR 1, 2, ..., 400), 100 reference (half 0.9, half 1.1), the rest 1."""
    suvr = np.ones(1200)
    suvr[:400] = np.arange(1, 401)
    suvr[400:450], suvr[450:500] = 0.9, 1.1
    dseg = np.zeros(1200, np.int32)
    dseg[:200], dseg[200:400], dseg[400:500], dseg[500:600] = 1001, 2035, 8, 2
    brain, reference = np.arange(1200) < 1000, dseg == 8
    shape = (10, 12, 10)
    return {
        name: array.reshape(shape)
        for name, array in {"suvr": suvr, "brain": brain, "dseg": dseg, "reference": reference}.items()
    }


def test_the_figures_are_those_of_their_voxels() -> None:
    found = map_quality(**made(), voxel_mm3=8.0)
    brain = np.concatenate([np.arange(1, 401), np.full(50, 0.9), np.full(50, 1.1), np.ones(500)])
    assert found["BrainVolume"] == 8000
    assert found["BrainVoxels"] == 1000
    assert found["BrainMean"] == pytest.approx(brain.mean())
    assert found["BrainStandardDeviation"] == pytest.approx(brain.std())
    assert found["Noise"] == pytest.approx(0.1)
    # of 1 … 400, by linear interpolation between ranks: 1 + 399 p
    assert found["CorticalPercentiles"] == pytest.approx({"75": 300.25, "90": 360.1, "99": 396.01})


def test_voxels_without_a_value_do_not_count() -> None:
    given = made()
    given["suvr"][:3, :3, :3] = np.nan
    given["suvr"][3:5, :3, :3] = 0
    valid = given["suvr"] > 0
    found = map_quality(**given, voxel_mm3=1.0)
    assert found["BrainVoxels"] == (valid & given["brain"]).sum()
    assert found["BrainMean"] == pytest.approx(given["suvr"][valid & given["brain"]].mean())


def test_a_map_without_cortex_or_reference_has_no_such_figure() -> None:
    given = made()
    given["dseg"][:], given["reference"][:] = 0, False
    found = map_quality(**given, voxel_mm3=1.0)
    assert found["CorticalPercentiles"] == {"75": None, "90": None, "99": None}
    assert found["Noise"] is None


def test_other_grids_and_an_empty_brain_are_refused() -> None:
    given = made()
    with pytest.raises(ImageError, match="one grid"):
        map_quality(**{**given, "dseg": given["dseg"][1:]}, voxel_mm3=1.0)
    given["brain"][:] = False
    with pytest.raises(ImageError, match="no voxel"):
        map_quality(**given, voxel_mm3=1.0)
