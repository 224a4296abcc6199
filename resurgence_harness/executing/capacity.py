"""How many cores and how much memory this process may use, with the limits of a container."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MEMORY = Path("/proc/meminfo")
LIMIT, USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
"""Of a control group of version 2, such as a container's."""


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int | None:
    """Bytes of memory that are available to new processes; None where that is unknown."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        line = next(line for line in MEMORY.read_text().splitlines() if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError):  # "max" without a limit
        found.append(max(0, int(LIMIT.read_text()) - int(USED.read_text())))
    return min(found, default=None)
