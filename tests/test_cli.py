"""The command line: options, exit codes, and one sentence for every wrong call."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from phantom import tiny_dataset

from tau_pipeline.settings.configuration import READ_BY, configuration, documentation, settings_of
from tau_pipeline.settings.participant import Settings
from tau_workflows.cli import _COMMON, _RUN, LEVELS, build_parser, main
from tau_workflows.graphs.subject import init_subject_wf
from tau_workflows.levels.call import NOTHING_TO_DO, WRONG_CALL
from tau_workflows.usage import NOT_NEEDED, OTHER_NAMES

#: For each setting, a value that is not its default.
OTHER_VALUES = {
    "skull_strip_t1w": "force",
    "orientation": "qform",
    "suvr_window": (75.0, 105.0),
    "ref_region": ("Pons",),
    "smooth_fwhm": 4.0,
    "target_fwhm": 8.0,
    "match_visits": True,
    "min_measured_fraction": 0.7,
    "extent_suvr": 1.4,
    "pvc": ("sgtm", "rbv"),
    "psf": (6.0, 6.0, 7.0),
    "psf_source": "scanner",
    "pvc_extracerebral": True,
    "output_spaces": ("T1w", "MNI152NLin6Asym:res-2"),
    "surfaces": True,
    "cortex_labels": "hybrid",
    "longitudinal": "fixed-labels",
    "motion_correction": False,
    "random_seed": 7,
}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two participants with tiny images: enough for everything that happens before computing."""
    return tiny_dataset(tmp_path / "bids", ("01", "02"))


def call(dataset: Path, *options: str) -> int:
    out, work = dataset.parent / "out", dataset.parent / "work"
    return main([str(dataset), str(out), "participant", "--skip-bids-validation", "-w", str(work), *options])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--participant-label", "99"], "no participant '99'"),
        (["--ref-region", "CerebelarGM"], "did you mean CerebellarGM"),
        (["--output-spaces", "MNI152"], "no output space 'MNI152'; known are T1w, MNI152NLin6Asym"),
        (["--output-spaces", "MNI152NLin6Asym:res-3"], "write MNI152NLin6Asym, MNI152NLin6Asym:res-2 or"),
        (["--suvr-window", "100", "80"], "suvr_window is [100.0, 80.0]"),
        (["--suvr-window", "4800", "6000"], "look like seconds"),
        (["-d", "freesurfer"], "NAME=PATH"),
        (["-d", "freesurfer=/nowhere"], "is not a folder"),
        (["--config-file", "/nowhere.toml"], "no configuration file"),
        (["--smooth-fwhm", "-1"], "smooth_fwhm is -1.0"),
        (["--smooth-fwhm", "4", "--target-fwhm", "8"], "0 where target_fwhm is given"),
        (["--cortex-labels", "hybrid"], "add --surfaces"),
        (["--output-spaces", "fsaverage"], "nothing gives surfaces of the participants; add --surfaces, or give"),
        (["--output-spaces", "fsLR:den-91k"], "write fsLR or fsLR:den-32k"),
    ],
)
def test_a_wrong_call_ends_with_one_sentence_and_code_2(
    dataset: Path, capfd: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    assert call(dataset, *options) == WRONG_CALL
    err = capfd.readouterr().err
    assert sentence in err
    assert "Traceback" not in err
    assert not list((dataset.parent / "out").glob("sub-*"))


@pytest.mark.parametrize("option", ["output", "--work-dir"])
def test_a_folder_whose_name_is_no_text_is_refused(
    dataset: Path, tmp_path: Path, option: str, capfd: pytest.CaptureFixture[str]
) -> None:
    places = {"output": str(tmp_path / "out"), "--work-dir": str(tmp_path / "work")}
    places[option] += "\udcff"  # the byte FF, as the command line hands it over
    assert main([str(dataset), places["output"], "participant", "--work-dir", places["--work-dir"]]) == WRONG_CALL
    said = capfd.readouterr().err
    assert f"{places[option][:-1]}\\udcff is not in UTF-8" in said
    assert not list(tmp_path.glob("out*"))
    assert not list(tmp_path.glob("work*"))


def test_an_input_that_is_not_there_is_a_wrong_call(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "no"), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "w")]) == WRONG_CALL
    assert "is not a folder" in capfd.readouterr().err


def test_the_input_folder_is_refused_as_output(dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(dataset), str(dataset), "participant", "-w", str(dataset.parent / "w")]) == WRONG_CALL
    assert "is the input dataset" in capfd.readouterr().err


@pytest.mark.parametrize("place", ["sub-01/results", "sourcedata/out", ".git/out", "results", "derivatives"])
def test_an_output_folder_among_the_raw_data_is_refused(
    dataset: Path, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    assert main([str(dataset), str(dataset / place), "participant", "--skip-bids-validation"]) == WRONG_CALL
    assert "among the raw data" in capfd.readouterr().err
    assert not (dataset / place).exists()


def test_the_input_is_refused_as_work_folder(dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = sorted(dataset.rglob("*"))
    assert call(dataset, "-w", str(dataset)) == WRONG_CALL
    assert "--work-dir" in capfd.readouterr().err
    assert sorted(dataset.rglob("*")) == before


@pytest.mark.parametrize("place", ["", "work"])
def test_the_output_is_refused_as_work_folder(dataset: Path, capfd: pytest.CaptureFixture[str], place: str) -> None:
    out = dataset.parent / "out"
    asked = [str(dataset), str(out), "participant", "--skip-bids-validation", "-w", str(out / place)]
    assert main(asked) == WRONG_CALL
    assert "is inside the output" in capfd.readouterr().err
    assert not out.exists()


def test_a_current_folder_that_was_removed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["a", "b", "participant"]) == WRONG_CALL
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_caches_need_no_home_folder(tmp_path: Path) -> None:
    """Of Pydra, Nipype, and Matplotlib; a user of a container or a service has no home folder that can be written."""
    script = (
        "import pathlib, sys\n"
        "from tau_workflows.cli import _caches_in\n"
        "with _caches_in(pathlib.Path(sys.argv[1])):\n"
        "    import matplotlib.pyplot, nipype\n"
        "    from pydra.utils.hash import Cache\n"
        "    print(Cache().persistent.location)\n"
    )
    keys = ("MPLCONFIGDIR", "NIPYPE_CONFIG_DIR", "PYDRA_HASH_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    env = {key: value for key, value in os.environ.items() if key not in keys} | {"HOME": "/proc/none"}
    call = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(call, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(tmp_path))


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "bids\x1b[2J"), str(tmp_path / "out"), "participant"]) == WRONG_CALL
    assert "\x1b" not in capfd.readouterr().err


def test_a_dataset_that_is_wrong_as_a_whole_is_refused(dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (dataset / "dataset_description.json").write_text(json.dumps({"Name": "no version"}))
    out, work = dataset.parent / "out", dataset.parent / "work"
    assert main([str(dataset), str(out), "participant", "-w", str(work)]) == WRONG_CALL
    err = capfd.readouterr().err
    assert "is not valid BIDS" in err
    assert "BIDSVersion" in err


def test_a_selection_that_leaves_nothing_is_code_3(dataset: Path) -> None:
    assert call(dataset, "--tracer-label", "PIB") == NOTHING_TO_DO


def test_hyphens_and_underscores_in_options_mean_the_same(dataset: Path) -> None:
    assert call(dataset, "--tracer_label", "PIB") == call(dataset, "--tracer-label=PIB") == NOTHING_TO_DO


@pytest.mark.parametrize(
    ("level", "options", "found", "belongs_to"),
    [
        ("participant", ["--epochs", "5"], "--epochs", "train"),
        ("participant", ["--synthesize", "all"], "--synthesize", "synthesize"),
        ("group", ["--suvr-window", "80", "100"], "--suvr-window", "participant"),
        ("synthesize", ["--epochs", "5"], "--epochs", "train"),
        ("train", ["--harmonize", "combat", "--systems", "unet"], "--systems", "train --compare"),
    ],
)
def test_an_option_of_another_level_is_refused_by_name(
    dataset: Path,
    capfd: pytest.CaptureFixture[str],
    level: str,
    options: list[str],
    found: str,
    belongs_to: str,
) -> None:
    assert main([str(dataset), str(dataset.parent / "out"), level, *options]) == WRONG_CALL
    said = capfd.readouterr().err
    assert f"{found} is not an option of the level {level}" in said
    assert belongs_to in said.partition("belongs to")[2]
    assert not (dataset.parent / "out").exists()


def listed(help_text: str) -> set[str]:
    """Return the names of the settings whose options stand in a help text."""
    flags = set(re.findall(r"^  (--?[\w-]+)", help_text, re.MULTILINE))
    return {doc.name for doc in documentation() if doc.flags[0] in flags}


@pytest.mark.parametrize("level", list(LEVELS))
def test_the_help_of_a_level_shows_what_the_level_reads(level: str, capfd: pytest.CaptureFixture[str]) -> None:
    read = settings_of("train --compare" if level == "train" else level)
    assert main(["bids", "out", level, "--help-all"]) == 0
    assert listed(capfd.readouterr().out) == read
    assert main(["bids", "out", level, "--help"]) == 0
    short = capfd.readouterr().out
    assert listed(short) < read
    assert len(short.splitlines()) < 60


def test_common_options_are_options_that_the_level_reads() -> None:
    for level, names in _COMMON.items():
        assert set(names) <= settings_of("train --compare" if level == "train" else level)


@pytest.mark.parametrize("level", list(LEVELS))
def test_the_help_takes_less_than_half_a_second_of_processor_time(level: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "tau_workflows", "bids", "out", level, "--help"], check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_the_levels_are_what_the_settings_know() -> None:
    assert set(_RUN) == set(READ_BY)
    assert list(LEVELS) == [name for name in _RUN if "--" not in name]


def test_options_may_stand_before_the_folders_and_a_folder_may_have_the_name_of_a_level(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(dataset.parent)
    (dataset.parent / "group").symlink_to(dataset)
    options = ["--tracer-label", "PIB", "--work-dir", "w", "--skip-bids-validation"]
    assert main([*options, "group", "out", "participant"]) == NOTHING_TO_DO
    assert main(["--epochs", "5", "group", "out", "participant"]) == WRONG_CALL
    assert "--epochs is not an option of the level participant" in capfd.readouterr().err


@pytest.mark.parametrize("name", sorted(doc.name for doc in documentation() if doc.many and not doc.pair))
def test_an_option_of_many_values_that_is_given_twice_has_all_of_them(name: str) -> None:
    (doc,) = (doc for doc in documentation() if doc.name == name)
    one, two = (doc.choices or ("1", "2"))[:2]
    option = f"--{name.replace('_', '-')}"
    given = build_parser().parse_args(["bids", "out", "participant", option, one, option, two])
    assert list(map(str, getattr(given, name))) == [str(doc.kind(one)), str(doc.kind(two))]


def test_a_window_that_is_given_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    window = ["--suvr-window", "80", "100"]
    assert build_parser().parse_args(["bids", "out", "participant", *window, *window]).suvr_window == [80, 100]
    with pytest.raises(SystemExit):
        build_parser().parse_args(["bids", "out", "participant", *window, "--suvr-window", "90", "110"])
    assert "given twice, as 80 100 and 90 110; expected: once" in capsys.readouterr().err


def test_two_files_of_settings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["bids", "out", "participant", "--config", "a.toml", "--config-file", "b.toml"])
    assert "given twice, as a.toml and b.toml; expected: once" in capsys.readouterr().err


def test_a_file_of_settings_may_begin_with_the_mark_of_an_editor(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[settings]\nsmooth_fwhm = 4\n", encoding="utf-8-sig")
    assert configuration(tmp_path / "own.toml", {}).settings.smooth_fwhm == 4


@pytest.mark.parametrize("place", ["bids", "out", "work"])
def test_a_loop_of_links_and_an_empty_path_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for given, told in ((str(tmp_path / "loop"), "symbolic links"), ("", "an argument of the call is empty")):
        bids, out, work = (given if name == place else str(tmp_path / name) for name in ("bids", "out", "work"))
        assert main([bids, out, "participant", "-w", work, "--dry-run"]) == WRONG_CALL
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line


@pytest.mark.parametrize("option", ["output", "--work-dir"])
@pytest.mark.parametrize("below", ["", "x/y"])
def test_a_folder_that_a_file_is_in_the_way_of_is_told_by_the_dry_run_too(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str, below: str
) -> None:
    (tmp_path / "file").write_text("")
    places = {"output": tmp_path / "out", "--work-dir": tmp_path / "work"}
    places[option] = tmp_path / "file" / below
    call_of = [str(dataset), str(places["output"]), "participant", "-w", str(places["--work-dir"]), "--dry-run"]
    assert main([*call_of, "--skip-bids-validation"]) == WRONG_CALL
    (line,) = capfd.readouterr().err.splitlines()
    assert f"{tmp_path / 'file'} is a file" in line


def test_a_mistyped_option_is_answered_with_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bids", "out", "participant", "--participant-lable", "01"])
    assert end.value.code == WRONG_CALL
    (line,) = capfd.readouterr().err.splitlines()
    assert "did you mean --participant-label?" in line


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["partcipant"], "participant"),
        (["participant", "--pvc", "sgtn"], "sgtm"),
        (["participant", "-w", "work", "--skull_strip_t1w", "forse"], "force"),
        (["group", "--smooth-fwmh", "4"], "--smooth-fwhm"),
        (["train", "--compile"], "--compile-network or --compare"),
        (["train", "--workers", "2"], "--loader-workers or --worker"),
    ],
)
def test_a_mistyped_level_choice_or_option_of_another_level_is_answered_with_what_was_meant(
    arguments: list[str], meant: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bids", "out", *arguments])
    assert end.value.code == WRONG_CALL
    (line,) = capfd.readouterr().err.splitlines()
    assert f"; did you mean {meant}?" in line
    assert "choose from" not in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--smooth-fwhm", "1", ""], "an argument is empty"),
        (["", ""], "an argument is empty"),
        (["--no-such", ""], "--no-such"),
        (["-"], "unrecognized arguments: -"),
    ],
)
def test_an_empty_argument_is_a_wrong_call_in_one_line(arguments, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bids", "out", "participant", *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("level", "option", "told"),
    [
        ("train", "--amp", "did you mean --mixed-precision?"),
        ("train", "--gpu", "did you mean --device?"),
        ("participant", "--cpu", "did you mean --nprocs?"),
        ("participant", "--threads=4", "did you mean --omp-nthreads or --nprocs?"),
        ("participant", "-j", "did you mean --nprocs?"),
        ("participant", "--Jobs", "did you mean --nprocs?"),
        ("participant", "--subject", "did you mean --participant-label?"),
        ("train", "--lr", "did you mean --learning-rate?"),
        ("participant", "--seed", "did you mean --random-seed?"),
        ("participant", "--force", "results are used again where nothing has changed"),
        ("participant", "--quiet", "messages go to standard error"),
        ("participant", "--fs-license-file", "no FreeSurfer license is needed"),
    ],
)
def test_options_of_other_programs_are_answered_with_ours(level, option, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["in", "out", level, option])
    assert ended.value.code == 2
    assert f"; {told}" in capsys.readouterr().err


def test_all_options_that_are_named_in_place_of_others_exist():
    flags = {flag for doc in documentation() for flag in doc.flags}
    assert {flag for own in OTHER_NAMES.values() for flag in own} <= flags
    taken = {flag.lstrip("-") for flag in flags}
    assert taken.isdisjoint(OTHER_NAMES.keys() | NOT_NEEDED.keys())


@pytest.mark.parametrize(
    ("given", "name", "value", "told"),
    [
        ("--smooth-fwhm 4 --smooth-fwhm 8", "smooth_fwhm", 8, "--smooth-fwhm is given twice, as 4.0 and 8.0"),
        ("--mem 4000 --mem-mb 8000", "mem_mb", 8000, "--mem-mb is given twice, as 4000 and 8000"),
        ("--worker slurm --worker cf", "worker", "cf", "--worker is given twice, as slurm and cf"),
        ("-w a --work-dir b", "work_dir", Path("b"), "--work-dir is given twice, as a and b"),
        (
            *("--motion-correction --no-motion-correction", "motion_correction", False),
            "--no-motion-correction is given twice, as True and False",
        ),
        ("--smooth-fwhm 4 --smooth-fwhm 4", "smooth_fwhm", 4, ""),
        ("--motion-correction --motion-correction", "motion_correction", True, ""),
    ],
)
def test_of_an_option_of_one_value_that_is_given_twice_the_last_counts_and_it_is_said(
    given: str, name: str, value: object, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    parsed = build_parser("participant").parse_args(["bids", "out", "participant", *given.split()])
    assert getattr(parsed, name) == value
    said = capfd.readouterr().err
    assert said == (f"tau-pipeline: {told}; the last counts\n" if told else "")


def test_a_choice_that_is_like_no_other_is_answered_with_all_choices(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bids", "out", "participant", "--worker", "xyz"])
    assert "choose from 'cf', 'slurm', 'sge'" in capfd.readouterr().err


@pytest.mark.parametrize("level", LEVELS)
def test_the_help_of_a_level_has_examples_that_are_accepted_and_the_exit_codes(
    level: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([level, "--help"]) == 0
    said = capfd.readouterr().out
    assert "exit codes: 0 all scans done" in said
    examples = re.findall(rf"^  tau-pipeline BIDS_DIR OUTPUT_DIR {level} (.*)$", said, re.MULTILINE)
    assert examples
    for example in examples:
        given = vars(build_parser(level).parse_args(["bids", "out", level, *shlex.split(example)]))
        options = {name for name, value in given.items() if value is not None}
        assert options & {doc.name for doc in documentation()} <= settings_of(level), example


def test_the_command_line_accepts_every_setting_and_nothing_else() -> None:
    options = {name for action in build_parser()._actions for name in action.option_strings}
    assert {flag for doc in documentation() for flag in doc.flags} <= options


def test_every_setting_is_listed_with_another_value_here() -> None:
    fields = {item.name: item.default for item in dataclasses.fields(Settings)}
    assert set(OTHER_VALUES) == set(fields)
    assert all(OTHER_VALUES[name] != default for name, default in fields.items())


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(
    dataset: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (dataset / "sub-02/anat/sub-02_T1w.nii.gz").unlink()
    before = sorted(dataset.parent.iterdir())
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(dataset.parent)
        assert main([str(dataset), "out", "participant", "--skip-bids-validation", "--dry-run"]) == 0
    assert sorted(dataset.parent.iterdir()) == before
    assert "table:" not in capfd.readouterr().out
    assert call(dataset, "--dry-run") == 0
    said = capfd.readouterr().out
    assert "2 scans: 1 to do, 0 done, 1 cannot be done" in said
    rows = [line.split("\t") for line in (dataset.parent / "work/dry_run.tsv").read_text().splitlines()]
    table = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    assert all(scan in said and table[scan]["notes"] in said for scan in table)
    assert table["sub-01_trc-AV1451_pet"]["t1w"] == "sub-01_T1w.nii.gz"
    assert table["sub-01_trc-AV1451_pet"]["window_min"] == "80-100"
    assert table["sub-02_trc-AV1451_pet"]["state"] == "cannot be done"
    assert "no T1w" in table["sub-02_trc-AV1451_pet"]["notes"]
    assert not (dataset.parent / "out").exists()


def test_the_methods_paragraph_names_the_settings(dataset: Path) -> None:
    assert call(dataset, "--boilerplate-only", "--ref-region", "Pons", "--smooth-fwhm", "4") == 0
    text = (dataset.parent / "out/logs/CITATION.md").read_text()
    assert "Pons" in text
    assert "4 mm FWHM" in text
    assert not list((dataset.parent / "out").glob("sub-*"))


def inputs_of_all_nodes(dataset: Path, settings: Settings) -> set[str]:
    """Every input of every node that is set when the graphs are built, but not the hash of the settings."""
    from tau_pipeline.bids.scans import find_participants
    from tau_pipeline.settings.configuration import Configuration
    from tau_workflows.plan.jobs import plan_participants

    participants = find_participants(dataset)
    plan = plan_participants(participants, dataset, dataset.parent / "out", Configuration(settings=settings))
    nodes = [node for job in plan.jobs for node in init_subject_wf(job)._create_flat_graph().nodes()]
    return {
        f"{node.fullname}.{name}={value}"
        for node in nodes
        for name, value in node.inputs.get().items()
        if name != "settings_hash"
    }


#: No step of a participant draws random numbers; trainings do. Longitudinal graphs are those of several sessions.
@pytest.mark.slow
def test_every_setting_reaches_a_step(dataset: Path) -> None:
    needed = {"psf": {"pvc": ("gtm",)}, "cortex_labels": {"surfaces": True}}
    needed |= {"psf_source": needed["psf"], "pvc_extracerebral": needed["psf"]}
    inputs = functools.cache(functools.partial(inputs_of_all_nodes, dataset))
    without = []
    for name in sorted(set(OTHER_VALUES) - {"random_seed", "longitudinal"}):
        base = Settings(**needed.get(name, {}))
        if inputs(dataclasses.replace(base, **{name: OTHER_VALUES[name]})) == inputs(base):
            without.append(name)
    assert without == []


@pytest.mark.parametrize("where", ["bids_dir", "output_dir", "--config-file", "--bids-filter-file", "-d", "-w"])
def test_a_path_that_no_file_system_takes_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    put = {"bids_dir": str(tmp_path / "bids"), "output_dir": str(tmp_path / "out")}
    (tmp_path / "bids/sub-01").mkdir(parents=True)
    (tmp_path / "bids/dataset_description.json").write_text("{}")
    long, options = "x" * 5000, [] if where == "-w" else ["-w", str(tmp_path / "work")]
    if where in put:
        put[where] = long
    else:
        options += [where, f"freesurfer={long}" if where == "-d" else long]
    assert main([*put.values(), "participant", "--skip-bids-validation", "--dry-run", *options]) == WRONG_CALL
    (told,) = capsys.readouterr().err.splitlines()
    assert "x" * 100 in told
    assert "File name too long" in told


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_offers_levels_options_of_the_level_and_choices(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    done = subprocess.run(
        [sys.executable, "-m", "tau_workflows", "--completion", shell], capture_output=True, text=True, check=True
    )
    script.write_text(done.stdout)
    if shell == "zsh":
        assert "compinit; }" in done.stdout, "zsh needs its own completion first"
        script.write_text(done.stdout.split("bashcompinit\n", 1)[1])

    def offered(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in ("tau-pipeline", *words))
        ask = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _tau_pipeline; "
        answer = subprocess.run(
            ["bash", "-c", ask + 'printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True, check=True
        )
        return set(answer.stdout.split())

    assert offered("bids", "out", "") == set(LEVELS)
    assert offered("bids", "out", "tr") == {"train"}
    assert offered("bids", "out", "participant", "--suvr-w") == {"--suvr-window"}
    assert offered("bids", "out", "participant", "--epo") == set()
    assert offered("bids", "out", "train", "--epo") == {"--epochs"}
    assert offered("bids", "out", "participant", "--skull-strip-t1w", "s") == {"skip"}
    assert offered("--vers") == {"--version"}


def test_the_library_runs_as_a_module_too() -> None:
    said = [
        subprocess.run([sys.executable, "-m", name, "--version"], capture_output=True, text=True, check=True).stdout
        for name in ("tau_pipeline", "tau_workflows")
    ]
    assert said[0] == said[1]
    assert said[0].startswith("tau-pipeline ")


@pytest.mark.parametrize("level", LEVELS)
def test_the_help_of_a_level_is_short(level: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([level, "--help"]) == 0
    assert len(capfd.readouterr().out.splitlines()) < 60
