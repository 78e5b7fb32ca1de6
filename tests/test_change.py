"""Change between visits: order in time, years by dates, labels, and ages, and what is not compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tau_pipeline.cohort.change import CHANGE_COLUMNS, change_table
from tau_pipeline.files import write_tsv


def rows(who: str, session: str, suvr: float, *, age: float = np.nan, **more: str) -> list[dict]:
    """Make the rows of one scan in two regions."""
    row = {
        "participant_id": who,
        "session_id": session,
        "scan": f"{who}_{session}_pet",
        "age": age,
        "hemisphere": "both",
    }
    row |= {"source": "measured", "included": "yes", "tracer": "flortaucipir", "reference_region": "CerebellarGM"}
    row |= {"kind": "composite", "manufacturer": "GE", **more}
    return [{**row, "region": "braak1", "suvr_mean": suvr}, {**row, "region": "braak34", "suvr_mean": 2 * suvr + 0.1}]


def test_percent_change_is_from_the_first_visit_in_time(tmp_path: Path) -> None:
    # The labels' order is not that of the dates.
    write_tsv(
        pd.DataFrame(
            {"session_id": ["ses-b", "ses-a", "ses-c"], "acq_time": ["2019-01-01", "2021-01-01", "2020-01-01"]}
        ),
        tmp_path / "sub-1/sub-1_sessions.tsv",
    )
    long = pd.DataFrame(
        [
            *(*rows("sub-1", "ses-a", 1.32), *rows("sub-1", "ses-b", 1.2, manufacturer="Siemens")),
            *rows("sub-1", "ses-c", 9.0, included="no"),
            *(*rows("sub-2", "ses-M000", 1.0), *rows("sub-2", "ses-M018", 1.03)),
            *(*rows("sub-3", "ses-pre", 1.0, age=71.5), *rows("sub-3", "ses-post", 0.9, age=70.0)),
            *(*rows("sub-4", "ses-x", 1.0), *rows("sub-4", "ses-y", 1.1, reference_region="Pons")),
            *rows("sub-5", "ses-x", 1.0),
        ]
    )
    found = change_table(long, tmp_path)
    assert tuple(found.columns) == tuple(CHANGE_COLUMNS)
    assert found["participant_id"].unique().tolist() == ["sub-1", "sub-2", "sub-3"]
    one = found[(found["participant_id"] == "sub-1") & (found["region"] == "braak1")].iloc[0]
    assert (one["scan_first"], one["scan"]) == ("sub-1_ses-b_pet", "sub-1_ses-a_pet")
    assert one["percent_change"] == pytest.approx(10.0)
    assert one["years"] == pytest.approx(731 / 365.25)
    assert one["percent_per_year"] == pytest.approx(10 / (731 / 365.25))
    assert one["same_manufacturer"] == "no"
    two = found[(found["participant_id"] == "sub-2") & (found["region"] == "braak34")].iloc[0]
    assert two["years"] == pytest.approx(1.5)
    three = found[found["participant_id"] == "sub-3"].iloc[0]
    assert (three["scan"], three["years"]) == ("sub-3_ses-pre_pet", pytest.approx(1.5))
    assert two["percent_change"] == pytest.approx(100 * (2.16 / 2.1 - 1))


def test_without_two_visits_the_table_is_empty(tmp_path: Path) -> None:
    assert change_table(pd.DataFrame(rows("sub-1", "ses-a", 1.0)), tmp_path).empty
