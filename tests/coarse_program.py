"""The command line with coarse participants (`coarse_participant`), which the tests of whole commands start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
#: Where the programs that are started find modules: beside this file, and where this process was told to look.
SEARCHED = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
#: Code of the program, for ``python -c``.
PROGRAM = """
import sys
from tau_workflows import cli
from tau_workflows.levels import participant
participant.MODULE = "coarse_participant"
sys.exit(cli.main(sys.argv[1:]))
"""


def write_program(folder: Path, module: str = "coarse_participant") -> Path:
    """Write a ``tau-pipeline`` to a folder that is to stand first in PATH.

    Parameters
    ----------
    folder
        Where to; it is made.
    module
        Module of the tests that runs each participant.

    Returns
    -------
    Path
        The folder. The program needs `SEARCHED` as ``PYTHONPATH``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "tau-pipeline"
    program.write_text(f"#!{sys.executable}\n{PROGRAM.replace('coarse_participant', module)}", encoding="utf-8")
    program.chmod(0o755)
    return folder
