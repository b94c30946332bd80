"""The optimisers of the two levels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Int, PyTree

from bism_jax.jax_switches import standard_promotion
from bism_jax.methods.pickling import picklable

# optax keeps a schedule's count in these; the second is that of `inject_hyperparams`.
_SCHEDULE_STATES = frozenset({"ScaleByScheduleState", "WrappedScheduleState"})


class Optimizers(NamedTuple):
    """Optax transformations of the two levels; clipping and weight decay are chained in here.

    Attributes:
        theta: the higher level's.
        phi: the lower level's.
    """

    theta: optax.GradientTransformation
    phi: optax.GradientTransformation


def paper_adam(learning_rate: Any = 1e-3) -> optax.GradientTransformation:
    """Adam with the paper's b1 = 0.9, b2 = 0.95, eps = 1e-8, safe to differentiate through.

    The derivative of the square root in Adam is infinite where a second moment is exactly zero, and a
    hypergradient through such a step is NaN. `eps_root=1e-16` makes it finite; it changes a step by less
    than `eps` does.

    Args:
        learning_rate: a number or an optax schedule.
    """
    return picklable(optax.adam, learning_rate, b1=0.9, b2=0.95, eps=1e-8, eps_root=1e-16)


# One value, since two transformations that are built alike compare unequal and jit would retrace.
DEFAULT_OPTIMIZERS = Optimizers(paper_adam(), paper_adam())


def apply_gradient(
    optimizer: optax.GradientTransformation, grads: PyTree, opt_state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """One step of an optimiser: the new parameters and its new state."""
    with standard_promotion():
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state


def count_iterations(
    optimizer: optax.GradientTransformation, iteration: Int[Array, ""]
) -> optax.GradientTransformation:
    """`optimizer` with its learning-rate schedules at `iteration` rather than at its own count.

    The lower level updates several times an iteration, but both levels' schedules count iterations, as
    in the paper's code. Adam's bias correction still counts updates.
    """

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        return optimizer.update(updates, _set_schedule_counts(state, iteration), params)

    return optax.GradientTransformation(optimizer.init, update)


def _set_schedule_counts(state: PyTree, iteration: Int[Array, ""]) -> PyTree:
    def is_schedule(node: Any) -> bool:
        return type(node).__name__ in _SCHEDULE_STATES

    def set_count(node: Any) -> Any:
        if not is_schedule(node):
            return node
        count = iteration.astype(node.count.dtype)
        return node._replace(count=count) if hasattr(node, "_replace") else replace(node, count=count)

    return jax.tree.map(set_count, state, is_leaf=is_schedule)
