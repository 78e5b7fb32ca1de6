"""Odd options, settings files and filter files, at every level."""

from __future__ import annotations

import json
from pathlib import Path

from fuzz_answers import answer_of_call
from fuzz_derived import cohort, model, study
from fuzz_trees import ODD_CONTENTS, ODD_VALUES, as_json, dataset, write_tree
from hypothesis import strategies as st

from tau_pipeline.settings.configuration import FieldDoc, documentation

OPTIONS = (
    "--participant-label",
    "--session-label",
    "--tracer-label",
    "--rec-label",
    "--run-label",
    "--suvr-window",
    "--ref-region",
    "--smooth-fwhm",
    "--target-fwhm",
    "--random-seed",
    "--nprocs",
    "--omp-nthreads",
    "--mem-mb",
    "--skull-strip-t1w",
    "-d",
    "--use-plugin",
    "--worker",
    "--motion-correction",
    "-v",
    "--verbose",
)
WORDS = st.sampled_from(
    [
        "01",
        "sub-01",
        "a",
        "ses-a",
        "AV1451",
        "1",
        "-1",
        "0",
        "nan",
        "inf",
        "1e400",
        "80",
        "100",
        "",
        " ",
        "Pons",
        "8+47",
        "8+",
        "+",
        "9" * 30,
        "é",
        "\ud800",
        "freesurfer=.",
        "freesurfer=",
        "=",
        "/dev/null",
        "--",
        "*",
        "CerebellarGM",
        "cf",
        "auto",
        "x" * 5000,
        "freesurfer=/" + "x" * 5000,
    ]
)


def spoilt_call(draw: st.DrawFn, folder: Path) -> str:
    """Options, a settings file and a filter file, all of them odd."""
    write_tree(dataset(), folder / "bids")
    arguments = [*places(folder), "--dry-run", "--skip-bids-validation"]
    for option in draw(st.lists(st.sampled_from(OPTIONS), max_size=3)):
        arguments += [option, *draw(st.lists(WORDS, max_size=3))]
    if draw(st.booleans()):
        (folder / "settings.toml").write_bytes(draw(st.one_of(_TOML, ODD_CONTENTS)))
        arguments += ["--config-file", str(folder / "settings.toml")]
    if draw(st.booleans()):
        (folder / "filter.json").write_bytes(draw(st.one_of(_FILTERS, ODD_CONTENTS)))
        arguments += ["--bids-filter-file", str(folder / "filter.json")]
    return answer_of_call(arguments)


_ENTITIES = st.sampled_from(
    ["session", "run", "tracer", "suffix", "extension", "datatype", "x", "scope", "subject", "regex_search"]
)
_FILTERS = st.dictionaries(
    st.sampled_from(["t1w", "pet", "bold", "PET", ""]),
    st.one_of(ODD_VALUES, st.dictionaries(_ENTITIES, st.one_of(ODD_VALUES, st.just("*"), st.just("(")), max_size=3)),
    max_size=3,
).map(as_json)


@st.composite
def _toml(draw: st.DrawFn) -> bytes:
    names = [
        "suvr_window",
        "ref_region",
        "smooth_fwhm",
        "random_seed",
        "nprocs",
        "work_dir",
        "participant_label",
        "x y",
        "mem_mb",
    ]
    values = [
        "1",
        "-1",
        "nan",
        "inf",
        "1e400",
        '"x"',
        "[]",
        "[80, 100]",
        '["Pons", 3]',
        "{}",
        "true",
        "1979-05-27",
        "0x10",
        "9" * 5000,
        '"\\u00e9"',
        '["a", ["b"]]',
        "''",
        '"""\nx"""',
        "[[1]]",
        '"\\ud800"',
        "[" * 3000,
    ]
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        sections = ["settings", "execution", "selection", "training", "group", "x", "[settings]", ""]
        lines.append(f"[{draw(st.sampled_from(sections))}]")
        for _ in range(draw(st.integers(0, 3))):
            lines.append(f"{draw(st.sampled_from(names))} = {draw(st.sampled_from(values))}")
    return "\n".join(lines).encode()


_TOML = _toml()


def places(folder: Path) -> list[str]:
    """The first arguments of a call at the participant level."""
    return [str(folder / "bids"), str(folder / "out"), "participant", "-w", str(folder / "work")]


#: Settings that a call below sets, or that let the program write elsewhere.
_OURS = ("work_dir", "dry_run")
_SETTINGS = tuple(doc for doc in documentation() if doc.name not in _OURS)
_LEVELS = ("train", "train", "synthesize", "group")


def _value(draw: st.DrawFn, doc: FieldDoc) -> object:
    """A value that the setting may have, or something odd."""
    if draw(st.integers(0, 3)) == 3:
        return draw(ODD_VALUES)
    number = st.sampled_from([0, 1, 2, 3, 7]) if doc.kind is int else st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.5, 10.0])
    plain = st.booleans() if doc.kind is bool else number if doc.kind in (int, float) else WORDS
    one = st.one_of(st.sampled_from(doc.choices)) if doc.choices else plain
    return draw(st.lists(one, min_size=1, max_size=3)) if doc.many else draw(one)


def _settings_file(draw: st.DrawFn) -> bytes:
    """A TOML file of several settings, each in its section or in another's."""
    sections: dict[str, dict[str, object]] = {}
    for doc in draw(st.lists(st.sampled_from(_SETTINGS), max_size=8, unique=True)):
        section = doc.section if draw(st.integers(0, 9)) < 9 else draw(st.sampled_from(_SETTINGS)).section
        sections.setdefault(section, {})[doc.name] = _value(draw, doc)
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        # A JSON value of these kinds is a TOML value, but for null and objects, which are wrong TOML.
        lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(lines).encode()


def spoilt_settings(draw: st.DrawFn, folder: Path) -> str:
    """Calls of the levels after the first one on valid derivatives, with odd settings in a file and on the line."""
    level = draw(st.sampled_from(_LEVELS))
    write_tree(cohort() if level == "group" else study(), folder)
    arguments = [str(folder / "bids"), str(folder / "out"), level, "-w", str(folder / "work"), "--dry-run"]
    if level == "synthesize":
        write_tree(model(), folder / "model")
        arguments += ["--model", str(folder / "model"), "--synthesize", "all"]
    else:
        arguments += ["--min-participants", "2"]
    if draw(st.booleans()):
        (folder / "settings.toml").write_bytes(_settings_file(draw))
        name = "--compare" if level == "train" and draw(st.booleans()) else "--config-file"
        arguments += [name, str(folder / "settings.toml")]
    for doc in draw(st.lists(st.sampled_from(_SETTINGS), max_size=2, unique=True)):
        value = _value(draw, doc)
        arguments.append(doc.flags[0])
        if doc.kind is not bool:
            arguments += [str(one) for one in value] if isinstance(value, list) else [str(value)]
    return f"{level} {answer_of_call(arguments)}"
