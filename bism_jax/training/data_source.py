"""Where minibatches come from: an array on the device, a random-access source, or an iterable."""

from __future__ import annotations

import base64
import copy
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bism_jax import checks
from bism_jax.precision import as_working
from bism_jax.training.data_fingerprint import of_array, of_batch, of_rows, spread_rows
from bism_jax.training.run_description import Description, digest_of_arrays

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

    Raises:
        ValueError: for data that is empty, not finite, not floating, or smaller than a batch.
        TypeError: for anything else than these three.
    """
    checks.positive_int("batch_size", batch_size)
    if isinstance(data, (str, bytes, dict, tuple, type)):
        raise _unsupported(data)
    if isinstance(data, (np.ndarray, jax.Array)) or hasattr(data, "__array__"):
        if jnp.issubdtype(getattr(data, "dtype", float), jax.dtypes.prng_key):
            raise ValueError(f"data has dtype {data.dtype}, but scores need floating data.")
        array = data if isinstance(data, np.ndarray) else np.asarray(data)
        checks.data_array(array)
        checks.batch_fits(batch_size, len(array))
        return ArraySource(_storable(array), batch_size, seed)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, list):
        checks.batch_fits(batch_size, len(data))
        return RandomAccessSource(data, batch_size, seed)
    if isinstance(data, Iterable):
        return IterableSource(data, batch_size)
    raise _unsupported(data)


def _unsupported(data: Any) -> TypeError:
    name = f"the class {data.__name__}" if isinstance(data, type) else f"a {type(data).__name__}"
    return TypeError(
        f"data is {name}; pass an array [rows, *visible], a source with __len__ and "
        "__getitem__, or an iterable of batches [batch, *visible]."
    )


def _as_array(item: Any) -> np.ndarray:
    """An item of a source as an array of its own, since a loader may fill the same memory again."""
    if isinstance(item, (dict, tuple, str, bytes)):
        keys = f" with the keys {sorted(item)}" if isinstance(item, dict) else ""
        raise TypeError(
            f"data yields {type(item).__name__}s{keys}; wrap it in a source whose items are the arrays to "
            "train on."
        )
    return np.array(item)


def _storable(array: np.ndarray) -> np.ndarray:
    """As it is in the dtypes of 2 to 8 bytes, which every device can store and gather; longdouble is none."""
    return array if array.dtype.itemsize in (2, 4, 8) else as_working(array)


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
        indices = spread_rows(self._shuffle.num_rows, _FINGERPRINT_ROWS)
        return of_rows(self._shuffle.num_rows, self._rows(indices), self._rows(indices))

    def _rows(self, indices: np.ndarray) -> np.ndarray:
        if hasattr(self._source, "__getitems__"):
            rows = self._source.__getitems__(indices.tolist())
        else:
            rows = [self._source[int(index)] for index in indices]
        arrays = [_as_array(row) for row in rows]
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            raise ValueError(f"data has rows of more than one shape: {shapes}; they must all be alike.")
        batch = np.stack(arrays)
        checks.data_array(batch)
        return _storable(batch)


class IterableSource:
    """Batches from an iterable, restarted when it ends; each process passes its own part of a batch.

    A batch of another size than the first, as the last of an epoch, is left out. An iterator with
    `get_state` and `set_state` can be resumed exactly.
    """

    resident: np.ndarray | None = None

    def __init__(self, iterable: Iterable[Any], batch_size: int) -> None:
        self._iterable = iterable
        self._iterator: Iterator[Any] = iter(iterable)
        self._warned = False
        self._dtype: np.dtype | None = None
        self.has_position = hasattr(self._iterator, "get_state") and hasattr(self._iterator, "set_state")
        start = self._state() if self.has_position else None
        self._example = self._draw(None)
        self._shape = self._example.shape
        self._first: np.ndarray | None = None if self.has_position else self._example
        if self.has_position:
            self._set_state(start)
        self.batch_size = self._shape[0] * jax.process_count()
        if self.batch_size != batch_size:
            raise ValueError(
                f"batch_size={batch_size}, but data yields batches of {self.batch_size} rows; pass "
                f"batch_size={self.batch_size}, or np.asarray(data) where these are rows."
            )

    def example(self) -> np.ndarray:
        """The first batch."""
        return self._example

    def take(self, step: int, num_steps: int) -> np.ndarray:
        """The next batches."""
        return np.stack([self._next() for _ in range(num_steps)])

    def position(self) -> Any:
        """The iterator's state with a checksum of the batch that comes next, or None."""
        if not self.has_position:
            return None
        state = self._state()
        return {**state, "next": self._checksum_of_next(state)}

    def set_position(self, position: Any) -> None:
        """Returns to a state of the iterator."""
        if not self.has_position:
            return
        self._set_state(position)
        if position.get("next") not in (None, self._checksum_of_next(position)):
            raise ValueError(
                "data does not go on as it did when the checkpoint was written: the next batch is another. "
                "Pass the iterable that the run was started with, or choose another checkpoint_dir."
            )

    def fingerprint(self) -> Description:
        """Of the first batch, without its values: an iterable may come in another order each time."""
        return of_batch(self._example)

    def _checksum_of_next(self, state: Any) -> str:
        checksum = digest_of_arrays(self._draw(self._shape))
        self._set_state(state)
        return checksum

    def _state(self) -> dict[str, Any]:
        state = copy.deepcopy(self._iterator.get_state())  # type: ignore[attr-defined]
        return {"base64": base64.b64encode(state).decode()} if isinstance(state, bytes) else {"json": state}

    def _set_state(self, position: Any) -> None:
        state = base64.b64decode(position["base64"]) if "base64" in position else position["json"]
        self._iterator.set_state(copy.deepcopy(state))  # type: ignore[attr-defined]

    def _next(self) -> np.ndarray:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return self._draw(self._shape)

    def _draw(self, shape: tuple[int, ...] | None) -> np.ndarray:
        for _ in range(2):
            for item in self._iterator:
                batch = _as_array(item)
                checks.data_array(batch)
                if shape is None or batch.shape == shape:
                    self._check_dtype(batch.dtype)
                    return _storable(batch)
                self._skip(batch.shape, shape)
            self._iterator = iter(self._iterable)
        raise ValueError(
            "data ended: it is an iterator that is exhausted, or it yields no batch. Pass an iterable that "
            "can be restarted, or an iterator that repeats."
        )

    def _check_dtype(self, dtype: np.dtype) -> None:
        if self._dtype is None:
            self._dtype = dtype
        if dtype != self._dtype:
            raise ValueError(f"data yields a batch of dtype {dtype} after batches of {self._dtype}.")

    def _skip(self, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
        if found[1:] != expected[1:]:
            raise ValueError(f"data yields a batch of shape {found} after batches of shape {expected}.")
        if not self._warned:
            warnings.warn(
                f"data yields a batch of {found[0]} rows among batches of {expected[0]}; such batches are "
                "left out.",
                stacklevel=2,
            )
        self._warned = True
