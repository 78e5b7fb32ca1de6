"""The name that scripts may rely on for `tau_pipeline.synthesis.losses.schedule`."""

from tau_pipeline.synthesis.losses.schedule import plane_at

__all__ = ["plane_at"]
