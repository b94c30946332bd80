"""`pmap`: one program a device."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from bism_jax.training._loop.layout import AXIS, config, to_host
from bism_jax.training._loop.state import map_data


class PmapLayout:
    """One program a device with explicit averages, for scripts in the older style."""

    axis_name: str | None = AXIS

    def __init__(self, devices: list[jax.Device]) -> None:
        self.key: Hashable = None  # pmap traces on its first call, likewise
        # pmap takes the devices of all processes: with only the local ones, each would train by itself.
        self._devices = sorted(devices, key=lambda device: device.process_index)
        self._num_local = sum(device.process_index == jax.process_index() for device in devices)

    def replicate(self, tree: PyTree) -> PyTree:
        """A host tree with a leading device axis."""
        return map_data(lambda leaf: self._stack([np.asarray(leaf)] * self._num_local), tree)

    def split_indices(self, indices: np.ndarray) -> Array:
        """`[devices, steps, B / devices]`."""
        parts = np.split(indices, len(self._devices), axis=1)
        start = jax.process_index() * self._num_local
        return self._stack(parts[start : start + self._num_local])

    def split_batches(self, batches: np.ndarray) -> Array:
        """`[devices, steps, B / devices, *visible]`."""
        return self._stack(np.split(batches, self._num_local, axis=1))

    def constrain(self, batch: Array) -> Array:
        """Nothing to mark: a device sees its own rows only."""
        return batch

    def compile(self, fn: Callable[..., Any], *args: Any) -> Callable[..., Any]:
        """Maps `fn` over the devices, with its state donated."""
        # pmap compiles on its first call; it has no public way to compile ahead of it.
        donated = () if config("jax_debug_nans") or config("jax_debug_infs") else (0,)  # as in `MeshLayout`
        return jax.pmap(fn, axis_name=AXIS, donate_argnums=donated, devices=self._devices)

    def to_host(self, tree: PyTree) -> PyTree:
        """The first device's copy as NumPy arrays."""
        return to_host(tree, 0)

    def _stack(self, parts: list[np.ndarray]) -> Array:
        stacked = np.stack(parts)
        place = jax.pmap(lambda leaf: leaf, devices=self._devices)
        with jax.transfer_guard("allow"):  # likewise
            return place(stacked)
