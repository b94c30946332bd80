"""Where minibatches come from: an array on the device, a random-access source, or an iterable."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from bism_jax import checks
from bism_jax.training._checkpoints.description import Description
from bism_jax.training._checkpoints.digests import digest_of_arrays
from bism_jax.training._sources.fingerprint import of_array, of_rows, spread_rows
from bism_jax.training._sources.items import expression, is_array, read_array, read_item, storable
from bism_jax.training._sources.iterable_source import IterableSource
from bism_jax.training._sources.sparse_rows import SparseRows, is_sparse

_FINGERPRINT_ROWS = 16


class DataSource(Protocol):
    """A source of minibatches with a position.

    Attributes:
        batch_size: rows of the global batch.
        resident: all data, for a source that is gathered on the device; None for a streamed one.
        has_position: whether `position` allows an exact resume.
    """

    batch_size: int
    resident: np.ndarray | None
    has_position: bool

    def example(self) -> np.ndarray:
        """A batch like those to come, `[B, *visible]`, which consumes nothing."""
        ...

    def take(self, step: int, num_steps: int) -> np.ndarray:
        """What iterations `step .. step + num_steps - 1` see.

        Row indices `[num_steps, B]` for a resident source; this process's rows of each batch,
        `[num_steps, B / processes, *visible]`, for a streamed one.
        """
        ...

    def position(self) -> Any:
        """What `set_position` needs, as JSON; None where the iteration says it all."""
        ...

    def set_position(self, position: Any) -> None:
        """Returns to a position; raises ValueError where other data follows there than did before."""
        ...

    def fingerprint(self) -> Description:
        """What tells this data from other data."""
        ...


def as_data_source(data: Any, batch_size: int, seed: tuple[int, ...]) -> DataSource:
    """Adapts an array, a random-access source or an iterable of batches.

    Arrays are those of any library that NumPy can read, tables of floating columns and lists of numbers;
    sparse arrays are random-access sources. An item of a source may be any of these, or a list or tuple
    of one.

    Raises:
        ValueError: for data that is empty, not finite, not floating, ragged, or smaller than a batch.
        TypeError: for anything else than these three.
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
    return type(data).__name__ == "LazyFrame"


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


class _Shuffle:
    """Rows in a new random order each epoch, as a function of the iteration alone; drops the remainder."""

    def __init__(self, num_rows: int, batch_size: int, seed: tuple[int, ...]) -> None:
        self.num_rows, self.batch_size, self.seed = num_rows, batch_size, seed
        self.steps_per_epoch = num_rows // batch_size
        self._epoch, self._order = -1, np.zeros(0, np.int32)

    def indices(self, step: int, num_steps: int) -> np.ndarray:
        return np.stack(
            [self._batch(*divmod(k, self.steps_per_epoch)) for k in range(step, step + num_steps)]
        )

    def _batch(self, epoch: int, position: int) -> np.ndarray:
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([*self.seed, epoch])))
            self._epoch, self._order = epoch, generator.permutation(self.num_rows).astype(np.int32)
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]


class ArraySource:
    """An array that fits on the device, where its minibatches are gathered."""

    has_position = True

    def __init__(self, array: np.ndarray, batch_size: int, seed: tuple[int, ...]) -> None:
        self.resident: np.ndarray | None = array
        self.batch_size = batch_size
        self._array = array
        self._shuffle = _Shuffle(len(array), batch_size, seed)

    def example(self) -> np.ndarray:
        """The first rows."""
        return self._array[: self.batch_size]

    def take(self, step: int, num_steps: int) -> np.ndarray:
        """Row indices, `[num_steps, B]`."""
        return self._shuffle.indices(step, num_steps)

    def position(self) -> None:
        """None: the order is a function of the iteration."""

    def set_position(self, position: Any) -> None:
        """Nothing to do."""

    def fingerprint(self) -> Description:
        """Of its values."""
        return of_array(self._array)


class RandomAccessSource:
    """Rows fetched by index on the host, such as a tfds `data_source` mapped to arrays."""

    resident: np.ndarray | None = None
    has_position = True

    def __init__(self, source: Any, batch_size: int, seed: tuple[int, ...]) -> None:
        self.batch_size = batch_size
        self._source = source
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype | None = None
        self._shuffle = _Shuffle(len(source), batch_size, seed)

    def example(self) -> np.ndarray:
        """The first rows."""
        return self._rows(np.arange(self.batch_size))

    def take(self, step: int, num_steps: int) -> np.ndarray:
        """This process's rows of each batch."""
        indices = self._shuffle.indices(step, num_steps)
        local_size = self.batch_size // jax.process_count()
        start = jax.process_index() * local_size
        return np.stack([self._rows(row[start : start + local_size]) for row in indices])

    def position(self) -> None:
        """None: the order is a function of the iteration."""

    def set_position(self, position: Any) -> None:
        """Nothing to do."""

    def fingerprint(self) -> Description:
        """Of its length and of some rows."""
        if isinstance(self._source, SparseRows):
            shape = [self._shuffle.num_rows, *self._rows(np.arange(1)).shape[1:]]
            return {"shape": shape, "checksum": digest_of_arrays(self._source.arrays())}
        indices = spread_rows(self._shuffle.num_rows, _FINGERPRINT_ROWS)
        return of_rows(self._shuffle.num_rows, self._rows(indices), self._rows(indices))

    def _rows(self, indices: np.ndarray) -> np.ndarray:
        batch = self._fetch(indices.tolist())
        checks.data_array(batch, "np.asarray(row)", rows=indices.tolist())
        return storable(batch)

    def _fetch(self, indices: list[int]) -> np.ndarray:
        if hasattr(self._source, "__getitems__"):
            rows = self._source.__getitems__(indices)
            rows = rows if isinstance(rows, np.ndarray) else list(rows)
            if len(rows) != len(indices):
                raise ValueError(
                    f"data.__getitems__ returns {len(rows)} rows for {len(indices)} indices; it must return "
                    "one for each."
                )
        else:
            rows = (self._get(index) for index in indices)
        if isinstance(rows, np.ndarray) and len(rows) == len(indices):
            arrays = list(read_item(rows, "row", ""))
        else:
            numbered = zip(indices, rows, strict=True)
            arrays = [read_item(row, "row", f" in row {index}") for index, row in numbered]
        if {(array.shape, array.dtype) for array in arrays} != {(self._shape, self._dtype)}:
            self._check_rows(arrays, indices)
        return np.stack(arrays, dtype=self._dtype, casting="unsafe")

    def _get(self, index: int) -> Any:
        try:
            return self._source[index]
        except (KeyError, TypeError, IndexError) as error:
            name = type(self._source).__name__
            raise TypeError(
                f"data is a {name} with __len__ and __getitem__, but data[{index}] raises {error!r}; pass "
                "one whose items are rows [*visible], numbered from 0, or an array of them."
            ) from error

    def _check_rows(self, rows: list[np.ndarray], indices: list[int]) -> None:
        """Raises ValueError for a row unlike the first ones, or one whose numbers would be rounded."""
        for index, row in zip(indices, rows, strict=True):
            if row.dtype != np.int64:  # of whole numbers in a list, which may stand among others
                checks.data_dtype(row.dtype, "np.asarray(row)", f" in row {index}", row)
        if self._dtype is None:
            self._shape, self._dtype = rows[0].shape, np.result_type(*rows)
        for index, row in zip(indices, rows, strict=True):
            if row.shape != self._shape:
                raise ValueError(
                    f"data has rows of more than one shape: row {index} has {row.shape}, others "
                    f"{self._shape}; they must all be alike, so pad or cut them."
                )
            if not np.can_cast(row.dtype, self._dtype):
                raise ValueError(
                    f"data has dtype {row.dtype} in row {index}, but {self._dtype} in others; convert them "
                    "to one."
                )
