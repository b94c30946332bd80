"""Rows in batches of one size, so that an evaluation is compiled once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bism_jax import checks
from bism_jax.checks import as_numbers, shown


def padded_batches(name: str, rows: Any, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Batches of `batch_size` rows with how many of them count; copies of a row fill up the last batch.

    Raises:
        TypeError: where they have no length and no slices, or are no numbers.
        ValueError: where there are no rows, or the batch size is not above 0.
    """
    checks.positive_int("batch_size", batch_size)
    num_rows = _num_rows(name, rows)
    # Few rows are not filled up to a whole batch, most of which would be copies.
    size = min(batch_size, num_rows)
    for start in range(0, num_rows, size):
        # Sliced first: of rows that are read from a disk, one batch is in memory.
        batch = np.asarray(as_numbers(name, rows[start : start + size]))
        # Not zeros, where a model may have no value: the checks of range and of NaN see copies too.
        copies = np.repeat(batch[:1], size - len(batch), axis=0)
        yield np.concatenate([batch, copies]), len(batch)


def _num_rows(name: str, rows: Any) -> int:
    is_sequence = hasattr(rows, "__len__") and hasattr(rows, "__getitem__")
    # Texts and mappings have a length and items, but no rows.
    if not is_sequence or isinstance(rows, (str, bytes, Mapping)):
        raise TypeError(
            f"{name} must be an array [rows, ...], or have a length and slices, not {shown(rows)}."
        )
    # A NumPy array without axes has `__len__`, which raises.
    num_rows = len(rows) if getattr(rows, "shape", None) != () else 0
    if not num_rows:
        raise ValueError(f"{name} has no rows: its shape is {getattr(rows, 'shape', (0,))}.")
    return num_rows
