"""A participant's process with coarse steps: the real graph and its files, a few iterations at 4 to 8 mm for each step.

For tests of cohorts, which need many participants and no exact results. Figures are blank. ``python -m
coarse_participant JOB`` is what a cohort runs; see `coarse_program` for the command line.
"""

from __future__ import annotations

import sys
from typing import Any

import ants
import numpy as np
from scipy import ndimage
from stand_ins import blank, replace

from tau_pipeline.anatomy import brain_mask
from tau_pipeline.anatomy import grid as anatomy_grid
from tau_pipeline.anatomy import template as anat
from tau_pipeline.figures import participant as figures
from tau_pipeline.imaging import rigid as registration
from tau_pipeline.imaging.greedy import Schedule
from tau_pipeline.imaging.volume import Volume, image_like, voxel_size_mm
from tau_pipeline.pet import fit
from tau_workflows.execution import participant
from tau_workflows.reports import regions

_n4 = ants.n4_bias_field_correction
_SHEETS = ("brain_mask", "tissue", "template", "parcellation", "coregistration", "suvr", "reference_region")


def short_n4(*images: Any, **options: Any) -> Any:
    """N4 with two iterations."""
    return _n4(*images, **{**options, "convergence": {"iters": [2], "tol": 1e-7}})


def inner_head(t1w: Volume, threads: int = 1) -> Volume:
    """The head without its outer 16 mm, in the place of the network's brain mask."""
    data = np.asanyarray(t1w.dataobj)
    head = ndimage.binary_fill_holes(data > 0.15 * np.percentile(data, 99))
    depth = ndimage.distance_transform_edt(head, sampling=voxel_size_mm(t1w))
    return image_like((depth > 16).astype(np.uint8), t1w)


def coarsen_anatomy() -> None:
    """Replace what takes time in the steps of a T1w."""
    replace(ants, n4_bias_field_correction=short_n4)
    replace(brain_mask, extract_brain=inner_head)
    replace(anat, REGISTRATION_MM=5.0, _AFFINE=Schedule("NMI", (40,)), _DEFORMABLE=Schedule("NCC 2x2x2", (4,)))
    anatomy_grid.working_grid.__defaults__ = (4.0, None)


def coarsen_coregistration() -> None:
    """Replace what takes time in the registration of a PET and in the figures of its fit, which then mean nothing."""
    replace(registration, _FINE_MM=4.0, _COARSE_MM=8.0, _REFINED=1, _ANGLES_DEG=(45.0,))
    replace(fit, _STEP_MM=8.0, _TRIAL_SCALES=(1.0,), _MIRROR_TILTS_DEG=(0.0,))


def draw_nothing() -> None:
    """Replace the figures of a participant's page."""
    replace(figures, **{f"{name}_figure": blank for name in _SHEETS})
    replace(figures, flicker_figures=lambda *_, **__: (blank(), blank()))
    replace(regions, cortex_figure=blank)


def coarsen() -> None:
    """Replace all that takes time in a participant's process."""
    coarsen_anatomy()
    coarsen_coregistration()
    draw_nothing()


if __name__ == "__main__":
    coarsen()
    sys.exit(participant.main(sys.argv[1]))
