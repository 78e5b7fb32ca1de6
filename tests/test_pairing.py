import json
from datetime import date, datetime, timedelta
from itertools import permutations
from pathlib import Path

import pytest

from tau_pipeline.bids.pairing import Looks, Nearest, choose_t1w, looks_of, nearest_session
from tau_pipeline.bids.session_labels import label_times
from tau_pipeline.bids.sessions import Timeline, read_dates, session_order, timeline


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
    assert nearest_session("b", ["a", "b", None], Timeline()) == Nearest("b")


def test_without_an_own_t1w_the_one_outside_any_session_is_used():
    assert nearest_session("b", ["a", None], Timeline())[0] is None


def test_a_pet_outside_any_session_uses_the_first_session():
    chosen, said, _ = nearest_session(None, ["m12", "m6"], Timeline())
    assert chosen == "m6"
    assert len(said) == 1


def test_dates_decide_before_the_order_of_labels():
    days = {"a": datetime(2020, 1, 1), "b": datetime(2020, 12, 1), "c": datetime(2020, 12, 31)}
    assert nearest_session("b", ["a", "c"], Timeline())[0] == "a"
    chosen, said, _ = nearest_session("b", ["a", "c"], Timeline(dates=days))
    assert chosen == "c"
    assert "30 days apart" in said[0]
    del days["a"]
    chosen, said, _ = nearest_session("b", ["a", "c"], Timeline(dates=days))
    assert chosen == "c", "its date is known, and near"
    assert "30 days apart; not all sessions with a T1w have a date" in said[0]
    days["c"] = days["b"] + timedelta(days=2000)
    chosen, said, _ = nearest_session("b", ["a", "c"], Timeline(dates=days))
    assert chosen == "a", "the other one is known to be far away"
    assert "does not state the date of all sessions" in said[0]
    del days["b"]
    assert "does not state the date of session b" in nearest_session("b", ["a", "c"], Timeline(dates=days)).sentences[0]


def test_a_table_of_dates_that_was_not_fetched_is_not_called_absent(tmp_path):
    own = tmp_path / "sub-01"
    own.mkdir()
    (own / "sub-01_sessions.tsv").symlink_to("../../.git/annex/objects/none")
    (said,) = nearest_session("b", ["a", "c"], timeline(own)).sentences
    assert "sub-01_sessions.tsv cannot be read" in said
    assert "datalad get" in said


def test_sessions_without_t1w_count_in_the_order():
    assert nearest_session("c", ["a", "d"], Timeline(labels=("a", "b", "c", "d"))).session == "d"
    assert nearest_session("b", ["a", "d"], Timeline(labels=("a", "b", "c", "d"))).session == "a"
    assert nearest_session("pre2", ["a", "post"], Timeline(labels=("a", "post", "pre2"))).days is None


@pytest.mark.parametrize(
    ("pet", "t1ws", "nearest", "days"),
    [
        ("d2000", ["d0129", "d2010"], "d2010", 10),
        ("d2000x", ["d0129x", "d2010x"], "d2010x", 10),
        ("CENT001W18", ["CENT001W00", "CENT001W19"], "CENT001W19", 7),
        ("FU24m", ["FU00m", "FU36m"], "FU36m", 12 * 365.25 / 12),
        ("2019", ["2015", "2020"], "2020", 365),
        ("201901", ["201201", "201902"], "201902", 31),
        ("M048", ["M000", "M054"], "M054", 6 * 365.25 / 12),
        ("d2990", ["d0050", "d0100", "d3000"], "d3000", 10),
        ("24mo", ["0mo", "36mo", "18mo"], "18mo", 6 * 365.25 / 12),
        ("m12", ["bl", "m36"], "bl", 365.25),
        ("20200131", ["20180131", "20200202"], "20200202", 2),
        ("m18", ["y1", "m36"], "y1", 6 * 365.25 / 12),
        ("FU2Y", ["BL", "FU24M"], "FU24M", 0),
        ("PETd2000", ["MRd0129", "MRd2010"], "MRd2010", 10),
        ("AV1451d2430", ["MRd0129", "MRd2400"], "MRd2400", 30),
        ("m24PET", ["baselineMRI", "m36MRI", "m23MRI"], "m23MRI", 365.25 / 12),
        ("31Jan2020", ["01Dec2015", "02Feb2020"], "02Feb2020", 2),
        ("31012020", ["01022021", "03022020"], "03022020", 3),
        ("t20200131", ["t20200110", "t20200201"], "t20200201", 1),
        ("d20200131", ["d20200110", "d20200201"], "d20200201", 1),
        ("991231", ["991201", "000101"], "000101", 1),
        ("Jan2020", ["Nov2019", "Feb2020"], "Feb2020", 31),
        ("M024D10", ["M023D02", "M024D12"], "M024D12", 2),
        ("2yrs", ["0yrs", "1y10mo"], "1y10mo", 2 * 365.25 / 12),
        ("m12a", ["m0", "m12b"], "m12b", 0),
        ("age73", ["age70", "age75"], "age75", 2 * 365.25),
        ("followup2", ["baseline", "followup3"], "followup3", None),
        ("2020Jan31", ["2020Feb02", "2015Dec01"], "2020Feb02", 2),
        ("20200131T1030", ["20150101T0900", "20200215T0900"], "20200215T0900", 15),
        ("72h", ["0h", "96h"], "96h", 1),
        ("8y", ["1p5y", "9y"], "9y", 365.25),
        ("y1p5", ["y0", "y2"], "y2", 365.25 / 2),
        ("m20", ["init", "v06", "y1", "y2"], "y2", 4 * 365.25 / 12),
        ("20m", ["minus1m", "24m"], "24m", 4 * 365.25 / 12),
        ("pet3", ["mri1", "mri2", "mri9"], "mri2", None),
        ("v7", ["v1", "v9"], "v9", None),
        ("7", ["1", "9"], "9", None),
    ],
)
def test_labels_that_are_times_tell_the_nearest_session(pet, t1ws, nearest, days):
    found = nearest_session(pet, t1ws, Timeline())
    assert found.session == nearest
    assert found.days == (None if days is None else pytest.approx(days))


def test_labels_of_several_kinds_are_no_times():
    assert label_times(["d10", "x12"])[0] == {}
    assert label_times(["v1", "bl"])[0] == {}
    assert label_times(["20201340", "20200101"])[1] == "visits"


def test_labels_that_may_be_different_days_are_no_times():
    """January and February, or the first and second day; years, or days of one year."""
    assert label_times(["01022020", "02012020"])[0] == {}
    assert label_times(["201001", "201112"])[0] == {}
    assert label_times(["200131", "200201"])[0] == {}


@pytest.mark.parametrize(
    ("texts", "day"),
    [
        (["31/01/2020"], (2020, 1, 31)),
        (["01/31/2020 10:30:00"], (2020, 1, 31)),
        (["31-Jan-2020"], (2020, 1, 31)),
        (["2020/01/31"], (2020, 1, 31)),
        (["31 January 2020", "Feb 3, 2020", "4-Mar-2020", "05/04/2020", "2020.05.06"], (2020, 1, 31)),
        (["05/04/2020", "31 Jan 2020"], None),
        (["20200131"], (2020, 1, 31)),
        (["02/02/2020"], (2020, 2, 2)),
        (["03/04/2020", "13/04/2020"], (2020, 4, 3)),
        (["03/04/2020"], None),
        (["03/04/2020", "13/14/2020"], None),
        (["soon"], None),
    ],
)
def test_dates_in_other_forms_are_read_where_they_are_certain(texts, day):
    found = read_dates(texts).get(texts[0])
    assert (found and (found.year, found.month, found.day)) == day


@pytest.mark.parametrize(
    ("best", "other", "why"),
    [
        ("rec-orig", "rec-defaced", "rec-defaced"),
        ("rec-whole_run-2", "rec-anon_run-1", "rec-anon"),
        ("acq-b", "acq-a_ce-gad", "ce-gad"),
        ("run-1", "run-2", "run-2"),
        ("acq-a", "acq-b", "alike; the first name was taken"),
        ("acq-mprage", "acq-fs", "acq-fs"),
        ("acq-z", "acq-body", "acq-body"),
        ("acq-z", "acq-pituitary", "acq-pituitary"),
        ("acq-MPRAGE_run-2", "acq-fatsat_run-1", "acq-fatsat"),
    ],
)
def test_it_is_said_why_an_image_of_the_same_kind_was_not_taken(best, other, why):
    files = [Path(f"sub-01_{name}_T1w.nii.gz") for name in (other, best)]
    head = Looks((170.0, 220.0, 240.0), (1.0, 1.0, 1.0))
    chosen, (said,) = choose_t1w(files, lambda _: head)
    assert chosen == files[1]
    assert said.endswith(f"and not {files[0].name} ({why}).")


def test_dates_that_cannot_be_read_are_said(tmp_path):
    folder = tmp_path / "sub-01"
    for label in ("pre", "mid", "post"):
        (folder / f"ses-{label}").mkdir(parents=True)
    (folder / "sub-01_sessions.tsv").write_text("session_id\tacq_time\nses-pre\t03/04/2020\nses-mid\t01/02/2020\n")
    said = nearest_session("mid", ["pre", "post"], timeline(folder)).sentences[0]
    assert "'03/04/2020'" in said
    assert "no dates" not in said


def test_days_between_two_images_of_a_session_come_from_its_scans_table(tmp_path):
    folder = tmp_path / "sub-01" / "ses-a"
    folder.mkdir(parents=True)
    rows = "anat/sub-01_ses-a_T1w.nii.gz\t2020-01-01T10:00:00\npet/sub-01_ses-a_pet.nii.gz\t2020-01-11T10:00:00\n"
    (folder / "sub-01_ses-a_scans.tsv").write_text(f"filename\tacq_time\n{rows}")
    found = timeline(tmp_path / "sub-01")
    t1w, pet = Path("sub-01_ses-a_T1w.nii.gz"), Path("sub-01_ses-a_pet.nii.gz")
    assert found.days_between_files(t1w, pet) == 10
    assert found.days_between_files(t1w, Path("other_pet.nii.gz")) is None


@pytest.mark.parametrize(
    ("worse", "look", "why"),
    [
        ("acq-ax2d", Looks((200.0, 220, 240), (0.9, 0.9, 5)), "voxels of 0.9 x 0.9 x 5 mm"),
        ("acq-a", Looks((60.0, 240, 240), (1.0, 1, 1)), "60 x 240 x 240 mm"),
        ("acq-b", Looks((200.0, 220, 240), (1.0, 1, 1), "CSPINE"), "CSPINE"),
        ("acq-b", Looks((200.0, 220, 240), (1.0, 1, 1), "ABDOMEN"), "ABDOMEN"),
        ("acq-localiser", Looks((200.0, 220, 240), (1.0, 1, 1)), "acq-localiser"),
        ("acq-cspine", Looks((200.0, 220, 240), (1.0, 1, 1)), "acq-cspine"),
        ("acq-axial", Looks((200.0, 220, 240), (1.0, 1, 1)), "acq-axial"),
        ("run-1", Looks((200.0, 220, 240), (1.0, 1, 1), "", "3-plane localizer"), "3-plane localizer"),
        ("run-1", Looks((200.0, 220, 240), (1.0, 1, 1), "", "", "GADOLINIUM"), "GADOLINIUM"),
    ],
)
@pytest.mark.parametrize("better", ["acq-mprage", "acq-z_run-2", "rec-norm"])
def test_a_t1w_of_a_whole_head_and_fine_voxels_is_taken(better, worse, look, why):
    good = Looks((170.0, 240, 256), (1.0, 1, 1.2))
    files = [Path(f"sub-01_{parts}_T1w.nii.gz") for parts in (worse, better)]
    for order in permutations(files):
        best, said = choose_t1w(order, dict(zip(files, (look, good), strict=True)).get)
        assert best == files[1]
        assert why in said[0]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (("b", "MPRAGE"), ("a", "MPRAGE post Gd")),
        (("b", "MPRAGE no contrast"), ("a", "MPRAGE +C")),
        (("b", "T1 MPRAGE pre"), ("a", "T1 MPRAGE KM")),
        (("b", "3D T1 MPRAGE"), ("a", "3D FLAIR")),
        (("b", "t1_mprage_sag"), ("a", "t2_space_sag")),
        (("b", "MPRAGE MotionCorrected"), ("a", "MPRAGE (motion)")),
        (("b", ""), ("bad", "")),
        (("x", ""), ("postGd", "")),
        (("b", "MPRAGE Siemens ADNI"), ("a", "MPRAGE failed")),
    ],
)
def test_the_words_of_a_series_tell_which_t1w_to_take(better, worse):
    files = {Path(f"sub-01_acq-{acq}_T1w.nii.gz"): series for acq, series in (worse, better)}
    box, voxel = (170.0, 240.0, 256.0), (1.0, 1.0, 1.0)
    chosen, (said,) = choose_t1w(list(files), lambda path: Looks(box, voxel, series=files[path]))
    assert chosen == list(files)[1]
    assert "(" in said, "it says why"


def test_what_a_sidecar_tells_of_the_use_of_a_t1w():
    stated = {"BodyPartExamined": "BRAIN", "ProtocolName": "mprage", "ContrastBolusAgent": "none"}
    assert looks_of((240, 170, 256), (1, 2, 1), stated) == Looks((170, 240, 256), (1, 1, 2), "BRAIN", "mprage", "")
    assert looks_of((240,), (1,), {"ContrastBolusIngredient": "GADOLINIUM", "BodyPart": 3}).contrast == "GADOLINIUM"


@pytest.mark.parametrize(
    ("column", "values", "days"),
    [
        ("days_since_baseline", (0, 1826, 1836), 10),
        ("study_month", (0, "60", "60,5"), 365.25 / 24),
        ("Age", ("65.0", 70.0, 70.1), 36.525),
        ("days", (0, "n/a", 1836), None),
        ("score", (0, 1826, 1836), None),
    ],
)
def test_times_of_sessions_without_dates(tmp_path, column, values, days):
    """Without them, both sessions with a T1w are one visit apart, and the earlier one is taken."""
    folder = tmp_path / "sub-01"
    for label in ("01", "02", "03"):
        (folder / f"ses-{label}").mkdir(parents=True)
    rows = "".join(f"ses-0{place}\t{value}\n" for place, value in enumerate(values, start=1))
    (folder / "sub-01_sessions.tsv").write_text(f"session_id\t{column}\n{rows}")
    found = nearest_session("02", ["01", "03"], timeline(folder))
    assert found.session == ("01" if days is None else "03")
    assert found.days == (None if days is None else pytest.approx(days))
    assert ("by sessions.tsv" in found.sentences[0]) == (days is not None)


@pytest.mark.parametrize(("ages", "nearest"), [((65, 70, 70), "03"), ((70, 70, 75), "01"), ((70, 70, 70), "01")])
def test_ages_in_whole_years_tell_which_session_is_far_but_no_days(tmp_path, ages, nearest):
    folder = tmp_path / "sub-01"
    for label in ("01", "02", "03"):
        (folder / f"ses-{label}").mkdir(parents=True)
    rows = "".join(f"ses-0{place}\t{age}\n" for place, age in enumerate(ages, start=1))
    (folder / "sub-01_sessions.tsv").write_text(f"session_id\tage_at_scan\n{rows}")
    found = nearest_session("02", ["01", "03"], timeline(folder))
    assert (found.session, found.days) == (nearest, None)
    assert ("by age in whole years" in found.sentences[0]) == (len(set(ages)) > 1)


def test_an_image_of_head_and_neck_is_one_of_a_head():
    looks = {
        Path("sub-01_acq-a_T1w.nii.gz"): Looks((170.0, 240, 256), (1.0, 1, 1), "HEADNECK"),
        Path("sub-01_acq-b_T1w.nii.gz"): Looks((170.0, 240, 256), (1.0, 1, 1), "BRAIN"),
    }
    best, said = choose_t1w(list(looks), looks.get)
    assert best.name == "sub-01_acq-a_T1w.nii.gz"
    assert "HEADNECK" not in said[0]


def test_the_timeline_has_every_session_that_has_a_folder(tmp_path):
    for label in ("m12", "m6", "bl"):
        (tmp_path / "sub-01" / f"ses-{label}").mkdir(parents=True)
    (tmp_path / "sub-01" / "ses-file").write_text("no folder")
    assert timeline(tmp_path / "sub-01") == Timeline(("bl", "m6", "m12"))


def test_session_dates_come_from_the_sessions_table_then_from_the_scans_tables(tmp_path):
    folder = tmp_path / "sub-01"
    for session, times in {"a": ["2020-05-02T10:00:00", "2020-05-01T09:00:00"], "b": ["2021-01-01", "n/a"]}.items():
        (folder / f"ses-{session}").mkdir(parents=True)
        rows = "\n".join(f"pet/x{k}.nii.gz\t{time}" for k, time in enumerate(times))
        (folder / f"ses-{session}" / f"sub-01_ses-{session}_scans.tsv").write_text(f"filename\tacq_time\n{rows}\n")
    assert timeline(folder).dates == {"a": datetime(2020, 5, 1, 9), "b": datetime(2021, 1, 1)}
    (folder / "sub-01_sessions.tsv").write_text("session_id\tacq_time\nses-a\t2019-01-01T00:00:00Z\nses-b\tn/a\n")
    assert timeline(folder).dates == {"a": datetime(2019, 1, 1), "b": datetime(2021, 1, 1)}


def test_dates_in_another_column_count_and_two_of_one_session_do_not(tmp_path):
    rows = "ses-a\t2020-01-31\nses-b\t2020-02-01\nses-b\t2021-02-01\n"
    (tmp_path / f"{tmp_path.name}_sessions.tsv").write_text(f"session_id\tsession_date\n{rows}")
    found = timeline(tmp_path)
    assert {label: str(time.date()) for label, time in found.dates.items()} == {"a": "2020-01-31"}
    assert "ses-b" in found.unreadable[0]


def test_a_table_of_sessions_without_tabs_is_said_to_be_unreadable(tmp_path):
    name = f"{tmp_path.name}_sessions.tsv"
    (tmp_path / name).write_text("session_id,acq_time\nses-a,2020-01-31\n")
    found = timeline(tmp_path)
    assert found.unreadable == (f"{name} has no column session_id",)
    said = nearest_session("a", ["b"], found).sentences[0]
    assert f"({name} has no column session_id; its columns must be separated by tabs)" in said


def _scans(folder, times, *, in_sessions):
    rows = {}
    for session, time in times.items():
        (folder / f"ses-{session}").mkdir(parents=True)
        below = "" if in_sessions else f"ses-{session}/"
        rows[session] = f"{below}anat/sub-01_ses-{session}_T1w.nii.gz\t{time}\n"
    for session, row in rows.items() if in_sessions else [("", "".join(rows.values()))]:
        place = folder / f"ses-{session}" / f"sub-01_ses-{session}" if session else folder / "sub-01"
        Path(f"{place}_scans.tsv").write_text(f"filename\tacq_time\n{row}")


@pytest.mark.parametrize("in_sessions", [True, False])
def test_the_dates_of_all_scans_tables_of_a_participant_are_read_together(tmp_path, in_sessions):
    times = {"early": "3/1/2015 10:00 AM", "late": "3/25/2020 1:00 PM", "pet": "2/1/2020 9:30 PM"}
    _scans(tmp_path / "sub-01", times, in_sessions=in_sessions)
    found = timeline(tmp_path / "sub-01")
    assert {label: time.date() for label, time in found.dates.items()} == {
        "early": date(2015, 3, 1),
        "late": date(2020, 3, 25),
        "pet": date(2020, 2, 1),
    }
    assert nearest_session("pet", ["early", "late"], found).session == "late"


def test_times_without_a_date_are_said_and_months_are_dates(tmp_path):
    _scans(tmp_path / "sub-01", {"a": "10:00:00", "b": "2020-03", "c": "March 2020"}, in_sessions=True)
    found = timeline(tmp_path / "sub-01")
    assert found.unreadable == ("10:00:00",)
    assert found.dates == {"b": datetime(2020, 3, 1), "c": datetime(2020, 3, 1)}


@pytest.mark.parametrize("text", ["", "session_id\nses-a\n", "\x00\xff", "session_id\tacq_time\nses-a\tsoon\n"])
def test_a_table_without_usable_dates_counts_as_none(tmp_path, text):
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "sub-01" / "sub-01_sessions.tsv").write_bytes(text.encode("latin-1"))
    assert timeline(tmp_path / "sub-01").dates == {}


def test_labels_with_digits_that_are_no_decimal_numbers_have_an_order_too():
    files = [Path(f"sub-01_run-{run}_T1w.nii.gz") for run in ("2", "²", "a")]
    assert len({choose_t1w(order)[0] for order in permutations(files)}) == 1
    assert {tuple(session_order(labels)) for labels in permutations(["m2", "m²", "m12"])} == {("m2", "m12", "m²")}


def _sidecars(folder, dates, **more):
    """Write sidecars of T1w (a, c) and PET (b) in three sessions that state these dates; return the folder."""
    own = folder / "sub-01"
    for session, text in dates.items():
        kind, suffix = ("pet", "trc-AV1451_pet") if session == "b" else ("anat", "T1w")
        place = own / f"ses-{session}" / kind
        place.mkdir(parents=True)
        values = {"Manufacturer": "X", **({} if text is None else {"AcquisitionDateTime": text}), **more}
        (place / f"sub-01_ses-{session}_{suffix}.json").write_text(json.dumps(values))
    return own


@pytest.mark.parametrize(
    ("dates", "nearest"),
    [
        ({"a": "2019-01-01T10:00:00.0", "b": "2020-03-01T10:00:00", "c": "2020-03-11T09:00:00"}, "c"),
        ({"a": "20190101", "b": "20200301101500.000000", "c": "20200311"}, "c"),
        ({"a": "13.02.2020", "b": "01.03.2020", "c": "11.03.2021"}, "a"),
    ],
)
def test_dates_in_sidecars_count_where_the_tables_have_none(tmp_path, dates, nearest):
    found = timeline(_sidecars(tmp_path, dates))
    chosen, said, days = nearest_session("b", ["a", "c"], found)
    assert chosen == nearest
    assert "by the sidecars" in said[0]
    assert days == pytest.approx(10 if nearest == "c" else 17, abs=1)
    images = [tmp_path / f"sub-01_ses-{nearest}_T1w.nii.gz", tmp_path / "sub-01_ses-b_trc-AV1451_pet.nii.gz"]
    assert found.days_between_files(*images) == pytest.approx(days)


def test_dates_of_tables_are_not_mixed_with_those_of_sidecars(tmp_path):
    """Those of one of the two may be shifted for privacy."""
    own = _sidecars(tmp_path, {"a": "2019-01-01", "b": "2020-03-01", "c": "2020-03-11"})
    (own / "sub-01_sessions.tsv").write_text("session_id\tacq_time\nses-a\t1912-03-05\nses-b\t1912-03-01\n")
    found = timeline(own)
    assert found.dates.keys() == {"a", "b"}
    assert nearest_session("b", ["a", "c"], found).session == "a"
    assert "by the sidecars" not in nearest_session("b", ["a", "c"], found).sentences[0]


@pytest.mark.parametrize("removed", ["19000101", "1925-01-01T00:00:00", "1970-01-01", "2000-06-01", "", "00000000"])
def test_dates_that_were_removed_from_sidecars_tell_nothing(tmp_path, removed):
    found = timeline(_sidecars(tmp_path, dict.fromkeys("abc", removed)))
    assert not found.dates
    assert not found.unreadable
    assert nearest_session("b", ["a", "c"], found).days is None


def test_dates_in_sidecars_that_may_be_two_days_are_said_to_be_unreadable(tmp_path):
    found = timeline(_sidecars(tmp_path, {"a": "03/04/2020", "b": "05/06/2020", "c": "07/08/2020"}))
    assert not found.dates
    assert "dates cannot be read, such as '03/04/2020'" in nearest_session("b", ["a", "c"], found).sentences[0]


def test_the_second_kind_of_date_counts_where_the_first_is_empty(tmp_path):
    found = timeline(_sidecars(tmp_path, dict.fromkeys("abc", "n/a"), StudyDate="20200102"))
    assert not found.dates, "one day for three sessions"
    other = timeline(_sidecars(tmp_path / "2", {"a": "n/a", "b": None}, SeriesDate="20200102"))
    assert other.dates.keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("day", "known"), [("1900-01-01", False), ("1970-01-01T00:00:00", False), ("1900-02-03", True)]
)
def test_one_date_in_the_place_of_removed_ones_tells_nothing(tmp_path, day, known):
    for label in "abc":
        (tmp_path / "sub-01" / f"ses-{label}").mkdir(parents=True)
    table = tmp_path / "sub-01/sub-01_sessions.tsv"
    table.write_text("session_id\tacq_time\n" + "".join(f"ses-{label}\t{day}\n" for label in "abc"))
    assert bool(timeline(tmp_path / "sub-01").dates) == known
    table.write_text("session_id\tacq_time\nses-a\t1900-01-01\nses-b\t1901-06-02\nses-c\t1902-01-03\n")
    assert timeline(tmp_path / "sub-01").dates.keys() == {*"abc"}, "shifted dates are dates"


def test_one_time_of_all_images_in_the_place_of_removed_ones_gives_no_days(tmp_path):
    folder = tmp_path / "sub-01/ses-a"
    folder.mkdir(parents=True)
    names = ("anat/sub-01_ses-a_T1w.nii.gz", "pet/sub-01_ses-a_pet.nii.gz")
    for times, days in ((("00:00:00", "00:00:00"), None), (("10:00:00", "13:00:00"), 0.125)):
        rows = "".join(f"{name}\t1900-01-01T{time}\n" for name, time in zip(names, times, strict=True))
        (folder / "sub-01_ses-a_scans.tsv").write_text(f"filename\tacq_time\n{rows}")
        found = timeline(tmp_path / "sub-01").days_between_files(*(folder / name for name in names))
        assert found == days
