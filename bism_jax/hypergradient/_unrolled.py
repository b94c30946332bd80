"""Exact hypergradients: differentiate through every step of the lower-level optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from bism_jax import checks
from bism_jax.hypergradient._mixed_mode import lower_gradient
from bism_jax.hypergradient._singular_points import make_differentiable
from bism_jax.hypergradient._solve import AbstractStrategy, Prepared
from bism_jax.hypergradient._steps import Carry, StepFn, Steps, first_input, make_step, no_steps, run
from bism_jax.hypergradient._trusted_rules import check_trusted


@dataclass(frozen=True)
class Unrolled(AbstractStrategy):
    """Reverse mode through all N steps; exact with respect to phi^0, theta, real and complex `inputs`, and
    the optimiser.

        phi^{n+1} = phi^n + optimizer(grad_phi G(phi^n, theta, x_n)),   n = 0 .. N-1
        d/dtheta J(theta, phi^N) = dJ/dtheta + (dphi^N/dtheta)^T dJ/dphi

    Memory grows with N by one phi and optimiser state a step, or with sqrt(N) where `segment` is set,
    for one more evaluation of each lower-level gradient. `losses` and the returned `opt_state` carry
    no gradient; the `opt_state` that is passed, with its moments and injected hyperparameters, does. Integer
    and key leaves of theta and `inputs` get none. Derivatives of any order are exact; forward mode
    (`jax.jvp`, `jax.jacfwd`) needs `mixed_mode=False`.

    Attributes:
        num_steps: N.
        segment: None, the length of a checkpointed segment, or `"sqrt"` for the length nearest sqrt(N).
            It need not divide N.
        mixed_mode: whether Hessian-vector products come by forward-over-reverse differentiation
            (arXiv 2505.00793), which stores no intermediate values of the loss; where the loss holds
            a rule that may not be a true derivative, plain reverse mode is used and a warning says so.
        trusted: functions with a custom rule, functions that call one, and primitives, whose derivatives are
            true to second order, so that mixed mode may run through them. Nothing checks this.

    Raises:
        ValueError: on a negative `num_steps` or a `segment` that is neither positive nor `"sqrt"`.
        TypeError: where `trusted` is no tuple of functions and primitives, or holds a custom_vjp, which has
            no forward mode.
    """

    segment: int | Literal["sqrt"] | None = None
    mixed_mode: bool = True
    trusted: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.boolean("mixed_mode", self.mixed_mode)
        check_trusted(self.trusted)
        if self.segment is not None and self.segment != "sqrt":
            checks.positive_int("segment", self.segment, alternative='"sqrt" or None')

    def _run(self, prepared: Prepared) -> Steps:
        problem, phi, theta, inputs, opt_state, update = prepared
        carry = phi, opt_state
        if self.num_steps == 0:  # which need no derivative of the loss or the optimiser
            return no_steps(carry)
        optimizer = make_differentiable(problem.optimizer, update, opt_state, phi)
        options: Any = {"mixed_mode": self.mixed_mode, "trusted": self.trusted}
        gradient_fn = lower_gradient(problem.loss_fn, phi, theta, first_input(inputs), **options)
        step = make_step(replace(problem, optimizer=optimizer), gradient_fn, theta)
        length = self._segment_length()
        if length is None:
            return run(step, carry, inputs, self.num_steps)
        return _run_segments(step, carry, inputs, self.num_steps, length)

    def _segment_length(self) -> int | None:
        # N / s starts and the s steps of one segment are kept, the fewest at s = sqrt(N).
        length = math.isqrt(self.num_steps - 1) + 1 if self.segment == "sqrt" else self.segment
        # A single segment would compute every step twice and keep them all.
        return None if length is None or length >= self.num_steps else length


def _run_segments(step: StepFn, carry: Carry, inputs: PyTree, num_steps: int, length: int) -> Steps:
    """Scans over checkpointed segments, the last of which may be shorter."""
    count, remainder = divmod(num_steps, length)
    split = count * length

    def segment_of(length: int) -> Callable[[Carry, PyTree], Steps]:
        def segment(carry: Carry, inputs: PyTree) -> Steps:
            # Written out, XLA merges the steps' second computation with the first and keeps it in memory.
            return run(step, carry, inputs, length, unroll=False)

        # Inside a scan nothing can be merged across the checkpoint, so the guard against it only costs. With
        # a static argument in the place of the closure, JAX would keep `step` and its tracers in a cache.
        return jax.checkpoint(segment, prevent_cse=False)

    stacked = jax.tree.map(lambda leaf: leaf[:split].reshape(count, length, *leaf.shape[1:]), inputs)
    carry, losses = jax.lax.scan(segment_of(length), carry, stacked, length=count)
    losses = losses.reshape(split)
    if remainder:
        rest = jax.tree.map(lambda leaf: leaf[split:], inputs)
        carry, rest_losses = segment_of(remainder)(carry, rest)
        losses = jnp.concatenate([losses, rest_losses])
    return carry, losses
