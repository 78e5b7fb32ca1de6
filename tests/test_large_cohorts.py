"""Tables of a cohort read together, kept, and written in parts: the same as each read alone and written as a whole."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_cohort import status_table, write_group_files
from matplotlib.figure import Figure
from participant_results import write_cohort, write_scan

from tau_pipeline.cohort import long_files, reference_group, wscores
from tau_pipeline.derivatives import index, stack
from tau_pipeline.derivatives.index import find_scans, rows_of
from tau_pipeline.derivatives.kept import read_kept
from tau_pipeline.derivatives.names import sidecar_path
from tau_pipeline.derivatives.read import read_regions
from tau_pipeline.errors import DamagedFileError
from tau_pipeline.figures import sheet
from tau_pipeline.files import read_json, write_json
from tau_pipeline.table_text import coded, table_text, table_texts
from tau_workflows.cli import main
from tau_workflows.levels import group
from tau_workflows.reports import mosaic, scan_table
from tau_workflows.reports.cohort import write_group_report

REGIONS = ("CerebellarGM", "Pons")
KEPT = ".tau-pipeline-tables.npz"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Six scans by two reference regions, one of them of a session."""
    for k in range(5):
        write_scan(tmp_path, f"{k:02d}", "GE", k, regions=REGIONS, images=False)
    write_scan(tmp_path, "05", None, 5, session="a", regions=REGIONS[:1], images=False)
    return tmp_path


def alone(root: Path) -> pd.DataFrame:
    """Return all tables one below the other, each read alone."""
    return pd.concat([read_regions(path) for path in sorted(root.glob("sub-*/**/*_rois.tsv"))], ignore_index=True)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the tables and sidecars that are read from here on, by their participants."""
    read: list[str] = []
    tables, sidecars = stack._read, index.read_suvr_sidecar

    def note_tables(paths: list[Path]) -> object:
        read.extend(path.name[:6] for path in paths)
        return tables(paths)

    def note_sidecar(path: Path) -> dict[str, object]:
        read.append(path.name[:6])
        return sidecars(path)

    monkeypatch.setattr(stack, "_read", note_tables)
    monkeypatch.setattr(index, "read_suvr_sidecar", note_sidecar)
    return read


@pytest.mark.parametrize("at_a_time", [2, 300])
def test_tables_read_together_are_those_read_alone(out: Path, at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "_AT_A_TIME", at_a_time)
    # One was saved by another program, with quotation marks and Windows' ends of lines; one has a column more.
    odd = next(out.glob("sub-01/pet/*_rois.tsv"))
    odd.write_bytes(odd.read_bytes().replace(b"sub-01", b'"sub-01"').replace(b"\n", b"\r\n"))
    more = next(out.glob("sub-03/pet/*_rois.tsv"))
    lines = more.read_text().splitlines()
    more.write_text("\n".join([lines[0] + "\tsuvr_extent", *(f"{line}\t0.25" for line in lines[1:])]) + "\n")
    scans = find_scans(out)
    assert [(scan.participant_id, scan.reference_region) for scan in scans] == [
        *((f"sub-{k:02d}", region) for k in range(5) for region in REGIONS),
        ("sub-05", REGIONS[0]),
    ]
    found, lengths = rows_of(scans)
    expected = alone(out)
    pd.testing.assert_frame_equal(found[list(expected.columns)], expected)
    assert sum(lengths) == len(expected)
    for scan, rows in zip(scans, np.split(np.arange(len(found)), np.cumsum(lengths)[:-1]), strict=True):
        pd.testing.assert_frame_equal(scan.rows, found.iloc[rows].reset_index(drop=True))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\tsuvr_mean\t", "\tmean\t", "no column suvr_mean"),
        ("\tleft\tcortical\t", "\tn/a\tcortical\t", "row without hemisphere"),
        ("\t1001\t", "\tx\t", "'x' in index"),
        ("\t1001\t", "\t10.5\t", "'10.5' in index"),
        ("ctx-lh-bankssts", "ctx-lh-fusiform", "more than once"),
    ],
)
def test_a_fault_in_one_of_many_tables_is_named_with_its_file(out: Path, old: str, new: str, said: str) -> None:
    path = next(out.glob("sub-02/pet/*_rois.tsv"))
    change(path, old, new)
    with pytest.raises(DamagedFileError, match=said) as caught:
        find_scans(out)
    assert str(path) in str(caught.value)


def test_only_what_is_new_or_has_changed_is_read_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_scans(out, None, out / KEPT)
    read = opened(monkeypatch)
    find_scans(out, None, out / KEPT)
    assert read == []
    write_scan(out, "035", "GE", 9, regions=REGIONS, images=False)
    change(next(out.glob("sub-01/pet/*_rois.tsv")), "sub-01", "sub-01")
    file = next(out.glob("sub-04/pet/*_desc-suvrPons_pet.json"))
    write_json({**read_json(file), "Manufacturer": "Philips"}, file)
    next(out.glob("sub-00/pet/*_rois.tsv")).unlink()
    scans = find_scans(out, None, out / KEPT)
    assert set(read) == {"sub-01", "sub-03", "sub-04"}
    assert read.count("sub-04") == 1
    found, _ = rows_of(scans)
    expected = alone(out)
    pd.testing.assert_frame_equal(found[list(expected.columns)], expected)
    makers = {(scan.participant_id, scan.reference_region): scan.stated("Manufacturer") for scan in scans}
    assert makers["sub-04", "Pons"] == "Philips"
    assert makers["sub-04", "CerebellarGM"] == "GE"
    read.clear()
    find_scans(out, None, out / KEPT)
    assert read == []


def test_rows_that_were_given_back_are_read_from_the_table(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = find_scans(out)
    before = [scan.rows for scan in scans]
    index.give_back_rows(scans)
    monkeypatch.setattr(stack.Stack, "take", lambda *_: pytest.fail("the stack is still there"))
    for scan, rows in zip(scans, before, strict=True):
        pd.testing.assert_frame_equal(scan.rows.reset_index(drop=True), rows, check_dtype=False)
    found, lengths = rows_of(scans)
    assert len(found) == sum(lengths) == sum(map(len, before))
    assert [scan.reference_region for scan in scans] == [*REGIONS * 5, REGIONS[0]]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([1.0, 2048.0, np.nan], np.float16), ([2049.0], np.float32), ([1e6, 0.5], np.float32), ([0.1], np.float64)],
)
def test_numbers_are_kept_as_the_shortest_type_that_holds_them(values: list[float], dtype: type) -> None:
    found = stack._shortest(np.array(values))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(np.float64), values)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self.path, "")


@pytest.mark.parametrize("damage", ["half", "flipped", "empty", "pickle", "other version", "other lengths"])
def test_an_archive_that_cannot_be_used_counts_as_none(out: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = out / KEPT
    find_scans(out, None, kept)
    whole = kept.read_bytes()
    with np.load(kept) as archive:
        arrays = dict(archive)
    middle = len(whole) // 2
    contents: dict[str, Callable[[], object]] = {
        "half": lambda: kept.write_bytes(whole[:middle]),
        "flipped": lambda: kept.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]),
        "empty": lambda: kept.write_bytes(b""),
        "pickle": lambda: kept.write_bytes(pickle.dumps(Bomb(out / "bomb"))),
        "other version": lambda: np.savez(kept, **{**arrays, "form": np.array("0")}),
        "other lengths": lambda: np.savez(kept, **{**arrays, "values suvr_mean": arrays["values suvr_mean"][:-1]}),
    }
    contents[damage]()
    read = opened(monkeypatch)
    found, _ = rows_of(find_scans(out, None, kept))
    expected = alone(out)
    pd.testing.assert_frame_equal(found[list(expected.columns)], expected)
    assert len(set(read)) == 6
    assert not (out / "bomb").exists()
    assert len(read_kept(kept).stack.places) == 6


def test_the_text_of_a_table_is_that_of_pandas() -> None:
    texts = ["a", "b,c", 'say "x"', "", None, "1e5", "007", "ä"]
    table = pd.DataFrame(
        {
            "text": texts,
            "string": pd.array(texts, dtype="string"),
            "float": [1.0, -1 / 3, 1e-9, 123456789.0, np.nan, np.inf, 0.0, 2.5],
            "short": np.array([0.1, 1e10, -1 / 3, np.nan, 1, 2, 3, 4], np.float32).astype(float),
            "int": range(8),
            "masked": pd.array([1, None, 3, 4, 5, 6, 7, 8], dtype="Int64"),
            "truth": [True, False] * 4,
            "mixed": [1, 2.5, "x", None, True, np.nan, "y", 0],
            "a,b": pd.Categorical(["u", "v"] * 4),
        }
    )
    # Values in the rows of one scan are written once.
    table = pd.concat([table, table.loc[np.repeat(range(8), 9)]], ignore_index=True)
    for separator, missing in (("\t", "n/a"), (",", "")):
        options: dict[str, Any] = {"sep": separator, "na_rep": missing, "float_format": "%.7g", "lineterminator": "\n"}
        assert table_text(table, separator, missing) == table.to_csv(index=False, **options)
        body = table.to_csv(index=False, header=False, **options)
        assert table_texts(table, [(separator, missing)], header=False) == [body]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["string", object])
@pytest.mark.parametrize(
    "texts", [["a"] * 9 + [None] * 5 + ["b"] * 4 + ["a"] * 4, ["b", None, "a", "b"], [None] * 9, []]
)
def test_codes_of_texts_that_repeat_are_those_of_pandas(texts: list[str | None], kind: Any) -> None:
    column = pd.Series(texts, dtype=kind)
    codes, values = coded(column)
    expected, of_pandas = pd.factorize(column)
    assert codes.tolist() == expected.tolist()
    assert values == list(of_pandas)


def test_garbage_is_looked_for_as_before_after_a_run_that_ends_with_an_error(tmp_path: Path) -> None:
    before = gc.get_threshold()
    bids, out = write_cohort(tmp_path, 3, images=False)
    assert main([str(bids), str(out), "group", "--unknown-manufacturer", "pooled", "--threshold", "none=1"]) == 2
    assert gc.get_threshold() == before


def test_a_group_in_parts_writes_the_tables_of_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "write_group_report", lambda folder, *_: folder / "group/report.html")
    monkeypatch.setattr(reference_group, "FEWEST", 3)
    monkeypatch.setattr(wscores, "LEAST_FREEDOM", 2)
    options = ["group", "--unknown-manufacturer", "pooled", "--min-participants", "1", "--columns", "adni"]
    options += ["--reference-group", "age < 64", "--w-scores", "age"]
    written = {}
    for name, at_a_time in (("whole", 1000), ("parts", 3)):
        monkeypatch.setattr(long_files, "_AT_A_TIME", at_a_time)
        bids, out = write_cohort(tmp_path / name, 5, images=False)
        for k in range(3):
            write_scan(out, f"{k:02d}", "GE", 20 + k, session="m12", regions=REGIONS, images=False)
        assert main([str(bids), str(out), *options]) == 0
        # The versions of the program and minutes are those of the two runs.
        written[name] = {path.name: path.read_text() for path in (out / "group").iterdir() if path.suffix != ".parquet"}
        assert not list(out.glob(".tau-pipeline-tables/*"))
    assert written["parts"] == written["whole"]
    assert {"suvr_rois.csv", "suvr_bilateral.tsv", "suvr_rois_wide.csv"} <= written["whole"].keys()
    scores = pd.read_csv(out / "group/suvr_rois.csv")
    assert (scores["wscore_n"] == 4).any()
    assert scores[["suvr_zscore", "suvr_wscore"]].notna().any().all()


def test_an_error_leaves_neither_parts_nor_tables(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bids, out = write_cohort(tmp_path, 3, images=False)
    assert main([str(bids), str(out), "group", "--unknown-manufacturer", "pooled", "--threshold", "none=1"]) == 2
    assert "Traceback" not in capfd.readouterr().err
    assert not (out / "group").exists()
    assert not (out / ".tau-pipeline-tables").exists()


def test_parquet_holds_what_the_csv_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "write_group_report", lambda folder, *_: folder / "group/report.html")
    monkeypatch.setattr(long_files, "_AT_A_TIME", 4)
    read_table = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, an optional extra").read_table
    bids, out = write_cohort(tmp_path, 9, images=False)
    assert main([str(bids), str(out), "group", "--unknown-manufacturer", "pooled"]) == 0
    for name in ("suvr_rois", "suvr_rois_wide", "suvr_bilateral"):
        stored = pd.read_parquet(out / f"group/{name}.parquet")
        assert table_text(stored, ",", "") == (out / f"group/{name}.csv").read_text(encoding="utf-8")
        # Missing values are nulls, not texts or nan, and no number is stored as text.
        columns = read_table(out / f"group/{name}.parquet")
        empty = pd.read_csv(out / f"group/{name}.csv", dtype=str, keep_default_na=False) == ""
        assert {one: columns[one].null_count for one in columns.column_names} == empty.sum().to_dict()
        kinds = {one.name: str(one.type) for one in columns.schema}
        numbers = [one for one in kinds if one in ("suvr_mean", "age", "volume_mm3") or "_standardized" in one]
        assert {kinds[one] for one in numbers} <= {"double", "int64"}
        assert kinds["participant_id"] in ("string", "large_string")


def test_a_large_cohort_has_several_pages_of_scans_and_the_worst_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("percentile_figure", "quality_figure", "cortex_by_diagnosis_figure"):
        monkeypatch.setattr(f"tau_pipeline.figures.cohort.{name}", lambda *_: Figure((0.5, 0.25)))
    monkeypatch.setattr(scan_table, "_MOST_ROWS", 10)
    monkeypatch.setattr(mosaic, "_MOST_TILES", 5)
    status = status_table(24)
    write_group_files(tmp_path, status)
    (tmp_path / "group" / "scans-9.html").write_text("of an earlier, larger cohort")
    page = write_group_report(tmp_path).read_text(encoding="utf-8")
    pages = [page, *((tmp_path / "group" / f"scans-{k}.html").read_text(encoding="utf-8") for k in (2, 3))]
    assert sorted(path.name for path in (tmp_path / "group").glob("*.html")) == [
        *("report.html", "scans-2.html", "scans-3.html")
    ]
    rows = [text.split("<tbody>")[-1].count("<tr") for text in pages[1:]]
    assert rows == [10, 4]
    tables = [text.split('<table id="scan-table">')[1].split("</table>")[0] for text in pages]
    assert all(sum(f'data-scan="{scan}"' in table for table in tables) == 1 for scan in status["scan"])
    assert 'href="scans-2.html"' in page
    assert 'href="report.html"' in pages[1]
    assert page.split('id="mosaic"')[1].split("</section>")[0].count("<li ") == 5
    assert "Shown are the first 5 of" in page


def test_more_points_than_can_be_told_apart_are_a_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=50)
    figure = Figure()
    one, other = figure.subplots(1, 2)
    monkeypatch.setattr(sheet, "_MOST_POINTS", 50)
    sheet.strip(one, values, 2.0, 0.5, color="red")
    monkeypatch.setattr(sheet, "_MOST_POINTS", 49)
    sheet.strip(other, values, 2.0, 0.5, color="red")
    assert len(one.patches) == 0
    (bars,) = other.patches
    right, _, left = bars.get_data()
    heights = right - left
    counts, _ = np.histogram(values, bins=len(heights))
    np.testing.assert_allclose(heights / heights.max(), counts / counts.max())
    np.testing.assert_allclose((left + right) / 2, 2.0)
    assert other.collections[0].get_alpha() == 0


def test_sidecars_of_the_cohort_keep_their_values_and_verdicts(out: Path) -> None:
    file = sidecar_path(find_scans(out)[0].suvr_file)
    check = {"Check": "noise", "Value": 0.5, "Verdict": "fail", "LimitSource": "a text", "DecidedBy": "me", "Why": "x"}
    write_json({**read_json(file), "QualityChecks": [check, {"Check": ["odd"], "Verdict": "fail"}]}, file)
    first, second = find_scans(out)[:2]
    assert first.sidecar["BrainMean"] == read_json(file)["BrainMean"]
    assert first.sidecar["QualityChecks"][0] == {
        "Check": "noise", "Value": 0.5, "Verdict": "fail", "DecidedBy": "me", "Why": "x",
    }  # fmt: skip
    assert (first.quality.verdict, second.quality.verdict) == ("fail", second.quality.verdict)
