"""Losses: the cyclic 2.5D perceptual loss, its schedule and feature networks, and the sum with MSE and SSIM."""

from tau_pipeline.synthesis.losses.features import load_vgg16_features
from tau_pipeline.synthesis.losses.perceptual import CyclicPerceptualLoss, PlanePerceptualLoss

__all__ = ["CyclicPerceptualLoss", "PlanePerceptualLoss", "load_vgg16_features"]
