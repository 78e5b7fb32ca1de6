"""Resources available to the program: less than the machine has within a container or a cluster's job."""

from __future__ import annotations

from pathlib import Path

import joblib
import psutil

#: Files with the memory limit of a Linux control group, in its two versions, and with its use.
_CGROUP_MEMORY = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_processors() -> int:
    """Return the processors that this process may use, by affinity and control groups."""
    return max(1, int(joblib.cpu_count()))


def available_memory_mb() -> int:
    """Return free memory in MB, of the machine and of the control group of this process."""
    free = [psutil.virtual_memory().available]
    for limit_file, used_file in _CGROUP_MEMORY:
        try:
            limit, used = (int(Path(name).read_text()) for name in (limit_file, used_file))
        except (OSError, ValueError):
            # No such control group, or its limit is "max".
            continue
        free.append(max(0, limit - used))
    return min(free) // 2**20
