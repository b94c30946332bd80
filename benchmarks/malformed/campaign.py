"""Runs malformed calls and tells clear refusals from tracebacks, silence and hanging.

A list module, such as `benchmarks.malformed.evaluation`, names its package as `PACKAGE`, gives one valid call
for each public name by `calls()`, and says in `EXEMPT` which names take no arguments of a user. The campaign
replaces one argument after the other by the values of its kind in `MALFORMED`, and runs the special calls.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import re
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import jax
import numpy as np

import benchmarks.malformed
import bism_jax
from benchmarks.malformed.values import MALFORMED, Bad

__all__ = ["MALFORMED", "Bad", "Call", "Case", "Outcome", "cases", "list_modules", "run"]

CLASSES = ("clear", "ran", "raw", "wrong", "hang")
FAULTS = ("raw", "wrong", "hang")
_LIBRARY = str(Path(bism_jax.__file__).parent)
_SHARED = ("rows", "features", "numbers", "model", "theta", "phi")
_REFUSALS = (ValueError, TypeError, OSError, ImportError)


@dataclass(frozen=True)
class Call:
    """A public function with arguments that work.

    Attributes:
        target: the function or class.
        arguments: all by name; a valid call. What must be fresh for each call is made by `before`.
        kinds: what each argument is, a key of `MALFORMED`; one that is left out is not replaced.
        specials: arguments that replace those of the valid call, together.
        allowed: why a replacement may run, by `"argument: name of the value"`.
        before: what is called before each call, such as to empty a folder.
    """

    target: Callable[..., Any]
    arguments: dict[str, Any]
    kinds: dict[str, str]
    specials: tuple[dict[str, Any], ...] = ()
    allowed: dict[str, str] = field(default_factory=dict)
    before: Callable[[], None] | None = None


@dataclass(frozen=True)
class Case:
    """One malformed call: what it is called, and the call."""

    package: str
    name: str
    what: str
    call: Call
    changes: dict[str, Any]

    @property
    def label(self) -> str:
        """Unique in the campaign."""
        return f"{self.package}.{self.name}({self.what})"


@dataclass(frozen=True)
class Outcome:
    """What a case came to.

    Attributes:
        label: of the case.
        kind: one of `CLASSES`.
        detail: the message, or what was returned.
        seconds: how long it took.
    """

    label: str
    kind: str
    detail: str
    seconds: float


class _TimeUpError(BaseException):
    """Not caught by what catches exceptions."""


def list_modules() -> list[ModuleType]:
    """The modules of this package that list calls."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.malformed.__path__))
    modules = [
        importlib.import_module(f"{benchmarks.malformed.__name__}.{name}") for name in names if name[0] != "_"
    ]
    return [module for module in modules if hasattr(module, "PACKAGE")]


def cases(module: ModuleType) -> Iterator[Case]:
    """All malformed calls of one list module."""
    for name, call in module.calls().items():
        for argument, kind in call.kinds.items():
            for bad in MALFORMED[kind]:
                value = bad.make(call.arguments.get(argument))
                if not _is_default(call.target, argument, value):
                    yield Case(module.PACKAGE, name, f"{argument}: {bad.name}", call, {argument: value})
        for index, changes in enumerate(call.specials):
            yield Case(module.PACKAGE, name, f"special {index}: {', '.join(changes)}", call, changes)


def run(case: Case, limit_s: int = 60) -> Outcome:
    """Runs a case; what it prints of warnings is its answer where it runs."""
    if case.call.before is not None:
        case.call.before()
    start = time.perf_counter()
    try:
        with _limit(limit_s), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = case.call.target(**{**case.call.arguments, **case.changes})
            jax.block_until_ready(result)
        kind, detail = _classify_result(case, result)
    except _TimeUpError:
        kind, detail = "hang", f"more than {limit_s} s"
    except Exception as error:
        kind, detail = _classify_error(case, error)
    return Outcome(case.label, kind, detail, time.perf_counter() - start)


def _classify_result(case: Case, result: Any) -> tuple[str, str]:
    reason = case.call.allowed.get(case.what)
    if reason is None:
        return "wrong", f"ran and gave {str(result)[:200]!r}"
    return "ran", reason


def _classify_error(case: Case, error: Exception) -> tuple[str, str]:
    """Clear where our own code raised it and it names an argument of the call."""
    message = f"{type(error).__name__}: {error}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    # What is wrong between a model and its rows can be told by either.
    is_shared = case.what.startswith("special") or any(
        case.call.kinds.get(name) in _SHARED for name in case.changes
    )
    names = _parameters(case.call.target) if is_shared else list(case.changes)
    is_named = any(
        re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", str(error)) for name in names
    )
    is_ours = last.filename.startswith(_LIBRARY)
    if is_ours and is_named and isinstance(error, _REFUSALS):
        return "clear", message
    return "raw", f"{message} [{last.filename}:{last.lineno}]"


def _parameters(target: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(target).parameters if name not in {"args", "kwargs"}]


def _is_default(target: Callable[..., Any], argument: str, value: Any) -> bool:
    parameter = inspect.signature(target).parameters.get(argument)
    default = inspect.Parameter.empty if parameter is None else parameter.default
    if default is None or value is None:
        return default is value
    is_plain = isinstance(value, (bool, int, float, str, np.number)) and type(value) is type(default)
    return bool(is_plain and value == default)


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    """Raises in the main thread when the time is up, as soon as Python runs again."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise _TimeUpError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
