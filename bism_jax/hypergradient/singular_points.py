"""Optimisers with a derivative where their update has an infinite one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from jaxtyping import PyTree

from bism_jax.hypergradient.optimizer_trace import UpdateTrace, trace_update
from bism_jax.jaxprs import PLAIN_CALLS, bodies, dependent_equations, is_inexact, sub_jaxprs


def _is_not_finite(x: Any, y: Any) -> Any:
    return ~(jnp.isfinite(x) & jnp.isfinite(y))


# Primitives with points where their derivative is not finite, and where those are.
_SINGULAR: dict[str, Callable[..., Any]] = {
    "sqrt": lambda x: ~(x > 0),
    "rsqrt": lambda x: ~(x > 0),
    "log": lambda x: ~(x > 0),
    "cbrt": lambda x: x == 0,
    "integer_pow": lambda x: x == 0,
    "pow": lambda x, y: ~(x > 0) & (y < 1),
    "div": lambda x, y: (y == 0) | _is_not_finite(x, y),
}
# A value that is not finite, in a branch that is not taken, makes a NaN of a cotangent of zero.
_SINGULAR_PRODUCT = {"mul": _is_not_finite}


def differentiable(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optimizer` with the same values, and the derivative 0 where a root, quotient or logarithm in it has
    none.

    An optimiser's norms and square roots have an infinite derivative at zero, so that a hypergradient through
    a unit that never fires, or through an optimum, is NaN. With the derivative 0 there it is right for Adam
    and its kin, where a step m / (|g| + eps) with m proportional to g has the slope of m / eps at g = 0, and
    for clipping by a norm, which leaves a gradient of zero alone. Where a step jumps at zero (one scaled to a
    fixed length, as in LAMB), it is the derivative of the branch that is taken.
    """

    def update(grads: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        trace = trace_update(optimizer, grads, state, params)
        leaves = jax.tree.leaves((grads, state, params))
        return jax.tree.unflatten(trace.out_tree, _evaluate(trace.jaxpr, trace.consts, leaves))

    return optax.GradientTransformation(optimizer.init, update)


def holds_singular(jaxpr: Jaxpr) -> bool:
    """Whether a jaxpr, or a body that it calls, holds a primitive with an infinite derivative somewhere."""
    return any(_is_singular(eqn) or any(map(holds_singular, sub_jaxprs(eqn))) for eqn in jaxpr.eqns)


def check_differentiable(trace: UpdateTrace) -> None:
    """Raises ValueError where reverse mode cannot pass an update."""
    marks = [is_inexact(var.aval) for var in trace.jaxpr.invars]
    loops: list[JaxprEqn] = []

    def visit(eqn: JaxprEqn) -> None:
        if eqn.primitive.name == "while":
            loops.append(eqn)

    dependent_equations(trace.jaxpr, marks, visit)
    if loops:
        raise ValueError(
            "optimizer holds a loop of unknown length, as a line search does, which reverse mode cannot "
            "differentiate; take one of fixed steps, such as optax.adam, or Implicit or StopGradient, which "
            "do not differentiate through the steps."
        )


def _is_singular(eqn: JaxprEqn) -> bool:
    name = eqn.primitive.name
    if name not in _SINGULAR or (name == "integer_pow" and eqn.params["y"] > 0):
        return False
    operand = eqn.invars[1 if name == "div" else 0]
    return jnp.issubdtype(operand.aval.dtype, jnp.floating) and not isinstance(operand, Literal)


def _is_product(eqn: JaxprEqn) -> bool:
    return eqn.primitive.name in _SINGULAR_PRODUCT and all(
        jnp.issubdtype(atom.aval.dtype, jnp.floating) and not isinstance(atom, Literal) for atom in eqn.invars
    )


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        results = _evaluate_equation(eqn, [read(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _evaluate_equation(eqn: JaxprEqn, operands: list[Any]) -> Sequence[Any]:
    name = eqn.primitive.name
    if _is_singular(eqn) or _is_product(eqn):
        return [_evaluate_singular(eqn, operands)]
    if name in PLAIN_CALLS:
        return _evaluate(*next(bodies(eqn)), operands)
    if name == "cond":
        branches = [functools.partial(_evaluate_flat, *body) for body in bodies(eqn)]
        return jax.lax.switch(operands[0], branches, *operands[1:])
    if name == "scan":
        return _evaluate_scan(eqn, operands)
    results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return results if eqn.primitive.multiple_results else [results]


def _evaluate_flat(jaxpr: Jaxpr, consts: Sequence[Any], *args: Any) -> list[Any]:
    return _evaluate(jaxpr, consts, args)


def _evaluate_singular(eqn: JaxprEqn, operands: list[Any]) -> Any:
    """The same value; away from the singular points the same derivatives, there 0, to every order.

    The operands are moved off the points as well, since an infinite derivative times a zero would be NaN.
    """
    is_singular = (_SINGULAR | _SINGULAR_PRODUCT)[eqn.primitive.name](*operands)
    moved = [jnp.where(is_singular, jnp.ones_like(operand), operand) for operand in operands]
    constant = jax.lax.stop_gradient(eqn.primitive.bind(*operands, **eqn.params))
    return jnp.where(is_singular, constant, eqn.primitive.bind(*moved, **eqn.params))


def _evaluate_scan(eqn: JaxprEqn, operands: list[Any]) -> list[Any]:
    params = eqn.params
    num_carry = params["num_carry"]
    ends = params["num_consts"], params["num_consts"] + num_carry
    constants, carry, slices = operands[: ends[0]], operands[ends[0] : ends[1]], operands[ends[1] :]
    jaxpr, consts = next(bodies(eqn))

    def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        results = _evaluate(jaxpr, consts, [*constants, *carry, *slices])
        return results[:num_carry], results[num_carry:]

    carry, stacked = jax.lax.scan(body, carry, slices, params["length"], params["reverse"], params["unroll"])
    return [*carry, *stacked]
