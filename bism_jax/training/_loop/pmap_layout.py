"""`pmap`: one program a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from bism_jax.training._loop.layout import AXIS, Layout, donated_argnums
from bism_jax.training._loop.state import map_data


class PmapLayout(Layout):
    """One program a device with explicit averages, for scripts in the older style.

    Arrays have a leading axis of devices, and a batch is `[devices, steps, B / devices, *visible]`.
    """

    axis_name = AXIS
    _first_copy = 0

    def __init__(self, devices: list[jax.Device]) -> None:
        self.key = None  # pmap traces on its first call, and has no public way to compile ahead of it
        # pmap takes the devices of all processes: with only the local ones, each would train by itself. In
        # the order of processes, since each places consecutive parts on its own devices.
        self._devices = sorted(devices, key=lambda device: device.process_index)
        self._num_local = sum(device.process_index == jax.process_index() for device in devices)

    def replicate(self, tree: PyTree) -> PyTree:
        """A host tree with a leading device axis."""
        return map_data(lambda leaf: self._stack([np.asarray(leaf)] * self._num_local), tree)

    def split_indices(self, indices: np.ndarray) -> Array:
        """This process's part of `[steps, B]`."""
        parts = np.split(indices, len(self._devices), axis=1)
        start = jax.process_index() * self._num_local
        return self._stack(parts[start : start + self._num_local])

    def split_batches(self, batches: np.ndarray) -> Array:
        """`[steps, B / processes, *visible]` by devices."""
        return self._stack(np.split(batches, self._num_local, axis=1))

    def constrain(self, batch: Array) -> Array:
        """Nothing to mark: a device sees its own rows only."""
        return batch

    def compile(self, fn: Callable[..., Any], *args: Any) -> Callable[..., Any]:
        """Maps `fn` over the devices."""
        return jax.pmap(fn, axis_name=AXIS, donate_argnums=donated_argnums(), devices=self._devices)

    def _stack(self, parts: list[np.ndarray]) -> Array:
        stacked = np.stack(parts)
        # An identity, since pmap has no public way to place its arguments.
        place = jax.pmap(lambda leaf: leaf, devices=self._devices)
        with jax.transfer_guard("allow"):  # to place an array is to ask for its transfer
            return place(stacked)
