"""What users pass as an array, as one of NumPy's."""

from __future__ import annotations

import array as standard_library
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bism_jax import checks
from bism_jax._precision import as_native, as_working
from bism_jax.training._sources.frames import frame_to_array, is_frame
from bism_jax.training._sources.sparse_rows import is_sparse, sparse_to_array


def is_array(value: Any) -> bool:
    """Whether it is an array of its own: of any library, a table, or a variable that is read by `[...]`."""
    # A class has the attributes of its instances, and would pass below.
    if isinstance(value, type) or is_sparse(value):
        return False
    if isinstance(value, (np.ndarray, jax.Array, standard_library.array, memoryview)) or is_frame(value):
        return True
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return True
    return _is_variable(value)


def read_array(value: Any, subject: str, place: str = "") -> np.ndarray:
    """An array, a table or nested lists as an array in native byte order, which may share memory with it.

    Args:
        value: what is read.
        subject: what a user writes for it in an expression.
        place: where in the data it is, for messages.

    Raises:
        TypeError: it cannot be read, or is no array.
        ValueError: it is ragged or masked, holds keys, or a table with columns that are not floating.
    """
    if type(value) is np.ndarray:  # a subclass may carry a mask
        return as_native(value)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        checks.data_dtype(value.dtype, subject, place)
    if is_sparse(value):
        return sparse_to_array(value)
    array = frame_to_array(value, place) if is_frame(value) else _converted(value, place)
    checks.unmasked(array, subject, place)
    return as_native(np.asarray(array))


def storable(array: np.ndarray) -> np.ndarray:
    """As it is in the dtypes of 2 to 8 bytes, which every device can store and gather; longdouble is none."""
    return array if array.dtype.itemsize in (2, 4, 8) else as_working(array)


def expression(name: str, value: Any) -> str:
    """What a user writes to have `value` as something with `astype`; that of an array in a list of one."""
    if isinstance(value, (list, tuple)) and holds_one(value):
        return expression(f"{name}[0]", value[0])
    return name if hasattr(value, "astype") else f"np.asarray({name})"


def holds_one(item: Any) -> bool:
    """Whether it is a list or tuple of one array, or of one list or tuple of arrays."""
    if len(item) != 1:
        return False
    (part,) = item
    return has_axes(part) or (isinstance(part, (list, tuple)) and any(map(has_axes, part)))


def has_axes(value: Any) -> bool:
    """Whether it is an array of at least one dimension."""
    return (is_array(value) or is_sparse(value)) and len(getattr(value, "shape", ())) > 0


def _converted(value: Any, place: str) -> np.ndarray:
    """By NumPy, with a mask where it has one."""
    try:
        return np.asanyarray(value[...] if _is_variable(value) else value)
    except (TypeError, ValueError, RuntimeError) as error:  # the last by PyTorch, of what requires a gradient
        if isinstance(value, list) and "inhomogeneous" in str(error):
            raise ragged(place) from error
        raise TypeError(
            f"data{place} is of type {type(value).__name__} and cannot be read as an array: {error}"
        ) from error


def ragged(place: str) -> ValueError:
    """The error for rows of several shapes."""
    return ValueError(f"data has ragged rows{place}: they must all be of one shape; pad or cut them to one.")


def _is_variable(value: Any) -> bool:
    """As in a netCDF file opened by SciPy: no `__len__` and no `__array__`, but numbers by `[...]`."""
    kind = type(value)
    return hasattr(value, "shape") and hasattr(kind, "__getitem__") and not hasattr(kind, "__len__")
