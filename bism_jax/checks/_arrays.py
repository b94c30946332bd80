"""Checks of arrays; what is traced is known by shape and dtype alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bism_jax._precision import as_working, is_floating_dtype
from bism_jax._tracing.jax_internals import is_traced
from bism_jax.checks._messages import shown


def as_numbers(name: str, value: Any, expected: str = "[rows, ...]") -> Array | np.ndarray:
    """`value` as an array of real numbers; JAX's and NumPy's stay what they are.

    Raises:
        TypeError: for anything but an array.
        ValueError: for an array of another dtype, or a masked array, whose mask would be lost.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            f"{name} is a masked array, whose mask would be lost; fill it, or drop masked entries."
        )
    # No copy: data may be large, and JAX's may lie on another device.
    array = value if isinstance(value, (jax.Array, np.ndarray)) else _from_sequence(name, value, expected)
    if not is_floating_dtype(array.dtype) and not (
        jnp.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_
    ):
        raise ValueError(f"{name} has dtype {array.dtype}, but must be an array {expected} of real numbers.")
    return array


def floating_rows(name: str, value: Any, expected: str = "[rows, *visible]") -> Array | np.ndarray:
    """`value` as an array of at least one row of finite floating numbers.

    Raises:
        TypeError: for anything but an array of numbers.
        ValueError: for another dtype, no rows, or values that are NaN or infinite.
    """
    array = as_numbers(name, value, expected)
    not_empty(name, array, expected)
    floating(name, array)
    finite_rows(name, array)
    return array


def array(name: str, value: Any, shape: str) -> None:
    """Raises TypeError unless `value` is an array, ValueError unless it is floating and not empty.

    Only what is known of a traced array is looked at, so values may be anything.
    """
    if not isinstance(value, (jax.Array, np.ndarray)) or isinstance(value, np.ma.MaskedArray):
        masked = " a masked array, whose mask would be lost;" if isinstance(value, np.ma.MaskedArray) else ""
        raise TypeError(
            f"{name} is{masked or f' a {type(value).__name__};'} it must be an array of shape {shape}."
        )
    if not is_floating_dtype(value.dtype):
        raise ValueError(
            f"{name} has dtype {value.dtype}, but it must be floating; convert it, for instance "
            f"{name}.astype(np.float32)."
        )
    if value.ndim == 0 or value.size == 0:
        raise ValueError(f"{name} is empty or no batch: its shape is {value.shape}; it must be {shape}.")


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


def finite_rows(
    name: str, array: Array | np.ndarray, remedy: str = "remove those rows or fill them in"
) -> None:
    """Raises ValueError where a known value is NaN or infinite; `remedy` says what to do about it."""
    if not is_known(array) or not is_floating_dtype(array.dtype):
        return
    finite = is_finite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{name}: {(~finite).sum()} rows hold NaN or infinite values, the first of them row "
            f"{np.argmin(finite)}; {remedy}."
        )


def same_row_shapes(name: str, x: Any, other_name: str, other: Any) -> None:
    """Raises ValueError where the rows of two arrays differ in shape."""
    if x.shape[1:] != other.shape[1:]:
        raise ValueError(
            f"{name} has shape {x.shape} and {other_name} has shape {other.shape}, but their rows "
            "must be of one shape."
        )


def same_shape(name: str, found: Any, like: str, expected: tuple[int, ...]) -> None:
    """Raises ValueError unless `found` has the shape of what is called `like`."""
    if getattr(found, "shape", None) != expected:
        shown = f"shape {found.shape}" if hasattr(found, "shape") else f"a {type(found).__name__}"
        raise ValueError(f"{name} has {shown}, but {like} has shape {expected}; they must be equal.")


def scalar_loss(name: str, shape: Any) -> None:
    """Raises ValueError unless `shape` is that of one floating scalar."""
    if not hasattr(shape, "shape") or shape.shape != () or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise ValueError(f"{name} must return one floating scalar, but returns {shape}; average it.")


def rng_key(name: str, value: Any) -> Array:
    """`value` as one typed key; a raw key of `jax.random.PRNGKey` is one too.

    Raises:
        TypeError: for a seed or anything else that is no key.
        ValueError: for an array of keys.
    """
    dtype, shape = getattr(value, "dtype", None), np.shape(value) if hasattr(value, "dtype") else ()
    is_typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    # Two words of threefry or four of rbg, whichever is JAX's default.
    is_raw = dtype == np.uint32 and shape[-1:] == jax.random.key_data(jax.random.key(0)).shape
    if not is_typed and not is_raw:
        raise TypeError(f"{name} must be a key such as jax.random.key(0), not {value!r}.")
    key = value if is_typed else jax.random.wrap_key_data(jnp.asarray(value))
    if key.shape != ():
        raise ValueError(
            f"{name} is an array of keys of shape {key.shape}, but one key is needed; pass {name}[0], or map "
            "over them by jax.vmap."
        )
    return key


def is_finite(array: Any) -> np.ndarray:
    """Which entries of known floating numbers are finite, of any dtype and without a compiled cast."""
    return np.isfinite(as_working(np.asarray(array)))


def is_known(array: Any) -> bool:
    """Whether the values of an array can be looked at here: it is not traced, nor spread over hosts."""
    return not is_traced(array) and (not isinstance(array, jax.Array) or array.is_fully_addressable)


def _from_sequence(name: str, value: Any, expected: str) -> np.ndarray:
    is_sequence = isinstance(value, (list, tuple, int, float, np.generic)) or hasattr(value, "__array__")
    try:
        array = np.asarray(value) if is_sequence else None
    except (ValueError, TypeError):  # rows of several lengths
        array = None
    if array is None or array.dtype == object:
        raise TypeError(f"{name} must be an array {expected} of numbers, not {shown(value)}.")
    return array
