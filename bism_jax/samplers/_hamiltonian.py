"""The No-U-Turn sampler of an energy, by way of numpyro."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Key, PyTree

from bism_jax import checks
from bism_jax._jax_switches import standard_promotion, with_transfers
from bism_jax.samplers import _chain_checks as chain_checks


@with_transfers
def nuts(
    energy_fn: Callable[[PyTree], Float[Array, " chains"]],
    rng_key: Key[Array, ""],
    x: PyTree,
    num_samples: int,
    *,
    num_warmup: int = 500,
    progress: bool = False,
) -> PyTree:
    """Samples exp(-E) / Z by Hamiltonian dynamics whose length adapts to the energy.

    Exact up to Monte Carlo error, unlike `langevin`; the energy must be smooth. Step size and mass matrix are
    adapted to each chain in the warm-up, whose states are thrown away. (Hoffman and Gelman, JMLR 2014, arXiv
    1111.4246, in numpyro's implementation.)

    Args:
        energy_fn: the energy of each chain, `[chains]`.
        rng_key: key.
        x: where the chains start, a pytree of `[chains, ...]`.
        num_samples: kept states of each chain.
        num_warmup: steps of adaptation before them.
        progress: whether to show a bar.

    Returns:
        The states, a pytree like x of `[chains, num_samples, ...]`.

    Raises:
        TypeError: where `energy_fn` is no function, or another argument has the wrong type.
        ValueError: on counts out of range, x that is empty, not floating or not finite, or where `energy_fn`
            does not return one energy a chain.
    """
    # Here, so that `import bism_jax` does not load numpyro.
    from numpyro.infer import MCMC, NUTS

    chain_checks.callable_energy("energy_fn", energy_fn)
    checks.loop_count("num_samples", num_samples)
    checks.loop_count("num_warmup", num_warmup, at_least=0)
    checks.boolean("progress", progress)
    rng_key, x = chain_checks.start(energy_fn, rng_key, x)
    # numpyro draws in JAX's default dtype, and can carry no other.
    start = jax.tree.map(lambda leaf: leaf.astype(float), x)
    num_chains = jax.tree.leaves(x)[0].shape[0]
    sampler = MCMC(
        NUTS(potential_fn=_energy_of_one_chain(energy_fn, x)),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        # numpyro's default wants a device for each chain, and runs them in turn where there are fewer.
        chain_method="vectorized",
        progress_bar=progress,
    )
    # numpyro gives a single chain no chain axis.
    start = jax.tree.map(lambda leaf: leaf[0], start) if num_chains == 1 else start
    with standard_promotion():
        # numpyro is not written for strict promotion.
        sampler.run(rng_key, init_params=start)
    samples = sampler.get_samples(group_by_chain=True)
    return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), samples, x)


def _energy_of_one_chain(
    energy_fn: Callable[[PyTree], Float[Array, " chains"]], x: PyTree
) -> Callable[[PyTree], Float[Array, ""]]:
    """The energy of one state without a chain axis, which `energy_fn` sees in the dtype of x."""

    def potential_fn(point: PyTree) -> Float[Array, ""]:
        point = jax.tree.map(lambda leaf, like: leaf[None].astype(like.dtype), point, x)
        return energy_fn(point)[0].astype(float)

    return potential_fn
