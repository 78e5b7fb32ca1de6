"""One table of quality measures: every place that shows or reads them has each of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from tau_pipeline.cohort import columns, tables
from tau_pipeline.derivatives.quality_measures import IN_TABLE, MEASURES, Measure
from tau_pipeline.derivatives.read import read_suvr_sidecar
from tau_pipeline.errors import DamagedFileError
from tau_pipeline.figures import cohort as figures
from tau_pipeline.measures.quality import PERCENTILES, map_quality
from tau_workflows.reports import scan_table
from tau_workflows.reports import scans as participant

ROOT = Path(__file__).resolve().parents[1]
VALUE = {"number": 2.5, "numbers": [0.5, 2.5], "percentiles": {"75": 2.5, "90": 2.5, "99": 2.5}, "text": 2.5}


def ids(measure: Measure) -> str:
    return measure.column or measure.key


@pytest.mark.parametrize("measure", IN_TABLE, ids=ids)
def test_the_status_table_and_its_data_dictionary_have_each_measure(measure):
    for name in filter(None, (measure.column, measure.z_column, measure.outlier)):
        assert tables.STATUS_COLUMNS.count(name) == 1
        assert columns.STATUS_COLUMNS[name]["Description"]
    assert columns.STATUS_COLUMNS[measure.column].get("Units", "") == measure.unit
    assert measure.value({measure.key: VALUE[measure.kind]}) == 2.5 * (measure.factor or 1)
    assert measure.value({}) is None


@pytest.mark.parametrize("measure", [one for one in MEASURES if one.report_heading], ids=ids)
def test_the_participant_report_shows_each_measure_with_its_unit(measure):
    shown = dict(participant._quality({measure.key: VALUE[measure.kind]}))
    assert list(shown) == [measure.report_heading]
    assert shown[measure.report_heading].endswith(measure.report_unit)


@pytest.mark.parametrize("measure", [one for one in MEASURES if one.short_heading], ids=ids)
def test_the_cohort_report_shows_each_measure(measure):
    [column] = [one for one in scan_table.COLUMNS if one.name == measure.column]
    assert (column.heading, column.unit, column.form) == (measure.short_heading, measure.short_unit, measure.digits)
    assert format(2.5, column.form)
    assert column.z == measure.outlier


@pytest.mark.parametrize("measure", [one for one in MEASURES if one.plot_title], ids=ids)
def test_the_cohort_figure_draws_each_measure(measure):
    import pandas as pd

    scans = pd.DataFrame({"manufacturer": ["A", "B"], "diagnosis": ["CN", "AD"], measure.column: [1.0, 2.0]})
    drawn = figures.quality_figure(scans)
    assert [axes.get_title() for axes in drawn.axes if axes.get_title()] == [measure.plot_title]


@pytest.mark.parametrize("measure", [one for one in MEASURES if one.kind != "text"], ids=ids)
def test_a_sidecar_whose_measure_is_of_another_type_is_refused(measure, tmp_path):
    path = tmp_path / "sub-01_space-T1w_desc-suvr_pet.json"
    path.write_text(json.dumps({measure.key: VALUE[measure.kind]}))
    assert read_suvr_sidecar(path) == {measure.key: VALUE[measure.kind]}
    path.write_text(json.dumps({measure.key: "large"}))
    with pytest.raises(DamagedFileError, match=measure.key):
        read_suvr_sidecar(path)


def test_what_is_computed_of_a_map_is_in_the_table():
    ones = np.ones((2, 2, 2))
    computed = map_quality(ones, ones, np.full(ones.shape, 1006), ones, 1.0)
    assert set(computed) <= {measure.key for measure in MEASURES}
    assert {one.percent for one in MEASURES if one.kind == "percentiles"} == set(PERCENTILES)


@pytest.mark.parametrize("measure", MEASURES, ids=ids)
def test_the_reference_of_sidecars_takes_the_meaning_of_a_key_from_its_first_row(measure):
    first = next(one for one in MEASURES if one.key == measure.key)
    row = f"| `{measure.key}` | {first.key_description} |"
    assert row in (ROOT / "docs/reference/sidecars.md").read_text(encoding="utf-8")
    assert first.key_description.endswith("worse.") == (first.worse in ("high", "low"))


def test_names_and_columns_are_unique():
    names = [name for one in IN_TABLE for name in (one.column, one.z_column, one.outlier) if name]
    assert len(names) == len(set(names))
    assert len({(one.key, one.percent) for one in MEASURES}) == len(MEASURES)
