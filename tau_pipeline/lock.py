"""One run at a time on a folder: a lock that the system frees when its holder dies, with a record of who holds it.

The lock is ``flock`` on a file in the folder; nothing of it stays behind a run that was killed, on this machine. Shared
folders are not always locked between machines, and some refuse ``flock`` altogether. So the file also says who holds
it, and the holder touches it twice a minute: a record of another machine counts as long as it is fresh, by the clock
of the file system.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psutil

from tau_pipeline.errors import BusyError, OutputError

NAME = ".tau-pipeline.lock"

#: Seconds between two signs of life, and after how many without one a record of another machine is out of date.
_TOUCH_S, _FRESH_S = 30.0, 150.0
#: Seconds to wait for a child of a killed run that was forked a moment ago and has not closed the lock yet.
_CLOSING_S = 5.0


@dataclass(frozen=True)
class Holder:
    """Holder of a lock: machine, process, start, and activity."""

    host: str
    pid: int
    since: str
    level: str

    def __str__(self) -> str:
        return f"the level {self.level}, process {self.pid} on {self.host} since {self.since}"


@contextmanager
def only_run(folder: str | os.PathLike[str], level: str, advice: str) -> Iterator[None]:
    """Hold the lock of a folder, which exists, while the block runs.

    Parameters
    ----------
    folder
        What no other run may write into meanwhile.
    level
        What this run does, for the message that another run gets.
    advice
        What to do where the folder is taken, for the message that this run gives.

    Raises
    ------
    BusyError
        Another run holds it; the message says which.
    OutputError
        The folder cannot be written to.
    """
    path = Path(folder) / NAME
    try:
        handle, has_flock = _acquire(path, advice)
    except OSError as exc:
        if isinstance(exc, BusyError):
            raise
        if exc.errno == errno.ELOOP:
            raise OutputError(f"{path} is a symbolic link, which no lock of this program is; remove it") from exc
        raise OutputError(f"cannot lock {folder}: {exc.strerror or exc}") from exc
    done = threading.Event()
    toucher = threading.Thread(target=_touch, args=(handle, done), daemon=True)
    # A child that outlives this process must not keep the lock.
    _HELD.add(handle)
    try:
        holder = Holder(socket.gethostname(), os.getpid(), datetime.now().isoformat(" ", "seconds"), level)
        # Without a record, where the disk is full, the lock still holds.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(asdict(holder)).encode(), 0)
        toucher.start()
        yield
    finally:
        done.set()
        if toucher.is_alive():
            toucher.join()
        path.unlink(missing_ok=True)
        if has_flock:
            fcntl.flock(handle, fcntl.LOCK_UN)
        _HELD.discard(handle)
        os.close(handle)


def _acquire(path: Path, advice: str) -> tuple[int, bool]:
    """Open and lock the file; returns its handle and whether the file system knows ``flock``."""
    while True:
        # A link would have its target emptied.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            has_flock = _flock(handle, path, advice)
            _refuse_if_held(handle, path, has_flock, advice)
        except BaseException:
            os.close(handle)
            raise
        # The last holder removes the file when it is done; then what was locked here is no longer the folder's lock.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle, has_flock
        os.close(handle)


def _flock(handle: int, path: Path, advice: str) -> bool:
    """Lock the open file; returns whether the file system knows ``flock``."""
    end = time.monotonic() + _CLOSING_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError as exc:
            if not _is_gone(_read(handle)) or time.monotonic() > end:
                raise _busy(path, _read(handle), advice) from exc
            time.sleep(0.02)
        except OSError as exc:
            if exc.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
                return False
            raise


def _is_gone(holder: Holder | None) -> bool:
    """Return whether the holder ran on this machine and has ended."""
    return holder is not None and holder.host == socket.gethostname() and not _is_running(holder.pid)


def _is_running(pid: int) -> bool:
    """Return whether a process of this machine runs; a killed one that its parent has not reaped yet does not."""
    try:
        return str(psutil.Process(pid).status()) != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _refuse_if_held(handle: int, path: Path, has_flock: bool, advice: str) -> None:
    """Refuse where a record says that a run holds the folder that ``flock`` does not know of."""
    holder = _read(handle)
    if holder is None:
        return
    here = holder.host == socket.gethostname()
    if here and (has_flock or not _is_running(holder.pid)):
        return
    # A time in the future is no sign of life either: all times are by the clock of the file system.
    if not here and abs(_age_s(handle, path.parent)) > _FRESH_S:
        return
    raise _busy(path, holder, advice)


def _busy(path: Path, holder: Holder | None, advice: str) -> BusyError:
    who = str(holder) if holder else "another run"
    return BusyError(f"{path.parent} is in use by {who}; wait for its end, or {advice}")


def _read(handle: int) -> Holder | None:
    try:
        return Holder(**json.loads(os.pread(handle, 4096, 0)))
    except (ValueError, TypeError):
        return None


def _age_s(handle: int, folder: Path) -> float:
    """Return the seconds since the file was touched, by the clock of the file system, which all machines share."""
    with tempfile.NamedTemporaryFile(prefix=".partial-", dir=folder) as now:
        return os.fstat(now.fileno()).st_mtime - os.fstat(handle).st_mtime


def _touch(handle: int, done: threading.Event) -> None:
    while not done.wait(_TOUCH_S):
        with suppress(OSError):
            os.utime(handle)


#: Handles of the locks that this process holds.
_HELD: set[int] = set()


def _close_in_child() -> None:
    for handle in _HELD:
        with suppress(OSError):
            os.close(handle)
    _HELD.clear()


os.register_at_fork(after_in_child=_close_in_child)
