"""What every method checks of a key, a batch and a state; while tracing, of their shapes and dtypes alone."""

from __future__ import annotations

from typing import Any

import jax
import optax
from jaxtyping import Array, Key, PyTree

from bism_jax import checks
from bism_jax._tracing.compilation import call_compiled
from bism_jax.checks import finite_rows, is_known
from bism_jax.hypergradient._optimizer_trace import trace_update
from bism_jax.methods._common.optimizers import Optimizers
from bism_jax.objectives import Divergence
from bism_jax.typing import Algorithm, InitFn, IterationFn

_BATCH = "[batch, *visible]"


def checked_algorithm(state_type: type, init: InitFn, step: IterationFn) -> Algorithm:
    """`Algorithm(init, step)` whose arguments are checked before they are used.

    A step that fails is looked into: where its state is not the one that `init` makes for such a batch, that
    is the error. (Comparing first would trace the model once more for every program.)

    Args:
        state_type: what `init` returns.
        init: as in `Algorithm`.
        step: as in `Algorithm`.
    """

    def checked_init(rng_key: Key[Array, ""], batch: Array) -> Any:
        key = checks.rng_key("rng_key", rng_key)
        checks.array("batch", batch, _BATCH)
        if is_known(batch):
            finite_rows("batch", batch)
        return init(key, batch)

    def checked_step(rng_key: Key[Array, ""], state: Any, batch: Array) -> tuple[Any, Any]:
        key = checks.rng_key("rng_key", rng_key)
        checks.array("batch", batch, _BATCH)
        if not isinstance(state, state_type):
            raise TypeError(
                f"state must be the {state_type.__name__} that init or the last step returned, not a "
                f"{type(state).__name__}; the result of fit has no optimiser's state, so continue one by its "
                "checkpoint_dir."
            )
        try:
            return step(key, state, batch)
        except Exception as error:
            # Of any type: what a user's model raises on such a state is its own affair.
            _explain(init, key, state, batch, error)
            raise

    return Algorithm(checked_init, checked_step)


def check_divergence(divergence: Any) -> None:
    """Raises TypeError unless it is a lower-level divergence, which objectives look like."""
    checks.instance("divergence", divergence, Divergence, "KL()")
    # Both have a `loss`, which is all that the protocol can see; only objectives perturb.
    if hasattr(divergence, "perturb"):
        raise TypeError(f"divergence must be a value such as KL(), not the objective {divergence!r}.")


def start_optimizer(name: str, optimizer: optax.GradientTransformation, params: PyTree) -> PyTree:
    """The first state of an optimiser.

    Raises:
        ValueError: where it cannot update from a gradient alone, named `name`, before anything is compiled.
    """
    return _start(((name, optimizer),), (params,))[0]


def start_optimizers(optimizers: Optimizers, theta: PyTree, phi: PyTree) -> tuple[PyTree, PyTree]:
    """The first states of both levels' optimisers; raises as `start_optimizer`."""
    named = (("optimizers.theta", optimizers.theta), ("optimizers.phi", optimizers.phi))
    return _start(named, (theta, phi))


def _start(
    named: tuple[tuple[str, optax.GradientTransformation], ...], all_params: tuple[PyTree, ...]
) -> tuple[PyTree, ...]:
    def init(*all_params: PyTree) -> tuple[PyTree, ...]:
        pairs = zip(named, all_params, strict=True)
        return tuple(_init_optimizer(name, optimizer, params) for (name, optimizer), params in pairs)

    # One program for both levels: what runs once costs its compilation.
    states = call_compiled(init, *all_params)
    for (name, optimizer), params, state in zip(named, all_params, states, strict=True):
        # For its refusals: parameters stand in for gradients, which have the same shapes.
        trace_update(optimizer, params, state, params, name)
    return states


def _init_optimizer(name: str, optimizer: optax.GradientTransformation, params: PyTree) -> PyTree:
    try:
        return optimizer.init(params)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{name} cannot start on parameters of the structure {jax.tree.structure(params)}: "
            f"{type(error).__name__}: {error}. Masks and labels must have that structure; or take optax.adam."
        ) from error


def _explain(init: InitFn, key: Array, state: Any, batch: Array, error: Exception) -> None:
    """Raises ValueError where `init` would not make a state of these shapes for such a batch."""
    try:
        # Of shapes alone, as `init` would compile and draw parameters only to be compared.
        expected = jax.eval_shape(init, key, batch)
    except (TypeError, ValueError) as reason:
        raise ValueError(
            f"batch of shape {batch.shape} is none that the model can be trained on: {reason}"
        ) from error
    for field in expected._fields:
        if field == "chains":  # their number is that of the rows of the first batch
            continue
        found, wanted = getattr(state, field), getattr(expected, field)
        if _shapes(found) != _shapes(wanted):
            raise ValueError(
                f"state.{field} is none for this model and a batch of shape {batch.shape}: "
                f"{_difference(found, wanted)}. Pass the state that init returns for such a batch."
            ) from error


def _shapes(tree: PyTree) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), [jax.numpy.shape(leaf) for leaf in jax.tree.leaves(tree)]


def _difference(found: PyTree, wanted: PyTree) -> str:
    """The first shape that differs, or the structures."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (found, wanted)]
    if structures[0] == structures[1]:
        leaves = zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True)
        for (path, leaf), other in leaves:
            if jax.numpy.shape(leaf) != other.shape:
                where = jax.tree_util.keystr(path) or "it"
                return f"{where} has shape {jax.numpy.shape(leaf)}, not {other.shape}"
    return f"its structure is {structures[0]}, not {structures[1]}"
