"""Start a task's module in this process, and let no process outlive the one that started it.

A program that is killed cannot end its children. If they went on, they would write unseen into folders that the next
run believes to be its own.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

#: Linux: `prctl` option of the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1

#: Linux: `prctl` option of the name that `ps` and `top` show.
_PR_SET_NAME = 15


def die_with_parent(parent: int) -> None:
    """Have this process killed when its parent, the process ``parent``, ends; at once if it has ended already.

    Linux does it itself. Elsewhere a thread looks once a second.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def in_task_call_process(name: str) -> None:
    """Have `ps` and `top` show this process under a name, of which Linux keeps 15 characters."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NAME, name.encode())


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def in_task_run_module(module: str, job_file: str) -> None:
    """Do what ``python -m module job_file`` does, in this process; ends with `SystemExit`."""
    sys.argv = [module, job_file]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    raise SystemExit(0)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[3]))
    in_task_run_module(*sys.argv[1:3])
