"""Checks of arrays that are given as data; what is traced is known by shape and dtype alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bism_jax._precision import as_working, is_floating_dtype
from bism_jax._tracing.jax_internals import is_traced

# What is raised for a reason other than the arguments.
NOT_OF_ARGUMENTS = (FloatingPointError, MemoryError, Warning, jax.errors.JaxRuntimeError)
_ABBREVIATED = 60  # characters of a value in a message


def shown(value: Any) -> str:
    """A short description of a value that is no array."""
    text = repr(value)
    text = text if len(text) <= _ABBREVIATED else f"{text[:_ABBREVIATED]}..."
    return f"{type(value).__name__} {text}"


def as_numbers(name: str, value: Any, expected: str = "[rows, ...]") -> Array | np.ndarray:
    """`value` as an array of real numbers; JAX's and NumPy's stay what they are.

    Raises:
        TypeError: for what is no array.
        ValueError: for an array of another dtype, or a masked array, whose mask would be lost.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            f"{name} is a masked array, whose mask would be lost; fill it, or drop masked entries."
        )
    array = value if isinstance(value, (jax.Array, np.ndarray)) else _from_sequence(name, value, expected)
    if not is_floating_dtype(array.dtype) and not (
        jnp.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_
    ):
        raise ValueError(f"{name} has dtype {array.dtype}, but must be an array {expected} of real numbers.")
    return array


def floating_rows(name: str, value: Any, expected: str = "[rows, *visible]") -> Array | np.ndarray:
    """`value` as an array of at least one row of finite floating numbers.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: for another dtype, no rows, or values that are NaN or infinite.
    """
    array = as_numbers(name, value, expected)
    not_empty(name, array, expected)
    floating(name, array)
    finite_rows(name, array)
    return array


def not_empty(name: str, array: Array | np.ndarray, expected: str) -> None:
    """Raises ValueError unless `array` has rows, none of them without entries."""
    if array.ndim == 0 or array.size == 0:
        what = "is a scalar" if array.ndim == 0 else "has no rows" if len(array) == 0 else "has empty rows"
        raise ValueError(f"{name} {what}: its shape is {array.shape}; it must be {expected}.")


def floating(name: str, array: Array | np.ndarray) -> None:
    """Raises ValueError unless the dtype is floating."""
    if not is_floating_dtype(array.dtype):
        raise ValueError(
            f"{name} has dtype {array.dtype}, but must be floating; convert it, {name}.astype(np.float32), "
            "and divide bytes by 255."
        )


def finite_rows(name: str, array: Array | np.ndarray) -> None:
    """Raises ValueError where a known value is NaN or infinite."""
    if not is_known(array) or not is_floating_dtype(array.dtype):
        return
    finite = is_finite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{name}: {(~finite).sum()} rows hold NaN or infinite values, the first of them row "
            f"{np.argmin(finite)}; remove those rows or fill them in."
        )


def same_row_shapes(name: str, x: Any, other_name: str, other: Any) -> None:
    """Raises ValueError where the rows of two arrays differ in shape."""
    if x.shape[1:] != other.shape[1:]:
        raise ValueError(
            f"{name} has shape {x.shape} and {other_name} has shape {other.shape}, but their rows "
            "must be of one shape."
        )


def is_finite(array: Any) -> np.ndarray:
    """Which entries of known floating numbers are finite, of any dtype and without a compiled cast."""
    return np.isfinite(as_working(np.asarray(array)))


def is_known(array: Any) -> bool:
    """Whether the values of an array can be looked at here: it is not traced, nor spread over hosts."""
    return not is_traced(array) and (not isinstance(array, jax.Array) or array.is_fully_addressable)


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


def call_on_rows(name: str, fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`, whose errors name the function and say the shapes that it was called on."""
    try:
        return fn(*args)
    except NOT_OF_ARGUMENTS:
        raise
    except Exception as error:
        if is_told(error):
            raise
        raise ValueError(
            f"{name} cannot be evaluated on arrays of shapes {shapes_of(args)}: {type(error).__name__}: "
            f"{error}"
        ) from error


def is_told(error: Exception) -> bool:
    """Whether it is an error of this library about an argument, which needs no second one around it."""
    return re.match(r"(energy_fn|posterior_fn|critic|sample_[hv]|\w+_fn)\b", str(error)) is not None


def shapes_of(args: tuple[Any, ...]) -> str:
    """The shapes of the arrays in `args`, for a message."""
    return " and ".join(str(np.shape(leaf)) for leaf in jax.tree.leaves(args)) or "none"


def _from_sequence(name: str, value: Any, expected: str) -> np.ndarray:
    is_sequence = isinstance(value, (list, tuple, int, float, np.generic)) or hasattr(value, "__array__")
    try:
        array = np.asarray(value) if is_sequence else None
    except (ValueError, TypeError):  # rows of several lengths
        array = None
    if array is None or array.dtype == object:
        raise TypeError(f"{name} must be an array {expected} of numbers, not {shown(value)}.")
    return array
