"""How a training loop is laid out over devices, as one program."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from bism_jax._jax_switches import with_transfers
from bism_jax.training._loop.state import map_data

AXIS = "batch"  # of the mesh, and the mapped one of `pmap`


class Layout:
    """One program over a mesh of all devices, with the batch split and everything else replicated.

    Attributes:
        axis_name: the mapped axis inside the program; None where it sees the global batch.
        key: what tells this layout from others; None where what it compiles must not be kept.
    """

    axis_name: str | None = None
    _first_copy: Any = ...  # the index of one copy in what a device holds

    def __init__(self, devices: list[jax.Device]) -> None:
        # A program that is traced when it is called would see what has become of the model by then.
        is_compiled = not (config("jax_disable_jit") or looks_for_nans())
        self.key: Hashable = ("jit", *devices) if is_compiled else None
        # Explicit axes would ask the energies of users for shardings.
        mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._rows = NamedSharding(mesh, PartitionSpec(AXIS))
        self._steps_rows = NamedSharding(mesh, PartitionSpec(None, AXIS))

    def replicate(self, tree: PyTree) -> PyTree:
        """A host tree on every device."""
        return map_data(lambda leaf: self._place(np.asarray(leaf), self._replicated), tree)

    def split_indices(self, indices: np.ndarray) -> Array:
        """`[steps, B]`, the same on every process, split over devices along B."""
        return self._place(indices, self._steps_rows)

    def split_batches(self, batches: np.ndarray) -> Array:
        """This process's `[steps, B / processes, *visible]`, split over devices along B."""
        batches = np.asarray(batches, jnp.result_type(batches))
        with jax.transfer_guard("allow"):  # to place an array is to ask for its transfer
            return jax.make_array_from_process_local_data(self._steps_rows, batches)

    def constrain(self, batch: Array) -> Array:
        """Inside the program: marks the split of a batch."""
        return jax.lax.with_sharding_constraint(batch, self._rows)

    def compile(self, fn: Callable[..., Any], *args: Any) -> Callable[..., Any]:
        """`fn(state, data, selection, count) -> (state, infos)`, compiled for arguments like `args`.

        The state is donated. With `jax_disable_jit` and JAX's checks for NaN nothing is compiled yet.
        """
        if config("jax_disable_jit"):
            return fn
        # Everything replicated: `to_host` reads any one copy, and the next call takes the state as it lies.
        jitted = jax.jit(fn, donate_argnums=donated_argnums(), out_shardings=self._replicated)
        return jitted if looks_for_nans() else jitted.lower(*args).compile()

    @with_transfers  # a key lives on a device, also its copy
    def to_host(self, tree: PyTree) -> PyTree:
        """One copy of a replicated tree as NumPy arrays; of keys, as keys."""

        def copy(leaf: Array) -> np.ndarray:
            return np.asarray(jax.device_get(leaf.addressable_data(0)))[self._first_copy]

        return map_data(copy, tree)

    def _place(self, array: np.ndarray, sharding: NamedSharding) -> Array:
        array = np.asarray(array, jnp.result_type(array))
        with jax.transfer_guard("allow"):  # likewise
            # `device_put` would first compare the values of all processes (JAX 0.10).
            return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def config(name: str) -> Any:
    """A setting of JAX."""
    return getattr(jax.config, name)  # its attributes are not known to a type checker


def looks_for_nans() -> bool:
    """Whether JAX checks each result."""
    return config("jax_debug_nans") or config("jax_debug_infs")


def donated_argnums() -> tuple[int, ...]:
    """The state, but where JAX looks for NaN: it then calls again, on arguments that must still be there."""
    return () if looks_for_nans() else (0,)
