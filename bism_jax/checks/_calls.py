"""Calls of a user's function, whose failures are told in terms of the arguments."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax

from bism_jax.checks._messages import shapes_of

# What is raised for a reason other than the arguments.
_NOT_OF_ARGUMENTS = (FloatingPointError, MemoryError, Warning, jax.errors.JaxRuntimeError)
# Errors of this library about an argument, which need no second one around them.
_TOLD = re.compile(r"(energy_fn|posterior_fn|critic|sample_[hv]|\w+_fn)\b")


def called(name: str, fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`; raises ValueError, naming the function and the shapes, where it cannot be evaluated."""
    with told_as(lambda: f"{name} cannot be evaluated on arrays of shapes {shapes_of(args)}:"):
        return fn(*args)


@contextlib.contextmanager
def told_as(describe: Callable[[], str]) -> Iterator[None]:
    """Turns what fails within because of the arguments into a ValueError that begins with `describe()`."""
    try:
        yield
    except _NOT_OF_ARGUMENTS:
        raise
    except Exception as error:
        if _TOLD.match(str(error)):
            raise
        raise ValueError(f"{describe()} {type(error).__name__}: {error}") from error
