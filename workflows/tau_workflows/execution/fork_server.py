"""A process that has loaded what tasks need, and forks each of them: what takes seconds to load is loaded once.

Each task is still a separate process, and nothing but loading happens before it begins: the server computes nothing,
so that no thread of a library is lost in the fork. Linux only; elsewhere libraries are not safe to fork.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.util import Finalize
from pathlib import Path

import psutil

from tau_workflows.execution.launch import in_task_call_process, in_task_run_module
from tau_workflows.interfaces.own_process import die_with_parent

#: A module's name and a path are shorter than this together.
_MESSAGE_BYTES = 65536


def can_fork() -> bool:
    """Return whether tasks may be forked on this system."""
    return sys.platform == "linux"


class ForkServer:
    """The server, seen from the process that has tasks done, one after the other; both end together.

    Parameters
    ----------
    env
        Environment of the server and of its tasks. Libraries read their number of threads from it while they load.
    preload
        Names of the modules that are loaded before a task is forked.
    """

    def __init__(self, env: Mapping[str, str], preload: Sequence[str]) -> None:
        self.env, self.preload = dict(env), tuple(preload)
        self._socket, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_end:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(os.getpid()), *self.preload],
                env=self.env,
                stdin=its_end.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        # Processes of a pool end without `atexit`.
        Finalize(self, self.close, exitpriority=0)

    def fits(self, env: Mapping[str, str], preload: Sequence[str]) -> bool:
        """Return whether the server is alive and has loaded exactly this in exactly this environment."""
        return self.process.poll() is None and (self.env, self.preload) == (dict(env), tuple(preload))

    def start(self, module: str, job_file: str, output: int, errors: int) -> None:
        """Begin a task, whose standard output and error are these open files; the one before must have ended."""
        # A server that has just died is reported by `wait`.
        with suppress(OSError):
            socket.send_fds(self._socket, [json.dumps([module, job_file]).encode()], [output, errors])

    def wait(self, timeout: float | None = None) -> int:
        """Exit code of the task, or of the server where it has died, which its task does not outlive.

        Raises
        ------
        subprocess.TimeoutExpired
            The task goes on after ``timeout`` seconds.
        """
        self._socket.settimeout(timeout)
        try:
            answer = self._socket.recv(_MESSAGE_BYTES)
        except TimeoutError as exc:
            raise subprocess.TimeoutExpired(self.process.args, timeout or 0.0) from exc
        except OSError:
            answer = b""
        return int(answer) if answer else self.process.wait()

    def terminate(self) -> None:
        """Ask the task to end."""
        with suppress(psutil.Error):
            for task in psutil.Process(self.process.pid).children():
                task.terminate()

    def kill(self) -> None:
        """End the server, and with it the task."""
        self.process.kill()

    def close(self) -> None:
        """Let the server end, which has no task now."""
        self._socket.close()
        self.process.wait()


def in_server_serve(parent: int, preload: Sequence[str]) -> None:
    """Load modules, then fork each task that is requested through standard input, a socket, and answer how it ended.

    In the process of a task it ends with `SystemExit`.
    """
    die_with_parent(parent)
    # Looking for garbage takes a fifth of the time of the imports, and finds none.
    gc.disable()
    for name in preload:
        # A module that cannot be loaded fails in the task as well, which logs it.
        with suppress(Exception):
            import_module(name)
    # What is loaded never becomes garbage, and pages of memory that nobody writes to are shared.
    gc.freeze()
    gc.enable()
    server = os.getpid()
    asker = socket.socket(fileno=0)
    while True:
        request, files, *_ = socket.recv_fds(asker, _MESSAGE_BYTES, 2)
        if not request:
            return
        pid = os.fork()
        if pid == 0:
            die_with_parent(server)
            asker.detach()
            module, job_file = json.loads(request)
            in_task_begin(module, job_file, files)
        for file in files:
            os.close(file)
        _, status = os.waitpid(pid, 0)
        asker.send(str(os.waitstatus_to_exitcode(status)).encode())


def in_task_begin(module: str, job_file: str, files: Sequence[int]) -> None:
    """Do what ``python -m module job_file`` does, in this process, which was forked for it; ends with `SystemExit`.

    Parameters
    ----------
    module, job_file
        Of the task.
    files
        Open files that become its standard output and error; standard input is empty.
    """
    output, errors = files
    nothing = os.open(os.devnull, os.O_RDONLY)
    for file, place in ((nothing, 0), (output, 1), (errors, 2)):
        os.dup2(file, place)
        os.close(file)
    in_task_call_process(Path(job_file).stem)
    in_task_run_module(module, job_file)


if __name__ == "__main__":
    in_server_serve(int(sys.argv[1]), sys.argv[2:])
