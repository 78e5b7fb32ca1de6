"""The page of the cohort as text: everything in it, nothing hidden, nothing executed, from files alone."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pandas as pd
import pytest
from made_up_cohort import COLUMNS, status_table, write_group_files, write_participant
from matplotlib.figure import Figure
from test_report import HOSTILE, Reader

from tau_pipeline.errors import DamagedFileError, MissingInputError
from tau_pipeline.files import read_json, write_json, write_text, write_tsv
from tau_workflows.reports.cohort import read_status, write_group_report
from tau_workflows.reports.cohort_warnings import warnings_of


@pytest.fixture(autouse=True)
def quick_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank pictures, except in tests that name them."""
    if "pictures" in request.node.name:
        return
    for name in ("percentile_figure", "quality_figure", "cortex_by_diagnosis_figure"):
        monkeypatch.setattr(f"tau_pipeline.figures.cohort.{name}", lambda *_: Figure((0.5, 0.25)))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """24 scans of three manufacturers, three of them not done."""
    status = status_table(24)
    status.loc[status["scan"].str.startswith("sub-05"), "noise_outlier"] = 3.21
    write_group_files(tmp_path, status)
    return tmp_path


def change(output: Path, **columns: object) -> pd.DataFrame:
    """Replace columns of ``status.tsv``."""
    table = read_status(output / "group" / "status.tsv").assign(**columns)
    write_tsv(table, output / "group" / "status.tsv")
    return table


def page_of(output: Path) -> str:
    return write_group_report(output).read_text(encoding="utf-8")


def table_rows(page: str) -> list[list[str]]:
    """Cells of the table of scans, without its head."""
    return Reader(
        page[page.index('<table id="scan-table">') : page.index("</table>", page.index('id="scan-table"')) + 8]
    ).rows[1:]


def test_the_page_stands_in_the_group_folder(output: Path) -> None:
    assert write_group_report(output) == output / "group" / "report.html"


def test_the_page_needs_nothing_outside_itself(output: Path) -> None:
    write_participant(output, "01")
    write_text("", output / "sub-01.html")
    page = page_of(output)
    reader = Reader(page)
    assert all(
        link.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for link in reader.attributes("src")
    )
    links = {link for link in reader.attributes("href") if not link.startswith("#")}
    assert links == {"../sub-01.html#pet-AV1451"}
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in reader.tags}
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp", page)


def test_every_link_inside_the_page_leads_somewhere(output: Path) -> None:
    reader = Reader(page_of(output))
    places = reader.attributes("id")
    assert len(places) == len(set(places))
    assert {link[1:] for link in reader.attributes("href") if link.startswith("#")} <= set(places)


def test_the_summary_counts_states_by_manufacturer_and_diagnosis(output: Path) -> None:
    reader = Reader(page_of(output))
    status = read_status(output / "group" / "status.tsv")
    assert "24 participants, 24 scans: 21 done, 2 failed, 1 skipped" in reader.text
    for by in ("manufacturer", "diagnosis"):
        for name, own in status.groupby(by):
            counts = [str((own["state"] == state).sum()) for state in ("done", "failed", "skipped")]
            assert [name, *counts] in reader.rows
    assert reader.rows.count(["All", "21", "2", "1"]) == 2


def test_summary_warnings_and_assumptions_come_before_the_scans(output: Path) -> None:
    write_participant(output, "01")
    page = page_of(output)
    order = [
        page.index(text)
        for text in (
            "Before you use",
            "Done</th>",
            "was taken as 6 mm",
            'id="mosaic"',
            'id="scan-table"',
            'id="figures"',
        )
    ]
    assert order == sorted(order)


def test_assumptions_are_counted_over_all_sidecars(output: Path) -> None:
    for label, manufacturer in (("01", "GE"), ("02", "GE"), ("03", "Siemens")):
        write_participant(output, label, manufacturer)
    page = page_of(output)
    assert re.search(r"scanner of GE\. <span class=\"count\">\(2 ×\)", page)
    assert re.search(r"scanner of Siemens\. <span class=\"count\">\(1 ×\)", page)


@pytest.mark.parametrize("odd", [None, 3, {"a": 1}])
def test_what_is_no_list_of_sentences_is_no_assumption(output: Path, odd: object) -> None:
    for label in ("01", "02"):
        write_participant(output, label)
    sidecar = next((output / "sub-01").rglob("*suvr_pet.json"))
    write_json({**read_json(sidecar), "Assumptions": odd}, sidecar)
    assert re.search(r"was taken as 6 mm.* <span class=\"count\">\(1 ×\)", page_of(output))


def test_every_scan_is_a_row_with_its_figures_and_z_scores(output: Path) -> None:
    rows = table_rows(page_of(output))
    status = read_status(output / "group" / "status.tsv")
    assert len(rows) == 24
    for row, record in zip(rows, status.to_dict("records"), strict=True):
        assert row[0].strip() == record["scan"].replace("_", "", 1)
        assert row[1] == record["state"]
        if record["state"] == "done":
            assert f"{record['noise']:.3f}z" in row[12]
            assert f"{record['mask_volume_ml']:.0f}" in row[7]
        else:
            assert row[6:] == ["n/a"] * len(row[6:])


def test_outliers_are_marked_by_a_sign_and_not_by_colour_alone(output: Path) -> None:
    rows = {row[0].strip(): row for row in table_rows(page_of(output))}
    assert rows["sub-05trc-AV1451_pet"][12].startswith("▲ ")
    assert rows["sub-05trc-AV1451_pet"][12].endswith("z\N{NO-BREAK SPACE}+3.2")
    assert rows["sub-05trc-AV1451_pet"][6] == "▲ 3.2"
    assert not rows["sub-01trc-AV1451_pet"][12].startswith("▲")


def test_scans_link_to_the_pages_that_there_are_and_to_no_others(output: Path) -> None:
    write_text("", output / "sub-02.html")
    reader = Reader(page_of(output))
    links = [link for link in reader.attributes("href") if "sub-" in link]
    # The tile of the mosaic and the row of the table.
    assert len(links) == 2
    assert set(links) == {"../sub-02.html#pet-AV1451"}


def test_every_failed_and_skipped_scan_has_its_reason_and_its_record(output: Path) -> None:
    write_json({"message": "sub-99 has no T1w"}, output / "logs" / "errors" / "sub-99.json")
    page = page_of(output)
    reader = Reader(page)
    bad = read_status(output / "group" / "status.tsv").query("state != 'done'")
    assert len(bad) == 3
    for record in bad.to_dict("records"):
        row = next(row for row in reader.rows if row[:2] == [record["scan"], record["state"]])
        assert row[2].startswith(record["reason"])
        assert ('"step": "frames"' in row[2]) == (record["state"] == "failed")
    assert "sub-99 has no T1w" in page[page.index("Other error records") :]


def test_a_record_that_cannot_be_read_is_named_and_stops_nothing(output: Path) -> None:
    (output / "logs" / "errors" / "sub-98.json").mkdir(parents=True)
    others = page_of(output).split("Other error records")[1]
    assert "sub-98.json" in others
    assert "The record cannot be read (Is a directory)." in others


def test_the_record_of_a_failed_synthetic_scan_stands_with_it(output: Path) -> None:
    status = read_status(output / "group" / "status.tsv")
    scan = str(status.loc[status["state"] == "failed", "scan"].iloc[0])
    change(output, source=["synthetic" if name == scan else "measured" for name in status["scan"]])
    record = f"{scan.removesuffix('_pet')}_desc-synthSUVR"
    write_json({"step": "synthesis", "message": "no T1w"}, output / "logs" / "errors" / f"{record}.json")
    reader = Reader(page_of(output))
    (row,) = [row for row in reader.rows if row[:1] == [f"{scan} (synthetic)"]]
    assert '"step": "synthesis"' in row[2]
    assert record not in reader.text


def test_a_failure_without_a_reason_takes_that_of_its_record(output: Path) -> None:
    change(output, reason=None)
    text = Reader(page_of(output)).text
    assert "frames up to 75 min" in text
    assert "no reason recorded" in text


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"cortex_p90_standardized": None}, "21 of 21 processed scans have no standardized SUVR"),
        ({"tracer": ["AV1451", "MK6240"] * 12}, "more than one tracer (AV1451, MK6240)"),
        ({"reference_region": ["Pons", "CerebellarGM"] * 12}, "more than one reference region (CerebellarGM, Pons)"),
        ({"manufacturer": None}, "21 of 21 processed scans have no manufacturer"),
        ({"diagnosis": ["AD", None] * 12}, "processed scans have no diagnosis"),
        ({"source": ["synthetic", *["measured"] * 23]}, "1 of 21 scans is synthetic"),
        ({"diagnosis": ["AD", "CN", "CN"] * 8}, "All scans from GE, Philips, Siemens"),
        ({"noise_outlier": 2.6}, "21 scans have a quality measure with |z| > 2.5"),
    ],
)
def test_what_makes_figures_doubtful_is_said(output: Path, columns: dict, sentence: str) -> None:
    table = pd.DataFrame({"manufacturer": ["GE"], "n_participants": ["30"]})
    before = warnings_of(read_status(output / "group" / "status.tsv"), table)
    assert not any(sentence in one for one in before)
    change(output, **columns)
    after = warnings_of(read_status(output / "group" / "status.tsv"), table)
    assert any(sentence in one for one in after)


def test_failed_scans_are_the_first_warning(output: Path) -> None:
    status = read_status(output / "group" / "status.tsv")
    failed = list(status.loc[status["state"] == "failed", "scan"])
    first = warnings_of(status, None)[0]
    assert first == f"2 of 24 scans failed and have no values: {', '.join(failed)}."
    assert not any("no values" in one for one in warnings_of(status[status["state"] != "failed"], None))


def test_no_standardisation_is_a_warning_and_few_participants_too(output: Path) -> None:
    status = read_status(output / "group" / "status.tsv")
    assert any("is not standardized by manufacturer" in one for one in warnings_of(status, None))
    few = pd.DataFrame({"manufacturer": ["GE", "Philips"], "n_participants": ["4", "5"]})
    assert "The standardization of GE uses fewer than 5 participants." in warnings_of(status, few)
    (output / "group" / "standardization.tsv").unlink()
    assert "is not standardized by manufacturer" in page_of(output)


def test_the_standardisation_is_a_table_without_the_lists_of_participants(output: Path) -> None:
    reader = Reader(page_of(output))
    rows = [row for row in reader.rows if len(row) == 7 and row[0] == "AV1451"]
    assert [row[2] for row in rows] == ["GE", "Philips", "Siemens", "pooled"]
    assert [row[3] for row in rows] == ["7", "7", "7", "21"]
    assert "sub-01,sub-04" not in reader.text


def test_what_all_scans_share_is_said_once(output: Path) -> None:
    text = Reader(page_of(output)).text
    assert "All scans: source measured, tracer AV1451, reference region CerebellarGM." in text
    assert len(table_rows(page_of(output))[0]) == 19
    change(output, tracer=["AV1451", "MK6240"] * 12)
    assert "MK6240" in "".join(map("".join, table_rows(page_of(output))))


@pytest.mark.parametrize("count", [0, 1, 2], ids=["none", "one", "two"])
def test_a_cohort_of_hardly_any_scan_has_a_page(tmp_path: Path, count: int) -> None:
    write_group_files(tmp_path, status_table(count, bad_every=99))
    reader = Reader(page_of(tmp_path))
    assert f"{count} scan{'s' * (count != 1)}: {count} done" in reader.text
    assert len(table_rows(page_of(tmp_path))) == count


@pytest.mark.parametrize("state", ["done", "failed", "interrupted"])
def test_interrupted_scans_have_a_column_of_counts_where_there_are_any(tmp_path: Path, state: str) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group/status.tsv").write_text(f"scan\tstate\nsub-01_pet\t{state}\nsub-02_pet\tdone\n")
    page = write_group_report(tmp_path).read_text()
    assert ('<th class="n">Interrupted</th>' in page) == (state == "interrupted")
    assert ("1 interrupted" in page.partition("</header>")[0]) == (state == "interrupted")


def test_nothing_but_names_and_states_gives_a_page(tmp_path: Path) -> None:
    write_text("scan\tstate\nsub-01_pet\tdone\nsub-02_pet\tfailed\n", tmp_path / "group" / "status.tsv")
    reader = Reader(page_of(tmp_path))
    assert [row[:2] for row in table_rows(page_of(tmp_path))] == [["sub-01pet", "done"], ["sub-02pet", "failed"]]
    assert "Not shown because no scan has a value: source" not in reader.text
    assert "no reason recorded" in reader.text


def test_columns_that_are_all_missing_are_named_and_left_out(output: Path) -> None:
    change(output, **dict.fromkeys(("motion_mm", "age", "noise"), None))
    text = Reader(page_of(output)).text
    assert "Not shown because no scan has a value: quality, age, motion." in text
    assert "Noise" in text


def test_a_cohort_where_all_failed_has_a_page_without_figures(output: Path) -> None:
    change(output, state="failed", **dict.fromkeys(COLUMNS[13:], None))
    reader = Reader(page_of(output))
    assert "0 done, 24 failed" in reader.text
    assert not [attrs for tag, attrs in reader.tags if tag == "img" and "src" in attrs]


def test_without_diagnoses_there_is_a_page_all_the_same(output: Path) -> None:
    change(output, diagnosis=None)
    reader = Reader(page_of(output))
    assert ["not stated", "21", "2", "1"] in reader.rows
    assert len(reader.attributes("src")) == 3


def test_each_source_tracer_and_reference_has_figures_of_its_own(output: Path) -> None:
    change(output, source=["measured", "measured", "synthetic"] * 8)
    alts = [attrs["alt"] for tag, attrs in Reader(page_of(output)).tags if tag == "img"]
    assert sum("Measured SUVR" in alt for alt in alts) == 3
    assert sum("Synthetic SUVR" in alt for alt in alts) == 3


def test_names_in_any_script_are_shown(output: Path) -> None:
    change(output, manufacturer="Größe 東京", participant_id="sub-Ä")
    write_text("", output / "sub-Ä.html")
    reader = Reader(page_of(output))
    assert "Größe 東京" in reader.text
    assert "../sub-%C3%84.html#pet-AV1451" in reader.attributes("href")


def test_labels_that_look_like_numbers_stay_as_they_are(output: Path) -> None:
    change(output, diagnosis=["007", "1e5", "1.0"] * 8)
    rows = table_rows(page_of(output))
    assert {row[3] for row in rows} == {"007", "1e5", "1.0"}


def test_hostile_text_is_shown_and_never_run(output: Path) -> None:
    bad = ["x", HOSTILE]
    change(output, **dict.fromkeys(("manufacturer", "diagnosis", "model", "sex", "tracer", "reason"), bad * 12))
    write_text(HOSTILE, output / "logs" / "CITATION.md")
    write_json({"message": HOSTILE}, output / "logs" / "errors" / "sub-77_pet.json")
    page = page_of(output)
    reader = Reader(page)
    assert reader.text.count("<script>alert('x')</script>") > 40
    assert sum(tag == "script" and "type" not in attrs for tag, attrs in reader.tags) == 2
    assert not any("onerror" in attrs for _, attrs in reader.tags)


def test_damaged_tables_are_named_and_do_not_stop_the_page(output: Path) -> None:
    for name in ("standardization.tsv", "suvr_rois_wide.csv"):
        (output / "group" / name).write_bytes(b"\xff\xfe\x00broken")
    text = Reader(page_of(output)).text
    for name in ("standardization.tsv", "suvr_rois_wide.csv"):
        assert f"{name} is not a table in UTF-8" in text


def test_without_its_table_the_page_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"status\.tsv.*group level"):
        write_group_report(tmp_path)
    write_text("participant\nsub-01\n", tmp_path / "group" / "status.tsv")
    with pytest.raises(DamagedFileError, match="has no column scan"):
        write_group_report(tmp_path)
    (tmp_path / "group" / "status.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DamagedFileError, match="not a table in UTF-8"):
        write_group_report(tmp_path)


def test_the_tests_stand_as_numbers_too(output: Path) -> None:
    rows = [row for row in Reader(page_of(output)).rows if len(row) == 6 and "percentile" in row[0]]
    assert len(rows) == 18
    assert rows[0][:3] == ["SUVR, 75th percentile", "manufacturer", "GE 7, Philips 7, Siemens 7"]
    assert rows[0][4] == "2, 18"


def test_the_same_files_give_the_same_page(output: Path) -> None:
    assert page_of(output) == page_of(output)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 1000])
def test_up_to_a_thousand_scans_make_a_page_of_pictures_below_10_mb_in_10_seconds(tmp_path: Path, count: int) -> None:
    write_group_files(tmp_path, status_table(count, bad_every=8 if count > 1 else 99))
    start = time.process_time()
    page = write_group_report(tmp_path)
    assert time.process_time() - start < 10
    assert page.stat().st_size < 10e6
    text = page.read_text(encoding="utf-8")
    assert text.count("<tr data-manufacturer") == count
    assert text.count("<img") == 3


def test_positive_scans_and_stages_are_counted_by_diagnosis(output: Path) -> None:
    wide = pd.read_csv(output / "group/suvr_rois_wide.csv", na_values=["n/a"], keep_default_na=False)
    positive = ["yes" if place % 3 == 0 else "no" for place in range(len(wide))]
    wide = wide.copy().assign(included="yes", braak1_positive=positive, braak_stage="III-IV", braak_order="typical")
    wide.loc[1, ["included", "braak1_positive", "braak_stage"]] = ["no", "yes", "V-VI"]
    wide.loc[0, "braak_order"] = "atypical"
    write_text(wide.to_csv(index=False, na_rep="n/a"), output / "group/suvr_rois_wide.csv")
    row = {"region": "braak1", "tracer": "AV1451", "reference_region": "CerebellarGM", "method": "2sd"}
    write_tsv(pd.DataFrame([{**row, "threshold": 1.23456, "n_participants": 14}]), output / "group/thresholds.tsv")
    rows = Reader(page_of(output).split('<section id="positivity">')[1].split("</section>")[0]).rows
    counted = wide[wide["included"] == "yes"]
    assert set(counted["diagnosis"]) == {"CN", "MCI", "AD"}
    groups = [counted[counted["diagnosis"] == name] for name in ("CN", "MCI", "AD")]
    cells = [f"{(own['braak1_positive'] == 'yes').sum()} of {len(own)}" for own in [*groups, counted]]
    assert ["braak1", "2sd", "1.235", "14", *cells] in rows
    assert ["Braak III-IV", *(str(len(own)) for own in [*groups, counted])] in rows
    assert [row[-1] for row in rows if row[0] == "Braak V-VI"] == ["0"]
    assert [row[-1] for row in rows if row[0] == "atypical order"] == ["1"]
