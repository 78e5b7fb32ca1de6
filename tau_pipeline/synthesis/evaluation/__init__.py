"""Evaluation of synthetic scans, and the files that are written for them."""
