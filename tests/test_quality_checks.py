"""Quality checks: verdicts, decisions of people, and scans that are left out of everything that compares scans."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from participant_results import write_cohort

from tau_pipeline.cohort.scans import is_included, left_out_text
from tau_pipeline.derivatives.index import find_scans
from tau_pipeline.derivatives.quality_checks import CHECKS, Check, Quality, describe, judge, worst
from tau_pipeline.derivatives.quality_override import FILE, decided, read_decisions
from tau_pipeline.errors import DamagedFileError
from tau_pipeline.files import read_json, read_tsv, write_json, write_text
from tau_pipeline.settings.cohort import Group
from tau_pipeline.synthesis.data.pairs import search_pairs
from tau_workflows.cli import main
from tau_workflows.reports.participant import write_participant_report

pytestmark = pytest.mark.usefixtures("without_figures")

BAD = ("sub-03", "sub-10")
#: Far beyond the limits of whatever these figures are limits of.
FAILING = {"RegistrationTrusted": 0.0}
CHECK = Check(
    name="made_up",
    key="Figure",
    heading="Figure",
    description="A figure.",
    warn_below=2.0,
    fail_below=1.0,
    warn_above=8.0,
    fail_above=9.0,
    limit_source="made up",
    action="Look.",
)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        *((0.9, "fail"), (1.0, "warn"), (1.9, "warn"), (2.0, "pass"), (8.0, "pass"), (8.1, "warn"), (9.0, "warn")),
        *((9.1, "fail"), (None, "n/a"), ("n/a", "n/a"), (float("nan"), "n/a"), ("text", "n/a"), ([1.0], "n/a")),
    ],
)
def test_a_value_at_a_limit_is_still_on_the_better_side(value: object, verdict: str) -> None:
    assert CHECK.result({"Figure": value})["Verdict"] == verdict


def test_a_value_is_what_the_kind_of_check_takes_from_the_sidecar() -> None:
    lists = {"Figure": [1.0, "n/a", 4.0]}
    assert replace(CHECK, kind="largest").value(lists) == 4.0
    assert replace(CHECK, kind="mean", factor=10).value(lists) == 25.0
    assert replace(CHECK, kind="count").value(lists) == 3
    assert replace(CHECK, kind="percentile", percent=99).value({"Figure": {"75": 1.0, "99": 2.0}}) == 2.0
    assert replace(CHECK, kind="largest").value({"Figure": []}) is None


def test_every_check_has_a_name_of_its_own_and_says_where_its_limits_come_from_and_what_to_do() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for check in CHECKS:
        assert check.limits(), check.name
        assert check.limit_source, check.name
        assert check.action.endswith("."), check.name
        assert check.description.endswith("."), check.name
        low = [one for one in (check.fail_below, check.warn_below) if one is not None]
        high = [one for one in (check.warn_above, check.fail_above) if one is not None]
        assert [*low, *high] == sorted([*low, *high]), check.name


def test_nothing_measured_is_no_verdict() -> None:
    assert worst(one["Verdict"] for one in judge({})) == "n/a"
    assert all(one["Value"] == "n/a" for one in judge({}))


def test_a_decision_on_a_check_replaces_its_verdict_and_keeps_the_computed_one(tmp_path: Path) -> None:
    write_text(
        "scan\tcheck\tverdict\twho\twhy\n"
        "sub-01_trc-AV1451_pet\tcoreg_trusted\tpass\tA. Bee\tlooked at it\n"
        "sub-02_trc-AV1451\tall\tfail\tA. Bee\tn/a\n",
        tmp_path / FILE,
    )
    decisions, checks = read_decisions(tmp_path), judge(FAILING)
    own = Quality(tuple(decided(checks, decisions, "sub-01_trc-AV1451")))
    assert own.verdict == "pass"
    assert own.decisions == ["coreg_trusted: pass (was fail), decided by A. Bee: looked at it"]
    other = Quality(tuple(decided(judge({"RegistrationTrusted": 1.0}), decisions, "sub-02_trc-AV1451")))
    assert other.verdict == "fail"
    assert other.named("fail") == ["reviewer"]
    nobody = Quality(tuple(decided(checks, decisions, "sub-03_trc-AV1451")))
    assert nobody.verdict == "fail"
    # Taken back, whatever the sidecar kept.
    assert decided(own.checks, [], "sub-01_trc-AV1451") == checks
    assert decided(other.checks, [], "sub-02_trc-AV1451") == judge({"RegistrationTrusted": 1.0})


def test_a_scan_that_a_person_passed_as_a_whole_passes(tmp_path: Path) -> None:
    write_text("participant_id\tverdict\twho\n01\tpass\tA. Bee\n", tmp_path / FILE)
    found = Quality(tuple(decided(judge(FAILING), read_decisions(tmp_path), "sub-01_ses-a_trc-AV1451")))
    assert found.verdict == "pass"
    assert found.named("fail") == found.named("warn") == []


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("n/a\tall\tfail", "names no scan"),
        ("sub-01\tcoreg\tfail", "'coreg'"),
        ("sub-01\tall\tbad", "'bad'"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_its_line(row: str, found: str, tmp_path: Path) -> None:
    write_text(f"scan\tcheck\tverdict\nsub-00\tall\tpass\n{row}\n", tmp_path / FILE)
    with pytest.raises(DamagedFileError, match=f"line 3.*{found}"):
        read_decisions(tmp_path)


def test_a_check_in_words_has_its_value_and_the_limit_that_it_is_beyond() -> None:
    assert describe(CHECK.result({"Figure": 9.5})) == "made_up 9.5 (above 9)"
    assert describe(CHECK.result({"Figure": 1.5})) == "made_up 1.5 (below 2)"


# --- the cohort ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cohort of 12; two scans have values of another world, and a check that failed."""
    bids, out = write_cohort(tmp_path_factory.mktemp("planted"), n=12)
    for path in sorted(out.glob("sub-*/pet/*_pet.json")):
        sidecar = read_json(path)
        bad = path.name.split("_")[0] in BAD
        if bad:
            sidecar |= {"BrainMean": 9.0, "BrainStandardDeviation": 3.0}
        write_json(sidecar | {"QualityChecks": judge(FAILING if bad else {"RegistrationTrusted": 1.0})}, path)
    return bids, out


def run(places: tuple[Path, Path], *options: str) -> int:
    return main([*map(str, places), "group", "--min-participants", "2", *options])


def copied(places: tuple[Path, Path], root: Path) -> tuple[Path, Path]:
    shutil.copytree(places[1], root / "out")
    return places[0], root / "out"


@pytest.mark.slow
def test_failed_scans_keep_their_rows_and_group_figures_are_those_of_the_others_alone(
    planted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = copied(planted, tmp_path / "all")
    assert run(every) == 0
    said = capsys.readouterr().err
    good = copied(planted, tmp_path / "good")
    for label in BAD:
        shutil.rmtree(good[1] / label)
        (good[1] / "logs/status" / f"{label}.json").unlink()
    assert run(good) == 0
    fits = [read_tsv(out / "group/standardization.tsv") for _, out in (every, good)]
    pd.testing.assert_frame_equal(*fits)
    long = read_tsv(every[1] / "group/suvr_rois.tsv")
    rest = long[~long["participant_id"].isin(BAD)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, read_tsv(good[1] / "group/suvr_rois.tsv"))
    wide = pd.read_csv(every[1] / "group/suvr_rois_wide.csv")
    for table in (long, wide, read_tsv(every[1] / "group/status.tsv")):
        assert set(table.loc[table["quality"] == "fail", "participant_id"]) == set(BAD)
        assert set(table.loc[table["included"] == "no", "participant_id"]) == set(BAD)
    status = read_tsv(every[1] / "group/status.tsv").set_index("participant_id")
    assert status.loc["sub-03", "quality_failed"] == "coreg_trusted"
    assert pd.isna(status.loc["sub-04", "quality_failed"])
    assert (status["check_coreg_trusted"] == (~status.index.isin(BAD)).astype(float)).all()
    assert status["check_coreg_shift_mm"].isna().all(), "not measured here"
    about = read_json(every[1] / "group/status.json")["check_coreg_shift_mm"]
    assert (about["Units"], about["WarnAbove"]) == ("mm", 35)
    sentence = "2 of 12 scans are left out because of failed quality: sub-03_trc-AV1451_pet, sub-10_trc-AV1451_pet"
    assert sentence in said
    assert "QUALITY FAIL sub-03_trc-AV1451_pet" in said
    assert read_json(every[1] / "group/suvr_rois.json")["included"]["LeftOut"] == sentence
    assert read_json(every[1] / "group/standardization.json")["n_participants"]["LeftOut"] == sentence
    page = (every[1] / "group/report.html").read_text()
    assert "The quality of 2 of 12 processed scans is fail" in page


def test_failed_scans_are_included_on_request_and_the_tables_still_say_that_they_failed(
    planted: tuple[Path, Path], tmp_path: Path
) -> None:
    places = copied(planted, tmp_path)
    assert run(places, "--include-failed-quality") == 0
    fit = read_tsv(places[1] / "group/standardization.tsv").set_index("manufacturer")
    assert set(BAD) <= set(fit.loc["pooled", "participants"].split())
    status = read_tsv(places[1] / "group/status.tsv").set_index("participant_id")
    assert (status.loc[list(BAD), "quality"] == "fail").all()
    assert (status["included"] == "yes").all()
    write_text("participant_id\n05\n", tmp_path / "exclude.tsv")
    scans = find_scans(places[1], tmp_path / "exclude.tsv")
    counted = {scan.participant_id for scan in scans if is_included(scan, include_failed=True)}
    assert counted == set(status.index) - {"sub-05"}
    group = Group(include_failed_quality=True, exclude=tmp_path / "exclude.tsv")
    assert search_pairs(places[1], group=group).left_out == ("sub-05_trc-AV1451",)


def test_people_decide_and_the_table_keeps_who_and_why(
    planted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = copied(planted, tmp_path)
    write_text(
        "scan\tcheck\tverdict\twho\twhy\nsub-03_trc-AV1451_pet\tcoreg_trusted\tpass\tA. Bee\tfits\n", places[1] / FILE
    )
    write_text("participant_id\twho\twhy\nsub-05\tC. Dee\tconsent withdrawn\n", tmp_path / "exclude.tsv")
    assert run(places, "--exclude", str(tmp_path / "exclude.tsv")) == 0
    status = read_tsv(places[1] / "group/status.tsv").set_index("participant_id")
    assert set(status.index[status["included"] == "no"]) == {"sub-05", "sub-10"}
    assert "decided by A. Bee: fits" in status.loc["sub-03", "quality_decisions"]
    assert "decided by C. Dee: consent withdrawn" in status.loc["sub-05", "quality_decisions"]
    pooled = read_tsv(places[1] / "group/standardization.tsv").set_index("manufacturer").loc["pooled", "participants"]
    assert not {"sub-05", "sub-10"} & set(pooled.split())
    assert "sub-03" in pooled
    failed = "1 of 12 scans is left out because of failed quality: sub-10_trc-AV1451_pet"
    excluded = "1 of 12 scans is left out by --exclude: sub-05_trc-AV1451_pet"
    assert read_json(places[1] / "group/suvr_rois.json")["included"]["LeftOut"] == f"{failed}; {excluded}"
    assert "--include-failed-quality includes those of failed quality" in capsys.readouterr().err
    scans = find_scans(places[1], tmp_path / "exclude.tsv")
    assert left_out_text(scans, include_failed=True) == excluded


def test_a_model_is_not_trained_on_failed_scans(planted: tuple[Path, Path]) -> None:
    _, out = planted
    assert search_pairs(out).left_out == ("sub-03_trc-AV1451", "sub-10_trc-AV1451")
    assert search_pairs(out, group=Group(include_failed_quality=True)).left_out == ()


def test_the_page_of_a_failed_scan_begins_with_what_to_do(planted: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = copied(planted, tmp_path)
    page = write_participant_report(out, "03").read_text()
    main_part = page[page.index("<main>") :]
    box = main_part.index('class="alert fail"')
    assert box < main_part.index('id="summary"')
    advice = next(check.action for check in CHECKS if check.name == "coreg_trusted")
    assert advice in main_part[box : main_part.index("</section>", box)]
    assert 'class="alert' not in write_participant_report(out, "04").read_text()


def test_the_quality_of_a_scan_is_that_of_its_sidecar(planted: tuple[Path, Path]) -> None:
    found = {scan.participant_id: scan.quality.verdict for scan in find_scans(planted[1])}
    assert {who for who, verdict in found.items() if verdict == "fail"} == set(BAD)
