"""The cohort beside a participant: controls in the wide table of the group level."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tau_workflows.reports.neighbors import cohort_parts


def controls_of(out: Path, rows: list[tuple[str, str, float]]) -> str:
    """Return the part with the controls on the page of sub-1, of a table with a diagnosis and an SUVR for each scan."""
    (out / "group").mkdir()
    table = pd.DataFrame(rows, columns=["participant_id", "diagnosis", "metatemporal"])
    table["scan"] = [f"{who}_ses-{place}_pet" for place, who in enumerate(table["participant_id"])]
    table = table.assign(source="measured", tracer="AV1451", reference_region="CerebellarGM", included="yes")
    table.to_csv(out / "group" / "suvr_rois_wide.csv", index=False)
    return cohort_parts(out, "1", ["1", "2", "3"])["controls"]


def test_visits_of_one_control_count_once(tmp_path: Path) -> None:
    rows = [("sub-1", "AD", 1.8), ("sub-2", "CN", 1.0), ("sub-3", "CN", 1.1), ("sub-3", "CN", 1.3)]
    text = controls_of(tmp_path, rows)
    assert "over 2 controls" in text
    # Mean and SD of 1.0 and 1.2.
    assert '<td class="n">1.100</td><td class="n">0.141</td><td class="n">2</td>' in text


def test_one_control_has_no_deviation(tmp_path: Path) -> None:
    text = controls_of(tmp_path, [("sub-1", "AD", 1.8), ("sub-2", "CN", 1.0), ("sub-2", "CN", 1.2)])
    assert "over 1 control " in text
    assert "n/a" in text


@pytest.mark.parametrize("content", ["\0", "", "participant_id,diagnosis\n"])
def test_a_table_without_rows_has_no_controls(tmp_path: Path, content: str) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group/suvr_rois_wide.csv").write_text(content)
    assert cohort_parts(tmp_path, "1", ["1", "2"])["controls"] == ""
