"""Spread tasks over the processors of this machine, or over a cluster: Pydra's part of the program.

Each task is a separate process, so that a crash, a kill or running out of memory takes down that task and no other.
The caller reads its outcome beside its job file (`tau_workflows.execution.task`).
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import psutil
from pydra.compose import python
from pydra.engine.submitter import Submitter
from pydra.workers import cf, sge
from pydra.workers.base import Worker

from tau_pipeline.settings.execution import Execution
from tau_workflows.execution.heartbeat import BEAT_S, GRACE_S, Heartbeat, Program, run_dirs, tasks_of
from tau_workflows.execution.pool import in_pool_run_task
from tau_workflows.execution.slurm_queue import SlurmQueue
from tau_workflows.execution.task import Task, clear, ends_beside, files_in

#: Tasks on this machine that Pydra gets at a time; at the end of each part, processors wait for its last tasks.
_AT_A_TIME = 500
#: Seconds that all tasks have to end after an interruption, before their processes are killed.
_END_S = 2.5
#: Seconds that processes may take to disappear after they were killed; much memory takes longest.
_LAST_S = 1.0


def spread(
    tasks: Sequence[Task],
    execution: Execution,
    together: int,
    prepare: Callable[[Sequence[Task]], None] = lambda _: None,
) -> None:
    """Run each task in a separate process, and wait for all of them.

    A task that fails is no error here. On this machine, tasks that were lost with a worker of the pool, without having
    ended themselves, are run once more. An exception, such as an interruption, ends all tasks.

    Parameters
    ----------
    tasks
        Their job files are in one folder, which every machine that runs them can see. The caller holds the lock of
        these tasks: no other run that lives has tasks of the same names there.
    execution
        Read here: ``worker``, ``worker_args``, ``poll_interval``, ``max_jobs``, ``stop_on_first_crash`` and
        ``verbose``.
    together
        How many run at a time on this machine; a cluster's own queue decides there.
    prepare
        Called with the tasks that are begun next, before they are, to write their job files: those of ten thousand
        would keep the first from beginning.
    """
    if not tasks:
        return
    clear(tasks)
    inbox = tasks[0].job_file.parent
    # Jobs of a program that was killed may still run on the cluster; they end when its folder is gone.
    left_behind = _remove_dead_runs(inbox, tasks) and execution.worker != "cf"
    heartbeat = Heartbeat(inbox)
    program = Program(heartbeat.file, heartbeat.run, os.getpid(), execution.stop_on_first_crash, execution.verbose > 0)
    with heartbeat.beating([task.name for task in tasks]):
        time.sleep(GRACE_S + BEAT_S if left_behind else 0)
        for _ in range(2 if execution.worker == "cf" else 1):
            there = files_in([inbox])
            waiting = [task for task in tasks if there.isdisjoint(ends_beside(task.job_file))]
            for part in _parts(waiting, execution.worker):
                prepare(part)
                _submit(part, program, _worker(part, execution, together), heartbeat)


def _parts(tasks: Sequence[Task], worker: str) -> Iterator[Sequence[Task]]:
    """Yield the tasks that are given to Pydra at a time: it prepares all of them before it begins the first.

    The queue of a cluster gets all of them, so that it never runs empty.
    """
    size = _AT_A_TIME if worker == "cf" else max(len(tasks), 1)
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]


def _remove_dead_runs(inbox: Path, tasks: Sequence[Task]) -> bool:
    """Remove the folders of earlier runs of the same tasks, which are dead; returns whether there were any."""
    names = {task.name for task in tasks}
    dead = [run for run in run_dirs(inbox) if names.intersection(tasks_of(run))]
    for run in dead:
        shutil.rmtree(run, ignore_errors=True)
    return bool(dead)


def _worker(tasks: Sequence[Task], execution: Execution, together: int) -> Worker:
    """Make Pydra's worker, with what the tasks need and what the user wants."""
    if execution.worker == "cf":
        return cf.Worker(n_procs=max(1, min(together, len(tasks))))
    if execution.worker == "slurm":
        memory_mb = max(task.memory_mb for task in tasks)
        processes = max(task.processes for task in tasks)
        # A job that is canceled or out of time has failed; Pydra would put it into the queue again for ever.
        asked = f"--no-requeue --cpus-per-task={processes} --mem={memory_mb}M {execution.worker_args}"
        return SlurmQueue(asked.strip(), execution.poll_interval, execution.max_jobs)
    # Pydra 1.0a12 cannot read the result files of an array job; the end of the array is enough.
    worker = sge.Worker(default_qsub_args=execution.worker_args, poll_for_result_file=False, collect_jobs_delay=2)
    # It counts threads in this, and begins with an empty dictionary, to which nothing can be added.
    worker.threads_used = 0
    return worker


@python.define
def RunTask(task: Task, program: Program) -> int:
    """Run one task in a separate process and write how that ended; returns its exit code."""
    return in_pool_run_task(task, program)


def _submit(tasks: Sequence[Task], program: Program, worker: Worker, heartbeat: Heartbeat) -> None:
    """Let Pydra run the tasks in a thread, so that an interruption is raised here and not somewhere inside Pydra."""
    done: Future[None] = Future()
    threading.Thread(target=_run_in_pydra, args=(tasks, program, worker, done), daemon=True).start()
    try:
        done.result()
    except BaseException:
        hide_closed_loops()
        # The whole end has five seconds, in which folders have to be unlocked and states written, too.
        end = time.monotonic() + _END_S
        heartbeat.announce_end()
        _remove_from_queue(worker)
        with suppress(BaseException):
            done.result(timeout=max(0.0, end - time.monotonic()))
        _abandon(worker)
        wait_for_last(_LAST_S)
        raise


def _run_in_pydra(tasks: Sequence[Task], program: Program, worker: Worker, done: Future[None]) -> None:
    cache = program.alive_file.with_name("pydra")
    shutil.rmtree(cache, ignore_errors=True)
    # Pydra logs every failure with its traceback; each task has its own record.
    for name in ("pydra", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    runs = RunTask(program=program).split("task", task=list(tasks))
    try:
        # A worker that was killed is an error to Pydra, and a task without an outcome to us.
        with Submitter(cache_root=cache, worker=worker) as submit, suppress(RuntimeError):
            submit(runs, raise_errors=False)
        done.set_result(None)
    except BaseException as exc:
        done.set_exception(exc)


def wait_for_last(seconds: float) -> None:
    """Wait until no process of the program is left on this machine, at most some seconds.

    A signal to the whole process group ends the pool before its tasks, which are nobody's children then: they are known
    by group, interpreter, and time of start.
    """
    own = psutil.Process()
    group, interpreter, start = os.getpgrp(), own.exe(), own.create_time()

    def is_left(process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):
            return (
                process.pid != own.pid
                and os.getpgid(process.pid) == group
                and process.create_time() >= start
                and process.status() != psutil.STATUS_ZOMBIE
                # A process that is ending has no program any more, but it is not gone before it is a zombie.
                and process.exe() in (interpreter, "")
            )
        return False

    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(is_left, psutil.process_iter())):
        time.sleep(0.02)


def hide_closed_loops() -> None:
    """Let programs that Pydra waited for, such as ``squeue``, be forgotten without a traceback when its loop is closed.

    Python closes their pipes when it collects them, by means of a loop that has been closed meanwhile.
    """
    before = sys.unraisablehook

    def tell(found: sys.UnraisableHookArgs) -> None:
        if not (isinstance(found.exc_value, RuntimeError) and "loop is closed" in str(found.exc_value)):
            before(found)

    sys.unraisablehook = tell


def _remove_from_queue(worker: Worker) -> None:
    """Cancel the jobs of SLURM or Grid Engine, those that wait and those that run."""
    if isinstance(worker, SlurmQueue):
        program, numbers = "scancel", tuple(worker.error)
    elif isinstance(worker, sge.Worker):
        program, numbers = "qdel", tuple(worker.output_by_jobid)
    else:
        return
    if numbers:
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([program, *numbers], capture_output=True, timeout=_END_S, check=False)


def _abandon(worker: Worker) -> None:
    """Kill the pool, and with it all remaining tasks, and cancel what Pydra waits for."""
    for process in multiprocessing.active_children():
        process.kill()

    def stop_waiting() -> None:
        for waiting in asyncio.all_tasks(worker.loop):
            waiting.cancel()

    if worker.loop is not None:
        with suppress(RuntimeError):
            worker.loop.call_soon_threadsafe(stop_waiting)
