"""Follow the Dockerfile without a container engine: its own lines, in roots made by debootstrap, entered by chroot.

    python containers/prove.py FOLDER [--base ROOT] [--bind PATH ...]

``--base`` is a root with Debian bookworm, python3, python3-venv and ca-certificates; without it debootstrap makes one.
A ``python`` is put where the official image has it. ``--bind`` are folders and files of this machine that pip needs for
its index; they are mounted in the build stage only, where variables PIP_… of the caller hold too. RUN, COPY, ENV, ARG,
WORKDIR and ENTRYPOINT do what they do in a build; then the entry point is run without a network, as a user who is in no
list, once for its version and once for one simulated participant. Needs root. What it does not prove: the base image
itself, layers, and an engine.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions in order, with continued lines joined: ``("RUN", "python -m venv …")``."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


@dataclass
class Stage:
    """A root that is being built, and what holds in it."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
    workdir: str = "/"
    entry: list[str] = field(default_factory=list)
    binds: list[Path] = field(default_factory=list)

    def run(self, command: list[str], *, user: str | None = None, network: bool = True) -> None:
        """Run a command inside; raises CalledProcessError if it fails."""
        # A separate process tree and separate mounts, as in an engine: /proc exists, and nothing stays mounted.
        spaces = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={self.root}/proc"]
        for path in self.binds:
            place = self.root / str(path).lstrip("/")
            place.mkdir(parents=True, exist_ok=True) if path.is_dir() else place.touch()
        mounts = "; ".join(f"mount --bind {path} {self.root}{path}" for path in self.binds) or "true"
        spaces += [*([] if network else ["--net"]), "sh", "-ec", f'{mounts}; exec "$@"', "sh"]
        inside = ["chroot", *([f"--userspec={user}"] if user else []), str(self.root), "env", "-i"]
        inside += [f"{name}={value}" for name, value in self.env.items()]
        inside += ["sh", "-c", f'cd {shlex.quote(self.workdir)} && exec "$@"', "sh", *command]
        subprocess.run([*spaces, *inside], check=True, stdin=subprocess.DEVNULL)

    def copy(self, source: Path, target: str) -> None:
        """Copy a file or the content of a folder, as COPY does."""
        place = self.root / target.lstrip("/")
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
            return
        if target.endswith("/"):
            place /= source.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, place)


class Build:
    """Follows the instructions, one method for each that does something.

    Parameters
    ----------
    folder
        Where the roots of the stages are made.
    base
        Root that stands for the base image.
    binds
        What pip needs of this machine.
    """

    def __init__(self, folder: Path, base: Path, binds: list[Path]) -> None:
        self.folder, self.base, self.binds = folder, base, binds
        self.stages: dict[str, Stage] = {}
        self.stage = Stage(base)

    def follow(self, text: str) -> Stage:
        """Do everything in order; returns the last stage."""
        for word, rest in instructions(text):
            say(f"{word} {rest[:110]}")
            getattr(self, f"do_{word.lower()}", self.nothing)(rest)
        return self.stage

    def nothing(self, rest: str) -> None:
        """Ignore LABEL, CMD and USER: they have no effect before the image is run."""

    def do_arg(self, rest: str) -> None:
        """Give a build argument its default."""
        name, _, value = rest.partition("=")
        self.stage.env.setdefault(name, value.strip('"'))

    def do_from(self, rest: str) -> None:
        """Begin a stage with a copy of the base."""
        name = rest.rsplit(maxsplit=1)[-1] if " AS " in rest else "final"
        self.stage = self.stages[name] = Stage(fresh_root(self.base, self.folder / name))
        if name != "final":
            self.stage.binds = self.binds
            self.stage.env |= {key: value for key, value in os.environ.items() if key.startswith("PIP_")}

    def do_copy(self, rest: str) -> None:
        """Copy from the source or from another stage."""
        *sources, target = (part for part in rest.split() if not part.startswith("--"))
        origin = re.match(r"--from=(\w+)", rest)
        root = self.stages[origin[1]].root if origin else SOURCE
        for source in sources:
            self.stage.copy(root / source.lstrip("/"), target)

    def do_run(self, rest: str) -> None:
        """Run a command with the shell."""
        self.stage.run(["sh", "-c", rest])

    def do_env(self, rest: str) -> None:
        """Set variables."""
        self.stage.env |= dict(part.split("=", 1) for part in shlex.split(rest))

    def do_workdir(self, rest: str) -> None:
        """Make a folder, and work there."""
        self.stage.workdir = rest
        (self.stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def do_entrypoint(self, rest: str) -> None:
        """Remember what is to be run."""
        self.stage.entry = re.findall(r'"([^"]+)"', rest)


def fresh_root(base: Path, root: Path) -> Path:
    """Copy the base, with ``python`` where the official image has it, and what an engine gives: hosts, /dev/shm."""
    if root.exists():
        shutil.rmtree(root)
    subprocess.run(["cp", "-a", str(base), str(root)], check=True)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    shutil.copy2("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy2("/etc/hosts", root / "etc/hosts")
    (root / "dev/shm").mkdir(parents=True, exist_ok=True)
    (root / "dev/shm").chmod(0o1777)
    return root


def prove(stage: Stage) -> None:
    """Run the entry point as nobody's user without a network: the version, a simulated participant, its table."""
    user = "12345:12345"
    stage.run([*stage.entry, "--version"], user=user, network=False)
    place = stage.root / "data"
    place.mkdir(exist_ok=True)
    os.chown(place, 12345, 12345)
    stage.run(["tau-simulate", "/data/bids", "--participants", "1", "--voxel-size", "4"], user=user, network=False)
    call = ["/data/bids", "/data/out", "participant", "--work-dir", "/data/work", "--nprocs", "2"]
    stage.run([*stage.entry, *call], user=user, network=False)
    tables = list(place.glob("out/sub-01/pet/*_rois.tsv"))
    if not tables or tables[0].stat().st_uid != 12345:
        raise SystemExit("there is no table of the simulated participant, or it is somebody else's")
    rows = len(tables[0].read_text(encoding="utf-8").splitlines()) - 1
    say(f"a table of {rows} rows, made without a network by uid 12345")
    size = subprocess.run(["du", "-sm", str(stage.root / "opt/tau")], capture_output=True, text=True, check=True)
    say(f"/opt/tau has {size.stdout.split()[0]} MB")


def say(text: str) -> None:
    """Tell what is done."""
    sys.stderr.write(f"prove: {text}\n")


def main() -> int:
    """Make the base if there is none, follow the Dockerfile, prove."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the roots are made")
    parser.add_argument("--base", type=Path, help="a root that is there already")
    parser.add_argument("--bind", type=Path, nargs="*", default=[], help="what pip needs of this machine")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    base = given.base or given.folder / "base"
    if not (base / "usr/bin/python3").exists():
        packages = "--include=ca-certificates,python3,python3-venv"
        subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", str(base)], check=True)
    text = (SOURCE / "containers" / "Dockerfile").read_text(encoding="utf-8")
    prove(Build(given.folder, base, given.bind).follow(text))
    say("all of it holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
