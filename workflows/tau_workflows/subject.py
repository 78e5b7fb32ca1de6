"""The name that scripts may rely on for `tau_workflows.graphs.subject`."""

from tau_workflows.graphs.subject import init_subject_wf

__all__ = ["init_subject_wf"]
