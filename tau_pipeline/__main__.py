"""Run ``python -m tau_pipeline``, which is the same as ``tau-pipeline``.

The library does not import the workflows, and so the installed command is looked up by its name.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points


def main() -> int:
    """Run the installed command ``tau-pipeline``; returns its exit code, or 2 if it is not installed."""
    found = entry_points(group="console_scripts", name="tau-pipeline")
    for command in found:
        return int(command.load()() or 0)
    sys.stderr.write("tau-pipeline: the command is not installed; install the package with pip\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
