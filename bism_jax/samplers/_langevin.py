"""Unadjusted Langevin dynamics of an energy."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Key, PyTree

from bism_jax import checks
from bism_jax._jax_switches import with_transfers
from bism_jax.samplers import _chain_checks as chain_checks


@with_transfers
def langevin(
    energy_fn: Callable[[PyTree], Float[Array, " chains"]],
    rng_key: Key[Array, ""],
    x: PyTree,
    num_steps: int,
    step_size: float,
) -> PyTree:
    """Moves chains by noisy gradient descent on their energy:

        x <- x - step_size^2 / 2 grad E(x) + step_size xi,   xi ~ N(0, I)

    Its stationary law tends to exp(-E) / Z as the step size goes to 0; there is no accept-reject step. A
    chain is stable where step_size^2 stays below 4 over the largest curvature of E.

    Args:
        energy_fn: the energy of each chain, `[chains]`.
        rng_key: key.
        x: where the chains start, a pytree of `[chains, ...]`.
        num_steps: steps.
        step_size: the standard deviation of a step's noise, in units of x.

    Raises:
        TypeError: where `energy_fn` is no function, or the key or x has the wrong type.
        ValueError: where the number of steps is negative or the step size not above 0, x is empty, not
            floating or not finite, or `energy_fn` does not return one energy a chain.
    """
    chain_checks.callable_energy("energy_fn", energy_fn)
    checks.loop_count("num_steps", num_steps, at_least=0)
    checks.positive("step_size", step_size)
    rng_key, x = chain_checks.start(energy_fn, rng_key, x)
    # Of the sum: a chain's energy depends on that chain alone, which `start` has checked.
    gradient_fn = jax.grad(lambda x: energy_fn(x).sum())

    def step(x: PyTree, key: Array) -> tuple[PyTree, None]:
        return langevin_step(gradient_fn(x), key, x, 0.5 * step_size**2, step_size), None

    if num_steps == 0:  # without jit, JAX has no loop of no steps
        return x
    return jax.lax.scan(step, x, jax.random.split(rng_key, num_steps))[0]


def langevin_step(
    gradient: PyTree,
    rng_key: Key[Array, ""],
    x: PyTree,
    rate: float | Float[Array, ""],
    noise_std: float | Float[Array, ""],
) -> PyTree:
    """One step x - rate gradient + noise_std xi, with xi ~ N(0, I) of its own for each leaf."""
    leaves, structure = jax.tree.flatten(x)
    # By one key, leaves of equal shape would move by equal noise.
    keys = jax.random.split(rng_key, len(leaves))
    noise = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]

    def move(leaf: Array, gradient: Array, xi: Array) -> Array:
        # Rates are float32 or float64 where a chain may be bfloat16, which it stays.
        return leaf - (rate * gradient).astype(leaf.dtype) + (noise_std * xi).astype(leaf.dtype)

    return jax.tree.map(move, x, gradient, jax.tree.unflatten(structure, noise))
