"""JAX's own switches that are for a user's code, not for what the library must do."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import jax

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


@contextlib.contextmanager
def standard_promotion() -> Iterator[None]:
    """Promotes dtypes and ranks as JAX does by default, for code that is not written for anything else.

    Optax is not (`decay**count` mixes a float with an integer); energies and posteriors keep to what the user
    has set.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def with_transfers(fn: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
    """`fn` free of the user's transfer guard: its arguments and its constants must reach the device."""

    @functools.wraps(fn)
    def unguarded(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        with jax.transfer_guard("allow"):
            return fn(*args, **kwargs)

    return unguarded
