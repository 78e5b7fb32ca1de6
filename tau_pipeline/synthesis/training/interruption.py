"""Ctrl-C and a cluster's SIGTERM end a training between two steps, with a checkpoint, not in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """Give an event that is set by the first Ctrl-C or SIGTERM; a second one acts at once, as usual.

    Python lets only the main thread do this; in any other the event is never set and signals act as usual.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def ask(number: int, _: FrameType | None) -> None:
        asked.set()
        for each in _SIGNALS:
            signal.signal(each, before[each])

    for number in _SIGNALS:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number in _SIGNALS:
            signal.signal(number, before[number])
