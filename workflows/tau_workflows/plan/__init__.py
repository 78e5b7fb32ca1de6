"""Planned steps of a run, results of earlier runs, and the expected cost."""
