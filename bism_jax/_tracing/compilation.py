"""Programs that this process has compiled, kept for whoever traces the same one again.

Two traces are the same program where their equations are the same, constants and all: an equal model that is
built anew, with an equal optimiser, compiles nothing, and a function whose globals have changed does.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax

from bism_jax._backend import one_time_options, options_to_look
from bism_jax._tracing.jax_internals import is_traced, jaxpr_as_fun, jit_is_disabled, settings
from bism_jax._tracing.jaxpr_key import jaxpr_key
from bism_jax._tracing.jaxprs import is_within_jit

# A loop of a small model takes about a megabyte, and `fit` keeps one loop and five small programs.
_MAX_PROGRAMS = 128

# Threads may call `fit` at the same time.
_lock = threading.Lock()
_programs: OrderedDict[Hashable, Any] = OrderedDict()


def compiled_once(key: Hashable, compile_program: Callable[[], Any]) -> Any:
    """What `compile_program()` returned for this key, under the same settings of JAX.

    Of the programs of a process the 128 that were used last are kept; none is for the key None.
    """
    if key is None:
        return compile_program()
    key = (key, settings())
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
    if not _is_plain(jax.tree.leaves(args)):
        return fn(*args)
    return _program(fn, args, one_time_options())(*args)


def compiled_to_look_at(traced: Any) -> Any:
    """The program of `jax.jit(fn).trace(...)`, whose memory is that of the one to run."""
    lowered = traced.lower()
    *better, last = options_to_look()
    for options in better:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # of a JAX that has no such option
            return lowered.compile(compiler_options=options)
    return lowered.compile(compiler_options=last)


def compiled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit(fn)` whose programs are kept by what they are, not by which function it is.

    A caller traces it once for each shape; a model that has changed, or a global that it reads, is another
    program, and an equal one that is built anew is the same.
    """
    programs: dict[Hashable, Callable[..., Any]] = {}

    def call(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        key = (structure, tuple(map(jax.typeof, leaves)))
        if _is_plain(leaves) and key not in programs:
            programs[key] = _program(fn, args, None)
        return programs[key](*args) if key in programs else jax.jit(fn)(*args)

    return call


def _is_plain(leaves: list[Any]) -> bool:
    """Whether a program can be called: neither within a transformation nor where JAX is told to use none."""
    return not (jit_is_disabled() or is_traced(leaves) or is_within_jit())


def _program(
    fn: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any] | None
) -> Callable[..., Any]:
    """`fn` as a program for arguments like `args`."""
    traced, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    key = jaxpr_key(traced)
    flat = compiled_once(
        None if key is None else ("call", key, repr(options)),
        # The trace that has this key: `fn` called again would see what has changed since.
        lambda: jax.jit(jaxpr_as_fun(traced), compiler_options=options),
    )
    structure = jax.tree.structure(shapes)
    return lambda *args: jax.tree.unflatten(structure, flat(*jax.tree.leaves(args)))


def clear_programs() -> None:
    """Frees the programs that are kept for the next call in this process."""
    with _lock:
        _programs.clear()
