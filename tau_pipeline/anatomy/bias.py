"""N4 bias field correction."""

from __future__ import annotations

import numpy as np

from tau_pipeline.anatomy.grid import working_grid
from tau_pipeline.anatomy.orientation import head_orientation
from tau_pipeline.atlas import atlas_files
from tau_pipeline.imaging.load import load_volume
from tau_pipeline.imaging.resample import resample_onto, resample_onto_data
from tau_pipeline.imaging.volume import (
    Volume,
    finite,
    image_like,
    image_on,
    require_same_grid,
    to_ants,
)

#: Edge of the voxels on which the field is estimated, mm. The field is a spline with knots 50 mm apart.
_GRID_MM = 5.0


def correct_bias(t1w: Volume, mask: Volume) -> Volume:
    """Return the T1w without its bias field, float32, full head, by N4 (Tustison et al., IEEE TMI 2010).

    The field is estimated inside the mask on a grid of `_GRID_MM`, and divided out of the full grid.

    Raises
    ------
    GridMismatchError
        Mask and T1w have different grids.
    """
    import ants

    require_same_grid(t1w=t1w, mask=mask)
    coarse = working_grid(mask, _GRID_MM)
    template = load_volume(atlas_files().template_brain, ndim=3)
    lies = head_orientation(resample_onto(t1w, coarse), resample_onto(mask, coarse, order=0), template)
    upright = np.eye(4)
    upright[:3, :3] = lies.frame[:3, :3]
    coarse = working_grid(mask, _GRID_MM, upright)
    # N4 sees the head upright and at the origin, or what it finds would depend on the header in the last digits.
    small, inside = (
        to_ants(image_on(np.asanyarray(one.dataobj), np.diag([_GRID_MM, _GRID_MM, _GRID_MM, 1.0])))
        for one in (resample_onto(t1w, coarse), resample_onto(mask, coarse, order=0))
    )
    field = ants.n4_bias_field_correction(
        small,
        inside,
        shrink_factor=1,
        convergence={"iters": [20, 20, 20], "tol": 1e-7},
        return_bias_field=True,
    )
    log_field = image_like(np.log(np.clip(field.numpy(), 0.1, 10.0)), coarse)
    full = resample_onto_data(log_field, t1w, mode="nearest")
    data = finite(np.asanyarray(t1w.dataobj))
    # In place: images of 0.7 mm take 160 MB each.
    np.divide(data, np.exp(full, out=full), out=data)
    return image_like(data, t1w)
