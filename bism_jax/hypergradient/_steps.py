"""The optimiser steps that every strategy runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from bism_jax._backend import is_faster_unrolled
from bism_jax._jax_switches import standard_promotion
from bism_jax._tracing.jaxprs import contains_primitive, count_equations
from bism_jax.hypergradient._problem import LowerGradient, LowerProblem

Carry = tuple[Any, Any]
StepFn = Callable[[Carry, Any], tuple[Carry, Float[Array, ""]]]
Steps = tuple[Carry, Float[Array, " num_steps"]]


def make_step(problem: LowerProblem, gradient_fn: LowerGradient, theta: PyTree) -> StepFn:
    """One optimiser step as a body for `lax.scan`: `((phi, opt_state), input_k) -> (..., loss)`."""

    # Recomputing a few elementwise operations is cheaper than storing what they leave behind: with
    # Adam, 4 arrays of the size of phi a step instead of more than 6.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def update(grads: PyTree, opt_state: PyTree, phi: PyTree) -> Carry:
        with standard_promotion():
            updates, opt_state = problem.optimizer.update(grads, opt_state, phi)
            return optax.apply_updates(phi, updates), opt_state

    def step(carry: Carry, input_k: Any) -> tuple[Carry, Float[Array, ""]]:
        phi, opt_state = carry
        # At each step, so that phi and the optimiser's state stay equal on all devices.
        loss, grads = problem.mean(gradient_fn(phi, theta, input_k))
        # The losses have no derivative in mixed mode, so they may have none in any strategy.
        return update(grads, opt_state, phi), jax.lax.stop_gradient(loss)

    return step


def run(step: StepFn, carry: Carry, inputs: PyTree, num_steps: int, unroll: bool | None = None) -> Steps:
    """`num_steps` steps by `lax.scan`."""
    if num_steps == 0:
        return no_steps(carry)
    if unroll is None:
        unroll = is_faster_unrolled(num_steps, lambda: _outline(step, carry, inputs))
    return jax.lax.scan(step, carry, inputs, length=num_steps, unroll=unroll or 1)


def no_steps(carry: Carry) -> Steps:
    """The carry as it is, and no losses, in the dtype of phi."""
    # Under `jax.disable_jit`, `lax.scan` refuses a length of zero.
    return carry, jnp.zeros(0, jax.tree.leaves(carry)[0].dtype)


def _outline(step: StepFn, carry: Carry, inputs: PyTree) -> tuple[int, bool]:
    """The number of equations of a step, and whether it convolves."""
    jaxpr = jax.make_jaxpr(step)(carry, first_input(inputs)).jaxpr
    return count_equations(jaxpr), contains_primitive(jaxpr, "conv_general_dilated")


def first_input(inputs: PyTree) -> PyTree:
    """The input of the first step."""
    return jax.tree.map(lambda leaf: leaf[0], inputs)
