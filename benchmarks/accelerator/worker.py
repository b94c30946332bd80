"""The process of a stage: its measurements one after another, a row each."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import threading
import time
import traceback
from multiprocessing.connection import wait
from typing import Any

from benchmarks.accelerator.cases import Case, Context, UnavailableError
from benchmarks.accelerator.options import Options
from benchmarks.accelerator.rows import DONE, FAILED, RUNNING, START, UNAVAILABLE, WAITING, Row, Rows
from benchmarks.accelerator.stages import STAGES


def work(stage: str, options: Options, deadline: float, start_of_call: float) -> None:
    """Measures what this call has not tried, and no call has finished on this device."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    rows = Rows(options.output)
    always: dict[str, Any] = {"quick": options.quick}
    try:
        module = _import_stage(stage, options)
        always["device"] = module.device() if hasattr(module, "device") else _device()
        cases: list[Case] = module.cases(Context(options, rows, deadline))
    except Exception as error:
        rows.put(stage, START, **_failure(error), **always)
        return
    rows.announce(stage, [case.name for case in cases], **always)
    for case in cases:
        if _is_settled(rows.find(stage, case.name), always["device"], start_of_call):
            continue
        rows.put(stage, case.name, RUNNING, **always)
        row = rows.put(stage, case.name, **_outcome(case), **always)
        print(f"{stage}: {case.name}: {row['status']} {row.get('error') or ''}", flush=True)


def _import_stage(stage: str, options: Options) -> Any:
    """Its module; programs are kept for the next call."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(options.work / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return importlib.import_module(STAGES[stage].module)


def _device() -> str:
    import jax

    return jax.devices()[0].device_kind


def _is_settled(row: Row | None, device: str, start_of_call: float) -> bool:
    if row is None or row["status"] in (WAITING, RUNNING):
        return False
    is_done = row["status"] == DONE and row.get("device") == device
    return is_done or row["at"] >= start_of_call


def _outcome(case: Case) -> dict[str, Any]:
    """The columns of a row; an error is one too, since the next measurement may work."""
    start = time.perf_counter()
    try:
        values = {"status": DONE, **case.run()}
    except UnavailableError as reason:
        values = {"status": UNAVAILABLE, "error": str(reason)}
    except Exception as error:
        values = _failure(error)
    return {**values, "took_s": round(time.perf_counter() - start, 2)}


def _failure(error: Exception) -> dict[str, Any]:
    traceback.print_exception(error)
    return {"status": FAILED, "error": f"{type(error).__name__}: {error}"[:1000]}


def _die_with_parent() -> None:
    """A process that outlived a killed parent would hold the accelerator."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
