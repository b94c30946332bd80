"""Minibatches of rows that are fetched by index."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from bism_jax import checks
from bism_jax.training._checkpoints.description import Description
from bism_jax.training._checkpoints.digests import digest_of_arrays
from bism_jax.training._sources.arrays import storable
from bism_jax.training._sources.data_source import DataSource
from bism_jax.training._sources.fingerprint import of_rows, spread_rows
from bism_jax.training._sources.items import read_item
from bism_jax.training._sources.shuffle import Shuffle
from bism_jax.training._sources.sparse_rows import SparseRows

_FINGERPRINT_ROWS = 16  # each is fetched twice, and may have to be decoded


class RandomAccessSource(DataSource):
    """Rows fetched by index on the host, such as a tfds `data_source` mapped to arrays."""

    def __init__(self, source: Any, batch_size: int, seed: tuple[int, ...]) -> None:
        self.batch_size = batch_size
        self._source = source
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype | None = None
        self._shuffle = Shuffle(len(source), batch_size, seed)

    def example(self) -> np.ndarray:
        """The first rows of the source."""
        return self._rows(np.arange(self.batch_size))

    def take(self, step: int, num_steps: int) -> np.ndarray:
        """This process's rows of each batch."""
        indices = self._shuffle.indices(step, num_steps)
        local_size = self.batch_size // jax.process_count()
        start = jax.process_index() * local_size
        return np.stack([self._rows(row[start : start + local_size]) for row in indices])

    def fingerprint(self) -> Description:
        """Its length and some of its rows; of a sparse array, all values."""
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
        # Nothing is rounded: `_check_rows` has refused what cannot be cast safely.
        return np.stack(arrays, dtype=self._dtype, casting="unsafe")

    def _get(self, index: int) -> Any:
        try:
            return self._source[index]
        except (KeyError, TypeError, IndexError) as error:  # of a mapping; others are the source's own
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
