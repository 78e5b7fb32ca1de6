from datetime import datetime
from itertools import permutations
from pathlib import Path

import pytest

from tau_pipeline.bids.pairing import Timeline, choose_t1w, nearest_session, session_dates, session_order, timeline


def test_the_plainest_t1w_is_chosen_whatever_the_order_of_the_files():
    names = ["sub-01_T1w.nii.gz", "sub-01_run-2_T1w.nii.gz", "sub-01_ce-gd_T1w.nii.gz", "sub-01_rec-norm_T1w.nii.gz"]
    for order in permutations(map(Path, names)):
        best, said = choose_t1w(order)
        assert best.name == names[0]
        assert len(said) == 1
        assert all(name in said[0] for name in names)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("run-1", "run-2"),
        ("run-2", "run-10"),
        ("acq-x_run-2", "ce-gd_run-1"),
        ("rec-norm", "part-phase"),
        ("acq-a", "acq-b"),
        ("run-9", "acq-a_run-1"),
    ],
)
def test_of_two_t1w_images_the_better_one_is_taken(better, worse):
    files = [Path(f"sub-01_{parts}_T1w.nii.gz") for parts in (worse, better)]
    assert choose_t1w(files)[0] == files[1]


def test_a_single_t1w_needs_no_word():
    assert choose_t1w([Path("sub-01_acq-x_T1w.nii")]) == (Path("sub-01_acq-x_T1w.nii"), ())


def test_sessions_sort_by_the_numbers_in_them():
    assert session_order(["m12", "m6", "bl", "m06x", "2", "10"]) == ["2", "10", "bl", "m6", "m06x", "m12"]


def test_the_own_session_comes_first_and_needs_no_word():
    assert nearest_session("b", ["a", "b", None], Timeline()) == ("b", ())


def test_without_an_own_t1w_the_one_outside_any_session_is_used():
    assert nearest_session("b", ["a", None], Timeline())[0] is None


def test_a_pet_outside_any_session_uses_the_first_session():
    chosen, said = nearest_session(None, ["m12", "m6"], Timeline())
    assert chosen == "m6"
    assert len(said) == 1


def test_dates_decide_before_the_order_of_labels():
    days = {"a": datetime(2020, 1, 1), "b": datetime(2020, 12, 1), "c": datetime(2020, 12, 31)}
    assert nearest_session("b", ["a", "c"], Timeline())[0] == "a"
    chosen, said = nearest_session("b", ["a", "c"], Timeline(dates=days))
    assert chosen == "c"
    assert "30 days apart" in said[0]
    del days["a"]
    chosen, said = nearest_session("b", ["a", "c"], Timeline(dates=days))
    assert chosen == "a", "an incomplete set of dates is not used"
    assert "no dates" in said[0]


def test_sessions_without_t1w_count_in_the_order():
    assert nearest_session("m23", ["m0", "m24"], Timeline())[0] == "m0", "both are next to it"
    assert nearest_session("m23", ["m0", "m24"], Timeline(labels=("m0", "m22", "m23", "m24")))[0] == "m24"


def test_the_timeline_has_every_session_that_has_a_folder(tmp_path):
    for label in ("m12", "m6", "bl"):
        (tmp_path / "sub-01" / f"ses-{label}").mkdir(parents=True)
    (tmp_path / "sub-01" / "ses-file").write_text("no folder")
    assert timeline(tmp_path / "sub-01") == Timeline(("bl", "m6", "m12"), {})


def test_session_dates_come_from_the_sessions_table_then_from_the_scans_tables(tmp_path):
    folder = tmp_path / "sub-01"
    for session, times in {"a": ["2020-05-02T10:00:00", "2020-05-01T09:00:00"], "b": ["2021-01-01", "n/a"]}.items():
        (folder / f"ses-{session}").mkdir(parents=True)
        rows = "\n".join(f"pet/x{k}.nii.gz\t{time}" for k, time in enumerate(times))
        (folder / f"ses-{session}" / f"sub-01_ses-{session}_scans.tsv").write_text(f"filename\tacq_time\n{rows}\n")
    assert session_dates(folder) == {"a": datetime(2020, 5, 1, 9), "b": datetime(2021, 1, 1)}
    (folder / "sub-01_sessions.tsv").write_text("session_id\tacq_time\nses-a\t2019-01-01T00:00:00Z\nses-b\tn/a\n")
    assert session_dates(folder) == {"a": datetime(2019, 1, 1), "b": datetime(2021, 1, 1)}


@pytest.mark.parametrize("text", ["", "session_id\nses-a\n", "\x00\xff", "session_id\tacq_time\nses-a\tsoon\n"])
def test_a_table_without_usable_dates_counts_as_none(tmp_path, text):
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "sub-01" / "sub-01_sessions.tsv").write_bytes(text.encode("latin-1"))
    assert session_dates(tmp_path / "sub-01") == {}


def test_labels_with_digits_that_are_no_decimal_numbers_have_an_order_too():
    files = [Path(f"sub-01_run-{run}_T1w.nii.gz") for run in ("2", "²", "a")]
    assert len({choose_t1w(order)[0] for order in permutations(files)}) == 1
    assert {tuple(session_order(labels)) for labels in permutations(["m2", "m²", "m12"])} == {("m2", "m12", "m²")}
