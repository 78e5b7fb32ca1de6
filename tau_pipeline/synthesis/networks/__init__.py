"""The five networks, and the systems that are trained with them."""

from tau_pipeline.synthesis.networks.networks import build_network

__all__ = ["build_network"]
