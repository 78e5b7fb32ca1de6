"""Run ``python -m tau_workflows``, which is the same as ``tau-pipeline``."""

import sys

from tau_workflows.start import pipeline

if __name__ == "__main__":
    sys.exit(pipeline())
