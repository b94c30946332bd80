"""How much memory this process may still take."""

from __future__ import annotations

import os
import re
from pathlib import Path

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of version 2 of control groups


def available_memory() -> float:
    """Bytes that can be taken without swapping; where the system does not tell, all it has, or infinity."""
    return min(_system_memory(), _container_memory())


def _system_memory() -> float:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    if found:
        return float(found[1]) * 1024
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return float("inf")


def _container_memory() -> float:
    """The limit of a container, from which nothing is taken off: what it has used can be freed, mostly."""
    try:
        return float(_CONTAINER_LIMIT.read_text())  # or "max"
    except (OSError, ValueError):
        return float("inf")
