"""The Fisher divergence to a density that is known."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from bism_jax import checks
from bism_jax._contract.guarded_calls import one_value_a_row
from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.compilation import compiled
from bism_jax.checks import called
from bism_jax.evaluation._model_functions import capability_of, checked_rows
from bism_jax.objectives import marginal_score
from bism_jax.typing import Params


@with_transfers
def fisher_divergence(
    energy_fn: Any,
    theta: Params,
    v: Float[Array | np.ndarray, "rows *visible"],
    data_log_prob_fn: Callable[[Array], Float[Array, " batch"]],
    *,
    batch_size: int = 100,
) -> Float[Array, ""]:
    """1/2 E|grad_v log p_data(v) - s(v)|^2, s = -grad_v F, over points v of the data.

    Over infinitely many points it is `score_matching_objective` plus 1/2 E|grad_v log p_data|^2, where the
    data's density is smooth. (Hyvarinen, JMLR 2005, theorem 1.)

    Args:
        energy_fn: a model with `free_energy`.
        theta: its parameters.
        v: points of the data.
        data_log_prob_fn: `[batch, *visible] -> [batch]`, the log density of the data up to a constant, such
            as the `log_prob` of a numpyro distribution.
        batch_size: points at a time.

    Raises:
        TypeError: where `data_log_prob_fn` is no function, or theta or v has the wrong type.
        ValueError: where the model has no free energy or cannot be evaluated with theta on v, which holds NaN
            or no rows, or `data_log_prob_fn` does not give one number a row.
    """
    checks.positive_int("batch_size", batch_size)
    capability_of("fisher_divergence", energy_fn, "free_energy")
    if not callable(data_log_prob_fn):
        raise TypeError(
            "data_log_prob_fn must be a function of v, such as the log_prob of a distribution, not "
            f"{data_log_prob_fn!r}."
        )
    v = checked_rows(energy_fn, theta, v)
    return compiled(functools.partial(_divergence, energy_fn, data_log_prob_fn, batch_size))(theta, v)


def _divergence(
    energy_fn: Any, data_log_prob_fn: Any, batch_size: int, theta: Params, v: Array
) -> Float[Array, ""]:
    model_score = marginal_score(capability_of("fisher_divergence", energy_fn, "free_energy"), theta)
    # The gradient of a sum is that of each row, since no row's density depends on another.
    data_score = jax.grad(lambda v: _log_prob(data_log_prob_fn, v).sum())

    def half_square(row: Array) -> Float[Array, ""]:
        return 0.5 * ((data_score(row[None]) - model_score(row[None])) ** 2).sum()

    return jax.lax.map(half_square, v, batch_size=batch_size).mean()


def _log_prob(data_log_prob_fn: Any, v: Array) -> Float[Array, " batch"]:
    values = called("data_log_prob_fn", data_log_prob_fn, v)
    one_value_a_row("data_log_prob_fn", values, v.shape[0])
    return values
