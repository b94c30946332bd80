"""The states and diagnostics that methods share."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from bism_jax.typing import Params


class EnergyState(NamedTuple):
    """What the next iteration of a method without a posterior needs.

    Attributes:
        theta: energy parameters.
        theta_opt_state: the optimiser's state.
        iteration: the number of iterations done.
    """

    theta: Params
    theta_opt_state: PyTree
    iteration: Int[Array, ""]


class EnergyInfo(NamedTuple):
    """Diagnostics of an iteration of a method without a posterior.

    Attributes:
        loss: the loss before the step.
        grad_norm: the norm of its gradient.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]


class LatentState(NamedTuple):
    """What the next iteration of a method with a posterior needs.

    Attributes:
        theta: energy parameters.
        phi: posterior parameters.
        theta_opt_state: the higher level's optimiser state.
        phi_opt_state: the lower level's.
        iteration: the number of iterations done.
    """

    theta: Params
    phi: Params
    theta_opt_state: PyTree
    phi_opt_state: PyTree
    iteration: Int[Array, ""]


class LatentInfo(NamedTuple):
    """Diagnostics of an iteration of a method with a posterior.

    Attributes:
        loss: the higher-level loss before the step in theta.
        lower_loss: the lower-level loss before its last step.
        grad_norm: the norm of the gradient in theta.
    """

    loss: Float[Array, ""]
    lower_loss: Float[Array, ""]
    grad_norm: Float[Array, ""]


def no_iterations() -> Int[Array, ""]:
    """The count before the first iteration, moved to the device rather than computed by a program there."""
    # int32 at any setting of JAX, so that a state has the same dtypes with x64.
    return jax.device_put(np.zeros((), np.int32))
