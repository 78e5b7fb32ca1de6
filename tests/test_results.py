"""Region tables and sidecars that another program has changed: each is refused in a sentence that says what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from participant_results import write_scan

from tau_pipeline.derivatives import columns
from tau_pipeline.derivatives.names import PetNames, sidecar_path
from tau_pipeline.derivatives.read import read_regions, read_suvr_sidecar
from tau_pipeline.errors import DamagedFileError
from tau_pipeline.files import read_json, read_tsv

REGION, REFERENCE = "ctx-lh-entorhinal", "CerebellarGM"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> PetNames:
    return write_scan(tmp_path_factory.mktemp("results"), "00", "GE", 0, images=False)


@pytest.fixture
def table(written: PetNames, tmp_path: Path) -> Path:
    return Path(shutil.copy(written.rois, tmp_path))


@pytest.fixture
def sidecar(written: PetNames, tmp_path: Path) -> Path:
    return Path(shutil.copy(sidecar_path(written.suvr("")), tmp_path))


def change(path: Path, column: str, content: str) -> None:
    """Put a text into one column of the row of one region."""
    head, *rows = (line.split("\t") for line in path.read_text().splitlines())
    (row,) = (row for row in rows if row[head.index("region")] == REGION)
    row[head.index(column)] = content
    path.write_text("\n".join("\t".join(line) for line in [head, *rows]) + "\n")


def test_a_table_is_read_as_it_was_written(table: Path) -> None:
    found = read_regions(table)
    plain = read_tsv(table, [name for name in columns.COLUMNS if found[name].dtype == "string"])
    assert tuple(found.columns) == (*columns.COLUMNS, "suvr_p90")
    pd.testing.assert_frame_equal(found, plain, check_dtype=False, check_exact=True)
    assert (found.dtypes[["index", "suvr_mean", "suvr_z"]] == "float64").all()


@pytest.mark.parametrize(
    ("column", "content", "sentence"),
    [
        ("index", "null", "has 'null' in index; expected: whole numbers or n/a"),
        ("index", "1006.5", "has '1006.5' in index; expected: whole numbers"),
        ("n_voxels", "9" * 400, "in n_voxels; expected: whole numbers"),
        ("n_voxels", "4294967296", "in n_voxels; expected: whole numbers"),
        ("suvr_mean", "1,25", "has '1,25' in suvr_mean; expected: numbers or n/a"),
        ("suvr_mean", "True", "has 'True' in suvr_mean; expected: numbers or n/a"),
        ("suvr_sd", "inf", "has 'inf' in suvr_sd; expected: numbers or n/a"),
        ("region", "n/a", "has a row without region; expected: a region in every row"),
        ("hemisphere", "n/a", "has a row without hemisphere"),
        ("reference_region", "n/a", "has a row without reference_region"),
        ("region", "ctx-rh-entorhinal", f"has the region ctx_rh_entorhinal more than once for {REFERENCE}"),
        ("reference_region", "../Pons", "has the reference region '../Pons'; expected: letters and digits"),
        ("kind", "reference", f"has the region reference more than once for {REFERENCE}"),
    ],
)
def test_a_cell_that_the_cohorts_tables_cannot_take_is_told(
    table: Path, column: str, content: str, sentence: str
) -> None:
    change(table, column, content)
    with pytest.raises(DamagedFileError, match=sentence) as caught:
        read_regions(table)
    assert str(table) in str(caught.value)
    assert "run the participant level again" in str(caught.value)


def test_missing_statistics_are_no_damage(table: Path) -> None:
    for column in ("suvr_mean", "suvr_sd", "suvr_median", "volume_mm3", "index"):
        change(table, column, "n/a")
    row = read_regions(table).set_index("region").loc[REGION]
    assert row[["suvr_mean", "suvr_sd", "suvr_median", "volume_mm3", "index"]].isna().all()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Manufacturer", True, "a text"),
        ("TracerName", [1], "a text"),
        ("ManufacturersModelName", {}, "a text"),
        ("Assumptions", True, "a list of sentences"),
        ("Assumptions", "one", "a list of sentences"),
        ("BrainMean", "1.2", "a number"),
        ("Noise", True, "a number"),
        ("EffectiveFWHM", 10**400, "a number"),
        ("CorticalPercentiles", {"90": "n/a"}, "an object of numbers"),
        ("CorticalPercentiles", [1], "an object of numbers"),
        ("FrameMotion", [1.0, None], "a list of numbers"),
        ("FrameMotion", 3, "a list of numbers"),
    ],
)
def test_a_value_of_another_type_is_told(sidecar: Path, name: str, value: Any, expected: str) -> None:
    sidecar.write_text(json.dumps({**read_json(sidecar), name: value}))
    with pytest.raises(DamagedFileError, match=rf"^{name} in .* is .*; expected: {expected}; run the") as caught:
        read_suvr_sidecar(sidecar)
    assert str(sidecar) in str(caught.value)


def test_values_that_are_missing_are_no_damage(sidecar: Path) -> None:
    whole = read_json(sidecar)
    assert read_suvr_sidecar(sidecar) == whole
    for missing in ({}, dict.fromkeys(whole), {"EffectiveFWHM": "n/a", "FrameMotion": "n/a", "Manufacturer": "n/a"}):
        sidecar.write_text(json.dumps(missing))
        assert read_suvr_sidecar(sidecar) == missing
