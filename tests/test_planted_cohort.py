"""A cohort with planted faults through the whole program: every fault is named, no good scan is, and none counts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from coarse_program import RARE_GARBAGE
from planted_cohort import FAULTS, GOOD, write_planted

from tau_pipeline.files import read_tsv

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
#: Figures are blank, those of the cohort too.
PROGRAM = f"""{RARE_GARBAGE}
import sys
from tau_workflows import cli
from tau_workflows.levels import participant
participant.MODULE = "planted_cohort"
if "group" in sys.argv:
    from stand_ins import blank, replace
    from tau_workflows.reports import cohort, regions
    replace(cohort, _figures=lambda *_: [])
    replace(regions, cortex_figure=blank)
sys.exit(cli.main(sys.argv[1:]))
"""
#: Names, or their beginnings, of the checks of which one must find a fault.
FOUND_BY = {
    "another person": ("coreg_",),
    "mirrored": ("coreg_",),
    "turned": ("coreg_",),
    "moved": ("coreg_",),
    "cut": ("fov_missing_top_percent",),
    "window": ("window_start_min",),
    "motion": ("fd_max_mm",),
    "noise": ("noise_percent",),
}


@dataclass(frozen=True)
class Cohort:
    """Folders of a cohort, and what the levels said."""

    bids: Path
    out: Path
    said: dict[str, str]

    def status(self) -> pd.DataFrame:
        table = read_tsv(self.out / "group/status.tsv")
        return table[table["source"] == "measured"].set_index("participant_id")


def run(bids: Path, out: Path, level: str, *options: str) -> str:
    """Run a level of the program; returns what it said."""
    searched = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    call = [sys.executable, "-c", PROGRAM, str(bids), str(out), level, *options]
    done = subprocess.run(
        call,
        env={**os.environ, "PYTHONPATH": searched},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def group(bids: Path, out: Path) -> str:
    return run(bids, out, "group", "--min-participants", "1")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    root = tmp_path_factory.mktemp("planted")
    bids, out = write_planted(root), root / "out"
    options = ("--work-dir", str(root / "work"), "--skip-bids-validation", "--nprocs", "2")
    said = {"participant": run(bids, out, "participant", *options)}
    return Cohort(bids, out, said | {"group": group(bids, out)})


@pytest.mark.parametrize("who", FAULTS)
def test_every_fault_is_in_the_table_on_the_terminal_and_first_on_the_page(who: str, cohort: Cohort) -> None:
    faults, row = FAULTS[who][0], cohort.status().loc[who]
    assert row["quality"] in ("warn", "fail"), faults
    named = [name for part in ("quality_failed", "quality_warned") for name in str(row[part]).split(",")]
    for fault in faults:
        assert any(name.startswith(FOUND_BY[fault]) for name in named), (fault, named)
    for said in cohort.said.values():
        assert f"QUALITY {row['quality'].upper()} {who}_" in said
    page = (cohort.out / f"{who}.html").read_text()
    content = page[page.index("<main") :]
    assert content.index('class="alert') < content.index('id="summary"')
    cohort_page = (cohort.out / "group/report.html").read_text()
    warnings = cohort_page[cohort_page.index('class="warnings') :]
    assert f"{who}_" in warnings[: warnings.index("</div>")]


@pytest.mark.parametrize("who", GOOD)
def test_no_good_scan_is_doubted(who: str, cohort: Cohort) -> None:
    row = cohort.status().loc[who]
    assert row["quality"] == "pass", (row["quality_failed"], row["quality_warned"])
    for said in cohort.said.values():
        assert f" {who}_trc" not in "\n".join(line for line in said.splitlines() if "QUALITY" in line)


def test_group_figures_are_those_of_the_scans_that_did_not_fail(cohort: Cohort, tmp_path: Path) -> None:
    failed = cohort.status().query("quality == 'fail'").index
    assert len(failed) > 0
    rest = tmp_path / "out"
    shutil.copytree(cohort.out, rest, ignore=shutil.ignore_patterns("group"))
    for who in failed:
        shutil.rmtree(rest / who)
        (rest / "logs/status" / f"{who}.json").unlink()
    group(cohort.bids, rest)
    tables = [read_tsv(out / "group/standardization.tsv") for out in (cohort.out, rest)]
    pd.testing.assert_frame_equal(*tables)
    counted = read_tsv(cohort.out / "group/suvr_rois.tsv").query("included == 'yes'").reset_index(drop=True)
    # A column of ones alone is read as whole numbers.
    pd.testing.assert_frame_equal(counted, read_tsv(rest / "group/suvr_rois.tsv"), check_dtype=False)
