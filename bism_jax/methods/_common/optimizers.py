"""The optimisers of the two levels."""

from __future__ import annotations

from typing import Any, NamedTuple

import optax
from jaxtyping import PyTree

from bism_jax import checks
from bism_jax._jax_switches import standard_promotion
from bism_jax.hypergradient._optimizer_trace import check_state
from bism_jax.methods._common.pickling import picklable


class Optimizers(NamedTuple):
    """Optax transformations of the two levels; clipping and weight decay are chained in here.

    Attributes:
        theta: the higher level's.
        phi: the lower level's.
    """

    theta: optax.GradientTransformation
    phi: optax.GradientTransformation


def paper_adam(learning_rate: Any = 1e-3) -> optax.GradientTransformation:
    """Adam with the paper's b1 = 0.9, b2 = 0.95, eps = 1e-8, smooth at a gradient of zero.

    `eps_root=1e-16` takes the kink out of the square root; it changes a step by less than `eps` does. The
    strategies differentiate an Adam without it as well, with the derivative 0 for the root of a zero.

    Args:
        learning_rate: a number or an optax schedule.

    Raises:
        ValueError: for a number below 0 or that is not finite.
        TypeError: for what is neither a number nor a function.
    """
    checks.learning_rate("learning_rate", learning_rate)
    return picklable(optax.adam, learning_rate, b1=0.9, b2=0.95, eps=1e-8, eps_root=1e-16)


# Values that pickle; optax.adam(...) would not, and two of it compare unequal, so that jit would retrace.
DEFAULT_OPTIMIZER = paper_adam()
DEFAULT_OPTIMIZERS = Optimizers(DEFAULT_OPTIMIZER, DEFAULT_OPTIMIZER)


def apply_gradient(
    optimizer: optax.GradientTransformation, grads: PyTree, opt_state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """One step of an optimiser: the new parameters and its new state.

    Raises:
        ValueError: where the state is not one of the optimiser's for these parameters.
    """
    check_state("opt_state", optimizer, opt_state, params)
    with standard_promotion():
        # Optax mixes dtypes (`decay**count`), which a user's strict promotion refuses.
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state
