"""The hypergradient of one iteration under noise that is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax

from bism_jax import BiSM
from bism_jax.methods import BilevelProblem, BiSMNoise, LatentState
from bism_jax.models import as_model, factor

_KEEPS_GRADIENT = optax.trace(0.0)  # in its state


def bilevel_problem(method: BiSM, energy: Any, posterior: Any) -> BilevelProblem:
    """The losses that the method takes on a model."""
    return BilevelProblem(
        factor(as_model("energy_fn", energy)),
        as_model("posterior_fn", posterior).apply,
        method.objective,
        method.divergence,
    )


def theta_gradient(
    method: BiSM, problem: BilevelProblem, state: LatentState, v: Any, noise: BiSMNoise
) -> np.ndarray:
    """The gradient in theta that an iteration from `state` would step along, in float64, flat."""
    method = replace(method, optimizers=method.optimizers._replace(theta=_KEEPS_GRADIENT))
    state = state._replace(theta_opt_state=_KEEPS_GRADIENT.init(state.theta))
    new_state, _ = jax.jit(lambda *args: method.update(problem, *args))(state, v, noise)
    return flatten(new_state.theta_opt_state)


def flatten(tree: Any) -> np.ndarray:
    """A tree of gradients as one vector, in float64."""
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])
