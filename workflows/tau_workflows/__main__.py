"""Run ``python -m tau_workflows``, which is the same as ``tau-pipeline``."""

import sys

from tau_workflows.cli import main

if __name__ == "__main__":
    sys.exit(main())
