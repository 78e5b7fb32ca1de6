"""Polling of SLURM's queue, with made-up answers of ``squeue`` and ``sacct``."""

from __future__ import annotations

import asyncio

import pytest

from tau_workflows.execution import slurm_queue
from tau_workflows.execution.slurm_queue import SlurmQueue


class Cluster:
    """Answers as ``squeue`` and ``sacct`` do, from the jobs in the queue and the states in the accounting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queued: set[str] = set()
        self.states: dict[str, str] = {}
        self.calls: list[str] = []
        monkeypatch.setattr(slurm_queue.base, "read_and_display_async", self._answer)

    async def _answer(self, program: str, *arguments: str, hide_display: bool) -> tuple[int, str, str]:
        assert hide_display
        self.calls.append(program)
        if program == "squeue":
            return 0, "\n".join(sorted(self.queued)), ""
        asked = arguments[arguments.index("--jobs") + 1].split(",")
        return 0, "\n".join(f"{job}|{self.states[job]}" for job in asked if job in self.states), ""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def polls(worker: SlurmQueue, *jobs: str) -> list[bool]:
    """Poll jobs one after the other, as their coroutines do; returns which have ended."""

    async def ask() -> list[bool]:
        return [await worker._poll_job(job) for job in jobs]

    return asyncio.run(ask())


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "TIMEOUT", "CANCELLED by 0", "OUT_OF_MEMORY", "NODE_FAIL"])
def test_an_end_that_the_accounting_tells_at_once_leaves_the_other_jobs_waiting(cluster: Cluster, state: str) -> None:
    worker = SlurmQueue("", 0.0, 10)
    cluster.queued = {"1", "2"}
    assert polls(worker, "1", "2") == [False, False]
    # Job 1 ends; it is the poll of job 2 that learns of it.
    cluster.queued, cluster.states = {"2"}, {"1": state}
    assert polls(worker, "2", "1", "2") == [False, True, False]
    cluster.queued, cluster.states = set(), {"2": "COMPLETED"}
    assert polls(worker, "2", "1") == [True, True]


def test_a_job_of_which_the_accounting_says_nothing_yet_goes_on(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = SlurmQueue("", 0.0, 10)
    cluster.queued = {"1", "2"}
    assert polls(worker, "1", "2") == [False, False]
    cluster.queued = {"2"}
    assert polls(worker, "1", "2", "1") == [False, False, False]
    cluster.states = {"1": "COMPLETED"}
    assert polls(worker, "2", "1") == [False, True]
    # Of job 2, it never says anything.
    cluster.queued = set()
    assert polls(worker, "2") == [False]
    monkeypatch.setattr(slurm_queue, "_SILENT_S", -1.0)
    assert polls(worker, "2") == [True]


def test_jobs_of_one_interval_share_one_call(cluster: Cluster) -> None:
    worker = SlurmQueue("", 60.0, 10)
    cluster.queued = {"1", "2", "3"}
    assert polls(worker, "1", "2", "3", "1") == [False] * 4
    assert cluster.calls == ["squeue"]
