"""The lower level of an iteration: what an optimiser does to phi at the present theta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optax
from jaxtyping import Array, Float, PyTree

from bism_jax.hypergradient import LowerProblem, LowerSolution, StopGradient
from bism_jax.methods._common.iteration_counts import count_iterations
from bism_jax.methods._common.shards import BatchShard


def lower_problem(
    loss_fn: Callable[..., Float[Array, ""]],
    optimizer: optax.GradientTransformation,
    state: Any,
    shard: BatchShard,
) -> LowerProblem:
    """The lower-level problem of an iteration from `state`.

    Args:
        loss_fn: `(phi, theta, input)`, of this device's rows.
        optimizer: of phi; its schedules count iterations.
        state: has `phi`, `phi_opt_state` and `iteration`.
        shard: the rows of this device.
    """
    # Without `once`: phi is updated several times an iteration, so its counters run ahead of the iterations.
    counted = count_iterations(optimizer, state.phi_opt_state, state.phi, state.iteration)
    return LowerProblem(loss_fn, counted, shard.axis_name)


def fit_posterior(
    loss_fn: Callable[..., Float[Array, ""]],
    num_steps: int,
    optimizer: optax.GradientTransformation,
    state: Any,
    inputs: PyTree,
    shard: BatchShard,
) -> LowerSolution:
    """K steps of `lower_problem`, each on its slice of the inputs, that are not differentiated."""
    problem = lower_problem(loss_fn, optimizer, state, shard)
    return StopGradient(num_steps).solve(problem, state.phi, state.theta, inputs, state.phi_opt_state)
