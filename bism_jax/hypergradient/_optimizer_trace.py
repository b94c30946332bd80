"""What an optimiser's update does to each leaf of its state, read off its trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from bism_jax._jax_switches import standard_promotion
from bism_jax._tracing.jax_internals import PLAIN_CALLS, Jaxpr, JaxprEqn, Literal, aval_of
from bism_jax._tracing.jaxprs import bodies, dependent_equations

# What may have been added to a leaf of the state, by whichever branch; None where it is something else.
Increments = frozenset[int] | None
# What a variable may be: numbered leaves of the state, each with what was added to it.
_Origin = frozenset[tuple[int, int]] | None
_SATURATED = -1  # the number of the largest integer, at which a counter stays


class UpdateTrace(NamedTuple):
    """An update `(grads, state, params) -> (updates, state)` as a jaxpr with flat arguments and results.

    Attributes:
        jaxpr: the trace.
        consts: what the update closes over.
        num_params: leaves of the gradient, of the parameters and of the updates.
        num_state: leaves of the state.
        out_tree: the structure of (updates, state).
    """

    jaxpr: Jaxpr
    consts: list[Any]
    num_params: int
    num_state: int
    out_tree: Any

    @property
    def state_out(self) -> list[Any]:
        """The variables of the new state."""
        return list(self.jaxpr.outvars[self.num_params :])

    def marks(self, start: int, count: int = 1) -> list[bool]:
        """A mark on `count` inputs from `start`."""
        return [start <= index < start + count for index in range(len(self.jaxpr.invars))]

    def increments(self) -> list[Increments]:
        """What the update may have added to each leaf of the state."""
        leaves = [None] * self.num_params + [frozenset({(index, 0)}) for index in range(self.num_state)]
        results = _origins(self.jaxpr, leaves + [None] * self.num_params)[self.num_params :]
        return [_increments_of(index, origin) for index, origin in enumerate(results)]

    def matters(self, index: int) -> bool:
        """Whether the updates depend on a leaf of the state."""
        return self._reaches_updates(self.marks(self.num_params + index))

    def depends_on_params(self) -> bool:
        """Whether the updates depend on the parameters, as with weight decay."""
        return self._reaches_updates(self.marks(self.num_params + self.num_state, self.num_params))

    def depends_on_gradients(self) -> list[bool]:
        """For each leaf of the parameters whether its update depends on its own gradient."""
        return [
            dependent_equations(self.jaxpr, self.marks(index), lambda eqn: None)[index]
            for index in range(self.num_params)
        ]

    def _reaches_updates(self, marks: list[bool]) -> bool:
        return any(dependent_equations(self.jaxpr, marks, lambda eqn: None)[: self.num_params])


def trace_update(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    state: PyTree,
    params: PyTree,
    name: str = "optimizer",
) -> UpdateTrace:
    """Traces an update; only shapes and dtypes matter. Errors call the optimiser `name`.

    Raises:
        ValueError: where the update cannot be called with gradient, state and parameters alone, or returns a
            state of another structure.
    """
    out_trees: list[Any] = []

    def update(grads: PyTree, state: PyTree, params: PyTree) -> list[Any]:
        leaves, out_tree = jax.tree.flatten(tuple(optimizer.update(grads, state, params)))
        out_trees.append(out_tree)
        return leaves

    try:
        with standard_promotion():
            closed = jax.make_jaxpr(update)(grads, state, params)
    except Exception as error:
        raise ValueError(
            f"{name} cannot update from a gradient, its state (of {names_of_states(state)}) and the "
            f"parameters alone: {type(error).__name__}: {error}. One that asks for the loss (lbfgs, "
            "polyak_sgd, a line search, reduce_on_plateau) is none for a loss with new noise at each step; "
            "take optax.sgd, optax.adam or another first-order one, with a schedule of its learning rate, "
            "and a state of its own init."
        ) from error
    sizes = len(jax.tree.leaves(params)), len(jax.tree.leaves(state))
    # `lax.scan` would refuse it too, but in terms of a carry that the user has never seen.
    if out_trees[0].num_leaves != sum(sizes):
        raise ValueError(
            f"{name} returns a state of another structure than it takes, so its steps cannot be a loop; "
            "start it from the state that its own init returns."
        )
    return UpdateTrace(closed.jaxpr, list(closed.consts), *sizes, out_trees[0])


def check_state(name: str, optimizer: optax.GradientTransformation, state: PyTree, params: PyTree) -> None:
    """Raises ValueError where `state`, given as `name`, is not one of the optimiser's for these parameters.

    Optax itself passes over what it does not use: descent takes Adam's moments without a word.
    """
    try:
        with standard_promotion():
            expected = jax.eval_shape(optimizer.init, params)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        return  # an init that looks at values, which tells nothing while traced
    structures: list[Any] = [jax.tree.structure(expected), jax.tree.structure(state)]
    if structures[0] != structures[1]:
        raise ValueError(
            f"{name} is a state of {names_of_states(state)}, but optimizer keeps one of "
            f"{names_of_states(expected)}; pass what its own init returns for these parameters."
        )
    leaves = zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(state), strict=True)
    for (path, leaf), found in leaves:
        # A number may be a hyperparameter, which a user may set to what broadcasts.
        if leaf.shape != () and leaf.shape != jnp.shape(found):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} has shape {jnp.shape(found)}, but for these parameters "
                f"optimizer keeps {leaf.shape}: it is the state of other parameters. Pass what its own init "
                "returns for these."
            )


def named_states(state: PyTree) -> list[Any]:
    """The NamedTuples in an optimiser's state."""
    found: list[Any] = []

    def visit(node: Any) -> bool:
        # `is_leaf` is asked of every inner node, for which `jax.tree` has no other walk.
        if hasattr(node, "_fields"):
            found.append(node)
        return False

    jax.tree.leaves(state, is_leaf=visit)
    return found


def names_of_states(state: PyTree) -> str:
    """What an optimiser's state consists of, for messages."""
    names = sorted({type(node).__name__ for node in named_states(state)} - {"EmptyState"})
    return ", ".join(names) or ("no memory" if named_states(state) else f"type {type(state).__name__}")


def passed_on(trace: UpdateTrace) -> list[bool]:
    """For each leaf of the state whether the update returns it as it came, as an injected hyperparameter."""
    # In every branch: what one of them resets is no constant.
    return [increments == {0} for increments in trace.increments()]


def is_count(increments: Increments) -> bool:
    """Whether a leaf grows by one an update, at least in some branch."""
    # `optax.apply_if_finite` and `MultiSteps` leave the counters within alone at some calls.
    return increments in ({1}, {0, 1})


def _increments_of(index: int, origin: _Origin) -> Increments:
    if origin is None or not {leaf for leaf, _ in origin} <= {index, _SATURATED}:
        return None
    return frozenset(increment for _, increment in origin)


def _origins(jaxpr: Jaxpr, inputs: Sequence[_Origin]) -> list[_Origin]:
    """What each result of a jaxpr is, from what its inputs are."""
    origins = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> _Origin:
        return _origin_of_literal(atom) if isinstance(atom, Literal) else origins.get(atom)

    for eqn in jaxpr.eqns:
        if any(not isinstance(atom, Literal) and origins.get(atom) for atom in eqn.invars):
            # An equation that is not followed has no results here, so that what it computes stays unknown.
            results = _through_equation(eqn, [read(atom) for atom in eqn.invars])
            origins.update(zip(eqn.outvars, results, strict=False))
    return [read(atom) for atom in jaxpr.outvars]


def _origin_of_literal(atom: Literal) -> _Origin:
    aval = aval_of(atom)
    # `optax.safe_increment` is a selection between count + 1 and the largest integer.
    is_integer = jnp.issubdtype(aval.dtype, jnp.integer) and aval.shape == ()
    return frozenset({(_SATURATED, 1)}) if is_integer and atom.val == jnp.iinfo(aval.dtype).max else None


def _through_equation(eqn: JaxprEqn, operands: list[_Origin]) -> list[_Origin]:
    name = eqn.primitive.name
    if name in ("convert_element_type", "copy"):
        return operands
    if name == "add" and any(isinstance(atom, Literal) and atom.val == 1 for atom in eqn.invars):
        origin = next(operand for operand in operands if operand)
        return [frozenset((leaf, increment + 1) for leaf, increment in origin)]
    if name == "select_n":
        return [_union(operands[1:])]
    if name == "cond":
        return [
            _union(results)
            for results in zip(*(_origins(b, operands[1:]) for b, _ in bodies(eqn)), strict=True)
        ]
    return _origins(next(bodies(eqn))[0], operands) if name in PLAIN_CALLS else []


def _union(origins: Iterable[_Origin]) -> _Origin:
    union: frozenset[tuple[int, int]] = frozenset()
    for origin in origins:
        if origin is None:
            return None
        union |= origin
    return union
