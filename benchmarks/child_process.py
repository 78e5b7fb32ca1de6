"""Measure one function in a separate process: its time, and the memory that it adds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")


def run_child(script: str, arguments: list[str], threads: int) -> dict[str, Any]:
    """Run ``script`` again with ``arguments`` in a new process, and read the JSON that it prints last.

    Raises
    ------
    RuntimeError
        The process failed; the message holds the end of what it wrote.
    """
    # Threads that wait give their processor away, so that processor time is time at work.
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run([sys.executable, script, *arguments], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def memory_mb(entry: str) -> float:
    """Return the memory of this process in MB (2**20 bytes): "VmRSS" now, or "VmHWM" at its peak. Linux only."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(entry))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    """Let the peak memory of this process begin again from what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def cost_of(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Return the extra memory of the first call, the peak memory over it, and the shortest time of all calls.

    Time is given by the clock ("seconds") and as the processor time of all threads ("cpu_seconds"), which other work on
    the machine changes less.
    """
    before = memory_mb("VmRSS")
    forget_peak()
    times = [_times(call)]
    peak = memory_mb("VmHWM")
    times += [_times(call) for _ in range(repeats - 1)]
    seconds, cpu_seconds = (min(column) for column in zip(*times, strict=True))
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "extra_mb": peak - before, "peak_mb": peak}


def _times(call: Callable[[], Any]) -> tuple[float, float]:
    started, cpu_started = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - started, time.process_time() - cpu_started
