"""What a layout over devices does for the training loop."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, PyTree

from bism_jax._jax_switches import with_transfers
from bism_jax.training._loop.state import map_data

AXIS = "batch"


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


@with_transfers  # a key lives on a device, also its copy
def to_host(tree: PyTree, index: Any) -> PyTree:
    """What the first device has at an index."""
    return map_data(lambda leaf: np.asarray(jax.device_get(leaf.addressable_data(0)))[index], tree)


def config(name: str) -> Any:
    """A setting of JAX."""
    return getattr(jax.config, name)  # its attributes are not known to a type checker
