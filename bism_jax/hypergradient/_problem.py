"""The lower-level problem, its solution, and what a strategy is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import optax
from jaxtyping import Array, Float, PyTree

from bism_jax import checks

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


def check_problem(problem: Any) -> None:
    """Raises TypeError unless it is a `LowerProblem`."""
    if not isinstance(problem, LowerProblem):
        raise TypeError(f"problem must be LowerProblem(loss_fn, optimizer), not {problem!r}.")
