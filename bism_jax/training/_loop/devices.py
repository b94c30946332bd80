"""How a training loop is laid out over devices: one SPMD program, or `pmap`.

Both see the same global batch, so that the result does not depend on the number of devices.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from bism_jax import checks
from bism_jax._jax_switches import with_transfers
from bism_jax.training._loop.state import map_data

_AXIS = "batch"


class Layout(Protocol):
    """Places arrays on devices and compiles a function of them.

    Attributes:
        axis_name: the mapped axis inside the function; None where it sees the global batch.
        key: what tells this layout from others; None where what it compiles must not be kept.
    """

    axis_name: str | None
    key: Hashable

    def replicate(self, tree: PyTree) -> PyTree:
        """A host tree on every device."""
        ...

    def split_indices(self, indices: np.ndarray) -> Array:
        """`[steps, B]`, the same on every process, split over devices along B."""
        ...

    def split_batches(self, batches: np.ndarray) -> Array:
        """This process's `[steps, B / processes, *visible]`, split over devices along B."""
        ...

    def constrain(self, batch: Array) -> Array:
        """Inside the function: marks the split of a batch."""
        ...

    def compile(self, fn: Callable[..., Any], *args: Any) -> Callable[..., Any]:
        """`fn(state, data, selection, count) -> (state, infos)`, compiled for arguments like `args`."""
        ...

    def to_host(self, tree: PyTree) -> PyTree:
        """One copy of a replicated tree as NumPy arrays; of keys, as keys."""
        ...


def make_layout(parallel: str | None, batch_size: int) -> Layout:
    """The layout that `parallel` names: None or `"jit"` for one program, `"pmap"`.

    Raises:
        ValueError: for another name, or a batch that does not divide among the devices.
    """
    checks.one_of("parallel", parallel, (None, "jit", "pmap"))
    devices = _devices()
    if batch_size % len(devices):
        nearest = max(1, round(batch_size / len(devices))) * len(devices)
        raise ValueError(
            f"batch_size={batch_size} does not divide among the {len(devices)} devices; pass "
            f"batch_size={nearest}, or show JAX fewer devices."
        )
    return PmapLayout(devices) if parallel == "pmap" else MeshLayout(devices)


def _devices() -> list[jax.Device]:
    """All devices, or what `jax_default_device` says: one device, or all of a platform.

    Raises:
        ValueError: where it names one device and there are several processes, each with devices of its own.
    """
    default = _config("jax_default_device")
    if default is None or isinstance(default, str):
        return jax.devices(default)
    if jax.process_count() > 1:
        raise ValueError(
            f"jax_default_device={default} is one device, but {jax.process_count()} processes train "
            "together; leave it unset, and choose each process's devices by local_device_ids of "
            "jax.distributed.initialize."
        )
    return [default]


def _config(name: str) -> Any:
    return getattr(jax.config, name)  # its attributes are not known to a type checker


@with_transfers  # a key lives on a device, also its copy
def _to_host(tree: PyTree, index: Any) -> PyTree:
    """What the first device has at an index."""
    return map_data(lambda leaf: np.asarray(jax.device_get(leaf.addressable_data(0)))[index], tree)


class MeshLayout:
    """One program over a mesh of all devices, with the batch split and everything else replicated."""

    axis_name: str | None = None

    def __init__(self, devices: list[jax.Device]) -> None:
        # A program that is traced when it is called would see what has become of the model by then.
        is_compiled = not any(map(_config, ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs")))
        self.key: Hashable = ("jit", *devices) if is_compiled else None
        mesh = Mesh(np.array(devices), (_AXIS,), axis_types=(AxisType.Auto,))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._rows = NamedSharding(mesh, PartitionSpec(_AXIS))
        self._steps_rows = NamedSharding(mesh, PartitionSpec(None, _AXIS))

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
        if _config("jax_disable_jit"):
            return fn
        if _config("jax_debug_nans") or _config("jax_debug_infs"):
            # JAX finds the operation by running `fn` once more, from arguments that are still there.
            return jax.jit(fn, out_shardings=self._replicated)
        jitted = jax.jit(fn, donate_argnums=0, out_shardings=self._replicated)
        return jitted.lower(*args).compile()

    def to_host(self, tree: PyTree) -> PyTree:
        """One copy as NumPy arrays."""
        return _to_host(tree, ...)

    def _place(self, array: np.ndarray, sharding: NamedSharding) -> Array:
        array = np.asarray(array, jnp.result_type(array))
        with jax.transfer_guard("allow"):  # likewise
            return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


class PmapLayout:
    """One program a device with explicit averages, for scripts in the older style."""

    axis_name: str | None = _AXIS

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
        donated = () if _config("jax_debug_nans") or _config("jax_debug_infs") else (0,)  # as in `MeshLayout`
        return jax.pmap(fn, axis_name=_AXIS, donate_argnums=donated, devices=self._devices)

    def to_host(self, tree: PyTree) -> PyTree:
        """The first device's copy as NumPy arrays."""
        return _to_host(tree, 0)

    def _stack(self, parts: list[np.ndarray]) -> Array:
        stacked = np.stack(parts)
        place = jax.pmap(lambda leaf: leaf, devices=self._devices)
        with jax.transfer_guard("allow"):  # likewise
            return place(stacked)
