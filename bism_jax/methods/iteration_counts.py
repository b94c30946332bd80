"""Schedules that count iterations: which counters in an optimiser's state are a schedule's, and which its
own.

The lower level updates several times an iteration, but the schedules of both levels count iterations, as in
the paper's code. Adam's bias correction still counts updates. The two are told apart by what the update does
with a counter, not by the name of its state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import optax
from jax.extend.core import Jaxpr, Literal
from jaxtyping import Array, Int, PyTree

from bism_jax.hypergradient.optimizer_trace import Increments, UpdateTrace, is_count, trace_update
from bism_jax.jaxprs import PLAIN_CALLS, dependent_equations, is_inexact, sub_jaxprs

# Where optax keeps the transformations whose counters beside accumulators are known to be the algorithm's
# own: bias corrections, decay rates, periods. Its contributed ones hide schedules there (schedule_free).
_KNOWN_MODULES = ("optax._src.", "optax.transforms.", "optax.schedules.")
# What keeps a count a count: increments that saturate, and conversions.
_COUNTING = frozenset({"add", "broadcast_in_dim", "convert_element_type", "lt", "max", "min", "select_n"})


class UpdateCountState(NamedTuple):
    """The state of an optimiser whose counters all count updates.

    Attributes:
        inner: its own state.
    """

    inner: PyTree


def counts_updates(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optimizer` as one whose counters all count updates, though it may be the lower level's.

    For a transformation of your own that keeps a counter which is no schedule, such as a period or a decay
    rate.

    Args:
        optimizer: an optax transformation.
    """

    def update(
        grads: PyTree, state: UpdateCountState, params: PyTree = None
    ) -> tuple[PyTree, UpdateCountState]:
        updates, inner = optimizer.update(grads, state.inner, params)
        return updates, UpdateCountState(inner)

    return optax.GradientTransformation(lambda params: UpdateCountState(optimizer.init(params)), update)


def count_iterations(
    optimizer: optax.GradientTransformation,
    state: PyTree,
    params: PyTree,
    iteration: Int[Array, ""],
    *,
    once: bool = False,
) -> optax.GradientTransformation:
    """`optimizer` with its schedules (of learning rates, weight decay, noise, ...) at `iteration`.

    A schedule's counter stands in a state of its own, beside nothing that accumulates gradients:
    `scale_by_schedule`, `inject_hyperparams`, `add_decayed_weights`, `add_noise`, also within `chain`,
    `masked`, `partition`, `MultiSteps`.

    Args:
        optimizer: an optax transformation.
        state: its state; only the structure, shapes and dtypes matter.
        params: its parameters; likewise.
        iteration: the number of iterations done.
        once: whether there is one update an iteration, so that a counter of every update is one of
            iterations.

    Raises:
        ValueError: where a counter may be either.
    """
    is_schedule = schedule_counters(trace_update(optimizer, params, state, params), state, once)

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        leaves, structure = jax.tree.flatten(state)
        counted = [
            iteration.astype(leaf.dtype) if schedule else leaf
            for leaf, schedule in zip(leaves, is_schedule, strict=True)
        ]
        return optimizer.update(updates, jax.tree.unflatten(structure, counted), params)

    return optax.GradientTransformation(optimizer.init, update) if any(is_schedule) else optimizer


def schedule_counters(trace: UpdateTrace, state: PyTree, once: bool) -> list[bool]:
    """For each leaf of the state whether it is a schedule's counter.

    Raises:
        ValueError: where one may be a schedule's or an algorithm's own.
    """
    accumulates = _depend_on_gradients(trace)
    return [
        not (once and increments == {1})
        and trace.matters(index)
        and _is_schedule(trace, accumulates, leaf, index, increments)
        for index, (leaf, increments) in enumerate(zip(_owned_leaves(state), trace.increments(), strict=True))
    ]


class _OwnedLeaf(NamedTuple):
    """A leaf of a state, with the named state that holds it.

    Attributes:
        value: the leaf.
        owner: the NamedTuple or dataclass that it stands in, None for a bare one.
        siblings: the indices of the leaves that stand in the same owner, and in none below it.
        counts_updates: whether the user said so.
    """

    value: Any
    owner: Any
    siblings: list[int]
    counts_updates: bool


def _owned_leaves(state: PyTree) -> list[_OwnedLeaf]:
    def walk(node: Any, owner: Any, marked: bool) -> Iterator[tuple[Any, Any, bool]]:
        if jax.tree_util.all_leaves([node]):
            yield node, owner, marked
            return
        children, _ = jax.tree_util.default_registry.flatten_one_level(node)
        is_named = hasattr(node, "_fields") or hasattr(node, "__dataclass_fields__")
        marked = marked or isinstance(node, UpdateCountState)
        for child in children:
            if child is not None:
                yield from walk(child, node if is_named else owner, marked)

    found = list(walk(state, None, False))
    return [
        _OwnedLeaf(value, owner, [index for index, other in enumerate(found) if other[1] is owner], marked)
        for value, owner, marked in found
    ]


def _is_schedule(
    trace: UpdateTrace, accumulates: list[bool], leaf: _OwnedLeaf, index: int, increments: Increments
) -> bool:
    is_scalar = leaf.value.shape == () and not jax.dtypes.issubdtype(leaf.value.dtype, jax.dtypes.prng_key)
    is_counter = is_scalar and is_count(increments)
    is_opaque = is_scalar and not is_inexact(leaf.value) and increments != {0}
    if leaf.counts_updates or not (is_counter or is_opaque):
        return False
    is_known = type(leaf.owner).__module__.startswith(_KNOWN_MODULES)
    stands_alone = not any(accumulates[sibling] for sibling in leaf.siblings)
    if is_counter and stands_alone and leaf.owner is not None:
        return True
    if is_known or (is_counter and _is_exponent(trace, index)):
        return False
    raise ValueError(
        f"optimizer keeps a counter in {_describe(leaf.owner)} that may be a schedule's, which should count "
        "iterations, or its own, which should count updates. Write a schedule as optax.scale_by_schedule or "
        "optax.inject_hyperparams, or wrap the transformation in bism_jax.methods.counts_updates where the "
        "counter is its own."
    )


def _describe(owner: Any) -> str:
    return "a state without a name" if owner is None else type(owner).__name__


def _depend_on_gradients(trace: UpdateTrace) -> list[bool]:
    """Which leaves of the new state are made of gradients; a counter is not, whatever it waits for."""
    marks = dependent_equations(trace.jaxpr, trace.marks(0, trace.num_params), lambda eqn: None)
    outvars = trace.jaxpr.outvars
    return [
        mark and is_inexact(var.aval)
        for mark, var in zip(marks[trace.num_params :], outvars[trace.num_params :], strict=True)
    ]


def _is_exponent(trace: UpdateTrace, index: int) -> bool:
    """Whether a counter enters the updates as an exponent alone, as in a bias correction 1 - decay^count."""
    counts = _counts_in(trace.jaxpr, [trace.jaxpr.invars[trace.num_params + index]])
    return counts is not None and not any(out in counts for out in trace.jaxpr.outvars[: trace.num_params])


def _counts_in(jaxpr: Jaxpr, counters: list[Any]) -> set[Any] | None:
    """The variables that are still counts, up to powers that they are exponents of; None for another use."""
    counts = set(counters)
    for eqn in jaxpr.eqns:
        marked = [not isinstance(atom, Literal) and atom in counts for atom in eqn.invars]
        if not any(marked):
            continue
        if eqn.primitive.name in PLAIN_CALLS:
            body = next(sub_jaxprs(eqn))
            inner = _counts_in(body, [var for var, mark in zip(body.invars, marked, strict=True) if mark])
            if inner is None:
                return None
            is_count_out = [not isinstance(var, Literal) and var in inner for var in body.outvars]
            counts.update(var for var, mark in zip(eqn.outvars, is_count_out, strict=True) if mark)
        elif eqn.primitive.name in _COUNTING:
            counts.update(eqn.outvars)
        elif eqn.primitive.name != "pow" or marked[0]:
            return None
    return counts
