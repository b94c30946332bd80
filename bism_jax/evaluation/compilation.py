"""Compiles an evaluation once for a model rather than at each call."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

import jax


def compile_for(fn: Callable[..., Any], *static: Any) -> Callable[..., Any]:
    """`fn(*static, ...)` as a compiled function of the rest, kept for the next call with equal `static`.

    Linen modules, frozen dataclasses, plain functions, numbers and None are values, and are kept. An NNX
    module or another object may have changed since the last call, so it is traced anew.
    """
    keys = tuple(_key(value) for value in static)
    if None in keys:
        return jax.jit(functools.partial(fn, *static))
    return _kept(fn, keys)


@functools.lru_cache(maxsize=64)
def _kept(fn: Callable[..., Any], keys: tuple[tuple[Any, Hashable], ...]) -> Callable[..., Any]:
    return jax.jit(functools.partial(fn, *(value for value, _ in keys)))


def _key(value: Any) -> tuple[Any, Hashable] | None:
    # A dataclass that hashes by identity can change and stay equal to itself.
    is_dataclass_value = dataclasses.is_dataclass(value) and type(value).__hash__ is not object.__hash__
    is_value = value is None or isinstance(value, (int, float)) or is_dataclass_value
    if not is_value and not inspect.isfunction(value):
        return None
    # A function's capabilities are its attributes, which can be set after a call.
    attributes = tuple(vars(value).items()) if inspect.isfunction(value) else ()
    try:
        hash((value, attributes))
    except TypeError:
        return None
    return value, attributes
