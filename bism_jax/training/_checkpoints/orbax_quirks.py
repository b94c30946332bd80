"""What orbax does to the process that it runs in."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

# Orbax numbers the operations of a process, and those of two threads take each other's numbers.
ORBAX = threading.RLock()
# Threads of orbax report after its error is raised, and there is no event that says that the last one has.
_SECONDS_FOR_LATE_CALLBACKS = 0.2


@contextlib.contextmanager
def without_late_callbacks() -> Iterator[None]:
    """Drops what open files report once one has failed and orbax has closed their loop."""
    hook = sys.unraisablehook

    def drop(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = drop
    try:
        yield
    except Exception:
        await_late_callbacks()  # while the hook still drops what they say
        raise
    finally:
        sys.unraisablehook = hook


def await_late_callbacks() -> None:
    """Returns when what has failed has reported."""
    time.sleep(_SECONDS_FOR_LATE_CALLBACKS)
