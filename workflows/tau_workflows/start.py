"""Entry points of the installed commands, which import so little that Ctrl-C is answered in a sentence at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: What both commands say when they are interrupted, after their name.
_INTERRUPTED = {
    "tau-pipeline": "interrupted; rerun the same command to continue",
    "tau-simulate": "interrupted before anything was written",
}


@contextmanager
def without_traceback(command: str) -> Iterator[None]:
    """Answer Ctrl-C in the block, which may come while modules are imported, in one sentence and with exit code 130.

    Parameters
    ----------
    command
        ``tau-pipeline`` or ``tau-simulate``.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"{command}: {_INTERRUPTED[command]}\n")
        sys.exit(130)


def pipeline() -> int:
    """Run ``tau-pipeline``; returns its exit code."""
    with without_traceback("tau-pipeline"):
        from tau_workflows import cli

        return cli.main()


def simulate() -> int:
    """Run ``tau-simulate``; returns its exit code."""
    with without_traceback("tau-simulate"):
        from tau_workflows import simulate_cli

        return simulate_cli.main()
