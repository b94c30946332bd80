"""Signals that end a run, and requests to stop: neither loses what was learnt."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # of a keyboard, and of schedulers before they kill


class StopTraining(Exception):  # noqa: N818 - a request, like StopIteration
    """Raised by a callback to end the run after this iteration; `fit` returns the result so far."""


class Interruption:
    """Whether a signal has asked for the end.

    Attributes:
        signum: the number of the signal, or 0.
    """

    def __init__(self) -> None:
        self.signum = 0


@contextlib.contextmanager
def watch_signals() -> Iterator[Interruption]:
    """Notes SIGINT and SIGTERM instead of dying of them; the second one acts at once.

    Only in the main thread, where Python handles signals, and not where a program has a handler of its own.
    """
    interruption = Interruption()
    previous: dict[int, Any] = {}

    def note(signum: int, frame: FrameType | None) -> None:
        interruption.signum = signum
        restore()

    def restore() -> None:
        while previous:
            signal.signal(*previous.popitem())

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                previous[number] = handler
                signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()


def leave(signum: int, message: str) -> None:
    """Says why the run ended, and exits with the customary status; returns to someone at a prompt.

    Raises:
        SystemExit: with status 128 + signum, so 130 for SIGINT and 143 for SIGTERM.
    """
    print(message, file=sys.stderr, flush=True)
    if signum == signal.SIGINT and _is_interactive():
        return
    raise SystemExit(128 + signum)


def _is_interactive() -> bool:
    """Whether someone sits at a prompt, in a notebook or a shell of Python."""
    # Python sets `sys.ps1` at its own prompt alone; a notebook is known by the IPython that it has loaded.
    ipython = sys.modules.get("IPython")
    return hasattr(sys, "ps1") or (ipython is not None and ipython.get_ipython() is not None)
