"""Where minibatches come from: an array on the device, a random-access source, or an iterable."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import jax
import numpy as np

from bism_jax import checks


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
        """Returns to a position."""
        ...


def as_data_source(data: Any, batch_size: int, seed: tuple[int, ...]) -> DataSource:
    """Adapts an array, a random-access source or an iterable of batches.

    Raises:
        ValueError: for data that is empty, not finite, not floating, or smaller than a batch.
        TypeError: for anything else than these three.
    """
    checks.positive_int("batch_size", batch_size)
    if isinstance(data, (np.ndarray, jax.Array)) or hasattr(data, "__array__"):
        array = np.asarray(data)
        checks.data_array(array)
        checks.batch_fits(batch_size, len(array))
        return ArraySource(array, batch_size, seed)
    if (
        hasattr(data, "__getitem__")
        and hasattr(data, "__len__")
        and not isinstance(data, (dict, list, tuple))
    ):
        checks.batch_fits(batch_size, len(data))
        return RandomAccessSource(data, batch_size, seed)
    if isinstance(data, Iterable) and not isinstance(data, (dict, str, tuple)):
        return IterableSource(data, batch_size)
    raise TypeError(
        f"data is a {type(data).__name__}; pass an array [rows, *visible], a source with __len__ and "
        "__getitem__, or an iterable of batches [batch, *visible]."
    )


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

    def _rows(self, indices: np.ndarray) -> np.ndarray:
        if hasattr(self._source, "__getitems__"):
            rows = self._source.__getitems__(indices.tolist())
        else:
            rows = [self._source[int(index)] for index in indices]
        if isinstance(rows[0], dict):
            raise TypeError(
                f"data yields dicts with the keys {sorted(rows[0])}; wrap it in a source whose items are "
                "the arrays to train on."
            )
        batch = np.stack([np.asarray(row) for row in rows])
        checks.data_array(batch)
        return batch


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
        self.has_position = hasattr(self._iterator, "get_state") and hasattr(self._iterator, "set_state")
        start = self.position()
        self._first: np.ndarray | None = self._draw(None)
        self._shape = self._first.shape
        if self.has_position:
            self.set_position(start)
        self._example = np.array(self._draw(self._shape) if self.has_position else self._first)
        if self.has_position:
            self.set_position(start)
        self.batch_size = self._shape[0] * jax.process_count()
        if self.batch_size != batch_size:
            raise ValueError(
                f"batch_size={batch_size}, but data yields batches of {self.batch_size} rows; pass "
                f"batch_size={self.batch_size}."
            )

    def example(self) -> np.ndarray:
        """The first batch."""
        return self._example

    def take(self, step: int, num_steps: int) -> np.ndarray:
        """The next batches."""
        return np.stack([self._next() for _ in range(num_steps)])

    def position(self) -> Any:
        """The iterator's state, or None."""
        if not self.has_position:
            return None
        state = self._iterator.get_state()  # type: ignore[attr-defined]
        return state.decode() if isinstance(state, bytes) else state

    def set_position(self, position: Any) -> None:
        """Returns to a state of the iterator."""
        if not self.has_position:
            return
        was_bytes = isinstance(self._iterator.get_state(), bytes)  # type: ignore[attr-defined]
        self._iterator.set_state(position.encode() if was_bytes else position)  # type: ignore[attr-defined]
        self._first = None

    def _next(self) -> np.ndarray:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return self._draw(self._shape)

    def _draw(self, shape: tuple[int, ...] | None) -> np.ndarray:
        for _ in range(2):
            for item in self._iterator:
                batch = np.asarray(item)
                checks.data_array(batch)
                if shape is None or batch.shape == shape:
                    return batch
                self._skip(batch.shape, shape)
            self._iterator = iter(self._iterable)
        raise ValueError(
            "data ended: it is an iterator that is exhausted, or it yields no batch. Pass an iterable that "
            "can be restarted, or an iterator that repeats."
        )

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
