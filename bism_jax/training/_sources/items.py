"""What loaders yield, as NumPy arrays of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from bism_jax._precision import as_native, is_floating_dtype
from bism_jax.training._sources.arrays import expression, has_axes, holds_one, ragged, read_array
from bism_jax.training._sources.no_array import no_array
from bism_jax.training._sources.sparse_rows import is_sparse


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
        raise no_array(item, kind, place)
    if isinstance(item, (list, tuple)):
        return _read_sequence(item, kind, place, row_shape, batch_size)
    array = read_array(item, expression(kind, item), place)
    if array.dtype == object and array.ndim == 0:  # how NumPy wraps what it cannot read
        raise no_array(item, kind, place)
    return array.copy()


def _read_sequence(
    item: Any, kind: Literal["batch", "row"], place: str, row_shape: Any, batch_size: int | None
) -> np.ndarray:
    if holds_one(item) and not _is_batch_of_one(item, batch_size):
        return read_item(item[0], kind, place, row_shape, batch_size)
    parts = [part for part in item if has_axes(part)]
    if not parts and isinstance(item, list):
        return read_array(item, expression(kind, item), place)
    # A tuple of several arrays is a loader's inputs and labels; only a list may hold rows.
    if isinstance(item, tuple) or len(parts) < len(item):
        raise no_array(item, kind, place)
    arrays = [read_array(part, expression(kind, part), place) for part in parts]
    shape, num_rows = arrays[0].shape, len(arrays)
    are_alike = len({(array.ndim, is_floating_dtype(array.dtype)) for array in arrays}) == 1
    if not are_alike:
        raise no_array(item, kind, place)
    are_rows = num_rows == batch_size or row_shape == shape or kind == "row"
    if len({array.shape for array in arrays}) > 1:
        raise ragged(place) if are_rows else no_array(item, kind, place)
    if not are_rows:
        fitting = num_rows * jax.process_count()
        raise no_array(item, kind, place, f"; where these are rows, pass batch_size={fitting}")
    return np.stack(arrays)


def _is_batch_of_one(item: Any, batch_size: int | None) -> bool:
    """Whether it is a list of rows that happens to hold one."""
    return isinstance(item, list) and batch_size == 1 and has_axes(item[0]) and len(item[0]) != 1
