"""What a process holds in memory, and the most it has held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax

from bism_jax.training import release_freed_memory

_MIB = 2**20


def peak_of(run: Callable[[], object]) -> float:
    """What `run` adds to the resident memory at its peak, in MiB.

    Of another device than a CPU it is the most that JAX has held there in this process.
    """
    if jax.default_backend() != "cpu":
        run()
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / _MIB
    release_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status_mib("VmRSS")
    run()
    return peak_mib() - before


def peak_mib() -> float:
    """The largest resident memory of this process, in MiB."""
    return _status_mib("VmHWM")


def _status_mib(entry: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{entry}:")[1].split()[0]) / 1024
