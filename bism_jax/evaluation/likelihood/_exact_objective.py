"""The score-matching objective of a model, exact and sliced."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from bism_jax import checks
from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.compilation import compiled
from bism_jax.evaluation._model_functions import capability_of, checked_rows
from bism_jax.objectives import SM, SSM, marginal_score
from bism_jax.typing import Params


@with_transfers
def score_matching_objective(
    energy_fn: Any, theta: Params, v: Float[Array | np.ndarray, "rows *visible"], batch_size: int = 100
) -> Float[Array, ""]:
    """E[1/2 |s(v)|^2 + tr grad_v s(v)], s = -grad_v F, without projection noise.

    It is the Fisher divergence to the data up to a constant of the data. (Hyvarinen, JMLR 2005.)

    Args:
        energy_fn: a model with `free_energy`.
        theta: its parameters.
        v: the points.
        batch_size: points at a time.

    Raises:
        TypeError: where an argument has the wrong type.
        ValueError: where the model has no free energy or cannot be evaluated with theta on v, or v holds
            NaN or no rows.
    """
    checks.positive_int("batch_size", batch_size)
    capability_of("score_matching_objective", energy_fn, "free_energy")
    v = checked_rows(energy_fn, theta, v)
    return compiled(functools.partial(_exact, energy_fn, batch_size))(theta, v)


@with_transfers
def sliced_score_matching_objective(
    energy_fn: Any,
    theta: Params,
    v: Float[Array | np.ndarray, "rows *visible"],
    rng_key: Key[Array, ""],
    *,
    num_projections: int = 1,
    batch_size: int = 100,
) -> Float[Array, ""]:
    """E[1/2 |s(v)|^2 + u^T grad_v s(v) u], s = -grad_v F, u uniform on {-1, 1}^d.

    An unbiased estimate of `score_matching_objective` that costs one Jacobian-vector product a projection
    instead of one a visible dimension. (Song, Garg, Shi and Ermon, UAI 2019, arXiv 1905.07088.)

    Args:
        energy_fn: a model with `free_energy`.
        theta: its parameters.
        v: the points.
        rng_key: key.
        num_projections: draws of u for each point.
        batch_size: points at a time.

    Errors are those of `score_matching_objective`.
    """
    checks.loop_count("num_projections", num_projections)
    checks.positive_int("batch_size", batch_size)
    capability_of("sliced_score_matching_objective", energy_fn, "free_energy")
    v, rng_key = checked_rows(energy_fn, theta, v), checks.rng_key("rng_key", rng_key)
    return compiled(functools.partial(_sliced, energy_fn, num_projections, batch_size))(theta, v, rng_key)


def _exact(energy_fn: Any, batch_size: int, theta: Params, v: Array) -> Float[Array, ""]:
    score_fn = marginal_score(capability_of("score_matching_objective", energy_fn, "free_energy"), theta)
    # In parts, since the trace of the Jacobian takes a product for each visible dimension of every row.
    return jax.lax.map(lambda row: SM().loss(score_fn, row[None], ())[0], v, batch_size=batch_size).mean()


def _sliced(
    energy_fn: Any, num_projections: int, batch_size: int, theta: Params, v: Array, rng_key: Array
) -> Float[Array, ""]:
    score_fn = marginal_score(
        capability_of("sliced_score_matching_objective", energy_fn, "free_energy"), theta
    )
    objective = SSM()

    def loss(inputs: tuple[Array, Array]) -> Float[Array, ""]:
        # A model takes batches, and `lax.map` hands out rows.
        row, key = inputs[0][None], inputs[1]
        noise = objective.draw_noise(key, row, (num_projections,))
        return jax.vmap(lambda u: objective.loss(score_fn, row, u))(noise).mean()

    v = jnp.asarray(v)
    # A key a row, so that the estimate does not depend on the batch size.
    return jax.lax.map(loss, (v, jax.random.split(rng_key, len(v))), batch_size=batch_size).mean()
