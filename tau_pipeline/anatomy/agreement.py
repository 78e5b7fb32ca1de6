"""Agreement of a T1w with the template after registration, for the quality checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tau_pipeline.anatomy.grid import working_grid
from tau_pipeline.imaging.plain_paths import plain_paths
from tau_pipeline.imaging.resample import resample
from tau_pipeline.imaging.volume import Volume, to_ants

#: A registration that failed shows at any resolution.
_AGREEMENT_MM = 4.0


def template_agreement(
    t1w: Volume, mask: Volume, template_brain: Path, t1w_from_template: Sequence[Path]
) -> float | None:
    """Return the correlation of the T1w with the warped template over the brain, on a grid of 4 mm.

    Parameters
    ----------
    t1w
        Bias-corrected T1w.
    mask
        Brain mask on the same grid.
    template_brain
        Template without its skull.
    t1w_from_template
        ITK files from the template to the T1w.

    Returns
    -------
    float or None
        -1 to 1; None where the brain has fewer than 100 voxels on that grid.
    """
    import ants

    grid = working_grid(mask, _AGREEMENT_MM)
    with plain_paths(t1w_from_template) as files:
        warped = ants.apply_transforms(to_ants(grid), ants.image_read(str(template_brain)), files).numpy()
    still = np.eye(4)
    inside = np.asanyarray(resample(mask, grid, still).dataobj) > 0.5
    own = np.asanyarray(resample(t1w, grid, still).dataobj)[inside].astype(np.float64)
    other = warped[inside].astype(np.float64)
    if own.size < 100 or own.std() == 0 or other.std() == 0:
        return None
    return float(np.corrcoef(own, other)[0, 1])
