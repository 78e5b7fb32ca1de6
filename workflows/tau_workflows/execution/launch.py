"""Start a task's module in this process, which does not outlive the one that started it."""

from __future__ import annotations

import ctypes
import runpy
import sys

from tau_workflows.interfaces.own_process import die_with_parent

#: Linux: `prctl` option of the name that `ps` and `top` show.
_PR_SET_NAME = 15


def in_task_call_process(name: str) -> None:
    """Have `ps` and `top` show this process under a name, of which Linux keeps 15 characters."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NAME, name.encode())


def in_task_run_module(module: str, job_file: str) -> None:
    """Do what ``python -m module job_file`` does, in this process; ends with `SystemExit`."""
    sys.argv = [module, job_file]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    raise SystemExit(0)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[3]))
    in_task_run_module(*sys.argv[1:3])
