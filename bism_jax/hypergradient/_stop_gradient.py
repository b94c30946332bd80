"""N steps without differentiating through them: the N = 0 hypergradient at phi^N."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from bism_jax.hypergradient._solve import AbstractStrategy, Prepared
from bism_jax.hypergradient._steps import Steps, make_step, run


@dataclass(frozen=True)
class StopGradient(AbstractStrategy):
    """Takes phi^N as a constant: only the direct term dJ/dtheta at phi^N is left.

    An estimator, not the hypergradient: derivatives with respect to phi^0, theta, `inputs` and the optimiser
    through the lower level are zero by definition, to every order. With `num_steps=0` this is the paper's
    N = 0.

    Attributes:
        num_steps: N.

    Raises:
        ValueError: on a negative `num_steps`.
    """

    def _run(self, prepared: Prepared) -> Steps:
        problem, *arguments, _ = prepared
        # Before the loop, which then has no tangents, so that reverse mode stores nothing of it.
        phi, theta, inputs, opt_state = jax.lax.stop_gradient(arguments)
        # Mixed mode saves memory of a backward pass, and there is none.
        step = make_step(problem, jax.value_and_grad(problem.loss_fn), theta)
        # Once more, for what the optimiser closes over.
        return jax.lax.stop_gradient(run(step, (phi, opt_state), inputs, self.num_steps))
