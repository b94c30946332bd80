"""Block Gibbs sampling of a model with both conditionals."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Key

from bism_jax.jax_switches import with_transfers
from bism_jax.typing import Params

ConditionalSampler = Callable[[Params, Key[Array, ""], Array], Array]


@with_transfers
def gibbs(
    sample_h: ConditionalSampler,
    sample_v: ConditionalSampler,
    theta: Params,
    rng_key: Key[Array, ""],
    v: Float[Array, "chains *visible"],
    num_steps: int,
) -> tuple[Float[Array, "chains *visible"], Array]:
    """Alternates h ~ p(h | v) and v ~ p(v | h).

    Args:
        sample_h: `(theta, rng_key, v) -> h`.
        sample_v: `(theta, rng_key, h) -> v`.
        theta: the model's parameters.
        rng_key: key.
        v: where the chains start.
        num_steps: sweeps, at least 1.

    Returns:
        The last v and the h it was drawn from.
    """
    dtype = v.dtype  # the chains stay in it, whatever the parameters are in

    def sweep(v: Array, keys: Array) -> tuple[Array, Array]:
        h = sample_h(theta, keys[0], v)
        return sample_v(theta, keys[1], h).astype(dtype), h

    def body(carry: tuple[Array, Array], keys: Array) -> tuple[tuple[Array, Array], None]:
        return sweep(carry[0], keys), None

    keys = jax.random.split(rng_key, (num_steps, 2))
    first = sweep(v, keys[0])
    if num_steps == 1:  # without jit, JAX has no loop of no steps
        return first
    return jax.lax.scan(body, first, keys[1:])[0]
