"""Follow the documentation word for word in an empty environment, and write what happened to a log.

    python tests/follow_docs.py FOLDER [tutorial|readme|container ...] [--path FOLDER]

A fresh clone of the last commit goes to ``FOLDER/clone``. Every command of a page is then typed into one shell that
begins with an empty environment (``env -i``, but for pip's own ``PIP_…``) and an empty home, in the order of the page:
the blocks in Python and R too, as files. Nothing is replaced.
The first command that fails ends it.

``tutorial`` is docs/tutorial/first-hour.md. ``readme`` is the README, with a new virtual environment entered before it
and a simulated cohort in ``/data``, whose results are from its truth but for the participants that the README computes;
what is left out of it, and why, is in ``LEFT_OUT``. ``container`` is docs/how-to/container.md, without the blocks for
engines that are not installed; it writes to ``/data`` as well. The log is ``FOLDER/NAME.log``; names of folders and of
package hosts are taken out, and progress bars are left at their last state. Programs in the folder of ``--path`` stand
before those of the machine.
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
from container_engine import ENGINES
from doc_blocks import ROOT, RUN, blocks
from truth_results import results_from_truth

from tau_pipeline.simulate.dataset import Simulation, simulate_dataset

PAGES = {"tutorial": "docs/tutorial/first-hour.md", "readme": "README.md", "container": "docs/how-to/container.md"}
DATA = Path("/data")
#: Commands of the README that are not followed, by their beginning.
LEFT_OUT = {
    "make test": "every change runs it before it lands",
    "tau-pipeline /data/bids /data/derivatives train": "it downloads the weights of ImageNet's VGG-16",
    "tau-pipeline /data/bids /data/derivatives synthesize": "it needs the model of the training",
}
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
    if name == "readme":
        environment = shlex.quote(str(folder / "environment"))
        lines += [f"python3 -m venv {environment}", f". {environment}/bin/activate"]
    for number, block in enumerate(blocks(clone / PAGES[name])):
        if block.language == "bash":
            kept, notes = parted(block.text, name, path)
            lines += [f"echo {shlex.quote(note)}; echo" for note in notes]
            lines += typed(kept, "".join(f"$ {line}\n" for line in kept.splitlines())) if kept else []
        elif block.language in RUN:
            ending, program = PROGRAMS[block.language]
            file = folder / f"{name}_{number}.{ending}"
            file.write_text(block.text, encoding="utf-8")
            shown = f"$ {program} <<the {block.language} block of the page\n"
            lines += typed(f"{program} {shlex.quote(str(file))}\n", shown)
    return "\n".join(lines) + "\n"


def parted(text: str, name: str, path: str) -> tuple[str, list[str]]:
    """A block's commands that are followed, and a sentence on each that is not."""
    if name == "container":
        absent = [engine for engine in ENGINES if f"{engine} " in text and not shutil.which(engine, path=path)]
        notes = [f"Not followed, since there is no {engine} here: {text.splitlines()[0]} ..." for engine in absent]
        return ("" if absent else text), notes
    if name == "readme":
        lines = text.splitlines(keepends=True)
        notes = [f"Not followed, since {why}: {command}" for command, why in LEFT_OUT.items() if command in text]
        return "".join(line for line in lines if not line.startswith((*LEFT_OUT,))), notes
    return text, []


def typed(text: str, shown: str) -> list[str]:
    """Show a command, run it, and tell how long it took."""
    return [f"printf %s {shlex.quote(shown)}", "SECONDS=0", text, 'echo "[ended after $SECONDS s]"', "echo"]


def make_cohort() -> None:
    """Simulate the README's cohort, with results from the truth for all but the participants that it computes."""
    bids, derivatives = DATA / "bids", DATA / "derivatives"
    if DATA.exists():
        raise SystemExit(f"{DATA} is there already, and nothing in it is to be lost; move it")
    simulate_dataset(bids, Simulation(30, seed=1, voxel_mm=2.5))
    results_from_truth(bids, derivatives)
    for participant in ("01", "02"):
        shutil.rmtree(derivatives / f"sub-{participant}")


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
    if name == "readme":
        make_cohort()
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
