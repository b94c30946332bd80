"""Annealed sampling of an energy-based latent-variable model p(v, h) = exp(-E(v, h)) / Z.

An energy is a pure function `(theta, v, h) -> [chains]`: `module.apply` of a Flax module, or
`models.factor(...)`, whose features of v are computed once where v stays. Each sampler is compiled once for
an energy, a schedule and shapes, and can be called within `jax.jit` and `jax.vmap`. The rest is composition,
with `mean = posterior_fn(phi, v).mean`:

- samples 'via q': `sample_visible(..., v=initial_noise(key, v.shape), h=mean)`;
- a reconstruction: the same, or from v with noise instead of `initial_noise`;
- variations of one image: the same with `h=jnp.repeat(mean[:1], num_chains, axis=0)`;
- an interpolation: with `h=interpolate(mean[0], mean[1], num)`; where the pictures should differ by h alone,
  `jax.vmap` of a sampler of one chain over h gives all chains the same noise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from bism_jax import checks
from bism_jax._contract.guarded_calls import check_leaves
from bism_jax._jax_switches import with_transfers
from bism_jax.checks import called
from bism_jax.samplers import _chain_checks as chain_checks
from bism_jax.samplers._annealed_langevin import AnnealedSamples, anneal, initial_noise
from bism_jax.samplers._annealing_schedule import PAPER_SCHEDULE, AnnealingSchedule
from bism_jax.typing import EnergyFn, Params


@with_transfers
def sample_joint(
    energy_fn: EnergyFn,
    theta: Params,
    rng_key: Key[Array, ""],
    v: Float[Array, "chains *visible"],
    h: Float[Array, "chains *latent"],
    schedule: AnnealingSchedule = PAPER_SCHEDULE,
    *,
    num_snapshots: int = 0,
) -> AnnealedSamples:
    """Samples (v, h) ~ p(v, h): both move, and both are denoised.

    Args:
        energy_fn: `(theta, v, h) -> [chains]`, a pure function.
        theta: the parameters.
        rng_key: key.
        v: where the visible units start, `initial_noise` in the paper.
        h: where the latents start, also `initial_noise` in the paper.
        schedule: the temperatures and the steps.
        num_snapshots: states to keep on the way.

    Returns:
        Pairs (v, h), in `x` and in `snapshots`.

    Raises:
        TypeError: `energy_fn` is no pure function, or another argument has the wrong type.
        ValueError: theta holds NaN or `energy_fn` cannot be evaluated with it, v or h
            is not floating or not finite, or they differ in their number of rows; and as `annealed_langevin`.
    """
    v, h = _check(energy_fn, theta, v, h)
    return anneal(_joint, energy_fn, theta, rng_key, (v, h), schedule, num_snapshots)


@with_transfers
def sample_visible(
    energy_fn: EnergyFn,
    theta: Params,
    rng_key: Key[Array, ""],
    v: Float[Array, "chains *visible"],
    h: Float[Array, "chains *latent"],
    schedule: AnnealingSchedule = PAPER_SCHEDULE,
    *,
    num_snapshots: int = 0,
) -> AnnealedSamples:
    """Samples v ~ p(v | h) from the start v, with h held; `x` and `snapshots` hold v.

    Arguments and errors are those of `sample_joint`.
    """
    v, h = _check(energy_fn, theta, v, h)
    return anneal(_given_latent, energy_fn, (theta, h), rng_key, v, schedule, num_snapshots)


@with_transfers
def sample_latent(
    energy_fn: EnergyFn,
    theta: Params,
    rng_key: Key[Array, ""],
    v: Float[Array, "chains *visible"],
    h: Float[Array, "chains *latent"],
    schedule: AnnealingSchedule = PAPER_SCHEDULE,
    *,
    num_snapshots: int = 0,
) -> AnnealedSamples:
    """Samples h ~ p(h | v) from the start h, with v held; `x` and `snapshots` hold h.

    A factored energy computes its features of v once. The schedule's denoising step is left out: the noise
    that it takes off is that of v. Arguments and errors are those of `sample_joint`.
    """
    v, h = _check(energy_fn, theta, v, h)
    # What is no schedule is left for `anneal` to refuse.
    schedule = replace(schedule, denoising_std=0) if isinstance(schedule, AnnealingSchedule) else schedule
    # By its parts rather than by its class: any function with both will do.
    features_fn, head_fn = getattr(energy_fn, "features", None), getattr(energy_fn, "head", None)
    if features_fn is None or head_fn is None:
        return anneal(_given_visible, energy_fn, (theta, v), rng_key, h, schedule, num_snapshots)
    features = called("energy_fn: features", _features, features_fn, theta, v)
    return anneal(_given_features, head_fn, (theta, v, features), rng_key, h, schedule, num_snapshots)


@with_transfers
def inpaint(
    energy_fn: EnergyFn,
    theta: Params,
    rng_key: Key[Array, ""],
    v: Float[Array, "chains *visible"],
    observed: Bool[Array, "chains *visible"],
    h: Float[Array, "chains *latent"],
    schedule: AnnealingSchedule = PAPER_SCHEDULE,
    *,
    num_snapshots: int = 0,
) -> AnnealedSamples:
    """Samples the missing part of v and h given the rest of v, (v_missing, h) ~ p(. | v_observed).

    The observed entries are clamped to their values throughout, without noise, while the others and h move
    along the energy's gradient and are denoised. The missing entries start from `initial_noise`, so that
    nothing of what v holds there enters. A model trained on noised data has seen observed values only with
    noise: add some to v where that matters.

    Args:
        energy_fn: `(theta, v, h) -> [chains]`, a pure function.
        theta: the parameters.
        rng_key: key.
        v: the images; what they hold where `observed` is False does not matter, and may be NaN.
        observed: True where v is known, of its shape.
        h: where the latents start.
        schedule: the temperatures and the steps.
        num_snapshots: states to keep on the way.

    Returns:
        Pairs (v, h), in `x` and in `snapshots`; v is exact where it was observed.

    Raises:
        TypeError: `energy_fn` is no pure function, or `schedule` no `AnnealingSchedule`.
        ValueError: as `sample_joint`, or `observed` is not of booleans of the shape of v.
    """
    chain_checks.function("energy_fn", energy_fn, "(theta, v, h) -> [chains]")
    v, rng_key = chain_checks.states("v", v), checks.rng_key("rng_key", rng_key)
    observed = chain_checks.mask("observed", observed, "v", v)
    # Missing entries may be NaN, which the check of finite values would refuse.
    v, h = _check(energy_fn, theta, jnp.where(observed, v, 0), h)
    start_key, rng_key = jax.random.split(rng_key)
    # Of all entries, observed ones too, so that the noise of one does not depend on the mask.
    start = initial_noise(start_key, v.shape, v.dtype)
    # Arguments of the sampler, not constants of a closure, which each picture would compile anew.
    params = (theta, v, observed)
    samples = anneal(_clamped, energy_fn, params, rng_key, (start, h), schedule, num_snapshots)

    # Noise moves the chain's observed entries too, though the energy never sees them.
    def clamp(x: tuple[Array, Array]) -> tuple[Array, Array]:
        return jnp.where(observed, v, x[0]), x[1]

    return AnnealedSamples(clamp(samples.x), clamp(samples.snapshots))


# At the level of the module: a lambda would be a new static argument, and a new program, at each call.
def _joint(energy_fn: EnergyFn, theta: Params, x: tuple[Array, Array]) -> Float[Array, " chains"]:
    return energy_fn(theta, *x)


def _given_latent(energy_fn: EnergyFn, params: tuple[Params, Array], v: Array) -> Float[Array, " chains"]:
    theta, h = params
    return energy_fn(theta, v, h)


def _given_visible(energy_fn: EnergyFn, params: tuple[Params, Array], h: Array) -> Float[Array, " chains"]:
    return energy_fn(*params, h)


def _given_features(
    head_fn: Callable[..., Array], params: tuple[Params, Array, PyTree], h: Array
) -> Float[Array, " chains"]:
    return head_fn(*params, h)


def _clamped(
    energy_fn: EnergyFn, params: tuple[Params, Array, Array], x: tuple[Array, Array]
) -> Float[Array, " chains"]:
    """The energy does not see x where v is observed, so its gradient there is zero."""
    theta, v, observed = params
    return energy_fn(theta, jnp.where(observed, v, x[0]), x[1])


@functools.partial(jax.jit, static_argnums=0)
def _features(features_fn: Callable[[Params, Array], PyTree], theta: Params, v: Array) -> PyTree:
    return features_fn(theta, v)


def _check(energy_fn: Any, theta: Params, v: Any, h: Any) -> tuple[Array, Array]:
    check_leaves("theta", theta)
    chain_checks.function("energy_fn", energy_fn, "(theta, v, h) -> [chains]")
    v, h = chain_checks.states("v", v), chain_checks.states("h", h)
    chain_checks.finite("v", v)
    chain_checks.finite("h", h)
    chain_checks.same_chains("h", h, "v", v)
    return v, h
