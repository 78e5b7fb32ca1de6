"""PET to T1w."""

from __future__ import annotations

from tau_pipeline.imaging.rigid import Rigid, register_rigid
from tau_pipeline.imaging.volume import Volume


def coregister(pet_static: Volume, t1w: Volume, mask: Volume | None) -> Rigid:
    """Find the rigid transform from PET world to T1w world.

    Parameters
    ----------
    pet_static
        3-D, from `static_image`; not skull-stripped.
    t1w
        3-D, full head or stripped.
    mask
        Brain mask on the T1w grid.
    """
    return register_rigid(pet_static, t1w, mask)
