"""Programs that this process has compiled, kept for whoever traces the same one again.

Two traces are the same program where their equations are the same, constants and all: an equal model that is
built anew, with an equal optimiser, compiles nothing, and a function whose globals have changed does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax.extend.core import jaxpr_as_fun

from bism_jax.jaxpr_key import jaxpr_key
from bism_jax.jaxprs import is_within_jit

# A loop of a small model takes about a megabyte, and `fit` keeps one loop and five small programs.
_MAX_PROGRAMS = 128

# A program that runs once costs its compilation: without LLVM's optimisations a third of it goes.
_COMPILE_FAST = {"xla_backend_optimization_level": 0}

_lock = threading.Lock()
_programs: OrderedDict[Hashable, Any] = OrderedDict()


def compiled_once(key: Hashable, compile_program: Callable[[], Any]) -> Any:
    """What `compile_program()` returned for this key, under the same settings of JAX.

    Of the programs of a process the 128 that were used last are kept; none is for the key None.
    """
    if key is None:
        return compile_program()
    key = (key, _settings())
    with _lock:
        if key in _programs:
            _programs.move_to_end(key)
            return _programs[key]
    program = compile_program()  # which two threads may do at once
    with _lock:
        _programs[key] = program
        while len(_programs) > _MAX_PROGRAMS:
            _programs.popitem(last=False)
    return program


def call_compiled(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)` as one program, for what runs once: it is compiled fast rather than to be fast."""
    if jax.config.jax_disable_jit or is_within_jit():  # type: ignore[attr-defined]
        return fn(*args)
    traced, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    is_slow = jax.default_backend() == "cpu"

    def compile_program() -> Callable[..., list[Any]]:
        return jax.jit(jaxpr_as_fun(traced), compiler_options=_COMPILE_FAST if is_slow else None)

    key = jaxpr_key(traced)
    program = compiled_once(None if key is None else ("call", key), compile_program)
    outputs = program(*jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def clear_programs() -> None:
    """Frees the programs that are kept for the next call in this process."""
    with _lock:
        _programs.clear()


def _settings() -> tuple[tuple[str, str], ...]:
    """JAX's configuration, of this thread: precision, debugging and more change what is compiled."""
    return tuple((name, repr(getattr(jax.config, name, None))) for name in sorted(jax.config.values))
