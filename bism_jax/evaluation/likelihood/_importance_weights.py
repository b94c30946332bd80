"""What weighted particles estimate, and the particles that their weights leave."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


class LogMean(NamedTuple):
    """log mean w, its standard error, and (sum w)^2 / sum w^2."""

    value: Array
    standard_error: Array
    effective_sample_size: Array


def log_mean(log_weights: Float[Array, " particles"]) -> LogMean:
    """Takes log mean w; its error is by the jackknife, sqrt((P - 1) / P sum_i (l_i - mean l)^2).

    l_i = log mean w without particle i. The spread of the weights over their mean, which is the same to first
    order, is too low where a few heavy weights make the mean: they are seldom drawn, and swell both. (Miller,
    Biometrika 1974; figures in `annealed_importance_sampling`.)
    """
    num_particles = log_weights.size
    log_sum = jax.nn.logsumexp(log_weights)
    log_fractions = jax.nn.log_softmax(log_weights)  # of the largest first, in whose size log_sum rounds
    # In logs: squares of weights leave the range of floats long before the weights do.
    effective = jnp.exp(-jax.nn.logsumexp(2 * log_fractions))
    # l_i is log(1 - p_i) plus a constant, which a variance does not see.
    spread = (num_particles - 1) * jnp.var(_log_rest(log_fractions))
    return LogMean(log_sum - math.log(num_particles), jnp.sqrt(spread), effective)


def resample(rng_key: Key[Array, ""], log_weights: Float[Array, " particles"]) -> Int[Array, " particles"]:
    """Systematic resampling: the indices of as many particles, each about in proportion to its weight."""
    num_particles, dtype = log_weights.size, log_weights.dtype
    # One offset for all: a particle is copied floor(P p_i) or ceil(P p_i) times, where independent draws
    # vary as a binomial.
    offset = jax.random.uniform(rng_key, (), dtype)
    positions = (jnp.arange(num_particles, dtype=dtype) + offset) / num_particles
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights))
    # A cumulative sum of floats may end below 1, and the last position above it.
    return jnp.searchsorted(cumulative, positions).clip(max=num_particles - 1)


def _log_rest(log_fractions: Float[Array, " particles"]) -> Float[Array, " particles"]:
    """log(1 - p_i), to full precision also where one p_i is nearly all of the sum."""
    # One fraction at most exceeds 1/2, and only there does 1 - p lose digits.
    is_heaviest = jnp.arange(log_fractions.size) == log_fractions.argmax()
    of_heaviest = jax.nn.logsumexp(jnp.where(is_heaviest, -jnp.inf, log_fractions))
    others = jnp.where(is_heaviest, 0, jnp.exp(log_fractions))  # at most 1/2 each
    return jnp.where(is_heaviest, of_heaviest, jnp.log1p(-others))
