"""The Python in the how-to pages runs, on made-up results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from participant_results import MAKERS, write_cohort, write_scan

from tau_pipeline.files import write_tsv
from tau_pipeline.group import find_scans, fit_cohort, read_demographics, status_table
from tau_pipeline.standardize import save_standardizations
from tau_pipeline.status import all_statuses

DOCS = Path(__file__).resolve().parents[1] / "docs"


def python_of(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))


def test_the_python_of_standardising_by_manufacturer_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bids, out = write_cohort(tmp_path / "made")
    write_scan(out, "01", MAKERS[0], 1)
    (tmp_path / "cohort").mkdir()
    out.rename(tmp_path / "cohort/derivatives")
    out = tmp_path / "cohort/derivatives"
    scans = find_scans(out)
    fits = fit_cohort(scans, None, 5, "error")
    write_tsv(status_table(scans, all_statuses(out), fits, read_demographics(bids)), out / "group/status.tsv")
    save_standardizations(fits, out / "group/standardization.tsv")
    monkeypatch.chdir(tmp_path)
    exec(compile(python_of(DOCS / "how-to/standardise-by-manufacturer.md"), "how-to", "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"cortex_p90_z: manufacturer p = [0-9.e-]+, AD against others p = [0-9.e-]+", printed)
