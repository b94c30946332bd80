"""What all strategies do alike: check and trace the arguments, run N steps, and hand over the solution."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from bism_jax import checks
from bism_jax.hypergradient._loss_trace import hoist_closure
from bism_jax.hypergradient._optimizer_trace import UpdateTrace, check_state, trace_update
from bism_jax.hypergradient._problem import LowerProblem, LowerSolution, check_problem
from bism_jax.hypergradient._steps import Steps, first_input


class Prepared(NamedTuple):
    """The arguments of `solve`, checked, with what the loss closes over moved into theta."""

    problem: LowerProblem
    phi: PyTree
    theta: PyTree
    inputs: PyTree
    opt_state: PyTree
    update: UpdateTrace


# Not derived from the protocol `Strategy`, whose property `num_steps` a dataclass would take for a default.
@dataclass(frozen=True)
class AbstractStrategy(abc.ABC):
    """What strategies share: `solve`. Each of them gives how its steps run and are differentiated."""

    num_steps: int

    def __post_init__(self) -> None:
        checks.non_negative_int("num_steps", self.num_steps)

    def solve(
        self,
        problem: LowerProblem,
        phi: PyTree,
        theta: PyTree,
        inputs: PyTree = None,
        opt_state: PyTree = None,
    ) -> LowerSolution:
        """Runs N steps from `phi`.

        Args:
            problem: loss and optimiser.
            phi: lower-level parameters, floating leaves.
            theta: higher-level parameters, any pytree.
            inputs: pytree with leading axis N, one slice a step; None passes None to the loss.
            opt_state: the optimiser's state; None starts a fresh one.

        Raises:
            ValueError: where `inputs` lacks the leading axis, the loss cannot be evaluated, is no scalar or
                sums over devices itself, `opt_state` is not one of the optimiser's, or the optimiser asks for
                more than a gradient or cannot be differentiated by this strategy.
            TypeError: where `problem` is no `LowerProblem`, or leaves are no arrays.
        """
        prepared = prepare(problem, self.num_steps, phi, theta, inputs, opt_state)
        (phi, opt_state), losses = self._run(prepared)
        # Auxiliary: a derivative that only some strategies give would silently be zero in the others.
        return LowerSolution(phi, jax.lax.stop_gradient(opt_state), losses)

    @abc.abstractmethod
    def _run(self, prepared: Prepared) -> Steps:
        """N steps, with the derivative that this strategy gives them."""


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
        # Without a step nothing is averaged, and N = 0 may stand outside of the mapped axis.
        _check_axis(problem.axis_name)
    if opt_state is None:
        opt_state = problem.optimizer.init(phi)
    else:
        check_state("opt_state", problem.optimizer, opt_state, phi)
    # Once for all: whether the steps can be differentiated, and how, is read off this trace.
    # Phi stands for its gradient, which has the same shapes and dtypes.
    update = trace_update(problem.optimizer, phi, opt_state, phi, "problem.optimizer")
    if num_steps > 0:
        loss_fn, theta = hoist_closure(problem.loss_fn, phi, theta, first_input(inputs), problem.axis_name)
        problem = replace(problem, loss_fn=loss_fn)
    return Prepared(problem, phi, theta, inputs, opt_state, update)


def _check_axis(axis_name: Any) -> None:
    try:
        if axis_name is not None:
            # JAX has no public query for mapped axes; where the axis exists, the unused index is dropped.
            jax.lax.axis_index(axis_name)
    except NameError as error:
        raise ValueError(
            f"problem.axis_name={axis_name!r} is no mapped axis here; leave it None, or solve within "
            "jax.pmap or jax.shard_map over an axis of this name."
        ) from error
