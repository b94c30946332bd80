"""The lower-level problem, its solution, and the one optimiser step that every strategy repeats."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jaxtyping import Array, Float, PyTree

from bism_jax import checks
from bism_jax._backend import is_faster_unrolled
from bism_jax._jax_switches import standard_promotion
from bism_jax._tracing.jaxprs import contains_primitive, count_equations, dependent_equations, is_used
from bism_jax.hypergradient._optimizer_trace import UpdateTrace, check_state, trace_update

# What takes other devices' values; `shard_map` with its checks on has primitives of other names for sums.
_COMMUNICATION = frozenset({"all_gather", "all_to_all", "ppermute", "psum", "reduce_scatter"})

LossFn = Callable[[Any, Any, Any], Float[Array, ""]]
LowerGradient = Callable[[Any, Any, Any], tuple[Float[Array, ""], Any]]


@dataclass(frozen=True)
class LowerProblem:
    """Minimise `loss_fn(phi, theta, input_k)` over phi by steps of an optimiser.

    What a hypergradient should see is best passed as an argument of `loss_fn`; a traced value that the
    loss closes over is treated as a part of theta. Hyperparameters of the optimiser are seen too, closed over
    (`optax.sgd(rate)` of a traced rate) or in `opt_state` (`optax.inject_hyperparams`).

    Attributes:
        loss_fn: `(phi, theta, input_k) -> scalar`.
        optimizer: any optax transformation whose update needs no more than gradient, state and
            parameters (a line search, which asks for the loss, raises). Where a root or a norm in it has an
            infinite derivative, as Adam's at a second moment of zero, the derivative 0 is taken there.
        axis_name: the mapped axis of `pmap` or `shard_map`, or several, over which loss and gradient
            are averaged at every step; None under `jit`.

    Raises:
        TypeError: for what is no function, no optimiser or no name.
    """

    loss_fn: LossFn
    optimizer: optax.GradientTransformation
    axis_name: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        checks.function("loss_fn", self.loss_fn, "(phi, theta, input_k) -> scalar")
        checks.optimizer("optimizer", self.optimizer)
        if not isinstance(self.axis_name, (str, tuple, type(None))):
            raise TypeError(f"axis_name must be the name of a mapped axis or None, not {self.axis_name!r}.")

    def mean(self, tree: PyTree) -> PyTree:
        """The average over the mapped axis; the tree itself where there is none."""
        return tree if self.axis_name is None else jax.lax.pmean(tree, self.axis_name)


class LowerSolution(NamedTuple):
    """What `strategy.solve` returns.

    Attributes:
        phi: the parameters after the last step; the hypergradient flows through these alone.
        opt_state: the optimiser's state after the last step; carries no gradient.
        losses: `[num_steps]`, the loss before each step; carries no gradient.
    """

    phi: PyTree
    opt_state: PyTree
    losses: Float[Array, " num_steps"]


class Strategy(Protocol):
    """How to differentiate through a lower-level problem; the primal result is the same for all."""

    @property
    def num_steps(self) -> int:
        """The number of optimiser steps, N."""
        ...

    def solve(
        self,
        problem: LowerProblem,
        phi: PyTree,
        theta: PyTree,
        inputs: PyTree = None,
        opt_state: PyTree = None,
    ) -> LowerSolution:
        """Runs `num_steps` steps from `phi`."""
        ...


Carry = tuple[Any, Any]
StepFn = Callable[[Carry, Any], tuple[Carry, Float[Array, ""]]]


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


class Prepared(NamedTuple):
    """The arguments of `solve`, checked, with what the loss closes over moved into theta."""

    problem: LowerProblem
    phi: PyTree
    theta: PyTree
    inputs: PyTree
    opt_state: PyTree
    update: UpdateTrace


def prepare(
    problem: LowerProblem, num_steps: int, phi: PyTree, theta: PyTree, inputs: PyTree, opt_state: PyTree
) -> Prepared:
    """Checks the arguments, traces loss and update once, and starts a state where none is given."""
    check_problem(problem)
    phi, theta, inputs = (
        checks.arrays(name, tree) for name, tree in (("phi", phi), ("theta", theta), ("inputs", inputs))
    )
    checks.floating_tree("phi", phi)
    checks.leading_axis("inputs", inputs, num_steps)
    if num_steps > 0:
        _check_axis(problem.axis_name)
    if opt_state is None:
        opt_state = problem.optimizer.init(phi)
    else:
        check_state("opt_state", problem.optimizer, opt_state, phi)
    update = trace_update(problem.optimizer, phi, opt_state, phi, "problem.optimizer")
    if num_steps > 0:
        loss_fn, theta = hoist_closure(problem.loss_fn, phi, theta, first_input(inputs), problem.axis_name)
        problem = replace(problem, loss_fn=loss_fn)
    return Prepared(problem, phi, theta, inputs, opt_state, update)


def hoist_closure(
    loss_fn: LossFn, phi: PyTree, theta: PyTree, input_k: PyTree, axis_name: Any = None
) -> tuple[LossFn, PyTree]:
    """The loss as a function of what it uses: `loss_fn(phi, (leaves of theta, traced values), x)`.

    A custom derivative rule cannot see what its function closes over; an argument it can. Leaves of theta
    that the loss does not use would cost the backward pass a sum of zeros a step, so they are left out.
    """
    jaxpr = trace_loss(loss_fn, phi, theta, input_k)
    if axis_name is None:
        _check_communication(jaxpr.jaxpr, len(jax.tree.leaves((phi, theta))))
    # Each tracer in one place only: what `hoisted` held of them would outlive their trace.
    traced = {index: value for index, value in enumerate(jaxpr.consts) if isinstance(value, jax.core.Tracer)}
    constants = [None if index in traced else value for index, value in enumerate(jaxpr.consts)]
    leaves = jax.tree.leaves(theta)
    num_leaves, body = len(leaves), jaxpr.jaxpr
    invars = jaxpr.jaxpr.invars[len(jax.tree.leaves(phi)) :]
    used = {index: leaf for index, leaf in enumerate(leaves) if is_used(jaxpr.jaxpr, invars[index])}

    def hoisted(phi: PyTree, used_and_traced: PyTree, input_k: PyTree) -> Float[Array, ""]:
        used, traced = used_and_traced
        theta_leaves = [used.get(index) for index in range(num_leaves)]
        args = (*jax.tree.leaves(phi), *theta_leaves, *jax.tree.leaves(input_k))
        values = [traced.get(index, value) for index, value in enumerate(constants)]
        return jax.core.eval_jaxpr(body, values, *args)[0]

    return hoisted, (used, traced)


def trace_loss(loss_fn: LossFn, phi: PyTree, theta: PyTree, input_k: PyTree) -> ClosedJaxpr:
    """The trace of a loss; raises ValueError where it cannot be evaluated or is no floating scalar."""
    try:
        jaxpr, shape = jax.make_jaxpr(loss_fn, return_shape=True)(phi, theta, input_k)
    except Exception as error:
        raise ValueError(
            "problem.loss_fn cannot be evaluated on phi, theta and one slice of inputs: "
            f"{type(error).__name__}: {error} It is called as loss_fn(phi, theta, input_k)."
        ) from error
    checks.scalar_loss("problem.loss_fn", shape)
    return jaxpr


def check_problem(problem: Any) -> None:
    """Raises TypeError unless it is a `LowerProblem`."""
    if not isinstance(problem, LowerProblem):
        raise TypeError(f"problem must be LowerProblem(loss_fn, optimizer), not {problem!r}.")


def _check_axis(axis_name: Any) -> None:
    try:
        if axis_name is not None:
            jax.lax.axis_index(axis_name)
    except NameError as error:
        raise ValueError(
            f"problem.axis_name={axis_name!r} is no mapped axis here; leave it None, or solve within "
            "jax.pmap or jax.shard_map over an axis of this name."
        ) from error


def _check_communication(jaxpr: Jaxpr, num_params: int) -> None:
    """Raises ValueError where the loss of a device takes what others hold of its parameters.

    Under `pmap` JAX then sends back the derivatives of all devices' losses, and counts its gradient many
    times.
    """
    marks = [index < num_params for index in range(len(jaxpr.invars))]
    names: set[str] = set()
    dependent_equations(jaxpr, marks, lambda eqn: names.add(eqn.primitive.name))
    found = sorted(names & _COMMUNICATION)
    if found:
        raise ValueError(
            f"loss_fn averages or communicates over a mapped axis itself ({', '.join(found)}; pmean is "
            "psum), whose derivative under pmap counts every device's part again: the hypergradient would "
            "be wrong. Return the device's own loss and pass LowerProblem(axis_name=...), or average by "
            "psum in shard_map with its checks on."
        )


def first_input(inputs: PyTree) -> PyTree:
    """The input of the first step."""
    return jax.tree.map(lambda leaf: leaf[0], inputs)


def run(
    step: StepFn, carry: Carry, inputs: PyTree, num_steps: int, unroll: bool | None = None
) -> tuple[Carry, Float[Array, " num_steps"]]:
    """`num_steps` steps by `lax.scan`."""
    if unroll is None:
        unroll = is_faster_unrolled(num_steps, lambda: _outline(step, carry, inputs))
    return jax.lax.scan(step, carry, inputs, length=num_steps, unroll=unroll or 1)


def _outline(step: StepFn, carry: Carry, inputs: PyTree) -> tuple[int, bool]:
    jaxpr = jax.make_jaxpr(step)(carry, first_input(inputs)).jaxpr
    return count_equations(jaxpr), contains_primitive(jaxpr, "conv_general_dilated")


def solution(carry: Carry, losses: Float[Array, " num_steps"]) -> LowerSolution:
    """The result of the last step, with the auxiliary parts cut off from differentiation."""
    phi, opt_state = carry
    return LowerSolution(phi, jax.lax.stop_gradient(opt_state), losses)


def no_losses(phi: PyTree) -> Float[Array, "0"]:
    """The losses of no steps, in the dtype of phi."""
    return jnp.zeros(0, jax.tree.leaves(phi)[0].dtype)
