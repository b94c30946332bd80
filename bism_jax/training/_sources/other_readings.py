"""What the items of an iterable may be meant to be, where they are not batches of the size asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from bism_jax.training._sources.items import read_item


def other_readings(iterable: Any, batch_size: int, shape: tuple[int, ...], local_size: int) -> str:
    """The end of an error for batches of another size than `batch_size`, or a better error.

    Args:
        iterable: the data.
        batch_size: rows of the global batch, as a user asks for them.
        shape: that of the first batch.
        local_size: rows of a process's part of a batch.

    Raises:
        ValueError: where the items are arrays of different shapes, so no batches.
    """
    if not isinstance(iterable, list):
        rows = ", or np.stack(list(data)) where these are rows" if len(shape) == 1 else ""
        return f", or make batches of {batch_size} rows{rows}"
    arrays = [
        read_item(item, "batch", f" in batch {k}", shape[1:], local_size) for k, item in enumerate(iterable)
    ]
    shapes = list(dict.fromkeys(array.shape for array in arrays))
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(
            f"data is a list of arrays of different shapes, {shapes[0]} and {shapes[1]}; rows must all "
            "be of one shape: pad or cut them, and np.stack them."
        )
    joined = all(np.shape(item) == array.shape for item, array in zip(iterable, arrays, strict=True))
    readings = ["np.concatenate(data) to shuffle the rows of these batches"] if joined else []
    if joined and len(shapes) > 1:
        readings += ["np.stack them, padded to one length, where these are rows"]
    elif joined and len(arrays) > 1:
        readings += ["np.asarray(data) where these are rows"]
    return "".join(f", or {reading}" for reading in readings)
