"""Pydra's worker for SLURM, asking the cluster once for all jobs.

Pydra asks ``squeue`` for each job once a second, and submits all jobs at once; with thousands of jobs that is too much
for a login node and the scheduler.
"""

from __future__ import annotations

import asyncio
import getpass
import time
from typing import Any

from pydra.engine.job import Job
from pydra.workers import base, slurm

#: Seconds for which ``sacct`` may say nothing of a job that has left the queue; accounting may lag behind.
_SILENT_S = 60.0


class SlurmQueue(slurm.Worker):
    """Submits jobs up to a limit and polls all of them with one call.

    Parameters
    ----------
    sbatch_args
        Arguments of ``sbatch``.
    poll_interval
        Seconds between two calls of ``squeue``.
    max_jobs
        The most jobs in the queue, those that run included.
    """

    _plugin_name = "slurm"

    def __init__(self, sbatch_args: str, poll_interval: float, max_jobs: int) -> None:
        super().__init__(sbatch_args=sbatch_args)
        self.poll_interval = poll_interval
        self._slots, self._asking = asyncio.Semaphore(max_jobs), asyncio.Lock()
        self._asked, self._queued = -float("inf"), frozenset[str]()
        self._known_since: dict[str, float] = {}
        self._ended: set[str] = set()
        self._gone_since: dict[str, float] = {}

    async def run(self, job: Job[Any], rerun: bool = False) -> Any:
        """Submit a job when there is room for it, and wait for its end."""
        async with self._slots:
            return await super().run(job, rerun=rerun)

    async def _poll_job(self, jobid: str) -> bool:
        """Return whether a job has ended, in whatever way: each task tells beside its job file how it ended.

        An error here would keep Pydra from submitting the jobs that still wait.
        """
        if jobid in self._ended:
            return True
        since = self._known_since.setdefault(jobid, time.monotonic())
        await self._refresh()
        # What was submitted after the last answer is not in it.
        if jobid in self._queued or since > self._asked:
            return False
        return jobid in self._ended

    async def _refresh(self) -> None:
        """Ask for the queue, and for the ends of the jobs that have left it, if the last answer is old."""
        async with self._asking:
            begun = time.monotonic()
            if begun < self._asked + self.poll_interval:
                return
            code, text, _ = await base.read_and_display_async(
                "squeue", "--noheader", "--user", getpass.getuser(), "--format", "%A", hide_display=True
            )
            # A scheduler that does not answer says nothing about jobs.
            self._asked = begun
            if code == 0:
                self._queued = frozenset(text.split())
                await self._ask_for_ends()

    async def _ask_for_ends(self) -> None:
        """Ask the accounting for the ends of jobs that are in the queue no more."""
        gone = [job for job, since in self._known_since.items() if since <= self._asked and job not in self._queued]
        if not gone:
            return
        _, text, _ = await base.read_and_display_async(
            *("sacct", "--noheader", "--allocations", "--parsable2", "--jobs", ",".join(gone)),
            *("--format", "JobID,State"),
            hide_display=True,
        )
        told = dict(line.split("|", 1) for line in text.splitlines() if "|" in line)
        for job in gone:
            state = told.get(job, "").split(" ")[0]
            silent = not state and self._asked > self._gone_since.setdefault(job, self._asked) + _SILENT_S
            if silent or state not in ("", "PENDING", "RUNNING", "COMPLETING"):
                self._ended.add(job)
                del self._known_since[job]
                # Accounting that answers at once has never been silent.
                self._gone_since.pop(job, None)
