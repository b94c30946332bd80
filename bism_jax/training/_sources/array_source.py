"""Minibatches of an array that the devices hold."""

from __future__ import annotations

import numpy as np

from bism_jax.training._checkpoints.description import Description
from bism_jax.training._sources.data_source import DataSource
from bism_jax.training._sources.fingerprint import of_array
from bism_jax.training._sources.shuffle import Shuffle


class ArraySource(DataSource):
    """An array that fits on the device, where its minibatches are gathered."""

    def __init__(self, array: np.ndarray, batch_size: int, seed: tuple[int, ...]) -> None:
        self.resident = array
        self.batch_size = batch_size
        self._array = array
        self._shuffle = Shuffle(len(array), batch_size, seed)

    def example(self) -> np.ndarray:
        """The first rows of the array."""
        return self._array[: self.batch_size]

    def take(self, step: int, num_steps: int) -> np.ndarray:
        """Row indices, `[num_steps, B]`."""
        return self._shuffle.indices(step, num_steps)

    def fingerprint(self) -> Description:
        """Shape, dtype and a checksum of the values."""
        return of_array(self._array)
