"""The command line with coarse participants (`coarse_participant`), which the tests of whole commands start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
#: Where the programs that are started find modules: beside this file, and where this process was told to look.
SEARCHED = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
#: First lines of each program: garbage is looked for as rarely as in the tests (`conftest`).
RARE_GARBAGE = """
import gc
gc.set_threshold(100_000, 20, 20)
"""
#: Code of the program, for ``python -c``.
PROGRAM = f"""{RARE_GARBAGE}
import sys
from tau_workflows.start import without_traceback
with without_traceback("tau-pipeline"):
    from tau_workflows import cli
    from tau_workflows.levels import participant
    participant.MODULE = "coarse_participant"
    code = cli.main(sys.argv[1:])
sys.exit(code)
"""
#: The same for the pages of the documentation: with finer participants (`docs_participant`), blank figures, and one
#: question to the validator for all commands on one dataset.
DOCS_PROGRAM = f"""{RARE_GARBAGE}
import sys
import remembered
from tau_workflows import cli
remembered.remember_validation()
if "participant" in sys.argv:
    from tau_workflows.levels import participant
    participant.MODULE = "docs_participant"
if "group" in sys.argv:
    from stand_ins import blank, replace
    from tau_workflows.reports import cohort, regions
    replace(cohort, _figures=lambda *_: [])
    replace(regions, cortex_figure=blank)
if "synthesize" in sys.argv:
    from stand_ins import blank, replace
    from tau_pipeline.synthesis.evaluation import outputs
    from tau_workflows.reports import regions
    replace(outputs, synthetic_figure=blank)
    replace(regions, cortex_figure=blank)
if "train" in sys.argv and "--compare" not in sys.argv:
    from stand_ins import blank, replace
    from tau_pipeline.synthesis.training import results
    replace(results, learning_curves_figure=blank, samples_figure=blank)
sys.exit(cli.main(sys.argv[1:]))
"""
DOCS_SIMULATOR = f"""{RARE_GARBAGE}
import sys
import remembered
remembered.remember_template()
from tau_workflows import simulate_cli
sys.exit(simulate_cli.main(sys.argv[1:]))
"""


def write_programs(folder: Path) -> Path:
    """Write the ``tau-pipeline`` and ``tau-simulate`` of the documentation to a folder that is to stand first in PATH.

    Parameters
    ----------
    folder
        Where to; it is made.

    Returns
    -------
    Path
        The folder. The programs need `SEARCHED` as ``PYTHONPATH``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, code in (("tau-pipeline", DOCS_PROGRAM), ("tau-simulate", DOCS_SIMULATOR)):
        program = folder / name
        program.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
        program.chmod(0o755)
    return folder
