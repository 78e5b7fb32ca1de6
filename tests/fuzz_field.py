"""Inputs as labs have them, drawn from a known truth: session labels, tracers, units, clocks, and participants.tsv.

The truth is drawn first and then written as people and converters write it, or spoilt in a known way. The answer has to
be the truth or a sentence; an answer that is wrong without a word fails (`WrongAnswerError`).
"""

from __future__ import annotations

import json
import math
import random
from datetime import date
from pathlib import Path

from fuzz_answers import WrongAnswerError, answer_of_function
from hypothesis import strategies as st

from tau_pipeline.bids.pairing import nearest_session
from tau_pipeline.bids.pet_metadata import corrected_pet_metadata
from tau_pipeline.bids.session_labels import label_times
from tau_pipeline.bids.sessions import Timeline, timeline
from tau_pipeline.bids.tracers import ALIASES, other_tracer, tracer_name
from tau_pipeline.cohort.demographics import read_demographics
from tau_pipeline.pet.frames import WINDOWS, plan_frames
from tau_pipeline.words import counted, form

ODD_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\x00\"'"), max_size=8)


def require_answer(holds: bool, what: str) -> None:
    if not holds:
        raise WrongAnswerError(what)


# --- sessions ---

_UNITS = {"d": 1.0, "day": 1.0, "w": 7.0, "M": 365.25 / 12, "mo": 365.25 / 12, "Y": 365.25}
_DATES = (
    *("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y/%m/%d", "%d-%b-%Y", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%y", "%Y%m%d"),
    *("%b %d %Y", "%d. %m. %Y", "%A", "week %W"),
)


def labelled_sessions(draw: st.DrawFn, folder: Path) -> str:
    """Sessions named by time in one unit, or by anything: the nearest T1w is taken, or no times are claimed."""
    random_of = draw(st.randoms(use_true_random=False))
    if draw(st.integers(0, 3)) == 3:
        return _dated_sessions(draw, random_of, folder)
    unit = draw(st.sampled_from(sorted(_UNITS)))
    numbers = draw(st.lists(st.integers(0, 4000), min_size=3, max_size=6, unique=True))
    width = draw(st.sampled_from([0, 4]))
    behind = draw(st.booleans())
    labels = [f"{n:0{width}d}{unit}" if behind else f"{unit}{n:0{width}d}" for n in numbers]
    if draw(st.booleans()):  # what an image shows
        labels = [f"{draw(st.sampled_from(['PET', 'MR', 'tau', '']))}{label}" for label in labels]
    odd = [text for text in draw(st.lists(ODD_TEXTS, max_size=2)) if text]

    def read() -> None:
        times, _ = label_times([*labels, *odd])
        require_answer(not times or set(times) == {*labels, *odd}, f"some of {labels + odd} have no time: {times}")
        own, others = labels[0], labels[1:]
        random_of.shuffle(others)
        found = nearest_session(own, others, Timeline(tuple(labels)))
        apart = {label: abs(n - numbers[0]) * _UNITS[unit] for label, n in zip(labels[1:], numbers[1:], strict=True)}
        require_answer(
            math.isclose(apart[str(found.session)], min(apart.values())), f"{found.session} for {own} of {apart}"
        )
        require_answer(found.days is not None, f"no days for {labels}")

    return f"labels: {answer_of_function(read)}"


def _dated_sessions(draw: st.DrawFn, random_of: random.Random, folder: Path) -> str:
    """Every row of sessions.tsv has a date or stands among the texts that could not be read."""
    days = draw(st.lists(st.dates(date(1990, 1, 1), date(2040, 1, 1)), min_size=1, max_size=5))
    forms = draw(st.sampled_from([_DATES[:2], *[(form,) for form in _DATES], _DATES]))
    texts = [random_of.choice(forms) for _ in days]
    texts = [day.strftime(form) for day, form in zip(days, texts, strict=True)]
    root = folder / "sub-01"
    root.mkdir()
    rows = [f"ses-{number}\t{text}\n" for number, text in enumerate(texts)]
    # One day for all, the first of January, and texts without a number stand for dates that were removed.
    certain = len({day for day in days if (day.month, day.day) != (1, 1)}) == len(days)
    in_sidecars = draw(st.booleans()) and certain and all(set(text) & set("123456789") for text in texts)
    if not in_sidecars:
        (root / "sub-01_sessions.tsv").write_text("session_id\tacq_time\n" + "".join(rows), encoding="utf-8")
    for number, text in enumerate(texts) if in_sidecars else ():
        place = root / f"ses-{number}" / "pet"
        place.mkdir(parents=True)
        key = random_of.choice(["AcquisitionDateTime", "AcquisitionDate", "ScanDate", "SeriesDate", "StudyDate"])
        (place / f"sub-01_ses-{number}_pet.json").write_text(json.dumps({key: text}), encoding="utf-8")

    def read() -> None:
        found = timeline(root)
        read_at = {int(label): time.date() for label, time in found.dates.items()}
        for number, text in enumerate(texts):
            require_answer(
                read_at[number] == days[number] if number in read_at else text in found.unreadable,
                f"{text!r} of {days[number]} was read as {read_at.get(number)}, unreadable {found.unreadable}",
            )

    return f"dates: {answer_of_function(read)}"


# --- tracers ---

_AROUND = ("{}", "[18F]{}", "18F-{}", "F18 {}", "{} batch 7", "Tau PET ({})", "{}, 370 MBq", "Solution", "Unknown", "")
_OTHERS = ("FDG", "PiB", "florbetapir", "flutemetamol")


def named_tracers(draw: st.DrawFn, folder: Path) -> str:
    """A tracer in words and in the file name: the one that is meant, or a contradiction is refused."""
    spellings = [*ALIASES, "MK-6240", "AV-1451", "PI-2620", "RO-948", "GTP-1", "Flortaucipir", "T-807", *_OTHERS]
    text = draw(st.sampled_from(_AROUND)).format(draw(st.sampled_from(spellings)))
    text = draw(st.sampled_from([str, str.upper, str.title]))(text)
    if draw(st.integers(0, 4)) == 4:
        text = draw(ODD_TEXTS)
    label = draw(st.sampled_from([None, "AV1451", "MK6240", "PI2620", "RO948", "GTP1", "FDG", "unknown", "18FAV1451"]))
    meant, by_label = (tracer_name(one) or other_tracer(one) for one in (text, label))
    for alias, name in ALIASES.items():
        whole = "".join(one for one in text.lower() if one.isalnum())
        require_answer(whole != alias or meant == name, f"{text!r} is {meant}, not {name}")
    taken: list[str] = []

    def read() -> None:
        metadata = {"TracerName": text} if text else {}
        corrected, notes = corrected_pet_metadata(metadata, {"sub": "01", **({"trc": label} if label else {})})
        stated = corrected.get("TracerName")
        used = tracer_name(stated) or other_tracer(stated)
        require_answer(not (meant and by_label and meant != by_label), f"{text!r} and trc-{label} were both taken")
        require_answer(used in (meant, by_label), f"{text!r} and trc-{label} became {used}")
        require_answer(stated == (text or None) or bool(notes), f"{text!r} became {stated!r} without a word")
        require_answer(used is not None or by_label is None, f"trc-{label} was not used for {text!r}")
        taken.append(str(used))

    return f"{answer_of_function(read)} {'named' if taken and taken[0] != 'None' else 'none'}"


# --- units ---

_CONCENTRATIONS = ("{}Bq{}mL", "{}Bq{}ml", "{}BQ{}ML", "{}bq{}cc", "{}Bq{}cm3", "{}Bq{}cm³", "{}Becquerel{}mL")
_ALONE = ("GML", "g/ml", "SUV", "SUVbw", "CM2ML", "g mL-1", "1", "unitless", "kg/mL")
_SMALL = ("µCi/mL", "μCi/mL", "uCi/cc", "nCi/mL", "mCi/L", "nanocurie/ml")
_NOT_UNITS = ("mm", "Bq", "Bq/s", "%", "HU", "MBq/h", "seconds", "keV", "mL/Bq", "Bq/mm")


def spelt_units(draw: st.DrawFn, folder: Path) -> str:
    """Spellings of units of activity: known ones are accepted, others are refused, and free text is reported."""
    factor = draw(st.sampled_from(["", "k", "M"]))
    between = draw(st.sampled_from(["/", " / ", " per ", " ", "*"]))
    right = draw(st.sampled_from([*(one.format(factor, between) for one in _CONCENTRATIONS), *_ALONE, *_SMALL]))
    kind = draw(st.sampled_from(["right", "right", "wrong", "odd"]))
    units = {"right": right, "wrong": draw(st.sampled_from(_NOT_UNITS)), "odd": draw(ODD_TEXTS)}[kind]
    space = draw(st.sampled_from(["", " "]))
    metadata = {
        **{"FrameTimesStart": [4800], "FrameDuration": [1200], "InjectionStart": 0, "TracerName": "AV1451"},
        "Units": f"{space}{units}{space}",
    }

    def read() -> None:
        plan = plan_frames((2, 2, 2), metadata)
        require_answer(kind != "wrong", f"{units!r} was taken as a unit of activity")
        require_answer(kind != "right" or not plan.assumptions, f"{units!r}: {plan.assumptions}")

    answer = answer_of_function(read)
    require_answer(kind != "right" or answer == "done", f"{units!r} was refused: {answer}")
    return f"{kind}: {answer}"


# --- clocks ---


def clocked_frames(draw: st.DrawFn, folder: Path) -> str:
    """Frames around the window on a clock that may be wrong: the frames of the window are taken, or nothing is."""
    tracer = draw(st.sampled_from(sorted(WINDOWS)))
    low, high = WINDOWS[tracer].start_min, WINDOWS[tracer].end_min
    count, length = draw(st.integers(1, 8)), draw(st.sampled_from([1.0, 5.0, 10.0]))
    first = low + length * draw(st.integers(-4, 2))
    starts = [60 * (first + length * one) for one in range(count)]
    inside = [one for one, start in enumerate(starts) if start / 60 < high - 1e-9 and start / 60 + length > low + 1e-9]
    injected = draw(st.sampled_from([0.0, -1800.0, 600.0, -3000.0]))
    fault = draw(st.sampled_from(["none", "none", "minutes", "milliseconds", "sign", "12 hours", "ends", "unsorted"]))
    clock = [start + injected for start in starts]
    durations = [60 * length] * count
    if fault in ("minutes", "milliseconds"):
        by = 1 / 60 if fault == "minutes" else 1000.0
        clock, durations, told = [one * by for one in clock], [one * by for one in durations], injected * by
    else:
        told = {"sign": -injected, "12 hours": injected + 43200}.get(fault, injected)
    if fault == "ends":
        durations = [start + 60 * length for start in clock]
    if fault == "unsorted":
        clock.reverse()
    metadata = {"TracerName": tracer, "Units": "Bq/mL", "FrameTimesStart": clock, "FrameDuration": durations}
    metadata["InjectionStart"] = told
    plans = []

    def read() -> None:
        corrected, notes = corrected_pet_metadata(metadata, {"sub": "01"})
        plan = plan_frames((2, 2, 2, count), corrected)
        plans.append(plan)
        harmless = fault == "none" or (fault == "sign" and injected == 0) or (fault == "unsorted" and count == 1)
        if harmless and (plan.window.start_min, plan.window.end_min) != (low, high):
            # Another window in use for the tracer, which the frames cover.
            require_answer(any("was taken" in note for note in plan.assumptions), f"{plan.window} without a word")
        elif harmless:
            require_answer(list(plan.indices) == inside, f"frames {plan.indices}, expected {inside}: {metadata}")
            require_answer(abs(sum(plan.weights) - 1) < 1e-9, f"weights {plan.weights}")
        elif fault != "sign" and set(plan.indices) != set(inside):
            require_answer(
                bool(notes or plan.assumptions), f"{fault}: frames {plan.indices} without a word: {metadata}"
            )

    answer = answer_of_function(read)
    timely = fault == "none" and bool(inside)
    require_answer(not timely or bool(plans), f"right times were refused: {answer}, {metadata}")
    return f"{fault}: {answer}"


# --- participants.tsv ---

_AGES = {"71": 71.0, "71,5": 71.5, "89+": 89.0, "70-74": 72.0, ">89": 89.0, "7.1e1": 71.0, "P70Y": 70.0, "": None}
_AGES |= {"71 years": 71.0, "n/a": None}
_NO_AGES = ("old", "seventy", "12/03/1950", "70-", "1950", "-4", "nan?")


def tabled_participants(draw: st.DrawFn, folder: Path) -> str:
    """Tables with duplicate, missing, or renamed participants: each value is read, or its loss is reported."""
    people = [f"sub-{number:02d}" for number in range(1, draw(st.integers(2, 6)) + 1)]
    visits = draw(st.booleans())
    rows: list[tuple[str, str, str, str]] = []
    for person in people:
        for visit in draw(st.sampled_from([[], ["a"], ["a"], ["a", "b"], ["a", "a"]])):
            name = draw(st.sampled_from([person, person, person, person.removeprefix("sub-"), f"{person} ", "S-9"]))
            age = draw(st.sampled_from([*_AGES, *_NO_AGES]))
            rows.append((name, visit, age, draw(st.sampled_from(["CN", "AD", "n/a", '"CN', 'A"D']))))
    header = ["participant_id", *(["session_id"] if visits else []), "age", "diagnosis"]
    lines = [[name, *([visit] if visits else []), age, diagnosis] for name, visit, age, diagnosis in rows]
    end, mark = draw(st.sampled_from(["\n", "\r\n"])), draw(st.sampled_from(["", "\ufeff"]))
    text = mark + end.join("\t".join(line) for line in [header, *lines]) + end
    (folder / "participants.tsv").write_bytes(text.encode())
    scans = [(person, f"ses-{visit}" if visits else None) for person in people for visit in "ab"]
    answer = answer_of_function(lambda: _all_accounted_for(folder, rows, scans, visits))
    return f"{'visits' if visits else 'one row each'}: {answer}"


def _all_accounted_for(
    folder: Path, rows: list[tuple[str, str, str, str]], scans: list[tuple[str, str | None]], visits: bool
) -> None:
    """Compare what goes in with what comes out, row by row."""
    found = read_demographics(folder)
    told = " ".join(found.notes)
    by_key: dict[tuple[str, str | None], list[tuple[str, str]]] = {}
    for name, visit, age, diagnosis in rows:
        key = f"sub-{name.strip().removeprefix('sub-')}", f"ses-{visit}" if visits else None
        by_key.setdefault(key, []).append((age, diagnosis))
    known = {who for who, _ in by_key}
    for (who, session), stated in by_key.items():
        values = found.of(who, session)
        ages = {_AGES.get(age) for age, _ in stated} - {None}
        diagnoses = {diagnosis for _, diagnosis in stated} - {"n/a"}
        for name, given in (("age", ages), ("diagnosis", diagnoses)):
            if len(given) == 1:
                require_answer(values[name] in given, f"{name} of {who} {session} is {values[name]}, not {given}")
            elif len(given) > 1:
                require_answer(
                    values[name] is None and f"{name} counts as missing" in told, f"{given} of {who}: {told}"
                )
        for age in {age for age, _ in stated} & {*_NO_AGES}:
            require_answer(repr(age) in told, f"age {age!r} vanished: {told}")
    gaps = found.gaps(scans)
    everybody = {who for who, _ in scans}
    absent = len(everybody - known)
    of_all = counted(len(everybody), "participant")
    require_answer(
        not absent or any(f"{absent} of {of_all} {form(absent, 'has', 'have')} no row" in one for one in gaps),
        f"{absent} participants have no row: {gaps}",
    )
    for name in ("age", "diagnosis"):
        without = {who for who, session in scans if who in known and found.of(who, session)[name] is None}
        have = f"{len(without)} of {of_all} {form(len(without), 'has', 'have')}"
        require_answer(
            not without or any(f"{have} no {name}" in one for one in gaps),
            f"{sorted(without)} have no {name}: {gaps}",
        )
