"""Programs compiled and timed on a device that works asynchronously."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.monitoring
import numpy as np

_MIB = 2**20
_ROUNDS = 5
_cache_hits: list[str] = []


def _count_cache_hit(event: str, **_: Any) -> None:
    if event == "/jax/compilation_cache/cache_hits":
        _cache_hits.append(event)


jax.monitoring.register_event_listener(_count_cache_hit)


class Program(NamedTuple):
    """A compiled function, and what it cost.

    Attributes:
        call: it.
        columns: seconds of tracing and of compilation; whether it came from the compilation cache, whose time
            says nothing of compilation; the memory that is planned for it, arguments included.
    """

    call: Any
    columns: dict[str, Any]


def compile_program(fn: Callable[..., Any], *args: Any, donate_argnums: Any = ()) -> Program:
    """Compiled for arguments like these."""
    hits, start = len(_cache_hits), time.perf_counter()
    lowered = jax.jit(fn, donate_argnums=donate_argnums).lower(*args)
    traced = time.perf_counter()
    compiled = lowered.compile()
    columns: dict[str, Any] = {
        "trace_s": round(traced - start, 2),
        "compile_s": round(time.perf_counter() - traced, 2),
        "was_cached": len(_cache_hits) > hits,
    }
    memory: Any = compiled.memory_analysis()
    if memory is not None:
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        columns["planned_mib"] = round((held + memory.temp_size_in_bytes) / _MIB, 2)
    return Program(compiled, columns)


def time_iterations(run: Callable[[int], Any], seconds: float) -> dict[str, float]:
    """Milliseconds of an iteration, median and extremes of rounds.

    Args:
        run: starts so many iterations one after another and waits for the last, so that a round measures the
            device and not the way to it.
        seconds: of all rounds, of at least one iteration each.
    """
    run(1)
    once = _seconds(run, 1)
    count = int(np.clip(seconds / _ROUNDS / max(once, 1e-9), 1, 10_000))
    times = [1e3 * _seconds(run, count) / count for _ in range(_ROUNDS)]
    return {"ms": float(np.median(times)), "ms_least": min(times), "ms_most": max(times)}


def peak_mib() -> float | None:
    """The most that the device has held for this process; None where it does not count."""
    stats = jax.devices()[0].memory_stats()
    return None if not stats else stats["peak_bytes_in_use"] / _MIB


def measured_peak(run: Callable[[], Any]) -> tuple[Any, float | None]:
    """What `run` returns, and the peak of the device where it raised it: the count is never set back."""
    before = peak_mib()
    result = run()
    after = peak_mib()
    return result, after if before is not None and after is not None and after > before else None


def _seconds(run: Callable[[int], Any], count: int) -> float:
    start = time.perf_counter()
    run(count)
    return time.perf_counter() - start
