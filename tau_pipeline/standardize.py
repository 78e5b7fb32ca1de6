"""The name that scripts may rely on for `tau_pipeline.cohort.standardize`."""

from tau_pipeline.cohort.standardize import Standardization, fit_standardization

__all__ = ["Standardization", "fit_standardization"]
