"""Ctrl-C and a cluster's SIGTERM end a training between two steps, with a checkpoint, not in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Request(threading.Event):
    """Set when a signal has requested the end; ``number`` is that of the signal."""

    number: int = signal.SIGINT


@contextmanager
def interruption() -> Iterator[Request]:
    """Give a request that the first Ctrl-C or SIGTERM sets; a second one acts at once, as usual.

    Python lets only the main thread do this; in any other the request is never set and signals act as usual.
    """
    asked = Request()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        usual = before[signal.Signals(number)]
        if asked.is_set() and callable(usual):
            usual(number, frame)
        elif asked.is_set():
            signal.signal(number, usual)
            signal.raise_signal(number)
        asked.number = number
        asked.set()

    for number in _SIGNALS:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number in _SIGNALS:
            signal.signal(number, before[number])
