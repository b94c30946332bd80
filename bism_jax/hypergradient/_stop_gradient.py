"""N steps without differentiating through them: the N = 0 hypergradient at phi^N."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jaxtyping import PyTree

from bism_jax import checks
from bism_jax.hypergradient._problem import (
    LowerProblem,
    LowerSolution,
    make_step,
    no_losses,
    prepare,
    run,
    solution,
)


@dataclass(frozen=True)
class StopGradient:
    """Takes phi^N as a constant: only the direct term dJ/dtheta at phi^N is left.

    An estimator, not the hypergradient: derivatives with respect to phi^0, theta, `inputs` and the optimiser
    through the lower level are zero by definition, to every order. With `num_steps=0` this is the paper's N =
    0.

    Attributes:
        num_steps: N.

    Raises:
        ValueError: on a negative `num_steps`.
    """

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
        """Runs N steps from `phi`; arguments and errors as in `Unrolled.solve`."""
        problem, phi, theta, inputs, opt_state, _ = prepare(
            problem, self.num_steps, phi, theta, inputs, opt_state
        )
        if self.num_steps == 0:
            return jax.lax.stop_gradient(solution((phi, opt_state), no_losses(phi)))
        constants = jax.lax.stop_gradient((phi, theta, inputs, opt_state))
        return jax.lax.stop_gradient(solve_without_gradient(problem, self.num_steps, *constants))


def solve_without_gradient(
    problem: LowerProblem, num_steps: int, phi: PyTree, theta: PyTree, inputs: PyTree, opt_state: PyTree
) -> LowerSolution:
    """The primal solution, for strategies that do not differentiate through these steps."""
    step = make_step(problem, jax.value_and_grad(problem.loss_fn), theta)
    return solution(*run(step, (phi, opt_state), inputs, num_steps))
