"""One run at a time on a folder, or on participants of it: locks that the system frees when their holders die.

A run that writes for all participants holds the lock file of the folder. A run on certain participants holds a file of
its own, so that any number of runs on other participants can work beside it. The lock is ``flock``; nothing of it stays
behind a run that was killed, on this machine. Shared folders are not always locked between machines, and some refuse
``flock`` altogether. So the file also says who holds it, and the holder touches it twice a minute: a record of another
machine counts as long as it is fresh, by the clock of the file system.

A run creates its lock file first and then checks the lock files of other runs, so the later of two runs always sees the
earlier one. Two runs that start at the same moment see each other; both remove their files and retry after a random
delay.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import socket
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import psutil

from tau_pipeline.errors import BusyError, OutputError

NAME = ".tau-pipeline.lock"

#: Lock files of a folder: its own, and those of runs on certain participants.
_ALL_NAMES = ".tau-pipeline*.lock"

#: Seconds between two signs of life, and after how many without one a record of another machine is out of date.
_TOUCH_S, _FRESH_S = 30.0, 150.0
#: Bytes of a record that are read; one with 10,000 participants has a tenth of it.
_LONGEST_RECORD = 10_000_000
#: Seconds to wait for a child of a killed run that was forked a moment ago and has not closed the lock yet.
_CLOSING_S = 5.0
#: Seconds for which another run that only looks may keep a file locked.
_LOOKING_S = 0.2
#: Seconds in which a run that meets others at the same moment tries again, and the longest time between two trials.
_TRIALS_S, _STEP_BACK_S = 20.0, 0.3


@dataclass(frozen=True)
class Holder:
    """Holder of a lock: machine, process, start, activity, and whether it only asks for the lock so far.

    ``participants`` are labels without ``sub-``; None stands for the whole folder.
    """

    host: str
    pid: int
    since: str
    level: str
    participants: tuple[str, ...] | None = None
    asks: bool = False

    def __str__(self) -> str:
        return f"the level {self.level}, process {self.pid} on {self.host} since {self.since}"

    def shares(self, other: Holder) -> tuple[str, ...] | None:
        """Return the participants that both holders want; None if one of them wants the whole folder."""
        if self.participants is None or other.participants is None:
            return None
        return tuple(sorted(set(self.participants) & set(other.participants)))


_UNKNOWN = Holder("", 0, "", "", asks=True)


@contextmanager
def exclusive_use(
    folder: str | os.PathLike[str], level: str, advice: str, participants: Iterable[str] | None = None
) -> Iterator[None]:
    """Hold the lock of a folder, which exists, or of participants of it, while the block runs.

    Parameters
    ----------
    folder
        What no other run may write into meanwhile.
    level
        What this run does, for the message that another run gets.
    advice
        What to do where the folder is taken, for the message that this run gives.
    participants
        Labels, without ``sub-``, of the only participants that this run writes for; None for all.

    Raises
    ------
    BusyError
        Another run holds it; the message says which.
    OutputError
        The folder cannot be written to.
    """
    folder = Path(folder)
    labels = None if participants is None else tuple(participants)
    holder = Holder(socket.gethostname(), os.getpid(), datetime.now().isoformat(" ", "seconds"), level, labels)
    try:
        lock = _admitted(folder, holder, advice)
    except OSError as exc:
        if isinstance(exc, BusyError):
            raise
        raise OutputError(f"cannot lock {folder}: {exc.strerror or exc}") from exc
    done = threading.Event()
    toucher = threading.Thread(target=_touch, args=(lock.handle, done), daemon=True)
    try:
        toucher.start()
        yield
    finally:
        done.set()
        if toucher.is_alive():
            toucher.join()
        lock.release()


class _Lock:
    """A lock file that this process holds.

    A child that outlives the process must not keep it, so its handle is closed there.
    """

    def __init__(self, path: Path, handle: int, has_flock: bool) -> None:
        self.path, self.handle, self.has_flock = path, handle, has_flock
        _HELD.add(handle)

    def write(self, holder: Holder) -> None:
        """Write who holds it. Without a record, where the disk is full, the lock still holds."""
        with suppress(OSError):
            text = json.dumps(asdict(holder)).encode()
            os.pwrite(self.handle, text, 0)
            os.ftruncate(self.handle, len(text))

    def release(self) -> None:
        self.path.unlink(missing_ok=True)
        if self.has_flock:
            fcntl.flock(self.handle, fcntl.LOCK_UN)
        _HELD.discard(self.handle)
        os.close(self.handle)


def _admitted(folder: Path, holder: Holder, advice: str) -> _Lock:
    """Return the lock, once no other run is in the way."""
    end = time.monotonic() + _TRIALS_S
    asking = replace(holder, asks=True)
    while True:
        lock = _of_folder(folder, asking, advice) if holder.participants is None else _of_participants(folder, asking)
        try:
            other = _in_the_way(folder, lock.path, holder)
        except BaseException:
            lock.release()
            raise
        if other is None:
            lock.write(holder)
            return lock
        lock.release()
        if not other.asks or time.monotonic() > end:
            raise _busy(folder, other, holder.shares(other), advice)
        time.sleep(random.uniform(0.02, _STEP_BACK_S))


def _of_folder(folder: Path, holder: Holder, advice: str) -> _Lock:
    """Open and lock the file of the folder; refuse where another run on the whole folder holds it."""
    path = folder / NAME
    while True:
        handle = _open(path)
        try:
            has_flock = _flock(handle, folder, advice)
            other = None if has_flock is None else _by_record(handle, folder, has_flock)
            if other is not None:
                raise _busy(folder, other, None, advice)
        except BaseException:
            os.close(handle)
            raise
        # The last holder removes the file when it is done; then what was locked here is no longer the folder's lock.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                lock = _Lock(path, handle, has_flock)
                lock.write(holder)
                return lock
        os.close(handle)


def _of_participants(folder: Path, holder: Holder) -> _Lock:
    """Put a locked file with its record in place; nobody sees it without either."""
    name = uuid.uuid4().hex
    path, partial = folder / f".tau-pipeline-{name}.lock", folder / f".partial-{name}"
    lock = _Lock(path, _open(partial, os.O_CREAT | os.O_EXCL), has_flock=True)
    try:
        lock.has_flock = _flock(lock.handle, folder, "")
        lock.write(holder)
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        lock.release()
        raise
    return lock


def _open(path: Path, flags: int = os.O_CREAT) -> int:
    """Open a lock file, never through a link of any kind: that would have another file emptied."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o666)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise OutputError(f"{path} is a symbolic link, which no lock of this program is; remove it") from exc
        raise
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return handle
    os.close(handle)
    what = "a hard link to another file" if stat.S_ISREG(found.st_mode) else "a pipe or device"
    raise OutputError(f"{path} is {what}, which no lock of this program is; remove it")


def _in_the_way(folder: Path, own: Path, holder: Holder) -> Holder | None:
    """Return a living run that works on what this one wants, one that holds it before one that only asks."""
    found = None
    for path in folder.glob(_ALL_NAMES):
        other = None if path == own else _rival(path, holder)
        if other is not None and not other.asks:
            return other
        found = other or found
    return found


def _rival(path: Path, holder: Holder) -> Holder | None:
    """Return who holds a lock file, if it wants what this run wants; what a dead one has left behind is removed."""
    try:
        handle = _open(path, 0)
    except FileNotFoundError:
        return None
    try:
        other = _read(handle)
        if other is not None and holder.shares(other) == ():
            return None
        try:
            has_flock = _flock(handle, path.parent, "")
        except BusyError:
            # Between its opening and its record a file says nothing: somebody asks.
            return _read(handle) or _UNKNOWN
        other = _by_record(handle, path.parent, has_flock)
        if other is None:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    path.unlink()
        return other
    finally:
        os.close(handle)


def _flock(handle: int, folder: Path, advice: str) -> bool:
    """Lock the open file; returns whether the file system knows ``flock``."""
    started = time.monotonic()
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError as exc:
            holder = _read(handle)
            if time.monotonic() > started + (_CLOSING_S if _is_gone(holder) else _LOOKING_S):
                raise _busy(folder, holder, None, advice) from exc
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


def _by_record(handle: int, folder: Path, has_flock: bool) -> Holder | None:
    """Return the run that holds a file by its record, though ``flock`` does not know of it."""
    holder = _read(handle)
    if holder is None:
        return None
    here = holder.host == socket.gethostname()
    if here and (has_flock or not _is_running(holder.pid)):
        return None
    # A time in the future is no sign of life either: all times are by the clock of the file system.
    if not here and abs(_age_s(handle, folder)) > _FRESH_S:
        return None
    return holder


def _busy(folder: Path, holder: Holder | None, participants: tuple[str, ...] | None, advice: str) -> BusyError:
    """Return the refusal: who works on the folder, or on which of the participants that were asked for."""
    who = "another run" if holder in (None, _UNKNOWN) else str(holder)
    if not participants:
        return BusyError(f"{folder} is in use by {who}; wait for its end, or {advice}")
    named = ", ".join(f"sub-{label}" for label in participants[:5])
    more = f" and {len(participants) - 5} more" if len(participants) > 5 else ""
    verb = "are" if len(participants) > 1 else "is"
    return BusyError(f"{named}{more} in {folder} {verb} in use by {who}; wait for its end, or {advice}")


def _read(handle: int) -> Holder | None:
    try:
        fields = json.loads(os.pread(handle, _LONGEST_RECORD, 0))
        labels = fields.pop("participants", None)
        return Holder(**fields, participants=None if labels is None else tuple(labels))
    except (ValueError, TypeError, AttributeError, RecursionError):
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
