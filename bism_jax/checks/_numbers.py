"""Checks of numbers: counts, rates, fractions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bism_jax._precision import is_floating_dtype
from bism_jax.checks._arrays import is_known
from bism_jax.checks._messages import shown


def non_negative_int(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is an integer of at least 0."""
    _int_of_at_least(0, name, value)


def positive_int(name: str, value: Any, alternative: str | None = None) -> None:
    """Raises ValueError unless `value` is an integer of at least 1."""
    _int_of_at_least(1, name, value, f"; or use {alternative}" if alternative else "")


def loop_count(name: str, value: Any, at_least: int = 1) -> None:
    """Raises ValueError unless `value` is an integer that a compiled loop can count to."""
    _int_of_at_least(at_least, name, value)
    if value >= 2**31:
        raise ValueError(f"{name} must be below 2**31, which a compiled loop can count to, not {value!r}.")


def seed(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is an integer of 32 bits, the seed of a key."""
    if not _is_int(value) or not -(2**31) <= value < 2**32:
        raise ValueError(f"{name} must be an integer of 32 bits, not {value!r}.")


def positive(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is a finite number above 0."""
    if not _is_number(value) or not value > 0:
        raise ValueError(f"{name} must be a finite number above 0, not {value!r}.")


def non_negative(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is a finite number of at least 0."""
    if not _is_number(value) or not value >= 0:
        raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}.")


def fraction(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is at least 0 and below 1."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, not {value!r}.")


def learning_rate(name: str, value: Any) -> None:
    """Raises TypeError or ValueError unless `value` is a number of at least 0 or a schedule."""
    if isinstance(value, (jax.Array, np.ndarray)) and value.shape == ():
        return  # a number of a user's, which may be traced
    if hasattr(value, "update") or isinstance(value, type) or not (_is_scalar(value) or callable(value)):
        raise TypeError(f"{name} must be a number or an optax schedule, not {value!r}.")
    if not callable(value):
        non_negative(name, value)


def widths(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is a sequence of positive integers."""
    if not isinstance(value, (tuple, list)) or not all(_is_int(width) and width > 0 for width in value):
        raise ValueError(
            f"{name} must be a tuple of integers of at least 1, such as (64, 64), not {value!r}."
        )


def shape(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is a tuple of integers of at least 0."""
    if not isinstance(value, tuple) or not all(_is_int(size) and size >= 0 for size in value):
        raise TypeError(f"{name} must be a tuple of integers of at least 0, such as (), not {value!r}.")


def finite_scalar(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is one real number, finite where it is known."""
    is_number = isinstance(value, (int, float, np.number, np.ndarray, jax.Array)) and not isinstance(
        value, bool
    )
    dtype = jnp.result_type(value) if is_number else None
    is_real = dtype is not None and (is_floating_dtype(dtype) or jnp.issubdtype(dtype, np.integer))
    if not is_real or np.shape(value) != ():
        what = f"shape {np.shape(value)}" if is_real else shown(value)
        raise ValueError(f"{name} must be one number, not {what}.")
    if is_known(value) and not np.isfinite(np.asarray(value, np.float64)):
        raise ValueError(f"{name} must be finite, not {float(np.asarray(value, np.float64))}.")


def positive_scalar(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is one number, finite and above 0 where it is known."""
    finite_scalar(name, value)
    if is_known(value) and not np.asarray(value, np.float64) > 0:
        raise ValueError(f"{name} must be a finite number above 0, not {value!r}.")


def _int_of_at_least(least: int, name: str, value: Any, hint: str = "") -> None:
    if not _is_int(value) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}{hint}.")


def _is_int(value: Any) -> bool:
    # True is an int to Python, but as a count it is a slip.
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    is_bool = isinstance(value, (bool, np.bool_))
    return isinstance(value, (int, float, np.number)) and not is_bool and bool(np.isfinite(value))
