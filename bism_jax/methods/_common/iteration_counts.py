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
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from bism_jax import checks
from bism_jax._jax_switches import standard_promotion
from bism_jax._tracing.jax_internals import PLAIN_CALLS, Jaxpr, JaxprEqn, Literal, aval_of, children_of
from bism_jax._tracing.jaxprs import dependent_equations, is_inexact, sub_jaxprs
from bism_jax.hypergradient._optimizer_trace import Increments, UpdateTrace, is_count, trace_update

# Where optax keeps the transformations whose counters beside accumulators are known to be the algorithm's
# own: bias corrections, decay rates, periods. Its contributed ones hide schedules there (schedule_free).
_KNOWN_MODULES = ("optax._src.", "optax.transforms.", "optax.schedules.")
# What keeps a count a count: increments that saturate.
_COUNTING = frozenset({"add", "lt", "max", "min", "select_n"})
_CONVERSIONS = frozenset({"broadcast_in_dim", "convert_element_type", "copy", "reshape"})


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

    Raises:
        TypeError: for anything else.
    """
    checks.optimizer("optimizer", optimizer)

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
        params: its parameters, of which only structure, shapes and dtypes matter too.
        iteration: the number of iterations done.
        once: whether there is one update an iteration, so that a counter of every update is one of
            iterations.

    Raises:
        ValueError: where a counter may be either.
    """
    is_schedule = schedule_counters(trace_update(optimizer, params, state, params), state, once)
    if not any(is_schedule):
        return optimizer
    with standard_promotion():
        starts = jax.tree.leaves(
            optimizer.init(params)
        )  # a counter of a user's may start elsewhere than at 0

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        leaves, structure = jax.tree.flatten(state)
        counted = [
            # In the counter's own dtype: a loop carries no other.
            start + iteration.astype(leaf.dtype) if schedule else leaf
            for leaf, start, schedule in zip(leaves, starts, is_schedule, strict=True)
        ]
        return optimizer.update(updates, jax.tree.unflatten(structure, counted), params)

    return optax.GradientTransformation(optimizer.init, update)


def schedule_counters(trace: UpdateTrace, state: PyTree, once: bool) -> list[bool]:
    """For each leaf of the state whether it is a schedule's counter.

    Raises:
        ValueError: where one may be a schedule's or an algorithm's own.
    """
    driven = _driven(trace)
    return [
        not (once and increments == {1})
        and trace.matters(index)
        and _is_schedule(trace, driven, leaf, index, increments)
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
        is_named = hasattr(node, "_fields") or hasattr(node, "__dataclass_fields__")
        marked = marked or isinstance(node, UpdateCountState)
        for child in children_of(node):
            if child is not None:
                yield from walk(child, node if is_named else owner, marked)

    found = list(walk(state, None, False))
    return [
        _OwnedLeaf(value, owner, [index for index, other in enumerate(found) if other[1] is owner], marked)
        for value, owner, marked in found
    ]


def _is_schedule(
    trace: UpdateTrace, driven: list[bool], leaf: _OwnedLeaf, index: int, increments: Increments
) -> bool:
    # Keys change of themselves as clocks do (those of add_noise), but no rate is read off them.
    if leaf.counts_updates or _is_key(leaf.value):
        return False
    is_counter = leaf.value.shape == () and is_count(increments)
    # A counter beside moments is mostly that of a bias correction, a decay or a period.
    accumulates = any(
        driven[sibling] and is_inexact(aval_of(trace.state_out[sibling])) for sibling in leaf.siblings
    )
    # A bare counter has no owner to tell by, and is asked about.
    stands_alone = leaf.owner is not None and not accumulates
    if type(leaf.owner).__module__.startswith(_KNOWN_MODULES):
        return is_counter and stands_alone
    # Whatever moves without gradients: a count down, steps of two, a rate that decays by a factor.
    is_clock = increments != {0} and not driven[index]
    if not is_clock or (is_counter and _is_bias_correction(trace, index)):
        return False
    if is_counter and stands_alone:
        return True
    raise ValueError(
        f"optimizer keeps in {_describe(leaf.owner)} what changes of itself at every update. It may be a "
        "schedule's, which should count iterations, or its own, which should count updates. Write a "
        "schedule as optax.scale_by_schedule or optax.inject_hyperparams, or wrap the transformation in "
        "bism_jax.methods.counts_updates where it is the algorithm's own."
    )


def _is_key(value: Any) -> bool:
    """Whether a leaf is a key of a random generator, typed or raw."""
    is_typed = jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
    return is_typed or (value.shape != () and value.dtype == jnp.uint32)


def _describe(owner: Any) -> str:
    return "a state without a name" if owner is None else type(owner).__name__


def _driven(trace: UpdateTrace) -> list[bool]:
    """Which leaves of the new state depend on gradients or parameters; a clock does not."""
    num_inputs, num_params = len(trace.jaxpr.invars), trace.num_params
    marks = [index < num_params or index >= num_params + trace.num_state for index in range(num_inputs)]
    return dependent_equations(trace.jaxpr, marks, lambda eqn: None)[num_params:]


def _is_bias_correction(trace: UpdateTrace, index: int) -> bool:
    """Whether a counter enters the updates by divisors 1 - decay^count alone."""
    kinds = _follow(trace.jaxpr, {trace.jaxpr.invars[trace.num_params + index]: "count"})
    return kinds is not None and not any(out in kinds for out in trace.jaxpr.outvars[: trace.num_params])


def _follow(jaxpr: Jaxpr, kinds: dict[Any, str]) -> dict[Any, str] | None:
    """What is a count, a power decay^count or a correction 1 - decay^count; None for any other use of one."""
    for eqn in jaxpr.eqns:
        of_operands = [None if isinstance(atom, Literal) else kinds.get(atom) for atom in eqn.invars]
        if not any(of_operands):
            continue
        if eqn.primitive.name in PLAIN_CALLS:
            body = next(sub_jaxprs(eqn))
            inner = _follow(body, {v: k for v, k in zip(body.invars, of_operands, strict=True) if k})
            if inner is None:
                return None
            results = [None if isinstance(var, Literal) else inner.get(var) for var in body.outvars]
        else:
            result = _kind_of_result(eqn, of_operands)
            if result == "other":
                return None
            results = [result]
        kinds |= {var: kind for var, kind in zip(eqn.outvars, results, strict=True) if kind}
    return kinds


def _kind_of_result(eqn: JaxprEqn, of_operands: list[str | None]) -> str | None:
    """None for what need not be followed, `"other"` for any use but a bias correction."""
    name, first, last = eqn.primitive.name, of_operands[0], of_operands[-1]
    kind = next(kind for kind in of_operands if kind)
    if (
        name in _CONVERSIONS
        or (kind == "count" and name in _COUNTING)
        or (kind, name) == ("correction", "sqrt")
    ):
        return kind
    if name == "pow" and first is None and last == "count":
        return "power"
    is_one_less = isinstance(eqn.invars[0], Literal) and eqn.invars[0].val == 1
    if name == "sub" and is_one_less and last == "power":
        return "correction"
    return None if name == "div" and last == "correction" else "other"
