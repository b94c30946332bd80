"""One step down a loss: what every method does with its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import optax
from jaxtyping import Array, Float, Int, PyTree

from bism_jax.hypergradient import LowerSolution
from bism_jax.methods._common.iteration_counts import count_iterations
from bism_jax.methods._common.optimizers import apply_gradient
from bism_jax.methods._common.shards import BatchShard
from bism_jax.methods._common.states import EnergyInfo, LatentInfo, LatentState
from bism_jax.typing import Params

_State = TypeVar("_State", bound=Any)


def descend(
    loss_fn: Callable[[PyTree], Any],
    optimizer: optax.GradientTransformation,
    params: PyTree,
    opt_state: PyTree,
    shard: BatchShard,
    iteration: Int[Array, ""] | None = None,
    *,
    has_aux: bool = False,
) -> tuple[PyTree, PyTree, Float[Array, ""], PyTree, Any]:
    """One optimiser step on the mean over devices of a loss.

    Args:
        loss_fn: of the parameters; the loss of this device's rows, or (loss, aux).
        optimizer: an optax transformation.
        params: where the step starts.
        opt_state: the optimiser's state.
        shard: the rows of this device.
        iteration: what schedules count; None leaves them their own counters.
        has_aux: as in `jax.grad`.

    Returns:
        The new parameters and state; the loss before the step and its gradient, averaged over devices; and
        this device's aux, or None.
    """
    value, grads = jax.value_and_grad(loss_fn, has_aux=has_aux)(params)
    loss, aux = value if has_aux else (value, None)
    # Not aux: the lower level averages each of its gradients, so phi^N is the same on all devices.
    loss, grads = shard.mean((loss, grads))
    # Matters where a wrapper such as MultiSteps skips updates: the counters inside it stand still then.
    if iteration is not None:
        optimizer = count_iterations(optimizer, opt_state, params, iteration, once=True)
    params, opt_state = apply_gradient(optimizer, grads, opt_state, params)
    return params, opt_state, loss, grads, aux


def descend_theta(
    loss_fn: Callable[[Params], Float[Array, ""]],
    optimizer: optax.GradientTransformation,
    state: _State,
    shard: BatchShard,
) -> tuple[_State, EnergyInfo]:
    """`descend` of a method without a posterior, from a state that has the fields of `EnergyState`."""
    theta, opt_state, loss, grads, _ = descend(loss_fn, optimizer, state.theta, state.theta_opt_state, shard)
    new_state = state._replace(theta=theta, theta_opt_state=opt_state, iteration=state.iteration + 1)
    return new_state, EnergyInfo(loss, optax.tree.norm(grads))


def descend_both(
    loss_fn: Callable[[Params], tuple[Float[Array, ""], LowerSolution]],
    optimizer: optax.GradientTransformation,
    state: LatentState,
    shard: BatchShard,
) -> tuple[LatentState, LatentInfo]:
    """`descend` of the higher level, whose loss returns the lower level's solution beside its value."""
    theta, opt_state, loss, grads, lower = descend(
        loss_fn, optimizer, state.theta, state.theta_opt_state, shard, state.iteration, has_aux=True
    )
    new_state = LatentState(theta, lower.phi, opt_state, lower.opt_state, state.iteration + 1)
    return new_state, LatentInfo(loss, lower.losses[-1], optax.tree.norm(grads))
