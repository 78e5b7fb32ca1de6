"""One PET scan: frames, motion, coregistration, resolution, reference region, and SUVR."""

from tau_pipeline.pet.quantification import suvr

__all__ = ["suvr"]
