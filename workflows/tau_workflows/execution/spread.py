"""Spread works over the processors of this machine, or over a cluster: Pydra's part of the program.

Each work is a process of its own, so that a crash, a kill or running out of memory takes down that work and no other.
The caller reads its outcome beside its job file (`tau_workflows.execution.work`).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydra.compose import python
from pydra.engine.submitter import Submitter
from pydra.workers import cf, sge, slurm
from pydra.workers.base import Worker

from tau_pipeline.errors import OutputError
from tau_pipeline.files import write_json
from tau_pipeline.settings.execution import Execution
from tau_workflows.execution.fork_server import ForkServer, can_fork
from tau_workflows.execution.launch import die_with_parent
from tau_workflows.execution.work import Work, clear, ended_path, log_path, outcome_path, tell_end, tell_not_begun

#: The program says this often that it lives; a work on another machine that has not heard of it for so long ends.
_BEAT_S, _SILENCE_S = 5.0, 300.0

#: So long the sign of life may be away, or that of another run may be seen: shared folders are not quick everywhere.
_GRACE_S = 10.0

#: Names of the environment variables by which libraries learn their number of threads.
_THREADS = ("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

#: In a process of the pool: the server that forks its works, once there was one.
_servers: list[ForkServer] = []


def spread(works: Sequence[Work], execution: Execution, together: int) -> None:
    """Run each work in a process of its own, and wait for all of them.

    A work that fails is no error here. On this machine, works that were lost with a worker of the pool, without having
    ended themselves, are run once more.

    Parameters
    ----------
    works
        Their job files are in one folder, which every machine that runs them can see.
    execution
        Read here: ``worker``, ``worker_args``, ``stop_on_first_crash`` and ``verbose``.
    together
        How many run at a time on this machine; a cluster's own queue decides there.
    """
    if not works:
        return
    folder = works[0].job_file.parent
    clear(works)
    # Jobs of a program that was killed may still run on the cluster; they end when they see another run's sign of life.
    left_behind = execution.worker != "cf" and (folder / "alive.json").exists()
    with _beating(folder / "alive.json") as run:
        time.sleep(_GRACE_S + _BEAT_S if left_behind else 0)
        for _ in range(2 if execution.worker == "cf" else 1):
            waiting = [work for work in works if not (outcome_path(work.job_file).is_file() or _ended(work))]
            if waiting:
                _submit(waiting, execution, together, folder, run)


def _ended(work: Work) -> bool:
    return ended_path(work.job_file).is_file()


def _submit(works: Sequence[Work], execution: Execution, together: int, folder: Path, run: str) -> None:
    cache = folder / "pydra"
    shutil.rmtree(cache, ignore_errors=True)
    place = Place(folder / "alive.json", run, os.getpid(), execution.stop_on_first_crash, execution.verbose > 0)
    task = RunWork(place=place.to_json()).split(
        ("job_file", "module", "threads", "preload"),
        job_file=[str(work.job_file) for work in works],
        module=[work.module for work in works],
        threads=[work.threads for work in works],
        preload=[" ".join(work.preload) for work in works],
    )
    # Pydra tells every failed task with its traceback; each work tells its own story.
    logging.getLogger("pydra").setLevel(logging.CRITICAL)
    # A worker that was killed is an error to Pydra, and a work without an outcome to us.
    with Submitter(cache_root=cache, worker=_worker(works, execution, together)) as submit, suppress(RuntimeError):
        submit(task, raise_errors=False)


def _worker(works: Sequence[Work], execution: Execution, together: int) -> Worker:
    """Make Pydra's worker, with what the works need and what the user wants."""
    if execution.worker == "cf":
        return cf.Worker(n_procs=max(1, min(together, len(works))))
    if execution.worker == "slurm":
        memory_mb = max(work.memory_mb for work in works)
        processes = max(work.processes for work in works)
        # A job that is canceled or out of time has failed; Pydra would put it into the queue again for ever.
        asked = f"--no-requeue --cpus-per-task={processes} --mem={memory_mb}M {execution.worker_args}"
        return slurm.Worker(sbatch_args=asked.strip())
    # Pydra 1.0a12 cannot read the result files of an array job; the end of the array tells as much.
    worker = sge.Worker(default_qsub_args=execution.worker_args, poll_for_result_file=False, collect_jobs_delay=2)
    # It counts threads in this, and begins with an empty dictionary, to which nothing can be added.
    worker.threads_used = 0
    return worker


@contextmanager
def _beating(alive_file: Path) -> Iterator[str]:
    """Say in a file that this program lives, until the block ends; gives the name of this run."""
    run, done = uuid.uuid4().hex, threading.Event()

    def beat() -> None:
        count = 0
        while True:
            with suppress(OutputError):
                write_json({"run": run, "beat": count}, alive_file)
            count += 1
            if done.wait(_BEAT_S):
                return

    write_json({"run": run, "beat": 0, "host": socket.gethostname(), "pid": os.getpid()}, alive_file)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield run
    finally:
        done.set()
        thread.join()
        alive_file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Place:
    """Information that each task's worker has about the program that spreads them.

    Attributes
    ----------
    alive_file, run
        Its sign of life, and the name of its run.
    program
        Its process: where that is the parent of the worker, the worker does not outlive it.
    stop_on_first_crash
        Whether works that have not begun when one fails are left.
    loud
        Whether works speak to the terminal instead of into their logs.
    """

    alive_file: Path
    run: str
    program: int
    stop_on_first_crash: bool
    loud: bool

    def to_json(self) -> str:
        """Spell it as text, which Pydra can hash."""
        return json.dumps({**asdict(self), "alive_file": str(self.alive_file)})

    @classmethod
    def from_json(cls, text: str) -> Place:
        """Read what `to_json` gave."""
        fields = json.loads(text)
        return cls(**{**fields, "alive_file": Path(fields["alive_file"])})

    @property
    def stop_file(self) -> Path:
        """Exists when a work has failed and no other may begin."""
        return self.alive_file.with_name(f"stop-{self.run}")


@python.define
def RunWork(job_file: str, module: str, threads: int, preload: str, place: str) -> int:
    """Run one work in a process of its own and write how that ended; its exit code."""
    from pathlib import Path

    from tau_workflows.execution.spread import Place, run_work
    from tau_workflows.execution.work import Work

    work = Work("", module, Path(job_file), 0, threads=threads, preload=tuple(preload.split()))
    return run_work(work, Place.from_json(place))


class SignOfLife:
    """Latest sign, on this machine, of the program that spread the tasks."""

    def __init__(self, file: Path, run: str) -> None:
        self.file, self.run = file, run
        self.last, self.heard = b"", time.monotonic()

    def lost(self) -> bool:
        """Return whether the program has ended, was followed by another run, or has been silent for too long."""
        try:
            content = self.file.read_bytes()
        except OSError:
            content = b""
        silent_s = time.monotonic() - self.heard
        if self.run.encode() not in content:
            return silent_s > _GRACE_S
        if content != self.last:
            self.last, self.heard = content, time.monotonic()
            return False
        return silent_s > _SILENCE_S


def run_work(work: Work, place: Place) -> int:
    """Start the process of one work, and end it if the program that spread it is gone."""
    of_pool = os.getppid() == place.program
    if of_pool:
        die_with_parent(place.program)
    if place.stop_file.is_file():
        with suppress(OutputError):
            tell_not_begun(work.job_file)
        return 1
    life = SignOfLife(place.alive_file, place.run)
    env = environment(work.threads, place.alive_file.parent)
    with _outputs(work.job_file, place.loud) as outputs:
        # On a cluster each work has its own job, where there is nothing to share.
        start = _forked if of_pool and can_fork() else _new
        code = _waited(start(work, env, *outputs), life)
    with suppress(OutputError, OSError):
        tell_end(work.job_file, code)
        if code and place.stop_on_first_crash:
            place.stop_file.touch()
    return code


def _forked(work: Work, env: dict[str, str], output: int, errors: int) -> ForkServer:
    """Let this process's server fork the work; it has loaded what the work needs, perhaps long ago."""
    if _servers and not _servers[-1].fits(env, work.preload):
        _servers.pop().close()
    if not _servers:
        _servers.append(ForkServer(env, work.preload))
    _servers[-1].start(work.module, str(work.job_file), output, errors)
    return _servers[-1]


def _new(work: Work, env: dict[str, str], output: int, errors: int) -> subprocess.Popen[bytes]:
    """Start the work as a new process, which loads everything itself."""
    return subprocess.Popen(
        [sys.executable, "-m", "tau_workflows.execution.launch", work.module, str(work.job_file), str(os.getpid())],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
    )


def _waited(process: subprocess.Popen[bytes] | ForkServer, life: SignOfLife) -> int:
    """Exit code of a process, which is ended when its program is gone."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=2)
        if life.lost():
            process.kill()


@contextmanager
def _outputs(job_file: Path, loud: bool) -> Iterator[tuple[int, int]]:
    """Open what becomes standard output and error of a work: the terminal, or its log."""
    if loud:
        yield 1, 2
        return
    try:
        log = os.open(log_path(job_file), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError:
        # A full disk must not keep the work from saying so itself.
        log = os.open(os.devnull, os.O_WRONLY)
    try:
        yield log, log
    finally:
        os.close(log)


def environment(threads: int, folder: Path) -> dict[str, str]:
    """Return the environment of a task's process: threads, no version checks, non-interactive matplotlib.

    What libraries like to keep in the home folder goes to ``folder``, unless the user has a place for it.
    """
    caches = {"MPLCONFIGDIR": str(folder / "matplotlib"), "NIPYPE_CONFIG_DIR": str(folder / "nipype")}
    own = {**dict.fromkeys(_THREADS, str(threads)), "NO_ET": "1", "NIPYPE_NO_ET": "1", "MPLBACKEND": "Agg"}
    return {**caches, **os.environ, **own}
