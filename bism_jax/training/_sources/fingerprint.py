"""What tells one data set from another, without reading all of a large one."""

from __future__ import annotations

import numpy as np

from bism_jax.training._checkpoints.description import Description
from bism_jax.training._checkpoints.digests import digest_of_arrays

_WHOLE_BYTES = 2**28  # which take a quarter of a second
_SAMPLED_ROWS = 1000  # of a larger array: a slice, another scale or another order differs in most of them


def of_array(array: np.ndarray) -> Description:
    """Shape, dtype and a checksum: of all values, or of rows spread over a large array."""
    is_large = array.nbytes > _WHOLE_BYTES
    rows = array[spread_rows(len(array), _SAMPLED_ROWS)] if is_large else array
    return {**of_batch(array), "checksum": digest_of_arrays(rows)}


def of_batch(batch: np.ndarray) -> Description:
    """Shape and dtype alone, for data that may come in another order each time."""
    return {"shape": list(batch.shape), "dtype": str(batch.dtype)}


def spread_rows(num_rows: int, count: int) -> np.ndarray:
    """Indices of at most `count` rows, the first and the last among them."""
    # Of fewer rows than `count`, each once.
    return np.unique(np.linspace(0, num_rows - 1, count).astype(np.int64))


def of_rows(num_rows: int, rows: np.ndarray, again: np.ndarray) -> Description:
    """Of a source: its length, and a checksum of some rows where they are the same when fetched again."""
    is_fixed = digest_of_arrays(rows) == digest_of_arrays(again)
    checksum = digest_of_arrays(rows) if is_fixed else "rows are random"
    return {**of_batch(rows), "shape": [num_rows, *rows.shape[1:]], "checksum": checksum}
