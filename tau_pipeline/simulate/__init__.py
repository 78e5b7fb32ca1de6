"""Simulated heads and tau PET with known truth."""
