"""Call a function in a separate process, which ends when the process that started it ends.

A program that is killed cannot end its children. If they went on, they would write unseen into folders that the next
run believes to be its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tau_pipeline.errors import ImageError

_Found = TypeVar("_Found")
#: Linux: `prctl` option of the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1


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


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def in_own_process(function: Callable[[], _Found], what: str) -> _Found:
    """Return what a function returns, from a process forked for it.

    A library in C can end the process that calls it, and a step that shares its process with others would take them
    along.

    Parameters
    ----------
    function
        Takes no arguments; it and what it returns must be picklable, as `functools.partial` of a module's function is.
    what
        Names the computation in the message, as in "the surface of the left hemisphere".

    Raises
    ------
    ImageError
        The process ended before the function did.
    Exception
        What the function raised.
    """
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    context = get_context("fork")
    with ProcessPoolExecutor(1, context, initializer=die_with_parent, initargs=(os.getpid(),)) as pool:
        try:
            found: _Found = pool.submit(function).result()
        except BrokenProcessPool as exc:
            raise ImageError(
                f"{what} was not made: the process that computed it ended without an error message; a crash of the "
                "library or too little memory are the usual reasons"
            ) from exc
    return found
