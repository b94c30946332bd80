"""Rows in batches of one size, so that an evaluation is compiled once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bism_jax import checks


def padded_batches(name: str, rows: Any, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Batches of `batch_size` rows with how many of them count; copies of a row fill up the last batch.

    Raises:
        ValueError: where there are no rows, or the batch size is not above 0.
    """
    checks.positive_int("batch_size", batch_size)
    num_rows = len(rows) if np.ndim(rows) else 0
    if not num_rows:
        raise ValueError(f"{name} has no rows: its shape is {np.shape(rows)}.")
    size = min(batch_size, num_rows)
    for start in range(0, num_rows, size):
        batch = np.asarray(rows[start : start + size])
        copies = np.repeat(batch[:1], size - len(batch), axis=0)
        yield np.concatenate([batch, copies]), len(batch)
