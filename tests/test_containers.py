"""The Dockerfile by the rules of a linter, the Apptainer file beside it, the pins, and what the wheel holds."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CONTAINERS = ROOT / "containers"
DOCKERFILE = (CONTAINERS / "Dockerfile").read_text(encoding="utf-8")
APPTAINER = (CONTAINERS / "apptainer.def").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def steps() -> Iterator[list[tuple[str, str]]]:
    sys.path.insert(0, str(CONTAINERS))
    try:
        from prove import instructions

        yield instructions(DOCKERFILE)
    finally:
        sys.path.remove(str(CONTAINERS))


def lint(steps: list[tuple[str, str]]) -> list[str]:
    """Rules of hadolint, by its numbers, that concern a file like this."""
    arguments = dict(rest.split("=", 1) for word, rest in steps if word == "ARG" and "=" in rest)
    found = [rule for word, rest in steps for rule in (*lint_word(word, rest), *lint_from(word, rest, arguments))]
    found += [rule for word, rest in steps if word == "RUN" for rule in lint_run(rest)]
    users = [rest for word, rest in steps if word == "USER"]
    if not users or users[-1] in ("root", "0"):
        found.append("DL3002: the last USER is root, or there is none")
    return found + [f"DL3024: {name} twice" for name in twice(steps)]


def lint_word(word: str, rest: str) -> list[str]:
    """Rules for one instruction."""
    rules = {
        "DL3020: COPY instead of ADD": word == "ADD",
        "DL4000: MAINTAINER is deprecated": word == "MAINTAINER",
        "DL3000: WORKDIR is not absolute": word == "WORKDIR" and not rest.startswith(("/", "$")),
        "DL3025: a command is not JSON": word in ("CMD", "ENTRYPOINT") and not rest.startswith("["),
    }
    return [rule for rule, broken in rules.items() if broken]


def lint_from(word: str, rest: str, arguments: dict[str, str]) -> list[str]:
    """Rules for the base image, with build arguments at their defaults."""
    if word != "FROM":
        return []
    image = re.sub(r"\$\{(\w+)\}", lambda m: arguments.get(m[1], ""), rest.split(maxsplit=1)[0])
    rules = {
        "DL3006: the image has no tag": ":" not in image and "@" not in image,
        "DL3007: latest": image.endswith(":latest"),
    }
    return [rule for rule, broken in rules.items() if broken]


def lint_run(command: str) -> list[str]:
    """Rules for one RUN."""
    rules = {
        "DL3003: WORKDIR instead of cd": re.search(r"(^|&& )cd ", command),
        "DL3004: sudo": re.search(r"\bsudo\b", command),
        "DL3008, DL3009, DL3015: apt-get without a pin, --no-install-recommends, update and removal of its lists": (
            "apt-get install" in command
            and not all(
                part in command
                for part in ("apt-get update", "--no-install-recommends", "rm -rf /var/lib/apt/lists", "=")
            )
        ),
        "DL3027: apt instead of apt-get": re.search(r"(^|&& )apt ", command),
        "DL3042: pip keeps a cache": re.search(r"pip (install|wheel) (?!.*--no-cache-dir)", command),
        "DL3013: pip installs what is not pinned": re.search(r"pip install (?!.*--constraint)", command),
        "DL3046: useradd without --no-log-init": "useradd" in command and "--no-log-init" not in command,
        "DL4006: a pipe without pipefail": re.search(r"(?<!\|)\|(?!\|)", command),
    }
    return [rule for rule, broken in rules.items() if broken]


def twice(steps: list[tuple[str, str]]) -> set[str]:
    names = [rest.rsplit(maxsplit=1)[-1] for word, rest in steps if word == "FROM" and " AS " in rest]
    return {name for name in names if names.count(name) > 1}


def test_the_dockerfile_keeps_the_rules(steps: list[tuple[str, str]]) -> None:
    assert lint(steps) == []


@pytest.mark.parametrize(
    ("word", "rest", "rule"),
    [
        ("FROM", "python", "DL3006"),
        ("FROM", "python:latest", "DL3007"),
        ("ADD", "a b", "DL3020"),
        ("WORKDIR", "src", "DL3000"),
        ("ENTRYPOINT", "tau-pipeline", "DL3025"),
        ("RUN", "cd /src && make", "DL3003"),
        ("RUN", "sudo make", "DL3004"),
        ("RUN", "apt-get install -y gcc", "DL3008"),
        ("RUN", "pip install --no-cache-dir x", "DL3013"),
        ("RUN", "pip install --constraint c x", "DL3042"),
        ("RUN", "useradd tau", "DL3046"),
        ("RUN", "cat x | sh", "DL4006"),
        ("USER", "root", "DL3002"),
    ],
)
def test_a_broken_rule_is_found(steps: list[tuple[str, str]], word: str, rest: str, rule: str) -> None:
    assert any(rule in text for text in lint([*steps, (word, rest)]))


def test_the_entry_point_is_the_program_and_the_home_is_everybodys(steps: list[tuple[str, str]]) -> None:
    last = dict(steps)
    assert json.loads(last["ENTRYPOINT"]) == ["tau-pipeline"]
    env = dict(part.split("=", 1) for part in shlex.split(last["ENV"]))
    made = " ".join(rest for word, rest in steps if word == "RUN")
    assert re.search(rf"chmod 1777 [^&]*{env['HOME']}", made)
    assert {"NO_ET", "NIPYPE_NO_ET", "MPLBACKEND", "PYTHONNOUSERSITE"} <= set(env)


def test_the_image_is_labelled(steps: list[tuple[str, str]]) -> None:
    labels = " ".join(rest for word, rest in steps if word == "LABEL")
    assert all(f"org.opencontainers.image.{name}=" in labels for name in ("title", "description", "licenses"))


def test_everything_that_is_copied_is_there_and_goes_to_the_builder(steps: list[tuple[str, str]]) -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for word, rest in steps:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert source in let_in


def test_apptainer_has_the_same_steps(steps: list[tuple[str, str]]) -> None:
    (base,) = {rest.split("=", 1)[1] for word, rest in steps if word == "ARG" and rest.startswith("BASE=")}
    assert re.findall(r"^From: (\S+)$", APPTAINER, re.MULTILINE) == [base, base]
    build = next(rest for word, rest in steps if word == "RUN")
    post = APPTAINER.split("%post\n", 1)[1].split("\n\n", 1)[0]
    lines = [line.strip() for line in post.splitlines() if not line.strip().startswith("TORCH_INDEX=")]
    assert lines == [part.strip() for part in re.split(r"\s+&& ", build)]
    env = dict(part.split("=", 1) for part in shlex.split(dict(steps)["ENV"]))
    exported = dict(re.findall(r"export (\w+)=(\S+)", APPTAINER))
    assert exported == {name: value for name, value in env.items() if name != "HOME"}


def needed(name: str, known: dict[str, str]) -> dict[str, str]:
    """Installed versions of a package's dependencies, and theirs, by plain name."""
    for text in requires(name) or []:
        requirement = Requirement(text)
        plain = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if plain in known or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        known[plain] = version(requirement.name).split("+")[0]
        needed(requirement.name, known)
    return known


def test_every_package_that_the_program_needs_is_pinned() -> None:
    lines = (CONTAINERS / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert sorted(set(needed("tau-pipeline", {})) - set(pins)) == []
    for text in requires("tau-pipeline") or []:
        requirement = Requirement(text)
        if requirement.marker is None:
            assert requirement.specifier.contains(pins[requirement.name.lower()], prereleases=True)


def test_babs_finds_the_sections_that_its_init_asks_for() -> None:
    lines = (CONTAINERS / "babs.yaml").read_text(encoding="utf-8").splitlines()
    sections = {line.partition(":")[0] for line in lines if line[:1].isalpha()}
    assert {
        "input_datasets",
        "zip_foldernames",
        "cluster_resources",
        "script_preamble",
        "job_compute_space",
    } <= sections
    assert any("origin_url:" in line for line in lines)
    assert any("path_in_babs:" in line for line in lines)


def test_descriptors_for_other_engines_name_options_of_the_command_line() -> None:
    known = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    descriptor = json.loads((CONTAINERS / "nipoppy" / "descriptor.json").read_text(encoding="utf-8"))
    flags = {one["command-line-flag"] for one in descriptor["inputs"] if "command-line-flag" in one}
    babs = (CONTAINERS / "babs.yaml").read_text(encoding="utf-8")
    arguments = re.search(r"bids_app_args:\n((?:    .*\n)+)", babs)
    assert arguments is not None
    flags |= set(re.findall(r"^    (-[\w-]+):", arguments[1], re.MULTILINE))
    assert len(flags) > 5
    assert [flag for flag in flags if f"`{flag}`" not in known] == []
    # Each input has its place in the command, and the invocation names inputs only.
    keys = {one["id"]: one["value-key"] for one in descriptor["inputs"]}
    assert set(descriptor["command-line"].split()[1:]) == set(keys.values())
    invocation = json.loads((CONTAINERS / "nipoppy" / "invocation.json").read_text(encoding="utf-8"))
    assert set(invocation) <= set(keys)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel that is built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.fail(done.stderr)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


@pytest.mark.slow
def test_the_wheel_has_code_tables_recipes_and_templates(wheel: set[str]) -> None:
    places = {
        ROOT / "tau_pipeline": "tau_pipeline",
        ROOT / "workflows" / "tau_workflows": "tau_workflows",
        ROOT / "atlases": "tau_pipeline/atlases",
        ROOT / "workflows" / "recipes": "tau_workflows/recipes",
    }
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    names = [ROOT / line for line in tracked.stdout.splitlines()]
    wanted = {
        f"{inside}/{file.relative_to(folder).as_posix()}"
        for folder, inside in places.items()
        for file in names
        if folder in file.parents and file.is_file()
    }
    assert len(wanted) > 50, "git does not tell the files of this checkout"
    assert sorted(wanted - wheel) == []


@pytest.mark.slow
def test_the_wheel_has_nothing_else(wheel: set[str]) -> None:
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == {"tau_pipeline", "tau_workflows"}
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in wheel)
