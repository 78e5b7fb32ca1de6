"""Stand-ins for Docker, Podman and Apptainer, where there is no engine: a container's command is run on this machine.

Building checks that the file is there and that the context holds what it copies; running takes only the options that
are known here, wants its image built and its volumes there, and puts each path inside into its place outside.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ENGINES = ("docker", "podman", "apptainer")
#: Where the file of an image says what a container runs.
ENTRY_POINT = {True: r"%runscript\s+exec (\S+) ", False: r"^ENTRYPOINT \[\"(\S+)\"\]"}


def write_stand_ins(folder: Path) -> Path:
    """Write the programs to a folder that is to stand first in PATH; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for engine in ENGINES:
        program = folder / engine
        program.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"from container_engine import main\nsys.exit(main({engine!r}, sys.argv[1:], {str(folder)!r}))\n"
        )
        program.chmod(0o755)
    return folder


def main(engine: str, arguments: list[str], folder: str) -> int:
    """Do what a call asks for; returns the exit code."""
    images = Path(folder) / f"{engine}.json"
    entry_points: dict[str, str] = json.loads(images.read_text()) if images.is_file() else {}
    command, *rest = arguments
    if command == "build":
        image, file = build(engine, rest)
        found = re.search(ENTRY_POINT[engine == "apptainer"], file.read_text(encoding="utf-8"), re.MULTILINE)
        assert found, f"{file} has no entry point"
        images.write_text(json.dumps({**entry_points, image: found[1]}))
        return 0
    given = _run_parser(engine).parse_args(rest)
    if command != "run" or given.image not in entry_points:
        raise SystemExit(f"{engine}: no such command or image: {' '.join(arguments)}")
    return run(given, given.entrypoint or entry_points[given.image])


def build(engine: str, arguments: list[str]) -> tuple[str, Path]:
    """Check what an image would be built from; returns its name and its file."""
    parser = argparse.ArgumentParser(engine)
    if engine == "apptainer":
        parser.add_argument("image")
        parser.add_argument("file", type=Path)
        given = parser.parse_args(arguments)
        assert given.file.read_text(encoding="utf-8").startswith("Bootstrap:")
        return given.image, given.file
    parser.add_argument("-f", dest="file", type=Path, required=True)
    parser.add_argument("-t", dest="image", required=True)
    parser.add_argument("context", type=Path)
    given = parser.parse_args(arguments)
    for line in given.file.read_text(encoding="utf-8").splitlines():
        word, *sources = line.split()[:-1] or [""]
        if word == "COPY" and not sources[0].startswith("--from"):
            assert all((given.context / source).exists() for source in sources), line
    return given.image, given.file


def run(given: argparse.Namespace, program: str) -> int:
    """Run a container's program with the paths outside."""
    places = {}
    for volume in given.volumes:
        outside, inside, *_ = volume.split(":")
        assert Path(outside).exists(), f"{outside} is not there"
        places[inside] = outside

    def outside_of(argument: str) -> str:
        for inside, outside in places.items():
            if argument == inside or argument.startswith(f"{inside}/"):
                return outside + argument.removeprefix(inside)
        return argument

    command = [program, *(outside_of(argument) for argument in given.arguments)]
    return subprocess.run(command, check=False).returncode


def _run_parser(engine: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(engine, allow_abbrev=False)
    if engine == "apptainer":
        parser.add_argument("--cleanenv", action="store_true")
        parser.add_argument("--no-home", action="store_true")
        parser.add_argument("-B", dest="volumes", action="append", default=[])
        parser.set_defaults(entrypoint=None)
    else:
        parser.add_argument("--rm", action="store_true")
        parser.add_argument("--network", choices=["none", "host"])
        parser.add_argument("-u", "--user")
        parser.add_argument("-v", dest="volumes", action="append", default=[])
        parser.add_argument("--entrypoint")
    parser.add_argument("image")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser
