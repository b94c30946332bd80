"""Checks of what is neither a number nor an array: texts, choices, paths, functions and objects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from bism_jax._precision import is_floating_dtype
from bism_jax.checks._numbers import positive_int


def boolean(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}.")


def text(name: str, value: Any, example: str) -> None:
    """Raises TypeError unless `value` is a string; `example` says which."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, {example}, not {value!r}.")


def one_of(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises ValueError unless `value` is among `choices`."""
    # An array has no one truth value for `in`, and True is equal to 1.
    is_plain = isinstance(value, (str, int, np.integer, type(None))) and not isinstance(value, bool)
    if not is_plain or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}={value!r} is unknown; choose one of {listed}.")


def path(name: str, value: Any) -> Path:
    """`value` as a path, with `~` expanded.

    Raises:
        TypeError: for anything but a text or a path.
        ValueError: for an empty text, which would be the current folder.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, not {value!r}.")
    if value == "":
        raise ValueError(f"{name} is empty; pass a path.")
    return Path(value).expanduser()


def function(name: str, value: Any, signature: str) -> None:
    """Raises TypeError unless `value` can be called and is no class."""
    # A class can be called too, but builds where a function would compute.
    if isinstance(value, type) or not callable(value):
        raise TypeError(f"{name} must be a function {signature}, not {value!r}.")


def instance(name: str, value: Any, protocol: type, example: str) -> None:
    """Raises TypeError unless `value` has what the protocol asks for and is not a class."""
    members = [member for member in dir(protocol) if not member.startswith("_")]
    if isinstance(value, type) or not all(hasattr(value, member) for member in members):
        raise TypeError(f"{name} must be a value such as {example}, not {value!r}.")


def optimizer(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is an optax transformation."""
    if not callable(getattr(value, "init", None)) or not callable(getattr(value, "update", None)):
        raise TypeError(f"{name} must be an optax transformation such as optax.adam(1e-3), not {value!r}.")


def optimizer_pair(name: str, value: Any) -> None:
    """Raises TypeError unless `value` holds the optimisers of theta and phi."""
    if not isinstance(value, tuple) or not hasattr(value, "theta") or not hasattr(value, "phi"):
        raise TypeError(f"{name} must be Optimizers(theta=..., phi=...), not {value!r}.")
    optimizer(f"{name}.theta", value.theta)
    optimizer(f"{name}.phi", value.phi)


def callback(value: Any) -> None:
    """Raises TypeError or ValueError unless `value` can be called every so many iterations."""
    if isinstance(value, type) or not callable(value) or not hasattr(value, "every"):
        raise TypeError(
            f"callbacks must be values such as Evaluate(fn, every=1000), callable and with an attribute "
            f"every, not {value!r}."
        )
    positive_int(f"callbacks: every of {type(value).__name__}", value.every)


def floating_dtype(name: str, value: Any) -> None:
    """Raises TypeError unless `value` names a floating dtype, or is None."""
    try:
        is_floating = value is None or is_floating_dtype(jnp.dtype(value))
    except TypeError:
        is_floating = False
    if not is_floating:
        raise TypeError(f"{name} must be a floating dtype such as jnp.bfloat16, or None, not {value!r}.")


def no_result(name: str, value: Any) -> None:
    """Raises TypeError where a result of `fit` or a state of a method is given in the place of a part."""
    fields = getattr(value, "_fields", ())
    if "theta" in fields and ("history" in fields or "iteration" in fields):
        part = name.rpartition(" ")[2] if name.endswith(("theta", "phi")) else "theta"
        raise TypeError(f"{name} is a whole {type(value).__name__}; pass a part of it, such as its .{part}.")
