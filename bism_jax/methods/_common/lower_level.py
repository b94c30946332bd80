"""The lower level of methods that fit a posterior without differentiating through its steps."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Float, Key

from bism_jax.hypergradient import LowerProblem, LowerSolution, StopGradient
from bism_jax.methods._common.iteration_counts import count_iterations
from bism_jax.methods.losses._bilevel import BilevelProblem, LevelNoise


def fit_posterior(
    losses: BilevelProblem,
    num_steps: int,
    optimizer: Any,
    rng_key: Key[Array, ""],
    state: Any,
    v: Float[Array, "batch *visible"],
) -> LowerSolution:
    """K optimiser steps on G(phi, theta), each on fresh noise.

    Args:
        losses: the model with the lower-level loss.
        num_steps: K.
        optimizer: of phi; its schedules count iterations.
        rng_key: key.
        state: has `theta`, `phi`, `phi_opt_state` and `iteration`.
        v: the batch.
    """
    visible_key, latent_key = jax.random.split(rng_key)
    noise = LevelNoise(
        losses.draw_visible_noise(visible_key, v, (num_steps,)),
        losses.draw_latent_noise(latent_key, state.phi, v, (num_steps,)),
    )
    inputs = jax.vmap(losses.lower_input, in_axes=(None, 0))(v, noise)
    optimizer = count_iterations(optimizer, state.phi_opt_state, state.phi, state.iteration)
    problem = LowerProblem(losses.lower_loss, optimizer, losses.shard.axis_name)
    return StopGradient(num_steps).solve(problem, state.phi, state.theta, inputs, state.phi_opt_state)
