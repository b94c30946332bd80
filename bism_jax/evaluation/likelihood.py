"""Exact log-likelihood, where the partition function can be enumerated."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from bism_jax.evaluation.capabilities import require
from bism_jax.typing import Params


def log_likelihood(
    energy_fn: Any, theta: Params, v: Float[Array | np.ndarray, "rows *visible"]
) -> Float[Array, " rows"]:
    """The log-likelihood log p(v; theta) = -F(v; theta) - log Z(theta), in nats, for each row.

    Args:
        energy_fn: a model with `free_energy` and `log_partition`, such as `GRBM`.
        theta: its parameters.
        v: the points.

    Raises:
        ValueError: where the model lacks a capability, or has too many hidden units to enumerate.
    """
    free_energy = require("log_likelihood", energy_fn, "free_energy")
    log_partition = require("log_likelihood", energy_fn, "log_partition")
    return jax.jit(lambda theta, v: -free_energy(theta, v) - log_partition(theta))(theta, v)
