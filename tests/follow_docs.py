"""Follow the documentation word for word in an empty environment, and write what happened to a log.

    python tests/follow_docs.py FOLDER [tutorial|demo|container ...] [--path FOLDER]

A fresh clone of the last commit goes to ``FOLDER/clone``. Every command of a page is then typed into one shell that
begins with an empty environment (``env -i``, but for pip's own ``PIP_…``) and an empty home, in the order of the page:
the blocks in Python and R too, as files. Nothing is replaced, and the blocks that the tests cannot run are run here.
The first command that fails ends it.

``tutorial`` is docs/tutorial/first-hour.md, ``demo`` the first command of the README, ``container``
docs/how-to/container.md, whose blocks for engines that are not installed are left out; it writes to ``/data``. The log
is ``FOLDER/NAME.log``; names of folders and of package hosts are taken out, and progress bars are left at their last
state. Programs in the folder of ``--path`` stand before those of the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from doc_blocks import ROOT, RUN, blocks

PAGES = {"tutorial": "docs/tutorial/first-hour.md", "demo": "README.md", "container": "docs/how-to/container.md"}
ENGINES = ("docker", "podman", "apptainer")
#: How lines begin in which pip tells of one package.
OF_PIP = (
    "Collecting |Downloading |━|Processing /|Requirement already|Using cached|Getting requirements|Preparing metadata|"
    "Installing (build|collected)|Building wheel|Created wheel|Stored in|Running setup|Attempting uninstall|"
    "Found existing|Uninstalling|Successfully (un)?installed|DEPRECATION"
)
PATH = "/usr/local/bin:/usr/bin:/bin"
PROGRAMS = {"python": ("py", "python"), "r": ("R", "Rscript --vanilla")}


def script_of(name: str, clone: Path, folder: Path, path: str = PATH) -> str:
    """One shell script of all commands; each is shown before it runs, with the time that it took after it."""
    lines = ["set -euo pipefail", f"cd {shlex.quote(str(clone))}"]
    for number, block in enumerate(blocks(clone / PAGES[name])):
        if block.language not in RUN:
            continue
        absent = [engine for engine in ENGINES if f"{engine} " in block.text and not shutil.which(engine, path=path)]
        if name == "container" and absent:
            lines += [f"printf '%s\\n\\n' 'Not followed, for there is no {absent[0]} here: {block.commands[0]} ...'"]
            continue
        if block.language == "bash":
            text = block.text
            if name == "demo":
                text = next(line for line in text.splitlines(keepends=True) if line.startswith("make demo"))
            shown = "".join(f"$ {line}\n" for line in text.splitlines())
        else:
            ending, program = PROGRAMS[block.language]
            file = folder / f"{name}_{number}.{ending}"
            file.write_text(block.text, encoding="utf-8")
            text = f"{program} {shlex.quote(str(file))}\n"
            shown = f"$ {program} <<the {block.language} block of the page\n"
        lines += [f"printf %s {shlex.quote(shown)}", "SECONDS=0", text, 'echo "[ended after $SECONDS s]"', "echo"]
        if name == "demo":
            break
    return "\n".join(lines) + "\n"


def scrubbed(text: str, folder: Path) -> str:
    """The log without this machine's names (folders, hosts, indexes), steps of progress bars, and pip's packages."""
    text = re.sub(r"[^\n]*\r(?!\n)|\x1b\[\d*m", "", text)
    text = re.sub(rf"^\s*({OF_PIP})[^\n]*\n", "", text, flags=re.MULTILINE)
    text = text.replace(str(folder), "FOLDER").replace(str(ROOT), "SOURCE")
    text = re.sub(r"^(Looking in (indexes|links)|WARNING: Location).*\n", "", text, flags=re.MULTILINE)
    text = re.sub(rf"(?<![\w.]){re.escape(tempfile.gettempdir())}/\S+", "TEMPORARY", text)
    return re.sub(r"(https?|file)://\S+", "URL", text)


def follow(name: str, folder: Path, path: str) -> int:
    """Clone, run, write the log; returns the exit code of the shell."""
    clone, home = folder / "clone", folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    if not clone.is_dir():
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    commit = subprocess.run(
        ["git", "-C", str(clone), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    script = folder / f"{name}.sh"
    script.write_text(script_of(name, clone, folder, path), encoding="utf-8")
    # Where pip finds its packages is the machine's business.
    own = [f"{key}={value}" for key, value in os.environ.items() if key.startswith("PIP_")]
    own += [f"HOME={home}", f"PATH={path}", "LANG=C.UTF-8"]
    started = time.monotonic()
    done = subprocess.run(
        ["env", "-i", *own, "bash", str(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    head = (
        f"{PAGES[name]} of commit {commit}, followed word for word in an empty environment.\n"
        f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}. Taken out: names of "
        "folders and package hosts, steps of progress bars, pip's packages.\n\n"
    )
    tail = f"exit code {done.returncode} after {(time.monotonic() - started) / 60:.1f} minutes\n"
    (folder / f"{name}.log").write_text(head + scrubbed(done.stdout, folder) + tail, encoding="utf-8")
    return done.returncode


def main() -> int:
    """Follow the pages that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an empty folder")
    parser.add_argument("names", nargs="*", default=["tutorial"], choices=list(PAGES), help="what to follow")
    parser.add_argument("--path", type=Path, help="folder of programs that stand before those of the machine")
    given = parser.parse_args()
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    path = f"{given.path.absolute()}{os.pathsep}{PATH}" if given.path else PATH
    return max(follow(name, folder, path) for name in given.names)


if __name__ == "__main__":
    sys.exit(main())
