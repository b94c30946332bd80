"""Calls of a user's function, whose failures are told in terms of the arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from bism_jax.checks._messages import shapes_of
from bism_jax.errors import ModelError

# What is raised for a reason other than the arguments, or has named its own already.
# `jax_debug_nans` raises a FloatingPointError, a full device a JaxRuntimeError.
_PASSES = (ModelError, FloatingPointError, MemoryError, Warning, jax.errors.JaxRuntimeError)


def called(name: str, fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`; raises ModelError, naming the function and the shapes, where it cannot be evaluated."""
    with told_as(lambda: f"{name} cannot be evaluated on arrays of shapes {shapes_of(args)}:"):
        return fn(*args)


@contextlib.contextmanager
def told_as(describe: Callable[[], str]) -> Iterator[None]:
    """Turns what fails within because of the arguments into a ModelError that begins with `describe()`."""
    try:
        yield
    except _PASSES:
        raise
    except Exception as error:
        raise ModelError(f"{describe()} {type(error).__name__}: {error}") from error
