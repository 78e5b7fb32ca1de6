"""SIGINT (Ctrl-C) and SIGTERM: the first one ends the program in order, within seconds; a second one at once.

The processes of the program end with it (`tau_workflows.execution`), so a signal may be sent to the whole process
group, as a terminal does, or to the program alone.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

#: Signals that ask the program to end.
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SENTENCE = "tau-pipeline: interrupted; rerun the same command to continue"
#: Seconds after the first signal after which the program is ended even if it is still cleaning up.
GRACE_S = 4.5
#: Not empty while the signals are handled here; processes forked meanwhile handle them differently.
_handled: list[bool] = []
#: The signal that requested the end, if any.
_asked: list[int] = []


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code after an interruption: 128 plus the number of the signal, which is its argument."""
    return 128 + int(interrupt.args[0] if interrupt.args else signal.SIGINT)


@contextmanager
def interruptible(sentence: str = SENTENCE) -> Iterator[None]:
    """Raise ``KeyboardInterrupt(number)`` in the block at the first signal, and end the process at the second.

    The process also ends `GRACE_S` seconds after the first signal, if the block has not ended by then. Signals that
    another handler takes inside the block are left to that handler. Only the main thread can handle signals; in any
    other thread this does nothing.

    Parameters
    ----------
    sentence
        Message that is printed when the process is ended at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        # The watching thread handles a second signal; a process that was forked a moment ago is not the program.
        if _asked or not _handled:
            return
        _asked.append(number)
        _end_called_programs()
        raise KeyboardInterrupt(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=_watch, args=(reader, on_signal, sentence), daemon=True).start()
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _handled.append(True)
    for number in SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number in SIGNALS:
            signal.signal(number, before[number])
        _handled.clear()
        _asked.clear()
        signal.set_wakeup_fd(wakeup)
        os.close(writer)


def raise_again() -> None:
    """Raise the interruption again after a library has mistaken it for one of its errors."""
    if _asked:
        raise KeyboardInterrupt(_asked[0])


def _watch(reader: int, handler: object, sentence: str) -> None:
    """End the process at the second signal, or a while after the first, even while the main thread computes.

    Parameters
    ----------
    reader
        End of a pipe from which the numbers of signals are read; closed here.
    handler
        Signals that another handler takes are not counted.
    sentence
        Message that is printed then.
    """
    first = 0
    while select.select([reader], [], [], GRACE_S if first else None)[0]:
        numbers = os.read(reader, 1)
        if not numbers:
            os.close(reader)
            return
        if signal.getsignal(numbers[0]) is handler:
            if first:
                break
            first = numbers[0]
    _end_now(first, sentence)


def _end_now(number: int, sentence: str) -> None:
    """End this process and all processes that it has started."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    with suppress(OSError):
        os.write(2, f"{sentence}\n".encode())
    os._exit(128 + number)


def _end_called_programs() -> None:
    """End programs that this process waits for, such as the BIDS validator; not the processes of a pool."""
    pool = {process.pid for process in multiprocessing.active_children()}
    for process in psutil.Process().children():
        if process.pid not in pool:
            with suppress(psutil.Error):
                process.terminate()


def _in_child() -> None:
    """Let a forked process leave Ctrl-C to the program, and die of SIGTERM as usual."""
    if _handled:
        _handled.clear()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_in_child)
