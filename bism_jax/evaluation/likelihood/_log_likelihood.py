"""Log-likelihood, where the partition function can be enumerated or has been estimated."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.compilation import compiled
from bism_jax.checks import finite_scalar
from bism_jax.evaluation._model_functions import capability_of, checked_rows
from bism_jax.typing import Params


@with_transfers
def log_likelihood(
    energy_fn: Any,
    theta: Params,
    v: Float[Array | np.ndarray, "rows *visible"],
    *,
    log_partition: Float[Array, ""] | float | None = None,
) -> Float[Array, " rows"]:
    """The log-likelihood log p(v; theta) = -F(v; theta) - log Z(theta), in nats, for each row.

    Args:
        energy_fn: a model with `free_energy` and `log_partition`, such as `GRBM`.
        theta: its parameters.
        v: the points.
        log_partition: an estimate of log Z(theta) in place of the model's own, such as the `log_partition`
            of `annealed_importance_sampling`; its error in nats is that of each row.

    Raises:
        TypeError: where the parameters or the points have the wrong type.
        ValueError: where the model lacks a capability, has too many hidden units to enumerate or cannot be
            evaluated with theta on v, which holds NaN or no rows, or `log_partition` is not one number.
    """
    capability_of("log_likelihood", energy_fn, "free_energy")
    if log_partition is None:
        capability_of("log_likelihood", energy_fn, "log_partition")
    else:
        finite_scalar("log_partition", log_partition)
    v = checked_rows(energy_fn, theta, v)
    # An estimate is an argument, so that another one compiles nothing; None is another trace.
    return compiled(functools.partial(_log_likelihood, energy_fn))(theta, v, log_partition)


def _log_likelihood(
    energy_fn: Any, theta: Params, v: Array, log_partition: Array | None
) -> Float[Array, " rows"]:
    free_energy = capability_of("log_likelihood", energy_fn, "free_energy")(theta, v)
    if log_partition is None:
        log_partition = capability_of("log_likelihood", energy_fn, "log_partition")(theta)
    return -free_energy - log_partition
