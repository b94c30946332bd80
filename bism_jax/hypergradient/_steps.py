"""The optimiser steps that every strategy runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from bism_jax._jax_switches import standard_promotion
from bism_jax._tracing.jaxprs import contains_primitive, count_equations
from bism_jax.hypergradient._problem import LowerGradient, LowerProblem

# Steps that are written out share products: Frey face at N = 5 takes 14.5 ms an iteration instead of 20.7.
# The checkerboard gains nothing and compiles for 1.3 to 1.7 times as long, so longer loops stay loops.
_MAX_UNROLLED_STEPS = 8
# Of one step. Written out, XLA merges what the backward pass recomputes with the forward pass, and the
# memory of plain reverse mode comes back: a network of 396 equations takes 48 MiB instead of 19, and 114 ms
# instead of 93.
_MAX_UNROLLED_EQUATIONS = 200

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
        loss, grads = problem.mean(gradient_fn(phi, theta, input_k))
        return update(grads, opt_state, phi), jax.lax.stop_gradient(loss)

    return step


def run(step: StepFn, carry: Carry, inputs: PyTree, num_steps: int, unroll: bool | None = None) -> Steps:
    """`num_steps` steps by `lax.scan`."""
    if num_steps == 0:
        return no_steps(carry)
    if unroll is None:
        unroll = _is_faster_unrolled(step, carry, inputs, num_steps)
    return jax.lax.scan(step, carry, inputs, length=num_steps, unroll=unroll or 1)


def no_steps(carry: Carry) -> Steps:
    """The carry as it is, and no losses, in the dtype of phi."""
    # Under `jax.disable_jit`, `lax.scan` refuses a length of zero.
    return carry, jnp.zeros(0, jax.tree.leaves(carry)[0].dtype)


def _is_faster_unrolled(step: StepFn, carry: Carry, inputs: PyTree, num_steps: int) -> bool:
    # XLA's CPU backend has no fast kernel for the derivatives of a convolution inside a loop, and optimises
    # across steps that are written out; compile time forbids it for long loops and for large steps.
    if jax.default_backend() != "cpu" or num_steps > _MAX_UNROLLED_STEPS:
        return False
    jaxpr = jax.make_jaxpr(step)(carry, first_input(inputs)).jaxpr
    is_small = count_equations(jaxpr) <= _MAX_UNROLLED_EQUATIONS
    return is_small or contains_primitive(jaxpr, "conv_general_dilated")


def first_input(inputs: PyTree) -> PyTree:
    """The input of the first step."""
    return jax.tree.map(lambda leaf: leaf[0], inputs)
