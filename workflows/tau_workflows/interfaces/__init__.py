"""Nipype faces of library functions: load, call, save, nothing else."""
