"""Graphs over the functions of tau_pipeline, and the command line."""
