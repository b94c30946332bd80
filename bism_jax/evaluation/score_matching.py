"""The exact score-matching objective of a model."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from bism_jax.evaluation.capabilities import require
from bism_jax.objectives import SM, marginal_score
from bism_jax.typing import Params


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
        ValueError: where the model has no free energy.
    """
    free_energy = require("score_matching_objective", energy_fn, "free_energy")

    @jax.jit
    def objective(theta: Params, v: Array) -> Float[Array, " rows"]:
        score_fn = marginal_score(free_energy, theta)
        return jax.lax.map(lambda row: SM().loss(score_fn, row[None], ())[0], v, batch_size=batch_size)

    return objective(theta, v).mean()
