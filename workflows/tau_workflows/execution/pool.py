"""One task after another, each in a separate process: what runs in a process of Pydra's pool or in a cluster job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tau_pipeline.errors import OutputError
from tau_workflows.execution.fork_server import ForkServer, can_fork
from tau_workflows.execution.heartbeat import HeartbeatMonitor, Program
from tau_workflows.execution.task import Task, log_path, tell_end, tell_not_begun
from tau_workflows.interfaces.own_process import die_with_parent

#: Names of the environment variables by which libraries learn their number of threads.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: ITK keeps to one: with more, N4 differs from run to run in the last digits, and labels in some voxels.
_ONE_THREAD = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}

#: Seconds between two looks at the heartbeat, and for which a task may end in order before it is killed.
_LOOK_S, _END_S = 0.5, 1.5

#: The server that forks the tasks of this process, once it has started.
_servers: list[ForkServer] = []


def in_pool_run_task(task: Task, program: Program) -> int:
    """Run one task in a separate process and write how that ended; returns its exit code.

    If the program is gone or announces its end, the task is ended, and nothing is written about it.
    """
    # On a cluster each task has its own job, where there is nothing to share.
    of_program = os.getppid() == program.pid
    if of_program:
        die_with_parent(program.pid)
        # Ctrl-C in a terminal reaches every process; it is for the program, and processes started here inherit this.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    heartbeat = HeartbeatMonitor(program.alive_file, program.run)
    if heartbeat.ends():
        return 1
    if program.stop_file.is_file():
        with suppress(OutputError):
            tell_not_begun(task.job_file)
        return 1
    env = environment(task.threads, task.job_file.parent)
    with _outputs(task.job_file, program.loud) as outputs:
        start = _forked if of_program and can_fork() else _new
        code = _waited(start(task, env, *outputs), heartbeat)
    if _is_interrupted(code, heartbeat):
        return code
    with suppress(OutputError, OSError):
        tell_end(task.job_file, code)
        if code and program.stop_on_first_crash:
            program.stop_file.touch()
    return code


def _forked(task: Task, env: dict[str, str], output: int, errors: int) -> ForkServer:
    """Let the server of this process fork the task; it has already loaded what the task needs."""
    if _servers and not _servers[-1].fits(env, task.preload):
        _servers.pop().close()
    if not _servers:
        _servers.append(ForkServer(env, task.preload))
    _servers[-1].start(task.module, str(task.job_file), output, errors)
    return _servers[-1]


def _new(task: Task, env: dict[str, str], output: int, errors: int) -> subprocess.Popen[bytes]:
    """Start the task as a new process, which loads everything itself."""
    return subprocess.Popen(
        [sys.executable, "-m", "tau_workflows.execution.launch", task.module, str(task.job_file), str(os.getpid())],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
    )


def _waited(process: subprocess.Popen[bytes] | ForkServer, heartbeat: HeartbeatMonitor) -> int:
    """Return the exit code of a task; if the program is gone, the task is terminated, and killed soon after."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=_LOOK_S)
        if heartbeat.lost():
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=_END_S)
            process.kill()
            return process.wait()


def _is_interrupted(code: int, heartbeat: HeartbeatMonitor) -> bool:
    """Return whether a task was ended with its program; a signal may reach it a moment before the program."""
    end = time.monotonic() + (1.0 if code in (-signal.SIGINT, -signal.SIGTERM) else 0.0)
    while not heartbeat.ends():
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return code != 0


@contextmanager
def _outputs(job_file: Path, loud: bool) -> Iterator[tuple[int, int]]:
    """Open what becomes standard output and error of a task: the terminal, or its log."""
    if loud:
        yield 1, 2
        return
    try:
        log = os.open(log_path(job_file), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    except OSError:
        # A full disk must not keep the task from saying so itself.
        log = os.open(os.devnull, os.O_WRONLY)
    try:
        yield log, log
    finally:
        os.close(log)


def environment(threads: int, folder: Path) -> dict[str, str]:
    """Return the environment of a task's process: threads, no questions to the network, no window for figures.

    What libraries like to keep in the home folder goes to ``folder``, unless the user has a place for it.
    """
    caches = {"MPLCONFIGDIR": str(folder / "matplotlib"), "NIPYPE_CONFIG_DIR": str(folder / "nipype")}
    own = {
        **_ONE_THREAD,
        **dict.fromkeys(_THREADS, str(threads)),
        "NO_ET": "1",
        "NIPYPE_NO_ET": "1",
        "MPLBACKEND": "Agg",
    }
    return {**caches, **os.environ, **own}
