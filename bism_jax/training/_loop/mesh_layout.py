"""One program over all devices."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from bism_jax.training._loop.layout import AXIS, config, to_host
from bism_jax.training._loop.state import map_data


class MeshLayout:
    """One program over a mesh of all devices, with the batch split and everything else replicated."""

    axis_name: str | None = None

    def __init__(self, devices: list[jax.Device]) -> None:
        # A program that is traced when it is called would see what has become of the model by then.
        is_compiled = not any(map(config, ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs")))
        self.key: Hashable = ("jit", *devices) if is_compiled else None
        mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._rows = NamedSharding(mesh, PartitionSpec(AXIS))
        self._steps_rows = NamedSharding(mesh, PartitionSpec(None, AXIS))

    def replicate(self, tree: PyTree) -> PyTree:
        """A host tree on every device."""
        return map_data(lambda leaf: self._place(np.asarray(leaf), self._replicated), tree)

    def split_indices(self, indices: np.ndarray) -> Array:
        """`[steps, B]`, split along B."""
        return self._place(indices, self._steps_rows)

    def split_batches(self, batches: np.ndarray) -> Array:
        """`[steps, B / processes, *visible]`, split along B."""
        batches = np.asarray(batches, jnp.result_type(batches))
        with jax.transfer_guard("allow"):  # to place an array is to ask for its transfer
            return jax.make_array_from_process_local_data(self._steps_rows, batches)

    def constrain(self, batch: Array) -> Array:
        """Marks the split of a batch."""
        return jax.lax.with_sharding_constraint(batch, self._rows)

    def compile(self, fn: Callable[..., Any], *args: Any) -> Callable[..., Any]:
        """Compiles `fn` with its state donated; not for `jax_disable_jit` and JAX's checks for NaN."""
        if config("jax_disable_jit"):
            return fn
        if config("jax_debug_nans") or config("jax_debug_infs"):
            # JAX finds the operation by running `fn` once more, from arguments that are still there.
            return jax.jit(fn, out_shardings=self._replicated)
        jitted = jax.jit(fn, donate_argnums=0, out_shardings=self._replicated)
        return jitted.lower(*args).compile()

    def to_host(self, tree: PyTree) -> PyTree:
        """One copy as NumPy arrays."""
        return to_host(tree, ...)

    def _place(self, array: np.ndarray, sharding: NamedSharding) -> Array:
        array = np.asarray(array, jnp.result_type(array))
        with jax.transfer_guard("allow"):  # likewise
            return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
