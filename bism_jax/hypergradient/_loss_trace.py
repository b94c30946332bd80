"""The lower-level loss as a traced function: what it returns, what it closes over, what it communicates."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from bism_jax import checks
from bism_jax._tracing.jax_internals import ClosedJaxpr, Jaxpr, eval_jaxpr, is_traced
from bism_jax._tracing.jaxprs import dependent_equations, is_used
from bism_jax.hypergradient._problem import LossFn

# What takes other devices' values; `shard_map` with its checks on has primitives of other names for sums.
_COMMUNICATION = frozenset({"all_gather", "all_to_all", "ppermute", "psum", "reduce_scatter"})


def trace_loss(loss_fn: LossFn, phi: PyTree, theta: PyTree, input_k: PyTree) -> ClosedJaxpr:
    """The trace of a loss; raises ValueError where it cannot be evaluated or is no floating scalar."""
    try:
        jaxpr, shape = jax.make_jaxpr(loss_fn, return_shape=True)(phi, theta, input_k)
    except Exception as error:  # whatever the code of a user raises on wrong arguments
        raise ValueError(
            "problem.loss_fn cannot be evaluated on phi, theta and one slice of inputs: "
            f"{type(error).__name__}: {str(error).rstrip('.')}. It is called as loss_fn(phi, theta, input_k)."
        ) from error
    checks.scalar_loss("problem.loss_fn", shape)
    return jaxpr


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
    traced = {index: value for index, value in enumerate(jaxpr.consts) if is_traced(value)}
    # What is known stays a constant: as an argument of the rule it would get a cotangent at every step.
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
        # From the trace, since loss_fn called again would close over the same values again.
        return eval_jaxpr(body, values, *args)[0]

    return hoisted, (used, traced)


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
