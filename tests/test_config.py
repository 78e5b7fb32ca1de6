import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tau_pipeline.errors import DamagedFileError, MissingInputError, SettingError
from tau_pipeline.settings.configuration import SECTIONS, Configuration, configuration, documentation
from tau_pipeline.settings.execution import Execution
from tau_pipeline.settings.participant import ADDITIONS, Selection, Settings


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_field_of_every_section_is_documented_once():
    docs = documentation()
    fields = [(section, item.name) for section, cls in SECTIONS.items() for item in dataclasses.fields(cls)]
    assert [(doc.section, doc.name) for doc in docs] == fields
    assert all(doc.help.endswith(".") for doc in docs)
    flags = [flag for doc in docs for flag in doc.flags]
    assert len(flags) == len(set(flags))
    names = [doc.name for doc in docs]
    assert len(names) == len(set(names)), "a name must tell its section"


def test_the_documentation_says_what_a_parser_needs():
    docs = {doc.name: doc for doc in documentation()}
    assert docs["skull_strip_t1w"].choices == ("auto", "skip", "force")
    assert (docs["suvr_window"].kind, docs["suvr_window"].pair, docs["suvr_window"].unit) == (float, True, "min")
    assert (docs["ref_region"].kind, docs["ref_region"].many, docs["ref_region"].pair) == (str, True, False)
    assert docs["work_dir"].flags == ("--work-dir", "-w")
    assert docs["nprocs"].kind is int


def test_a_file_gives_what_it_says_and_defaults_elsewhere(tmp_path):
    found = configuration(
        toml(
            tmp_path,
            """
            [settings]
            suvr_window = [75, 105]
            ref_region = ["Pons", "8+47"]
            target_fwhm = 8
            [execution]
            work_dir = "/scratch/w"
            [selection]
            participant_label = ["sub-01", "02"]
            """,
        )
    )
    assert found == Configuration(
        Settings(suvr_window=(75.0, 105.0), ref_region=("Pons", "8+47"), target_fwhm=8.0),
        Execution(work_dir=Path("/scratch/w")),
        Selection(participant_label=("01", "02")),
    )


def test_the_command_line_wins_over_the_file_and_none_means_not_given(tmp_path):
    path = toml(tmp_path, "[settings]\nsmooth_fwhm = 4\nrandom_seed = 7\n")
    found = configuration(path, {"smooth_fwhm": 6, "random_seed": None, "nprocs": 3})
    assert (found.settings.smooth_fwhm, found.settings.random_seed, found.execution.nprocs) == (6.0, 7, 3)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[settings]\nsuvr_windw = [80, 100]", "there is no setting 'suvr_windw'; did you mean 'suvr_window'?"),
        ("[setings]\n", "there is no section 'setings'; did you mean 'settings'?"),
        ("[settings]\nnprocs = 2", "there is no setting 'nprocs'"),
        ("smooth_fwhm = 4", "there is no section 'smooth_fwhm'; known: settings, execution, selection"),
        ("settings = 4", "there is no section 'settings'"),
    ],
)
def test_an_unknown_name_in_a_file_is_refused_with_the_nearest_known_one(tmp_path, text, part):
    with pytest.raises(SettingError) as caught:
        configuration(toml(tmp_path, text))
    assert part in str(caught.value)


def test_an_unknown_override_is_refused():
    with pytest.raises(SettingError, match="did you mean 'smooth_fwhm'"):
        configuration(None, {"smoth_fwhm": 3})


def test_a_missing_or_damaged_file_is_one_sentence(tmp_path):
    with pytest.raises(MissingInputError, match="there is no configuration file"):
        configuration(tmp_path / "absent.toml")
    with pytest.raises(DamagedFileError, match="is not valid TOML"):
        configuration(toml(tmp_path, "[settings\n"))


def test_every_bound_of_every_setting_is_enforced_and_documented():
    n_bounds = 0
    for doc in documentation():
        (item,) = (item for item in dataclasses.fields(SECTIONS[doc.section]) if item.name == doc.name)
        assert bool(doc.range) == bool(item.metadata["bounds"])
        for kind, bound in item.metadata["bounds"].items():
            outside = bound + {"at_least": -1, "at_most": 1, "above": 0, "below": 0}[kind]
            with pytest.raises(SettingError, match=f"{doc.name} is {outside}.*expected: .*{re.escape(doc.range)}"):
                SECTIONS[doc.section](**{doc.name: outside})
            n_bounds += 1
    assert n_bounds > 30


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"suvr_window": [100, 80]}, "suvr_window is [100.0, 80.0]; expected: two times in minutes"),
        ({"suvr_window": [80]}, "suvr_window is [80]; expected: a list of 2 numbers"),
        ({"suvr_window": [4800, 6000]}, "these look like seconds"),
        ({"suvr_window": "80 100"}, "suvr_window is '80 100'"),
        ({"smooth_fwhm": -1}, "smooth_fwhm is -1.0"),
        ({"smooth_fwhm": float("nan")}, "a finite number"),
        ({"smooth_fwhm": "4"}, "smooth_fwhm is '4'; expected: a number"),
        ({"target_fwhm": 0}, "target_fwhm is 0.0"),
        ({"random_seed": 1.5}, "random_seed is 1.5; expected: a whole number"),
        ({"random_seed": True}, "random_seed is True"),
        ({"random_seed": -1}, "random_seed is -1"),
        ({"motion_correction": 1}, "motion_correction is 1; expected: true or false"),
        ({"ref_region": "Pons"}, "ref_region is 'Pons'; expected: a list of texts"),
        ({"ref_region": []}, "at least one"),
        ({"ref_region": ["Pons", "Pons"]}, "each once"),
        ({"skull_strip_t1w": "maybe"}, "skull_strip_t1w is 'maybe'; expected: one of auto, skip, force"),
        ({"skull_strip_t1w": None}, "skull_strip_t1w is None"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(values, message):
    with pytest.raises(SettingError) as caught:
        Settings(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"nprocs": 0}, {"mem_mb": -5}, {"verbose": -1}, {"worker": "pbs"}, {"work_dir": ""}]
)
def test_a_wrong_way_to_run_is_refused(values):
    with pytest.raises(SettingError, match=next(iter(values))):
        Execution(**values)


def test_labels_lose_their_prefix_and_repeats():
    found = Selection(participant_label=["sub-01", "01"], session_label=["ses-a"], run_label=["run-1"])
    assert (found.participant_label, found.session_label, found.run_label) == (("01",), ("a",), ("1",))
    with pytest.raises(SettingError, match="letters and digits"):
        Selection(tracer_label=["AV-1451"])


def test_the_hash_is_equal_for_equal_settings_and_differs_for_each_changed_field():
    assert Settings(smooth_fwhm=4).hash() == Settings(smooth_fwhm=4.0).hash()
    changed = {
        "skull_strip_t1w": "skip",
        "orientation": "sform",
        "suvr_window": (80, 100),
        "ref_region": ("Pons",),
        "smooth_fwhm": 1.0,
        "target_fwhm": 8.0,
        "match_visits": True,
        "min_measured_fraction": 0.7,
        "extent_suvr": 1.4,
        "pvc": ("gtm",),
        "psf": (6.0,),
        "psf_source": "scanner",
        "pvc_extracerebral": True,
        "cortex_labels": "hybrid",
        "longitudinal": "own-tissue",
        "motion_correction": False,
        "random_seed": 1,
    }
    assert changed.keys() | set(ADDITIONS) == {item.name for item in dataclasses.fields(Settings)}
    assert Settings(output_spaces=("MNI152NLin6Asym",), surfaces=True).hash() == Settings().hash()
    hashes = {Settings().hash(), *(Settings(**{name: value}).hash() for name, value in changed.items())}
    assert len(hashes) == 1 + len(changed)
    assert all(len(text) == 12 and int(text, 16) >= 0 for text in hashes)


def test_the_hash_is_the_same_in_another_python_process():
    code = "from tau_pipeline.settings.participant import Settings; print(Settings(random_seed=3).hash())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Settings(random_seed=3).hash()


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().smooth_fwhm = 3  # type: ignore[misc]


@pytest.mark.parametrize("recipe", sorted((Path(__file__).parents[1] / "workflows" / "recipes").glob("*.toml")))
def test_every_shipped_recipe_can_be_read_and_says_something_other_than_the_defaults(recipe: Path) -> None:
    assert configuration(recipe).settings != Settings()
