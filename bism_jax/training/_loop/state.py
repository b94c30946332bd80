"""What the training loop carries from one iteration to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from bism_jax.typing import Params


class LoopState(NamedTuple):
    """The state after some iteration.

    Attributes:
        method_state: the algorithm's.
        theta_ema: the exponential moving average of theta, or None.
        rng_key: the key of the run, a typed one.
        step: the number of iterations done.
    """

    method_state: Any
    theta_ema: Params | None
    rng_key: Key[Array, ""]
    step: Int[Array, ""]


def start_state(method_state: PyTree, rng_key: Array, ema_decay: float | None) -> LoopState:
    """The state before the first iteration."""
    theta_ema = None if ema_decay is None else method_state.theta
    return LoopState(jax.tree.map(jnp.asarray, method_state), theta_ema, rng_key, jax.device_put(np.int32(0)))


def is_key(leaf: Any) -> bool:
    """Whether it is a typed key, or an array of them."""
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def as_data(leaf: Any) -> Any:
    """The numbers of an array or of a key, which alone can be copied to a host and to disk."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def like(leaf: Any, data: Any) -> Any:
    """`data` as what `leaf` is: a key of the same implementation, or the array itself."""
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf)) if is_key(leaf) else data


def map_data(fn: Callable[[Any], Any], tree: PyTree) -> PyTree:
    """Applies `fn` to the numbers of each leaf; of a key, what comes back is a key again."""
    return jax.tree.map(lambda leaf: like(leaf, fn(as_data(leaf))), tree)
