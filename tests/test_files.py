import builtins
import csv
import errno
import json
import math
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from tau_pipeline.errors import DamagedFileError, MissingInputError, OutputError, memory_shortage
from tau_pipeline.files import complete_file, read_json, read_tsv, write_json, write_text, write_tsv
from tau_pipeline.imaging import load
from tau_pipeline.imaging.load import load_volume, read_shape
from tau_pipeline.settings.configuration import read_toml
from tau_pipeline.table_text import table_text


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "folder" / "table.tsv"
    with complete_file(path) as partial:
        partial.write_text("half")
        assert not path.exists()
        assert partial.parent == path.parent
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("name", "ending"), [("x_pet.nii.gz", ".nii.gz"), ("x.tsv", ".tsv"), ("README", "")])
def test_the_partial_name_keeps_the_ending(tmp_path, name, ending):
    with complete_file(tmp_path / name) as partial:
        assert partial.name.endswith(ending)
        assert partial.name.startswith(".partial-")


@pytest.mark.parametrize(
    "exception", [ValueError("a bug"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")]
)
def test_an_error_while_writing_leaves_nothing_new_and_the_old_file_as_it_was(tmp_path, exception):
    path = tmp_path / "out.json"
    path.write_text("old")
    expected = OutputError if isinstance(exception, OSError) else type(exception)

    def write_half() -> None:
        with complete_file(path) as partial:
            partial.write_text("half")
            raise exception

    with pytest.raises(expected):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence_with_the_path(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError) as caught:
        write_text("text", tmp_path / "out.txt")
    assert str(caught.value) == f"cannot write {tmp_path}/out.txt: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        write_text("text", tmp_path / "file" / "below.txt")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_text("text", tmp_path / "taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


def test_others_may_read_what_was_written(tmp_path):
    assert write_text("text", tmp_path / "out.txt").stat().st_mode & 0o777 == 0o644


def test_json_survives_writing_and_reading(tmp_path):
    content = {"Name": "Übertragung", "Values": [1, 2.5, None], "Nested": {"a": True}}
    path = write_json(content, tmp_path / "out.json")
    assert read_json(path) == content
    assert "Übertragung" in path.read_text(encoding="utf-8")
    assert path.read_text().endswith("}\n")


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "windows.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert read_json(tmp_path / "windows.json") == {"a": 1}


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1,}', b"\xff\xfe\x00", b"[1, 2]", b'"text"', b"3"])
def test_what_is_no_json_object_is_refused_with_the_path(tmp_path, content):
    (tmp_path / "in.json").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"in\.json") as caught:
        read_json(tmp_path / "in.json")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"there is no file .*absent\.json"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(MissingInputError, match=r"there is no table .*absent\.tsv"):
        read_tsv(tmp_path / "absent.tsv")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path)


def test_a_name_that_no_file_system_takes_is_of_a_missing_file(tmp_path):
    for read in (read_json, read_tsv):
        with pytest.raises(MissingInputError, match=r"there is no .*: File name too long"):
            read(tmp_path / ("x" * 5000))


def test_a_table_survives_writing_and_reading_with_missing_values(tmp_path):
    table = pd.DataFrame({"region": ["NA", "null", "a b"], "mean": [1.25, np.nan, -3.0], "n": [1, 2, 3]})
    path = write_tsv(table, tmp_path / "out.tsv")
    assert path.read_text().splitlines()[2] == "null\tn/a\t2"
    pd.testing.assert_frame_equal(read_tsv(path), table)


@pytest.mark.parametrize("content", [b"", b"a\tb\n1\t2\t3\n1\t2\t3\t4\t5\n", b"a\tb\n\xff\xfe\t1\n"])
def test_what_is_no_table_is_refused_with_the_path(tmp_path, content):
    (tmp_path / "in.tsv").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"in\.tsv"):
        read_tsv(tmp_path / "in.tsv")


def test_a_json_file_that_contradicts_itself_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "b": {"c": 2, "c": 2}, "a": 1}')
    assert read_json(path) == {"a": 1, "b": {"c": 2}}
    path.write_text('{"InjectionStart": 0, "InjectionStart": 4800}')
    with pytest.raises(DamagedFileError, match="'InjectionStart' is there twice"):
        read_json(path)


def test_json_and_toml_that_are_nested_too_deeply_are_damaged(tmp_path):
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    with pytest.raises(DamagedFileError, match="nested too deeply"):
        read_json(deep)
    deep.write_text("[settings]\nref_region = " + "[" * 3000)
    with pytest.raises(DamagedFileError, match="nested too deeply"):
        read_toml(deep)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_get_the_permissions_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        path = write_text("x", tmp_path / "x.txt")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_link_in_the_place_of_a_file_is_replaced_and_its_target_kept(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "out.json").symlink_to(precious)
    write_json({"a": 1}, tmp_path / "out.json")
    assert precious.read_text() == "kept"
    assert read_json(tmp_path / "out.json") == {"a": 1}


def test_text_from_elsewhere_neither_breaks_rows_nor_is_a_formula(tmp_path):
    texts = ["=cmd|' /C calc'!A0", "@SUM(A1)", "+1+1", "-2+3", "a\tb\nc\rd", "\x1b[2J", "CN", "-1.5", None]
    table = pd.DataFrame({"diagnosis": texts, "age": [-1.0] * len(texts)})
    path = write_tsv(table, tmp_path / "t.tsv")
    assert path.read_text().count("\n") == len(texts) + 1
    assert read_tsv(path)["diagnosis"][4] == "a b c d"
    rows = list(csv.reader(table_text(table, ",", "").splitlines()))
    assert [row[0] for row in rows[1:5]] == [f"'{text}" for text in texts[:4]]
    assert [row[0] for row in rows[7:]] == ["CN", "-1.5", ""]
    assert {row[1] for row in rows[1:]} == {"-1"}


def test_text_that_only_looks_harmless_is_made_so_too():
    texts = ["\uff1d1+1", "\ufeff=1+1", "\x9b2Jb", "\u202ecod.exe"]
    rows = list(csv.reader(table_text(pd.DataFrame({"diagnosis": texts}), ",", "").splitlines()))
    assert [row[0] for row in rows[1:]] == ["'\uff1d1+1", "' =1+1", " 2Jb", " cod.exe"]


@pytest.mark.parametrize(
    "mark", ["\u200b", "\u200e", "\u200f", "\u061c", "\u2060", "\u202e", "\ufeff", "\x07", "\u00a0"]
)
def test_signs_that_nobody_sees_hide_no_formula(mark):
    table = pd.DataFrame({"note": [f"{mark}=1+1", f"a{mark}b"], "n": [1, 2]})
    text = table_text(table, ",", "")
    assert text.splitlines()[1].startswith("'")
    if mark != "\u00a0":
        assert mark not in text


def test_a_json_file_of_a_size_that_no_sidecar_has_is_refused_unread(tmp_path):
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(30_000_000)
    with pytest.raises(DamagedFileError, match="30 MB"):
        read_json(path)


def test_a_link_to_nothing_says_how_to_fetch_its_content(tmp_path):
    (tmp_path / "x.json").symlink_to("../.git/annex/objects/none")
    with pytest.raises(MissingInputError, match="datalad get"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("content", "command"),
    [("/annex/objects/MD5E-s1--0.json\n", "datalad get"), ("version https://git-lfs.github.com/spec/v1\n", "git lfs")],
)
def test_a_file_that_only_points_to_its_content_says_how_to_fetch_it(tmp_path, content, command):
    for name, read in (("x.json", read_json), ("x.tsv", read_tsv), ("x.nii.gz", read_shape)):
        (tmp_path / name).write_text(content)
        with pytest.raises(MissingInputError, match=command):
            read(tmp_path / name)


def test_cells_beyond_the_header_do_not_move_the_others(tmp_path):
    (tmp_path / "x.tsv").write_text("participant_id\tage\nsub-01\t71\t\nsub-02\t72\t\n")
    assert read_tsv(tmp_path / "x.tsv")["participant_id"].tolist() == ["sub-01", "sub-02"]


@pytest.mark.parametrize(
    ("note", "read"),
    [
        ('"CN', '"CN'),
        ("5' 11\"", "5' 11\""),
        ('"CN", by phone', '"CN", by phone'),
        ('"said ""no"""', 'said "no"'),
        ('"CN"', "CN"),
    ],
)
def test_a_quotation_mark_costs_no_row_of_a_table(tmp_path, note, read):
    """Readers take an open one and all rows up to the next one, or to the end of the file, as one cell."""
    rows = [f"sub-{number:02d}\t{note if number in (2, 4) else 'AD'}\t{70 + number}" for number in range(1, 6)]
    (tmp_path / "x.tsv").write_text("\n".join(["participant_id\tnote\tage", *rows]) + "\n")
    table = read_tsv(tmp_path / "x.tsv")
    assert table["participant_id"].tolist() == [f"sub-{number:02d}" for number in range(1, 6)]
    assert table["note"].tolist() == ["AD", read, "AD", read, "AD"]
    assert table["age"].tolist() == [71, 72, 73, 74, 75]


def test_a_line_break_in_quotation_marks_is_one_in_a_cell(tmp_path):
    (tmp_path / "x.tsv").write_text('id\tnote\tage\na\t"two\nlines"\t1\nb\tx\t2\n')
    assert read_tsv(tmp_path / "x.tsv")["note"].tolist() == ["two\nlines", "x"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("id\tage\na\t1\nb\tx\t2\n", "line 3 has more cells"),
        ('id\tnote\tage\na\t"open\t1\nb\n c\tx\t2\n', "line 2 is not closed"),
        ("i\0d\0\t\0a\0\n\0", "zero bytes"),
    ],
)
def test_a_table_whose_cells_would_move_is_refused_with_the_line(tmp_path, content, why):
    (tmp_path / "x.tsv").write_text(content)
    with pytest.raises(DamagedFileError, match=why):
        read_tsv(tmp_path / "x.tsv")


@pytest.mark.parametrize(
    "exc",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: 9e9 bytes"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("itk::ERROR: Failed to allocate memory for image."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_too_little_memory_is_recognized_in_errors_of_any_type(exc):
    shortage = memory_shortage(exc)
    assert isinstance(shortage, MemoryError)
    assert "not enough memory" in str(shortage)
    assert "\n" not in str(shortage)


@pytest.mark.parametrize("exc", [RuntimeError("no brain"), ValueError("bad shape"), AssertionError()])
def test_other_errors_are_no_shortage_of_memory(exc):
    assert memory_shortage(exc) is None


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    nib.save(nib.Nifti1Image(np.ones((40, 40, 40), np.float32), np.diag([4.0, 4, 4, 1])), tmp_path / "a.nii.gz")
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.tsv").write_text("session_id\tage\n")
    (tmp_path / "a.toml").touch()
    # Root may read everything, so that no mode of the files would do.
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr(builtins, "open", refused)
    monkeypatch.setattr(load, "glance", lambda _: None)
    readers = {read_json: "a.json", read_tsv: "a.tsv", read_toml: "a.toml", read_shape: "a.nii.gz"}
    for read, name in (readers | {load_volume: "a.nii.gz"}).items():
        with pytest.raises(MissingInputError, match=f"no permission to read the .*{name}"):
            read(tmp_path / name)


def test_a_row_that_is_too_long_is_told_in_one_line(tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\n1\t2\n1\t2\t3\n")
    with pytest.raises(DamagedFileError) as caught:
        read_tsv(tmp_path / "a.tsv")
    assert "line 3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tabs_at_the_end_of_rows_are_no_cells_and_no_warning(tmp_path, recwarn):
    (tmp_path / "a.tsv").write_text("a\tb\n1\t2\t\t\n3\t4\n")
    assert read_tsv(tmp_path / "a.tsv").to_dict("list") == {"a": [1, 3], "b": [2, 4]}
    assert not recwarn.list


def test_a_table_that_is_not_in_utf8_is_told_so(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"a\tb\n\xe9\t2\n")
    with pytest.raises(DamagedFileError, match="is not in UTF-8"):
        read_tsv(tmp_path / "a.tsv")


def test_numbers_that_json_has_not_are_written_as_missing(tmp_path):
    content = {"a": math.nan, "b": [math.inf, 1.5, None], "c": {"d": (-math.inf, True)}, "e": np.float64("nan")}
    text = write_json(content, tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": "n/a", "b": ["n/a", 1.5, None], "c": {"d": ["n/a", True]}, "e": "n/a"}
