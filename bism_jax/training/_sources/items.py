"""What users pass as data, and what their loaders yield, as NumPy arrays."""

from __future__ import annotations

import array as standard_library
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bism_jax import checks
from bism_jax._precision import as_native, as_working, is_floating_dtype
from bism_jax.training._sources.frames import frame_to_array, is_frame
from bism_jax.training._sources.sparse_rows import is_sparse, sparse_to_array

_LISTED = 4  # items of an error


def is_array(value: Any) -> bool:
    """Whether it is an array of its own: of any library, a table, or a variable that is read by `[...]`."""
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
    if type(value) is np.ndarray:
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
    if isinstance(value, (list, tuple)) and _holds_one(value):
        return expression(f"{name}[0]", value[0])
    return name if hasattr(value, "astype") else f"np.asarray({name})"


def read_item(
    item: Any, kind: Literal["batch", "row"], place: str, row_shape: Any = None, batch_size: int | None = None
) -> np.ndarray:
    """An item of a source as an array of its own, since a loader may fill the same memory again.

    A list or tuple of one array is that array, as loaders without labels yield it.

    Args:
        item: the item.
        kind: what it should be.
        place: where in the data it is, such as " in batch 3".
        row_shape: that of the rows of the batches so far, if there are any.
        batch_size: rows of the global batch, for a batch.

    Raises:
        TypeError: it is not one array.
        ValueError: it is ragged or masked, or a table with columns that are not floating.
    """
    if type(item) is np.ndarray:
        return np.array(as_native(item))
    if item is None or (isinstance(item, (str, bytes, bytearray, Mapping)) and not is_sparse(item)):
        raise _no_array(item, kind, place)
    if isinstance(item, (list, tuple)):
        return _read_sequence(item, kind, place, row_shape, batch_size)
    array = read_array(item, expression(kind, item), place)
    if array.dtype == object and array.ndim == 0:
        raise _no_array(item, kind, place)
    return array.copy()


def _read_sequence(
    item: Any, kind: Literal["batch", "row"], place: str, row_shape: Any, batch_size: int | None
) -> np.ndarray:
    if _holds_one(item) and not _is_batch_of_one(item, batch_size):
        return read_item(item[0], kind, place, row_shape, batch_size)
    parts = [part for part in item if _has_axes(part)]
    if not parts and isinstance(item, list):
        return read_array(item, expression(kind, item), place)
    if isinstance(item, tuple) or len(parts) < len(item):
        raise _no_array(item, kind, place)
    arrays = [read_array(part, expression(kind, part), place) for part in parts]
    shape, num_rows = arrays[0].shape, len(arrays)
    are_alike = len({(array.ndim, is_floating_dtype(array.dtype)) for array in arrays}) == 1
    if not are_alike:
        raise _no_array(item, kind, place)
    are_rows = num_rows == batch_size or row_shape == shape or kind == "row"
    if len({array.shape for array in arrays}) > 1:
        raise _ragged(place) if are_rows else _no_array(item, kind, place)
    if not are_rows:
        fitting = num_rows * jax.process_count()
        raise _no_array(item, kind, place, f"; where these are rows, pass batch_size={fitting}")
    return np.stack(arrays)


def _is_batch_of_one(item: Any, batch_size: int | None) -> bool:
    """Whether it is a list of rows that happens to hold one."""
    return isinstance(item, list) and batch_size == 1 and _has_axes(item[0]) and len(item[0]) != 1


def _holds_one(item: Any) -> bool:
    """Whether it is a list or tuple of one array, or of one list or tuple of arrays."""
    if len(item) != 1:
        return False
    (part,) = item
    return _has_axes(part) or (isinstance(part, (list, tuple)) and any(map(_has_axes, part)))


def _converted(value: Any, place: str) -> np.ndarray:
    """By NumPy, with a mask where it has one."""
    try:
        return np.asanyarray(value[...] if _is_variable(value) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(value, list) and "inhomogeneous" in str(error):
            raise _ragged(place) from error
        raise TypeError(
            f"data{place} is of type {type(value).__name__} and cannot be read as an array: {error}"
        ) from error


def _ragged(place: str) -> ValueError:
    return ValueError(f"data has ragged rows{place}: they must all be of one shape; pad or cut them to one.")


def _is_variable(value: Any) -> bool:
    """As in a netCDF file opened by SciPy: no `__len__` and no `__array__`, but numbers by `[...]`."""
    kind = type(value)
    return hasattr(value, "shape") and hasattr(kind, "__getitem__") and not hasattr(kind, "__len__")


def _has_axes(value: Any) -> bool:
    return (is_array(value) or is_sparse(value)) and len(getattr(value, "shape", ())) > 0


def _no_array(item: Any, kind: str, place: str, other_reading: str = "") -> TypeError:
    """The error for an item that is not one array; its advice can be followed as it is written."""
    name = type(item).__name__
    if isinstance(item, Mapping):
        found, part = f"{name}s with the keys {sorted(item, key=str)}", f"{kind}[{_main_key(item)!r}]"
    elif isinstance(item, (list, tuple)) and any(_has_axes(value) for value in item):
        values = dict(enumerate(item))
        listed = ", ".join([_described(value) for value in item[:_LISTED]] + ["..."] * (len(item) > _LISTED))
        found, part = f"{name}s of {len(item)} items ({listed})", f"{kind}[{_main_key(values)}]"
    else:
        found, part = f"{name}s", f"np.asarray({kind})"
    if not isinstance(item, (Mapping, list, tuple)):
        advice = ""
    elif kind == "batch":
        advice = f": [{part} for batch in data], or for an endless loader the same in parentheses"
    else:
        advice = f": np.stack([{part} for row in (data[i] for i in range(len(data)))])"
    return TypeError(
        f"data yields {found}{place}, but one array is trained on; wrap it in a source whose items are the "
        f"arrays to train on{advice}{other_reading}."
    )


def _main_key(values: Mapping[Any, Any]) -> Any:
    """That of the first floating array, or else of the first array, or else the first."""
    arrays = [key for key, value in values.items() if _has_axes(value)]
    floating = [key for key in arrays if "float" in str(getattr(values[key], "dtype", ""))]
    return next(iter(floating + arrays + list(values)), 0)


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return type(value).__name__
    return f"{getattr(value, 'dtype', type(value).__name__)} {tuple(shape)}"
