"""The stages one after another, each in processes of its own that are stopped when its time is over.

This process never imports JAX: it holds no memory of the accelerator, and stops what hangs in a driver.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.accelerator.budget import allot
from benchmarks.accelerator.options import Options
from benchmarks.accelerator.rows import CUT_OFF, FAILED, START, Rows
from benchmarks.accelerator.stages import STAGES
from benchmarks.accelerator.worker import work

_LAST_SECONDS = 2.0  # to end the last process
_MAX_CRASHES = 10  # of a stage's processes; each takes one measurement with it
# Programs of tiny sizes take seconds to compile and milliseconds to run.
_FAST_COMPILATION = "--xla_backend_optimization_level=0"

Work = Callable[[str, Options, float, float], None]


def supervise(options: Options, run: Work = work) -> int:
    """Runs the stages; 0 where no measurement failed, else 1."""
    start = time.time()
    end = start + 60 * options.minutes - _LAST_SECONDS
    rows = Rows(options.output)
    _check(rows, options)
    rows.end_running(CUT_OFF, "the call was stopped")  # of an earlier call that was killed
    stages = [name for name in STAGES if name in options.stages]
    try:
        for index, name in enumerate(stages):
            shares = [STAGES[later].share for later in stages[index:]]
            deadline = time.time() + allot(end - time.time(), shares)
            _run_stage(name, options, run, deadline, start)
    finally:
        rows.end_running(CUT_OFF, "the call was stopped")
    print(f"\n{(options.output / 'rows.md').read_text()}\nrows and pictures: {options.output}")
    return int(any(row["status"] == FAILED and row["at"] >= start for row in rows.all()))


def _check(rows: Rows, options: Options) -> None:
    """Tiny sizes and full ones have the same cases; one would pass for the other."""
    if any(row["quick"] != options.quick for row in rows.all()):
        other = "without --quick" if options.quick else "with --quick"
        raise SystemExit(f"--output {options.output} holds rows of a call {other}; choose another folder.")


def _run_stage(name: str, options: Options, run: Work, deadline: float, start: float) -> None:
    """Processes until one comes to its end, or the time is over."""
    rows = Rows(options.output)
    for _ in range(_MAX_CRASHES):
        if time.time() >= deadline:
            return
        code = _run_process(name, options, run, deadline, start)
        if code is None:
            rows.end_running(CUT_OFF, "the stage's time was over")
            return
        if code == 0:
            return
        if not rows.end_running(FAILED, f"its process ended with code {code}"):
            rows.put(name, START, FAILED, quick=options.quick, error=f"its process ended with code {code}")
            return


def _run_process(name: str, options: Options, run: Work, deadline: float, start: float) -> int | None:
    """Its exit code; None where it was stopped."""
    process: Any = multiprocessing.get_context("spawn").Process(
        target=run, args=(name, options, deadline, start)
    )
    with _environment(_variables(name, options)):
        process.start()
    try:
        process.join(max(0.0, deadline - time.time()))
        return process.exitcode
    finally:
        process.kill()
        process.join(_LAST_SECONDS)  # one that waits for a driver may not end at all


def _variables(name: str, options: Options) -> dict[str, str]:
    """Of a stage's processes, which take memory as they need it."""
    variables = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    platforms = STAGES[name].platforms
    if platforms is not None:
        variables["JAX_PLATFORMS"] = platforms
    if options.quick:
        variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FAST_COMPILATION}".strip()
    return variables


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
