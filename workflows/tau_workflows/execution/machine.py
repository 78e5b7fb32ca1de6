"""What this machine lets the program use: within a container or a cluster's job often less than it has."""

from __future__ import annotations

from pathlib import Path

import joblib
import psutil

#: Where Linux tells the limit of memory of a control group, in its two versions, and what it has used.
_CGROUP_MEMORY = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_processors() -> int:
    """Processors that this process may use: affinity and control groups are respected."""
    return max(1, int(joblib.cpu_count()))


def available_memory_mb() -> int:
    """Memory in MB that is free, of the machine and of the control group that this process is in."""
    free = [psutil.virtual_memory().available]
    for limit_file, used_file in _CGROUP_MEMORY:
        try:
            limit, used = (int(Path(name).read_text()) for name in (limit_file, used_file))
        except (OSError, ValueError):
            # No such control group, or its limit is "max".
            continue
        free.append(max(0, limit - used))
    return min(free) // 2**20
