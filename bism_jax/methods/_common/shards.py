"""The part of a batch that one device holds under `pmap`, and what it shares with the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree


@dataclass(frozen=True)
class BatchShard:
    """A device's rows of the global batch; the whole batch where `axis_name` is None.

    Noise is drawn for the global batch on every device, from the same key, and each takes its rows, so
    that the result is that of one device.

    Attributes:
        axis_name: the mapped axis.
    """

    axis_name: str | None = None

    def global_batch(self, local: Array) -> Array:
        """Zeros of the global batch's shape, to draw noise for."""
        # psum of a Python number is one too, as a shape needs.
        num_shards = 1 if self.axis_name is None else jax.lax.psum(1, self.axis_name)
        # An array rather than a shape: posteriors are evaluated on it, which the compiler drops.
        return jnp.zeros((local.shape[0] * num_shards, *local.shape[1:]), local.dtype)

    def rows(self, noise: PyTree, batch_axis: int, batch_size: int) -> PyTree:
        """This device's rows of globally drawn noise; keys, which have no rows, become its own."""
        if self.axis_name is None:
            return noise
        index = self._index()

        def take(leaf: Any) -> Any:
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                # fold_in takes one key at a time, and a leaf may have axes of steps and particles.
                keys = jax.vmap(lambda key: jax.random.fold_in(key, index))(leaf.reshape(-1))
                return keys.reshape(leaf.shape)
            return jax.lax.dynamic_slice_in_dim(leaf, index * batch_size, batch_size, batch_axis)

        return jax.tree.map(take, noise)

    def own_key(self, rng_key: Key[Array, ""]) -> Key[Array, ""]:
        """A key of this device, for draws that cannot be made globally."""
        return rng_key if self.axis_name is None else jax.random.fold_in(rng_key, self._index())

    def mean(self, tree: PyTree) -> PyTree:
        """The average over the devices."""
        return tree if self.axis_name is None else jax.lax.pmean(tree, self.axis_name)

    def _index(self) -> Array:
        return jax.lax.axis_index(self.axis_name)
