"""Outputs, and reading them again: file names, sidecars, tables, and the status of every scan."""
