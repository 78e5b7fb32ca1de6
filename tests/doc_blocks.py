"""The commands and snippets of the documentation: found in the pages, and run one after the other.

A comment right before a block changes how it is run. It is seen in the page's source alone:

``<!-- run by: FILE -->``
    The block runs elsewhere: each of its commands stands in this script, a line of its own.
``<!-- needs: NAME -->``
    The block submits jobs or runs containers: it is run with a SLURM on this machine (slurm), with a stand-in for Grid
    Engine (sge), or with stand-ins for engines of containers (engine).
``<!-- run with: A => B -->``
    A is replaced by B, to have smaller numbers. A must be there; SOURCE in B is the folder of this source.
``<!-- file: NAME -->``
    The block is the content of a file; it is written, and run as well if it is a program.
``<!-- exit code: N -->``
    The block is meant to end with this code.
``<!-- then: NAME -->``
    What the test does after the block; see `tests/test_docs.py`.

The paths ``/data/bids``, ``/data/derivatives``, ``/data/freesurfer`` and ``/data/work`` stand for the reader's own;
here they are those of the tutorial's study. ``workflows/recipes`` is the one of this source.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Languages that are run, that are data, and that are only shown.
RUN, DATA, SHOWN = ("bash", "python", "r"), ("toml", "json"), ("text",)
MARKS = ("run by", "needs", "run with", "file", "exit code", "then")
#: A block that runs longer than this hangs.
TIMEOUT_S = 600
FENCE = re.compile(r"((?:^<!--[^\n]*-->\n)*)^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- ([a-z ]+): (.*?) -->")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, with the comments before it."""

    page: Path
    line: int
    language: str
    text: str
    marks: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Page and line."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def mark(self, name: str) -> str | None:
        """The value of a comment, None without it."""
        return dict(self.marks).get(name)

    @property
    def code(self) -> str:
        """The text as it is run."""
        text = self.text
        for name, value in self.marks:
            if name == "run with":
                old, _, new = value.partition(" => ")
                if old not in text:
                    raise AssertionError(f"{self.name}: there is no {old!r} to replace in the block")
                text = text.replace(old, new.replace("SOURCE", str(ROOT)))
        text = text.replace("workflows/recipes/", f"{ROOT}/workflows/recipes/")
        return re.sub(r"/data/(?=bids|derivatives|freesurfer|work)", "study/", text)

    @property
    def runs_here(self) -> bool:
        """Return whether it is a program that the tests run themselves."""
        return self.language in RUN and self.mark("run by") is None

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block, without comments."""
        lines = (line.split("  #")[0].strip() for line in self.text.splitlines())
        return [line for line in lines if line]


def pages() -> list[Path]:
    """The README and every page but the decisions and the reference, which have no commands of their own."""
    found = [path for folder in ("tutorial", "how-to", "explanation") for path in (ROOT / "docs" / folder).glob("*.md")]
    return [ROOT / "README.md", ROOT / "docs" / "index.md", *sorted(found)]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, m.start(2)) + 1, m[2].strip(), m[3], tuple(MARK.findall(m[1])))
        for m in FENCE.finditer(text)
    ]


def run(block: Block, folder: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str] | None:
    """Run a block in a folder, with more variables; None if it was not meant to run, or is only data."""
    if (name := block.mark("file")) is not None:
        (folder / name).write_text(block.code, encoding="utf-8")
    if not block.runs_here:
        return None
    if block.language == "r" and shutil.which("Rscript") is None:
        return None
    commands = {
        "bash": ["bash", "-euo", "pipefail", "-c", block.code],
        "python": [sys.executable, "-c", block.code],
        "r": ["Rscript", "--vanilla", ".block.R"],
    }
    if block.language == "r":
        (folder / ".block.R").write_text(block.code, encoding="utf-8")
    done = subprocess.run(
        commands[block.language],
        cwd=folder,
        env={**environment(), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    wanted = int(block.mark("exit code") or 0)
    if done.returncode != wanted:
        raise AssertionError(f"{block.name} ended with {done.returncode}, not {wanted}:\n{block.code}\n{done.stdout}")
    return done


def environment() -> dict[str, str]:
    """Programs of this environment before others."""
    own = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{own}{os.pathsep}{os.environ['PATH']}", "MPLBACKEND": "Agg"}
