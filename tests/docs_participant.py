"""A participant's process for the pages of the documentation: the network's brain mask, and otherwise coarse steps.

Grid and template are finer than those of `coarse_participant`, so that every reference region that a page names is
large enough. ``python -m docs_participant JOB`` is what a cohort runs.
"""

from __future__ import annotations

import sys

from tau_pipeline.anatomy import brain_mask

_extract_brain = brain_mask.extract_brain

if __name__ == "__main__":
    from coarse_participant import coarsen
    from stand_ins import replace

    from tau_pipeline.anatomy import grid, template
    from tau_pipeline.imaging.greedy import Schedule
    from tau_workflows.execution import participant

    coarsen()
    replace(brain_mask, extract_brain=_extract_brain)
    replace(template, REGISTRATION_MM=4.0, _DEFORMABLE=Schedule("NCC 2x2x2", (8,)))
    grid.working_grid.__defaults__ = (3.0, None)
    sys.exit(participant.main(sys.argv[1]))
