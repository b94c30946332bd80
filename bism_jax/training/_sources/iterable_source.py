"""Minibatches as an iterable yields them, such as a data loader."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from bism_jax import checks
from bism_jax.training._checkpoints.description import Description
from bism_jax.training._checkpoints.digests import digest_of_arrays
from bism_jax.training._sources.arrays import expression, storable
from bism_jax.training._sources.data_source import DataSource
from bism_jax.training._sources.fingerprint import of_batch, spread_rows
from bism_jax.training._sources.items import read_item
from bism_jax.training._sources.iterator_state import ListIterator, keeps_state, set_state, state_of
from bism_jax.training._sources.other_readings import other_readings

_END = object()  # since a loader may yield None, which is an error of its own
_FINGERPRINT_BATCHES = 1000  # of a list, so that one of any length is told from another in bounded time
_MAX_SKIPPED = 1000  # batches in a row, after which an endless iterator is given up


class IterableSource(DataSource):
    """Batches from an iterable, restarted when it ends; each process passes its own part of a batch.

    A batch of another size than the first, as the last of an epoch, is left out. A list, and an iterator with
    `get_state` and `set_state`, can be resumed exactly.
    """

    def __init__(self, iterable: Iterable[Any], batch_size: int) -> None:
        self._iterable = iterable
        self._iterator = self._begin()
        self._warned = False
        self._dtype: np.dtype | None = None
        self._number: int | None = 0  # of the next batch in this pass, where it is known
        self._local_size = batch_size // jax.process_count()
        self.has_position = keeps_state(self._iterator)
        start = state_of(self._iterator) if self.has_position else None
        self._example = self._draw(None)
        self._shape = self._example.shape
        # Of what cannot be set back the first batch is gone from the iterator, and so kept for `_next`.
        self._first: np.ndarray | None = None if self.has_position else self._example
        if start is not None:
            self._set_state(start)
            self._number = 0
        self.batch_size = self._shape[0] * jax.process_count()
        if self.batch_size != batch_size:
            others = other_readings(iterable, batch_size, self._shape, self._local_size)
            raise ValueError(
                f"batch_size={batch_size}, but data yields batches of {self.batch_size} rows; pass "
                f"batch_size={self.batch_size}{others}."
            )

    def example(self) -> np.ndarray:
        """The first batch of the iterable."""
        return self._example

    def take(self, step: int, num_steps: int) -> np.ndarray:
        """The next batches; after an error the iterator is where it was, if it can be set back."""
        start = state_of(self._iterator) if self.has_position else None
        try:
            return np.stack([self._next() for _ in range(num_steps)])
        except Exception:
            if start is not None:  # the iterations before these are to be saved with their place in the data
                self._set_state(start)
            raise

    def position(self) -> Any:
        """The iterator's state with a checksum of the batch that comes next, or None."""
        if not self.has_position:
            return None
        state, number = state_of(self._iterator), self._number
        checksum = self._checksum_of_next(state)
        self._number = number
        return {**state, "next": checksum}

    def set_position(self, position: Any) -> None:
        """Returns to a state of the iterator; raises ValueError where another batch comes next."""
        if not self.has_position:
            return
        self._set_state(position)
        if position.get("next") not in (None, self._checksum_of_next(position)):
            raise ValueError(
                "data does not go on as it did when the checkpoint was written: the next batch is another. "
                "Pass the iterable that the run was started with, or choose another checkpoint_dir."
            )

    def fingerprint(self) -> Description:
        """Of a list; otherwise of the first batch, without its values, as they may come in another order."""
        outline = {**of_batch(self._example), "keeps_its_state": self.has_position}
        if not isinstance(self._iterable, list):
            return outline
        batches = [self._iterable[index] for index in spread_rows(len(self._iterable), _FINGERPRINT_BATCHES)]
        arrays = [read_item(batch, "batch", "", None, self._local_size) for batch in batches]
        return {**outline, "batches": len(self._iterable), "checksum": digest_of_arrays(arrays)}

    def _begin(self) -> Iterator[Any]:
        return ListIterator(self._iterable) if isinstance(self._iterable, list) else iter(self._iterable)

    def _checksum_of_next(self, state: dict[str, Any]) -> str:
        checksum = digest_of_arrays(self._draw(self._shape))
        self._set_state(state)
        return checksum

    def _set_state(self, position: dict[str, Any]) -> None:
        set_state(self._iterator, position)
        self._number = None

    def _next(self) -> np.ndarray:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return self._draw(self._shape)

    def _draw(self, shape: tuple[int, ...] | None) -> np.ndarray:
        num_skipped, ended_after = 0, None
        # Once around: a pass from its beginning that ends without a batch has none.
        for _ in range(2):
            while (
                item := next(self._iterator, _END)
            ) is not _END:  # `for` would call `iter`, and set some back
                batch = self._read(item, shape)
                if batch is not None:
                    return batch
                num_skipped += 1
                if num_skipped == _MAX_SKIPPED:
                    raise ValueError(
                        f"data yields no further batch of shape {shape}: the last {num_skipped} have other "
                        "numbers of rows. Pass batches of one size."
                    )
            ended_after = ended_after or self._number
            self._iterator, self._number = self._begin(), 0
        raise ValueError(self._ended(shape, ended_after))

    def _read(self, item: Any, shape: tuple[int, ...] | None) -> np.ndarray | None:
        """The batch; None for one of another size than the first."""
        place = "" if self._number is None else f" in batch {self._number}"
        self._number = None if self._number is None else self._number + 1
        row_shape = None if shape is None else shape[1:]
        batch = read_item(item, "batch", place, row_shape, self._local_size)
        if shape is not None and batch.ndim and batch.shape[1:] == row_shape and batch.shape != shape:
            self._skip(len(batch), len(self._example))
            return None
        if batch.ndim == 0 and np.issubdtype(batch.dtype, np.number):
            raise ValueError(
                f"data yields numbers{place}, not batches [batch, *visible]; pass np.asarray(list(data)) "
                "where these are rows."
            )
        checks.data_array(batch, expression("batch", item), place)
        if shape is not None and batch.shape != shape:
            raise ValueError(
                f"data yields a batch of shape {batch.shape} after batches of shape {shape}{place}; rows "
                "must all be of one shape."
            )
        self._check_dtype(batch.dtype, place)
        return storable(batch)

    def _ended(self, shape: tuple[int, ...] | None, num_batches: int | None) -> str:
        reason = "it yields no batch"
        if self._iterator is self._iterable:
            after = f" after {num_batches} batches" if num_batches else ""
            ending = ", or yields no batch" if shape is None else after
            reason = f"it is an iterator that is exhausted{ending}"
        return (
            f"data ended: {reason}. Pass an iterable that can be restarted, such as a list of batches or an "
            "object whose __iter__ starts anew, or an iterator that repeats."
        )

    def _check_dtype(self, dtype: np.dtype, place: str) -> None:
        if self._dtype is None:
            self._dtype = dtype
        if dtype != self._dtype:  # `np.stack` would widen one call and not the next
            raise ValueError(
                f"data yields a batch of dtype {dtype} after batches of {self._dtype}{place}; convert them "
                "to one."
            )

    def _skip(self, num_rows: int, expected: int) -> None:
        if not self._warned:
            warnings.warn(
                f"data yields a batch of {num_rows} rows among batches of {expected}; such batches are "
                "left out. Make batches of one size, or pass the rows as one array [rows, *visible].",
                stacklevel=2,
            )
        self._warned = True
