"""Where minibatches come from: an array on the device, a random-access source, or an iterable."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from bism_jax import checks
from bism_jax.training._sources.array_source import ArraySource
from bism_jax.training._sources.arrays import expression, is_array, read_array, storable
from bism_jax.training._sources.data_source import DataSource
from bism_jax.training._sources.iterable_source import IterableSource
from bism_jax.training._sources.random_access_source import RandomAccessSource
from bism_jax.training._sources.sparse_rows import SparseRows, is_sparse


def as_data_source(data: Any, batch_size: int, seed: tuple[int, ...]) -> DataSource:
    """Adapts an array, a random-access source or an iterable of batches.

    Arrays are those of any library that NumPy can read, tables of floating columns and lists of numbers;
    sparse arrays are random-access sources. An item of a source may be any of these, or a list or tuple
    of one.

    Raises:
        ValueError: for data that is empty, not finite, not floating, ragged, or smaller than a batch.
        TypeError: for data of another kind.
    """
    checks.positive_int("batch_size", batch_size)
    if is_sparse(data):  # one of which is a mapping too
        data = SparseRows(data)
    elif isinstance(data, (str, bytes, bytearray, Mapping, tuple, type)) or _is_lazy(data):
        raise _unsupported(data)
    elif is_array(data) or _is_list_of_numbers(data):
        subject = expression("data", data)
        array = read_array(data, subject)
        checks.data_array(array, subject)
        checks.batch_fits(batch_size, len(array))
        return ArraySource(storable(array), batch_size, seed)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, list):
        checks.batch_fits(batch_size, len(data))
        return RandomAccessSource(data, batch_size, seed)
    if isinstance(data, Iterable):
        return IterableSource(data, batch_size)
    raise _unsupported(data)


def _is_lazy(data: Any) -> bool:
    """Whether it is a query that is yet to be run, as polars' LazyFrame."""
    return type(data).__name__ == "LazyFrame"  # polars need not be installed


def _is_list_of_numbers(data: Any) -> bool:
    """Whether it can only be the rows of data without further axes."""
    if not isinstance(data, list) or not data:
        return False
    return isinstance(data[0], numbers.Number) or getattr(data[0], "shape", None) == ()


def _unsupported(data: Any) -> TypeError:
    name = f"the class {data.__name__}" if isinstance(data, type) else f"a {type(data).__name__}"
    return TypeError(
        f"data is {name}; pass an array [rows, *visible]{_part_of(data)}, a source with __len__ and "
        "__getitem__, or an iterable of batches [batch, *visible]."
    )


def _part_of(data: Any) -> str:
    """How to get at the array in a container, for an error."""
    if isinstance(data, type):
        return ""
    if _is_lazy(data):
        return " such as data.collect()"
    if isinstance(data, Mapping) and data:
        return f" such as data[{next(iter(data))!r}]"
    if isinstance(data, tuple) and data:
        return f" such as data.{data._fields[0]}" if hasattr(data, "_fields") else " such as data[0]"
    return ""
