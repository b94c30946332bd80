"""Memory that is free within the process but not to the system."""

from __future__ import annotations

import ctypes
import sys


def release_freed_memory() -> None:
    """Gives the system back what is free within this process.

    On Linux the C library keeps it, and what a compilation leaves would add to the peak of the run. Elsewhere
    it does nothing.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)
