"""Tau PET quantification: from T1w MRI and tau PET to regional SUVR.

This package is a library of plain functions; `tau_workflows` joins them into graphs and gives them a command line.
"""

__version__ = "0.1.0.dev0"
