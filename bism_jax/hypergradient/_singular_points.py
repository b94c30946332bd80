"""Optimisers with a derivative where their update has none that is finite."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from bism_jax._jax_switches import with_transfers
from bism_jax._tracing.jax_internals import (
    PLAIN_CALLS,
    Jaxpr,
    JaxprEqn,
    Literal,
    aval_of,
    bind,
    exponent_of,
    is_traced,
    scan_of,
)
from bism_jax._tracing.jaxprs import bodies, dependent_equations, is_inexact
from bism_jax.hypergradient._inexact import join_inexact, split_inexact
from bism_jax.hypergradient._optimizer_trace import UpdateTrace, names_of_states, trace_update
from bism_jax.hypergradient._update_facts import (
    COUNTER,
    UNKNOWN,
    ZERO,
    Fact,
    fact_of_result,
    fact_of_value,
)


def _not_positive(x: Any) -> Any:
    return jnp.logical_not(x > 0)  # a NaN is not; and `~` of Python's False, where x is a literal, is -1


# Primitives with points where their derivative is not finite, and where those are.
_SINGULAR: dict[str, Callable[..., Any]] = {
    "sqrt": _not_positive,
    "rsqrt": _not_positive,
    "log": _not_positive,
    "cbrt": lambda x: x == 0,
    "integer_pow": lambda x: x == 0,
    "pow": lambda x, y: _not_positive(x) & (y < 1),  # x^y with y >= 1 has a finite slope at 0
    "div": lambda x, y: (y == 0) | ~(jnp.isfinite(x) & jnp.isfinite(y)),  # its slope by y is -x / y^2
    "asin": lambda x: ~(jnp.abs(x) < 1),  # its slope is 1 / sqrt(1 - x^2)
    "acos": lambda x: ~(jnp.abs(x) < 1),
    "atan2": lambda x, y: (x == 0) & (y == 0),  # its slope divides by x^2 + y^2
    "mul": lambda x, y: ~(jnp.isfinite(x) & jnp.isfinite(y)),  # inf times a cotangent of 0 is NaN
}


# Others that may have no finite derivative at a gradient of zero: whether they do is tried.
# The derivatives of eigh and svd divide by differences of eigenvalues, which at zero are all equal.
_TRIED = frozenset(
    {"acosh", "atanh", "cholesky", "custom_jvp_call", "custom_vjp_call", "eig", "eigh", "lu", "qr", "svd"}
)


class _Known(NamedTuple):
    """A value with what is known of it at a gradient of zero."""

    value: Any
    fact: Fact = UNKNOWN


def make_differentiable(
    optimizer: optax.GradientTransformation, trace: UpdateTrace, state: PyTree, params: PyTree
) -> optax.GradientTransformation:
    """`optimizer` with the same values, and the derivative 0 where a root or a quotient in it has none.

    An optimiser's norms and square roots have an infinite derivative at zero, so that a hypergradient through
    a unit that never fires, or through an optimum, is NaN. With the derivative 0 there it is right for Adam
    and its kin, where a step m / (|g| + eps) with m proportional to g has the slope of m / eps at g = 0, and
    for clipping by a norm, which leaves a gradient of zero alone. Where a step jumps at zero (one scaled to a
    fixed length, as in LAMB), it is the derivative of the branch that is taken.

    Args:
        optimizer: an optax transformation.
        trace: its update.
        state: its state; only the structure matters.
        params: its parameters; only the structure, shapes and dtypes matter.

    Raises:
        ValueError: where reverse mode cannot pass the update, or its derivative at a gradient of zero is not
            finite all the same.
    """
    names = _names_on_the_way(trace)
    # First, since JAX's own error speaks of a `while_loop` that the user has not written.
    _check_loops(names)
    evaluation = _Evaluation()
    facts: list[Fact] = []

    def trace_facts(leaves: list[Any]) -> None:  # the values themselves would leak from their trace
        facts.extend(result.fact for result in evaluation.of_update(trace, leaves))

    jax.eval_shape(
        trace_facts, [jax.ShapeDtypeStruct(aval_of(v).shape, aval_of(v).dtype) for v in trace.jaxpr.invars]
    )
    # No wrapper: with guards on all of Adam an iteration of the checkerboard takes 1.41 times as long.
    if evaluation.num_guarded == 0:
        if names & _TRIED:
            _check_at_zero(optimizer, state, params)
        return optimizer

    def update(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        trace = trace_update(optimizer, grads, state, params)
        known = _Evaluation().of_update(trace, jax.tree.leaves((grads, state, params)))
        return jax.tree.unflatten(trace.out_tree, [result.value for result in known])

    guarded = optax.GradientTransformation(optimizer.init, update)
    # A guarded root or quotient has a derivative of 0, but its infinite value may meet others downstream.
    if names & _TRIED or not all(fact.is_finite for fact in facts):
        _check_at_zero(guarded, state, params)
    return guarded


def _names_on_the_way(trace: UpdateTrace) -> set[str]:
    """The primitives that depend on a number of the update's."""
    names: set[str] = set()
    marks = [is_inexact(aval_of(var)) for var in trace.jaxpr.invars]
    dependent_equations(trace.jaxpr, marks, lambda eqn: names.add(eqn.primitive.name))
    return names


def _check_loops(names: set[str]) -> None:
    if "while" in names:
        raise ValueError(
            "optimizer holds a loop of unknown length, as a line search does, which reverse mode cannot "
            "differentiate; take one of fixed steps, such as optax.adam, or Implicit or StopGradient, which "
            "do not differentiate through the steps."
        )


@with_transfers
def _check_at_zero(optimizer: optax.GradientTransformation, state: PyTree, params: PyTree) -> None:
    """Raises ValueError where the derivative of an update at a gradient of zero is not finite."""

    def slope(ones: PyTree, zeros: PyTree, state: PyTree) -> PyTree:
        accumulators, rest = split_inexact(state)

        def update(grads: PyTree, accumulators: PyTree) -> PyTree:
            updates, state = optimizer.update(grads, join_inexact(accumulators, rest), ones)
            return updates, split_inexact(state)[0]

        results, pull_back = jax.vjp(update, zeros, accumulators)
        return pull_back(jax.tree.map(jnp.ones_like, results))

    with jax.ensure_compile_time_eval():
        # All are arguments, since what is known here is computed one operation a program, also within jit.
        ones, zeros = (
            jax.tree.map(lambda leaf, value=value: np.full(leaf.shape, value, leaf.dtype), params)
            for value in (1, 0)
        )
        # Of parameters of 1: a norm of theirs (LARS, LAMB) is singular at 0 for a reason of its own.
        slopes = jax.tree.leaves(jax.jit(slope)(ones, zeros, optimizer.init(ones)))
        # A tracer comes from what the update closes over.
        if is_traced(slopes) or all(np.isfinite(leaf).all() for leaf in slopes):
            return
    raise ValueError(
        f"optimizer (of {names_of_states(state)}) has no finite derivative at a gradient of "
        "zero, so the hypergradient through a unit without a gradient would be NaN. Take optax.adam, "
        "bism_jax.methods.paper_adam or optax.sgd, or give its norms and roots an epsilon."
    )


class _Evaluation:
    """Evaluates a trace with guards where a primitive may be at a singular point at a gradient of zero.

    Attributes:
        num_guarded: the guards so far.
    """

    def __init__(self) -> None:
        self.num_guarded = 0

    def of_update(self, trace: UpdateTrace, leaves: Sequence[Any]) -> list[_Known]:
        """The leaves of the updates and of the new state."""
        ends = trace.num_params, trace.num_params + trace.num_state
        facts = [ZERO] * ends[0] + [_fact_of_state(leaf) for leaf in leaves[ends[0] : ends[1]]]
        facts += [UNKNOWN] * trace.num_params
        return self._evaluate(trace.jaxpr, trace.consts, list(map(_Known, leaves, facts)))

    def _evaluate(self, jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[_Known]) -> list[_Known]:
        known = dict(zip(jaxpr.invars, args, strict=True))
        known |= {
            var: _Known(value, fact_of_value(value))
            for var, value in zip(jaxpr.constvars, consts, strict=True)
        }

        def read(atom: Any) -> _Known:
            return _Known(atom.val, fact_of_value(atom.val)) if isinstance(atom, Literal) else known[atom]

        for eqn in jaxpr.eqns:
            known.update(
                zip(eqn.outvars, self._equation(eqn, [read(atom) for atom in eqn.invars]), strict=True)
            )
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: JaxprEqn, operands: list[_Known]) -> list[_Known]:
        name, values = eqn.primitive.name, [operand.value for operand in operands]
        facts = [operand.fact for operand in operands]
        if name in PLAIN_CALLS:
            return self._evaluate(*next(bodies(eqn)), operands)
        # What goes in loses its facts, so that all within is guarded: a carry's would need a fixed point.
        if name in ("cond", "scan"):
            before = self.num_guarded
            results = self._cond(eqn, values) if name == "cond" else self._scan(eqn, values)
            fact = UNKNOWN._replace(is_finite=before == self.num_guarded and all(f.is_finite for f in facts))
            return [_Known(result, fact) for result in results]
        if _is_singular(eqn, facts):
            self.num_guarded += 1
            return [_Known(_guard(eqn, values), fact_of_result(eqn, facts, is_singular=True))]
        fact = fact_of_result(eqn, facts, is_singular=False)
        return [_Known(result, fact) for result in bind(eqn, values)]

    def _values(self, jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        return [result.value for result in self._evaluate(jaxpr, consts, list(map(_Known, args)))]

    def _cond(self, eqn: JaxprEqn, operands: list[Any]) -> Sequence[Any]:
        def branch(jaxpr: Jaxpr, consts: Sequence[Any], *args: Any) -> list[Any]:
            return self._values(jaxpr, consts, args)

        branches = [functools.partial(branch, *body) for body in bodies(eqn)]
        return jax.lax.switch(operands[0], branches, *operands[1:])

    def _scan(self, eqn: JaxprEqn, operands: list[Any]) -> Sequence[Any]:
        length, reverse, unroll, num_consts, num_carry = scan_of(eqn)
        ends = num_consts, num_consts + num_carry
        constants, carry, slices = operands[: ends[0]], operands[ends[0] : ends[1]], operands[ends[1] :]
        jaxpr, consts = next(bodies(eqn))

        def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
            results = self._values(jaxpr, consts, [*constants, *carry, *slices])
            return results[:num_carry], results[num_carry:]

        carry, stacked = jax.lax.scan(body, carry, slices, length, reverse, unroll)
        return [*carry, *stacked]


def _fact_of_state(leaf: Any) -> Fact:
    """Accumulators start at zero, and so do counters; a number may be a hyperparameter."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return UNKNOWN
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return COUNTER if leaf.shape == () else UNKNOWN
    return ZERO if leaf.shape != () and is_inexact(leaf) else UNKNOWN


def _is_singular(eqn: JaxprEqn, facts: Sequence[Fact]) -> bool:
    name = eqn.primitive.name
    if name not in _SINGULAR or not all(jnp.issubdtype(aval_of(v).dtype, jnp.floating) for v in eqn.outvars):
        return False
    if name == "mul":
        return not all(fact.is_finite for fact in facts)
    if name == "integer_pow" and exponent_of(eqn) > 0:  # a polynomial
        return False
    if name == "atan2":
        return not any(fact.kind in ("positive", "nonzero") for fact in facts)
    # Of the facts only zero says that a value lies within (-1, 1).
    if name in ("asin", "acos"):
        return facts[0].kind != "zero"
    critical = facts[1] if name == "div" else facts[0]
    regular = ("positive", "nonzero") if name in ("cbrt", "div", "integer_pow") else ("positive",)
    return critical.kind not in regular or not all(fact.is_finite for fact in facts)


def _guard(eqn: JaxprEqn, operands: list[Any]) -> Any:
    """The same value; away from the singular points the same derivatives, there 0, to every order.

    The operands are moved off the points as well, since an infinite derivative times a zero would be NaN.
    """
    is_singular = _SINGULAR[eqn.primitive.name](*operands)
    moved = [jnp.where(is_singular, jnp.ones_like(operand), operand) for operand in operands]
    # The optimiser's own value, infinite or NaN as it may be: a guard changes derivatives alone.
    constant = jax.lax.stop_gradient(bind(eqn, operands)[0])
    return jnp.where(is_singular, constant, bind(eqn, moved)[0])
